"""On which supports is l1 certain to find f? Conditions that are checked for the supports that occur."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import Dictionary, ShapeError, SparseCode
from .problem import check_dictionary

_NUMBERS = 2**24
"""Numbers of working memory held at once."""


@torch.no_grad()
def fuchs(W: Dictionary, code: SparseCode, *, nonnegative: bool) -> tuple[Bool[Tensor, "rows"], Float[Tensor, "rows"]]:
    r"""Whether $\langle w_j, h \rangle < 1$ for all j outside the support S, $h = W_S (W_S^\top W_S)^{-1}
    \mathrm{sign}(f_S)$: then basis pursuit provably recovers f.

    Absolute values for signed features. Sufficient, not necessary: codes without the certificate may be recovered too.
    Unlike coherence it judges the supports that occur, and signs with them. One n x d product per row.

    Args:
        W: dictionary; its atoms are taken as given, as basis pursuit takes them. Normalise them first to compare atoms.
        code: the codes; a row's support is where it is nonzero.
        nonnegative: whether f >= 0 is known.

    Returns:
        For each row whether it is certified, and the condition number of W_S.

    Raises:
        ShapeError: if code indexes another number of atoms, or is not a list of rows.
        ValueError: if a value is NaN or infinite.

    Source:
        Fuchs, "On sparse representations in arbitrary redundant bases", 2004, Theorem 4.

    Example:
        >>> f = SparseCode(torch.ones(1, 2), torch.tensor([[0, 1]]), 3)
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        >>> [bool(c) for c in fuchs(W, f, nonnegative=True)[0]]     # the third atom explains x with less
        [False]
    """
    atoms = _checked("fuchs", W, code)
    certified, condition = [], []
    k = code.values.shape[1]
    step = max(1, _NUMBERS // (W.n + k * W.d))
    # Once even for no rows at all, so that they get answers of no rows.
    for start in range(0, max(len(code), 1), step):
        part = code[slice(start, start + step)]
        chosen, gram, regular, spread = _supports(atoms, part)
        h = (torch.linalg.solve(gram, part.values.double().sign()[:, :, None]) * chosen).sum(1)
        slope = h @ atoms.T
        outside = _outside(slope if nonnegative else slope.abs(), part)
        certified.append(regular & (outside < 1))
        condition.append(spread)
    return torch.cat(certified), torch.cat(condition)


@torch.no_grad()
def exact_recovery_coefficient(W: Dictionary, code: SparseCode) -> Float[Tensor, "rows"]:
    r"""$\max_{j \notin S} \lVert W_S^+ w_j \rVert_1$: below 1, basis pursuit and orthogonal pursuit recover every
    f on S.

    Tropp's exact recovery condition, for the supports of given codes: any signs and any magnitudes. Stricter than
    `fuchs`, which knows the signs, and computable where the same question over all supports is not. k n products of d
    numbers per row.

    Args:
        W: dictionary; its atoms are taken as given. Orthogonal pursuit, which compares directions, needs unit atoms.
        code: the codes; a row's support is where it is nonzero.

    Returns:
        A number at least 0 per row; infinite where the atoms of S are linearly dependent.

    Raises:
        ShapeError: if code indexes another number of atoms, or is not a list of rows.
        ValueError: if a value is NaN or infinite.

    Source:
        Tropp, "Greed is good: algorithmic results for sparse approximation", 2004, Theorem 3.1.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        >>> f = SparseCode(torch.ones(2, 2), torch.tensor([[0, 1], [0, 2]]), 3)
        >>> [round(c, 4) for c in exact_recovery_coefficient(W, f).tolist()]
        [1.4, 2.0]
    """
    atoms = _checked("exact_recovery_coefficient", W, code)
    found = []
    k = code.values.shape[1]
    step = max(1, _NUMBERS // (2 * k * W.n + k * W.d))
    # Once even for no rows at all, so that they get answers of no rows.
    for start in range(0, max(len(code), 1), step):
        part = code[slice(start, start + step)]
        chosen, gram, regular, _ = _supports(atoms, part)
        mass = torch.linalg.solve(gram, chosen @ atoms.T).abs().sum(1)
        found.append(torch.where(regular, _outside(mass, part), math.inf))
    return torch.cat(found)


def _checked(caller: str, W: Dictionary, code: SparseCode) -> Float[Tensor, "n d"]:
    check_dictionary(caller, W)
    if code.n != W.n:
        raise ShapeError(
            f"{caller}: code indexes {code.n} features but the dictionary has {W.n} atoms. Use one dictionary."
        )
    if code.values.ndim != 2:
        raise ShapeError(
            f"{caller}: code must be a list of rows; got batch shape {tuple(code.values.shape[:-1])}. "
            "Flatten its values and indices to (rows, k)."
        )
    bad = (~torch.isfinite(code.values)).any(1)
    if bool(bad.any()):
        raise ValueError(
            f"{caller}: row {int(bad.nonzero()[0])} of code has a NaN or infinite value. Remove or repair it."
        )
    return W.atoms.detach().double()


def _supports(
    atoms: Float[Tensor, "n d"], code: SparseCode
) -> tuple[Float[Tensor, "rows k d"], Float[Tensor, "rows k k"], Bool[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Atoms of each row's support, a Gram matrix that can be solved, whether it is theirs, condition of W_S."""
    held = code.values != 0
    chosen = atoms[code.indices] * held[:, :, None]
    gram = chosen @ chosen.mT
    # Unused slots get a diagonal between the extreme eigenvalues, so that they change neither.
    middle = gram.diagonal(dim1=1, dim2=2).sum(1) / held.sum(1).clamp(min=1)
    middle = torch.where(middle > 0, middle, 1.0)
    gram = gram + torch.diag_embed((~held) * middle[:, None])
    eigenvalues = torch.linalg.eigvalsh(gram)
    regular = eigenvalues[:, 0] > 1e-10 * eigenvalues[:, -1]
    spread = torch.where(regular, (eigenvalues[:, -1] / eigenvalues[:, 0]).clamp(min=0).sqrt(), math.inf)
    k = gram.shape[1]
    return (
        chosen,
        torch.where(regular[:, None, None], gram, torch.eye(k, dtype=gram.dtype, device=gram.device)),
        regular,
        spread,
    )


def _outside(scores: Float[Tensor, "rows n"], code: SparseCode) -> Float[Tensor, "rows"]:
    """Each row's largest score outside its support; 0 where the support is everything."""
    # An unused slot may carry the index of an atom outside the support, which must then stay in the test.
    held = (code.values != 0).to(scores.dtype)
    inside = torch.zeros_like(scores).scatter_add_(1, code.indices, held) > 0
    return scores.masked_fill(inside, -math.inf).amax(1).clamp(min=0)
