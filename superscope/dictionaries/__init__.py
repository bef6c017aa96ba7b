"""W and f from x alone: sparse autoencoders and how they are trained."""

from .sae import ARCHITECTURES, SAE, TopK, load
from .train import train

__all__ = ["ARCHITECTURES", "SAE", "TopK", "load", "train"]
