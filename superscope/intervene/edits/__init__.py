"""What can be done to x: one edit, one file. Each goes where a function of rows goes: `replace`, `edited`, `splice`."""

from ...core.registry import members
from .add import Add as Add
from .along import Along as Along
from .alphasteer import AlphaSteer as AlphaSteer
from .clamp import Clamp as Clamp
from .edit import Edit as Edit
from .erasure import Erasure as Erasure
from .latent import Latent as Latent
from .leace import Leace as Leace
from .least import Least as Least
from .mean_ablate import MeanAblate as MeanAblate
from .midsteer import MidSteer as MidSteer
from .norm_kept import NormKept as NormKept
from .oracle_leace import OracleLeace as OracleLeace
from .oracle_leace import least_change as least_change
from .oracle_leace import over_floor as over_floor
from .project_out import ProjectOut as ProjectOut
from .protected import Protected as Protected
from .sae_targeted import SaeTargeted as SaeTargeted
from .scale import Scale as Scale
from .splice_in import SpliceIn as SpliceIn
from .splince import Splince as Splince

EDITS: tuple[type[Edit], ...] = members(Edit, globals())
"""Every edit: those imported above. The laws of edits run over them, and docs/steering.md lists them."""
