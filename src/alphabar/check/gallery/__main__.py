"""Writes the page and its pictures: python -m alphabar.check.gallery docs."""

import io
import sys
from pathlib import Path

import torch
from PIL import Image

from alphabar.check.gallery import entries, markdown, picture

DPI, COLOURS = 80, 96


def main(folder: Path) -> None:
    """Write bugs.md, and a picture of each bug in bugs/."""
    torch.set_num_threads(1)
    (folder / "bugs").mkdir(parents=True, exist_ok=True)
    for entry in entries():
        file = io.BytesIO()
        picture(entry.id).savefig(file, format="png", dpi=DPI)
        small = Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(folder / "bugs" / f"{entry.id.lower()}.png", optimize=True)
    (folder / "bugs.md").write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
