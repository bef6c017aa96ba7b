"""f when a code is at hand already: what can a few steps make of an encoder's code, on the same atoms?

An encoder answers in one step. From its answer the best values for the latents that it chose are a small least-squares
problem a row, and a few rounds of pursuit tell whether others would do better. Neither ever leaves a row with more
active latents than it came with, nor with a larger error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import Dictionary, SparseCode
from ..core.errors import nearest
from ..core.registry import one_of_each
from .problem import Atoms, check_count, check_rows, working
from .support import check_code, chunks, normal_equations, solve

_FLOOR = 32
"""In units of rounding: a correlation below 32 eps |x| is rounding of the residual, not structure."""


class Refinement(ABC):
    """A way from a code to a better one of the same row. Subclasses are frozen dataclasses; fields are settings."""

    name: ClassVar[str]
    """What commands call it."""

    @staticmethod
    def of(chosen: Refinement | str) -> Refinement:
        """The refinement of that name, or the one given.

        Raises:
            ValueError: if there is none of that name.

        Example:
            >>> Refinement.of("refit")
            Refit()
        """
        if isinstance(chosen, Refinement):
            return chosen
        known = {each.name: each for each in REFINEMENTS}
        if chosen not in known:
            raise ValueError(
                f"there is no refinement {chosen!r}.{nearest(chosen, list(known))} Known: {', '.join(known)}."
            )
        return known[chosen]

    @final
    @torch.no_grad()
    def improve(
        self, W: Dictionary, x: Float[Tensor, "*batch d"], code: SparseCode, *, nonnegative: bool = False
    ) -> SparseCode:
        """A code of each row of x with an error that is no larger, and no more latents active.

        Args:
            W: dictionary of n atoms, of any norm.
            x: activations; the dictionary's bias is subtracted.
            code: what to begin with.
            nonnegative: restricts f to f >= 0, as `code` must be then.

        Returns:
            A code of the same shape, in the dtype of x.

        Raises:
            ShapeError: if code and x differ in batch shape, or code indexes another number of atoms.
            TypeError, ValueError: if x is not fit for W, as for every solver; if `code` has a negative value where
                none is allowed.
        """
        caller = type(self).__name__
        rows = check_rows(caller, W, x).reshape(-1, W.d)
        check_code(caller, W, x, code)
        if nonnegative and bool((code.values < 0).any()):
            raise ValueError(f"{caller}: the code has negative values. Refine it with nonnegative=False.")
        if W.bias is not None:
            rows = rows - working(W.bias.detach())
        atoms = Atoms.of(W)
        indices, values = code.indices.reshape(-1, code.k), working(code.values.detach()).reshape(-1, code.k)
        values = values * atoms.norms[indices]
        parts = [
            self._rows(rows[part], values[part], indices[part], atoms, nonnegative)
            for part in chunks(len(rows), atoms, code.k)
        ]
        if parts:
            values, indices = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        values = values / atoms.norms[indices]
        shape = code.values.shape
        return SparseCode(values.to(x.dtype).reshape(shape), indices.reshape(shape), code.n)

    @abstractmethod
    def _rows(
        self,
        x: Float[Tensor, "rows d"],
        values: Float[Tensor, "rows k"],
        indices: Int[Tensor, "rows k"],
        atoms: Atoms,
        nonnegative: bool,
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """One chunk, values in units of unit atoms."""


@dataclass(frozen=True)
class Refit(Refinement):
    r"""$\min_{f_S} \lVert x - W_S f_S \rVert$ on the support S that the code has: better values, the same latents.

    Removes what an encoder of one step leaves on the table where atoms overlap, and the shrinkage of an L1 penalty.
    Exact least squares, or nonnegative least squares, which may turn a latent off: then its best value was 0. Costs a
    k x k system a row, no product with the whole dictionary.

    Source:
        Lawson and Hanson, "Solving least squares problems", 1974, chapter 23 (the nonnegative form).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        >>> shrunk = SparseCode(torch.tensor([0.9, 0.7]), torch.tensor([0, 1]), n=2)
        >>> Refit().improve(W, torch.tensor([1.6, 0.8]), shrunk).dense().round(decimals=4)
        tensor([1., 1.])
    """

    name = "refit"

    def _rows(
        self,
        x: Float[Tensor, "rows d"],
        values: Float[Tensor, "rows k"],
        indices: Int[Tensor, "rows k"],
        atoms: Atoms,
        nonnegative: bool,
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        return _refitted(x, values, indices, atoms, nonnegative), indices


@dataclass(frozen=True)
class SubspacePursuit(Refinement):
    r"""`rounds` times: the atoms that match the residual best join the support, least squares, the largest stay.

    With l the number of active latents of a row and c of `join`: S' = S and the c atoms of largest
    $|\langle \hat w_j, r \rangle|$, f' the best values on S', S the l largest of f', f the best values on S; kept where
    the error falls. So a row trades latents and never has more. A round costs a product with the whole dictionary, as
    encoding does, and two small systems a row. Where l + c would exceed d, fewer join.

    Pursuit fits whatever is there: where x holds noise, or atoms are not those of the data, a smaller error is no proof
    of a truer support.

    Args:
        rounds: at most; a row ends where a round does not lower its error.
        join: atoms that are tried in a round; None tries half as many as the row has latents active, at least 4.

    Raises:
        ValueError: if rounds or join is below 1.

    Source:
        Dai and Milenkovic, "Subspace pursuit for compressive sensing signal reconstruction", 2009 (there from nothing,
        with as many joining as stay).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> wrong = SparseCode(torch.tensor([0.5]), torch.tensor([0]), n=3)
        >>> SubspacePursuit().improve(W, torch.tensor([0.0, 2.0]), wrong).dense()
        tensor([0., 0., 2.])
    """

    name = "pursuit"
    rounds: int = 2
    join: int | None = None

    def __post_init__(self) -> None:
        check_count("SubspacePursuit", "rounds", self.rounds)
        if self.join is not None:
            check_count("SubspacePursuit", "join", self.join)

    def _joining(self, allowed: Int[Tensor, "rows 1"], atoms: Atoms) -> Int[Tensor, "rows 1"]:
        """How many atoms each row may try: by its own number of active latents, whatever rows come with it."""
        wanted = (allowed // 2).clamp(min=4) if self.join is None else torch.full_like(allowed, self.join)
        return wanted.minimum(atoms.d - allowed).clamp(min=0, max=atoms.n - 1)

    def _rows(
        self,
        x: Float[Tensor, "rows d"],
        values: Float[Tensor, "rows k"],
        indices: Int[Tensor, "rows k"],
        atoms: Atoms,
        nonnegative: bool,
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        allowed = (values != 0).sum(1, keepdim=True)
        values = _refitted(x, values, indices, atoms, nonnegative)
        residual = _left(x, values, indices, atoms)
        indices, joining = indices.clone(), self._joining(allowed, atoms)
        going = ((allowed > 0) & (joining > 0)).nonzero()[:, 0]
        for _ in range(self.rounds if len(going) else 0):
            trial, chosen, rest = _traded(
                x[going],
                values[going],
                indices[going],
                residual[going],
                allowed[going],
                joining[going],
                atoms,
                nonnegative,
            )
            better = rest.square().sum(1) < residual[going].square().sum(1)
            going, trial, chosen, rest = going[better], trial[better], chosen[better], rest[better]
            if not len(going):
                break
            values[going], indices[going], residual[going] = trial, chosen, rest
        return values, indices


def _refitted(
    x: Float[Tensor, "rows d"],
    values: Float[Tensor, "rows k"],
    indices: Int[Tensor, "rows k"],
    atoms: Atoms,
    nonnegative: bool,
) -> Float[Tensor, "rows k"]:
    """The best values on the same support; the given ones where rounding made them worse."""
    products, targets = normal_equations(x, indices, atoms)
    best = solve(products, targets, values != 0, nonnegative=nonnegative, start=values)
    given, now = (_objective(products, targets, f) for f in (values, best))
    return torch.where((now <= given)[:, None], best, values)


def _objective(
    products: Float[Tensor, "rows k k"], targets: Float[Tensor, "rows k"], f: Float[Tensor, "rows k"]
) -> Float[Tensor, "rows"]:
    """Squared error less |x|^2."""
    return (((products @ f[:, :, None])[:, :, 0] - 2 * targets) * f).sum(1)


def _left(
    x: Float[Tensor, "rows d"], values: Float[Tensor, "rows k"], indices: Int[Tensor, "rows k"], atoms: Atoms
) -> Float[Tensor, "rows d"]:
    """x - W f."""
    return x - nn.functional.embedding_bag(indices, atoms.unit, per_sample_weights=values, mode="sum")


def _traded(
    x: Float[Tensor, "rows d"],
    values: Float[Tensor, "rows k"],
    indices: Int[Tensor, "rows k"],
    residual: Float[Tensor, "rows d"],
    allowed: Int[Tensor, "rows 1"],
    joining: Int[Tensor, "rows 1"],
    atoms: Atoms,
    nonnegative: bool,
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"], Float[Tensor, "rows d"]]:
    """Values and support after one round, with no more active latents than allowed, and what they leave of x."""
    k, held = values.shape[1], values != 0
    scores = residual @ atoms.unit.T
    if not nonnegative:
        scores.abs_()
    # Added, not written: an unused slot may carry the index of a used one.
    scores.scatter_add_(1, indices, torch.where(held, -torch.inf, 0.0).to(scores.dtype))
    # Largest first, since each row has a number of its own.
    size, place = scores.topk(int(joining.max()), dim=1)
    joins = torch.arange(size.shape[1], device=x.device) < joining
    floor = _FLOOR * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    all_indices, all_held = torch.cat([indices, place], 1), torch.cat([held, joins & (size > floor)], 1)
    products, targets = normal_equations(x, all_indices, atoms)
    start = torch.cat([values, torch.zeros_like(size)], 1)
    sizes = solve(products, targets, all_held, nonnegative=nonnegative, start=start).abs()
    largest, slot = sizes.topk(k, dim=1)
    stays = (torch.arange(k, device=x.device) < allowed) & (largest > 0)
    products = products.gather(1, slot[:, :, None].expand(-1, -1, products.shape[2]))
    products = products.gather(2, slot[:, None, :].expand(-1, k, -1))
    trial = solve(products, targets.gather(1, slot), stays, nonnegative=nonnegative)
    where = all_indices.gather(1, slot)
    return trial, where, _left(x, trial, where, atoms)


REFINEMENTS: tuple[Refinement, ...] = one_of_each(Refinement, globals())
"""One of each kind above, with its defaults."""
