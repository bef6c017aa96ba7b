"""f from x when W is known: one frozen dataclass per solver, all answering `solve(x) -> Solution`."""

from __future__ import annotations

from .amp import AMP
from .basis_pursuit import BasisPursuit, LinearProgram
from .certificates import exact_recovery_coefficient, fuchs
from .choose import Choice, best_for
from .coordinate_descent import CoordinateDescent
from .matching_pursuit import NNOMP, OMP, MatchingPursuit
from .problem import RecoveryCoder
from .proximal import FISTA, ISTA, lasso_objective
from .read_out import ReadOut, read_out
from .support import refit
from .thresholding import HTP, Thresholding

SOLVERS: tuple[type[RecoveryCoder], ...] = (
    Thresholding,
    MatchingPursuit,
    OMP,
    NNOMP,
    HTP,
    ISTA,
    FISTA,
    CoordinateDescent,
    BasisPursuit,
    AMP,
)
"""Every solver that works in batches; `LinearProgram` is their referee, one row at a time."""

__all__ = [
    "AMP",
    "FISTA",
    "HTP",
    "ISTA",
    "NNOMP",
    "OMP",
    "SOLVERS",
    "BasisPursuit",
    "Choice",
    "CoordinateDescent",
    "LinearProgram",
    "MatchingPursuit",
    "ReadOut",
    "RecoveryCoder",
    "Thresholding",
    "best_for",
    "exact_recovery_coefficient",
    "fuchs",
    "lasso_objective",
    "read_out",
    "refit",
]
