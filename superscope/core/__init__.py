"""The nouns every other folder speaks."""

from .code import SparseCode
from .coder import IterativeCoder, Solution, SparseCoder
from .descent import Step, descend
from .dictionary import Dictionary
from .errors import FormatError, ShapeError, SiteNotFound
from .files import RunFolder
from .findings import Findings, Measured
from .measurement import Measurement
from .report import Report, Table
from .run import Answer, Run, result_of
from .source import Activations, ActivationSource, Site

__all__ = [
    "ActivationSource",
    "Activations",
    "Answer",
    "Dictionary",
    "Findings",
    "FormatError",
    "IterativeCoder",
    "Measured",
    "Measurement",
    "Report",
    "Run",
    "RunFolder",
    "ShapeError",
    "Site",
    "SiteNotFound",
    "Solution",
    "SparseCode",
    "SparseCoder",
    "Step",
    "Table",
    "descend",
    "result_of",
]
