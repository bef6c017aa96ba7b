"""Two features, one dimension: the expected loss and its gradient, written out, for phase diagrams of a hundred
thousand models."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-3


def pair_gradient(
    w: Float[Tensor, "2 e"], b: Float[Tensor, "2 e"], p: Float[Tensor, "2 e"], importance: Float[Tensor, "2 e"]
) -> tuple[Float[Tensor, "e"], Float[Tensor, "2 e"], Float[Tensor, "2 e"]]:
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
        p: the densities.
        importance: I.

    Returns:
        (loss, dL/dw, dL/db), all in float64.

    Source:
        Derived here; held to `exact_loss` by a test.
    """
    own = (w * w).clamp_(min=_LEAST)
    cross = w[0] * w[1]
    c = torch.where(cross.abs() < _LEAST, torch.where(cross < 0, -_LEAST, _LEAST), cross)
    a = own
    # The four corners of the square of the two magnitudes.
    t0, ta = torch.relu(b), torch.relu(b + a)
    tc = torch.relu(b + c)
    tac = torch.relu(b + a + c)
    q0, qa, qc, qac = t0 * t0, ta * ta, tc * tc, tac * tac
    u0, ua, uc, uac = q0 * t0, qa * ta, qc * tc, qac * tac
    n4 = q0 * q0 - qa * qa - qc * qc + qac * qac
    n3 = uac - ua
    other = p.flip(0)
    both, mine, theirs = p * other, p * (1 - other), (1 - p) * other
    ia, ic = 1 / a, 1 / c
    iac = ia * ic
    rise_a, rise_c = ua - u0, uc - u0

    m = rise_c * ic / 3
    quotient = n4 * iac / 12
    d = 1 / 3 - n3 * iac / 3 + quotient * ia + quotient
    s = 1 / 3 - qa * ia + rise_a * ia * ia / 3 + rise_a * ia / 3
    loss = (importance * ((1 - p) * (1 - other) * q0 + mine * s + theirs * m + both * d)).sum(0)

    # Derivatives by b: R_m' = m R_{m-1}.
    n4_b = 4 * (u0 - ua - uc + uac)
    n3_b = 3 * (qac - qa)
    step_a = qa - q0
    d_b = -n3_b * iac / 3 + n4_b * iac * ia / 12 + n4_b * iac / 12
    s_b = -2 * ta * ia + step_a * ia * ia + step_a * ia
    m_b = (qc - q0) * ic
    g_b = importance * (2 * (1 - p) * (1 - other) * t0 + mine * s_b + theirs * m_b + both * d_b)
    # By a.
    n4_a, n3_a = 4 * (uac - ua), 3 * (qac - qa)
    d_a = -(n3_a - n3 * ia) * iac / 3 + (n4_a - 2 * n4 * ia) * iac * ia / 12 + (n4_a - n4 * ia) * iac / 12
    s_a = -2 * ta * ia + qa * ia * ia + qa * ia * ia - 2 * rise_a * ia**3 / 3 + qa * ia - rise_a * ia * ia / 3
    g_a = importance * (mine * s_a + both * d_a)
    # By c.
    n4_c, n3_c = 4 * (uac - uc), 3 * qac
    d_c = -(n3_c - n3 * ic) * iac / 3 + (n4_c - n4 * ic) * iac * (ia + 1) / 12
    m_c = (qc - m) * ic
    g_c = (importance * (theirs * m_c + both * d_c)).sum(0)
    return loss, 2 * w * g_a + w.flip(0) * g_c, g_b
