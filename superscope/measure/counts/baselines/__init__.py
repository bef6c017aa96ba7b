"""What others count, to be compared with: each as published, with its known failure. Scans do not run them."""

from ....core.registry import one_of_each
from ..base import Counter
from .alive import AliveLatents as AliveLatents
from .entropy import EntropyNumber as EntropyNumber
from .intrinsic import NearestNeighbours as NearestNeighbours
from .intrinsic import NeighbourLikelihood as NeighbourLikelihood
from .participation import ParticipationRatio as ParticipationRatio
from .stability import PooledDictionary as PooledDictionary
from .stability import StableLatents as StableLatents
from .tied import TiedEntropy as TiedEntropy

BASELINES: tuple[Counter, ...] = one_of_each(Counter, globals())
"""One of each kind imported above; `superscope calibrate` runs them beside `COUNTERS`."""
