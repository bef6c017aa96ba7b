"""Every architecture has its page, and the page's own example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

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


def blocks(page: Path) -> list[str]:
    """A page's blocks of code, their trainings and scores made short."""
    short = page.read_text()
    for long, brief in ((r"steps=\d+", "steps=3"), (r"batches=\d+", "batches=1"), (r"range\(3\)", "range(1)")):
        short = re.sub(long, brief, short)
    return re.findall(r"```python\n(.*?)```", short, re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_example_of_a_page_runs(page):
    (block,) = blocks(page)
    found: dict = {}
    exec(block, found)
    if page.name == "index.md":
        assert found["TopTwo"](d=5, n=8).encode(torch.ones(1, 5)).k == 2
    else:
        assert type(found["sae"]).__name__ in page.read_text().splitlines()[0]
        assert found["step"].index == 3


@pytest.mark.parametrize("name", ["worlds", "training", "how-to-choose"])
def test_the_blocks_of_a_page_run_one_after_the_other(name, tmp_path, monkeypatch):
    page, found = PAGES.parent / f"{name}.md", {}
    assert blocks(page)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        exec(block, found)
