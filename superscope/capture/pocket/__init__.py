"""The pocket model: a small GPT trained on the text every CPython carries, shipped inside the package.

`load()` gives it, `control(seed)` an untrained one, `history()` a narrower twin through its training, `documents()`
the text and `bits_per_byte` the score. `model/MODEL_CARD.md` has its figures, `scripts/train_pocket.py` made it.
"""

from .scoring import bits_per_byte, document_bits
from .text import Document, TextNotFound, documents, is_held_out, read, split, text_hash
from .weights import Checkpoint, control, folder, history, load

__all__ = [
    "Checkpoint",
    "Document",
    "TextNotFound",
    "bits_per_byte",
    "control",
    "document_bits",
    "documents",
    "folder",
    "history",
    "is_held_out",
    "load",
    "read",
    "split",
    "text_hash",
]
