"""Report -> matplotlib figure, one function per figure. Needs the extra `plots`."""

from .toy import dimensionality_scatter, feature_arrows, gram_matrices, phase_diagram, polytope, training_strip

FIGURES = (phase_diagram, dimensionality_scatter, feature_arrows, polytope, training_strip, gram_matrices)

__all__ = [
    "FIGURES",
    "dimensionality_scatter",
    "feature_arrows",
    "gram_matrices",
    "phase_diagram",
    "polytope",
    "training_strip",
]
