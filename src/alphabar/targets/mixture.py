"""A mixture of Gaussians.

    p(x_0) = Σ_k w_k·N(x_0; m_k, C_k),    C_k = U_k·diag(λ_k)·U_kᵀ,    V_k = α²·C_k + σ²·I

    p_t(x_t)     = Σ_k w_k·N(x_t; α·m_k, V_k)
    r_k          = w_k·N(x_t; α·m_k, V_k)/p_t(x_t)
    E[x_0 | x_t] = Σ_k r_k·μ_k,    μ_k = m_k + α·C_k·V_k⁻¹·(x_t − α·m_k)
    Cov[x_0|x_t] = Σ_k r_k·(σ²·C_k·V_k⁻¹ + (μ_k − x̂_0)(μ_k − x̂_0)ᵀ)

Bishop 2006, eq. (2.116) and (2.192). All of it in the log domain and in float64.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from alphabar.arguments import check_number
from alphabar.targets.base import Column, Target, check_finite, check_weights

CHUNK = 2**21  # numbers of an intermediate (B, K, D) at a time: it stays near the cache


class Mixture(Target):
    """Gaussians with weights: isotropic, diagonal or full.

    Args:
        weights: (K,), positive; only their ratios count.
        means: (K, …).
        var: variances, (K,) for isotropic components or (K, …) for diagonal ones; 0 is allowed.
        cov: covariances, (K, D, D), of the flattened items; positive semi-definite.

    Raises:
        TypeError: neither or both of `var` and `cov` given.
        ValueError: no component, a weight that is not positive, a variance below 0, a covariance
            that is not symmetric and positive semi-definite, shapes that do not fit.
    """

    def __init__(
        self,
        weights: Float[Tensor, "..."] | Sequence[float],
        means: Float[Tensor, "K ..."],
        var: Float[Tensor, "..."] | None = None,
        cov: Float[Tensor, "..."] | None = None,
    ) -> None:
        if (var is None) == (cov is None):
            raise TypeError("a mixture needs exactly one of var and cov")
        if len(means) == 0:
            raise ValueError("means has 0 components: a mixture needs at least one")
        check_finite("means", means)
        self.shape = tuple(means.shape[1:])
        self.device = means.device
        self.weights = check_weights(weights, len(means)).to(self.device)
        self._means = means.double().flatten(1) if means.ndim > 1 else means.double()[:, None]
        k, d = self._means.shape
        self._basis: Float64[Tensor, "K D D"] | None = None
        if cov is not None:
            self._values, self._basis = _eigen(cov.to(self.device).double(), k, d)
        else:
            assert var is not None
            self._values = _variances(var.to(self.device).double(), k, self.shape)

    @property
    def mean(self) -> Float64[Tensor, "..."]:
        """E[x_0] = Σ w_k·m_k."""
        return (self.weights @ self._means).reshape(self.shape)

    def given(self, components: Sequence[int]) -> "Mixture":
        """p(x_0 | the component is one of these): what guidance to a class aims at.

        Raises:
            ValueError: no component, or one that there is not.
        """
        count = len(self.weights)
        index = list(components)
        if not index or not all(0 <= i < count for i in index):
            raise ValueError(f"components = {index}: name at least one, each from 0 to {count - 1}")
        part = object.__new__(Mixture)
        part.shape, part.device = self.shape, self.device
        part.weights = self.weights[index] / self.weights[index].sum()
        part._means, part._values = self._means[index], self._values[index]
        part._basis = None if self._basis is None else self._basis[index]
        return part

    def observed(
        self, matrix: Float[Tensor, "M D"], y: Float[Tensor, " M"], std: float
    ) -> "Mixture":
        """p(x_0 | y) for y = A·x_0 + std·n, n ~ N(0, I): again a mixture.

            S_k = A·C_k·Aᵀ + std²·I,    G_k = C_k·Aᵀ·S_k⁻¹,    w_k ∝ w_k·N(y; A·m_k, S_k)
            N(m_k + G_k·(y − A·m_k), (I − G_k·A)·C_k)

        Components of weight below 10⁻³⁰⁰ are left out.

        Args:
            matrix: A, for flattened items.
            y: what was observed.
            std: σ_y ≥ 0; 0 where A·C_k·Aᵀ has an inverse.

        Raises:
            ValueError: A or y of another size; std that is not a number ≥ 0; y without a density.

        Source: Bishop 2006, eq. (2.116).
        """
        A, observed = matrix.double(), y.double()
        d = self._means.shape[1]
        if A.shape[1] != d or observed.shape != A.shape[:1]:
            raise ValueError(
                f"A has shape {tuple(A.shape)} and y {tuple(observed.shape)}: they must be "
                f"(M, {d}) and (M,)"
            )
        var = check_number("std", std, 0, math.inf, "a standard deviation ≥ 0") ** 2
        eye = torch.eye(d, dtype=torch.float64)
        if self._basis is None:
            C = torch.diag_embed(self._values.expand(-1, d))
        else:
            C = (self._basis * self._values[:, None, :]) @ self._basis.mT
        S = A @ C @ A.T + var * torch.eye(len(A), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(S)
        if failed.any():
            raise ValueError(
                f"std = {std:g} and A·C_k·Aᵀ has no inverse: y has no density there; give a std > 0"
            )
        apart = observed - self._means @ A.T
        G = torch.cholesky_solve(A @ C, factor).mT
        white = torch.linalg.solve_triangular(factor, apart[..., None], upper=False)[..., 0]
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        log_w = self.weights.log() - 0.5 * white.square().sum(1) - log_det
        w = log_w.softmax(0)
        kept = w > 1e-300
        means = self._means + (G @ apart[..., None])[..., 0]
        rest = eye - G @ A
        cov = rest @ C @ rest.mT + var * G @ G.mT  # Joseph's form: never below 0
        cov = (cov + cov.mT) / 2
        return Mixture(w[kept], means[kept].reshape(-1, *self.shape), cov=cov[kept])

    def sample(self, n: int, generator: torch.Generator) -> Float64[Tensor, "n ..."]:
        """n independent draws of x_0, by `generator`, on the target's device."""
        where = generator.device
        k = torch.multinomial(self.weights.to(where), n, True, generator=generator)
        eps = torch.randn(
            n, self._means.shape[1], generator=generator, dtype=torch.float64, device=where
        )
        k, eps = k.to(self.device), eps.to(self.device)
        x = self._means[k]
        rows = max(1, CHUNK // x.shape[1] ** 2)  # a basis for each
        for i in range(0, n, rows):
            part = slice(i, i + rows)
            spread = self._values[k[part]].sqrt() * eps[part]
            if self._basis is not None:
                spread = (self._basis[k[part]] @ spread[..., None])[..., 0]
            x[part] += spread
        return x.reshape(n, *self.shape)

    def _prior_cov(self) -> Float64[Tensor, "D D"]:
        d = self._means.shape[1]
        apart = self._means - self.weights @ self._means
        outer = (self.weights[:, None] * apart).T @ apart
        if self._basis is None:
            return outer + torch.diag((self.weights @ self._values).expand(d))
        within = self.weights[:, None, None] * self._values[:, None, :]
        return outer + torch.einsum("kde,kfe->df", self._basis * within, self._basis)

    def _denoise(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, "B D"]:
        parts = []
        for x_, alpha_, var_ in self._chunks(x, alpha, var):
            clean = var_ == 0  # there x_0 = x_t/α, also where a component is a point
            apart, total = self._apart(x_, alpha_, var_.masked_fill(clean, 1))
            r = self._log_joint(apart, total).softmax(1)
            gain = alpha_[..., None] * self._values / total
            mu = self._means + self._back(gain * apart)
            found = torch.einsum("bk,bkd->bd", r, mu)
            parts.append(torch.where(clean, x_ / alpha_.masked_fill(~clean, 1), found))
        return torch.cat(parts)

    def _score(self, x: Float[Tensor, "B D"], alpha: Column, var: Column) -> Float64[Tensor, "B D"]:
        self._require_density(alpha, var)
        parts = []
        for x_, alpha_, var_ in self._chunks(x, alpha, var):
            apart, total = self._apart(x_, alpha_, var_)
            r = self._log_joint(apart, total).softmax(1)
            parts.append(-torch.einsum("bk,bkd->bd", r, self._back(apart / total)))
        return torch.cat(parts)

    def _log_prob(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column
    ) -> Float64[Tensor, " B"]:
        self._require_density(alpha, var)
        return torch.cat(
            [
                self._log_joint(*self._apart(*part)).logsumexp(1)
                for part in self._chunks(x, alpha, var)
            ]
        )

    def _cov(self, x: Float[Tensor, "B D"], alpha: Column, var: Column) -> Float64[Tensor, "B D D"]:
        parts = []
        d = x.shape[1]
        for x_, alpha_, var_ in self._chunks(x, alpha, var, d):
            clean = var_ == 0
            noise = var_.masked_fill(clean, 1)
            apart, total = self._apart(x_, alpha_, noise)
            r = self._log_joint(apart, total).softmax(1)
            mu = self._means + self._back(alpha_[..., None] * self._values / total * apart)
            mu = mu - torch.einsum("bk,bkd->bd", r, mu)[:, None]
            found = torch.einsum("bk,bkd,bke->bde", r, mu, mu)
            within = r[..., None] * (noise[..., None] * self._values / total)  # (b, K, D or 1)
            if self._basis is None:
                found = found + torch.diag_embed(within.sum(1).expand(-1, d))
            else:
                found = found + torch.einsum("bke,kde,kfe->bdf", within, self._basis, self._basis)
            parts.append(found.masked_fill(clean[..., None], 0))
        return torch.cat(parts)

    def _chunks(
        self, x: Float[Tensor, "B D"], alpha: Column, var: Column, width: int = 1
    ) -> Iterator[tuple[Float64[Tensor, "b D"], Column, Column]]:
        rows = max(1, CHUNK // (self._means.numel() * width))
        alpha, var = alpha.expand(len(x), 1), var.expand(len(x), 1)
        for i in range(0, max(1, len(x)), rows):
            part = slice(i, i + rows)
            yield x[part].double(), alpha[part], var[part]

    def _apart(
        self, x: Float64[Tensor, "b D"], alpha: Column, var: Column
    ) -> tuple[Float64[Tensor, "b K D"], Float64[Tensor, "b K #D"]]:
        """x_t − α·m_k and the eigenvalues of V_k, in the basis of C_k."""
        apart = x[:, None] - alpha[..., None] * self._means
        if self._basis is not None:
            apart = torch.einsum("bkd,kde->bke", apart, self._basis)
        return apart, alpha[..., None].square() * self._values + var[..., None]

    def _back(self, y: Float64[Tensor, "b K D"]) -> Float64[Tensor, "b K D"]:
        return y if self._basis is None else torch.einsum("bke,kde->bkd", y, self._basis)

    def _log_joint(
        self, apart: Float64[Tensor, "b K D"], total: Float64[Tensor, "b K #D"]
    ) -> Float64[Tensor, "b K"]:
        """log(w_k·N(x_t; α·m_k, V_k))."""
        log_det = total.log().expand(-1, -1, apart.shape[2]).sum(2)
        squares = (apart.square() / total).sum(2)
        constant = apart.shape[2] * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * (squares + log_det + constant)

    def _require_density(self, alpha: Column, var: Column) -> None:
        if (alpha.square() * self._values.min() + var <= 0).any():
            raise ValueError(
                "sigma = 0 where a component has variance 0: it has no density there; ask for a "
                "noisier level"
            )


def _variances(
    var: Float64[Tensor, "..."], k: int, shape: tuple[int, ...]
) -> Float64[Tensor, "K D"]:
    """(K, 1) or (K, D)."""
    if tuple(var.shape) not in ((k,), (k, *shape)):
        raise ValueError(
            f"var has shape {tuple(var.shape)}: it must be {(k,)}, one for each component, or "
            f"{(k, *shape)}, one for each number"
        )
    if not ((var >= 0) & var.isfinite()).all():
        raise ValueError(f"var goes down to {var.min():g}: a variance is a finite number ≥ 0")
    return var.reshape(k, -1)


def _eigen(
    cov: Float64[Tensor, "..."], k: int, d: int
) -> tuple[Float64[Tensor, "K D"], Float64[Tensor, "K D D"]]:
    if tuple(cov.shape) != (k, d, d):
        raise ValueError(f"cov has shape {tuple(cov.shape)}: it must be {(k, d, d)}")
    check_finite("cov", cov)
    largest = cov.abs().amax((1, 2), keepdim=True)
    if ((cov - cov.mT).abs() > 1e-6 * largest).any():
        raise ValueError("cov is not symmetric: give (cov + cov.mT)/2")
    values, basis = torch.linalg.eigh((cov + cov.mT) / 2)
    # A singular covariance comes out of the solver with eigenvalues a rounding below 0.
    if (values < -1e-6 * largest[:, 0]).any():
        raise ValueError(
            f"cov has an eigenvalue {values.min():g}: a covariance is positive semi-definite"
        )
    return values.clamp_min(0), basis
