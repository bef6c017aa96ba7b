"""Dictionary learning before autoencoders, answering the same calls: `fit(source, n, ...)`, `encode`, `reconstruct`."""

from ...core import SparseCoder
from .ica import ICA
from .kmeans import KMeans
from .ksvd import KSVD
from .nmf import NMF
from .online import OnlineDictionary

CLASSICAL: tuple[type[SparseCoder], ...] = (KMeans, NMF, ICA, OnlineDictionary, KSVD)
"""Every classical learner; all but KSVD learn with scikit-learn (extra `classical`)."""

__all__ = ["CLASSICAL", "ICA", "KSVD", "NMF", "KMeans", "OnlineDictionary"]
