"""Weighted points seen through noise: softmax means over them, at a stated accuracy.

    x = α·c_i + √v·ε with probability w_i      p_i(x) ∝ w_i·exp(−‖x − α·c_i‖²/2v)

    mean(x) = Σ_i p_i(x)·c_i                   attention with the points as keys and values

In the logits, −‖x − α·c_i‖²/2v = (α/v)·x·c_i − (α²/2v)·‖c_i‖² + a constant. That is one matrix
product, but its terms are (‖c‖/ρ)² in size, ρ = √v/α, and so are its roundings δ. An error of δ in
the logits moves the mean by at most 2δ·Σ p_i·‖c_i − mean‖, so each row is done in float32, checked
by this bound, and done again in float64, then from the differences x − α·c_i themselves, only where
the bound is above what is asked.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from alphabar.targets.base import Column
from alphabar.targets.cells import Cells, halved

# The error that a mean may have, in units of ρ: float32 in, float64 in.
TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-12}
WORST = 4  # times δ: the most that a logit was seen to miss by
FAINT = math.exp(-60.0)  # a share that is left out
CACHED = 2**16  # numbers that a dozen passes in a row find in the cache
CHUNK = 2**22  # numbers of a (rows, N) intermediate at a time
NARROW = 32  # up to this dimension fused attention is faster than two matrix products
LARGE = 2**17  # points from which on larger boxes pay
LOW = 4  # up to this dimension near neighbours are found by boxes


class Cloud:
    """Points c_i with the masses w_i.

    Args:
        points: (N, D); kept, not copied.
        log_mass: (N,), log w_i, of any sum.
    """

    def __init__(self, points: Float[Tensor, "N D"], log_mass: Float64[Tensor, " N"]) -> None:
        self.points, self.log_mass = points, log_mass
        # In units of its own radius about its own centre, a cloud is the same at any scale.
        self.centre = points.mean(0, dtype=torch.float64)
        apart = [(part.double() - self.centre).square().sum(1) for part in self._parts()]
        radius = torch.cat(apart).max().sqrt().item()
        self.unit = radius or 1.0

    @property
    def _rows(self) -> int:
        return max(1, CHUNK // self.points.shape[1])

    def _parts(self) -> Iterator[Float[Tensor, "n D"]]:
        return _split(self.points, self._rows)

    def _scaled(self, points: Float[Tensor, "n D"]) -> Float64[Tensor, "n D"]:
        return (points.double() - self.centre) / self.unit

    @cached_property
    def z(self) -> Float64[Tensor, "N D"]:
        """The points, about their centre and in units of their radius."""
        return self._scaled(self.points)

    @cached_property
    def _narrow(self) -> Float[Tensor, "N E"]:
        """Keys in float32, made a part at a time: data in many dimensions are large."""
        parts = zip(self._parts(), _split(self.log_mass, self._rows), strict=True)
        return torch.cat([_keys(self._scaled(c), w, torch.float32) for c, w in parts])

    @cached_property
    def _wide(self) -> Float[Tensor, "N E"]:
        return _keys(self.z, self.log_mass, torch.float64)

    @cached_property
    def _cells(self) -> Cells:
        return Cells(self.points.double(), self.log_mass, 32 if len(self.points) < LARGE else 64)

    # --- the mean

    def mean(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Float64[Tensor, "B D"]:
        """Σ_i p_i(x)·c_i within TOLERANCE·√v/α; at v = 0 the nearest point.

        Points that are nearest together, at v = 0, are averaged by their masses, as in the limit.
        """
        if torch.is_grad_enabled() and (x.requires_grad or alpha.requires_grad or v.requires_grad):
            return self._differentiable(x, alpha, v)
        n, d = self.points.shape
        if d <= LOW and n > 1000 and len(x) * n > 2**21:
            return self._among_neighbours(x, alpha, v)
        return self._dense(x, alpha, v)

    def _centred(
        self, x: Float[Tensor, "B D"], alpha: Column, v: Column
    ) -> tuple[Float64[Tensor, "B D"], Column]:
        return (x.double() - alpha * self.centre) / self.unit, v / self.unit**2

    def _dense(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Float64[Tensor, "B D"]:
        """All points, row by row as accurate as asked."""
        tolerance = _tolerance(x)
        x_c, v_c = self._centred(x, alpha, v)
        n, d = self.points.shape
        attend = _fused if d <= NARROW else self._two_products
        found = x_c.new_empty(x_c.shape)
        rows: Int64[Tensor, " b"] | None = None  # those left to do; None: all
        for dtype in (torch.float32, torch.float64)[x.dtype == torch.float64 :]:
            part, a, w = _rows(rows, x_c, alpha, v_c)
            keys = self._narrow if dtype == torch.float32 else self._wide
            mean, error = attend(part, a, w, keys)
            fine = error <= tolerance * w.sqrt().squeeze(1)
            if rows is None and bool(fine.all()):
                return self.centre + self.unit * mean
            here = torch.arange(len(x), device=x.device) if rows is None else rows
            found[here[fine]] = mean[fine]
            rows = here[~fine]
            if len(rows) == 0:
                return self.centre + self.unit * found
        assert rows is not None
        for some in _split(rows, max(1, CHUNK // n)):
            p, _ = self._exponents(*_rows(some, x, alpha, v))
            found[some] = p.softmax(1) @ self.z
        return self.centre + self.unit * found

    def _two_products(
        self, x: Float64[Tensor, "b D"], alpha: Column, v: Column, keys: Float[Tensor, "N E"]
    ) -> tuple[Float64[Tensor, "b D"], Float64[Tensor, " b"]]:
        """Logits, softmax, mean: a few rows at a time."""
        alpha, v = alpha.expand(len(x), 1), v.expand(len(x), 1)
        # Where even the nearest point's share is beyond doubt, a smaller v only adds to it: v
        # is raised to where δ = 2, so that a level near 0 needs nothing more accurate.
        least = _rounding(x, alpha, torch.ones_like(v), keys.dtype) / 2
        raised = (v < least).squeeze(1)
        v = torch.maximum(v, least)
        enough = TOLERANCE[keys.dtype] * v.sqrt().squeeze(1)
        delta = _rounding(x, alpha, v, keys.dtype).squeeze(1)
        means, errors = [], []
        rows = max(16, 2 * CHUNK // len(keys))
        for i in range(0, max(1, len(x)), rows):
            some = slice(i, i + rows)
            gain = alpha[some] / v[some]
            q = torch.cat([x[some] * gain, gain * alpha[some] * -0.5], 1).to(keys.dtype)
            q = pad(q, (0, 1), value=1.0)
            e = q @ keys.T
            top, first = e.max(1, keepdim=True)
            # Shares below e^-60 become 0: numbers that underflow are slow.
            e.sub_(top).clamp_min_(-60.0).exp_().sub_(FAINT).scatter_(1, first, 0.0)
            others = e.sum(1, keepdim=True)  # relative to the first, in full relative accuracy
            first = first.squeeze(1)
            # What the others add to the first point, which itself is not rounded.
            out = (e @ keys).sub_(others * keys[first]).div_(1 + others).double()
            mean = self._scaled(self.points[first]) + out[:, :-2]
            rest = 2 * (others.squeeze(1).double() + len(keys) * FAINT)
            bound = (2 * WORST * delta[some]).exp() * rest
            width = _spread(mean, keys[first, -2] + out[:, -2], keys.dtype)
            spread = 2.2 * delta[some] * torch.minimum(width, rest)
            error = torch.where(delta[some] < 0.1, spread, bound) * alpha[some].squeeze(1)
            # A mass that is far below the others' may win as v falls.
            sure = bound * self._mass_ratio * alpha[some].squeeze(1) <= enough[some]
            doubt = torch.full_like(error, math.inf).masked_fill_(sure, 0.0)
            errors.append(torch.where(raised[some], doubt, error))
            means.append(mean)
        return torch.cat(means), torch.cat(errors)

    @cached_property
    def _mass_ratio(self) -> float:
        return (self.log_mass.max() - self.log_mass.min()).exp().item()

    def _exponents(
        self, x: Float[Tensor, "b D"], alpha: Column, v: Column
    ) -> tuple[Float64[Tensor, "b N"], Float64[Tensor, "b 1"]]:
        """log w_i − ‖x − α·c_i‖²/2v in two parts, of which the second, for all i, is the largest.

        Float64, from the differences: right to a rounding of the exponent itself.
        """
        if x.shape[1] <= LOW:  # of the points as they are: what ties must tie
            squares = _squares(x.double(), alpha, self.points.double())
        else:
            x, v = self._centred(x, alpha, v)
            squares = torch.addmm(
                alpha.square() * self._wide[:, -2], x * alpha, self.z.T, alpha=-2.0
            )
            squares = squares + x.square().sum(1, keepdim=True)
            close = (_rounding(x, alpha, v, torch.float64) > 1e-10).squeeze(1)
            if bool(close.any()):  # then σ is small, and α > 0
                part, a, _ = _rows(close.nonzero().squeeze(1), x, alpha, v)
                exact = "donot_use_mm_for_euclid_dist"
                apart = torch.cdist(part / a, self.z, compute_mode=exact) * a
                squares = squares.index_put((close,), apart.square())
        least = squares.amin(1, keepdim=True)
        half = 0.5 / v.clamp_min(1e-290)
        return self.log_mass - (squares - least) * half, -least * half

    def _differentiable(
        self, x: Float[Tensor, "B D"], alpha: Column, v: Column
    ) -> Float64[Tensor, "B D"]:
        """The mean by plain operations on all points, for autograd; in float32 if that will do."""
        x_c, v_c = self._centred(x, alpha, v)
        with torch.no_grad():
            delta = _rounding(x_c, alpha, v_c, torch.float32)
            # An error of 2δ times the posterior's width, which is about ρ.
            narrow = x.dtype != torch.float64 and bool((delta <= TOLERANCE[torch.float32]).all())
        if not narrow:
            e, _ = self._exponents(x, alpha, v)
            return self.centre + self.unit * (e.softmax(1) @ self.z)
        keys, gain = self._narrow, alpha / v_c
        bend = (gain * alpha * -0.5).float() * keys[:, -2] + keys[:, -1]
        e = torch.addmm(bend, (x_c * gain).float(), keys[:, :-2].T)
        return self.centre + self.unit * (e.softmax(1) @ keys[:, :-2]).double()

    # --- near neighbours

    def _among_neighbours(
        self, x: Float[Tensor, "B D"], alpha: Column, v: Column
    ) -> Float64[Tensor, "B D"]:
        """Block by block of queries, with all points that matter to the block."""
        alpha, v = alpha.expand(len(x), 1), v.expand(len(x), 1)
        tolerance = _tolerance(x)
        rho = (v.sqrt() / alpha).squeeze(1)
        found = x.new_empty(x.shape, dtype=torch.float64)
        octave = rho.log2().floor_()
        # Small blocks leave out more, large ones cost less for each point that is left in.
        size, worth = (64, 0.2) if len(self.points) < LARGE else (256, 0.5)
        for this in sorted(set(octave.tolist())):
            rows = (octave == this).nonzero().squeeze(1)
            low, high = rho[rows].min().item(), rho[rows].max().item()
            # What is dropped, at most 2·unit away, moves the mean by less than a tenth of what
            # is allowed.
            nats = math.log(20 * len(self._cells) / tolerance)
            nats += math.log(max(1.0, self.unit / max(low, 1e-300)))
            near = high * math.sqrt(2 * nats) < self.unit
            if near:
                y = x[rows].double() / alpha[rows]
                blocks = halved(y, size) % len(y)
                corners = y[blocks].amin(1), y[blocks].amax(1)
                near = self._cells.share(*corners, high, nats) < worth
            if not near:
                found[rows] = self._dense(x[rows], alpha[rows], v[rows])
                continue
            for some, boxes, kept in self._cells.near(*corners, high, nats):
                points, log_mass = self._cells.take(boxes, kept)
                block = rows[blocks[some]]
                found[block] = _blockwise(
                    x[block].double(), alpha[block], v[block], points, log_mass, tolerance
                )
        return found

    # --- density and second moments

    def log_sum(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Float64[Tensor, " B"]:
        """log Σ_i w_i·N(x; α·c_i, v·I), in float64."""
        parts = []
        for some in self._few_rows(len(x), 1):
            e, top = self._exponents(*_rows(some, x, alpha, v))
            most = e.detach().amax(1, keepdim=True)
            # Not logsumexp: the exponential is slow where it underflows.
            total = (e - most).clamp_min(-600.0).exp().sum(1, keepdim=True).log()
            parts.append((total + most + top).squeeze(1))
        width = (2 * math.pi * v).log().squeeze(1)
        return torch.cat(parts) - 0.5 * x.shape[1] * width

    def cov(self, x: Float[Tensor, "B D"], alpha: Column, v: Column) -> Float64[Tensor, "B D D"]:
        """Σ_i p_i(x)·(c_i − mean)(c_i − mean)ᵀ, in float64."""
        parts = []
        for some in self._few_rows(len(x), x.shape[1]):
            e, _ = self._exponents(*_rows(some, x, alpha, v))
            p = e.softmax(1)
            apart = self.z - (p @ self.z)[:, None]
            parts.append((p[..., None] * apart).mT @ apart)
        return torch.cat(parts) * self.unit**2

    def _few_rows(self, count: int, width: int) -> Iterator[Int64[Tensor, " b"]]:
        rows = torch.arange(count, device=self.points.device)
        return _split(rows, max(1, CACHED // (len(self.points) * width)))


def _rows(
    rows: Int64[Tensor, " b"] | None, x: Float[Tensor, "B D"], alpha: Column, v: Column
) -> tuple[Float[Tensor, "b D"], Float64[Tensor, "#b 1"], Float64[Tensor, "#b 1"]]:
    if rows is None:
        return x, alpha, v
    return x[rows], alpha.expand(len(x), 1)[rows], v.expand(len(x), 1)[rows]


def _rounding(
    x: Float64[Tensor, "*b D"],
    alpha: Float64[Tensor, "*#b 1"],
    v: Float64[Tensor, "*#b 1"],
    dtype: torch.dtype,
) -> Float64[Tensor, "*b 1"]:
    """δ: by how much a matrix product of this dtype may miss a logit.

    The terms sum to (α/v)·(‖x‖ + α/2), as ‖z‖ ≤ 1, and a sum in blocks was seen to miss by at most
    3 roundings of that size, or in one case in a thousand dimensions, where x, z and all the terms
    point the same way, by 14 (see `WORST`).
    """
    unit = torch.finfo(dtype).eps / 2
    size = alpha * (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + alpha / 2)
    return 4 * unit * size / v


def _fused(
    x: Float64[Tensor, "*b D"],
    alpha: Float64[Tensor, "*#b 1"],
    v: Float64[Tensor, "*#b 1"],
    keys: Float[Tensor, "*G N E"],
) -> tuple[Float64[Tensor, "*b D"], Float64[Tensor, "*b"]]:
    """Attention that never holds (b, N): the mean, and α times the bound of its error."""
    delta = _rounding(x, alpha, v, keys.dtype).squeeze(-1)
    if not bool((delta < 0.1).any()):
        return x, torch.full_like(delta, math.inf)
    gain = alpha / v
    bend = (gain * alpha * -0.5).expand(*x.shape[:-1], 1)
    q = pad(torch.cat([x * gain, bend], -1), (0, 1), value=1.0).to(keys.dtype)
    # The kernel wants (batch, heads, length, E).
    q, k = (y.reshape(-1, 1, *y.shape[-2:]) for y in (q, keys))
    out = scaled_dot_product_attention(q, k, k, scale=1.0).double().reshape(*x.shape[:-1], -1)
    mean = out[..., :-2]
    error = 2.2 * delta * _spread(mean, out[..., -2], keys.dtype) * alpha.squeeze(-1)
    return mean, error.masked_fill(delta >= 0.1, math.inf)


def _blockwise(
    x: Float64[Tensor, "G m D"],
    alpha: Float64[Tensor, "G m 1"],
    v: Float64[Tensor, "G m 1"],
    points: Float64[Tensor, "G C D"],
    log_mass: Float64[Tensor, "G C"],
    tolerance: float,
) -> Float64[Tensor, "G m D"]:
    """Each block of queries among points of its own, in units of their size about their centre."""
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    centre = (low + high) / 2
    unit = torch.linalg.vector_norm(high - low, dim=2, keepdim=True) / 2
    unit = unit.masked_fill_(unit == 0, 1.0)
    x_c, z, v_c = (x - alpha * centre) / unit, (points - centre) / unit, v / unit**2
    found = torch.empty_like(x)
    left = torch.arange(len(x), device=x.device)
    for dtype in (torch.float32, torch.float64):
        if dtype == torch.float32 and tolerance < TOLERANCE[torch.float32]:
            continue
        keys = _keys(z[left], log_mass[left], dtype)
        mean, error = _fused(x_c[left], alpha[left], v_c[left], keys)
        fine = (error <= tolerance * v_c[left].sqrt().squeeze(2)).all(1)
        found[left[fine]] = mean[fine]
        left = left[~fine]
        if len(left) == 0:
            return centre + unit * found
    for some in _split(left, max(1, CHUNK // (x.shape[1] * z.shape[1]))):
        squares = _squares(x[some], alpha[some], points[some])
        squares -= squares.amin(2, keepdim=True)
        e = log_mass[some][:, None] - squares * (0.5 / v[some].clamp_min(1e-290))
        found[some] = e.softmax(2) @ z[some]
    return centre + unit * found


def _keys(
    z: Float64[Tensor, "*G N D"], log_mass: Float64[Tensor, "*G N"], dtype: torch.dtype
) -> Float[Tensor, "*G N E"]:
    """[z, ‖z‖², log w], so that a query [α/v·x, −α²/2v, 1] gives the logit."""
    square = z.square().sum(-1, keepdim=True)
    return torch.cat([z.to(dtype), square.to(dtype), log_mass[..., None].to(dtype)], -1)


def _squares(
    x: Float64[Tensor, "*b D"], alpha: Float64[Tensor, "*#b 1"], z: Float64[Tensor, "*G N D"]
) -> Float64[Tensor, "*b N"]:
    """‖x − α·z‖² from the differences, a coordinate at a time."""
    z = z.mT[..., None, :]  # (…, D, 1, N)
    squares = (x[..., :1] - alpha * z[..., 0, :, :]).square_()
    for j in range(1, x.shape[-1]):
        squares += (x[..., j : j + 1] - alpha * z[..., j, :, :]).square_()
    return squares


def _split(x: Tensor, size: int) -> Iterator[Tensor]:
    """`size` rows at a time; an empty x is one part."""
    return (x[i : i + size] for i in range(0, max(1, len(x)), size))


def _tolerance(x: Float[Tensor, "B D"]) -> float:
    return TOLERANCE.get(x.dtype, TOLERANCE[torch.float32])


def _spread(
    mean: Float64[Tensor, "b D"], square: Float64[Tensor, " b"], dtype: torch.dtype
) -> Float64[Tensor, " b"]:
    """Above Σ p_i·‖z_i − mean‖, by Jensen's inequality, and above what cancels in it."""
    variance = square - mean.square().sum(-1)
    return (variance.clamp_min(0) + 16 * torch.finfo(dtype).eps).sqrt()
