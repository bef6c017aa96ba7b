"""What else moves? A meter of side effects, vectors to compare an edit with, and collateral told before steering."""

from .answers import AnswerFaults as AnswerFaults
from .answers import answer_faults as answer_faults
from .controls import Control as Control
from .controls import ControlEdit as ControlEdit
from .controls import control_band as control_band
from .controls import controls_of as controls_of
from .controls import main_change as main_change
from .divergence import Divergence as Divergence
from .divergence import divergence_of as divergence_of
from .divergence import divergences as divergences
from .meter import LatentShift as LatentShift
from .meter import SideEffects as SideEffects
from .meter import side_effects as side_effects
from .prediction import Features as Features
from .prediction import RankAgreement as RankAgreement
from .prediction import predicted_collateral as predicted_collateral
from .prediction import rank_agreement as rank_agreement
