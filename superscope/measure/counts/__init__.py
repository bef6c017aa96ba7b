"""How many features are there? One estimator a file; scans run all of `COUNTERS` at every site."""

from ...core.registry import one_of_each
from .base import Counter as Counter
from .certified import CertifiedCount as CertifiedCount
from .certified import certified_count as certified_count
from .consensus import Consensus as Consensus
from .consensus import Richness as Richness
from .consensus import consensus as consensus
from .consensus import richness as richness
from .cumulants import CumulantRank as CumulantRank
from .cumulants import Cumulants as Cumulants
from .cumulants import cumulant_rank as cumulant_rank
from .recurring import RecurringFeatures as RecurringFeatures
from .shared import SharedParts as SharedParts
from .shared import shared_parts as shared_parts

COUNTERS: tuple[Counter, ...] = one_of_each(Counter, globals())
"""One of each kind imported above."""
