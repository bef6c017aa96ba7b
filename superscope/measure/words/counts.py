"""Words for how many features there are, and for what stands beside that number."""

from __future__ import annotations

from .word import Word

_NEIGHBOURS = "About the features active at once, where they are sparse, and never above d: no count of features."

WORDS = {
    "How many features": (
        Word(
            "feature_count",
            "Feature count",
            "features",
            "Directions that dictionaries of disjoint rows agree on and held-out rows certify, with those added that "
            "most dictionaries must have missed; k, width and training are chosen by the procedure.",
            "With an interval: the count. Without: at least so many, or nothing can be said, and the caution says why. "
            "More than there are dimensions is superposition.",
            by="studies.CountFeatures",
            short="Features",
        ),
        Word(
            "directions_certified",
            "Directions certified",
            "directions",
            "Of the directions that recur those which held-out rows show active where nothing else explains it.",
            "A lower bound of the features: one in twenty of them may be false.",
            by="studies.CountFeatures",
        ),
        Word(
            "directions_recurring",
            "Directions recurring",
            "directions",
            "Directions that most dictionaries of disjoint rows have, at the setting that the answer is read at.",
            "More than are certified: some are combinations of features, or features too rare to be certified.",
            by="studies.CountFeatures",
        ),
        Word(
            "share_recurring",
            "Share on recurring directions",
            "share of activations",
            "Share of all activations of latents that are those of latents on recurring directions.",
            "Near 1 the dictionaries see the same things; below a half what recurs is only part of what there is.",
            by="studies.CountFeatures",
        ),
        Word(
            "plant_completeness",
            "Planted directions found again",
            "share of planted directions",
            "Share of random directions, added to the rows as dense and as long as those counted, that a look finds.",
            "What of the features of that kind is found; of rarer or fainter ones it says nothing.",
            by="studies.CountFeatures",
        ),
        Word(
            "count_by_plants",
            "Count by planted directions",
            "features",
            "Directions counted over the share of planted ones that are found again.",
            "Close to the count where hardly anything is missed; its interval is of the share alone.",
            by="studies.CountFeatures",
        ),
        Word(
            "twin_bias",
            "Bias in twin worlds",
            "ln(counted / true)",
            "Logarithm of count over truth in worlds made of the directions counted, with their densities, magnitudes "
            "and the covariance of what they leave.",
            "0 where the look counts such worlds right; dependence between features is not in them.",
            by="studies.CountFeatures",
        ),
        Word(
            "count_by_twins",
            "Count by twin worlds",
            "features",
            "The look's count, with what it miscounts twin worlds by taken off.",
            "Where it differs from the count by more than the interval, distrust both.",
            by="studies.CountFeatures",
        ),
        Word(
            "median_error",
            "Median error",
            "|ln(count / n)|",
            "Median over worlds of the logarithm of count over truth, without its sign.",
            "0.08 is a miscount by 8 % in the middle world.",
            by="studies.Calibrate",
        ),
        Word(
            "coverage",
            "Coverage",
            "share of worlds",
            "Share of worlds whose true count lies in the interval of 90 %, or above the low end of “at least”.",
            "Below 0.9 the intervals promise too much, above they are wider than they need to be.",
            by="studies.Calibrate",
        ),
    ),
    "Counts without a dictionary": (
        Word(
            "cumulant_rank",
            "Rank of fourth cumulants",
            "features",
            "Rank of the matrix of fourth cumulants of white rows, of which each independent feature adds one.",
            "A lower bound where features are independent; where they depend on each other, or have several "
            "dimensions, it can be above their number, and the caution says so.",
            by="measure.cumulant_rank",
            short="Rank",
        ),
        Word(
            "cumulant_directions",
            "Directions of fourth cumulants",
            "directions",
            "Single directions whose square lies in the range of the fourth cumulants, found from random starts.",
            "They are the features themselves. Less than the rank: features depend on each other.",
            by="measure.cumulant_rank",
        ),
        Word(
            "cumulant_components",
            "Components of fourth cumulants",
            "components",
            "Those directions, counted as one where they can be turned into each other without leaving the range.",
            "A feature of several dimensions, a ring say, is one; so are features that depend on each other strongly.",
            by="measure.cumulant_rank",
        ),
        Word(
            "norm_variation",
            "Common factor of rows",
            "excess fourth moment",
            "E s⁴ / (E s²)² − 1 of a factor s common to all of a row, read off the cumulants' smallest eigenvalues.",
            "Above 0, norms vary more than independent features make them; below, less. The rank is free of it.",
            by="measure.cumulant_rank",
        ),
        Word(
            "feature_dependence",
            "Dependence of features",
            "share of cumulant energy",
            "Squared cross-cumulants of different directions, as a share of all squared cumulants, noise removed.",
            "0 where features are independent. Above 0.2, the rank counts pairs beside features.",
            by="measure.cumulant_rank",
        ),
    ),
    "Certificates": (
        Word(
            "certified_count",
            "Certified features",
            "features",
            "Directions that held-out rows show active where nothing else explains it, by e-values at a false "
            "discovery rate of 5 %.",
            "A lower bound: rare features, and those that are never read alone, cannot be certified.",
            by="measure.certified_count",
        ),
        Word(
            "certified_candidates",
            "Candidates tried",
            "directions",
            "Different directions that were put to the test.",
            "No more than these can be certified.",
            by="measure.certified_count",
        ),
        Word(
            "lp_exponent",
            "Exponent of the network's norm",
            "exponent",
            "p for which moving x along two directions at once, for one change of the output, takes 2^(1/2 − 1/p) "
            "times as long a move as along one; median over directions.",
            "Above 2, the network treats these directions as its own features; 2 is what random ones give.",
            by="measure.lp_exponent",
        ),
        Word(
            "causal_directions",
            "Directions with exponent above 2",
            "directions",
            "Directions whose exponent is above 2 by its interval, and above that of 99 % of random directions.",
            "More than there are dimensions is superposition that the network makes use of.",
            by="measure.lp_exponent",
        ),
    ),
    "Baselines of counting": (
        Word(
            "stable_latents",
            "Stable latents",
            "latents",
            "Latents of the first dictionary that recur in at least half of those from other seeds.",
            "Depends on width, k and training; compare with chance.",
            by="measure.counts.baselines.StableLatents",
        ),
        Word(
            "pooled_features",
            "Pooled features",
            "directions",
            "Directions that occur in at least two dictionaries from different seeds, each counted once.",
            "Grows with the number of seeds.",
            by="measure.counts.baselines.PooledDictionary",
        ),
        Word(
            "tied_entropy",
            "Entropy of a tied autoencoder",
            "latents",
            "Exponential of the entropy of activation mass over the latents of a tied ReLU autoencoder.",
            "About 2 d on rows without any features: read it beside its chance level, and not as a count.",
            by="measure.counts.baselines.TiedEntropy",
        ),
        Word(
            "two_nn_dimension",
            "Intrinsic dimension, two neighbours",
            "dimensions",
            "Slope of −ln(1 − F) over the logarithm of the ratio of a row's distances to its two nearest others.",
            _NEIGHBOURS,
            by="measure.counts.baselines.NearestNeighbours",
        ),
        Word(
            "likelihood_dimension",
            "Intrinsic dimension, likelihood",
            "dimensions",
            "The dimension under which the distances to a row's 20 nearest others are likeliest.",
            _NEIGHBOURS,
            by="measure.counts.baselines.NeighbourLikelihood",
        ),
    ),
}
