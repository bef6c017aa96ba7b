"""Who makes f: laws of sparse features with closed-form moments."""

from ..core.registry import members
from .circuit import Circuit as Circuit
from .correlated import Anticorrelated as Anticorrelated
from .correlated import Correlated as Correlated
from .cyclic import Cyclic as Cyclic
from .distribution import FeatureDistribution as FeatureDistribution
from .exactly_k import ExactlyK as ExactlyK
from .hierarchical import Hierarchical as Hierarchical
from .independent import Independent as Independent
from .magnitudes import ONE as ONE
from .magnitudes import WELL_ABOVE_ZERO as WELL_ABOVE_ZERO
from .magnitudes import Exponential as Exponential
from .magnitudes import Fixed as Fixed
from .magnitudes import FoldedNormal as FoldedNormal
from .magnitudes import Gaussian as Gaussian
from .magnitudes import LogNormal as LogNormal
from .magnitudes import Magnitude as Magnitude
from .magnitudes import Tabulated as Tabulated
from .magnitudes import Uniform as Uniform
from .zipf import Zipf as Zipf

DISTRIBUTIONS: tuple[type[FeatureDistribution], ...] = members(FeatureDistribution, globals())
"""Every law of features: those imported above. `world:NAME` and tests read this tuple."""
MAGNITUDES: tuple[type[Magnitude], ...] = members(Magnitude, globals())
"""Every law of one magnitude: likewise."""
