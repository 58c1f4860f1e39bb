"""The cases, and what holds for every picture: text is inside it and lies on no other text."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from alphabar.figures import Style
from alphabar.fonts import find_font

LOOKS = [("light", "en"), ("dark", "en"), ("light", "ko"), ("dark", "ko")]
KINDS = ["d1", "d2", "d5", "grey", "colour", "one"]
TS = [0, 20, 60, 100]


def style_of(look):
    if look[1] == "ko" and find_font("한글") is None:
        pytest.skip("no font on this machine has Hangul")
    return Style(*look)


def assert_legible(figure):
    pixels = figure.pixels()
    height, width = pixels.shape[:2]
    paper = np.array([round(255 * c) for c in to_rgb(figure.style.colours.paper)])
    inked = np.abs(pixels.astype(int) - paper).max(axis=2) > 8
    assert 0.005 < inked.mean() < 0.98
    for edge in (inked[0], inked[-1], inked[:, 0], inked[:, -1]):
        assert not edge.any(), "something runs off the figure"
    # matplotlib keeps tick labels beyond the limits; they are not drawn.
    limits = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not _shown(axis, tick)
        for label in (tick.label1, tick.label2)
    }
    boxes = []
    for artist in figure.findobj(Text):
        seen = artist.get_visible() and artist.get_text().strip() and id(artist) not in limits
        if seen and (artist.axes is None or artist.axes.axison):
            boxes.append((artist.get_text(), artist.get_window_extent()))
    assert boxes
    for text, box in boxes:
        assert 0 <= box.x0 < box.x1 <= width, f"{text!r} is cut off"
        assert 0 <= box.y0 < box.y1 <= height, f"{text!r} is cut off"
    for i, (text, box) in enumerate(boxes):
        for other, its in boxes[:i]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            up = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert across < 1 or up < 1, f"{text!r} lies on {other!r}"


def _shown(axis, tick):
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return low - slack <= tick.get_loc() <= high + slack
