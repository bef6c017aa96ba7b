"""Who makes a layer smaller, and what is left of its features: projected streams, sparser and narrower weights."""

from ...core.registry import one_of_each
from .layers import compressed as compressed
from .layers import input_moments as input_moments
from .layers import linear_layers as linear_layers
from .magnitude import Magnitude as Magnitude
from .method import Method as Method
from .pca import PCA as PCA
from .projection import Projection as Projection
from .projection import feature_moment as feature_moment
from .projection import projection as projection
from .sparse_gpt import SparseGPT as SparseGPT
from .survival import Survival as Survival
from .survival import restored_loss as restored_loss
from .survival import survival as survival
from .svd import SVD as SVD
from .svd_llm import SVDLLM as SVDLLM
from .wanda import Wanda as Wanda

METHODS: tuple[Method, ...] = one_of_each(Method, globals())
"""One of each method for weights: those imported above. `superscope compress` and tests read this tuple."""
