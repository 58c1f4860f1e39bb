"""A curve with Gaussian noise: the Swiss roll itself, not points of it.

    x_0 = c(u) + s·ε,    u ~ U[u_0, u_K],  ε ~ N(0, I)        v = α²·s² + σ²

    p_t(x_t) = ∫ N(x_t; α·c(u), v·I) du/(u_K − u_0)  ≈  Σ_j w_j·N(x_t; α·c(u_j), v·I)

Seen through noise of width ρ = √v/α, a curve and a few hundred weighted points u_j on it cannot be
told apart: with them the formulas are those of `points`. They are Gauss–Legendre nodes on each
smooth piece, no more than make log p_t and E[x_0 | x_t] right to `ERROR`. That is measured, not
assumed: half as many nodes again must give the same at points all along the piece, up to 6ρ from
it.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.targets.base import Column
from alphabar.targets.cloud import Cloud
from alphabar.targets.points import Blurred

ERROR = 1e-10  # of log p_t, in nats, and of E[x_0 | x_t], in units of ρ or of the curve's size
MAX_NODES = 2**20
ORDER = 512  # nodes of a panel: more would be slow to find
COARSEST = 4.0  # ρ in units of the curve's size: with fewer nodes its mean would be wrong
FAR = 6.0  # ρ; beyond it the nodes seen by a point must be closer


class Curve(Blurred):
    """The law of c(u) + noise·ε with u uniform.

    At σ = 0 `denoise` returns x_t/α. Without noise, where x_t/α must be on the curve then, the
    number of nodes grows as σ falls; with noise it is bounded.

    Args:
        curve: from u, (n,) float64, to points, (n, d) float64.
        noise: the standard deviation of the Gaussian noise on each coordinate.
        pieces: where u begins, where the curve jumps or bends sharply, and where u ends,
            increasing. Ends at which c runs like √u are fine.

    Raises:
        ValueError: a noise below 0, pieces that do not increase, a curve that is not finite; later,
            when the nodes are made, a curve that `MAX_NODES` nodes do not resolve.

    >>> def circle(u: Tensor) -> Tensor:
    ...     return torch.stack([(2 * math.pi * u).cos(), (2 * math.pi * u).sin()], 1)
    >>> Curve(circle, noise=0.1).mean.abs().max().item() < 1e-12
    True
    """

    def __init__(
        self,
        curve: Callable[[Float64[Tensor, " n"]], Float64[Tensor, "n d"]],
        noise: float,
        pieces: Sequence[float] = (0.0, 1.0),
    ) -> None:
        self.noise = check_number("noise", noise, 0, math.inf, "a standard deviation, 0 or above")
        edges = [float(u) for u in pieces]
        if len(edges) < 2 or not all(a < b for a, b in pairwise(edges)):
            raise ValueError(
                f"pieces = {edges}: they must increase, from where u begins to its end"
            )
        self.curve = curve
        self.pieces = tuple(edges)
        self.device = torch.device("cpu")
        self._clouds: dict[int, Cloud] = {}
        outline = self._points(self._between(self.pieces[0], self.pieces[-1], 1000))
        self.shape = (outline.shape[1],)
        self._centre = (outline.amin(0) + outline.amax(0)) / 2
        self._size = torch.linalg.vector_norm(outline - self._centre, dim=1).max().item()

    def __repr__(self) -> str:
        return f"<Curve in {self.shape[0]} dimensions, noise {self.noise:g}>"

    def _points(self, u: Float64[Tensor, " n"]) -> Float64[Tensor, "n d"]:
        c = self.curve(u)
        if not c.isfinite().all():
            i = int((~c.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"curve({u[i]:g}) = {c[i].tolist()}: it must be finite for every u")
        return c

    @property
    def mean(self) -> Float64[Tensor, " d"]:
        """E[x_0] = ∫ c(u) du/(u_K − u_0)."""
        cloud = self._resolving(math.inf)
        return cloud.log_mass.exp() @ cloud.points

    def _prior_cov(self) -> Float64[Tensor, "d d"]:
        cloud = self._resolving(math.inf)
        apart = cloud.points - self.mean
        within = (cloud.log_mass.exp()[:, None] * apart).T @ apart
        return within.diagonal_scatter(within.diagonal() + self.noise**2)

    def nodes(self, rho: float) -> int:
        """How many nodes stand for the curve where it is seen through noise of width `rho`."""
        return len(self._resolving(rho).points)

    def sample(self, n: int, generator: torch.Generator) -> Float64[Tensor, "n d"]:
        """n independent draws of x_0, by `generator`, on the CPU."""
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        x = self._points(self.pieces[0] + (self.pieces[-1] - self.pieces[0]) * u.cpu())
        eps = torch.randn(x.shape, generator=generator, dtype=torch.float64, device=u.device)
        return x + self.noise * eps.cpu()

    def _denoise(
        self, x: Float[Tensor, "B d"], alpha: Column, var: Column
    ) -> Float64[Tensor, "B d"]:
        if self.noise > 0:
            return super()._denoise(x, alpha, var)
        clean = var == 0
        found = super()._denoise(x, alpha, var.masked_fill(clean, 1.0))
        return torch.where(clean, x / alpha.masked_fill(~clean, 1.0), found)

    def _cloud(self, x: Float[Tensor, "B d"], alpha: Column, v: Column) -> Cloud:
        if len(x) == 0:
            return self._resolving(math.inf)
        with torch.no_grad():
            apart = torch.linalg.vector_norm(x - alpha * self._centre, dim=1, keepdim=True)
            # Off a bend, weights fall off along the curve over less than ρ: the further the less.
            far = (apart / (alpha * self._size + FAR * v.sqrt())).clamp(1, 2**12)
            return self._resolving((v / (far * alpha.square())).min().sqrt().item())

    def _resolving(self, rho: float) -> Cloud:
        """Nodes for widths from noise·2^k on (without noise: size·2^k), the largest up to `rho`."""
        base = self.noise or self._size or 1.0
        wanted = max(min(rho, COARSEST * self._size), base * 2.0**-40)
        octave = math.floor(math.log2(wanted / base) + 1e-9)
        if octave not in self._clouds:
            self._clouds[octave] = self._quadrature(base * 2.0**octave)
        return self._clouds[octave]

    def _quadrature(self, rho: float) -> Cloud:
        whole = self.pieces[-1] - self.pieces[0]
        points, mass = [], []
        for first, last in pairwise(self.pieces):
            c, w = self._piece(first, last, rho)
            points.append(c)
            mass.append(w * ((last - first) / whole))
        return Cloud(torch.cat(points), torch.cat(mass).log())

    def _piece(
        self, first: float, last: float, rho: float
    ) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
        outline = self._points(self._between(first, last, 1000))
        length = torch.linalg.vector_norm(outline.diff(dim=0), dim=1).sum().item()
        graded = self._error(first, last, 128, self._size, False, outline) > ERROR
        count = max(6.0, length / rho)  # about what is needed; the rest is found out
        # What is smooth needs a few times as many; what is not never has enough.
        most = min(MAX_NODES / 1.5, 400 + 16 * count)
        while count <= most:
            if self._error(first, last, round(count), rho, graded, outline) <= ERROR:
                return self._rule(first, last, round(count), graded)
            count = 2 + count * 1.1
        raise ValueError(
            f"{round(most)} nodes do not resolve the curve from u = {first:g} to {last:g} at the "
            f"width sigma/alpha = {rho:g}: give it noise, ask for a noisier level, or name in "
            "`pieces` where it jumps or bends sharply"
        )

    def _error(
        self,
        first: float,
        last: float,
        count: int,
        rho: float,
        graded: bool,
        outline: Float64[Tensor, "n d"],
    ) -> float:
        """By how much half as many nodes again change what is seen at width rho."""
        probes = _around(outline, rho)
        (p, m), (q, k) = (
            _seen(*self._rule(first, last, n, graded), probes, rho)
            for n in (count, count + count // 2)
        )
        moved = (m - k).abs().max() / (min(rho, self._size) or 1.0)
        return max((p - q).abs().max().item(), moved.item())

    def _rule(
        self, first: float, last: float, count: int, graded: bool
    ) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
        """c(u_j) of about `count` nodes from first to last, and weights that sum to 1."""
        panels = -(-count // ORDER)
        y, w = _legendre(-(-count // panels))
        y = ((torch.arange(panels)[:, None] + y) / panels).flatten()
        w = w.repeat(panels) / panels
        if graded:  # u − first grows like y² from the end: what runs like √u is smooth in y
            w = w * 6 * y * (1 - y)
            y = y.square() * (3 - 2 * y)
        return self._points(first + (last - first) * y), w / w.sum()

    def _between(self, first: float, last: float, count: int) -> Float64[Tensor, " n"]:
        """Evenly spaced, the ends left out, where a curve may be of the next piece."""
        return first + (last - first) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@lru_cache(maxsize=512)
def _legendre(count: int) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Gauss–Legendre nodes and weights on [0, 1]."""
    y, w = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((y + 1) / 2), torch.from_numpy(w / 2)


def _around(outline: Float64[Tensor, "n d"], rho: float) -> Float64[Tensor, "m d"]:
    """Points all along the curve, up to FAR·ρ from it, the same each time."""
    generator = torch.Generator().manual_seed(0)
    base = outline[:: max(1, len(outline) // 40)]
    way = torch.randn(base.shape, generator=generator, dtype=torch.float64)
    way = way / torch.linalg.vector_norm(way, dim=1, keepdim=True)
    return torch.cat([base + r * rho * way for r in (0, FAR / 3, -FAR * 2 / 3, FAR, -FAR)])


def _seen(
    points: Float64[Tensor, "n d"],
    mass: Float64[Tensor, " n"],
    x: Float64[Tensor, "m d"],
    rho: float,
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, "m d"]]:
    """log p_t and E[x_0 | x_t] at α = 1, σ = ρ."""
    cloud = Cloud(points, mass.log())
    one = torch.ones(1, 1, dtype=torch.float64)
    return cloud.log_sum(x, one, one * rho**2), cloud.mean(x, one, one * rho**2)
