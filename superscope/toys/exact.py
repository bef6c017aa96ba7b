"""The expected loss of small models in closed form, batched and differentiable: no sample, no noise in the gradient."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    small_own = own < _LEAST_OWN
    safe_own = torch.where(small_own, 1.0, own)
    any_small_own = bool(small_own.any())
    rows = torch.arange(n)[:, None, None]
    total = b.new_zeros(len(b), n)
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
        total = total + (supports[:, without] * quiet + supports[:, with_own] * loud).sum(-1)
    return (importance * total).sum(-1)


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
    spread = ((residual @ covariance) * residual).sum(-1)
    offset = (residual @ mean[..., None])[..., 0] - b
    return (importance.double() * (spread + offset**2)).sum(-1)
