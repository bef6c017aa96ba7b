"""Which input moves a unit most? Prompts and pictures climbed to, beside how the climb itself is judged."""

from .pictures import Ball as Ball
from .pictures import MaximisedPictures as MaximisedPictures
from .pictures import PictureReader as PictureReader
from .pictures import Range as Range
from .pictures import Spectrum as Spectrum
from .pictures import maximise_pictures as maximise_pictures
from .prompt_reader import PromptReader as PromptReader
from .prompt_reader import ReadPrompts as ReadPrompts
from .prompts import MaximisedPrompts as MaximisedPrompts
from .prompts import maximise_prompts as maximise_prompts
from .target import AlongTarget as AlongTarget
from .target import CoordinateTarget as CoordinateTarget
from .target import LatentTarget as LatentTarget
from .target import Target as Target
from .vocabulary import Vocabulary as Vocabulary
