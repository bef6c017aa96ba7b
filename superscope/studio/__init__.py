"""Who shows the answer in a browser: a run folder as one self-contained page, live, or in a cell of a notebook."""

from .html import html, write_html
from .show import show

__all__ = ["html", "show", "write_html"]
