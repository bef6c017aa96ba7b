"""The loss of inputs with exactly two active features, in closed form, at the cost of one sort per output."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Responses below this are expanded to second order instead of divided by: a gradient has three such divisions, so that
# smaller ones cost digits, and larger ones cost a^2.
_LEAST = 3e-4
_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)
# Densities nearer to 1 have odds that cancel against the chance of silence to fewer digits than this changes.
_MOST = 1 - 1e-6


def two_active_gradient(
    G: Float[Tensor, "e n n"], b: Float[Tensor, "e n"], importance: Float[Tensor, "e n"], p: Float[Tensor, "e n"]
) -> tuple[Float[Tensor, "e"], Float[Tensor, "e n n"], Float[Tensor, "e n"]]:
    r"""The part of the expected loss with exactly two active features, independent and uniform on [0, 1], and its
    gradient.

    An output k that neither of them owns costs, with $a_i = G_{ki}$ and $w_i = p_i / (1 - p_i)$,
    $\sum_{i<j} w_i w_j \frac{R_4(b+a_i+a_j) - R_4(b+a_i) - R_4(b+a_j) + R_4(b)}{12 a_i a_j}$ times
    $\prod (1 - p)$. The sum over j at a given i is $\sum_{a_j > -t} \frac{w_j}{a_j} (t + a_j)^4$ with $t = b + a_i$:
    five moments of the $a_j$ above a threshold, which are differences of running sums once the $a_j$ are sorted. So
    $n^3$ terms cost $O(n^2 \log n)$. Outputs that one of the two owns are $n^2$ terms anyway.

    In float64. Densities above 1 - 1e-6 count as that.

    Args:
        G: responses, row k the output, column i the feature.
        b: biases.
        importance: I.
        p: densities.

    Returns:
        (loss, dL/dG, dL/db).

    Source:
        Derived here; held to `exact_gradient` by a test.
    """
    G, b, importance = G.double(), b.double(), importance.double()
    p = p.double().clamp(max=_MOST)
    odds = p / (1 - p)
    loss, by_G, by_b = _strangers(G, b, odds)
    own_loss, own_G, own_b, by_own = _owners(G, b, odds)
    weight = importance * (1 - p).prod(1, keepdim=True)
    by_G += own_G
    by_G.diagonal(dim1=1, dim2=2).add_(by_own)
    return (weight * (loss + own_loss)).sum(1), by_G.mul_(weight[:, :, None]), weight * (by_b + own_b)


def _strangers(
    a: Float[Tensor, "e n n"], b: Float[Tensor, "e n"], odds: Float[Tensor, "e n"]
) -> tuple[Float[Tensor, "e n"], Float[Tensor, "e n n"], Float[Tensor, "e n"]]:
    # Pairs of features that are not the output's own. All is in the order of the responses until the end: then the
    # search meets its thresholds in order too, which halves its time.
    e, n = b.shape
    a, order = a.sort(-1)
    w = odds[:, None].expand_as(a).gather(-1, order)
    w.masked_fill_(order == torch.arange(n)[:, None], 0.0)
    small = a.abs() < _LEAST
    any_small = bool(small.any())
    inverse = 1 / a.masked_fill(small, 1.0)
    v = w * inverse
    if any_small:
        v.masked_fill_(small, 0.0)
    bias = b[:, :, None]

    # For t = b + a_i and, in the last place, t = b: moments of the knots a_j > -t, weighted by v_j.
    t = torch.cat([a, torch.zeros_like(bias)], -1).add_(bias)
    place = torch.searchsorted(a, -t, right=True)
    terms = a.new_zeros(5, e, n, n + 1)
    terms[0, ..., 1:] = v
    for m in range(1, 5):
        torch.mul(terms[m - 1, ..., 1:], a, out=terms[m, ..., 1:])
    sums = terms.cumsum(-1)
    s0, s1, s2, s3, s4 = (torch.sub(upto[..., -1:], upto.gather(-1, place)) for upto in sums)
    total = sums[0, ..., -1:]
    # Horner in t of sum v_j (t + a_j)^3 and the same to the fourth, less what they are without a_j.
    ramp = torch.relu(t)
    square = ramp * ramp
    cube = square * ramp
    s0.mul_(t)
    third = torch.add(s1, s0, alpha=1 / 3).mul_(t).add_(s2).mul_(3).mul_(t).add_(s3)
    fourth = s1.mul_(4).add_(s0).mul_(t).add_(s2, alpha=6).mul_(t).add_(s3, alpha=4).mul_(t).add_(s4)
    third.addcmul_(total, cube, value=-1)
    fourth.addcmul_(total, square * square, value=-1)
    # A feature is no pair with itself.
    once, rest = ramp[..., :-1], ramp[..., -1:]
    once3, rest3 = cube[..., :-1], cube[..., -1:]
    twice = torch.relu_(t[..., :-1] + a)
    twice2 = twice * twice
    along = torch.addcmul(third[..., :-1], v, torch.addcmul(once3, twice2, twice, value=-1))
    n3 = torch.addcmul(along, v, once3 - rest3).sub_(third[..., -1:])
    n4 = fourth[..., :-1] - fourth[..., -1:]
    own = twice2.mul_(twice2).addcmul_(square[..., :-1], square[..., :-1], value=-2)
    n4.addcmul_(v, own.add_(rest3 * rest), value=-1)
    loss = (v * n4).sum(-1) / 24
    by_b = (v * n3).sum(-1) / 6
    by_a = along.div_(3).addcmul_(n4, inverse, value=-1 / 12).mul_(v)
    if any_small:
        # Pairs with a small response s: E R_2(b + a x + s y) = m_2 + s m_1 + s^2 m_0 / 3, m_q = E R_q(b + a x).
        few = torch.where(small, w, 0.0)
        near = [torch.relu(bias + a * node) for node in _GAUSS]
        m2 = torch.where(small, (near[0] ** 2 + near[1] ** 2) / 2, (once3 - rest3) * inverse / 3)
        m1 = torch.where(small, (near[0] + near[1]) / 2, (square[..., :-1] - square[..., -1:]) * inverse / 2)
        m0 = torch.where(small, ((near[0] > 0).to(a) + (near[1] > 0)) / 2, (once - rest) * inverse)
        first = few * a
        # Two small ones meet each other twice.
        half = torch.where(small, 0.5 * w, w)
        c0, c1, c2 = (moment.sum(-1, keepdim=True) - moment for moment in (few, first, first * a / 3))
        loss = loss + (half * (m2 * c0 + m1 * c1 + m0 * c2)).sum(-1)
        by_b = by_b + (half * (2 * m1 * c0 + m0 * c1)).sum(-1)
        m1_all, m0_all = ((w * m).sum(-1, keepdim=True) - w * m for m in (m1, m0))
        by_a += torch.where(
            small,
            w * (m1_all + 2 / 3 * a * m0_all),
            w * inverse * (c0 * (square[..., :-1] - m2) + c1 * (once - m1)),
        )
    return loss, torch.empty_like(by_a).scatter_(-1, order, by_a), by_b


def _owners(
    a: Float[Tensor, "e n n"], b: Float[Tensor, "e n"], odds: Float[Tensor, "e n"]
) -> tuple[Float[Tensor, "e n"], Float[Tensor, "e n n"], Float[Tensor, "e n"], Float[Tensor, "e n"]]:
    # The output's own feature x and another y: E (x - ReLU(o x + c y + b))^2 = 1/3 + (T(b + c) - T(b)) / c, with T the
    # integral over the bias of E [ReLU(o x + b)^2 - 2 x ReLU(o x + b)].
    w = (odds[:, None] * odds[:, :, None]).clone()
    w.diagonal(dim1=1, dim2=2).zero_()
    own = a.diagonal(dim1=1, dim2=2)[:, :, None]
    bias = b[:, :, None]
    small = a.abs() < _LEAST
    inverse = 1 / torch.where(small, 1.0, a)
    t = torch.cat([bias + a, bias], -1)
    integral, value, slope, integral_own, value_own = _own_moments(t, own)
    value_c, value_b = value[..., :-1], value[..., -1:]
    slope_c, slope_b = slope[..., :-1], slope[..., -1:]
    rise = (integral[..., :-1] - integral[..., -1:]) * inverse
    rise_own = (integral_own[..., :-1] - integral_own[..., -1:]) * inverse
    rise_b = (value_c - value_b) * inverse
    by_c = (value_c - rise) * inverse
    if bool(small.any()):
        # To second order in c.
        rise = torch.where(small, value_b + a * slope_b / 2, rise)
        rise_b = torch.where(small, (slope_b + slope_c) / 2, rise_b)
        rise_own = torch.where(small, (value_own[..., :-1] + value_own[..., -1:]) / 2, rise_own)
        by_c = torch.where(small, slope_b / 2 + (slope_c - slope_b) / 3, by_c)
    return (w * (1 / 3 + rise)).sum(-1), w * by_c, (w * rise_b).sum(-1), (w * rise_own).sum(-1)


def _own_moments(t: Float[Tensor, "e n m"], own: Float[Tensor, "e n 1"]) -> tuple[Tensor, ...]:
    # Of g(t) = E [R_2(o x + t) - 2 x R_1(o x + t)]: its integral over t, itself, its slope; and the first two by o.
    small = own.abs() < 3e-3
    o = 1 / torch.where(small, 1.0, own)
    low, top = torch.relu(t), torch.relu(t + own)
    low2, top2 = low * low, top * top
    low3, top3 = low2 * low, top2 * top
    # E x R_1 = R_2(t+o)/2o - [R_3]/6o^2, E R_2 = [R_3]/3o, and one power more for the integral.
    kappa = (1 + o) * o / 3
    rise3, rise4 = top3 - low3, top2 * top2 - low2 * low2
    value = kappa * rise3 - o * top2
    slope = 3 * kappa * (top2 - low2) - 2 * o * top
    integral = kappa / 4 * rise4 - o / 3 * top3
    kappa_o, o2 = -(o * o + 2 * o**3) / 3, o * o
    value_own = kappa_o * rise3 + 3 * kappa * top2 + o2 * top2 - 2 * o * top
    integral_own = kappa_o / 4 * rise4 + kappa * top3 + o2 / 3 * top3 - o * top2
    if bool(small.any()):
        near = [(x, torch.relu(t + own * x)) for x in _GAUSS]
        value = torch.where(small, sum(r * r / 2 - x * r for x, r in near), value)
        slope = torch.where(small, sum(r - x * (r > 0) for x, r in near), slope)
        integral = torch.where(small, sum(r**3 / 6 - x * r * r / 2 for x, r in near), integral)
        value_own = torch.where(small, sum(x * r - x * x * (r > 0) for x, r in near), value_own)
        integral_own = torch.where(small, sum(x * r * r / 2 - x * x * r for x, r in near), integral_own)
    return integral, value, slope, integral_own, value_own
