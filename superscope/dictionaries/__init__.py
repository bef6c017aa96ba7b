"""W and f from x alone: sparse autoencoders and how they are trained; classical learners."""

from . import formats
from .classical import CLASSICAL, ICA, KSVD, NMF, KMeans, OnlineDictionary
from .hub import from_pretrained, push_to_hub
from .loading import load
from .many import grid, train_many
from .sae import (
    ARCHITECTURES,
    SAE,
    AbsTopK,
    Archetypal,
    BatchTopK,
    Gated,
    InterferencePenalised,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    PAnnealed,
    ReLU,
    TopK,
)
from .train import SHORT, Ramp, train
from .transcoders import TRANSCODERS, Beside, Crosscoder, Paired, SkipTranscoder, Transcoder
from .whitening import Whitening

__all__ = [
    "ARCHITECTURES",
    "CLASSICAL",
    "ICA",
    "KSVD",
    "NMF",
    "SAE",
    "SHORT",
    "TRANSCODERS",
    "AbsTopK",
    "Archetypal",
    "BatchTopK",
    "Beside",
    "Crosscoder",
    "Gated",
    "InterferencePenalised",
    "JumpReLU",
    "KMeans",
    "MatchingPursuit",
    "Matryoshka",
    "OnlineDictionary",
    "PAnnealed",
    "Paired",
    "Ramp",
    "ReLU",
    "SkipTranscoder",
    "TopK",
    "Transcoder",
    "Whitening",
    "formats",
    "from_pretrained",
    "grid",
    "load",
    "push_to_hub",
    "train",
    "train_many",
]
