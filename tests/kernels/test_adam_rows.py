"""Adam straight from the uses: against the dense form, and against torch's own optimiser."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from superscope.kernels import Plan, adam_rows
from superscope.kernels.adam_rows import reference

N, D, B = 11, 7, 6


def problem(dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Plan]:
    """Parameter, columns, values, rows and plan; atom 10 is never used, row 2 uses none."""
    generator = torch.Generator().manual_seed(seed)
    counts = [3, 2, 0, 5, 1, 3]
    columns = torch.cat([torch.randperm(N - 1, generator=generator)[:count] for count in counts])
    offsets = torch.tensor([0, *counts]).cumsum(0)
    parameter = torch.nn.functional.normalize(torch.randn(N, D, generator=generator, dtype=torch.float64))
    values = torch.randn(len(columns), generator=generator, dtype=torch.float64)
    rows = torch.randn(B, D, generator=generator, dtype=torch.float64)
    columns, offsets = columns.to(device), offsets.to(device)
    parameter, values, rows = (t.to(device, dtype) for t in (parameter, values, rows))
    return parameter, columns, values, rows, Plan(columns, offsets, N)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_steps_equal_the_reference(
    adam_engine: ModuleType | None, unit: bool, dtype: torch.dtype, device: str
) -> None:
    states = []
    for step_of in (adam_rows, reference.adam_rows):
        parameter = problem(dtype, device)[0].clone()
        mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for step in (1, 2, 3):
            _, _, values, rows, plan = problem(dtype, device, seed=step)
            more = {"engine": adam_engine} if step_of is adam_rows else {}
            step_of(parameter, mean, square, values, rows, plan, step=step, lr=0.01, unit=unit, **more)  # type: ignore[arg-type]
        states.append((parameter, mean, square))
    for fast, slow in zip(*states, strict=True):
        torch.testing.assert_close(fast, slow)
    if unit:
        torch.testing.assert_close(states[0][0].norm(dim=1), torch.ones(N, dtype=dtype, device=device))


def test_it_is_torchs_adam_on_the_dense_gradient(adam_engine: ModuleType | None, device: str) -> None:
    parameter, columns, values, rows, plan = problem(torch.float64, device)
    theirs = torch.nn.Parameter(parameter.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.02, betas=(0.8, 0.99), eps=1e-6)
    mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
    counts = plan.starts.diff()
    used = torch.arange(N, device=device).repeat_interleave(counts)
    assert torch.equal(used, columns[plan.order])
    for step in (1, 2):
        theirs.grad = torch.zeros_like(parameter).index_add(0, used, values[plan.order][:, None] * rows[plan.rows])
        optimizer.step()
        adam_rows(
            parameter,
            mean,
            square,
            values,
            rows,
            plan,
            step=step,
            lr=0.02,
            betas=(0.8, 0.99),
            eps=1e-6,
            engine=adam_engine,
        )
    # Scalars are rounded to the moments' own precision.
    torch.testing.assert_close(parameter, theirs.detach(), rtol=1e-9, atol=1e-12)


def test_a_zero_atom_stays_finite(adam_engine: ModuleType | None, device: str) -> None:
    parameter, _, values, rows, plan = problem(torch.float32, device)
    parameter[10] = 0
    mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
    adam_rows(parameter, mean, square, values, rows, plan, step=1, lr=0.01, unit=True, engine=adam_engine)
    assert bool(parameter.isfinite().all())
    assert not bool(parameter[10].any())


def test_hostile_input_is_named() -> None:
    parameter, _, values, rows, plan = problem(torch.float32, "cpu")
    mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
    with pytest.raises(ValueError, match="step counts from 1; got 0"):
        adam_rows(parameter, mean, square, values, rows, plan, step=0, lr=0.01)
    with pytest.raises(ValueError, match="mean must be contiguous"):
        adam_rows(parameter, torch.zeros(D, N).T, square, values, rows, plan, step=1, lr=0.01)
