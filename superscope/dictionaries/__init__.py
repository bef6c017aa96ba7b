"""W and f from x alone: sparse autoencoders and how they are trained; classical learners."""

from .classical import CLASSICAL, ICA, KSVD, NMF, KMeans, OnlineDictionary
from .loading import load
from .sae import ARCHITECTURES, SAE, Archetypal, Gated, InterferencePenalised, MatchingPursuit, PAnnealed, ReLU, TopK
from .train import train
from .transcoders import TRANSCODERS, Beside, Crosscoder, Paired, SkipTranscoder, Transcoder

__all__ = [
    "ARCHITECTURES",
    "CLASSICAL",
    "ICA",
    "KSVD",
    "NMF",
    "SAE",
    "TRANSCODERS",
    "Archetypal",
    "Beside",
    "Crosscoder",
    "Gated",
    "InterferencePenalised",
    "KMeans",
    "MatchingPursuit",
    "OnlineDictionary",
    "PAnnealed",
    "Paired",
    "ReLU",
    "SkipTranscoder",
    "TopK",
    "Transcoder",
    "load",
    "train",
]
