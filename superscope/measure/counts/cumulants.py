"""How many features show in fourth moments alone, without any dictionary? The rank of the fourth-cumulant matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Measured, Measurement
from ..evidence import Evidence, Wanted
from .base import Counter
from .rank_one import RankOne, SymmetricBasis, rank_one_directions
from .rows import WhiteRows, rows_of, white_rows

# Sign flips of the groups: the largest of 19 is the edge that noise exceeds once in 20 times.
_FLIPS = 19
_ROUNDS = 8
_LANCZOS, _LANCZOS_LEAST = 50, 20
_LANCZOS_SETTLED = 1e-5
_CHUNK = 4096
# Rows for each entry of the symmetric basis, below which the noise of the matrix hides nearly every feature.
_ROWS_PER_PRODUCT = 8


@dataclass(frozen=True, eq=False)
class Cumulants(Measured):
    """What `cumulant_rank` found; iterating gives the measurements.

    Args:
        measurements: `cumulant_rank`, `cumulant_directions`, `cumulant_components`, `norm_variation`,
            `feature_dependence`.
        eigenvalues: of the fourth-cumulant matrix, largest first; a feature that is on with probability p and varies
            little has about 1/p of them times its squared norm in white coordinates.
        edge: what noise alone exceeds once in 20 times.
        directions: unit directions in x of the rank-one parts, the clearest first.
        isolated: which of them stand alone: neither dependent on others nor of several dimensions.
        dimensions: d', in which the matrix was made.
        certificate: whether more independent sources than dimensions are shown, in a sentence; "" where they are not.
    """

    measurements: tuple[Measurement, ...]
    eigenvalues: Float[Tensor, "m"]
    edge: float
    directions: Float[Tensor, "n d"]
    isolated: Bool[Tensor, "n"]
    dimensions: int
    certificate: str = ""

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def cumulant_rank(
    x: Float[Tensor, "rows d"], *, dimensions: int = 32, groups: int = 16, normalise: bool = False, seed: int = 0
) -> Cumulants:
    r"""Rank of $Q_{(ij),(kl)} = \mathrm{cum}(y_i, y_j, y_k, y_l)$ of white rows y: features that are not Gaussian.

    Estimand: n, features whose values are independent, up to a factor common to the row. Then
    $Q = \sum_j \kappa_j\, (b_j \otimes b_j)(b_j \otimes b_j)^\top$, one rank for each, up to $d'(d'+1)/2$ of them. No
    dictionary, width or k is involved, and Gaussian noise of any covariance cancels.

    Rows are projected to d' random white directions where d is larger; this costs no rank. The rows are cut into
    groups of neighbours, so that text which hangs together stays together. Q of each group with a random sign, half of
    each, is a draw of the noise; an eigenvalue counts where it exceeds the largest of 19 draws. The features that
    count are then projected out and the noise that is left is measured again, until no more count.

    Interval: the count is a lower bound, exceeded by noise in at most about 5 % of cases; there is no upper one, since
    eigenvalues may be as small as they like. Null: nothing in Gaussian rows. A factor s common to a row (elliptical
    rows, norms that vary from token to token) adds $(E s^4 - 1)$ times the Gaussian's moments, which shows in the
    smallest eigenvalues too; it is measured there on one half of the groups in directions that the other half chose,
    and taken away: nothing in elliptical rows. `norm_variation` is that number. Below 0, norms vary less than those of
    independent features, as with exactly k active: that is left as it is, and costs a few ranks. More features than
    d'(d'+1)/2 raise the smallest eigenvalues too, so that too few of them count, and the caution says so. `normalise`
    divides each white row by its norm instead: less noise where norms vary by much, but the features are then no
    longer quite independent.

    Dependence adds to the rank: up to one for each pair of dependent features, and m (m + 1) / 2 for one of m
    dimensions. `cumulant_directions` counts the directions v with $v v^\top$ in the range of Q, which are features
    themselves, against the best that random ranges of that rank hold (`rank_one_directions`). One that can be turned
    without leaving the range depends on another, or is of a feature of several dimensions: `cumulant_components`
    counts what hangs together so as one. `feature_dependence` is the share of energy off the diagonal of K, which is Q
    in terms of those directions, $K_{ij} = \mathrm{cum}(f_i, f_i, f_j, f_j)$, each product taken from two halves of
    the rows so that noise cancels: 0 where features are independent, noise aside.

    Certificate: more directions that stand alone than dimensions in which x varies. The rank alone shows none, since
    d' dependent sources can have a rank of d' (d' + 1) / 2, and a projection of d independent ones a rank of d > d'.

    Abstains (rank None) in fewer than 1 000 rows or 1 000 different rows, where x varies in fewer than two directions.

    Costs O(N d'^4 / 4) in one product of matrices, O(d'^6) for eigenvalues, and 16 d'^4 / 4 numbers of memory: for
    100 000 rows about 3 s of one core at d' = 32, 15 s at d' = 48, the search for directions included.

    Args:
        x: rows.
        dimensions: d' at most; fewer where there are fewer than 8 rows for each of the d'(d'+1)/2 products.
        groups: of rows, an even number, at least 8.
        normalise: see above.
        seed: of projection, signs and starts.

    Raises:
        ShapeError: if x is no matrix.
        ValueError: if x has NaN or infinite numbers, or a setting is out of range.

    Source:
        The quadricovariance of blind source separation: Cardoso, "Super-symmetric decomposition of the fourth-order
        cumulant tensor", 1991; De Lathauwer, Castaing and Cardoso, "Fourth-order cumulant-based blind identification
        of underdetermined mixtures", 2007. Directions: Kileel and Pereira, "Subspace power method for symmetric
        tensor decomposition", 2019. Sign flips, common factor and deflated edge are ours.

    Example:
        >>> x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) ** 8
        >>> int(cumulant_rank(x)["cumulant_rank"].value)
        3
    """
    if dimensions < 2:
        raise ValueError(f"cumulant_rank: dimensions must be at least 2; got {dimensions}.")
    if groups < 8 or groups % 2:
        raise ValueError(f"cumulant_rank: groups must be an even number, at least 8; got {groups}.")
    white = white_rows(x)
    if isinstance(white, str):
        return _abstained(len(x), x.shape[-1], white)
    generator = torch.Generator().manual_seed(seed)
    y = _projected(white, dimensions, generator)
    if normalise:
        y = y * (y.shape[1] ** 0.5 / y.norm(dim=1, keepdim=True).clamp(min=1e-30))
        y = y - y.mean(0)
    rank = _Rank.of(y, groups, normalise, generator)
    found = rank_one_directions(rank.basis, rank.eigenvectors[:, : rank.rank], generator)
    return _answer(white, y, rank, found)


def _projected(white: WhiteRows, dimensions: int, generator: torch.Generator) -> Tensor:
    """y in at most so many dimensions."""
    r = white.r
    affordable = int(((1 + 8 * len(white.y) / _ROWS_PER_PRODUCT) ** 0.5 - 1) / 2)
    size = max(min(r, dimensions, affordable), 2)
    if size == r:
        return white.y
    frame, _ = torch.linalg.qr(torch.randn(r, size, generator=generator, dtype=torch.float64))
    return white.y @ frame.to(white.y)


@dataclass(frozen=True, eq=False)
class _Rank:
    """The matrix, its decomposition, and what counts in it."""

    basis: SymmetricBasis
    halves: tuple[Tensor, Tensor]
    eigenvalues: Tensor
    eigenvectors: Tensor
    rank: int
    edge: float
    variation: float

    @classmethod
    def of(cls, y: Float[Tensor, "rows r"], groups: int, normalised: bool, generator: torch.Generator) -> _Rank:
        r = y.shape[1]
        basis = SymmetricBasis(r)
        m, (i, j) = basis.m, basis.pairs
        parts = torch.zeros(groups, m, m, dtype=torch.float64)
        for g, part in enumerate(y.tensor_split(groups)):
            for block in part.split(_CHUNK):
                products = basis.squares(block)
                parts[g] += (products.T @ products).double().cpu()
            parts[g] /= len(part)
        # The fourth moments of white Gaussian rows; of uniform ones on the sphere a factor less.
        diagonal = (i == j).double()
        gaussian = torch.outer(diagonal, diagonal) + 2 * torch.eye(m, dtype=torch.float64)
        if normalised:
            gaussian *= r / (r + 2)
        parts -= gaussian
        halves = parts[0::2].mean(0), parts[1::2].mean(0)
        variation = _common(*halves, diagonal)
        # Only what is above 0: below, taking it away would raise what is not at the bottom, and count it.
        gaussian *= max(variation, 0.0)
        parts -= gaussian
        halves = halves[0] - gaussian, halves[1] - gaussian
        whole = parts.mean(0)
        eigenvalues, eigenvectors = torch.linalg.eigh(whole)
        eigenvalues, eigenvectors = eigenvalues.flip(0), eigenvectors.flip(1)
        parts -= whole
        signs = torch.ones(_FLIPS, groups, dtype=torch.float64)
        for flip in signs:
            flip[torch.randperm(groups, generator=generator)[: groups // 2]] = -1
        noise = (signs @ parts.flatten(1) / groups).view(_FLIPS, m, m).float()
        rank, edge = _above_noise(eigenvalues, eigenvectors, noise)
        return cls(basis, halves, eigenvalues, eigenvectors, rank, edge, variation)


def _common(a: Tensor, b: Tensor, diagonal: Tensor) -> float:
    """kappa of the part kappa (2 I + i i^T) that all directions have: seen by each half where the other is smallest."""
    found = []
    for chosen, seen in ((a, b), (b, a)):
        _, vectors = torch.linalg.eigh(chosen)
        low = vectors[:, : max(len(diagonal) // 4, 1)]
        weight = 2 * low.shape[1] + float((diagonal @ low).square().sum())
        found.append(float((low * (seen @ low)).sum()) / weight)
    return sum(found) / 2


def _above_noise(eigenvalues: Tensor, eigenvectors: Tensor, noise: Tensor) -> tuple[int, float]:
    """How many eigenvalues noise does not explain, and the edge that says so."""
    rank, edge = 0, 0.0
    for _ in range(_ROUNDS):
        if rank == len(eigenvalues):
            break
        edge = float(_largest(noise, eigenvectors[:, :rank].to(noise)))
        more = int((eigenvalues > edge).sum())
        settled, rank = more <= 1.01 * rank, max(more, rank)
        if settled:
            break
    return rank, edge


def _largest(matrices: Float[Tensor, "b m m"], without: Float[Tensor, "m k"]) -> Float[Tensor, ""]:
    """The largest eigenvalue of all symmetric matrices on what is orthogonal to some columns, by Lanczos steps."""
    b, m, _ = matrices.shape
    steps = min(_LANCZOS, m - without.shape[1])
    v = torch.randn(b, m, generator=torch.Generator().manual_seed(0)).to(matrices)
    vectors = matrices.new_zeros(b, steps, m)
    tridiagonal = matrices.new_zeros(b, steps, steps)
    largest = matrices.new_tensor(-torch.inf)
    for step in range(steps):
        # Twice, for what rounding leaves.
        for _ in range(2):
            v = torch.addmm(v, v @ without, without.T, alpha=-1)
            before = vectors[:, :step]
            v = torch.baddbmm(v[:, None], torch.bmm(v[:, None], before.mT), before, alpha=-1)[:, 0]
        length = v.norm(dim=1)
        if step:
            tridiagonal[:, step, step - 1] = tridiagonal[:, step - 1, step] = length
        v = v / length.clamp(min=torch.finfo(v.dtype).tiny)[:, None]
        vectors[:, step] = v
        w = torch.bmm(matrices, v[:, :, None])[:, :, 0]
        tridiagonal[:, step, step] = (w * v).sum(1)
        v = w
        if step == steps - 1 or (step >= _LANCZOS_LEAST and not step % 5):
            last, largest = largest, torch.linalg.eigvalsh(tridiagonal[:, : step + 1, : step + 1])[:, -1].max()
            if float(largest - last) <= _LANCZOS_SETTLED * float(largest.abs()):
                break
    return largest


def _lifted(white: WhiteRows, y: Tensor, units: Tensor) -> Float[Tensor, "n d"]:
    r"""Directions in x of directions in the projection: cum(x, v y, v y, v y), signed so that activity is positive.

    The third power leaves of features that overlap with v little but the one that v is of.
    """
    if not len(units):
        return torch.zeros(0, white.from_white.shape[1])
    lifted, third = [], []
    for v in units.to(y).split(256):
        sums = torch.zeros(len(v), white.r, dtype=torch.float64)
        cubes = torch.zeros(len(v), dtype=torch.float64)
        second = torch.zeros_like(sums)
        for full, block in zip(white.y.split(_CHUNK), y.split(_CHUNK), strict=True):
            z = block @ v.T
            sums += ((z**3).T @ full).double().cpu()
            second += (z.T @ full).double().cpu()
            cubes += (z**3).sum(0).double().cpu()
        sums, second, cubes = sums / len(y), second / len(y), cubes / len(y)
        lifted.append(sums - 3 * second)
        third.append(cubes)
    directions, skew = torch.cat(lifted), torch.cat(third)
    directions = directions * torch.where(skew < 0, -1.0, 1.0)[:, None]
    return torch.nn.functional.normalize(directions @ white.from_white.cpu(), dim=1).float()


def _dependence(rank: _Rank, units: Tensor) -> float | None:
    """Energy of cum(f_i, f_i, f_j, f_j), i and j different, as a share of all; each product from two halves."""
    count = len(units)
    if count < 2:
        return None
    atoms = rank.basis.squares(units).double()
    inverse = torch.linalg.pinv(atoms, rtol=1e-3)
    a, b = (inverse.T @ half @ inverse for half in rank.halves)
    both = a * b
    whole = float(both.sum())
    return (whole - float(both.diagonal().sum())) / whole if whole > 0 else None


def _answer(white: WhiteRows, y: Tensor, rank: _Rank, found: RankOne) -> Cumulants:
    size, m, units = y.shape[1], rank.basis.m, found.vectors
    isolated = int(found.isolated.sum())
    cautions = list(white.cautions)
    if rank.rank > 0.8 * m:
        cautions.append(f"{m} is the most that {size} dimensions can show: there may be any number more")
    elif size < white.r:
        cautions.append(f"read in {size} random dimensions of {white.r}")
    if rank.variation > 0.05:
        cautions.append(
            f"the smallest eigenvalues are raised by {rank.variation:.2g} of the Gaussian's fourth moments, which was "
            f"taken from all: row norms vary by a common factor, or there are more features than {m}"
        )
    dependence = _dependence(rank, units)
    if isolated < 0.75 * len(units):
        cautions.append(
            f"of {len(units)} directions only {isolated} stand alone: the others depend on each other or belong to "
            "features of several dimensions, which adds to the rank"
        )
    elif dependence is not None and dependence > 0.2:
        cautions.append("features depend on each other, which adds to the rank")
    certificate = ""
    if isolated > white.r and rank.rank > white.r:
        certificate = (
            f"Superposition: fourth moments hold {isolated} single non-Gaussian directions that stand alone, and x "
            f"varies in {white.r} dimensions. No dictionary was learned for this."
        )
    common = {"n": len(y), "of": "rows"}
    measurements = (
        Measurement(
            name="cumulant_rank",
            value=float(rank.rank),
            unit="features",
            how=f"no interval: at least so many, noise reaching the edge {rank.edge:.3g} in 1 of 20 cases",
            chance=0.0,
            chance_is="Gaussian or elliptical rows",
            caution="; ".join(cautions),
            **common,
        ),
        Measurement(
            name="cumulant_directions",
            value=float(len(units)),
            unit="directions",
            how="no interval: those that random starts came to",
            chance=0.0,
            chance_is=f"random ranges hold fits up to {found.chance:.2f}; only fits above {found.threshold:.2f} count",
            **common,
        ),
        Measurement(
            name="cumulant_components",
            value=float(found.components),
            unit="components",
            how="no interval: those that random starts came to",
            chance=0.0,
            chance_is="Gaussian or elliptical rows",
            **common,
        ),
        Measurement(
            name="norm_variation",
            value=rank.variation,
            unit="excess fourth moment",
            chance=0.0,
            chance_is="norms as independent features make them",
            **common,
        ),
        Measurement(
            name="feature_dependence",
            value=dependence,
            unit="share of cumulant energy",
            chance=0.0,
            chance_is="independent features",
            caution="" if dependence is not None else "there are no two directions whose cumulants can be told apart",
            **common,
        ),
    )
    return Cumulants(
        measurements=measurements,
        eigenvalues=rank.eigenvalues,
        edge=rank.edge,
        directions=_lifted(white, y, units),
        isolated=found.isolated,
        dimensions=size,
        certificate=certificate,
    )


def _abstained(rows: int, d: int, reason: str) -> Cumulants:
    none = Measurement(name="cumulant_rank", value=None, unit="features", n=rows, of="rows", caution=f"{reason}.")
    return Cumulants((none,), torch.zeros(0), 0.0, torch.zeros(0, d), torch.zeros(0, dtype=torch.bool), 0)


class CumulantRank(Counter):
    """`cumulant_rank` of at most `rows` of the rows learned from, in at most `dimensions` dimensions.

    Args:
        dimensions: see `cumulant_rank`.
        rows: read at most so many.
        normalise: see `cumulant_rank`.
    """

    name: ClassVar[str] = "cumulant_rank"

    def __init__(self, dimensions: int = 32, rows: int = 100_000, normalise: bool = False) -> None:
        self.dimensions = dimensions
        self.rows = rows
        self.normalise = normalise

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return ()

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        x = rows_of(seen.rows, self.rows)
        return cumulant_rank(x, dimensions=self.dimensions, normalise=self.normalise, seed=seen.seed)
