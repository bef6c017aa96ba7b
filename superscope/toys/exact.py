"""The expected loss of small models in closed form, batched and differentiable: no sample, no noise in the gradient."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .product import product, total

# Below these sizes a coefficient is averaged over two Gauss nodes instead of divided by: the quotient of k differences
# loses about eps / prod(a), the average errs by about 0.005 a^2, and these balance.
_LEAST = (0.0, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 4e-2, 5e-2)
_LEAST_OWN = 3e-3
_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)

MOST_FEATURES = 8
"""Features up to which `exact_loss` is offered: it has n 3^(n-1) terms."""


@functools.lru_cache(maxsize=32)
def _subsets(n: int, k: int) -> tuple[Int[Tensor, "n sets k"], Int[Tensor, "n sets"], Int[Tensor, "n sets"]]:
    # For each output i: the sets of k other features, and their numbers in the 2^n sets without and with i.
    members = [[list(s) for s in itertools.combinations([j for j in range(n) if j != i], k)] for i in range(n)]
    ids = torch.tensor(members, dtype=torch.long).reshape(n, math.comb(n - 1, k), k)
    without = (2**ids).sum(-1) if k else torch.zeros(n, 1, dtype=torch.long)
    return ids, without, without + (2 ** torch.arange(n))[:, None]


def exact_loss(
    G: Float[Tensor, "e n n"],
    b: Float[Tensor, "e n"],
    supports: Float[Tensor, "e sets"],
    importance: Float[Tensor, "e n"],
) -> Float[Tensor, "e"]:
    r"""$L = \sum_A P(A) \sum_i I_i\, \mathbb E[(x_i - \mathrm{ReLU}(G x + b)_i)^2 \mid A]$ of E models, active
    features uniform on [0, 1].

    Each term is an integral of a power of a ramp over a cube,
    $\int R_q(a \cdot x + c)\,dx = \frac{q!}{(k+q)!} \prod a_i^{-1} \sum_{v \in \{0,1\}^k} (-1)^{k-|v|} R_{k+q}(a
    \cdot v + c)$, in float64 whatever the input; agrees with `theory.toy_loss.expected_loss` to 1e-6, and to
    5e-6 where many overlaps are tiny and a kink lies among them. Cost and
    memory $O(E n 3^{n-1})$.

    Args:
        G: responses, row j the output, column i the feature.
        b: biases.
        supports: P(exactly A active) for the 2^n sets, as `FeatureDistribution.supports` gives it; correlated gates
        too.
        importance: I.

    Returns:
        One loss per model, summed over features.

    Raises:
        ValueError: if n > 8.

    Source:
        Derived here; checked against Monte Carlo and extended precision.
    """
    n = b.shape[-1]
    if n > MOST_FEATURES:
        raise ValueError(
            f"exact_loss: n must be at most {MOST_FEATURES}; got {n}. Use the estimator 'stratified' or 'sampled'."
        )
    G, b, supports, importance = G.double(), b.double(), supports.double(), importance.double()
    own = G.diagonal(dim1=1, dim2=2)[:, :, None]
    small_own = own.abs() < _LEAST_OWN
    safe_own = torch.where(small_own, 1.0, own)
    any_small_own = bool(small_own.any())
    rows = torch.arange(n)[:, None, None]
    expected = b.new_zeros(len(b), n)
    for k in range(n):
        ids, without, with_own = _subsets(n, k)
        moment = _moments(G[:, rows, ids], b[:, :, None], _LEAST[k])
        quiet = moment(2, 0.0)
        top, low = moment(3, own), moment(3, 0.0)
        rise = (top - low) / safe_own
        square = rise / 3
        cross = moment(2, own) / (2 * safe_own) - rise / (6 * safe_own)
        if any_small_own:
            near = [moment(2, own * node) / 2 for node in _GAUSS]
            near_cross = [moment(1, own * node) * node / 2 for node in _GAUSS]
            square = torch.where(small_own, near[0] + near[1], square)
            cross = torch.where(small_own, near_cross[0] + near_cross[1], cross)
        loud = 1 / 3 - 2 * cross + square
        expected = expected + (supports[:, without] * quiet + supports[:, with_own] * loud).sum(-1)
    return (importance * expected).sum(-1)


def _moments(a: Float[Tensor, "e n sets k"], c: Float[Tensor, "e n 1"], least: float):
    # A function (q, shift) -> mean over the k coordinates of R_q(a . x + c + shift).
    k = a.shape[-1]
    direct = a.abs() > least
    every = bool(direct.all())
    slope = torch.where(direct, a, 1.0)
    # Either the ends 0 and 1 with weights -1/a and 1/a, each raising the power by one, or two Gauss nodes.
    first = torch.where(direct, 0.0, a * _GAUSS[0])
    second = torch.where(direct, a, a * _GAUSS[1])
    weight = torch.where(direct, 1 / slope, 0.5)
    points, weights = c[..., None], torch.ones_like(c[..., None])
    for j in range(k):
        points = torch.cat([points + first[..., j : j + 1], points + second[..., j : j + 1]], -1)
        sign = torch.where(direct[..., j : j + 1], -1.0, 1.0)
        scaled = weights * weight[..., j : j + 1]
        weights = torch.cat([scaled * sign, scaled], -1)
    raised = direct.sum(-1, keepdim=True)

    def moment(q: int, shift: Tensor | float) -> Float[Tensor, "e n sets"]:
        ramp = torch.relu(points + (shift[..., None] if isinstance(shift, Tensor) else shift))
        power = ramp**q if q > 1 else ramp
        for t in range(1, k + 1):
            higher = power * ramp / (q + t)
            power = higher if every else torch.where(raised >= t, higher, power)
        return (weights * power).sum(-1)

    return moment


def linear_exact_loss(
    G: Float[Tensor, "e n n"],
    b: Float[Tensor, "e n"],
    mean: Float[Tensor, "e n"],
    covariance: Float[Tensor, "e n n"],
    importance: Float[Tensor, "e n"],
) -> Float[Tensor, "e"]:
    r"""$L = \sum_i I_i \left[ ((1-G)\,C\,(1-G)^\top)_{ii} + (((1-G)\mu - b)_i)^2 \right]$: any n, any law with moments.

    Source:
        Elementary; the Saxe form of Elhage et al., 2022 is the case of unit covariance.
    """
    G, b, mean, covariance = G.double(), b.double(), mean.double(), covariance.double()
    residual = torch.eye(G.shape[-1], dtype=G.dtype) - G
    spread = (product(residual, covariance) * residual).sum(-1)
    offset = product(residual, mean[..., None])[..., 0] - b
    return (importance.double() * (spread + offset**2)).sum(-1)


def exact_gradient(
    G: Float[Tensor, "e n n"],
    b: Float[Tensor, "e n"],
    supports: Float[Tensor, "e sets"],
    importance: Float[Tensor, "e n"],
) -> tuple[Float[Tensor, "e"], Float[Tensor, "e n n"], Float[Tensor, "e n"]]:
    r"""`exact_loss` with dL/dG and dL/db written out: with $T_q = \mathbb E\, R_q(a \cdot x + c)$ over the other
    active features,
    $\partial_c T_q = q\, T_{q-1}$ and $\partial_{a_j} T_q = -T_q / a_j + q \sum_{v: v_j = 1} w_v R_{q-1+k}$.

    About ten times the speed of autograd through `exact_loss`, which stays as its referee. The instance axis is last
    inside, for every operation runs along it.

    Args:
        G: responses, row j the output, column i the feature.
        b: biases.
        supports: P(exactly A active) for the 2^n sets.
        importance: I.

    Returns:
        (loss, dL/dG, dL/db), in float64.
    """
    P = supports.double().T.contiguous()
    e, n = b.shape
    a_all = G.double().permute(1, 2, 0).contiguous()
    c = b.double().T.contiguous()
    I = importance.double().T
    own = a_all.diagonal(dim1=0, dim2=1).T.contiguous()
    small = own.abs() < _LEAST_OWN
    any_small = bool(small.any())
    inverse = 1 / torch.where(small, 1.0, own)
    kappa = (1 + inverse) / 3
    o, kap, few = inverse[:, None], kappa[:, None], small[:, None]
    loss, by_b, by_own = torch.zeros_like(c), torch.zeros_like(c), torch.zeros_like(c)
    by_G = torch.zeros(n * n, e, dtype=torch.float64)
    flat = a_all.reshape(n * n, e)
    for k in range(n):
        ids, without, with_own = _subsets(n, k)
        off, on = P[without], P[with_own]
        places = torch.arange(n)[:, None, None] * n + ids
        others = _Others(flat[places.flatten()].reshape(*ids.shape, e), c, _LEAST[k])
        low, top = others.at(None), others.at(own)
        rise = (top[3] - low[3]) * o
        loud = 1 / 3 + kap * rise - top[2] * o
        loud_b = 3 * kap * (top[2] - low[2]) * o - 2 * top[1] * o
        loud_own = kap * (3 * top[2] - rise) * o - rise * o * o / 3 - 2 * top[1] * o + top[2] * o * o
        if any_small:
            near = [(node, others.at(own * node)) for node in _GAUSS]
            loud = torch.where(few, 1 / 3 + sum(t[2] / 2 - y * t[1] for y, t in near), loud)
            loud_b = torch.where(few, sum(t[1] - y * t[0] for y, t in near), loud_b)
            loud_own = torch.where(few, sum(y * t[1] - y * y * t[0] for y, t in near), loud_own)
        loss += total(off * low[2] + on * loud, 1)
        by_b += total(off * 2 * low[1] + on * loud_b, 1)
        by_own += total(on * loud_own, 1)
        for j in range(k):
            slope = kap * (others.slope(3, top, j) - others.slope(3, low, j)) * o - others.slope(2, top, j) * o
            if any_small:
                along = sum(others.slope(2, t, j) / 2 - y * others.slope(1, t, j) for y, t in near)
                slope = torch.where(few, along, slope)
            both = off * others.slope(2, low, j) + on * slope
            by_G.index_add_(0, places[:, :, j].flatten(), both.reshape(-1, e))
    diagonal = torch.arange(n) * (n + 1)
    by_G[diagonal] += by_own
    by_G = by_G.reshape(n, n, e) * I[:, None]
    return total(I * loss, 0), by_G.permute(2, 0, 1), (I * by_b).T


class _Others:
    # Means over the k other active features of R_q, q = 0..3, at a shift, and their slopes in the coefficients.

    def __init__(self, a: Float[Tensor, "n sets k e"], c: Float[Tensor, "n e"], least: float) -> None:
        self.k = a.shape[2]
        self.direct = a.abs() > least
        self.every = bool(self.direct.all())
        self.inverse = 1 / torch.where(self.direct, a, 1.0)
        if self.every:
            self.first, self.second = torch.zeros_like(a), a
        else:
            self.first = torch.where(self.direct, 0.0, a * _GAUSS[0])
            self.second = torch.where(self.direct, a, a * _GAUSS[1])
            self.raised = self.direct.sum(2)[:, :, None]
        points = c[:, None, None].expand(a.shape[0], a.shape[1], 1, a.shape[3])
        weights = torch.ones_like(points)
        for j in range(self.k):
            a0, a1, scale = (x[:, :, j : j + 1] for x in (self.first, self.second, self.inverse))
            points = torch.cat([points if self.every else points + a0, points + a1], 2)
            if self.every:
                weights = torch.cat([-weights * scale, weights * scale], 2)
            else:
                direct = self.direct[:, :, j : j + 1]
                half = weights / 2
                weights = torch.cat(
                    [torch.where(direct, -weights * scale, half), torch.where(direct, weights * scale, half)], 2
                )
        self.points, self.weights = points, weights

    def at(self, shift: Float[Tensor, "n e"] | None) -> _Means:
        ramp = torch.relu(self.points if shift is None else self.points + shift[:, None, None])
        return _Means(self, ramp)

    def slope(self, q: int, means: _Means, j: int) -> Float[Tensor, "n sets e"]:
        # d T_q / d a_j. Coordinate j is bit j of the vertex number.
        terms = means.weighted(q - 1)
        n, sets, _, e = terms.shape
        halves = terms.reshape(n, sets, -1, 2, 2**j, e)
        halves = total(total(halves, 4), 2)
        if self.every:
            return q * halves[:, :, 1] - means[q] * self.inverse[:, :, j]
        direct = self.direct[:, :, j]
        nodes = _GAUSS[0] * halves[:, :, 0] + _GAUSS[1] * halves[:, :, 1]
        return torch.where(direct, q * halves[:, :, 1] - means[q] * self.inverse[:, :, j], q * nodes)


class _Means:
    # T_q at one shift, computed once per q.

    def __init__(self, others: _Others, ramp: Float[Tensor, "n sets corners e"]) -> None:
        self.others, self.ramp = others, ramp
        self._powers = [(ramp > 0).to(ramp), ramp]
        self._weighted: dict[int, Tensor] = {}
        self._means: dict[int, Tensor] = {}

    def _power(self, m: int) -> Tensor:
        # R_m / m!
        while len(self._powers) <= m:
            self._powers.append(self._powers[-1] * self.ramp / len(self._powers))
        return self._powers[m]

    def weighted(self, q: int) -> Tensor:
        if q not in self._weighted:
            k = self.others.k
            if self.others.every:
                power = self._power(q + k)
            else:
                power = self._power(q)
                for t in range(1, k + 1):
                    power = torch.where(self.others.raised == t, self._power(q + t), power)
            self._weighted[q] = self.others.weights * (power * math.factorial(q) if q > 1 else power)
        return self._weighted[q]

    def __getitem__(self, q: int) -> Float[Tensor, "n sets e"]:
        if q not in self._means:
            self._means[q] = total(self.weighted(q), 2)
        return self._means[q]
