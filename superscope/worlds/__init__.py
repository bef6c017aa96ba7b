"""Sources that know their truth: a law of features, a dictionary, noise and nuisance together."""

from .forest import Forest
from .presets import PRESETS, exactly_k, spread_apart, synth_sae_bench
from .world import FeatureLaw, World

__all__ = ["PRESETS", "FeatureLaw", "Forest", "World", "exactly_k", "spread_apart", "synth_sae_bench"]
