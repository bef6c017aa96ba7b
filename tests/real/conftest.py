"""The real model that scripts/real-model makes, and a text for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from superscope import capture
from superscope.capture import Corpus

FOLDER = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"


@pytest.fixture(scope="session", autouse=True)
def all_cores() -> Iterator[None]:
    """These tests run one after the other, so each has the whole machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder() -> Path:
    if not FOLDER.is_dir():
        pytest.fail(f"These tests read {FOLDER}, which is not there. Make it: scripts/real-model")
    return FOLDER


@pytest.fixture(scope="session")
def loaded(folder: Path) -> Any:
    return capture.load(str(folder))


@pytest.fixture(scope="session")
def corpus(loaded: Any) -> Corpus:
    """A little of the text that every Python carries."""
    return capture.tokens(loaded.tokenizer, capture.documents(), context=64, limit=1500)
