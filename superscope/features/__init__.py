"""Who makes f: laws of sparse features with closed-form moments."""

from .correlated import Anticorrelated, Correlated
from .distribution import FeatureDistribution
from .exactly_k import ExactlyK
from .hierarchical import Hierarchical
from .independent import Independent
from .magnitudes import Fixed, Gaussian, Magnitude, Uniform
from .zipf import Zipf

DISTRIBUTIONS = (Independent, ExactlyK, Correlated, Anticorrelated, Hierarchical, Zipf)
MAGNITUDES = (Uniform, Gaussian, Fixed)

__all__ = [
    "DISTRIBUTIONS",
    "MAGNITUDES",
    "Anticorrelated",
    "Correlated",
    "ExactlyK",
    "FeatureDistribution",
    "Fixed",
    "Gaussian",
    "Hierarchical",
    "Independent",
    "Magnitude",
    "Uniform",
    "Zipf",
]
