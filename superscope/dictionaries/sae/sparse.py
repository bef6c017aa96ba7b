"""The two products of a sparse autoencoder that touch k of n atoms, with backward passes that touch no more.

Dense, a training step costs six products of b x d x n; sparse, it costs one (the encoder's) and four of b x k x d.
Both weight gradients are a transposed gather-sum: one bag per atom, over the rows that used it. Tests hold every
gradient to the dense step's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core import SparseCode
from ...kernels import gather_sum
from . import exchange, precision

if TYPE_CHECKING:
    from .base import SAE


class _Plan:
    """The uses of each atom in a batch: built once, used by both weight gradients."""

    def __init__(self, columns: Int[Tensor, "m"], rows: Int[Tensor, "m"], n: int) -> None:
        # int32 halves the memory the sort moves; stable, so that sums are made in one order on every run.
        self.order = columns.int().argsort(stable=True)
        self.rows = rows[self.order]
        self.offsets = torch.zeros(n, dtype=torch.long, device=columns.device)
        torch.cumsum(torch.bincount(columns, minlength=n)[:-1], 0, out=self.offsets[1:])
        self.columns, self.n = columns, n

    def scatter(self, weights: Float[Tensor, "*m"], rows: Float[Tensor, "b d"]) -> Float[Tensor, "n d"]:
        """out_i = sum of weights_m rows_{row(m)} over the uses m of atom i."""
        return F.embedding_bag(
            self.rows, rows, self.offsets, per_sample_weights=weights.reshape(-1)[self.order], mode="sum"
        )

    def count(self, weights: Float[Tensor, "*m"]) -> Float[Tensor, "n"]:
        """out_i = sum of weights_m over the uses m of atom i."""
        return weights.new_zeros(self.n).index_add_(0, self.columns, weights.reshape(-1))


class Chosen:
    """Which latents each row of a batch chose: the shared bookkeeping of `pre_activations` and `decode`.

    Either k of them in every row, or, with `ragged`, as many as there are; values are then flat, in order of row.
    """

    def __init__(self, indices: Int[Tensor, "b k"], n: int) -> None:
        self.indices: Tensor | None = indices
        self.columns, self.n, self.b = indices.reshape(-1), n, len(indices)
        self._rows: Tensor | None = None
        self._plan: _Plan | None = None

    @classmethod
    def ragged(cls, rows: Int[Tensor, "m"], columns: Int[Tensor, "m"], b: int, n: int) -> Chosen:
        """The uses of latents `columns` in rows `rows`, which do not fall; rows may be empty."""
        chosen = cls(columns[:, None], n)
        chosen.indices, chosen._rows, chosen.b = None, rows, b
        return chosen

    @property
    def rows(self) -> Int[Tensor, "m"]:
        """The row of each use."""
        if self._rows is None:
            assert self.indices is not None
            k = max(self.indices.shape[1], 1)
            self._rows = torch.arange(len(self.columns), device=self.columns.device) // k
        return self._rows

    @property
    def offsets(self) -> Int[Tensor, "b"]:
        """The first use of each row."""
        counts = torch.bincount(self.rows, minlength=self.b)
        return counts.cumsum(0) - counts

    @property
    def plan(self) -> _Plan:
        """Made at the first backward pass that asks for it."""
        if self._plan is None:
            self._plan = _Plan(self.columns, self.rows, self.n)
        return self._plan

    def gather(self, values: Float[Tensor, "*m"], atoms: Float[Tensor, "n d"]) -> Float[Tensor, "b d"]:
        """x_b = sum of values_m atoms_{column(m)} over the uses m of row b; differentiable in values."""
        if self.indices is not None:
            return gather_sum(values, self.indices, atoms)
        return F.embedding_bag(self.columns, atoms, self.offsets, per_sample_weights=values, mode="sum")

    def code(self, values: Float[Tensor, "*m"]) -> SparseCode:
        """The values in their rows."""
        if self.indices is not None:
            return SparseCode(values, self.indices, self.n)
        return packed(self.rows, self.columns, values, self.b, self.n)


def packed(rows: Int[Tensor, "m"], columns: Int[Tensor, "m"], values: Float[Tensor, "m"], b: int, n: int) -> SparseCode:
    """Entries in order of row, as a code with as many slots as the fullest of the b rows has (at least 1)."""
    counts = torch.bincount(rows, minlength=b)
    k = max(int(counts.max()), 1) if b else 1
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    indices = columns.new_zeros(b, k)
    indices[rows, slots] = columns
    return SparseCode(values.new_zeros(b, k).index_put((rows, slots), values), indices, n)


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Tensor, encoder_bias: Tensor, bias: Tensor, values: Tensor, chosen: Chosen
    ) -> Tensor:
        ctx.save_for_backward(x, encoder, bias)
        ctx.chosen = chosen
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder, bias = ctx.saved_tensors
        dv = gradients[0].contiguous()
        need = ctx.needs_input_grad
        dx = ctx.chosen.gather(dv, encoder) if need[0] else None
        d_encoder = ctx.chosen.plan.scatter(dv, x - bias) if need[1] else None
        d_encoder_bias = ctx.chosen.plan.count(dv) if need[2] or need[3] else None
        # The rows' gradients for x, summed: a vector times a matrix instead of b x k x d.
        d_bias = -(d_encoder_bias @ encoder) if need[3] and d_encoder_bias is not None else None
        return dx, d_encoder, d_encoder_bias if need[2] else None, d_bias, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, chosen: Chosen) -> Tensor:
        ctx.save_for_backward(values)
        ctx.chosen = chosen
        # <g_b, atom_i> at the chosen (b, i) is torch's own backward of the bag, which makes no (b, k, d) array: so the
        # sum is made under a graph of its own, kept for that. That graph does not reach the atoms' dense gradient.
        with torch.enable_grad():
            ctx.leaf = values.detach().requires_grad_()
            ctx.x = chosen.gather(ctx.leaf, atoms.detach())
        return ctx.x.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        g = gradients[0].contiguous()
        d_values = d_atoms = None
        if ctx.needs_input_grad[0]:
            (d_values,) = torch.autograd.grad(ctx.x, ctx.leaf, g, retain_graph=True)
        if ctx.needs_input_grad[1]:
            d_atoms = ctx.chosen.plan.scatter(values, g)
        return d_values, d_atoms, None


def pre_activations(
    x: Float[Tensor, "b d"],
    encoder: Float[Tensor, "n d"],
    encoder_bias: Float[Tensor, "n"],
    bias: Float[Tensor, "d"],
    values: Float[Tensor, "*m"],
    chosen: Chosen,
) -> Float[Tensor, "*m"]:
    """v_bs = <encoder_i, x_b - bias> + encoder_bias_i at i = indices_bs: `values`, with sparse gradients attached.

    Args:
        values: those very numbers, already computed when the latents were chosen; they are not computed again.
        chosen: the latents of each row, the same object for `decode`.
    """
    if precision.lowered():
        values = _anew(x, encoder, encoder_bias, bias, values, chosen)
    bias = exchange.current().spread(bias)
    return _PreActivations.apply(x, encoder, encoder_bias, bias, values, chosen)  # type: ignore[no-any-return]


@torch.no_grad()
def _anew(
    x: Tensor, encoder: Tensor, encoder_bias: Tensor, bias: Tensor, values: Tensor, chosen: Chosen
) -> Float[Tensor, "*m"]:
    """The chosen pre-activations in full precision; those given as 0, which were not positive or not kept, stay 0."""
    with torch.enable_grad():
        # <E_i, x_b - b> at the chosen (b, i) is a bag's gradient for its weights: no (b, k, d) array is made.
        leaf = torch.zeros_like(values).requires_grad_()
        (found,) = torch.autograd.grad(chosen.gather(leaf, encoder.detach()), leaf, x - bias)
    return torch.where(values != 0, found + encoder_bias[chosen.columns].view_as(found), values)


def decode(values: Float[Tensor, "*m"], atoms: Float[Tensor, "n d"], chosen: Chosen) -> Float[Tensor, "b d"]:
    """x_b = sum_s values_bs atoms[indices_bs] over all shards, with sparse gradients to values and atoms."""
    return exchange.current().total(_Decode.apply(values, atoms, chosen))


def reconstruction(sae: SAE, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
    """Code and x_hat of an SAE whose values are its rectified chosen pre-activations, with sparse gradients."""
    with torch.no_grad():
        code = sae.encode(x)
    chosen = Chosen(code.indices, sae.n)
    # code.values is already rectified; where it is 0 the row's pre-activation was not positive and passes nothing.
    pre = pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, code.values, chosen)
    values = pre.relu()
    return SparseCode(values, code.indices, sae.n), decode(values, sae.atoms, chosen) + sae.bias
