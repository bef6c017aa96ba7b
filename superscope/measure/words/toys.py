"""Words for what is measured of models trained on known features."""

from __future__ import annotations

from .word import Word

_TREND = "Between −1 and 1; 0 is no trend. It speaks of order, not of size."

WORDS = {
    "Toy models": (
        Word(
            "loss",
            "Loss",
            "squared error",
            "Mean squared error of the trained model, weighted by the features' importance.",
            "Compare with the bound, the best model known; a value far above it has not converged.",
            by="studies.ToySweep",
        ),
        Word(
            "features_per_dimension",
            "Features per dimension",
            "features per dimension",
            "‖W‖² / d, with the squared Frobenius norm of W.",
            "Above 1 is superposition: more features are stored than there are dimensions.",
            by="measure.features_per_dimension",
        ),
        Word(
            "feature_dimensionality",
            "Dimensions of a feature",
            "dimensions",
            "‖wᵢ‖² / Σⱼ (ŵᵢ·wⱼ)², averaged over the features that are represented.",
            "1 is a dimension to itself; 1/2 a pair of opposites, 2/5 a pentagon.",
            by="measure.feature_dimensionality",
        ),
        Word(
            "interference",
            "Overlap with other features",
            "squared overlap",
            "Σ (ŵᵢ·wⱼ)² over all other features j, averaged over features; measured on codes, the mean squared error "
            "of reading each feature by its own direction.",
            "0 is orthogonal; from 1 on, the others together can activate a direction as strongly as its own feature.",
            by="measure.interference",
        ),
        Word(
            "represented",
            "Features represented",
            "features",
            "Features whose atom has norm above 1/2; over several models, their mean share.",
            "The rest the model ignores.",
            by="studies.ToySweep",
        ),
    ),
    "Phases": (
        Word(
            "share_of_phase",
            "Share of a phase",
            "share of cells",
            "Share of the cells of the grid whose best model is in this phase.",
            "Depends on the grid's edges as much as on the phase.",
            by="studies.PhaseDiagram",
        ),
        Word(
            "agreement_with_theory",
            "Agreement with theory",
            "share of cells",
            "Share of cells whose trained model is in the phase that has the least loss in theory.",
            "Below 1 mostly along borders, where the simple models are nearly equal.",
            by="studies.PhaseDiagram",
        ),
        Word(
            "gain_over_theory",
            "Gain over theory",
            "share of the loss",
            "The most that a trained model's loss is below that of the best simple model.",
            "Above 0 a better arrangement was found than theory compares; below 0 training has not converged.",
            by="studies.PhaseDiagram",
        ),
    ),
    "Laws of toy models": (
        Word(
            "rise_with_features_per_dimension",
            "Rise of superposition with n / d",
            "rank correlation",
            "Rank correlation of superposition with n / d at equal correlation of features.",
            _TREND,
            by="studies.ToyCorrelation",
        ),
        Word(
            "change_with_correlation",
            "Change of superposition with correlation",
            "rank correlation",
            "Rank correlation of superposition, the share of a feature's dimension that others use, with the features' "
            "correlation at equal n / d.",
            _TREND,
            by="studies.ToyCorrelation",
        ),
        Word(
            "features_change_with_correlation",
            "Change of stored features with correlation",
            "rank correlation",
            "Rank correlation of features stored per dimension with the features' correlation at equal n / d.",
            _TREND,
            by="studies.ToyCorrelation",
        ),
        Word(
            "width_exponent",
            "Exponent of width",
            "exponent",
            "The a of loss ~ d⁻ᵃ, by least squares in logarithms.",
            "Near 1 in strong superposition, α − 1 where features are left out; a caution says where no power fits.",
            by="studies.ToyScaling",
        ),
        Word(
            "loss_over_features_left_out",
            "Loss over features left out",
            "ratio",
            "Loss over the variance of the features that are not represented, the median over models.",
            "1 if nothing else costs; above 1 interference costs too.",
            by="studies.ToyScaling",
        ),
        Word(
            "attack_follows_superposition",
            "Attack's harm with superposition",
            "rank correlation",
            "Rank correlation over densities of the rise of loss under the strongest attack along rows of W'W with "
            "features per dimension.",
            _TREND,
            by="studies.ToyRobustness",
        ),
        Word(
            "input_noise_follows_superposition",
            "Input noise's harm with superposition",
            "rank correlation",
            "Rank correlation over densities of the rise of loss under input noise with features per dimension.",
            _TREND,
            by="studies.ToyRobustness",
        ),
        Word(
            "weight_noise_follows_superposition",
            "Weight noise's harm with superposition",
            "rank correlation",
            "Rank correlation over densities of the rise of loss under noise in the weights with features per "
            "dimension.",
            _TREND,
            by="studies.ToyRobustness",
        ),
        Word(
            "criteria_met",
            "Criteria met",
            "share of experiments",
            "Share of the experiments of the published study whose criterion holds here.",
            "Below 1 the table says which do not, and what was seen in their place.",
            by="studies.Reproduce",
        ),
    ),
}
