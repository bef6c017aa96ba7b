"""Who shows the answer in a browser: a run folder as one self-contained page."""

from .html import html, write_html

__all__ = ["html", "write_html"]
