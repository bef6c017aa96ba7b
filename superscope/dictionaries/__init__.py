"""W and f from x alone: sparse autoencoders and how they are trained; classical learners."""

from .classical import CLASSICAL, ICA, KSVD, NMF, KMeans, OnlineDictionary
from .sae import ARCHITECTURES, SAE, TopK, load
from .train import train

__all__ = [
    "ARCHITECTURES",
    "CLASSICAL",
    "ICA",
    "KSVD",
    "NMF",
    "SAE",
    "KMeans",
    "OnlineDictionary",
    "TopK",
    "load",
    "train",
]
