"""What `import superscope as ss` reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

import superscope

# The command line is no library, and kernels know no types of ours.
INNER = {"cli", "kernels"}


def test_every_folder_is_reached_from_the_root():
    folders = {path.parent.name for path in Path(superscope.__file__).parent.glob("*/__init__.py")} - INNER
    assert folders <= set(superscope.__all__) == set(dir(superscope))
    assert superscope.worlds.__name__ == "superscope.worlds"


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match="worlds"):
        superscope.__getattr__("world")
