"""One function per quantity; each returns Measurements with their n, unit, interval and bound or chance level."""

from .contexts import (
    KINDS,
    Clarity,
    TokenShares,
    TopContexts,
    activations_around,
    clarity,
    token_kind,
    token_kinds,
    token_shares,
    token_words,
    top_contexts,
)
from .geometry import (
    Histogram,
    Nearest,
    coherence,
    cosine_histogram,
    frame_potential,
    interference_energy,
    mean_max_cosine,
    nearest,
    nearest_histogram,
    random_max_cosine,
)
from .interval import Interval, bootstrap, jackknife, over_seeds
from .matching import Matching, match, mean_matched_cosine, mean_nearest_cosine, mean_nearest_cosines
from .metric import Declaration, metric
from .polysemanticity import Mixing, effective_features, polysemanticity
from .reconstruction import Evaluation, cross_entropy_recovered, evaluate
from .sparsity import (
    activation_sparsity,
    code_gini,
    code_sparsity,
    effective_number,
    gini,
    hoyer,
    participation_number,
    treves_rolls,
)
from .stability import Recurrence, random_atoms, recurring_features
from .stream import Moments, moments

METRICS = (
    coherence,
    effective_number,
    frame_potential,
    gini,
    hoyer,
    interference_energy,
    mean_matched_cosine,
    mean_max_cosine,
    mean_nearest_cosine,
    participation_number,
    treves_rolls,
)
"""Every function that declares its range and invariances; tests read the declarations and check them."""

__all__ = [
    "KINDS",
    "METRICS",
    "Clarity",
    "Declaration",
    "Evaluation",
    "Histogram",
    "Interval",
    "Matching",
    "Mixing",
    "Moments",
    "Nearest",
    "Recurrence",
    "TokenShares",
    "TopContexts",
    "activation_sparsity",
    "activations_around",
    "bootstrap",
    "clarity",
    "code_gini",
    "code_sparsity",
    "coherence",
    "cosine_histogram",
    "cross_entropy_recovered",
    "effective_features",
    "effective_number",
    "evaluate",
    "frame_potential",
    "gini",
    "hoyer",
    "interference_energy",
    "jackknife",
    "match",
    "mean_matched_cosine",
    "mean_max_cosine",
    "mean_nearest_cosine",
    "mean_nearest_cosines",
    "metric",
    "moments",
    "nearest",
    "nearest_histogram",
    "over_seeds",
    "participation_number",
    "polysemanticity",
    "random_atoms",
    "random_max_cosine",
    "recurring_features",
    "token_kind",
    "token_kinds",
    "token_shares",
    "token_words",
    "top_contexts",
    "treves_rolls",
]
