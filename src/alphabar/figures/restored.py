"""What a damaged picture may have been."""

import numpy as np

from alphabar.figures.panels import Frame, frame, mosaic, read
from alphabar.figures.style import LIGHT, Style, StyledFigure

SIDE = 2.6  # inches of a panel


def restored(
    given: Frame,
    draws: Frame,
    *,
    title: str | None = None,
    style: Style = LIGHT,
) -> StyledFigure:
    """The picture as it was given, the mean of the draws, their spread, and the draws.

    The spread is the standard deviation of each number over the draws, averaged over the colours,
    from black (all draws agree) to white (the largest there is).

    Args:
        given: the damaged picture, (1, C, H, W); unknown pixels NaN.
        draws: (n, C, H, W), what it may have been.
        title: in place of the style's own.
    """
    before, after = read(given), read(draws)
    spread = after.std(0, keepdims=True).mean(1, keepdims=True)
    largest = spread.max()
    shown = 2 * spread / largest - 1 if largest > 0 else spread - 1
    panels = {
        "given": before,
        "mean": after.mean(0, keepdims=True),
        "spread": shown,
        "draws": after,
    }
    with style.applied(title or ""):
        title = title or style.text("title", "restored")
        figure = style.figure(SIDE * len(panels), SIDE + 0.9, title, written=title)
        for axes, (name, pictures) in zip(
            figure.subplots(1, len(panels)), panels.items(), strict=True
        ):
            axes.imshow(mosaic(np.nan_to_num(pictures, nan=0.0)), interpolation="nearest")
            axes.set_title(style.text("panel", name, n=f"{len(after):,}"))
            frame(axes, style)
    return figure
