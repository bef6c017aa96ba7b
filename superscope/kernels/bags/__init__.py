r"""The form $t(v, X, A) = \sum_m v_m \langle X_{row(m)}, A_{column(m)} \rangle$ and its three derivatives.

A batch uses atoms: use m is of atom column(m) by row(m), with value v_m. The uses stand in order of row; row b holds
those from offsets[b] to offsets[b + 1], as many as it likes, none included. Each derivative's own gradients are the
other two, so everything is differentiable as often as one likes and no pass holds (m, d).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..choice import on_gpu
from . import composed
from .composed import Plan


def bag_sum(
    values: Float[Tensor, "m"],
    columns: Int[Tensor, "m"],
    offsets: Int[Tensor, "b1"],
    atoms: Float[Tensor, "n d"],
    *,
    plan: Plan | None = None,
    engine: ModuleType | None = None,
) -> Float[Tensor, "b d"]:
    """x_b = sum of values_m atoms_{column(m)} over the uses m of row b: decoding. Differentiable in values and atoms.

    Args:
        plan: the uses in order of atom, if it has been made; else made when the atoms' gradient is asked for.
        engine: the module whose versions run; None chooses by device.
    """
    uses = Uses(columns, offsets, len(atoms), plan, engine)
    return _BagSum.apply(values.to(atoms.dtype), atoms, uses)  # type: ignore[no-any-return]


def bag_dot(
    rows: Float[Tensor, "b d"],
    columns: Int[Tensor, "m"],
    offsets: Int[Tensor, "b1"],
    atoms: Float[Tensor, "n d"],
    *,
    plan: Plan | None = None,
    engine: ModuleType | None = None,
) -> Float[Tensor, "m"]:
    """v_m = <rows_{row(m)}, atoms_{column(m)}>: chosen pre-activations. Differentiable in rows and atoms.

    Args:
        plan, engine: as for `bag_sum`.
    """
    uses = Uses(columns, offsets, len(atoms), plan, engine)
    return _BagDot.apply(rows.to(atoms.dtype), atoms, uses)  # type: ignore[no-any-return]


def atom_sum(
    values: Float[Tensor, "m"],
    columns: Int[Tensor, "m"],
    offsets: Int[Tensor, "b1"],
    rows: Float[Tensor, "b d"],
    n: int,
    *,
    plan: Plan | None = None,
    engine: ModuleType | None = None,
) -> Float[Tensor, "n d"]:
    """g_i = sum of values_m rows_{row(m)} over the uses m of atom i: weight gradients. Differentiable in both.

    Args:
        n: number of atoms.
        plan, engine: as for `bag_sum`.
    """
    uses = Uses(columns, offsets, n, plan, engine)
    return _AtomSum.apply(values.to(rows.dtype), rows, uses)  # type: ignore[no-any-return]


class Uses:
    """Who uses what, and which module's versions sum over it. The sums here know nothing of gradients.

    Args:
        columns: the atom of each use.
        offsets: where each row's uses begin, and where the last one's end.
        n: number of atoms.
        plan: the uses in order of atom, if it has been made; else made when it is first asked for.
        engine: the module whose versions run; None chooses by device.
        rows: the row of each use, where that is known.
    """

    def __init__(
        self,
        columns: Int[Tensor, "m"],
        offsets: Int[Tensor, "b1"],
        n: int,
        plan: Plan | None = None,
        engine: ModuleType | None = None,
        rows: Int[Tensor, "m"] | None = None,
    ) -> None:
        self.columns, self.offsets, self.n, self.rows = columns, offsets, n, rows
        self._plan = plan
        self.engine: Any = composed if engine is None else engine
        if engine is None and on_gpu(columns, offsets):
            from . import triton as on_device

            self.engine = on_device

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            self._plan = Plan(self.columns, self.offsets, self.n, rows=self.rows)
        return self._plan

    def bag_sum(self, values: Tensor, atoms: Tensor) -> Tensor:
        return self.engine.bag_sum(values, self.columns, self.offsets, atoms)

    def bag_dot(self, rows: Tensor, atoms: Tensor) -> Tensor:
        return self.engine.bag_dot(rows, self.columns, self.offsets, atoms)

    def atom_sum(self, values: Tensor, rows: Tensor) -> Tensor:
        return self.engine.atom_sum(values, rows, self.plan)


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, uses: Uses) -> Tensor:
        ctx.save_for_backward(values, atoms)
        ctx.uses = uses
        return uses.bag_sum(values.detach(), atoms.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms = ctx.saved_tensors
        (g,), need = gradients, ctx.needs_input_grad
        dv = _BagDot.apply(g, atoms, ctx.uses) if need[0] else None
        da = _AtomSum.apply(values, g, ctx.uses) if need[1] else None
        return dv, da, None  # type: ignore[return-value]


class _BagDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, atoms: Tensor, uses: Uses) -> Tensor:
        ctx.save_for_backward(rows, atoms)
        ctx.uses = uses
        return uses.bag_dot(rows.detach(), atoms.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, atoms = ctx.saved_tensors
        (g,), need = gradients, ctx.needs_input_grad
        dx = _BagSum.apply(g, atoms, ctx.uses) if need[0] else None
        da = _AtomSum.apply(g, rows, ctx.uses) if need[1] else None
        return dx, da, None  # type: ignore[return-value]


class _AtomSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, uses: Uses) -> Tensor:
        ctx.save_for_backward(values, rows)
        ctx.uses = uses
        return uses.atom_sum(values.detach(), rows.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, rows = ctx.saved_tensors
        (g,), need = gradients, ctx.needs_input_grad
        dv = _BagDot.apply(rows, g, ctx.uses) if need[0] else None
        dx = _BagSum.apply(values, g, ctx.uses) if need[1] else None
        return dv, dx, None  # type: ignore[return-value]


__all__ = ["Plan", "Uses", "atom_sum", "bag_dot", "bag_sum"]
