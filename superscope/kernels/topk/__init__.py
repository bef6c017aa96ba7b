"""The k largest pre-activations of each row, and those alone: the encoder's product a block of rows at a time."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bags import atom_sum, bag_dot, bag_sum
from ..choice import compiles, on_gpu

# Bytes of one block of pre-activations: it is read several times, so it should stay in the last cache, beside the
# encoder where that fits too: 8 MB for a CPU core's share. A GPU reads the whole encoder for each block, so its blocks
# want rows: on an H200, d = 4 096, n = 131 072, 8 192 rows, blocks of 2^25, 2^27, 2^28 and 2^30 bytes took 51, 31, 29
# and 28 ms (half of it the choice of the largest, as it was then).
_CPU_BYTES, _GPU_BYTES = 2**23, 2**28


def topk(
    pre: Float[Tensor, "b n"], k: int, *, engine: ModuleType | None = None
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of each row, and where they stand. Differentiable in pre: each value's gradient goes where it was.

    Order within a row, and which of equals are taken, is the engine's affair: torch's on a CPU, by index in Triton.
    NaN counts as larger than any number.

    Args:
        pre: rows of n numbers.
        k: in 1..n.
        engine: the module whose version runs; None chooses by device.

    Raises:
        ValueError: if k is not in 1..n.
    """
    if not 1 <= k <= pre.shape[1]:
        raise ValueError(f"topk: k must be in 1..{pre.shape[1]}, the length of a row; got {k}.")
    return _TopK.apply(pre, k, engine)  # type: ignore[no-any-return]


def encode_topk(
    x: Float[Tensor, "b d"],
    encoder: Float[Tensor, "n d"],
    encoder_bias: Float[Tensor, "n"],
    k: int,
    *,
    product: torch.dtype | None = None,
    engine: ModuleType | None = None,
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of E x + e for each row, (b, n) never held; gradients to x, E and e touch k atoms a row.

    Args:
        x: the batch, the SAE's bias already taken off.
        encoder: E, a row per latent.
        encoder_bias: e.
        k: in 1..n.
        product: dtype in which latents are compared, bfloat16 where hardware multiplies it faster. Values of those
            chosen are then made anew in the dtype of E, so rounding can only exchange latents that are nearly equal.
        engine: as for `topk`; for the product of the chosen rows too.

    Raises:
        ValueError: if k is not in 1..n.
    """
    if not 1 <= k <= len(encoder):
        raise ValueError(f"encode_topk: k must be in 1..n = {len(encoder)}; got {k}.")
    return _EncodeTopK.apply(x, encoder, encoder_bias, k, product, engine)  # type: ignore[no-any-return]


def _largest(pre: Tensor, k: int, engine: ModuleType | None) -> tuple[Tensor, Tensor]:
    chosen: Any = engine
    if chosen is None and on_gpu(pre):
        from . import triton as chosen
    if chosen is None and compiles(pre) and pre.is_contiguous():
        from . import compiled

        chosen = compiled if compiled.suits(pre.shape[1], k) else None
    found = None if chosen is None else chosen.topk(pre, k)
    return _composed(pre, k) if found is None else found


# Entries from which on a row is searched in two steps, and of one run: near the root of n / k, where both steps look
# through as many.
_LONG, _RUN, _LONGER_RUN, _LONGER = 1024, 8, 16, 128


def _composed(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest are in the k runs with the largest maxima: an entry elsewhere is no larger than those k are.

    1 024 rows on one thread, k = 32, in ms: n = 1 536 4.5 (torch's own 11.1), 4 608 9.8 (11.7), 8 192 12.8 (16.3).
    """
    b, n = pre.shape
    run = _RUN if n < _LONGER * k else _LONGER_RUN
    if pre.is_cuda or n < _LONG or n % run or n < 2 * run * k or not b:
        values, indices = pre.topk(k, dim=1, sorted=False)
        return values, indices
    runs = n // run
    # Entry i is in run i mod runs, so that the maxima of all runs are taken side by side.
    best = pre.reshape(b, run, runs).amax(1).topk(k, dim=1, sorted=False).indices
    where = (best[:, None] + torch.arange(0, n, runs, device=pre.device)[:, None]).view(b, run * k)
    values, at = pre.gather(1, where).topk(k, dim=1, sorted=False)
    return values, where.gather(1, at)


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, k: int, engine: ModuleType | None) -> tuple[Tensor, Tensor]:
        values, indices = _largest(pre.detach(), k, engine)
        ctx.save_for_backward(indices)
        ctx.n = pre.shape[1]
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        g = gradients[0]
        return g.new_zeros(len(g), ctx.n).scatter(1, indices, g), None, None


class _EncodeTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        k: int,
        product: torch.dtype | None,
        engine: ModuleType | None,
    ) -> tuple[Tensor, Tensor]:
        x, encoder, encoder_bias = x.detach(), encoder.detach(), encoder_bias.detach()
        low = encoder.dtype if product is None else product
        n = len(encoder)
        left, right, shift = x.to(low), encoder.to(low).T, encoder_bias.to(low)
        size = max((_GPU_BYTES if x.is_cuda else _CPU_BYTES) // (n * left.element_size()), 1)
        block = left.new_empty(min(size, len(x)), n)
        values = left.new_empty(len(x), k)
        indices = torch.empty(len(x), k, dtype=torch.long, device=x.device)
        for start in range(0, len(x), size):
            part = left[start : start + size]
            pre = torch.addmm(shift, part, right, out=block[: len(part)])
            values[start : start + size], indices[start : start + size] = _largest(pre, k, engine)
        offsets = torch.arange(0, k * len(x) + 1, k, device=x.device)
        if low != encoder.dtype:
            values = bag_dot(x, indices.reshape(-1), offsets, encoder, engine=_bags(engine)).reshape(-1, k)
            values = values + encoder_bias[indices]
        ctx.save_for_backward(x, encoder, indices, offsets)
        ctx.engine = _bags(engine)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder, indices, offsets = ctx.saved_tensors
        g, columns, engine = gradients[0].reshape(-1), indices.reshape(-1), ctx.engine
        need = ctx.needs_input_grad
        dx = bag_sum(g, columns, offsets, encoder, engine=engine) if need[0] else None
        d_encoder = atom_sum(g, columns, offsets, x, len(encoder), engine=engine) if need[1] else None
        d_bias = g.new_zeros(len(encoder)).index_add(0, columns, g) if need[2] else None
        return dx, d_encoder, d_bias, None, None, None


def _bags(engine: ModuleType | None) -> ModuleType | None:
    """The sums that go with a way of choosing."""
    if engine is None:
        return None
    from ..bags import triton as bags

    return bags


__all__ = ["encode_topk", "topk"]
