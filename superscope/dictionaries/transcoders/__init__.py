"""Sparse codes of one activation that say another: transcoders, and crosscoders over several sites or models."""

from ...core.registry import members
from ..sae import SAE
from .base import Predictor as Predictor
from .crosscoder import Crosscoder as Crosscoder
from .sources import Beside as Beside
from .sources import Paired as Paired
from .transcoder import SkipTranscoder as SkipTranscoder
from .transcoder import Transcoder as Transcoder

TRANSCODERS: tuple[type[SAE], ...] = members(SAE, globals())
"""Every architecture of this folder: those imported above. Commands, formats and tests read this tuple."""
