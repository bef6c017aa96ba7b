"""The sycophant: a small GPT with sycophancy planted along a known direction, shipped inside the package.

`load()` gives it, `grammar` says what it reads and what was planted, `model/MODEL_CARD.md` has its figures,
`scripts/train_sycophant.py` made it.
"""

from . import grammar as grammar
from .weights import folder as folder
from .weights import load as load
