"""f by approximate message passing: the algorithm whose theory is exact for random W, and which fails on others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary
from .problem import (
    Atoms,
    RecoveryCoder,
    SolvedRows,
    check_count,
    check_dictionary,
    check_positive,
    check_tolerance,
    pack,
    rows_within,
)
from .proximal import soft


def weak_threshold(delta: float, *, nonnegative: bool = False) -> tuple[float, float]:
    r"""Weak l1 threshold: $\rho = \max_z \frac{1 - (\kappa/\delta) g(z)}{1 + z^2 - \kappa g(z)}$, with its z.

    With $g(z) = (1 + z^2) \Phi(-z) - z \phi(z)$ and kappa = 2, or 1 for f >= 0. z is also the minimax threshold of AMP.
    `theory` has the curve with its variants; a solver needs only this point of it.

    Args:
        delta: d / n, above 0; from 1 on every f is determined and rho is 1.
        nonnegative: for f >= 0.

    Returns:
        rho = k / d at which half of all codes are recovered, and z.

    Source:
        Donoho, Maleki and Montanari, "Message-passing algorithms for compressed sensing", 2009, equation 5.

    Example:
        >>> round(weak_threshold(0.25)[0], 5), round(weak_threshold(0.25)[1], 3)
        (0.26738, 1.292)
    """
    check_positive("weak_threshold", "delta", delta)
    if delta >= 1:
        return 1.0, 0.0
    kappa = 1 if nonnegative else 2
    # The maximum is flat and single: a fine grid, then a finer one around its best point.
    z = np.linspace(1e-6, math.sqrt(2 * math.log(2 / delta)) + 2, 2001)
    for _ in range(2):
        g = (1 + z**2) * scipy.stats.norm.sf(z) - z * scipy.stats.norm.pdf(z)
        rho = (1 - kappa / delta * g) / (1 + z**2 - kappa * g)
        best = int(np.argmax(rho))
        answer = float(rho[best]), float(z[best])
        z = np.linspace(z[max(best - 1, 0)], z[min(best + 1, len(z) - 1)], 2001)
    return answer


@dataclass(frozen=True)
class AMP(RecoveryCoder):
    r"""AMP: $f \leftarrow \eta(f + W^\top z; \alpha \tau)$, $z \leftarrow x - W f + z \lVert f \rVert_0 / d$.

    A study object, not a workhorse. For W with independent entries it reaches the Donoho-Tanner curve in tens of steps
    and state evolution predicts every one of them; on dictionaries with clusters, a common mean or a decaying spectrum
    (all trained ones) it diverges, already with atoms in clusters of 8 at cosine 0.3. Rows that diverge are returned at
    their smallest residual and reported as not converged.

    Args:
        dictionary: W, of any norm.
        alpha: threshold in units of the noise level tau = |z| / sqrt(d); None takes the minimax one for d / n.
        steps: at most.
        tolerance: a row is converged where |z| is at most this share of |x|, or f moves by less than this share.
        nonnegative: restricts to f >= 0.

    Raises:
        ValueError: if alpha <= 0, steps < 1 or tolerance is outside [0, 1).

    Source:
        Donoho, Maleki and Montanari, "Message-passing algorithms for compressed sensing", 2009, equations 1 and 2.

    Example:
        >>> W = Dictionary(torch.randn(80, 60, generator=torch.Generator().manual_seed(0)))
        >>> f = torch.zeros(80).scatter_(0, torch.tensor([3, 40]), torch.tensor([1.0, -2.0]))
        >>> bool((AMP(W).encode(W.compose(f)).dense() - f).abs().max() < 1e-3)
        True
    """

    dictionary: Dictionary
    alpha: float | None = None
    steps: int = 300
    tolerance: float = 1e-5
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_dictionary("AMP", self.dictionary)
        if self.alpha is not None:
            check_positive("AMP", "alpha", self.alpha)
        check_count("AMP", "steps", self.steps)
        check_tolerance("AMP", self.tolerance)

    def _chunk(self, atoms: Atoms) -> int:
        return rows_within(atoms, 6 * atoms.n)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        a, d = atoms.unit, atoms.d
        alpha = self.alpha
        if alpha is None:
            n = int((a != 0).any(1).sum())
            alpha = max(weak_threshold(d / max(n, 1), nonnegative=self.nonnegative)[1], 0.05)
        answer = x.new_zeros(len(x), atoms.n)
        converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        size = torch.linalg.vector_norm(x, dim=1)
        # Zero counts as the first iterate: a row that only grows from there keeps it.
        best = size.clone()
        going = (size > 0).nonzero()[:, 0]
        converged[size == 0] = True
        f, z, target = x.new_zeros(len(going), atoms.n), x[going].clone(), x[going]
        made = 0
        while made < self.steps and len(going):
            tau = torch.linalg.vector_norm(z, dim=1, keepdim=True) / math.sqrt(d)
            new = soft(f + z @ a.T, alpha * tau, nonnegative=self.nonnegative)
            residual = target - new @ a
            # The Onsager term: what makes the error of every step look Gaussian, and AMP different from ISTA.
            z = residual + z * ((new != 0).sum(1, keepdim=True) / d)
            moved = torch.linalg.vector_norm(new - f, dim=1)
            length = torch.linalg.vector_norm(new, dim=1)
            f = new
            made += 1
            error = torch.linalg.vector_norm(residual, dim=1)
            diverged = ~torch.isfinite(error) | (error > 1e3 * size[going])
            finished = ~diverged & ((error <= self.tolerance * size[going]) | (moved <= self.tolerance * length))
            better = ~diverged & ((error < best[going]) | finished)
            answer[going[better]], best[going[better]] = f[better], error[better]
            converged[going[finished]] = True
            rest = ~(diverged | finished)
            if not bool(rest.all()):
                going, f, z, target = going[rest], f[rest], z[rest], target[rest]
        values, indices = pack(answer)
        return SolvedRows(values / atoms.norms[indices], indices, converged, made)
