"""Words with formulas as HTML: Markdown by markdown-it, $TeX$ as SVG by ziamath."""

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


def plain_text(text: str) -> str:
    """A line without its marks, for the `alt` of a picture."""
    return re.sub(r"[$*`]", "", text)


def _with_math(text: str, render: Callable[[str], str]) -> Markup:
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(match.group(1))
        return f"\ue000{len(formulas) - 1}\ue001"  # private characters: Markdown leaves them alone

    rendered = render(_MATH.sub(keep, text))
    return Markup(
        re.sub(r"\ue000(\d+)\ue001", lambda m: math_svg(formulas[int(m.group(1))]), rendered)
    )


def display(tex: str) -> Markup:
    """A formula on a line of its own."""
    return Markup('<div class="display">{}</div>').format(math_svg(tex, 20.0))


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


def number_html(value: float) -> Markup:
    """Three digits, with a real minus sign, ×10ⁿ and ∞."""
    if not math.isfinite(value):
        return Markup("−∞" if value < 0 else "∞" if value > 0 else "–")
    text = re.sub(r" \\times 10\^\{(-?\d+)\}", r"×10<sup>\1</sup>", number(value))
    return Markup(text.replace("-", "−"))
