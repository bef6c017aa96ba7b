"""f when its support is known: least squares on the atoms that are already chosen."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import Dictionary, ShapeError, SparseCode
from .problem import Atoms, check_dictionary, check_rows, rows_within, working


@torch.no_grad()
def refit(W: Dictionary, x: Float[Tensor, "*batch d"], code: SparseCode, *, nonnegative: bool = False) -> SparseCode:
    r"""Best amplitudes on a fixed support: $\min_f \lVert x - W f \rVert$ over f that is zero wherever `code` is.

    Removes the shrinkage of an l1 penalty and the bias of a one-step encoder without touching which features are on:
    the difference to the encoder's own amplitudes is its amortisation error. Where the chosen atoms are linearly
    dependent (duplicates, or more than d of them) the solution of smallest norm is returned.

    Args:
        W: dictionary of n atoms, of any norm.
        x: activations; the dictionary's bias is subtracted.
        code: the support; its values only say where it is nonzero.
        nonnegative: restricts the amplitudes to f >= 0; some may become 0.

    Returns:
        A code of the same shape, in the dtype of x.

    Raises:
        ShapeError: if code and x differ in batch shape, or code indexes another number of atoms.
        TypeError, ValueError: if x is not fit for W, as for every solver.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        >>> shrunk = SparseCode(torch.tensor([0.9, 0.7]), torch.tensor([0, 1]), n=2)
        >>> refit(W, torch.tensor([1.6, 0.8]), shrunk).dense().round(decimals=4)
        tensor([1., 1.])
    """
    check_dictionary("refit", W)
    rows = check_rows("refit", W, x).reshape(-1, W.d)
    check_code("refit", W, x, code)
    if W.bias is not None:
        rows = rows - working(W.bias.detach())
    atoms = Atoms.of(W)
    indices = code.indices.reshape(-1, code.k)
    held = (code.values != 0).reshape(-1, code.k)
    values = rows.new_zeros(held.shape)
    for part in chunks(len(rows), atoms, code.k):
        products, targets = normal_equations(rows[part], indices[part], atoms)
        values[part] = solve(products, targets, held[part], nonnegative=nonnegative)
    values /= atoms.norms[indices]
    return SparseCode(values.to(x.dtype).reshape(code.values.shape), code.indices, code.n)


def chunks(rows: int, atoms: Atoms, k: int) -> Iterator[slice]:
    """Parts of so many rows whose chosen atoms stay in a processor's second cache while they are worked on."""
    # On 512 x 8192, k = 32: 67 us a row with 64 rows, 95 with 8 and 114 with 512.
    step = max(rows_within(atoms, k * (atoms.d + 3 * k)) // 2, 8)
    return (slice(start, start + step) for start in range(0, rows, step))


def normal_equations(
    x: Float[Tensor, "rows d"], indices: Int[Tensor, "rows k"], atoms: Atoms
) -> tuple[Float[Tensor, "rows k k"], Float[Tensor, "rows k"]]:
    """Inner products of each row's chosen atoms with one another, and with x."""
    chosen = atoms.unit.index_select(0, indices.reshape(-1)).reshape(*indices.shape, atoms.d)
    return chosen @ chosen.mT, (chosen @ x[:, :, None])[:, :, 0]


def solve(
    products: Float[Tensor, "rows k k"],
    targets: Float[Tensor, "rows k"],
    held: Bool[Tensor, "rows k"],
    *,
    nonnegative: bool,
    start: Float[Tensor, "rows k"] | None = None,
) -> Float[Tensor, "rows k"]:
    """The best values on the held slots of each row, 0 elsewhere."""
    if nonnegative:
        return non_negative_on_support(products, targets, held, start)[0]
    return on_support(products, targets, held)


def check_code(caller: str, W: Dictionary, x: Float[Tensor, "*batch d"], code: SparseCode) -> None:
    """Refuses a code that is not one of these rows on these atoms."""
    if code.n != W.n:
        raise ShapeError(
            f"{caller}: code indexes {code.n} features but the dictionary has {W.n} atoms. Use one dictionary."
        )
    if code.values.shape[:-1] != x.shape[:-1]:
        raise ShapeError(
            f"{caller}: code is for rows of shape {tuple(code.values.shape[:-1])} but x has {tuple(x.shape[:-1])}. "
            "Give one code per row of x."
        )


def on_support(
    products: Float[Tensor, "rows k k"], targets: Float[Tensor, "rows k"], held: Bool[Tensor, "rows k"]
) -> Float[Tensor, "rows k"]:
    """Solves G f = b on the held slots of each row; f is 0 elsewhere, and of smallest norm where G is singular."""
    both = held[:, :, None] & held[:, None, :]
    # An identity where nothing is held leaves those slots out of the system without a shape per row.
    matrix = torch.where(both, products, 0) + torch.diag_embed((~held).to(products.dtype))
    factor, bad = torch.linalg.cholesky_ex(matrix)
    targets = torch.where(held, targets, 0)
    f = torch.cholesky_solve(targets[:, :, None], factor)[:, :, 0]
    # A small pivot is dependence that rounding hides: such systems are solved through their eigenvalues instead.
    weak = (bad != 0) | (factor.diagonal(dim1=1, dim2=2).amin(1).square() < 64 * torch.finfo(matrix.dtype).eps)
    if bool(weak.any()):
        inverse = torch.linalg.pinv(matrix[weak], rtol=64 * torch.finfo(matrix.dtype).eps, hermitian=True)
        f[weak] = (inverse @ targets[weak, :, None])[:, :, 0]
    return torch.where(held, f, 0)


def non_negative_on_support(
    products: Float[Tensor, "rows k k"],
    targets: Float[Tensor, "rows k"],
    held: Bool[Tensor, "rows k"],
    start: Float[Tensor, "rows k"] | None = None,
) -> tuple[Float[Tensor, "rows k"], Bool[Tensor, "rows"]]:
    """min over f >= 0 of f^T G f / 2 - b^T f on the held slots, and whether each row reached it.

    Most rows are done by the unconstrained solution; the others go through the active-set method of Lawson and Hanson
    ("Solving least squares problems", 1974, chapter 23), all at once, from the feasible `start`.
    """
    f = on_support(products, targets, held)
    done = (f >= 0).all(1)
    rest = (~done).nonzero()[:, 0]
    if len(rest):
        begin = torch.zeros_like(f[rest]) if start is None else start[rest]
        f[rest], done[rest] = _lawson_hanson(products[rest], targets[rest], held[rest], begin)
    return f, done


def _lawson_hanson(
    products: Float[Tensor, "rows k k"],
    targets: Float[Tensor, "rows k"],
    held: Bool[Tensor, "rows k"],
    start: Float[Tensor, "rows k"],
) -> tuple[Float[Tensor, "rows k"], Bool[Tensor, "rows"]]:
    k, eps = targets.shape[1], torch.finfo(targets.dtype).eps
    f = torch.where(held, start, 0).clamp(min=0)
    free = f > 0
    slack = 64 * eps * targets.abs().amax(1, keepdim=True)
    done = torch.zeros(len(f), dtype=torch.bool, device=f.device)
    for _ in range(4 * k + 4):
        trial = on_support(products, targets, free)
        blocked = free & (trial <= 0)
        # Move towards the trial point until the first value reaches 0; all the way where none does.
        share = (
            torch.where(blocked, f / (f - trial).clamp(min=torch.finfo(f.dtype).tiny), torch.inf).amin(1).clamp(max=1)
        )
        inside = ~blocked.any(1)
        moved = torch.where(inside[:, None], trial, f + share[:, None] * (trial - f))
        f = torch.where(done[:, None], f, moved)
        reached = blocked & (f <= eps * f.abs().amax(1, keepdim=True))
        # Rounding may leave the blocking value a hair above 0; the one that limited the step goes in any case.
        limiting = blocked & (f / (f - trial).clamp(min=torch.finfo(f.dtype).tiny) <= eps)
        out = (reached | limiting) & ~done[:, None]
        f = torch.where(out, 0, f)
        free &= ~out
        # Slope of the objective for the slots at 0: a positive one would lower it.
        slope = targets - (products @ f[:, :, None])[:, :, 0]
        slope = torch.where(held & ~free, slope, -torch.inf)
        done |= inside & (slope <= slack).all(1)
        if bool(done.all()):
            break
        enter = inside & ~done
        best = slope.argmax(1)
        free[enter.nonzero()[:, 0], best[enter]] = True
    return f, done
