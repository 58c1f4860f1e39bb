"""A process as a film: .gif, or .mp4 by the ffmpeg that imageio-ffmpeg carries."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import SupportsFloat, SupportsInt

import imageio_ffmpeg
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from alphabar.figures.panels import Frames, Hue, View, check_lengths, moment, read, read_hue
from alphabar.figures.style import LIGHT, Style

SUFFIXES = (".gif", ".mp4")
COLOURS, GREYS = 80, 8  # of a gif: fewer than it may have, for a smaller file
SIDE = 4.0  # inches across
HOLD = 1.5  # seconds that the last frame stays


def animation(
    frames: Frames,
    t: Iterable[SupportsInt],
    alpha_bar: Iterable[SupportsFloat],
    hue: Hue | None,
    path: str | Path,
    *,
    fps: int = 20,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    style: Style = LIGHT,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the forward or the reverse process as a film; the last frame stays for a moment.

    Args:
        frames: x at each of the moments: points or pictures.
        t: the moments; if they descend, it is the reverse process.
        alpha_bar: ᾱ_t of each moment.
        hue: (N,) in [0, 1], the colour of each point, or None.
        path: a file that ends in .gif or .mp4; it is overwritten.
        fps: frames a second, 1 to 50 (browsers show a gif no faster).
        columns: names of the columns of points.
        title: in place of the style's own.
        advance: called after each frame.

    Raises:
        ValueError: another suffix, fps outside 1..50, or not as many t and alpha_bar as frames.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: a film ends in {' or '.join(SUFFIXES)}")
    if not 1 <= fps <= 50:
        raise ValueError(f"fps = {fps}: it must be from 1 to 50")
    arrays, ts, alpha_bars = [read(x) for x in frames], list(map(int, t)), list(alpha_bar)
    check_lengths(len(arrays), t=ts, alpha_bar=alpha_bars)
    captions = [
        moment(s, float(a)).replace("\n", "    ") for s, a in zip(ts, alpha_bars, strict=True)
    ]
    film = _Film(arrays, captions, hue, columns, title, ts[0] > ts[-1], style, advance)
    path.touch()  # a folder that is not there is the system's error here, not ffmpeg's later
    (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(film, path, fps)


class _Film:
    """The frames as pictures (H, W, 3), drawn when asked for; H and W are even, as video needs."""

    def __init__(
        self,
        arrays: list[np.ndarray],
        captions: list[str],
        hue: Hue | None,
        columns: Sequence[str] | None,
        title: str | None,
        reverse: bool,
        style: Style,
        advance: Callable[[], None],
    ) -> None:
        self.arrays, self.captions, self.advance = arrays, captions, advance
        self.view = View(arrays, style, columns)
        written = "".join([title or "", *self.view.notes])
        with style.applied(written):
            title = title or style.text("title", "reverse" if reverse else "forward")
            height = 0.55 + 0.15 * len(self.view.notes) + SIDE * self.view.aspect
            self.figure = style.figure(SIDE, height, title, self.view.notes, written)
            self.axes = self.figure.subplots()
            self.artist = self.view.draw(self.axes, arrays[0], read_hue(hue))
            # The longest caption is laid out first; then nothing moves but the points.
            self.axes.set_title(max(captions, key=len), fontsize=11)
            self.figure.pixels()
            self.figure.set_layout_engine("none")

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in range(len(self)):
            yield self[i]
            self.advance()

    def __getitem__(self, i: int) -> np.ndarray:
        with self.figure.style.applied(self.figure.written):
            self.view.move(self.artist, self.arrays[i])
            self.axes.set_title(self.captions[i], fontsize=11)
            return self.figure.pixels()


def _write_gif(film: _Film, path: Path, fps: int) -> None:
    palette = _palette(film)

    def pages() -> Iterator[Image.Image]:
        for picture in film:
            yield Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)

    first, *rest = pages()
    step = round(100 / fps) * 10  # a gif counts in hundredths of a second
    durations = [step] * len(rest) + [step + round(1000 * HOLD)]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def _palette(film: _Film) -> Image.Image:
    """One for the whole film: with one for each frame the background would flicker."""
    ends = np.concatenate([film[0], film[len(film) // 2], film[len(film) - 1]])
    theme = film.figure.style.colours
    paper, ink = (255 * np.array(to_rgb(colour)) for colour in (theme.paper, theme.ink))
    greys = np.linspace(paper, ink, GREYS).round()
    found = Image.fromarray(ends).quantize(COLOURS - GREYS, Image.Quantize.MEDIANCUT).getpalette()
    colours = np.array(found, float).reshape(-1, 3)
    # Paper and ink come out exactly only if no colour is almost the same.
    far = np.linalg.norm(colours[:, None] - greys[[0, -1]], axis=2).min(axis=1) > 12
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, colours[far]]).astype(int).ravel().tolist())
    return palette


def _write_mp4(film: _Film, path: Path, fps: int) -> None:
    height, width = film[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(  # type: ignore[attr-defined,no-untyped-call]
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",  # what every browser and phone plays
        macro_block_size=2,
        output_params=["-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for picture in film:
            writer.send(picture)
        for _ in range(round(HOLD * fps)):
            writer.send(picture)
    finally:
        writer.close()
