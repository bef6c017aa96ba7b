"""What is read at a site: one reading a file. A scan is this list over its sites; other studies choose theirs."""

from ....core.registry import one_of_each
from .activation import Activation as Activation
from .base import CONTROL as CONTROL
from .base import TRAINED as TRAINED
from .base import Reading as Reading
from .base import View as View
from .basis import Basis as Basis
from .counts import Counts as Counts
from .geometry import Geometry as Geometry
from .interference import Interference as Interference
from .latents import Latents as Latents
from .map import Map as Map
from .neurons import Neurons as Neurons
from .outliers import Outliers as Outliers
from .partners import Partners as Partners
from .reconstruction import SPLICED_TOKENS as SPLICED_TOKENS
from .reconstruction import CrossEntropy as CrossEntropy
from .reconstruction import Reconstruction as Reconstruction

READINGS: tuple[Reading, ...] = one_of_each(Reading, globals())
"""One of each kind imported above."""
