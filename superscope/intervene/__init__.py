"""Who changes x and watches: x replaced while a model runs, and what that costs it."""

from .divergence import next_token_divergence as next_token_divergence
from .loss import Loss as Loss
from .loss import next_token_loss as next_token_loss
from .rewriting import replace as replace
