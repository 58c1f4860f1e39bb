import threading
from itertools import pairwise

import imageio_ffmpeg
import matplotlib
import numpy as np
import pytest
from figure_checks import KINDS, TS, style_of
from PIL import Image

from alphabar.figures import Style, animation


def pages(path):
    with Image.open(path) as film:
        for i in range(film.n_frames):
            film.seek(i)
            yield film.info["duration"], np.asarray(film.convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_gif_has_every_frame_and_holds_the_last(tmp_path, data, diffuse, kind):
    x, hue = data(kind, 200)
    path = tmp_path / "film.gif"
    animation(diffuse(x), TS, [1, 0.5, 0.1, 0.03], hue, path, fps=20)
    durations, pictures = zip(*pages(path), strict=True)
    assert durations == (50, 50, 50, 1550)
    for a, b in pairwise(pictures):
        # Both the caption and what is under it change.
        assert (a[:50] != b[:50]).any()
        assert (a[60:] != b[60:]).any()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_gif_has_paper_and_ink_exactly(tmp_path, data, diffuse, theme):
    x, hue = data("d2", 200)
    path = tmp_path / "film.gif"
    style = Style(theme)
    animation(diffuse(x), TS, [1, 0.5, 0.1, 0.03], hue, path, style=style)
    for _, picture in pages(path):
        found = {tuple(c) for c in picture.reshape(-1, 3)}
        for colour in (style.colours.paper, style.colours.ink):
            assert tuple(round(255 * v) for v in matplotlib.colors.to_rgb(colour)) in found
        assert len(found) > 40


@pytest.mark.parametrize("kind", ["d2", "colour"])
def test_mp4_plays(tmp_path, data, diffuse, kind):
    x, hue = data(kind, 200)
    path = tmp_path / "film.mp4"
    animation(diffuse(x), TS, [1, 0.5, 0.1, 0.03], hue, path, fps=10)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 4 + 15
    assert seconds == pytest.approx(1.9, abs=0.11)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    reader.close()
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["codec"] == "h264"
    assert all(side % 2 == 0 for side in meta["size"])


def test_korean_film_of_the_reverse_process(tmp_path, data, diffuse):
    style = style_of(("dark", "ko"))
    x, hue = data("d5", 200)
    path = tmp_path / "film.gif"
    animation(diffuse(x, TS[::-1]), TS[::-1], [0.03, 0.1, 0.5, 1], hue, path, style=style)
    assert len(list(pages(path))) == 4


def test_settings_are_left_alone(tmp_path, data, diffuse):
    before = dict(matplotlib.rcParams)
    animation(diffuse(data("d2")[0]), TS, [1, 0.5, 0.1, 0.03], None, tmp_path / "a.gif")
    assert dict(matplotlib.rcParams) == before


def test_two_threads_draw_without_mixing_their_styles(tmp_path, data, diffuse):
    x, hue = data("d2", 200)
    frames = diffuse(x)
    before = dict(matplotlib.rcParams)

    def film(theme, name):
        animation(frames, TS, [1, 0.5, 0.1, 0.03], hue, tmp_path / name, style=Style(theme))

    threads = [
        threading.Thread(target=film, args=(theme, f"{theme}.gif")) for theme in ("light", "dark")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for theme in ("light", "dark"):
        film(theme, "alone.gif")
        assert (tmp_path / "alone.gif").read_bytes() == (tmp_path / f"{theme}.gif").read_bytes()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path, data, diffuse, suffix):
    with pytest.raises(OSError, match=f"film.{suffix}"):
        animation(
            diffuse(data("d2")[0]), TS, [1, 0.5, 0.1, 0], None, tmp_path / "no" / f"film.{suffix}"
        )


def test_bad_input_is_refused_before_anything_is_written(tmp_path, data, diffuse):
    frames = diffuse(data("d2")[0])
    for name, alpha_bar, fps, message in (
        ("a.webm", [1, 0.5, 0.1, 0], 20, r"\.gif or \.mp4"),
        ("a.gif", [1, 0.5], 20, "2 alpha_bar for 4"),
        ("a.gif", [1, 0.5, 0.1, 0], 0, "fps = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            animation(frames, TS, alpha_bar, None, tmp_path / name, fps=fps)
    assert not list(tmp_path.iterdir())
