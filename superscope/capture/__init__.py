"""Where x comes from in real networks: models, texts, sites, and the rows read there.

transformers is imported when a model is loaded, not before; the pocket model and its text live in `capture.pocket`.
"""

from .harvesting import harvest
from .hooks import Capture, replace, sites
from .huggingface import Loaded, control, default_sites, load
from .permutation import Bijection
from .roles import ROLES, Found, blocks, describe, mlp_hidden
from .shards import Manifest, Record, ShardSource, Store
from .spelling import pieces, spelling
from .splicing import Loss, next_token_loss
from .stored import HookSource, StoredSource
from .text import Corpus, Document, documents, tokens

__all__ = [
    "ROLES",
    "Bijection",
    "Capture",
    "Corpus",
    "Document",
    "Found",
    "HookSource",
    "Loaded",
    "Loss",
    "Manifest",
    "Record",
    "ShardSource",
    "Store",
    "StoredSource",
    "blocks",
    "control",
    "default_sites",
    "describe",
    "documents",
    "harvest",
    "load",
    "mlp_hidden",
    "next_token_loss",
    "pieces",
    "replace",
    "sites",
    "spelling",
    "tokens",
]
