"""The small models that capture is tested on are what is intervened in."""

from ..capture.conftest import corpus as corpus
from ..capture.conftest import model_of as model_of
from ..capture.conftest import tokenizer as tokenizer
