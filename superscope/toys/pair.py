"""Two features, one dimension: the expected loss and its gradient, written out, for phase diagrams of a hundred
thousand models."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-3


def pair_chances(p: Float[Tensor, "2 e"]) -> Float[Tensor, "4 2 e"]:
    """Of each output: P(neither feature), P(only its own), P(only the other), P(both), of independent gates.

    Args:
        p: the densities.
    """
    other = p.flip(0)
    both = p * other
    return torch.stack([(1 - p) * (1 - other), p - both, other - both, both])


def pair_gradient(
    w: Float[Tensor, "2 e"],
    b: Float[Tensor, "2 e"],
    chances: Float[Tensor, "4 2 e"],
    importance: Float[Tensor, "2 e"],
    with_loss: bool = True,
) -> tuple[Float[Tensor, "e"] | None, Float[Tensor, "2 e"], Float[Tensor, "2 e"]]:
    r"""Loss of $\mathrm{ReLU}(w w^\top f + b)$ for n = 2, d = 1, and its gradient in w and b, without autograd.

    Output i has own response $a = w_i^2$ and cross response $c = w_1 w_2$:
    $L_i = \bar p_i \bar p_j R_2(b) + p_i \bar p_j S(a, b) + \bar p_i p_j M(c, b) + p_i p_j D(a, c, b)$ with
    $D = \frac13 - \frac{N_3}{3ac} + \frac{N_4}{12 a^2 c} + \frac{N_4}{12 a c}$, $N_3 = R_3(a+c+b) - R_3(a+b)$,
    $N_4 = R_4(a+c+b) - R_4(a+b) - R_4(c+b) + R_4(b)$.

    Responses below 1e-3 in size are replaced by 1e-3, for a and c divide; losses to report come from `exact_loss`,
    which has no such floor.

    Args:
        w: the two weights of each model; the instance axis is last, since every operation runs along it.
        b: the biases.
        chances: of `pair_chances`, the same at every step.
        importance: I.
        with_loss: whether the loss is wanted too; a step needs its gradient only.

    Returns:
        (loss or None, dL/dw, dL/db), all in float64.

    Source:
        Derived here; held to `exact_loss` by a test.
    """
    a = (w * w).clamp_(min=_LEAST)
    cross = w[0] * w[1]
    c = torch.where(cross.abs() < _LEAST, torch.where(cross < 0, -_LEAST, _LEAST), cross)
    # The four corners of the square of the two magnitudes, and their second and third powers.
    t0, ta, tc = torch.relu(b), torch.relu(b + a), torch.relu(b + c)
    tac = torch.relu(b + a + c)
    q0, qa, qc, qac = t0 * t0, ta * ta, tc * tc, tac * tac
    u0, ua, uc, uac = q0 * t0, qa * ta, qc * tc, qac * tac
    u_a, u_c, u_ac = ua - u0, uc - u0, uac - ua
    n4_b = u_ac - u_c
    n4 = (qac * qac).addcmul_(qa, qa, value=-1).addcmul_(qc, qc, value=-1).addcmul_(q0, q0)
    neither, mine, theirs, both = chances
    ia, ic = 1 / a, 1 / c
    # Each combination of inverses is formed once: k_d = (1 + 1/a) / (12 a c), k_s = (1 + 1/a) / (3 a).
    k = ia * ic / 3
    k_s = (ia + ia * ia) / 3
    k_d = k_s * ic / 4

    m = (u_c * ic).div_(3)
    loss = None
    if with_loss:
        d = torch.addcmul(n4 * k_d, u_ac, k, value=-1).add_(1 / 3)
        s = torch.addcmul(u_a * k_s, qa, ia, value=-1).add_(1 / 3)
        parts = (neither * q0).addcmul_(mine, s).addcmul_(theirs, m).addcmul_(both, d)
        loss = parts.mul_(importance).sum(0)

    # Derivatives by b: R_m' = m R_{m-1}.
    d_b = torch.addcmul(4 * n4_b * k_d, qac - qa, k, value=-3)
    s_b = torch.addcmul(3 * (qa - q0) * k_s, ta, ia, value=-2)
    g_b = (2 * neither * t0).addcmul_(mine, s_b).addcmul_(theirs, (qc - q0) * ic).addcmul_(both, d_b).mul_(importance)
    # By a. Each quotient brings back itself over a.
    d_a = torch.addcmul(4 * (uac - ua) * k_d, torch.addcmul(3 * (qac - qa), u_ac, ia, value=-1), k, value=-1)
    d_a.addcmul_(n4 * ia, k_d + k * ia / 4, value=-1)
    s_a = torch.addcmul(6 * qa * k_s, ta, ia, value=-2).addcmul_(qa, ia, value=-1)
    s_a.addcmul_(u_a * ia, k_s + ia * ia / 3, value=-1)
    g_a = (mine * s_a).addcmul_(both, d_a).mul_(importance)
    # By c.
    d_c = torch.addcmul(torch.addcmul(4 * (uac - uc), n4, ic, value=-1) * k_d, 3 * qac - u_ac * ic, k, value=-1)
    g_c = (theirs * (qc - m) * ic).addcmul_(both, d_c).mul_(importance).sum(0)
    return loss, torch.addcmul(w.flip(0) * g_c, w, g_a, value=2), g_b
