"""Words for what is measured of a dictionary's atoms alone."""

from __future__ import annotations

from .word import Word

_SAME = "The same of random atoms that have the frame operator, and so the spectrum, of this dictionary."
_SAME_READING = "Where the dictionary's own number differs, its atoms are arranged beyond what their spectrum asks for."

WORDS = {
    "Geometry": (
        Word(
            "coherence",
            "Coherence",
            "cosine",
            "Largest |cosine| between two different atoms of the dictionary.",
            "No dictionary of n atoms in d dimensions is below the Welch bound.",
            by="measure.coherence",
        ),
        Word(
            "mean_max_cosine",
            "Mean nearest cosine",
            "cosine",
            "Largest |cosine| of each atom to any other of its dictionary, averaged over atoms.",
            "Above the random frame, atoms come in families; below it, they avoid each other.",
            by="measure.mean_max_cosine",
        ),
        Word(
            "map_neighbours_kept",
            "Neighbours kept by the map",
            "share of neighbours",
            "Of each atom's 12 nearest ones by cosine, the share that are among its 12 nearest on the map of two "
            "dimensions, averaged over atoms.",
            "How far the atlas may be believed: at .25, three of four true neighbours stand elsewhere on the map.",
            by="measure.flat_map",
        ),
        Word(
            "interference_energy",
            "Interference",
            "squared cosine",
            "Sum of an atom's squared cosines with all others, averaged over atoms.",
            "What reading out one feature picks up from all others; where n is far above d, hardly more than chance "
            "for any dictionary.",
            by="measure.interference_energy",
        ),
        Word(
            "weighted_interference_energy",
            "Interference met by an active feature",
            "squared cosine per active feature",
            "Squared cosines with other atoms, each weighted by how often its feature is active, averaged over active "
            "features.",
            "Low although the atoms overlap: those that do are rarely there together.",
            by="measure.weighted_interference_energy",
        ),
        Word(
            "frame_potential",
            "Frame potential",
            "squared cosine",
            "Sum of squared cosines over all ordered pairs of atoms, each with itself included.",
            "At its least, n² / d, the frame is tight: every direction of space has an equal share of atoms.",
            by="measure.frame_potential",
        ),
        Word(
            "duplicate_atoms",
            "Duplicate atoms",
            "share of atoms",
            "Share of atoms whose nearest other atom is almost the same direction.",
            "Above 0, atoms are wasted: no reader can tell duplicates apart.",
            by="studies.Theory",
        ),
        Word(
            "atoms_with_a_true_neighbour",
            "Atoms with a true neighbour",
            "share of atoms",
            "Share of atoms with another one nearer than all but 5 % of random frames have anywhere.",
            "Families of alike features, or one feature split in several.",
            by="studies.Theory",
        ),
        Word(
            "axis_alignment",
            "Alignment with the axes",
            "inverse participation over axes",
            "Sum of the fourth powers of a unit atom's coordinates, averaged over atoms.",
            "1 if every atom is an axis; like its rotations, the axes mean nothing to the dictionary.",
            by="measure.axis_alignment",
        ),
        Word(
            "axis_aligned_atoms",
            "Atoms along an axis",
            "share of atoms",
            "Share of atoms with a coordinate larger than uniform directions reach, corrected for all atoms.",
            "Features that have a neuron nearly to themselves.",
            by="measure.axis_alignment",
        ),
        Word(
            "dimensions_per_atom",
            "Dimensions per atom",
            "dimensions per atom",
            "d / n.",
            "Below 1 the dictionary has more atoms than dimensions, so that they must overlap.",
            by="studies.Theory",
        ),
    ),
    "Capacity": (
        Word(
            "capacity_used",
            "Capacity used",
            "share of d",
            "Sum of the atoms' capacities over d; an atom's is its squared length over the sum of its squared overlaps "
            "with all, itself included.",
            "Near 1 nearly every dimension is dedicated to some atom. Random atoms come near too, so compare with "
            "chance.",
            by="measure.capacity_used",
        ),
        Word(
            "dimensions_per_feature",
            "Dimensions per feature",
            "dimensions per feature",
            "D* = d / ‖W‖², with the squared Frobenius norm of W.",
            "Below 1 features share dimensions. It holds where stored features have norm near 1, as in toy models.",
            by="measure.dimensions_per_feature",
        ),
        Word(
            "frame_rank",
            "Rank of the frame",
            "dimensions",
            "Number of nonzero eigenvalues of the frame operator.",
            "Dimensions that the atoms reach at all, however faintly.",
            by="measure.effective_dimensions",
        ),
        Word(
            "frame_entropy_dimensions",
            "Entropy-effective dimensions of the frame",
            "dimensions",
            "exp of the entropy of the frame operator's eigenvalues, as shares.",
            "min(n, d) if the atoms fill all directions evenly; less if they crowd in some.",
            by="measure.effective_dimensions",
        ),
        Word(
            "frame_participation_ratio",
            "Participation ratio of the frame",
            "dimensions",
            "1 / Σ pᵢ², with p the frame operator's eigenvalues as shares.",
            "As the entropy-effective dimensions, with less weight on faint directions.",
            by="measure.effective_dimensions",
        ),
        Word(
            "frame_stable_rank",
            "Stable rank of the frame",
            "dimensions",
            "1 / max pᵢ, with p the frame operator's eigenvalues as shares.",
            "Low where all atoms share one direction, as they do when a mean was not taken off.",
            by="measure.effective_dimensions",
        ),
    ),
    "Atoms over coordinates": (
        Word(
            "weight_gini",
            "Gini index of an atom",
            "Gini index",
            "Gini index of |wᵢ| over the coordinates; the median over atoms.",
            "Near 0.41 for random directions; higher where atoms lie along axes.",
            by="measure.weight_sparsity",
        ),
        Word(
            "weight_hoyer",
            "Hoyer index of an atom",
            "Hoyer index",
            "(√d − ‖wᵢ‖₁ / ‖wᵢ‖₂) / (√d − 1); the median over atoms.",
            "1 for an axis; at chance where the axes mean nothing to the atoms.",
            by="measure.weight_sparsity",
        ),
        Word(
            "weight_treves_rolls",
            "Treves-Rolls index of an atom",
            "Treves-Rolls index",
            "(1 − (E|w|)² / E w²) / (1 − 1/d), means over the coordinates of an atom; the median over atoms.",
            "1 for an axis, 0 where all coordinates are alike in size.",
            by="measure.weight_sparsity",
        ),
        Word(
            "weight_entropy_dimension",
            "Effective coordinates of an atom",
            "coordinates",
            "exp(−Σ pⱼ ln pⱼ), with pⱼ the share of coordinate j in an atom’s sum of sizes; the median over atoms.",
            "1 for an axis; how many equal coordinates would spread an atom as evenly.",
            by="measure.weight_sparsity",
        ),
        Word(
            "weight_participating_dimension",
            "Participating coordinates of an atom",
            "coordinates",
            "1 / Σ pⱼ² of the same shares; the median over atoms.",
            "Counts the largest coordinates above all; never above the effective ones.",
            by="measure.weight_sparsity",
        ),
        Word(
            "weight_kurtosis",
            "Kurtosis of an atom",
            "excess kurtosis",
            "Fourth central moment of an atom’s coordinates over the squared variance, less 3; the median over atoms.",
            "About 0 for random directions, large where single coordinates carry an atom.",
            by="measure.weight_sparsity",
        ),
    ),
    "Beside the same spectrum": (
        Word(
            "coherence_same_spectrum",
            "Coherence, same spectrum",
            "cosine",
            _SAME,
            _SAME_READING,
            by="frames.spectrum_matched",
        ),
        Word(
            "mean_max_cosine_same_spectrum",
            "Mean nearest cosine, same spectrum",
            "cosine",
            _SAME,
            _SAME_READING,
            by="frames.spectrum_matched",
        ),
        Word(
            "capacity_used_same_spectrum",
            "Capacity used, same spectrum",
            "share of d",
            _SAME,
            _SAME_READING,
            by="frames.spectrum_matched",
        ),
    ),
    "Guarantees of this dictionary": (
        Word(
            "coherence_guarantee",
            "Guaranteed by coherence",
            "active features",
            "So many active features are found by basis pursuit and by matching pursuit, whichever they are: "
            "k < (1 + 1/μ) / 2.",
            "A worst case that data never meet: usually 1 or 2, and no capacity.",
            by="theory.coherence_guarantee",
        ),
        Word(
            "babel_guarantee",
            "Guaranteed by the Babel function",
            "active features",
            "So many active features are found whichever they are, by the sums of the largest overlaps.",
            "Never below the guarantee by coherence; still a worst case, and no capacity.",
            by="measure.babel",
        ),
        Word(
            "restricted_isometry_lower_bound",
            "Isometry constant of this one, at least",
            "relative squared length",
            "By at least so much some k-sparse code is stretched or shrunk; found by search over supports.",
            "Above 0.707 at 2k the dictionary cannot be certified for k active features by this method.",
            by="measure.isometry",
        ),
    ),
}
