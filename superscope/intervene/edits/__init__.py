"""What can be done to x: one edit, one file. Each goes where a function of rows goes: `replace`, `edited`, `splice`."""

from ...core.registry import members
from .add import Add as Add
from .edit import Edit as Edit

EDITS: tuple[type[Edit], ...] = members(Edit, globals())
"""Every edit: those imported above. `superscope ablate`, the laws of edits and docs/steering.md read this tuple."""
