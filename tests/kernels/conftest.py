"""Every version of a kernel that can run here: torch's, and Triton's (under its interpreter where there is no GPU)."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def triton_version(kernel: str) -> ModuleType:
    """The module of Triton's version; the test is skipped where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the extra superscope[triton]")
    return importlib.import_module(f"superscope.kernels.{kernel}.triton")


@pytest.fixture(params=["torch", "triton"])
def bags_engine(request: pytest.FixtureRequest) -> ModuleType:
    return (
        importlib.import_module("superscope.kernels.bags.composed")
        if request.param == "torch"
        else triton_version("bags")
    )


@pytest.fixture(params=["torch", "triton"])
def topk_engine(request: pytest.FixtureRequest) -> ModuleType | None:
    return None if request.param == "torch" else triton_version("topk")


@pytest.fixture(params=["torch", "triton"])
def adam_engine(request: pytest.FixtureRequest) -> ModuleType | None:
    return None if request.param == "torch" else triton_version("adam_rows")


@pytest.fixture
def device() -> str:
    return DEVICE
