"""Report -> matplotlib figure, one function per figure. Needs the extra `plots`."""

from .count import counted_and_true, looks
from .dictionary import (
    FIGURES_DICTIONARY,
    amortisation,
    babel_function,
    capacity_ladder,
    certificates,
    cosines,
    dimensions,
    interference,
    nearest_atoms,
    recovery_curves,
    recovery_phase,
)
from .draw import draw
from .frontier import criteria, frontier
from .judge import detected_by_density, kinds_of_latents, where_it_is_lost
from .toy import dimensionality_scatter, feature_arrows, gram_matrices, phase_diagram, polytope, training_strip

FIGURES = {
    "phase": (phase_diagram,),
    "toy": (dimensionality_scatter, feature_arrows, polytope, training_strip, gram_matrices),
    "bounds": (capacity_ladder,),
    "theory": FIGURES_DICTIONARY,
    "recover": (recovery_curves,),
    "frontier": (frontier, criteria),
    "count": (looks,),
    "calibrate": (counted_and_true,),
    "judge": (detected_by_density, kinds_of_latents, where_it_is_lost),
}
"""The figures of each kind of report. Some want a certain d, seeds or data, and say so where a report lacks them."""

__all__ = [
    "FIGURES",
    "amortisation",
    "babel_function",
    "capacity_ladder",
    "certificates",
    "cosines",
    "counted_and_true",
    "criteria",
    "detected_by_density",
    "dimensionality_scatter",
    "dimensions",
    "draw",
    "feature_arrows",
    "frontier",
    "gram_matrices",
    "interference",
    "kinds_of_latents",
    "looks",
    "nearest_atoms",
    "phase_diagram",
    "polytope",
    "recovery_curves",
    "recovery_phase",
    "training_strip",
    "where_it_is_lost",
]
