"""Words for rings and orders, and for the field's own evaluations."""

from __future__ import annotations

from .word import Word

WORDS = {
    "Axes": (
        Word(
            "basis_kurtosis",
            "Tails along the axes",
            "excess kurtosis",
            "Mean excess kurtosis of the coordinates of x.",
            "Above that of random rotations the axes themselves mean something; heavy tails alone do not show it.",
            by="measure.activations.basis.privileged_basis",
        ),
    ),
    "Features of several dimensions": (
        Word(
            "circular_groups",
            "Groups that write a circle",
            "groups of latents",
            "Groups of latents whose rows, in a plane chosen on other rows, a ring foretells better than a line, a "
            "mixture or a Gaussian does.",
            "Only what is above chance counts: the same procedure finds circles where there are none.",
            by="studies.Manifolds",
        ),
        Word(
            "false_circle_rate",
            "False circles",
            "share",
            "How often the same procedure says circle of a control that has none.",
            "A verdict is worth what is above it.",
            by="studies.Manifolds",
        ),
        Word(
            "planes_found",
            "Planted planes found",
            "share of the world's planes",
            "Planes of a world in which a circle was found, four fifths of its square inside.",
            "1 where all rings are found; what is missed is split between groups, or joined with others.",
            by="studies.Manifolds",
        ),
        Word(
            "manifold_span",
            "Span recovered",
            "share of the span",
            "How much of a planted feature's span as few of its latents' atoms as it has dimensions hold.",
            "Near 1 where latents lie within the feature's span.",
            by="measure.manifolds.captured.captured",
        ),
        Word(
            "manifold_tiling",
            "Width of a tile",
            "share of the circle",
            "Share of a ring's angles at which one of its latents is on.",
            "About 1/2 where latents are its axes, small where many tile it.",
            by="measure.manifolds.captured.captured",
        ),
        Word(
            "manifold_dilution",
            "Dilution",
            "latents beyond its dimensions",
            "Latents of a feature on at once, less its dimensions.",
            "Above 0 a point takes more latents than coordinates; below 0 it is tiled.",
            by="measure.manifolds.captured.captured",
        ),
        *(
            Word(
                f"{name}_foretold",
                f"Foretold on a {label}",
                "share of variance",
                f"Variance between things in an order that their places on a {label} foretell, each from the others, "
                "in new contexts.",
                "1 is perfect, below 0 worse than the others' mean. Above the chance of orders drawn at random the "
                "order matters.",
                by="measure.manifolds.order.ordered",
            )
            for name, label in (("circle", "circle"), ("line", "line"), ("bent_line", "bent line"))
        ),
        Word(
            "closing_step",
            "Closing step",
            "mean steps",
            "Distance from the last thing in the order to the first, over the mean distance of neighbours.",
            "1 on a circle, and also where there is no order; as many as there are steps on a line.",
            by="measure.manifolds.order.ordered",
        ),
    ),
    "The field's evaluations": (
        Word(
            "divergence_recovered",
            "Divergence recovered",
            "share",
            "1 minus the divergence from the model's own predictions with x reconstructed over that with x ablated.",
            "1 where no prediction changes, 0 where the reconstruction is as bad as ablation.",
            by="measure.evaluations.recovered.divergence_recovered",
        ),
        Word(
            "divergence_added",
            "Divergence",
            "nats per token",
            "KL divergence of the model's predictions from those with x reconstructed.",
            "0 where no prediction changes. Compare this, not the share, which nears 1 early.",
            by="measure.evaluations.recovered.divergence_recovered",
        ),
        Word(
            "probe_accuracy",
            "Sparse probe",
            "balanced accuracy",
            "How well a logistic probe of k latents tells a concept on documents it was not fitted to.",
            "To be read between the shuffled labels' and a probe of all of x.",
            by="measure.evaluations.probing.sparse_probing",
        ),
        Word(
            "probe_absorption",
            "Absorption of a concept",
            "share of rows",
            "Rows where x shows a concept, its own latent is silent, and another latent writes it.",
            "High where latents of special cases have taken the concept's place; undefined where x shows none.",
            by="measure.evaluations.probing.probe_absorption",
        ),
        Word(
            "contrast",
            "Contrast",
            "root mean square active latents",
            "Largest difference between the mean codes of two texts, over the scale of the code.",
            "A maximum over latents: it grows with their number, as its chance level does.",
            by="measure.evaluations.contrast.contrast",
        ),
        Word(
            "contrast_excess",
            "Contrast beyond chance",
            "root mean square active latents",
            "Contrast less that of the same tokens exchanged between the texts.",
            "Above 0 a latent tells the texts apart; comparable between widths.",
            by="measure.evaluations.contrast.contrast",
        ),
        Word(
            "interchange_cause",
            "Cause of an exchange",
            "share of the feature",
            "How much of a feature comes along when its latent is exchanged between two rows.",
            "1 where the latent carries it whole.",
            by="measure.evaluations.interchange.interchange",
        ),
        Word(
            "interchange_isolation",
            "Isolation of an exchange",
            "share of the change",
            "How much of what an exchange changes is the feature itself.",
            "The true atom's own is the most that a linear read-out allows.",
            by="measure.evaluations.interchange.interchange",
        ),
        Word(
            "multi_concept_moves",
            "Features moved",
            "features",
            "Features that the exchange moves by at least half as much as the one meant.",
            "1 where a latent has one feature to itself in what it does.",
            by="measure.evaluations.interchange.interchange",
        ),
    ),
}
