"""Where x comes from in real networks: models, texts, sites, and the rows read there.

transformers is imported when a model is loaded, not before; the pocket model and its text live in `capture.pocket`.
"""

from .choosing import Choice, choose, faster_dtype, parameters_to
from .filling import fill, name_sites, prepare, tokenizer_hash
from .harvesting import harvest
from .hooks import Capture, replace, sites
from .huggingface import Loaded, control, default_sites, load
from .images import Images, pictures
from .permutation import Bijection
from .places import place
from .policy import Policy
from .recording import bytes_to_record, record
from .roles import ROLES, Found, blocks, describe, mlp_hidden
from .shards import Manifest, Record, ShardSource, Store
from .spelling import pieces, spelling
from .splicing import Loss, next_token_loss
from .stored import Gathering, HookSource, StoredSource
from .text import Corpus, Document, documents, stream, tokens
from .windows import Windows, write_images, write_windows

__all__ = [
    "ROLES",
    "Bijection",
    "Capture",
    "Choice",
    "Corpus",
    "Document",
    "Found",
    "Gathering",
    "HookSource",
    "Images",
    "Loaded",
    "Loss",
    "Manifest",
    "Policy",
    "Record",
    "ShardSource",
    "Store",
    "StoredSource",
    "Windows",
    "blocks",
    "bytes_to_record",
    "choose",
    "control",
    "default_sites",
    "describe",
    "documents",
    "faster_dtype",
    "fill",
    "harvest",
    "load",
    "mlp_hidden",
    "name_sites",
    "next_token_loss",
    "parameters_to",
    "pictures",
    "pieces",
    "place",
    "prepare",
    "record",
    "replace",
    "sites",
    "spelling",
    "stream",
    "tokenizer_hash",
    "tokens",
    "write_images",
    "write_windows",
]
