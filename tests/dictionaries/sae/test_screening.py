"""Architectures whose latents are excluded by bounds: what they choose, and what training makes of it."""

from __future__ import annotations

import sys

import pytest
import torch

from superscope.dictionaries import AbsTopK, BatchTopK, JumpReLU, Matryoshka, TopK, train
from superscope.dictionaries.sae import SAE
from superscope.dictionaries.step import precision
from superscope.dictionaries.train import Training
from superscope.kernels import Screen, choice, compiled_loops, screen
from superscope.worlds import exactly_k

pytest.importorskip(
    "numba", reason="would have compared codes by whole numbers with those by float32: install superscope[fast]"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Has small problems screened too, on any CPU; fills with whether each time the bound was sure."""
    for module in (screen, sys.modules[train.__module__]):
        monkeypatch.setattr(module, "can_screen", lambda device: True)
    monkeypatch.setattr(choice, "_WORTH_COMPILING", 1)
    for name in ("_ROWS", "_D", "_N"):
        monkeypatch.setattr(screen, name, 1)
    made: list[bool] = []
    of = Screen.of.__func__  # type: ignore[attr-defined]

    def noted(cls, encoder, shift, *, sure=True, room=None):
        made.append(sure)
        return of(cls, encoder, shift, sure=sure, room=room)

    monkeypatch.setattr(Screen, "of", classmethod(noted))
    return made


@pytest.mark.parametrize("architecture", [TopK, AbsTopK, BatchTopK, Matryoshka, JumpReLU])
def test_training_is_that_of_the_float32_product(architecture: type[SAE], small: list[bool]) -> None:
    world = exactly_k(256, 32, 4)
    ends = {}
    for name in ("full", "int8"):
        for loops in (True, False):
            del small[:]
            sae = architecture(32, 256, k=4)  # type: ignore[call-arg]
            # Without numba's loops nothing is screened.
            with compiled_loops(loops):
                steps = list(train(sae, world, steps=3, batch=64, lr=1e-3, precision=name, dead_after=10**6))
            ends[name, loops] = [step.numbers["fraction_variance_unexplained"] for step in steps]
            # The start is in full precision always.
            assert (True in small) == (loops and architecture in (TopK, AbsTopK))
            # JumpReLU's thresholds leave too many.
            assert (False in small) == (loops and name == "int8" and architecture is not JumpReLU)
    for found in ends.values():
        assert found == pytest.approx(ends["full", False], rel=1e-4)


@pytest.mark.parametrize("architecture", [TopK, AbsTopK])
def test_codes_are_those_of_the_float32_product(architecture: type[SAE], small: list[bool]) -> None:
    sae = architecture(32, 256, k=4)  # type: ignore[call-arg]
    with torch.no_grad():
        sae.encoder_bias.normal_(generator=torch.Generator().manual_seed(1))
        sae.bias.normal_(generator=torch.Generator().manual_seed(2))
    x = torch.randn(3, 50, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        code = sae.encode(x)
        assert small == [True]
        wanted = sae.sparsify(sae.pre_activations(x.view(-1, 32)))
        assert torch.allclose(code.dense().view(-1, 256), wanted.dense(), atol=1e-5)
        with precision.using(torch.bfloat16):
            sae.encode(x)
    # Neither where codes are to have gradients, nor where the product is one of rounded numbers.
    assert sae.encode(x).values.requires_grad
    assert small == [True]


@pytest.mark.parametrize(("architecture", "name"), [(TopK, "full"), (TopK, "int8"), (Matryoshka, "int8")])
def test_a_training_that_stopped_goes_on_to_the_bit(architecture: type[SAE], name: str, small: list[bool]) -> None:
    world = exactly_k(256, 32, 4)

    def training(sae: SAE) -> Training:
        return train(sae, world, steps=6, batch=64, precision=name)  # type: ignore[arg-type]

    through, stopped, resumed = (architecture(32, 256, k=4) for _ in range(3))  # type: ignore[call-arg]
    for _ in training(through):
        pass
    first = training(stopped)
    for _ in range(3):
        next(first)
    for _ in training(resumed).restore(first.state()):
        pass
    assert small
    for key, tensor in through.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], tensor), key


def test_whole_numbers_are_refused_where_they_cannot_be_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    world = exactly_k(64, 16, 3)
    with pytest.raises(ValueError, match="'int8' is for float32 weights, and these are torch.float64|VNNI"):
        train(TopK(16, 64, 3).double(), world, steps=1, precision="int8")
    monkeypatch.setattr(sys.modules[train.__module__], "can_screen", lambda device: False)
    with pytest.raises(ValueError, match="'int8' is for CPUs with VNNI instructions and wants the extra"):
        train(TopK(16, 64, 3), world, steps=1, precision="int8")
