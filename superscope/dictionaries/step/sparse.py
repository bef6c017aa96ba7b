"""The two products of a sparse autoencoder that touch k of n atoms, with backward passes that touch no more.

Dense, a training step costs six products of b x d x n; sparse, it costs one (the encoder's) and four of b x k x d.
Both weight gradients are a transposed gather-sum: one bag per atom, over the rows that used it. Tests hold every
gradient to the dense step's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core import SparseCode, SparseCoder
from ...kernels import Plan, Screen, above, screens
from ...kernels.bags import Uses
from . import exchange, precision
from . import memory as scratch
from .precision import Screening

if TYPE_CHECKING:

    class Autoencoder(Protocol):
        """What is read here of a sparse autoencoder: E, e, b and W, how it chooses, rows in one block of its work."""

        @property
        def n(self) -> int: ...
        @property
        def block(self) -> int: ...
        @property
        def encoder(self) -> Float[Tensor, "n d"]: ...
        @property
        def encoder_bias(self) -> Float[Tensor, "n"]: ...
        @property
        def bias(self) -> Float[Tensor, "d"]: ...
        @property
        def atoms(self) -> Float[Tensor, "n d"]: ...
        def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode: ...

else:
    # Parameters are no attributes of a module's class, so a protocol cannot be checked while the program runs.
    Autoencoder = SparseCoder


class Chosen:
    """Which latents each row of a batch chose: the shared bookkeeping of `pre_activations` and `decode`.

    Either k of them in every row, or, with `ragged`, as many as there are; values are then flat, in order of row.
    """

    def __init__(self, indices: Int[Tensor, "b k"], n: int) -> None:
        self.indices: Tensor | None = indices
        self.columns, self.n, self.b = indices.reshape(-1), n, len(indices)
        self._rows: Tensor | None = None
        self._uses: Uses | None = None

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
    def offsets(self) -> Int[Tensor, "b1"]:
        """The first use of each row, and the number of all."""
        if self.indices is not None:
            return torch.arange(self.b + 1, device=self.columns.device) * self.indices.shape[1]
        offsets = self.columns.new_zeros(self.b + 1)
        torch.cumsum(torch.bincount(self.rows, minlength=self.b), 0, out=offsets[1:])
        return offsets

    @property
    def uses(self) -> Uses:
        """The uses, and who sums over them."""
        if self._uses is None:
            self._uses = Uses(self.columns, self.offsets, self.n, rows=self.rows)
        return self._uses

    @property
    def plan(self) -> Plan:
        """Made at the first backward pass that asks for it."""
        return self.uses.plan

    def count(self, values: Float[Tensor, "*m"]) -> Float[Tensor, "n"]:
        """out_i = sum of values_m over the uses m of atom i."""
        values = values.reshape(-1)
        if values.is_cuda:
            # There torch adds in whatever order its threads come by, and no run would repeat another to the bit.
            return self.uses.atom_sum(values.contiguous(), values.new_ones(self.b, 1)).squeeze(1)
        return values.new_zeros(self.n).index_add_(0, self.columns, values)

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


@dataclass(frozen=True, eq=False)
class Part:
    r"""A gradient $g_i = \sum_m v_m x_{row(m)}$ over the uses m of atom i, not yet summed.

    Args:
        values: v.
        rows: x.
        chosen: the uses of `chosen.n` atoms beside each other.
        first: the first of these among the parameter's.
    """

    values: Float[Tensor, "m"]
    rows: Float[Tensor, "b d"]
    chosen: Chosen
    first: int = 0


class Deferred:
    """Gradients of parameters with a row per latent, left as the uses they are sums of for an optimiser to sum.

    An optimiser that goes through the latents anyway sums a latent's uses when it comes to it, and nothing of n x d is
    written or read for the gradient. What reaches a parameter otherwise is in its `grad` as ever.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parts: dict[int, list[Part]] = {id(p): [] for p in parameters}

    def of(self, parameter: Tensor) -> list[Part] | None:
        """The parts of a parameter's gradient; None if it is none of those deferred."""
        return self._parts.get(id(parameter))

    def clear(self) -> None:
        for parts in self._parts.values():
            parts.clear()


_DEFERRED: ContextVar[Deferred | None] = ContextVar("deferred", default=None)


@contextmanager
def deferring(deferred: Deferred | None) -> Iterator[None]:
    """What is built inside leaves its gradients there when it is differentiated; None changes nothing."""
    token = _DEFERRED.set(deferred)
    try:
        yield
    finally:
        _DEFERRED.reset(token)


def deferred_parts(parameter: Tensor) -> list[Part] | None:
    """Where the gradient of a parameter is to be left in parts; None if it is not."""
    deferred = _DEFERRED.get()
    return None if deferred is None else deferred.of(parameter)


def _screen(sae: Autoencoder, x: Float[Tensor, "b d"], *, sure: bool) -> Screen | None:
    """What excludes most latents of these rows before their pre-activations are computed, where that is the faster way.

    Args:
        sure: only by proof, which float32 allows too; else very likely, where `precision` allows it.
    """
    allowed = precision.screening()
    graded = torch.is_grad_enabled() and (x.requires_grad or sae.encoder.requires_grad)
    refused = allowed is Screening.NO or (allowed is Screening.PROVEN and not sure)
    if refused or graded or not screens(x, sae.encoder):
        return None
    proven = allowed is Screening.PROVEN
    return Screen.of(sae.encoder, sae.encoder_bias, sure=proven, room=functools.partial(scratch.room, "whole"))


def largest(
    sae: Autoencoder, x: Float[Tensor, "b d"], k: int, *, signed: bool = False
) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"]] | None:
    """The k largest pre-activations of each row, or all if there are fewer; None where the dense product is to tell.

    Args:
        sae: with the encoder of every SAE, E (x - b) + e.
        signed: whether it is absolute values that are compared.
    """
    screen = _screen(sae, x, sure=True)
    return None if screen is None else screen.topk(x - sae.bias, min(k, sae.n), signed=signed)


@torch.no_grad()
def entries(
    sae: Autoencoder, x: Float[Tensor, "b d"], floor: float | Float[Tensor, "n"], *, at_least: float = 0.0
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"], float | Float[Tensor, "n"]]:
    """Row, column and value of every pre-activation of x above a floor, in order of row; and the floor.

    One block of rows is held at a time.

    Args:
        sae: with the encoder of every SAE, E (x - b) + e.
        at_least: entries per row that the first block must have; a positive floor is lowered until it does.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    # A sure bound lets so many more through here, where the floor is a little low already, that nothing is gained. Nor
    # is anything with a floor for each latent, JumpReLU's: so many entries are above that most would be computed twice.
    screen = _screen(sae, x, sure=False) if isinstance(floor, float) else None
    # The screen cuts what it is given into blocks of its own.
    edges = [0, *range(sae.block, len(x), sae.block if screen is None else max(len(x), 1)), len(x)]
    for start, end in itertools.pairwise(edges):
        part = x[start:end] - sae.bias
        look = _looking(sae, part) if screen is None else functools.partial(screen.above, part)
        rows, columns, values = look(floor)
        while start == 0 and isinstance(floor, float) and len(rows) < at_least * len(part) and floor > 0:
            floor = floor * 0.8 if floor > 1e-30 else 0.0
            rows, columns, values = look(floor)
        found.append((rows + start, columns, values))
    rows, columns, values = (torch.cat(given) for given in zip(*found, strict=True))
    return rows, columns, values, floor


def _looking(
    sae: Autoencoder, z: Float[Tensor, "b d"]
) -> Callable[[float | Float[Tensor, "n"]], tuple[Tensor, Tensor, Tensor]]:
    """What finds the entries of E z + e above a floor, for as many floors as are tried."""
    out = scratch.room("product", sae.block, sae.n, z)[: len(z)]
    pre = precision.product(None, z, sae.encoder, out=out)

    def look(floor: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The encoder's bias is taken from the floor and added to what is found, which saves a pass over the block.
        rows, columns, values = above(pre, floor - sae.encoder_bias)
        return rows, columns, values + sae.encoder_bias[columns]

    return look


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        bias: Tensor,
        values: Tensor,
        chosen: Chosen,
        parts: list[Part] | None,
    ) -> Tensor:
        ctx.save_for_backward(x, encoder, bias)
        ctx.chosen, ctx.parts = chosen, parts
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder, bias = ctx.saved_tensors
        dv = gradients[0].reshape(-1).contiguous()
        need, chosen = ctx.needs_input_grad, ctx.chosen
        dx = chosen.uses.bag_sum(dv, encoder) if need[0] else None
        d_encoder = None
        if need[1] and ctx.parts is not None:
            ctx.parts.append(Part(dv, x - bias, chosen))
        elif need[1]:
            d_encoder = chosen.uses.atom_sum(dv, x - bias)
        d_encoder_bias = chosen.count(dv) if need[2] or need[3] else None
        # The rows' gradients for x, summed: a vector times a matrix instead of b x k x d.
        d_bias = -(d_encoder_bias @ encoder) if need[3] and d_encoder_bias is not None else None
        return dx, d_encoder, d_encoder_bias if need[2] else None, d_bias, None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, chosen: Chosen, parts: list[Part] | None) -> Tensor:
        ctx.save_for_backward(values, atoms)
        ctx.chosen, ctx.parts = chosen, parts
        return chosen.uses.bag_sum(values.reshape(-1).to(atoms.dtype), atoms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms = ctx.saved_tensors
        g, need, chosen = gradients[0].contiguous(), ctx.needs_input_grad, ctx.chosen
        d_values = d_atoms = None
        if need[0]:
            d_values = chosen.uses.bag_dot(g, atoms).view_as(values)
        if need[1] and ctx.parts is not None:
            ctx.parts.append(Part(values.reshape(-1), g, chosen))
        elif need[1]:
            d_atoms = chosen.uses.atom_sum(values.reshape(-1).contiguous(), g)
        return d_values, d_atoms, None, None


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
    bias, parts = exchange.current().spread(bias), deferred_parts(encoder)
    return _PreActivations.apply(x, encoder, encoder_bias, bias, values, chosen, parts)  # type: ignore[no-any-return]


@torch.no_grad()
def _anew(
    x: Tensor, encoder: Tensor, encoder_bias: Tensor, bias: Tensor, values: Tensor, chosen: Chosen
) -> Float[Tensor, "*m"]:
    """The chosen pre-activations in full precision; those given as 0, which were not positive or not kept, stay 0."""
    found = chosen.uses.bag_dot(x - bias, encoder)
    return torch.where(values != 0, (found + encoder_bias[chosen.columns]).view_as(values), values)


def decode(values: Float[Tensor, "*m"], atoms: Float[Tensor, "n d"], chosen: Chosen) -> Float[Tensor, "b d"]:
    """x_b = sum_s values_bs atoms[indices_bs] over all shards, with sparse gradients to values and atoms."""
    return exchange.current().total(_Decode.apply(values, atoms, chosen, deferred_parts(atoms)))


def reconstruction(sae: Autoencoder, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
    """Code and x_hat of an SAE whose values are its rectified chosen pre-activations, with sparse gradients."""
    with torch.no_grad():
        code = sae.encode(x)
    chosen = Chosen(code.indices, sae.n)
    # code.values is already rectified; where it is 0 the row's pre-activation was not positive and passes nothing.
    pre = pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, code.values, chosen)
    values = pre.relu()
    return SparseCode(values, code.indices, sae.n), decode(values, sae.atoms, chosen).add_(sae.bias)
