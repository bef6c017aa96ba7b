"""The fast decode against the slow reference: values and the gradient of both inputs."""

from __future__ import annotations

import pytest
import torch

from superscope.kernels import gather_sum
from superscope.kernels.gather_sum.reference import gather_sum as reference


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize(("n", "d", "k"), [(7, 4, 3), (7, 4, 1), (4, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference(
    batch: tuple[int, ...], n: int, d: int, k: int, dtype: torch.dtype, device: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*batch, k, generator=generator, dtype=dtype).to(device).requires_grad_()
    atoms = torch.randn(n, d, generator=generator, dtype=dtype).to(device).requires_grad_()
    indices = torch.rand(*batch, n, generator=generator).argsort(-1)[..., :k].to(device)
    weight = torch.randn(*batch, d, generator=generator, dtype=dtype).to(device)
    outcomes = []
    for operation in (gather_sum, reference):
        x = operation(values, indices, atoms)
        outcomes.append((x, *torch.autograd.grad((x * weight).sum(), (values, atoms))))
    for fast, slow in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, slow)
