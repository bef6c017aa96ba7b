"""Every architecture has its page, and the page's own example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from superscope.testing import EVERY

PAGES = Path(__file__).parents[2] / "docs" / "architectures"


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.__name__)
def test_every_architecture_has_a_page_that_says_when_and_when_not(architecture):
    named = {page.name: page.read_text() for page in PAGES.glob("*.md") if page.name != "index.md"}
    mine = [name for name, text in named.items() if architecture.__name__ in re.findall(r"\w+", text.splitlines()[0])]
    assert len(mine) == 1, f"{architecture.__name__} is the title of {mine or 'no page'}"
    text = named[mine[0]]
    for heading in ("## When to use it", "## Its known failure", "## Source"):
        assert heading in text, f"{mine[0]} lacks {heading!r}"
    assert mine[0] in (PAGES / "index.md").read_text()


def test_links_lead_somewhere():
    for page in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+\.md)\)", page.read_text()):
            assert (page.parent / link).is_file(), f"{page.name} links to {link}"


def test_the_example_of_the_index_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (PAGES / "index.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(block, found)
    assert found["TopTwo"](d=5, n=8).encode(__import__("torch").ones(1, 5)).k == 2
