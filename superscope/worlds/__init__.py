"""Sources that know their truth: a law of features, a dictionary, noise and nuisance together."""

from .alter import Altered as Altered
from .alter import Planted as Planted
from .alter import Shuffled as Shuffled
from .alter import Sinks as Sinks
from .alter import truth_of as truth_of
from .blocks import Blocks as Blocks
from .copula import Copula as Copula
from .drawn import DrawnSource as DrawnSource
from .elliptical import Elliptical as Elliptical
from .elliptical import surrogate as surrogate
from .families import FAMILIES as FAMILIES
from .families import HELD_OUT as HELD_OUT
from .families import Family as Family
from .families import Known as Known
from .forest import Forest as Forest
from .presets import PRESETS as PRESETS
from .presets import exactly_k as exactly_k
from .presets import on_random_directions as on_random_directions
from .presets import spread_apart as spread_apart
from .presets import synth_sae_bench as synth_sae_bench
from .token_norms import TokenNorms as TokenNorms
from .truth import Truth as Truth
from .world import FeatureLaw as FeatureLaw
from .world import World as World
