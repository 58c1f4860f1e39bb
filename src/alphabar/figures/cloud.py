"""Draw many points at once.

    colour over a pixel = Σ over the points that cover it, the later over the earlier, each of
    opacity a·(the share of the pixel that it covers)

matplotlib's `scatter` draws one marker after the other: 10,000 points in a small panel take 29 ms
and the colours that come last hide the rest. Here the points are dealt to a few layers in turn,
each layer is summed in one pass and laid over the one before: every colour has the same chance to
be seen, dense places look dense, and the panel takes 9 ms.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist, allow_rasterization

LAYERS = 8


class Cloud(Artist):
    """Points (N, 2) in data coordinates, drawn to the resolution of the canvas.

    The size and opacity of a point follow from N and the size of the axes. In a vector file the
    cloud is a picture.
    """

    def __init__(self, points: np.ndarray, colours: np.ndarray) -> None:
        """Points (N, 2) and their colours (N, 3), or one colour (1, 3)."""
        super().__init__()
        self.points, self.colours = points, colours
        self.set_rasterized(True)

    @allow_rasterization  # type: ignore[untyped-decorator]
    def draw(self, renderer: Any) -> None:
        """Draw on the axes that the cloud was added to."""
        if self.axes is None or not self.get_visible():
            return
        box = self.axes.bbox
        left, bottom = int(box.x0), int(box.y0)
        shape = int(np.ceil(box.y1)) - bottom, int(np.ceil(box.x1)) - left
        unit = renderer.points_to_pixels(1.0)
        radius, opacity = marker(len(self.points), box.width * box.height / unit**2)
        if len(self.colours) == 1:
            opacity *= 0.5  # one colour can show only by its strength where the points are dense
        pixels = self.axes.transData.transform(self.points) - (left, bottom)
        image = splat(pixels, self.colours, shape, radius * unit, opacity)
        gc = renderer.new_gc()
        gc.set_clip_rectangle(box)
        renderer.draw_image(gc, left, bottom, image)
        gc.restore()
        self.stale = False


def marker(n: int, area: float) -> tuple[float, float]:
    """Radius in points and opacity of n markers on an area in square points."""
    radius = float(np.clip(0.65 * np.sqrt(area / max(n, 1) / np.pi), 0.4, 2.6))
    covered = n * np.pi * radius**2 / area
    return radius, float(np.clip(0.35 / max(covered, 1e-9), 0.03, 0.75))


def splat(
    pixels: np.ndarray, colours: np.ndarray, shape: tuple[int, int], radius: float, opacity: float
) -> np.ndarray:
    """An RGBA picture (H, W, 4), uint8, first row lowest, of round markers at pixels (N, 2)."""
    height, width = shape
    reach = int(np.ceil(radius))
    x, y = pixels.T
    near = (x >= -reach) & (x < width + reach) & (y >= -reach) & (y < height + reach)
    inside = near.nonzero()[0]  # without the points that are not finite, as well
    pixels = pixels[inside]
    colours = np.broadcast_to(colours, (len(near), 3))[inside]
    steps = np.arange(-reach, reach + 1)
    dy, dx = (d.ravel() for d in np.meshgrid(steps, steps, indexing="ij"))

    # Colours in light times opacity, over a margin that is cut off at the end.
    edge = 2 * reach
    wide, tall = width + 2 * edge, height + 2 * edge
    drawn = np.zeros((4, tall * wide))
    for layer in range(LAYERS):
        centre = pixels[layer::LAYERS]
        corner = np.floor(centre).astype(int)
        distance = np.hypot(
            corner[:, :1] + dx + 0.5 - centre[:, :1], corner[:, 1:] + dy + 0.5 - centre[:, 1:]
        )
        # Opacities compound as 1 − Π(1 − a·cover): their logarithms add up.
        depth = -np.log1p(-opacity * np.clip(radius + 0.5 - distance, 0, 1))
        place = (corner[:, 1:] + dy + edge) * wide + corner[:, :1] + dx + edge
        weight = np.bincount(place.ravel(), depth.ravel(), tall * wide)
        hit = weight.nonzero()[0]
        over = -np.expm1(-weight[hit])
        drawn[:, hit] *= 1 - over
        drawn[3, hit] += over
        for channel, colour in enumerate(colours[layer::LAYERS].T):
            sums = np.bincount(place.ravel(), (depth * colour[:, None]).ravel(), tall * wide)
            drawn[channel, hit] += over * sums[hit] / weight[hit]
    drawn[:3] /= np.maximum(drawn[3], 1e-12)
    image = drawn.reshape(4, tall, wide)[:, edge : edge + height, edge : edge + width]
    return np.ascontiguousarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8))
