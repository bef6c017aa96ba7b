"""Words for what compressing a layer costs and for how easily one is disturbed."""

from __future__ import annotations

from .word import Word

_TREND = "Between −1 and 1; 0 is no relation. It speaks of order, not of size."

WORDS = {
    "Compression": (
        Word(
            "cross_entropy",
            "Cross-entropy",
            "nats per token",
            "Mean of −ln p(token) over the predicted tokens of held-out documents.",
            "What rises are counted from; lower is a better model of the same text and tokenizer.",
            by="studies.Compress",
        ),
        Word(
            "projected_loss_rise",
            "Rise of loss by projecting",
            "nats per token, or a share of E‖f‖²",
            "Loss with the stream projected onto r dimensions, less the loss without: cross-entropy of a model; in a "
            "world the squared error of reading f back.",
            "Compare at one rank; “random” is what no rule at all costs.",
            by="studies.Compress",
        ),
        Word(
            "compressed_loss_rise",
            "Rise of loss by compressing weights",
            "nats per token, or a share of E‖f‖²",
            "Loss with compressed weights, less the loss with the model's own.",
            "Methods beside each other store as many numbers; where zeros stand is not counted. Below 0 it helped.",
            by="studies.Compress",
        ),
        Word(
            "survival_predicted",
            "Predicted and measured survival",
            "rank correlation",
            "Spearman's correlation over features of a read-out's signal-to-noise after over before, as predicted from "
            "atoms and variances and as measured on rows.",
            f"{_TREND} Features that fire together are what it cannot know.",
            by="studies.Compress",
        ),
        Word(
            "survival_over_density",
            "Survival over density",
            "rank correlation",
            "Spearman's correlation over features of density with the read-out's signal-to-noise after over before.",
            f"{_TREND} Below 0 rare features survive better.",
            by="studies.Compress",
        ),
        Word(
            "restored_over_density",
            "Restored loss over density",
            "rank correlation",
            "Spearman's correlation over features of density with what the loss falls by, each time a feature is "
            "active, when it alone is put back.",
            f"{_TREND} Above 0 the loss of frequent features costs more at each appearance.",
            by="studies.Compress",
        ),
        Word(
            "restored_over_survival",
            "Restored loss over survival",
            "rank correlation",
            "Spearman's correlation over features of the measured survival of the read-out with what the loss falls by "
            "when the feature alone is put back.",
            f"{_TREND} Far below 0 geometry tells what is missed; near 0 surviving geometrically says nothing of it.",
            by="studies.Compress",
        ),
    ),
    "Disturbance": (
        Word(
            "damage",
            "Damage of a move",
            "nats of KL, or squared change of outputs",
            "Divergence of all predictions behind one token from the model's own, x at it moved by a given length; in "
            "a world the squared change of the network's outputs. Mean over directions of a kind.",
            "Compare kinds at one length. Its size depends on how much text follows the token.",
            by="intervene.robustness.damage",
        ),
        Word(
            "damage_ratio",
            "Damage over another's",
            "ratio",
            "Mean damage of one kind of move over that of another kind of the same length.",
            "Above 1 the first kind is the more harmful.",
            by="studies.Perturb",
        ),
        Word(
            "damage_predicted",
            "Predicted and measured damage",
            "rank correlation",
            "Spearman's correlation over moves of the damage with what was predicted before: ½ δᵀFδ by the pullback "
            "Fisher (“noticed”), or Σⱼ (aⱼ·δ)² over unit atoms (“overlap”).",
            f"{_TREND} Over random moves alone it is not told by the kind of move.",
            by="studies.Perturb",
        ),
        Word(
            "interference_gain",
            "Gain through interference",
            "read-out per unit of other features",
            "√ Σⱼ (aᵢ·aⱼ)² over other features j: how far a read-out moves when other features change by length 1. "
            "Root mean square over features.",
            "Above 1 a read-out is reached farther through others than by itself; √(n/d − 1) is the least there is.",
            by="intervene.robustness.interference_gain",
        ),
    ),
    "Collateral told beforehand": (
        Word(
            "collateral_order",
            "Order of collateral, predicted and measured",
            "rank correlation",
            "Spearman's correlation over features that were added to x, of what else was predicted to move with what "
            "did: predictions of other text (KL), other features of the dictionary, or a network's other outputs.",
            f"{_TREND} A prediction that repeats how long the vector is can be high; read it given the rest.",
            by="studies.Collateral",
            short="Order",
        ),
        Word(
            "collateral_order_given",
            "The same, given density and norm",
            "rank correlation",
            "What is left of that correlation once the ranks of a feature's density and of the vector's length are "
            "fitted to both.",
            "0 says that the prediction knows nothing beyond how frequent and how strong a feature is.",
            by="studies.Collateral",
            short="Given density and norm",
        ),
        Word(
            "collateral_order_gain",
            "Gain over density or norm alone",
            "rank correlation",
            "The correlation of the prediction with what moved, less that of density alone, or of the vector's length "
            "alone, whichever way round it orders better.",
            "Above 0 with an interval that excludes 0 the prediction is worth making.",
            by="studies.Collateral",
            short="Gain",
        ),
    ),
}
