"""Sources that know their truth: a law of features, a dictionary, noise and nuisance together."""

from .forest import Forest as Forest
from .presets import PRESETS as PRESETS
from .presets import exactly_k as exactly_k
from .presets import on_random_directions as on_random_directions
from .presets import spread_apart as spread_apart
from .presets import synth_sae_bench as synth_sae_bench
from .world import FeatureLaw as FeatureLaw
from .world import World as World
