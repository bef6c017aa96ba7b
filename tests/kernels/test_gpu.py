"""Triton's kernels compiled for the GPU, at sizes that its interpreter would take hours for, against the references."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from superscope.kernels import Plan, adam_rows, atom_sum, bag_dot, bag_sum, encode_topk, topk
from superscope.kernels.adam_rows import reference as adam_reference
from superscope.kernels.bags import reference as bags_reference
from superscope.kernels.topk import reference as topk_reference
from superscope.testing import check_kernel

from .conftest import triton_version

pytestmark = pytest.mark.gpu

# Rows, atoms, dimension, uses a row: odd ones, one of everything, a wide dictionary, none.
SIZES = {
    "odd": (1021, 5003, 770, 31),
    "one": (1, 1, 1, 1),
    "wide": (512, 131072, 768, 64),
    "long": (64, 1031, 4096, 8),
    "no rows": (0, 17, 8, 2),
}


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a GPU that torch can use; leave out -m gpu where there is none")
    return "cuda"


def drawn(*shape: int, seed: int = 0, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device).to(dtype)


def uses(b: int, n: int, k: int, device: str, whole: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    """Columns and offsets: every third row uses nothing."""
    generator = torch.Generator(device).manual_seed(7)
    columns = torch.randint(n, (b, k), generator=generator, device=device)
    on = torch.arange(b, device=device) % 3 != 1
    counts = torch.where(on, k, 0)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return columns[on].reshape(-1).to(whole), offsets.to(whole)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("whole", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_sums_and_their_gradients_equal_the_reference(gpu: str, size: str, whole: torch.dtype) -> None:
    b, n, d, k = SIZES[size]
    columns, offsets = uses(b, n, k, gpu, whole)
    values = drawn(len(columns), seed=1, device=gpu)
    rows, atoms = drawn(b, d, seed=2, device=gpu), drawn(n, d, seed=3, device=gpu)
    engine = triton_version("bags")
    for kernel, slow, case in (
        (bag_sum, bags_reference.bag_sum, (values, columns, offsets, atoms)),
        (bag_dot, bags_reference.bag_dot, (rows, columns, offsets, atoms)),
        (atom_sum, bags_reference.atom_sum, (values, columns, offsets, rows, n)),
    ):
        check_kernel(partial(kernel, engine=engine), slow, case)


@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_is_summed_in_float32(gpu: str, size: str) -> None:
    b, n, d, k = SIZES[size]
    columns, offsets = uses(b, n, k, gpu)
    half = partial(drawn, device=gpu, dtype=torch.bfloat16)
    values, rows, atoms = half(len(columns), seed=1), half(b, d, seed=2), half(n, d, seed=3)
    engine, plan = triton_version("bags"), Plan(columns, offsets, n)
    v, r, a = (tensor.double() for tensor in (values, rows, atoms))
    for found, wanted in (
        (engine.bag_sum(values, columns, offsets, atoms), bags_reference.bag_sum(v, columns, offsets, a)),
        (engine.bag_dot(rows, columns, offsets, atoms), bags_reference.bag_dot(r, columns, offsets, a)),
        (engine.atom_sum(values, rows, plan), bags_reference.atom_sum(v, columns, offsets, r, n)),
    ):
        assert found.dtype == torch.bfloat16
        # Half a unit in the last of eight bits; what float32 lost before counts only near zero.
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("b", "n", "k"), [(300, 131072, 64), (257, 131071, 1), (33, 4099, 4099), (5, 1000, 500)])
@pytest.mark.parametrize("ties", [False, True])
def test_selection_equals_the_reference_at_every_length(
    gpu: str, dtype: torch.dtype, b: int, n: int, k: int, ties: bool
) -> None:
    pre = drawn(b, n, device=gpu)
    pre = (pre.mul(8).round() if ties else pre).to(dtype)
    for fast, slow in zip(triton_version("topk").topk(pre, k), topk_reference.topk(pre, k), strict=True):
        assert torch.equal(fast, slow)


@pytest.mark.parametrize("product", [None, torch.bfloat16])
@pytest.mark.parametrize(("b", "d", "n", "k"), [(700, 768, 24576, 32), (97, 130, 131072, 64), (0, 8, 64, 3)])
def test_encoding_equals_the_reference(gpu: str, product: torch.dtype | None, b: int, d: int, n: int, k: int) -> None:
    # Small whole numbers, exact in bfloat16 and in any order of summing; each row's own shift makes its latents differ.
    x = drawn(b, d, device=gpu).sign()
    encoder = drawn(n, d, seed=1, device=gpu).sign()
    bias = torch.arange(n, device=gpu).float() / n if product is None else torch.zeros(n, device=gpu)
    values, indices = encode_topk(x, encoder, bias, k, product=product)
    pre = x @ encoder.T + bias
    assert torch.equal(values, pre.gather(1, indices))
    assert torch.equal(values.sort(1).values, pre.topk(k, dim=1).values.sort(1).values)


def test_gradients_of_an_encoding_equal_the_dense_ones(gpu: str) -> None:
    given = [drawn(300, 130, device=gpu), drawn(5003, 130, seed=1, device=gpu), drawn(5003, seed=2, device=gpu)]
    outcomes = []
    for encode in (encode_topk, topk_reference.encode_topk):
        x, encoder, bias = (tensor.clone().requires_grad_() for tensor in given)
        values, indices = encode(x, encoder, bias, 31)
        weight = (indices % 17 - 8).float()
        outcomes.append(torch.autograd.grad((values * weight).sum(), (x, encoder, bias)))
    for fast, slow in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-3)


def test_a_selections_gradient_goes_where_the_value_was(gpu: str) -> None:
    # Distinct numbers, so that order of index and order of size choose the same.
    pre = torch.stack([torch.randperm(5003, device=gpu) for _ in range(40)]).float().requires_grad_()
    values, indices = topk(pre, 33)
    weight = drawn(40, 33, device=gpu)
    (found,) = torch.autograd.grad((values * weight).sum(), pre)
    assert torch.equal(found, torch.zeros_like(pre).scatter(1, indices, weight))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_adam_equals_the_reference(gpu: str, size: str, unit: bool) -> None:
    b, n, d, k = SIZES[size]
    columns, offsets = uses(b, n, k, gpu)
    plan = Plan(columns, offsets, n)
    start = torch.nn.functional.normalize(drawn(n, d, seed=3, device=gpu))
    states = []
    for engine in (triton_version("adam_rows"), None):
        state = [start.clone(), torch.zeros_like(start), torch.zeros_like(start)]
        for step in (1, 2):
            values, rows = drawn(len(columns), seed=step, device=gpu), drawn(b, d, seed=10 + step, device=gpu)
            if engine is None:
                adam_reference.adam_rows(*state, values, rows, plan, step=step, lr=0.01, unit=unit)
            else:
                adam_rows(*state, values, rows, plan, step=step, lr=0.01, unit=unit, engine=engine)
        states.append(state)
    # The first step divides a gradient by itself, so that where it is nearly 0 rounding decides the sign: the moments
    # are held to the reference everywhere, the weights where the gradient is not rounding.
    clear = states[1][2].sqrt() > 1e-4
    for fast, slow in zip(states[0][1:], states[1][1:], strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[0][0][clear], states[1][0][clear], rtol=1e-3, atol=2e-4)
    if unit:
        torch.testing.assert_close(states[0][0].norm(dim=1), torch.ones(n, device=gpu))


def test_sums_repeat_to_the_bit(gpu: str) -> None:
    b, n, d, k = SIZES["wide"]
    columns, offsets = uses(b, n, k, gpu)
    values, rows = drawn(len(columns), seed=1, device=gpu), drawn(b, d, seed=2, device=gpu)
    found = [atom_sum(values, columns, offsets, rows, n) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
