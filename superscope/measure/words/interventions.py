"""Words for edits of x: what they reach, what they cost, what is left of it."""

from __future__ import annotations

from .word import Word

_RHO = "1 is the best there is at this effect; 2 disturbs the other read-outs twice as much as it needs to."

WORDS = {
    "Edits in known worlds": (
        Word(
            "attainable_gain",
            "Attainable gain",
            "times",
            "Disturbance of the other features' read-outs by adding a feature's own direction, over the least at equal "
            "effect.",
            "How much any constant vector can gain over plain addition here: 1 in a tight frame, 1.1 to 4 in random "
            "ones.",
            by="studies.Spare",
            headline=True,
        ),
        Word(
            "gain_reached",
            "Gain reached",
            "share of the log-gain",
            "1 − log ρ(ours) / log ρ(plain), with the metric estimated from rows of x.",
            "1 is all that can be had, 0 no better than plain addition, below 0 worse.",
            by="studies.Spare",
            headline=True,
        ),
        Word(
            "rho_known",
            "ρ, metric known",
            "times",
            "Disturbance of the edit of least collateral over the least possible, directions and frequencies known.",
            "1 but for rounding: it checks the computation.",
            by="studies.Spare",
        ),
        Word(
            "rho_estimated",
            "ρ, metric estimated",
            "times",
            "The same with the covariance of sampled rows as the metric, which knows no feature.",
            _RHO + " Where features come together the covariance is not the read-outs' metric.",
            by="studies.Spare",
            headline=True,
        ),
        Word(
            "rho_plain_elsewhere",
            "ρ of plain addition, other read-outs",
            "times",
            "ρ of the feature's own direction where the network reads by linear estimates of least error.",
            _RHO,
            by="studies.Spare",
        ),
        Word(
            "rho_elsewhere",
            "ρ of ours, other read-outs",
            "times",
            "ρ of the estimated edit where the network reads by linear estimates of least error, which it does not "
            "assume.",
            "Above that of plain addition: with the wrong read-outs assumed, sparing is worse than not sparing.",
            by="studies.Spare",
        ),
        Word(
            "absent_sparing",
            "Sparing where absent",
            "times",
            "Squared change by orthogonal projection over that by gated ablation, in rows without the feature, both as "
            "strong as remove it.",
            "4 is four times less disturbance where nothing was to be removed.",
            by="studies.Spare",
            headline=True,
        ),
        Word(
            "present_cost",
            "Cost where present",
            "times",
            "Squared change beside the removal itself, by gated ablation over that by orthogonal projection, in rows "
            "with the feature.",
            "Below 1 the gated ablation is better there too.",
            by="studies.Spare",
            headline=True,
        ),
    ),
}
