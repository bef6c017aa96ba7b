"""Dictionary learning before autoencoders, answering the same calls: `fit(source, n, ...)`, `encode`, `reconstruct`."""

from ...core.registry import members
from .ica import ICA as ICA
from .kmeans import KMeans as KMeans
from .ksvd import KSVD as KSVD
from .learner import Learner as Learner
from .nmf import NMF as NMF
from .online import OnlineDictionary as OnlineDictionary

CLASSICAL: tuple[type[Learner], ...] = members(Learner, globals())
"""Every classical learner: those imported above; all but KSVD learn with scikit-learn (extra `classical`)."""
