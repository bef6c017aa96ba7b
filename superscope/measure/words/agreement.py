"""Words for the choice of the number of active latents, and for the comparison of a dictionary with its copy."""

from __future__ import annotations

from .word import Word

_EQUAL = "0 if the copy does what the original does; rounding gives about 10⁻⁶."

WORDS = {
    "How sparse": (
        Word(
            "recommended_k",
            "Recommended k",
            "active latents",
            "The number of active latents, among those tried, with the shortest description of the rows.",
            "A compromise between code and residual. At an end of what was tried it says only “further that way”.",
            by="studies.Frontier",
        ),
        Word(
            "description_length",
            "Description length",
            "bits per row",
            "Bits that write a row down to a given precision: which latents are active, how strongly, and what is "
            "left.",
            "Least near the right k; its differences count, not its size, which depends on the precision.",
            by="measure.choice.description_length",
        ),
        Word(
            "decoder_projection",
            "Decoder projection",
            "share of a row's length",
            "A high quantile of the projections of centred rows on the atoms, over the rows' mean length.",
            "Smallest near the right k: latents that mix features project on rows that hold any of them.",
            by="measure.choice.decoder_projection",
        ),
        Word(
            "mean_overlap",
            "Mean overlap",
            "cosine",
            "Mean |cosine| over all pairs of atoms.",
            "Rises where latents mix features, with k too small or too large.",
            by="measure.choice.mean_overlap",
        ),
    ),
    "Copies": (
        Word(
            "code_difference",
            "Difference of codes",
            "share of the largest entry",
            "Largest difference between the codes of the original and of the copy, on made-up rows.",
            _EQUAL,
            by="studies.Convert",
        ),
        Word(
            "reconstruction_difference",
            "Difference of reconstructions",
            "share of the largest entry",
            "Largest difference between what the original and the copy make of the same rows.",
            _EQUAL,
            by="studies.Convert",
        ),
        Word(
            "rows_with_another_support",
            "Rows with other latents",
            "rows",
            "Made-up rows on which not the same latents are active in original and copy.",
            "A few can come of rounding, which exchanges latents that are nearly tied.",
            by="studies.Convert",
        ),
        Word(
            "stored_code_difference",
            "Difference from stored codes",
            "share of the largest entry",
            "Largest difference between codes made here and those that were stored with the weights.",
            "0 up to rounding if the format is read as its authors meant it.",
            by="studies.Convert",
        ),
        Word(
            "stored_reconstruction_difference",
            "Difference from stored reconstructions",
            "share of the largest entry",
            "Largest difference between reconstructions made here and those that were stored with the weights.",
            "0 up to rounding if the format is read as its authors meant it.",
            by="studies.Convert",
        ),
    ),
    "Dictionaries beside each other": (
        Word(
            "atom_correspondence",
            "Atoms by what became of them",
            "share of atoms",
            "Share of one dictionary's atoms that are matched by one of the other, split into several, merged with "
            "others into one, tangled, or unmatched: two atoms are tied if one is the other's nearest above a cosine, "
            "and a group is what ties connect.",
            "Beside chance, where the other's atoms are drawn at random with the second moment of its own. Seen from "
            "the first dictionary: what is split there is several in the second.",
            by="measure.correspondence",
            headline=True,
        ),
        Word(
            "unexplained_difference",
            "Difference of unexplained variance",
            "share of variance",
            "Unexplained share of the variance of the same rows by the second dictionary, less that by the first.",
            "Below 0 the second explains more; an interval that holds 0 tells neither apart.",
            by="studies.Compare",
            headline=True,
        ),
        Word(
            "l0_difference",
            "Difference of active latents",
            "latents",
            "Mean active latents in the same rows in the second dictionary, less those in the first.",
            "A dictionary that explains more with more active latents need not be the better one.",
            by="studies.Compare",
        ),
    ),
}
