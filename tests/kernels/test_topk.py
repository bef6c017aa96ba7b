"""Exact selection: against the reference where order and ties are said, as a set where they are torch's own."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor

from superscope.kernels import encode_topk, topk
from superscope.kernels.topk import _composed, reference
from superscope.testing import check_kernel

from .conftest import triton_version

INF, NAN = float("inf"), float("nan")


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def hard() -> dict[str, Tensor]:
    """Rows of 12 that a selection can get wrong."""
    return {
        "plain": drawn(4, 12),
        "ties": drawn(4, 12).mul(2).round() / 2,
        "zeros": torch.zeros(2, 12),
        "both zeros": torch.tensor([[0.0, -0.0] * 6]),
        "all negative": -drawn(3, 12).abs(),
        "infinite": drawn(3, 12).index_fill(1, torch.tensor([2]), INF).index_fill(1, torch.tensor([5]), -INF),
        "tiny": drawn(3, 12) * 1e-41,
        "nan": drawn(3, 12).index_fill(1, torch.tensor([3, 8]), NAN),
        "nan and infinite": drawn(2, 12).index_fill(1, torch.tensor([3]), NAN).index_fill(1, torch.tensor([1]), INF),
        "no rows": torch.zeros(0, 12),
    }


@pytest.mark.parametrize("name", hard())
@pytest.mark.parametrize("k", [1, 4, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_triton_equals_the_reference_ties_and_all(name: str, k: int, dtype: torch.dtype, device: str) -> None:
    pre = hard()[name].to(device, dtype)
    found = triton_version("topk").topk(pre, k)
    for fast, slow in zip(found, reference.topk(pre, k), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("share", [3, 130, 4000])
@pytest.mark.parametrize("n", [1, 15, 2048, 2049, 5000])
def test_triton_selects_across_blocks_and_among_runs(n: int, share: int, device: str) -> None:
    pre = drawn(2, n).mul(50).round().to(device)  # many ties, some across the blocks' border
    k = max(n // share, 1)
    for fast, slow in zip(triton_version("topk").topk(pre, k), reference.topk(pre, k), strict=True):
        assert torch.equal(fast, slow)


@pytest.mark.parametrize("name", hard())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_chooses_among_runs_ties_and_all(name: str, dtype: torch.dtype, device: str) -> None:
    # Ten to a run's end, so that what is hard stands within runs and in the last, short one.
    pre = torch.nn.functional.pad(hard()[name].to(dtype).repeat(1, 60), (0, 10), value=-1.0).to(device)
    for k in (1, 5):
        for fast, slow in zip(triton_version("topk").topk(pre, k), reference.topk(pre, k), strict=True):
            torch.testing.assert_close(fast, slow, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", hard())
@pytest.mark.parametrize("k", [1, 4, 12])
def test_values_are_the_largest_and_stand_where_it_says(
    topk_engine: ModuleType | None, name: str, k: int, device: str
) -> None:
    pre = hard()[name].to(device)
    values, indices = topk(pre, k, engine=topk_engine)
    assert torch.equal(values.nan_to_num(7e9), pre.gather(1, indices).nan_to_num(7e9))
    assert all(len(set(row)) == k for row in indices.tolist())
    wanted = reference.topk(pre, k)[0]
    assert torch.equal(values.nan_to_num(7e9).sort(1).values, wanted.nan_to_num(7e9).sort(1).values)


@pytest.mark.parametrize("k", [1, 40])
@pytest.mark.parametrize("product", [None, torch.bfloat16])
def test_encoding_and_its_gradients_equal_the_reference(
    topk_engine: ModuleType | None, k: int, product: torch.dtype | None, device: str
) -> None:
    # Pre-activations that bfloat16 tells apart: few numbers, all short.
    x = torch.eye(6, 8)[[0, 1, 2, 3, 4, 5, 0]].to(device)
    encoder = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(s)) for s in range(8)], 1).float()
    bias = torch.zeros(40)
    fast = partial(_in_order, partial(encode_topk, product=product, engine=topk_engine))
    made = check_kernel(fast, reference.encode_topk, (x, encoder.to(device), bias.to(device), k))
    assert made == 2 + 3  # values, indices; the values' gradients to x, E and e


def _in_order(kernel: partial[tuple[Tensor, Tensor]], *arguments: object) -> tuple[Tensor, Tensor]:
    """Torch's own order within a row is none; by index it can be compared."""
    values, indices = kernel(*arguments)
    indices, order = indices.sort(1)
    return values.gather(1, order), indices


def test_bfloat16_only_exchanges_latents_that_are_nearly_equal(topk_engine: ModuleType | None, device: str) -> None:
    x, encoder, bias = drawn(6, 16).to(device), drawn(200, 16, seed=1).to(device), drawn(200, seed=2).to(device)
    exact, _ = encode_topk(x, encoder, bias, 8, engine=topk_engine)
    values, indices = encode_topk(x, encoder, bias, 8, product=torch.bfloat16, engine=topk_engine)
    pre = x @ encoder.T + bias
    torch.testing.assert_close(values, pre.gather(1, indices))  # in single precision
    lost = exact.sort(1).values - values.sort(1).values
    size = float((x.norm(dim=1)[:, None] * encoder.norm(dim=1)).max())
    assert float(lost.max()) <= 2 * 2**-7 * size  # two roundings of the largest product
    assert bool((lost >= -1e-5 * size).all())


def test_rows_are_encoded_in_blocks(
    monkeypatch: pytest.MonkeyPatch, topk_engine: ModuleType | None, device: str
) -> None:
    x, encoder, bias = drawn(7, 6).to(device), drawn(50, 6, seed=1).to(device), drawn(50, seed=2).to(device)
    whole = _in_order(partial(encode_topk, engine=topk_engine), x, encoder, bias, 4)
    # By the module's full name: the package's attribute of that name is the function.
    for name in ("_CPU_BYTES", "_GPU_BYTES"):
        monkeypatch.setattr(sys.modules["superscope.kernels.topk"], name, 50 * 4 * 3)
    parts = _in_order(partial(encode_topk, engine=topk_engine), x, encoder, bias, 4)
    torch.testing.assert_close(parts, whole)  # a product's rounding depends on its shape


def test_gradient_goes_where_the_value_was(topk_engine: ModuleType | None, device: str) -> None:
    made = check_kernel(
        lambda pre: _in_order(partial(topk, engine=topk_engine), pre, 3),
        lambda pre: reference.topk(pre, 3),
        (drawn(5, 12).to(device),),
    )
    assert made == 3


@pytest.mark.parametrize("k", [0, 13])
def test_k_out_of_range_is_named(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be in 1..12, the length of a row; got {k}"):
        topk(torch.zeros(2, 12), k)
    with pytest.raises(ValueError, match=f"k must be in 1..n = 12; got {k}"):
        encode_topk(torch.zeros(2, 3), torch.zeros(12, 3), torch.zeros(12), k)


@pytest.mark.parametrize(("n", "k"), [(1024, 32), (1536, 32), (1536, 1), (2048, 4), (4096, 16), (8192, 32), (1540, 32)])
def test_rows_searched_in_two_steps_give_what_torch_gives(n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n + k)
    plain = torch.randn(5, n, generator=generator)
    ties = plain.mul(2).round() / 2
    nan = plain.index_fill(1, torch.tensor([n - 1]), float("nan"))
    # A row of which every other number is left out: not contiguous.
    strided = torch.randn(5, 2 * n, generator=generator)[:, ::2]
    for pre in (plain, ties, nan, strided, plain.bfloat16(), torch.full((2, n), -float("inf"))):
        values, indices = _composed(pre, k)
        assert torch.equal(pre.gather(1, indices).nan_to_num(9.0), values.nan_to_num(9.0))
        assert all(len(set(row)) == k for row in indices.tolist())
        wanted = pre.topk(k).values
        assert torch.equal(values.sort(1, descending=True).values.nan_to_num(9.0), wanted.nan_to_num(9.0))
