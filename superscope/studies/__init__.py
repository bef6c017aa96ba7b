"""Whole questions, one file each. The table is light to read: a study's module is imported when the study is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One study: the command's name, where its class lives, and what it answers in one line."""

    command: str
    module: str
    name: str
    summary: str

    def load(self) -> Any:
        """The study's class."""
        return getattr(importlib.import_module(f"{__name__}.{self.module}"), self.name)


STUDIES = (
    Entry("scan", "networks.scan", "Scan", "How superposed are this model's layers? From a model's name to a report."),
    Entry(
        "survey",
        "networks.full_survey",
        "FullSurvey",
        "What can be said of this model's superposition? Every study that applies, the text read once.",
    ),
    Entry(
        "layers", "networks.layers", "Layers", "Are early layers dense, later ones sparse? Every layer, site and head."
    ),
    Entry(
        "domains",
        "networks.domains",
        "Domains",
        "Which features belong to one kind of text? Do those that rarely meet share directions?",
    ),
    Entry("dynamics", "networks.dynamics", "Dynamics", "When are features born, split, merged and lost in training?"),
    Entry("scale", "networks.scale", "Scale", "How do loss, overlap, features and sparsity go with a network's width?"),
    Entry(
        "transfer", "networks.transfer", "Transfer", "Are features of one layer, text or model found in another one?"
    ),
    Entry(
        "populations",
        "networks.populations",
        "Populations",
        "What do a layer's activations look like laid flat, how far is that true, and in how many dimensions are they?",
    ),
    Entry(
        "maximise",
        "networks.maximise",
        "Maximise",
        "Which prompt, or picture, moves this unit most, beside what the data holds and what chance finds?",
    ),
    Entry("sites", "networks.sites", "Sites", "Where can this model be read? Every site by its role, with its shape."),
    Entry(
        "harvest",
        "networks.harvest",
        "Harvest",
        "Read a model's activations once and keep them, for many dictionaries.",
    ),
    Entry("train", "learning.train", "Train", "Learn a sparse dictionary of any stream of activations, and score it."),
    Entry(
        "frontier", "learning.frontier", "Frontier", "How sparse should this dictionary be? A sweep, and the k to take."
    ),
    Entry(
        "count",
        "counting.count",
        "CountFeatures",
        "How many features are there? One number with its interval, for any rows.",
    ),
    Entry(
        "calibrate",
        "counting.calibrate",
        "Calibrate",
        "Does the count hold where the truth is known? Error and coverage over worlds.",
    ),
    Entry("sweep", "sweep", "Sweep", "Any study over a grid of its settings, on one machine or many."),
    Entry(
        "manifolds",
        "networks.manifolds",
        "Manifolds",
        "Are there circles among the features, and how often does this procedure find false ones?",
    ),
    Entry(
        "evaluate",
        "networks.evaluate",
        "Evaluate",
        "How does this dictionary do in the field's own evaluations, beside their chance levels?",
    ),
    Entry("toy", "toys.sweep", "ToySweep", "What becomes of n features in d dimensions as they grow rarer?"),
    Entry(
        "phase", "toys.phase_diagram", "PhaseDiagram", "Which features get a dimension, which share, which are dropped?"
    ),
    Entry("toy-correlation", "toys.correlation", "ToyCorrelation", "Does superposition fall as features correlate?"),
    Entry(
        "toy-scaling",
        "toys.scaling",
        "ToyScaling",
        "How does loss fall with width, in weak and strong superposition?",
    ),
    Entry("toy-robustness", "toys.robustness", "ToyRobustness", "How vulnerable does superposition make a model?"),
    Entry("bounds", "geometry.bounds", "Bounds", "What do n features in d dimensions allow, before any data?"),
    Entry(
        "theory",
        "geometry.theory",
        "Theory",
        "What does this dictionary allow? Geometry and bounds of any matrix or SAE.",
    ),
    Entry(
        "recover",
        "geometry.recovery_diagram",
        "Recover",
        "How many active features can be read back from this dictionary?",
    ),
    Entry(
        "plan", "learning.plan", "Plan", "What will capturing, storing and training cost, in memory, disk and hours?"
    ),
    Entry(
        "convert",
        "learning.convert",
        "Convert",
        "Does this dictionary, written in another package's format, stay the same?",
    ),
    Entry(
        "interpret",
        "networks.interpret",
        "Interpret",
        "What would a language model call these latents, and do its names foretell where they fire?",
    ),
    Entry(
        "neuronpedia",
        "networks.neuronpedia",
        "Neuronpedia",
        "How do others look through these features? A scan's feature pages as Neuronpedia imports them.",
    ),
    Entry(
        "judge",
        "learning.judge",
        "Judge",
        "How much of a world's truth did this dictionary find, and what are its other latents?",
    ),
    Entry(
        "compare",
        "learning.compare",
        "Compare",
        "Do these dictionaries or runs say the same? Atoms matched, split, merged and missing, beside chance.",
    ),
    Entry(
        "concept",
        "interventions.concept",
        "Concept",
        "Where is a concept in this model, and what else moves when it is steered?",
    ),
    Entry(
        "steer",
        "interventions.steer",
        "Steer",
        "What does a model do as a direction is added? A dose-response curve, and what it costs.",
    ),
    Entry(
        "ablate",
        "interventions.ablate",
        "Ablate",
        "What does a model lose when a direction or latent is taken out? Several ablations side by side.",
    ),
    Entry(
        "bench",
        "interventions.bench",
        "Bench",
        "What does a model do as directions are added, dose by dose, and what else moves? The studio's bench.",
    ),
    Entry(
        "spare",
        "interventions.spare",
        "Spare",
        "How much can an edit spare the other features? The bound, and what is reached, in known worlds.",
    ),
    Entry(
        "sycophancy",
        "interventions.sycophancy",
        "Sycophancy",
        "Does this model say what its user thinks, along which direction, and what takes it away?",
    ),
    Entry(
        "compress",
        "interventions.compress",
        "Compress",
        "What does making a layer smaller cost, and which features outlive it?",
    ),
    Entry(
        "perturb",
        "interventions.perturb",
        "Perturb",
        "How easily is a layer disturbed, along features, between them and through their interference?",
    ),
    Entry(
        "collateral",
        "interventions.collateral",
        "Collateral",
        "Which edits will move much else, and can that be known before anything is steered?",
    ),
    Entry("reproduce", "toys.reproduce", "Reproduce", "Does the paper's table of toy-model experiments hold up?"),
)

_FUNCTIONS = {
    "analyze_superposition": "toys.one_liners",
    "measure_interference": "toys.one_liners",
    "count": "counting.count",
}

__all__ = ["STUDIES", "Entry", *(entry.name for entry in STUDIES), *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    for entry in STUDIES:
        if name == entry.name:
            return entry.load()
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"superscope.studies has no {name!r}. It has: {', '.join(__all__)}.")
