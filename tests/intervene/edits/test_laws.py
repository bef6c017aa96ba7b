"""What every edit must hold to, whatever it does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from superscope.core import ShapeError
from superscope.intervene import EDITS
from superscope.intervene.gates import ALWAYS, GATES

from .examples import edits_of, gates_of, rows_of

D, ROWS = 7, 12
MADE, GATED = edits_of(D, ROWS), gates_of(D)


def test_there_is_an_example_of_each():
    assert set(MADE) == set(EDITS)
    assert set(GATED) == set(GATES)


@pytest.mark.parametrize("kind", EDITS)
def test_strength_0_changes_no_bit(kind):
    x = rows_of(D, ROWS).float()
    assert torch.equal(MADE[kind].at(0)(x), x)
    assert not torch.equal(MADE[kind].at(0.7)(x), x)


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_shape_dtype_and_rows_stay(kind, dtype):
    x = rows_of(D, ROWS).to(dtype)
    before = x.clone()
    y = MADE[kind](x)
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    assert torch.equal(x, before)
    # Batches of any shape are rows.
    assert torch.equal(MADE[kind](x.reshape(3, 4, D)), y.reshape(3, 4, D))


@pytest.mark.parametrize("kind", EDITS)
def test_rows_do_not_know_of_each_other(kind):
    x = rows_of(D, ROWS)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    edit = MADE[kind]
    turned = edit.of(edit.labels[order]) if kind.__name__ == "OracleLeace" else edit
    torch.testing.assert_close(turned(x[order]), edit(x)[order])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("of", EDITS)
def test_where_a_gate_is_shut_no_bit_changes(kind, of):
    x = rows_of(D, ROWS)
    is_open = GATED[kind].open(x)
    gated = dataclasses.replace(MADE[of], gate=GATED[kind])(x)
    whole = dataclasses.replace(MADE[of], gate=ALWAYS)(x)
    if is_open is None:
        assert kind.__name__ == "Always"
        assert torch.equal(gated, whole)
        return
    assert 0 < int(is_open.sum()) < ROWS, "the example tells nothing"
    assert torch.equal(gated[~is_open], x[~is_open])
    torch.testing.assert_close(gated[is_open], whole[is_open])


@pytest.mark.parametrize("kind", EDITS)
def test_rows_of_another_length_are_refused(kind):
    with pytest.raises(ShapeError, match=f"edit of d = {D}"):
        MADE[kind](torch.zeros(ROWS, D + 1))


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf")])
def test_a_strength_that_is_no_number_is_refused(kind, strength):
    with pytest.raises(ValueError, match=f"{kind.__name__}: strength is"):
        MADE[kind].at(strength)


@pytest.mark.parametrize("kind", EDITS)
def test_each_says_what_it_reads(kind):
    assert kind.reads
    assert "$" in (kind.__doc__ or "")
