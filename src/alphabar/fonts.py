"""Find a font on this machine that can write a text.

The only place above `figures/` that touches matplotlib, for its list of the system's font files:
a drawn word and a Korean title need the same answer.
"""

from functools import lru_cache
from pathlib import Path

# Searched first, because they are made for reading; after them, any font that has the glyphs.
_PREFERRED = ("NotoSansKR", "NotoSansCJK", "NanumGothic", "malgun", "AppleSDGothic", "DejaVuSans")


@lru_cache(maxsize=64)
def find_font(text: str) -> Path | None:
    """The file of a font that has a glyph for every character of `text`, or None.

    matplotlib's own DejaVu Sans comes first, so that plain text looks the same everywhere.
    """
    from matplotlib import font_manager, get_data_path
    from matplotlib.ft2font import FT2Font

    # The files are listed anew: matplotlib's cached list does not see a font installed since.
    def rank(path: str) -> tuple[int, str]:
        stem = Path(path).stem
        bold = any(word in stem for word in ("Bold", "Light", "Thin", "Black", "Italic", "Oblique"))
        first = next((i for i, p in enumerate(_PREFERRED) if stem.startswith(p)), len(_PREFERRED))
        return first * 2 + bold, stem

    bundled = str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    for path in [bundled, *sorted(font_manager.findSystemFonts(), key=rank)]:
        try:
            font = FT2Font(path)
        except (RuntimeError, OSError):  # a broken or foreign file among the system's fonts
            continue
        if all(font.get_char_index(ord(c)) for c in text if not c.isspace()):
            return Path(path)
    return None
