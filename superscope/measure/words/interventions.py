"""Words for edits of x: what they reach, what they cost, what is left of it."""

from __future__ import annotations

from .word import Word

_RHO = "1 is the best there is at this effect; 2 disturbs the other read-outs twice as much as it needs to."

WORDS = {
    "Steering and ablation": (
        Word(
            "steered_log_odds",
            "Log-odds of the answer",
            "nats",
            "ln p(wanted) − ln p(unwanted) after the prompts, summed over the tokens of each, at a strength.",
            "Its rise beside strength 0 is the effect; where it turns back, the dose is too large.",
            by="intervene.log_odds",
            headline=True,
        ),
        Word(
            "loss_added",
            "Loss added",
            "nats per token",
            "Next-token loss of a text with x edited at the site, minus the model's own.",
            "0 is no harm; on text that has nothing to do with the edit it is a side effect.",
            by="intervene.next_token_loss",
            headline=True,
        ),
        Word(
            "validity_radius",
            "Radius of validity",
            "nats per token",
            "Largest dose, as ½ δᵀFδ foretells its KL, up to which the measured KL is within the tolerance of it.",
            "Below it what an edit costs can be foretold; beyond it only measuring tells.",
            by="intervene.dose.validity_radius",
        ),
        Word(
            "rho",
            "Distance ρ from the best edit",
            "times",
            "Collateral of the direction over the least collateral of any that moves the same read-out as much: "
            "(vᵀKv)(gᵀK⁻¹g)/(g·v)².",
            _RHO + " It holds for the read-out and metric that are named.",
            by="intervene.collateral.rho",
        ),
        Word(
            "squared_change",
            "Squared change",
            "share of the mean squared norm",
            "Mean squared length of what an edit changes in x, over that of x itself.",
            "Where the concept is present some of it is wanted; where it is absent none is.",
            by="studies.Ablate",
        ),
        Word(
            "difference_left",
            "Difference left",
            "share",
            "Length of the difference of means of the two sides after the edit, over that before.",
            "0: their means are one, so that no linear reader tells them on average.",
            by="studies.Ablate",
            headline=True,
        ),
        Word(
            "over_floor",
            "Cost over the floor",
            "times",
            "Mean squared change of rows by an edit over what oracle LEACE, which is told every row's label, needs to "
            "take as much of the label out of x.",
            "No edit is below 1. It says what is wasted, not how much is erased.",
            by="intervene.edits.over_floor",
            headline=True,
        ),
        Word(
            "probe_shift",
            "Shift of another concept",
            "standard deviations",
            "How far an edit moves another concept's read-out on unrelated text, on average, in standard deviations of "
            "the read-out there.",
            "Chance is how far random edits of the same size move it, either way.",
            by="intervene.side_effects.side_effects",
        ),
        Word(
            "refused_answers",
            "Refused answers",
            "share of answers",
            "Share of answers that begin as refusals do.",
            "A fault that KL does not see. Chance is without the edit.",
            by="intervene.side_effects.answer_faults",
        ),
        Word(
            "repetition",
            "Repetition",
            "share of 4-grams",
            "Mean share of an answer's runs of four tokens that stood in it before.",
            "Near 1 it says one thing over and over. Chance is without the edit.",
            by="intervene.side_effects.answer_faults",
        ),
    ),
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
            "Distance ρ, metric known",
            "times",
            "Disturbance of the edit of least collateral over the least possible, directions and frequencies known.",
            "1 but for rounding: it checks the computation.",
            by="studies.Spare",
        ),
        Word(
            "rho_estimated",
            "Distance ρ, metric estimated",
            "times",
            "The same with the covariance of sampled rows as the metric, which knows no feature.",
            _RHO + " Where features come together the covariance is not the read-outs' metric.",
            by="studies.Spare",
            headline=True,
        ),
        Word(
            "rho_plain_elsewhere",
            "Distance ρ of plain, other read-outs",
            "times",
            "ρ of the feature's own direction where the network reads by linear estimates of least error.",
            _RHO,
            by="studies.Spare",
        ),
        Word(
            "rho_elsewhere",
            "Distance ρ of ours, other read-outs",
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
            "projection_over_floor",
            "Projection over the floor",
            "times",
            "Mean squared change by the better projection over what oracle LEACE, which is told the feature's value in "
            "every row, needs to take as much of it out of x.",
            "No edit is below 1.",
            by="intervene.edits.over_floor",
        ),
        Word(
            "gated_over_floor",
            "Gated ablation over the floor",
            "times",
            "The same of the gated ablation.",
            "No edit is below 1.",
            by="intervene.edits.over_floor",
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
