"""Each model's matrices are multiplied and summed alike wherever they stand among others'."""

from __future__ import annotations

import pytest
import torch

from superscope.toys.product import aligned, product, total


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(5, 64, 3), (3, 64, 5), (1, 64, 7), (61, 16, 5), (21, 67, 5), (8, 8, 8), (5, 3, 5), (33, 61, 1)]
)
def test_a_product_has_the_same_bits_wherever_it_stands(m: int, k: int, n: int, dtype: torch.dtype) -> None:
    a, b, c = drawn(m, k, dtype=dtype), drawn(k, n, dtype=dtype), drawn(n, dtype=dtype)
    for one, other in ((a, b), (a.T.contiguous().T, b), (a, b.T.contiguous().T)):
        left, right = one.expand(23, m, k).clone(), other.expand(23, k, n).clone()
        left, right = (x if y.is_contiguous() else x.mT.contiguous().mT for x, y in ((left, one), (right, other)))
        whole, more = product(left, right), product(left, right, c.expand(23, n))
        torch.testing.assert_close(whole[0], a @ b)
        torch.testing.assert_close(more[0], a @ b + c)
        for first, last in ((0, 23), (1, 3), (5, 18), (7, 9)):
            part = product(left[first:last], right[first:last])
            assert torch.equal(part, whole[:1].expand_as(part)), (first, last)
            assert torch.equal(product(left[first:last], right[first:last], c.expand(last - first, n))[0], more[0])


def test_slopes_are_those_of_a_plain_product() -> None:
    a, b, c = (
        drawn(3, 7, 64, dtype=torch.float64),
        drawn(3, 64, 5, dtype=torch.float64),
        drawn(3, 5, dtype=torch.float64),
    )
    leaves = [x.requires_grad_() for x in (a, b, c)]
    weights = drawn(3, 7, 5, dtype=torch.float64)
    found = torch.autograd.grad((product(*leaves) * weights).sum(), leaves)
    wanted = torch.autograd.grad(((a @ b + c[:, None]) * weights).sum(), leaves)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 27])
def test_a_total_has_the_same_bits_wherever_it_stands(length: int) -> None:
    x = drawn(4, length, 70, dtype=torch.float64)
    whole = total(x, 1)
    torch.testing.assert_close(whole, x.sum(1))
    for count in (1, 2, 11, 30):
        assert torch.equal(total(x[..., 3 : 3 + count].contiguous(), 1), whole[:, 3 : 3 + count])


def test_what_is_aligned_begins_at_a_line_of_the_cache() -> None:
    x = drawn(4, 5, 3, dtype=torch.float32)
    for given in (x, x[1:], x.mT, x[:, :2], x[:1].expand(4, -1, -1)):
        found = aligned(given)
        assert torch.equal(found, given)
        assert [matrix.data_ptr() % 64 for matrix in found] == [0] * len(given)
    assert aligned(found) is found
