"""Every version of the three sums against the reference: values, and the gradient of each output to each input."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor

from superscope.kernels import Plan, atom_sum, bag_dot, bag_sum
from superscope.kernels.bags import reference
from superscope.testing import check_kernel

# Uses per row: equal, ragged with empty rows, one each, none at all, no rows.
COUNTS = {
    "k=3": [3] * 5,
    "ragged": [0, 4, 1, 0, 7, 2, 0],
    "k=1": [1] * 4,
    "k=n": [9] * 3,
    "empty rows": [0, 0],
    "no rows": [],
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


def uses(counts: list[int], n: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randperm(n, generator=generator)[:count] for count in counts]
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return (torch.cat(columns) if columns else torch.empty(0, dtype=torch.long)).to(device), offsets.to(device)


def drawn(*shape: int, dtype: torch.dtype, device: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("d", [1, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_every_gradient_equal_the_reference(
    bags_engine: ModuleType, counts: list[int], d: int, dtype: torch.dtype, device: str
) -> None:
    n = 9
    columns, offsets = uses(counts, n, device)
    values = drawn(len(columns), dtype=dtype, device=device, seed=1)
    rows = drawn(len(counts), d, dtype=dtype, device=device, seed=2)
    atoms = drawn(n, d, dtype=dtype, device=device, seed=3)
    for kernel, slow, case in (
        (bag_sum, reference.bag_sum, (values, columns, offsets, atoms)),
        (bag_dot, reference.bag_dot, (rows, columns, offsets, atoms)),
        (atom_sum, reference.atom_sum, (values, columns, offsets, rows, n)),
    ):
        check_kernel(partial(kernel, engine=bags_engine), slow, case, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(bags_engine: ModuleType, dtype: torch.dtype, device: str) -> None:
    columns, offsets = uses(COUNTS["ragged"], 9, device)
    values = drawn(len(columns), dtype=dtype, device=device, seed=1)
    rows, atoms = (drawn(r, 20, dtype=dtype, device=device, seed=r) for r in (len(offsets) - 1, 9))
    plan = Plan(columns, offsets, 9)
    for found, wanted in (
        (
            bags_engine.bag_sum(values, columns, offsets, atoms),
            reference.bag_sum(values.float(), columns, offsets, atoms.float()),
        ),
        (
            bags_engine.bag_dot(rows, columns, offsets, atoms),
            reference.bag_dot(rows.float(), columns, offsets, atoms.float()),
        ),
        (
            bags_engine.atom_sum(values, rows, plan),
            reference.atom_sum(values.float(), columns, offsets, rows.float(), 9),
        ),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_second_derivatives_agree_with_autograd(bags_engine: ModuleType, device: str) -> None:
    columns, offsets = uses(COUNTS["ragged"], 9, device)
    values = drawn(len(columns), dtype=torch.float64, device=device, seed=1)
    atoms = drawn(9, 4, dtype=torch.float64, device=device, seed=2)

    def energy_gradient(kernel: object, values: Tensor, atoms: Tensor) -> list[Tensor]:
        given = (values.clone().requires_grad_(), atoms.clone().requires_grad_())
        x = kernel(given[0], columns, offsets, given[1])  # type: ignore[operator]
        first = torch.autograd.grad(x.pow(3).sum(), given, create_graph=True)
        return list(torch.autograd.grad(sum(g.pow(2).sum() for g in first), given))  # type: ignore[arg-type]

    for fast, slow in zip(
        energy_gradient(partial(bag_sum, engine=bags_engine), values, atoms),
        energy_gradient(reference.bag_sum, values, atoms),
        strict=True,
    ):
        torch.testing.assert_close(fast, slow)


def test_an_atom_used_twice_in_a_row_and_nan_stay_what_they_are(bags_engine: ModuleType, device: str) -> None:
    columns = torch.tensor([2, 2, 0], device=device)
    offsets = torch.tensor([0, 2, 3], device=device)
    values = torch.tensor([1.0, 2.0, float("nan")], device=device)
    atoms = torch.ones(3, 4, device=device)
    x = bags_engine.bag_sum(values, columns, offsets, atoms)
    assert x[0].tolist() == [3.0] * 4
    assert bool(x[1].isnan().all())
    g = bags_engine.atom_sum(values, torch.ones(2, 4, device=device), Plan(columns, offsets, 3))
    assert g[2].tolist() == [3.0] * 4
    assert g[1].tolist() == [0.0] * 4
    assert bool(g[0].isnan().all())


def test_sums_repeat_to_the_bit(bags_engine: ModuleType, device: str) -> None:
    columns, offsets = uses([7] * 50, 9, device)
    values = drawn(len(columns), dtype=torch.float32, device=device, seed=1)
    rows = drawn(50, 33, dtype=torch.float32, device=device, seed=2)
    found = [bags_engine.atom_sum(values, rows, Plan(columns, offsets, 9)) for _ in range(2)]
    assert torch.equal(*found)


def test_without_an_engine_the_device_decides(device: str) -> None:
    columns, offsets = uses(COUNTS["ragged"], 9, device)
    values = drawn(len(columns), dtype=torch.float32, device=device, seed=1)
    rows, atoms = (drawn(r, 5, dtype=torch.float32, device=device, seed=r) for r in (len(offsets) - 1, 9))
    check_kernel(bag_sum, reference.bag_sum, (values, columns, offsets, atoms))
    check_kernel(bag_dot, reference.bag_dot, (rows, columns, offsets, atoms))
    check_kernel(atom_sum, reference.atom_sum, (values, columns, offsets, rows, 9))
