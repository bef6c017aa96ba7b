"""Words for concepts found by contrast, and for what else moves when they are steered."""

from __future__ import annotations

from .word import Word

_BY = "studies.Concept"
_RANDOM = "Chance is what random vectors of the same norm do."

WORDS = {
    "Concepts": (
        Word(
            "probe_accuracy",
            "Probe accuracy",
            "share of texts",
            "Share of held-out texts on the right side of a direction's threshold.",
            "That a concept can be read says that it is there, not that the model uses it.",
            by=_BY,
            headline=True,
        ),
        Word(
            "concept_separation",
            "Separation d'",
            "standard deviations",
            "Distance of the held-out sides along a direction, over the standard deviation within a side.",
            "At 2 two texts drawn from either side are told apart 92 times in 100.",
            by="intervene.concepts.reliability",
            short="d'",
            headline=True,
        ),
        Word(
            "wrong_way_share",
            "Wrong way",
            "share",
            "Share of held-out pairs along which the read-out falls where the concept comes in; of two sets, share of "
            "texts on the other side's half of the line.",
            "Above 0.3 steering by this direction is not to be relied on.",
            by="intervene.concepts.reliability",
        ),
        Word(
            "pair_cosine",
            "Agreement of pairs",
            "cosine",
            "Mean cosine of pair differences with their mean.",
            "Below 0.2 the pairs hardly agree on a direction.",
            by="intervene.concepts.reliability",
        ),
        Word(
            "class_dimension",
            "Directions that do as well",
            "directions",
            "Mutually orthogonal directions, found in turn, with a held-out d' of at least 0.9 of the first's.",
            "1: it is the direction; more: one of many, and nothing makes it the model's own.",
            by="intervene.concepts.reliability",
        ),
        Word(
            "concept_crosstalk",
            "Crosstalk of concepts",
            "share of its own effect",
            "Largest |d'| of another concept's sides along this concept's direction, over its own.",
            "Near 0 the probe answers to its concept alone; near 1 as much to another.",
            by="intervene.concepts.entanglement",
        ),
        Word(
            "best_latent_auc",
            "Best latent",
            "probability",
            "Largest P(a text with the concept has more of a latent than one without), or its reverse, on held-out "
            "texts, of latents chosen on others.",
            "Compare with chance, the best of as many where sides were shuffled.",
            by="intervene.concepts.rank_latents",
        ),
        Word(
            "own_features",
            "Features that carry it",
            "latents",
            "Fewest latents that carry 0.9 of the distance between the sides along the concept's direction.",
            "One: the concept is a feature; hundreds: it is a mixture that this dictionary has no latent for.",
            by="intervene.concepts.shared_features",
        ),
        Word(
            "probe_interference",
            "Interference in the probe",
            "share of variance",
            "Share of the read-out's variance within a side that comes from latents that do not carry the concept.",
            "Near 1 the probe's noise is crosstalk of other features; it may leave 0 to 1 where parts cancel.",
            by="intervene.concepts.shared_features",
        ),
    ),
    "Side effects": (
        Word(
            "concept_log_odds_rise",
            "Rise of log-odds",
            "nats",
            "Log-odds of the tokens that texts with the concept have more of against those they have fewer of, with "
            "the concept added less without, on held-out texts without it.",
            f"The dose that all else is measured at. {_RANDOM}",
            by=_BY,
        ),
        Word(
            "steering_kl",
            "KL on unrelated text",
            "nats per token",
            "Divergence of the predictions without the edit from those with it, mean over all positions of text that "
            "the edit is not meant for.",
            f"What steering costs. {_RANDOM}",
            by="intervene.side_effects.divergences",
            headline=True,
        ),
        Word(
            "steering_delta_loss",
            "Loss on unrelated text",
            "nats per token",
            "Cross-entropy on unrelated text with the edit less that without it.",
            f"Below the KL where the model was sure of wrong words. {_RANDOM}",
            by="intervene.side_effects.divergences",
        ),
        Word(
            "steered_norm_ratio",
            "Norm ratio",
            "ratio",
            "Mean ‖x'‖ / ‖x‖ at the edited site.",
            "Far from 1 the layers behind read something they never saw.",
            by="intervene.side_effects.side_effects",
        ),
        Word(
            "off_target_share",
            "Off target",
            "share of movement",
            "Share of all movement of a dictionary's latents that is in others than the one nearest to the direction.",
            f"Hardly below 1 where a concept is no single latent. {_RANDOM}",
            by="intervene.side_effects.side_effects",
        ),
        Word(
            "looping_answers",
            "Answers that loop",
            "share of answers",
            "Share of answers that end in the same tokens three times in a row.",
            "A fault that KL does not see. Chance is without steering.",
            by="intervene.side_effects.answer_faults",
        ),
        Word(
            "empty_answers",
            "Empty answers",
            "share of answers",
            "Share of answers without a word.",
            "A fault that KL does not see. Chance is without steering.",
            by="intervene.side_effects.answer_faults",
        ),
    ),
}
