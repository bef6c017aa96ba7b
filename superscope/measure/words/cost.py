"""Words for what a training costs before it begins."""

from __future__ import annotations

from .word import Word

_MODEL = "An estimate: a cost model of the machine, not a measurement."
_COUNT = "Arithmetic; the time that it takes depends on the machine."

WORDS = {
    "Cost": (
        Word(
            "model_operations",
            "Work of the model",
            "TFLOP",
            "Operations of one pass of the model over the tokens, up to the site.",
            f"{_COUNT} Attention over the context is left out.",
            by="theory.cost.forward_operations",
        ),
        Word(
            "training_operations",
            "Work of training",
            "TFLOP",
            "Operations of training one dictionary, with only active latents decoded.",
            _COUNT,
            by="theory.cost.training_operations",
        ),
        Word(
            "training_operations_dense",
            "Work of training, dense",
            "TFLOP",
            "Operations of the same training if every latent were decoded.",
            "Over the work of training: what sparsity saves.",
            by="theory.cost.training_operations",
        ),
        Word(
            "dictionary_parameters",
            "Parameters of the dictionary",
            "million",
            "2 n d: encoder and decoder.",
            _COUNT,
            by="studies.Plan",
        ),
        Word(
            "storage",
            "Room for activations",
            "GB",
            "Size of all rows at all sites in half precision.",
            "Compare with the disk; where it does not fit, activations are made anew for each use.",
            by="theory.cost.storage",
        ),
        Word(
            "capture_hours",
            "Hours of capture",
            "hours",
            "Time of the model's passes on the machine named.",
            _MODEL,
            by="studies.Plan",
        ),
        Word(
            "training_hours",
            "Hours of training",
            "hours",
            "Time of all steps of all dictionaries on the machine named.",
            _MODEL,
            by="studies.Plan",
        ),
        Word(
            "memory_per_device",
            "Memory per device",
            "GB",
            "Weights, moments, gradients and a batch, on each device of a mesh.",
            "Above the device's memory the mesh is no choice.",
            by="theory.cost.training_memory",
        ),
        Word(
            "step_seconds",
            "Seconds per step",
            "seconds",
            "Time of one step of training on a mesh: product, memory, exchange and overhead, none hidden.",
            _MODEL,
            by="theory.cost.step_cost",
        ),
    ),
}
