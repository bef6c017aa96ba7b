"""Sparse codes of one activation that say another: transcoders, and crosscoders over several sites or models."""

from .base import Predictor
from .crosscoder import Crosscoder
from .sources import Beside, Paired
from .transcoder import SkipTranscoder, Transcoder

TRANSCODERS = (Crosscoder, SkipTranscoder, Transcoder)
"""Every architecture of this folder; tests and menus read this tuple."""

__all__ = ["TRANSCODERS", "Beside", "Crosscoder", "Paired", "Predictor", "SkipTranscoder", "Transcoder"]
