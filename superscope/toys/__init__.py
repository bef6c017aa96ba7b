"""Who makes W by training on features that are known: the toy models, thousands at once."""

from ..core.registry import members
from .absolute_value import AbsoluteValue as AbsoluteValue
from .bottleneck import ReLUHidden as ReLUHidden
from .ensemble import Ensemble as Ensemble
from .ensemble import best_of as best_of
from .exact import exact_gradient as exact_gradient
from .exact import exact_loss as exact_loss
from .exact import linear_exact_loss as linear_exact_loss
from .family import Family as Family
from .logical_and import And as And
from .pair import pair_chances as pair_chances
from .pair import pair_gradient as pair_gradient
from .residual_mlp import ResidualMLP as ResidualMLP
from .tied import Tied as Tied
from .train import EnsembleStep as EnsembleStep
from .train import Recipe as Recipe
from .train import attacked as attacked
from .train import train as train
from .untied import Untied as Untied

FAMILIES: tuple[type[Family], ...] = members(Family, globals())
"""Every family: those imported above. `superscope toy --family` and tests read this tuple."""
