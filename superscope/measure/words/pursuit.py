"""Words for what a dictionary's own encoder loses against a search, and for what can be recovered when W is known."""

from __future__ import annotations

from .word import Word


def _of_three(name: str, label: str, unit: str, definition: str, reading: str) -> tuple[Word, ...]:
    """One quantity of the dictionary's own code, of that with values fitted again, and of a search's."""
    return tuple(
        Word(
            f"{which}_{name}",
            f"{label}, {whose}",
            unit,
            definition.format(code=code),
            reading,
            by="measure.amortisation_gap",
        )
        for which, whose, code in (
            ("own", "own encoder", "the code of the dictionary's own encoder"),
            ("refitted", "values fitted", "the encoder's code with the best values for its active latents"),
            ("pursuit", "pursuit", "the code that pursuit finds with as many active latents"),
        )
    )


WORDS = {
    "Encoder against search": (
        Word(
            "amortisation_gap",
            "Amortisation gap",
            "share of variance",
            "Variance unexplained by the dictionary's own encoder, less that by pursuit over the same atoms.",
            "What a better reader of the same dictionary would gain; below 0, the encoder beats pursuit.",
            by="measure.amortisation_gap",
        ),
        *_of_three(
            "unexplained",
            "Unexplained",
            "share of variance",
            "Variance unexplained by {code}.",
            "Own less refitted is lost in values; refitted less pursuit is lost in the choice of latents.",
        ),
        *_of_three(
            "l0",
            "Active",
            "features per row",
            "Mean number of nonzeros of {code}.",
            "The comparison is fair where the three are alike.",
        ),
        Word(
            "support_overlap",
            "Overlap with pursuit",
            "share of latents",
            "Latents active in both the encoder's code and pursuit's, over those active in either.",
            "1 if both choose the same latents; a low one with a small gap says that several choices do.",
            by="measure.amortisation_gap",
        ),
        Word(
            "refitted_overlap",
            "Overlap after fitting",
            "share of latents",
            "Latents active in both the encoder's code and that with fitted values, over those active in either.",
            "Below 1, fitting turned latents off.",
            by="measure.amortisation_gap",
        ),
        *_of_three(
            "true_overlap",
            "Overlap with the truth",
            "share of features",
            "Features active in both the truth and {code}, over those active in either.",
            "1 if exactly the true features are active.",
        ),
    ),
    "Recovery with W known": (
        Word(
            "recovery_threshold",
            "Recovery threshold",
            "active features",
            "The number of active features at which half of the codes are found exactly.",
            "Below it most codes are read right by this solver, above it few; it depends on the codes' values too.",
            by="studies.Recover",
        ),
        Word(
            "supports_found",
            "Supports found",
            "share of codes",
            "Share of codes whose active features are found, all of them and no other.",
            "Falls from 1 to 0 around the recovery threshold.",
            by="studies.Recover",
        ),
        Word(
            "certified_codes",
            "Certified codes",
            "share of tokens",
            "Share of the dictionary's own codes that basis pursuit provably finds, by a condition on their support "
            "and signs.",
            "Far above what worst-case guarantees say, since it speaks of these codes.",
            by="recovery.fuchs",
        ),
        Word(
            "exact_recovery_codes",
            "Codes certified for pursuit",
            "share of tokens",
            "Share of the dictionary's own codes that meet the exact recovery condition of their support.",
            "Stricter than certified codes: it holds for every sign, and for matching pursuit too.",
            by="studies.Theory",
        ),
        Word(
            "interference_ratio",
            "Interference, measured over predicted",
            "ratio of variances",
            "Variance of what other features add to a read-out, over what independent features would add.",
            "Above 1, features that overlap fire together; below 1, they avoid each other.",
            by="measure.read_out_interference",
        ),
        Word(
            "interference_variance",
            "Variance of interference",
            "squared feature units",
            "Variance of what other features add to the linear read-out of one.",
            "Compare with an active feature's square, as the signal to noise does.",
            by="measure.read_out_interference",
        ),
        Word(
            "read_out_signal_to_noise",
            "Signal to noise of the read-out",
            "ratio of squares",
            "Mean square of an active feature over the variance of its interference.",
            "Well above 1, a linear read-out and a threshold suffice; near 1 they do not.",
            by="measure.read_out_interference",
        ),
    ),
}
