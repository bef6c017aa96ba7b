"""Who makes W by training on features that are known: the toy models, thousands at once."""

from .absolute_value import AbsoluteValue
from .bottleneck import ReLUHidden
from .ensemble import Ensemble, best_of
from .exact import exact_gradient, exact_loss, linear_exact_loss
from .family import Family
from .logical_and import And
from .pair import pair_chances, pair_gradient
from .residual_mlp import ResidualMLP
from .tied import Tied
from .train import EnsembleStep, Recipe, attacked, train
from .untied import Untied

FAMILIES = (Tied, Untied, ReLUHidden, AbsoluteValue, And, ResidualMLP)

__all__ = [
    "FAMILIES",
    "AbsoluteValue",
    "And",
    "Ensemble",
    "EnsembleStep",
    "Family",
    "ReLUHidden",
    "Recipe",
    "ResidualMLP",
    "Tied",
    "Untied",
    "attacked",
    "best_of",
    "exact_gradient",
    "exact_loss",
    "linear_exact_loss",
    "pair_chances",
    "pair_gradient",
    "train",
]
