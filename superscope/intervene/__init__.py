"""Who changes x and watches: x replaced while a model runs, and what that costs it."""

from . import collateral as collateral
from . import compression as compression
from . import concepts as concepts
from . import dose as dose
from . import edits as edits
from . import gates as gates
from . import robustness as robustness
from . import side_effects as side_effects
from .doses import dose_response as dose_response
from .editing import Edits as Edits
from .editing import edited as edited
from .edits import EDITS as EDITS
from .edits import Edit as Edit
from .fisher import Fisher as Fisher
from .fisher import pullback_fisher as pullback_fisher
from .generation import generate as generate
from .generation import text_of as text_of
from .jacobian import pullback_metric as pullback_metric
from .loss import Loss as Loss
from .loss import next_token_loss as next_token_loss
from .positions import Positions as Positions
from .rewriting import replace as replace
from .scoring import log_odds as log_odds
from .scoring import log_odds_gradient as log_odds_gradient
from .scoring import log_probabilities as log_probabilities
from .scoring import token_log_probabilities as token_log_probabilities
