"""Where x comes from in real networks: models, texts, sites, and the rows read there.

Five rooms, each reading those before it: models (what is run), inputs (on what), reading (rows out of one pass), store
(rows kept on disk), sources (what a trainer reads). transformers is imported when a model is loaded, not before; the
pocket model and its text live in `capture.pocket`.
"""

from .inputs.as_corpus import Readable as Readable
from .inputs.as_corpus import as_corpus as as_corpus
from .inputs.images import Images as Images
from .inputs.permutation import Bijection as Bijection
from .inputs.policy import Policy as Policy
from .inputs.policy import outlier_limit as outlier_limit
from .inputs.spelling import pieces as pieces
from .inputs.spelling import spelling as spelling
from .inputs.text import Corpus as Corpus
from .inputs.text import Document as Document
from .inputs.text import documents as documents
from .inputs.text import stream as stream
from .inputs.text import tokens as tokens
from .models.adapted import from_nnsight as from_nnsight
from .models.adapted import from_transformer_lens as from_transformer_lens
from .models.load import Kind as Kind
from .models.load import Subject as Subject
from .models.load import control as control
from .models.load import default_sites as default_sites
from .models.load import load as load
from .models.roles import ROLES as ROLES
from .models.roles import blocks as blocks
from .models.roles import mlp_hidden as mlp_hidden
from .models.sites import sites as sites
from .models.translate import envoy as envoy
from .models.translate import hook_name as hook_name
from .models.translate import site_of_envoy as site_of_envoy
from .reading.describe import RoleSite as RoleSite
from .reading.describe import describe as describe
from .reading.harvest import harvest as harvest
from .reading.hooks import Capture as Capture
from .reading.hooks import visiting as visiting
from .reading.outliers import ordinary_places as ordinary_places
from .reading.outliers import outlier_limits as outlier_limits
from .reading.pictures import fitted_images as fitted_images
from .reading.pictures import pictures as pictures
from .sources.choosing import faster_dtype as faster_dtype
from .sources.choosing import parameters_to as parameters_to
from .sources.in_memory import MemorySource as MemorySource
from .sources.in_memory import RowBuffer as RowBuffer
from .sources.live import HookSource as HookSource
from .sources.record import bytes_to_record as bytes_to_record
from .sources.record import record as record
from .sources.stored import StoreSource as StoreSource
from .store.fill import fill as fill
from .store.fill import name_sites as name_sites
from .store.fill import prepare as prepare
from .store.fill import tokenizer_hash as tokenizer_hash
from .store.places import place as place
from .store.store import Manifest as Manifest
from .store.store import Record as Record
from .store.store import Store as Store
from .store.windows import Windows as Windows
from .store.windows import write_images as write_images
from .store.windows import write_windows as write_windows
