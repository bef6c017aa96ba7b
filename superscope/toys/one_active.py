"""The loss of inputs with no or one active feature, exactly, for any number of features; the rest is left to
sampling."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude
from ..features.magnitudes import UNIT

_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)


def counts_of_active(p: Float[Tensor, "e n"]) -> tuple[Float[Tensor, "e"], Float[Tensor, "e n"], Float[Tensor, "e"]]:
    """P(none active), P(only i active), P(two or more active) of independent gates, in float64.

    The last is a sum of products, not 1 minus the others, so that it keeps its digits where it is tiny.
    """
    p = p.double()
    quiet = 1 - p
    before = torch.cat([torch.ones_like(p[:, :1]), quiet.cumprod(1)[:, :-1]], 1)
    after = torch.cat([quiet.flip(1).cumprod(1).flip(1)[:, 1:], torch.ones_like(p[:, :1])], 1)
    # 1 - prod(1 - p_l) over the later features, without cancellation.
    logs = torch.log1p(-p.clamp(max=1 - 1e-15)).flip(1).cumsum(1).flip(1)
    some_after = -torch.expm1(torch.cat([logs[:, 1:], torch.zeros_like(logs[:, :1])], 1))
    return quiet.prod(1), p * before * after, (before * p * some_after).sum(1)


def one_active_gradient(
    G: Float[Tensor, "e n n"],
    b: Float[Tensor, "e n"],
    importance: Float[Tensor, "e n"],
    none: Float[Tensor, "e"],
    single: Float[Tensor, "e n"],
) -> tuple[Float[Tensor, "e"], Float[Tensor, "e n n"], Float[Tensor, "e n"]]:
    r"""$P_0 \sum_j I_j R_2(b_j) + \sum_i P_{1i} \left[ I_i S(G_{ii}, b_i) + \sum_{j \ne i} I_j M(G_{ji}, b_j)
    \right]$ and its gradient.

    S and M are `theory.toy_loss.kept` and `leaked`. In float64, $O(E n^2)$, about one batch of n rows.

    Args:
        G: responses, row j the output, column i the feature.
        b: biases.
        importance: I.
        none: P_0, the probability that nothing is active.
        single: P_1i, the probability that only i is.

    Returns:
        (loss, dL/dG, dL/db).
    """
    G, b, importance = G.double(), b.double(), importance.double()
    bias = b[:, :, None]
    small = G.abs() < 1e-4
    g = torch.where(small, 1.0, G)
    top, low = torch.relu(bias + g), torch.relu(bias)
    m = (top**3 - low**3) / (3 * g)
    m_g, m_b = (top**2 - m) / g, (top**2 - low**2) / g
    if bool(small.any()):
        near = [torch.relu(bias + G * node) for node in _GAUSS]
        m = torch.where(small, (near[0] ** 2 + near[1] ** 2) / 2, m)
        m_g = torch.where(small, near[0] * _GAUSS[0] + near[1] * _GAUSS[1], m_g)
        m_b = torch.where(small, near[0] + near[1], m_b)
    own, own_b = G.diagonal(dim1=1, dim2=2), b
    x, x_a, x_b = _cross(own, own_b)
    for matrix, change in ((m, 1 / 3 - 2 * x), (m_g, -2 * x_a), (m_b, -2 * x_b)):
        matrix.diagonal(dim1=1, dim2=2).add_(change)
    weight = importance[:, :, None] * single[:, None, :]
    ramp = torch.relu(b)
    loss = none * (importance * ramp**2).sum(1) + (weight * m).sum((1, 2))
    return loss, weight * m_g, 2 * none[:, None] * importance * ramp + (weight * m_b).sum(2)


def _cross(a: Float[Tensor, "e n"], b: Float[Tensor, "e n"]) -> tuple[Tensor, Tensor, Tensor]:
    # X = E U ReLU(a U + b) and its derivatives by a and b.
    small = a.abs() < 1e-3
    s = torch.where(small, 1.0, a)
    top, low = torch.relu(s + b), torch.relu(b)
    rise = top**3 - low**3
    x = top**2 / (2 * s) - rise / (6 * s**2)
    x_a = top / s - top**2 / s**2 + rise / (3 * s**3)
    x_b = top / s - (top**2 - low**2) / (2 * s**2)
    near = [(node, torch.relu(a * node + b)) for node in _GAUSS]
    return (
        torch.where(small, sum((node * r for node, r in near), torch.zeros_like(a)) / 2, x),
        torch.where(small, sum((node**2 * (r > 0) for node, r in near), torch.zeros_like(a)) / 2, x_a),
        torch.where(small, sum((node * (r > 0) for node, r in near), torch.zeros_like(a)) / 2, x_b),
    )


def three_active_chance(p: Float[Tensor, "e n"]) -> Float[Tensor, "e"]:
    """P(three or more active) of independent gates, in float64."""
    return _at_least(p.double().clamp(max=1 - 1e-12), 3)[:, 3, 0]


def _at_least(p: Float[Tensor, "e n"], most: int) -> Float[Tensor, "e counts starts"]:
    # [r, i] = P(r or more active among features i, i + 1, ...), as sums of products: exact where it is tiny.
    e, n = p.shape
    table = p.new_zeros(e, most + 1, n + 1)
    table[:, 0] = 1
    for i in range(n - 1, -1, -1):
        table[:, 1:, i] = p[:, i, None] * table[:, :-1, i + 1] + (1 - p[:, i, None]) * table[:, 1:, i + 1]
    return table


def draw_three_or_more(
    u: Float[Tensor, "*e rows noise"], p: Float[Tensor, "e n"], magnitude: Magnitude
) -> Float[Tensor, "e rows n"]:
    r"""f given that at least three features are active, exactly: the first, the second given it, the third given that,
    then the rest freely.

    With $T_r(i)$ the probability of r or more active among the features from i on: $P(\text{first} = i) \propto
    p_i \prod_{l<i} q_l\, T_2(i+1)$, $P(\text{second} = j \mid i) \propto p_j \prod_{i<l<j} q_l\, T_1(j+1)$, the
    third as the second of `draw_two_or_more`.

    Args:
        u: n + 3 uniforms per row.
        p: densities of each model.
        magnitude: of an active feature.
    """
    p = p.double().clamp(max=1 - 1e-12)
    e, n = p.shape
    u = u.expand(e, *u.shape[-2:])
    total = -torch.log1p(-p).cumsum(1)
    before = torch.exp(-(total + torch.log1p(-p)))
    table = _at_least(p, 2)
    first_cdf = (p * before * table[:, 2, 1:]).cumsum(1)
    chosen_by = [u[..., n + t].double() for t in range(3)]
    first = torch.searchsorted(first_cdf, chosen_by[0] * first_cdf[:, -1:], right=True).clamp_(max=n - 3)
    # The cumulative law of the second is one sequence, entered at the first: a difference of its sums.
    second_cdf = (p * before * table[:, 1, 1:]).cumsum(1)
    entered = second_cdf.gather(1, first)
    aim = entered + chosen_by[1] * (second_cdf[:, -1:] - entered)
    second = torch.searchsorted(second_cdf, aim, right=True).clamp_(max=n - 2)
    second = torch.maximum(second, first + 1)
    some_after = table[:, 1, 1:].gather(1, second)
    aim = total.gather(1, second) - torch.log1p(-chosen_by[2] * some_after)
    third = torch.searchsorted(total, aim).clamp_(max=n - 1)
    third = torch.maximum(third, second + 1)
    return _with_rest(u[..., :n], p, (first, second, third), magnitude)


def draw_two_or_more(
    u: Float[Tensor, "*e rows noise"], p: Float[Tensor, "e n"], magnitude: Magnitude
) -> Float[Tensor, "e rows n"]:
    r"""f given that at least two features are active, exactly: first i, then the next j > i, then the rest freely.

    $P(\text{first} = i) \propto p_i \prod_{l<i}(1-p_l) \left(1 - \prod_{l>i}(1-p_l)\right)$, and
    $P(\text{second} \le j \mid i) \propto 1 - \prod_{i<l\le j}(1-p_l)$; features after j are independent. No
    rejection, so it costs the same at p = 1e-6.

    Args:
        u: n + 2 uniforms per row.
        p: densities of each model.
        magnitude: of an active feature.
    """
    p = p.double().clamp(max=1 - 1e-12)
    e, n = p.shape
    u = u.expand(e, *u.shape[-2:])
    logs = torch.log1p(-p)
    total = -logs.cumsum(1)
    some_after = -torch.expm1(-(total[:, -1:] - total))
    first_law = torch.exp(-(total + logs)) * p * some_after
    first_cdf = first_law.cumsum(1)
    u1, u2 = u[..., n].double(), u[..., n + 1].double()
    # The last feature cannot be the first of two: the clamp guards u1 = 1 - eps against rounding of the sum.
    first = torch.searchsorted(first_cdf, u1 * first_cdf[:, -1:], right=True).clamp_(max=n - 2)
    reached = total.gather(1, first)
    aim = reached - torch.log1p(-u2 * some_after.gather(1, first))
    second = torch.searchsorted(total, aim).clamp_(max=n - 1)
    second = torch.maximum(second, first + 1)
    return _with_rest(u[..., :n], p, (first, second), magnitude)


def _with_rest(
    free: Float[Tensor, "e rows n"], p: Float[Tensor, "e n"], chosen: tuple[Tensor, ...], magnitude: Magnitude
) -> Float[Tensor, "e rows n"]:
    # Magnitudes of the chosen features, the last of which is the last to be forced; those after it are free.
    density = p.to(free.dtype)[:, None]
    place = torch.arange(p.shape[1], device=free.device)
    # One division and a comparison: a free feature is active where what is left of its uniform is below 1.
    q = free / density
    q.masked_fill_(place <= chosen[-1][..., None], 2.0)
    for which in chosen:
        q.scatter_(2, which[..., None], free.gather(2, which[..., None]))
    if magnitude == UNIT:
        # 1 - q is as uniform as q, and its ramp is 0 where q is 1 or more.
        return q.neg_().add_(1).relu_()
    return torch.where(q < 1, magnitude.quantile(q.clamp(max=1 - 2**-24)), free.new_zeros(()))
