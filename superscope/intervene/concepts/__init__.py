"""Where is a concept? Directions found on contrasting texts, how reliable they are, and what shares them."""

from ...core.registry import members
from .contrast import ContrastSet as ContrastSet
from .contrast import read_contrasts as read_contrasts
from .difference import DiffMean as DiffMean
from .entanglement import Entanglement as Entanglement
from .entanglement import SharedFeatures as SharedFeatures
from .entanglement import entanglement as entanglement
from .entanglement import shared_features as shared_features
from .finder import Direction as Direction
from .finder import Finder as Finder
from .latents import RankedLatents as RankedLatents
from .latents import dense_code as dense_code
from .latents import rank_latents as rank_latents
from .lda import Lda as Lda
from .logistic import Logistic as Logistic
from .pair_pca import PairPca as PairPca
from .pocket_sets import POCKET_CONCEPTS as POCKET_CONCEPTS
from .pocket_sets import pocket_contrast as pocket_contrast
from .reading import ContrastRows as ContrastRows
from .reading import contrast_rows as contrast_rows
from .reading import text_rows as text_rows
from .reliability import Reliability as Reliability
from .reliability import reliability as reliability

FINDERS: tuple[type[Finder], ...] = members(Finder, globals())
"""Every way of finding a direction: those imported above. `superscope concept` and the laws of finders read this
tuple."""
