"""Words with formulas as HTML: Markdown by markdown-it, $TeX$ as SVG by ziamath."""

import html
import math
import re
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from markupsafe import Markup

from alphabar.figures.panels import number

_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_MATH = re.compile(r"\$([^$]+)\$")


def prose(text: str) -> Markup:
    """Paragraphs of Markdown with $TeX$ in them."""
    return _with_math(text.strip(), _MARKDOWN.render)


def inline(text: str) -> Markup:
    """A line of Markdown with $TeX$ in it."""
    return _with_math(text.strip(), _MARKDOWN.renderInline)


def fill(text: str, **values: object) -> str:
    """`text.format(**values)`, with values that stay what they are: no $ or * in them is a mark."""
    return text.format(**{key: _shielded(str(value)) for key, value in values.items()})


# What a person typed goes through Markdown and TeX as characters that mean nothing to either.
_SHIELD = {ord(c): 0xE100 + ord(c) for c in "$*_`[]()<>&\\~#!{}|'\""}
_UNSHIELD = {shield: html.escape(chr(c)) for c, shield in _SHIELD.items()}


def _shielded(text: str) -> str:
    return text.translate(_SHIELD)


def plain_text(text: str) -> str:
    """A line without its marks, for the `alt` of a picture."""
    return re.sub(r"[$*`]", "", text)


def _with_math(text: str, render: Callable[[str], str]) -> Markup:
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(match.group(1))
        return f"\ue000{len(formulas) - 1}\ue001"  # private characters: Markdown leaves them alone

    def put_back(match: re.Match[str]) -> str:
        # What follows without a space (a comma, a Korean particle) stays on the formula's line.
        svg, rest = math_svg(formulas[int(match.group(1))]), match.group(2)
        return f'<span class="whole">{svg}{rest}</span>' if rest else svg

    rendered = render(_MATH.sub(keep, text))
    whole = re.sub(r"\ue000(\d+)\ue001([^\s<\ue000]*)", put_back, rendered)
    return Markup(whole.translate(_UNSHIELD))


def display(tex: str, size: float = 20.0) -> Markup:
    """A formula on a line of its own."""
    return Markup('<div class="display">{}</div>').format(math_svg(tex, size))


@cache
def math_svg(tex: str, size: float = 17.0) -> Markup:
    """A formula as SVG, in the colour of the text around it and on its baseline.

    Its TeX is the label for those who cannot see it.

    Args:
        tex: the formula.
        size: in pixels.

    Raises:
        ValueError: TeX that cannot be set.
    """
    try:
        svg: ElementTree.Element = _ziamath().Latex(tex, size=size, color="currentColor").svgxml()
    except Exception as error:  # a parser of others: it raises what it likes
        raise ValueError(f"the formula {tex!r} cannot be set: {error}") from error
    _, top, _, height = map(float, svg.attrib["viewBox"].split())
    svg.set("class", "math")
    svg.set("role", "img")
    svg.set("aria-label", tex)
    svg.set("style", f"--drop: {-(top + height):.2f}px")
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


@cache
def _ziamath() -> ModuleType:
    with warnings.catch_warnings():
        # It finds its font in a way that Python 3.11 deprecates and 3.13 allows again.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ziamath
    config = ziamath.config  # type: ignore[attr-defined]
    config.svg2 = False  # paths, not symbols with ids, which would clash on a page
    config.precision = 2
    return ziamath


def number_text(value: float) -> str:
    """Three digits, with a real minus sign, ×10ⁿ and ∞.

    >>> number_text(-3e-9), number_text(0.605), number_text(float("inf"))
    ('−3.0×10⁻⁹', '0.605', '∞')
    """
    if not math.isfinite(value):
        return "−∞" if value < 0 else "∞" if value > 0 else "–"
    mantissa, _, exponent = number(value).partition(r" \times 10^{")
    raised = exponent.rstrip("}").translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return mantissa.replace("-", "−") + (f"×10{raised}" if raised else "")
