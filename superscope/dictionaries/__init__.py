"""W and f from x alone: sparse autoencoders and how they are trained; classical learners."""

from typing import TYPE_CHECKING

from . import formats as formats
from .classical import CLASSICAL as CLASSICAL
from .classical import ICA as ICA
from .classical import KSVD as KSVD
from .classical import NMF as NMF
from .classical import KMeans as KMeans
from .classical import Learner as Learner
from .classical import OnlineDictionary as OnlineDictionary
from .hub import from_pretrained as from_pretrained
from .hub import push_to_hub as push_to_hub
from .loading import load as load
from .loading import load_coder as load_coder
from .many import grid as grid
from .many import train_many as train_many
from .refined import Refined as Refined
from .sae import ARCHITECTURES as ARCHITECTURES
from .sae import SAE as SAE
from .sae import AbsTopK as AbsTopK
from .sae import Archetypal as Archetypal
from .sae import BatchTopK as BatchTopK
from .sae import Gated as Gated
from .sae import InterferencePenalised as InterferencePenalised
from .sae import JumpReLU as JumpReLU
from .sae import MatchingPursuit as MatchingPursuit
from .sae import Matryoshka as Matryoshka
from .sae import PAnnealed as PAnnealed
from .sae import ReLU as ReLU
from .sae import TopK as TopK
from .thresholds import own_thresholds as own_thresholds
from .train import SHORT as SHORT
from .train import Ramp as Ramp
from .train import train as train
from .transcoders import TRANSCODERS as TRANSCODERS
from .transcoders import Beside as Beside
from .transcoders import Crosscoder as Crosscoder
from .transcoders import Paired as Paired
from .transcoders import SkipTranscoder as SkipTranscoder
from .transcoders import Transcoder as Transcoder
from .turned import Turned as Turned
from .whitening import Whitening as Whitening

if not TYPE_CHECKING:

    def __getattr__(name: str) -> type:
        """A member of one of the families that has no line above: it needs none."""
        for kind in (*ARCHITECTURES, *TRANSCODERS, *CLASSICAL):
            if kind.__name__ == name:
                return kind
        raise AttributeError(f"superscope.dictionaries has no {name!r}.")
