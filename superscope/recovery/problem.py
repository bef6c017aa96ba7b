"""What every solver needs of x = W f: checked rows, unit atoms, the Gram matrix where it fits, one way to return f.

A solver of this folder states its mathematics in `_rows`, on a plain (rows, d) batch; checking, the bias, batches of
any shape and the chunks that keep memory bounded are here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import operator
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import Dictionary, IterativeCoder, ShapeError, Solution, SparseCode

Engine: TypeAlias = Literal["auto", "torch", "numba"]
"""Who runs the inner loop: numba on CPUs where installed and the work is large, else torch."""

_WORTH_COMPILING = 10**8
"""Numbers to be touched from which "auto" compiles: a second or so of torch, against some seconds, once per machine."""
_GRAM_BYTES = 3 * 2**30
"""Largest Gram matrix a solver builds unasked: 24 576 atoms in float32 fit, 32 768 do not."""

NOISELESS_PENALTY = 1e-3
"""Of the lasso on noiseless x: a thousandth of a typical magnitude, small beside any active feature."""


class SolvedRows(NamedTuple):
    """What a solver found for a chunk of rows; unused slots hold value 0."""

    values: Float[Tensor, "rows slots"]
    indices: Int[Tensor, "rows slots"]
    converged: Bool[Tensor, "rows"]
    steps: int


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms as solvers want them.

    Args:
        given: as in the dictionary, in float32 or float64.
        unit: normalised; a zero atom stays zero, so that it correlates with nothing and is never chosen.
        norms: of the given atoms; 1 for a zero atom.
        version: of the tensor they were made from, to notice training in between.
    """

    given: Float[Tensor, "n d"]
    unit: Float[Tensor, "n d"]
    norms: Float[Tensor, "n"]
    version: tuple[int, int]

    @classmethod
    def of(cls, W: Dictionary) -> Atoms:
        given = working(W.atoms.detach())
        # Scaled by the largest entry first: norms of tiny or huge atoms neither underflow nor overflow.
        peak = torch.linalg.vector_norm(given, ord=math.inf, dim=1)
        safe = torch.where(peak > 0, peak, 1)
        scaled = given / safe[:, None]
        length = torch.linalg.vector_norm(scaled, dim=1)
        length = torch.where(length > 0, length, 1)
        return cls(given, scaled / length[:, None], safe * length, _version(W.atoms))

    @property
    def n(self) -> int:
        return self.given.shape[0]

    @property
    def d(self) -> int:
        return self.given.shape[1]

    @cached_property
    def gram(self) -> Float[Tensor, "n n"]:
        """All inner products of unit atoms."""
        return self.unit @ self.unit.T

    @cached_property
    def lipschitz(self) -> float:
        """Largest eigenvalue of W W^T, for the atoms as given: the curvature that gradient steps must respect."""
        a = self.given.double()
        side = a.T @ a if self.n > self.d else a @ a.T
        return float(torch.linalg.eigvalsh(side)[-1]) if side.numel() else 0.0

    @property
    def gram_fits(self) -> bool:
        return self.n**2 * self.given.element_size() <= _GRAM_BYTES

    def gram_pays(self, rows: int, steps: int) -> bool:
        """Whether building the Gram matrix costs less than doing without it for `rows` rows of `steps` steps."""
        return "gram" in self.__dict__ or (self.gram_fits and rows * steps >= self.n)


class RecoveryCoder(IterativeCoder):
    """A solver for a dictionary that is given. Subclasses are frozen dataclasses; their fields are their settings."""

    label: ClassVar[str] = ""
    """What a legend calls it; the class's name where it says nothing."""
    one_step: ClassVar[bool] = False
    """Whether it reads all features off at once, so that the theory of one-step read-out speaks of it."""
    signed: ClassVar[bool] = True
    """Whether it can give features of either sign."""

    @classmethod
    def suited(cls, W: Dictionary, k: int, *, nonnegative: bool = False) -> RecoveryCoder:
        """Set for codes of k active features of magnitude about 1, without noise.

        A solver that is told k or may be told the sign is; a solver with settings of another kind says its own.

        Raises:
            ValueError: if it cannot give features of either sign, and is asked to.
        """
        if not (cls.signed or nonnegative):
            raise ValueError(f"{cls.__name__} finds nonnegative features only. Take another solver, OMP say.")
        settings: dict[str, Any] = {"k": k, "nonnegative": nonnegative} | cls.noiseless()
        taken = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(W, **{name: value for name, value in settings.items() if name in taken})  # type: ignore[call-arg]

    @classmethod
    def noiseless(cls) -> dict[str, Any]:
        """Settings for x without noise and features of magnitude about 1, where the defaults are not for that."""
        return {}

    @final
    @torch.no_grad()
    def solve(self, x: Float[Tensor, "*batch d"]) -> Solution:
        """The code of each row of x, with convergence per row. The dictionary's bias is subtracted first.

        Raises:
            ShapeError: if rows of x do not have d entries.
            TypeError: if x is not floating point, or of another dtype than the dictionary.
            ValueError: if x has a NaN or infinite entry.
        """
        rows = check_rows(type(self).__name__, self.dictionary, x).reshape(-1, x.shape[-1])
        atoms = self._atoms()
        if self.dictionary.bias is not None:
            rows = rows - working(self.dictionary.bias.detach())
        parts = (
            [self._rows(part, atoms, len(rows)) for part in rows.split(max(1, self._chunk(atoms)))] if len(rows) else []
        )
        return _gather(parts, x, self.dictionary.n)

    @abstractmethod
    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        """Solves one chunk; `total` is the number of rows of the whole call."""

    def _chunk(self, atoms: Atoms) -> int:
        """Rows per chunk: a few dense rows of n numbers each must stay small beside the caches, or the GPU's memory."""
        return rows_within(atoms, atoms.n * 4)

    def _atoms(self) -> Atoms:
        """Prepared once per solver, again if the dictionary's tensor was changed in place."""
        kept = self.__dict__.get("_prepared")
        if kept is None or kept.version != _version(self.dictionary.atoms):
            kept = Atoms.of(self.dictionary)
            # A frozen dataclass forbids assignment, not a cache of what its fields already say.
            object.__setattr__(self, "_prepared", kept)
        return kept


def compiled(device: torch.device, engine: Engine, work: int) -> ModuleType | None:
    """The compiled loops, where they are wanted, installed and worth their seconds of compilation; else None."""
    if engine == "torch" or device.type != "cpu":
        return None
    if engine == "auto" and (work < _WORTH_COMPILING or importlib.util.find_spec("numba") is None):
        return None
    from . import fast

    return fast


def check_engine(caller: str, engine: str) -> None:
    if engine not in ("auto", "torch", "numba"):
        raise ValueError(f"{caller}: engine must be 'auto', 'torch' or 'numba'; got {engine!r}.")
    if engine == "numba" and importlib.util.find_spec("numba") is None:
        raise ValueError(f"{caller}: engine 'numba' needs numba. Install superscope[fast], or leave engine at 'auto'.")


def rows_within(atoms: Atoms, numbers: int) -> int:
    """How many rows of so many working numbers a chunk may hold."""
    # 8 MB on a CPU: beyond the caches OMP fell from 19 000 to 8 000 rows per second.
    budget = 2**23 if atoms.unit.device.type == "cpu" else 2**31
    return max(8, budget // (numbers * atoms.unit.element_size()))


def working(tensor: Tensor) -> Tensor:
    """In float32 or float64: half precision holds data, it does not solve systems."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def check_rows(caller: str, W: Dictionary, x: Tensor) -> Tensor:
    """x in working precision, or a sentence that says what is wrong with it."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{caller}: x must be a floating point tensor; got {got}. Convert it with x.to({W.atoms.dtype})."
        )
    if x.ndim < 1 or x.shape[-1] != W.d:
        got = x.shape[-1] if x.ndim else "no"
        hint = ""
        if x.ndim == 2 and x.shape[0] == W.d:
            hint = " x looks transposed: one activation per row is meant."
        elif got == W.n:
            hint = (
                " That is the number of atoms: x is a code already, or the dictionary is transposed (one atom per row)."
            )
        raise ShapeError(f"{caller}: x must have d = {W.d} numbers per row, as the atoms have; got {got}.{hint}")
    if x.dtype != W.atoms.dtype:
        raise TypeError(
            f"{caller}: x is {x.dtype} but the atoms are {W.atoms.dtype}. "
            f"Convert one: x.to({W.atoms.dtype}), or W.to({x.dtype})."
        )
    if x.device != W.atoms.device:
        raise ValueError(
            f"{caller}: x is on {x.device} but the atoms are on {W.atoms.device}. Move one with .to(device)."
        )
    x = working(x.detach())
    # A finite sum needs finite terms, and is found in one pass; only a sum that is not is looked into.
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x.reshape(-1, W.d)).all(-1)).nonzero()[0])
        raise ValueError(f"{caller}: row {row} of x has a NaN or infinite entry. Remove or repair it.")
    return x


def check_dictionary(caller: str, W: Dictionary) -> None:
    if not isinstance(W, Dictionary):
        shape = f" of shape {tuple(W.shape)}" if isinstance(W, Tensor) else ""
        raise TypeError(
            f"{caller}: dictionary must be a Dictionary; got {type(W).__name__}{shape}. "
            "Write Dictionary(matrix) with one atom per row: n x d, not the formula's d x n."
        )
    if W.n < 1 or W.d < 1:
        raise ValueError(f"{caller}: dictionary must have at least one atom and one dimension; got {W}.")


def check_count(caller: str, name: str, value: int, least: int = 1, most: int | None = None, most_is: str = "") -> None:
    """Refuses a count outside [least, most]."""
    try:
        operator.index(value)
    except TypeError:
        raise TypeError(f"{caller}: {name} must be a whole number; got {value!r}. Pass an int.") from None
    if value < least or (most is not None and value > most):
        limit = f"at least {least}" if most is None else f"between {least} and {most} ({most_is})"
        raise ValueError(f"{caller}: {name} must be {limit}; got {value}.")


def check_positive(caller: str, name: str, value: float) -> None:
    check_real(caller, name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{caller}: {name} must be a finite number above 0; got {value}.")


def check_real(caller: str, name: str, value: object) -> None:
    """Refuses what is no number."""
    try:
        float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise TypeError(f"{caller}: {name} must be a number; got {value!r}. Pass a float.") from None


def check_tolerance(caller: str, value: float) -> None:
    check_real(caller, "tolerance", value)
    if not 0 <= value < 1:
        raise ValueError(f"{caller}: tolerance must lie in [0, 1); got {value}. It is relative to the size of x.")


def check_k(caller: str, W: Dictionary, k: int, *, independent: bool) -> None:
    """k at most n, and at most d where the chosen atoms must be linearly independent."""
    check_count(caller, "k", k)
    if k > W.n:
        raise ValueError(f"{caller}: k must be at most n = {W.n}, the number of atoms; got {k}.")
    if independent and k > W.d:
        raise ValueError(
            f"{caller}: k must be at most d = {W.d}, since more than d atoms are linearly dependent; got {k}. "
            "MatchingPursuit and Thresholding take a larger k."
        )


def argmax(scores: Float[Tensor, "rows n"]) -> Int[Tensor, "rows"]:
    """Position of the largest score of each row."""
    if scores.device.type == "cpu":
        # numpy's vectorised search takes 0.13 ns per number where torch's takes 1.8; the memory is shared, not copied.
        return torch.from_numpy(scores.numpy().argmax(1))
    return scores.argmax(1)


def _version(tensor: Tensor) -> tuple[int, int]:
    """Changes with in-place writes. An inference tensor counts none; it is then told apart by its storage alone."""
    return (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)


def pack(f: Float[Tensor, "rows n"]) -> tuple[Float[Tensor, "rows slots"], Int[Tensor, "rows slots"]]:
    """Values and indices of dense rows, exactly."""
    code = SparseCode.from_dense(f)
    return code.values, code.indices


def joined(parts: list[SolvedRows]) -> SolvedRows:
    """The rows of several parts, padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    slots = max(part.values.shape[1] for part in parts)

    def wide(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, slots - tensor.shape[1]))

    values, indices = (
        torch.cat([wide(part.values) for part in parts]),
        torch.cat([wide(part.indices) for part in parts]),
    )
    return SolvedRows(values, indices, torch.cat([part.converged for part in parts]), max(part.steps for part in parts))


def _gather(parts: list[SolvedRows], x: Tensor, n: int) -> Solution:
    """The chunks as one Solution in the shape and dtype of x."""
    batch = x.shape[:-1]
    slots = max((part.values.shape[1] for part in parts), default=1)
    values = x.new_zeros(math.prod(batch), slots)
    indices = torch.zeros(math.prod(batch), slots, dtype=torch.int64, device=x.device)
    converged = torch.ones(math.prod(batch), dtype=torch.bool, device=x.device)
    start = 0
    for part in parts:
        stop = start + len(part.values)
        values[start:stop, : part.values.shape[1]] = part.values.to(x.dtype)
        indices[start:stop, : part.values.shape[1]] = part.indices
        converged[start:stop] = part.converged
        start = stop
    code = SparseCode(values.reshape(*batch, slots), indices.reshape(*batch, slots), n)
    return Solution(code, converged.reshape(batch), max((part.steps for part in parts), default=0))
