"""Pursuit for the codes, then each atom anew from the rows that use it: K-SVD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, SparseCode
from ...recovery import NNOMP, OMP
from .learner import Learner
from .rows import Source, check, training_rows

_PATIENCE = 5
"""Sweeps without progress before learning ends."""
_TWINS = 0.99
"""Cosine above which two atoms count as one."""


@final
@dataclass(frozen=True, eq=False)
class KSVD(Learner):
    r"""$\min_{W, F} |X - b - F W|^2$ with at most k nonzeros in each row of F, by turns over codes and atoms.

    Codes are orthogonal matching pursuit's (NNOMP's, where nonnegative); then atom by atom, in their order,
    $w_j \leftarrow E_j^\top g / |E_j^\top g|$ and $g \leftarrow E_j w_j$, with $E_j$ what the other atoms leave of
    the rows that use it and g their values: one step of the power iteration for the first singular pair. An atom that
    no row uses, or that is another's twin, is replaced by the worst-fitted row; b follows the mean of what is left.

    Args:
        dictionary: unit atoms and b.
        k: nonzeros in a row, at most.
        nonnegative: whether f >= 0.
        errors: mean squared error over mean squared distance from the mean, after each sweep.

    Source:
        Aharon, Elad and Bruckstein, "K-SVD: an algorithm for designing overcomplete dictionaries for sparse
        representation", 2006. Rubinstein, Zibulevsky and Elad, "Efficient implementation of the K-SVD algorithm using
        batch orthogonal matching pursuit", 2008 (the single power step). The bias is ours.

    Example:
        >>> from superscope.worlds import exactly_k
        >>> world = exactly_k(n=12, d=8, k=1)
        >>> learned = KSVD.fit(world, n=12, k=1, rows=500)
        >>> float((learned.dictionary.atoms @ world.dictionary.atoms.T).amax(0).min()) > 0.99
        True
    """

    name: ClassVar[str] = "ksvd"

    dictionary: Dictionary
    k: int
    nonnegative: bool = True
    errors: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        source: Source,
        n: int,
        k: int,
        *,
        nonnegative: bool = True,
        rows: int = 20_000,
        sweeps: int = 40,
        tolerance: float = 1e-4,
        seed: int = 0,
    ) -> KSVD:
        """Learns n atoms.

        Args:
            source: where rows come from.
            n: atoms.
            k: nonzeros in a row, at most d.
            nonnegative: restricts codes to f >= 0.
            rows: rows to read, at most.
            sweeps: over codes and atoms, at most.
            tolerance: stops after 5 sweeps that did not lower the least error so far by this share of itself.
            seed: of the rows' order and of the rows that are the first atoms.

        Raises:
            ValueError: if k is not in 1..min(n, d), there are fewer rows than atoms, x is constant, or an argument is
                out of range.
        """
        check("KSVD", n=(n, 1), k=(k, 1), sweeps=(sweeps, 1), tolerance=(tolerance, 0))
        x = training_rows("KSVD", source, rows, seed)
        if k > min(n, x.shape[1]):
            raise ValueError(
                f"KSVD.fit: k = {k} atoms of n = {n} in d = {x.shape[1]} dimensions cannot be chosen independently. "
                f"Take k <= {min(n, x.shape[1])}."
            )
        if len(x) < n:
            raise ValueError(f"KSVD.fit: {n} atoms need at least as many rows; there are {len(x)}.")
        bias = x.double().mean(0).float()
        centred = x - bias
        energy = float(centred.double().square().sum())
        lengths = centred.norm(dim=1)
        if energy <= 1e-12 * float(x.double().square().sum()):
            raise ValueError("KSVD.fit: the rows are constant, so there is nothing to learn.")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=generator)
        order = order[lengths[order] > 1e-6 * lengths.max()]
        # Where fewer rows than atoms differ from the mean, some are taken twice and replaced as twins.
        first = order[torch.arange(n) % len(order)]
        atoms = centred[first] / lengths[first, None]
        errors: list[float] = []
        best, waited = (float("inf"), atoms, bias), 0
        for _ in range(sweeps):
            code = _coder(Dictionary(atoms), k, nonnegative).encode(centred)
            residual = centred - Dictionary(atoms).compose(code)
            values, indices = code.values.clone(), code.indices
            _renew(atoms, values, indices, residual, nonnegative)
            shift = residual.double().mean(0).float()
            bias, centred, residual = bias + shift, centred - shift, residual - shift
            errors.append(float(residual.double().square().sum()) / energy)
            # Replacing atoms, and pursuit that takes another turn, may raise the error for a sweep or two.
            if errors[-1] < best[0]:
                waited = 0 if errors[-1] < (1 - tolerance) * best[0] else waited + 1
                best = (errors[-1], atoms.clone(), bias)
            else:
                waited += 1
            _replace(atoms, values, indices, residual)
            if waited == _PATIENCE:
                break
        return cls(Dictionary(best[1], best[2]), k, nonnegative, tuple(errors))

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return _coder(self.dictionary, self.k, self.nonnegative).encode(x)


def _coder(W: Dictionary, k: int, nonnegative: bool) -> SparseCoder:
    return NNOMP(W, k=k) if nonnegative else OMP(W, k=k)


def _renew(
    atoms: Float[Tensor, "n d"],
    values: Float[Tensor, "rows k"],
    indices: Int[Tensor, "rows k"],
    residual: Float[Tensor, "rows d"],
    nonnegative: bool,
) -> None:
    """Every atom in turn, with its values and the residual, in place."""
    used = (values != 0).flatten().nonzero().squeeze(1)
    # Entries in the order of their atoms: those of one atom are then one slice.
    used = used[indices.flatten()[used].argsort(stable=True)]
    count = torch.bincount(indices.flatten()[used], minlength=len(atoms)).tolist()
    start = 0
    flat = values.view(-1)
    for atom, uses in enumerate(count):
        places, start = used[start : start + uses], start + uses
        if not uses:
            continue
        rows = places // values.shape[1]
        g = flat[places]
        e = torch.addr(residual[rows], g, atoms[atom])
        direction = g @ e
        length = direction.norm()
        if float(length) > 0:
            atoms[atom] = direction / length
            g = e @ atoms[atom]
            flat[places] = g.relu() if nonnegative else g
        residual[rows] = torch.addr(e, flat[places], atoms[atom], alpha=-1)


def _replace(
    atoms: Float[Tensor, "n d"],
    values: Float[Tensor, "rows k"],
    indices: Int[Tensor, "rows k"],
    residual: Float[Tensor, "rows d"],
) -> None:
    """Atoms that no row uses, and the later of twins, become the directions of the worst-fitted rows; in place."""
    uses = torch.bincount(indices[values != 0], minlength=len(atoms))
    overlap = (atoms @ atoms.T).tril(-1)
    idle = (uses == 0) | (overlap > _TWINS).any(1)
    if not bool(idle.any()):
        return
    lengths = residual.norm(dim=1)
    worst = lengths.topk(min(int(idle.sum()), len(lengths))).indices
    worst = worst[lengths[worst] > 0]
    chosen = idle.nonzero().squeeze(1)[: len(worst)]
    atoms[chosen] = residual[worst] / lengths[worst, None]
