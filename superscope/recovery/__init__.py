"""f from x when W is known: one frozen dataclass per solver, all answering `solve(x) -> Solution`."""

from __future__ import annotations

from ..core.registry import members
from .amp import AMP as AMP
from .basis_pursuit import BasisPursuit as BasisPursuit
from .basis_pursuit import LinearProgram as LinearProgram
from .certificates import exact_recovery_coefficient as exact_recovery_coefficient
from .certificates import fuchs as fuchs
from .choose import Choice as Choice
from .choose import best_for as best_for
from .coordinate_descent import CoordinateDescent as CoordinateDescent
from .matching_pursuit import NNOMP as NNOMP
from .matching_pursuit import OMP as OMP
from .matching_pursuit import MatchingPursuit as MatchingPursuit
from .problem import RecoveryCoder as RecoveryCoder
from .proximal import FISTA as FISTA
from .proximal import ISTA as ISTA
from .proximal import lasso_objective as lasso_objective
from .read_out import ReadOut as ReadOut
from .read_out import read_out as read_out
from .refinement import REFINEMENTS as REFINEMENTS
from .refinement import Refinement as Refinement
from .refinement import Refit as Refit
from .refinement import SubspacePursuit as SubspacePursuit
from .support import refit as refit
from .thresholding import HTP as HTP
from .thresholding import Thresholding as Thresholding

SOLVERS: tuple[type[RecoveryCoder], ...] = tuple(
    solver for solver in members(RecoveryCoder, globals()) if solver is not LinearProgram
)
"""Every solver that works in batches: those imported above but `LinearProgram`, their referee, one row at a time."""
