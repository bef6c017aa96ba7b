"""Would the procedure have found what it did not see? Directions planted in the rows, and twin worlds."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from statistics import mean

import torch
from scipy.stats import beta
from torch import Tensor

from ...capture import MemorySource
from ...core import Activations, Dictionary, Measurement, Run
from ...features import Independent, Magnitude, Tabulated
from ...frames import random_unit
from ...measure import moments
from ...recovery import NNOMP
from ...worlds import Planted, World
from ..study import Progress
from .combined import FLOOR
from .search import Given, Look, Looker, Search, levelled

TWINS = 2
"""Twin worlds that are drawn and counted in."""

_PLANTS = 0.1
"""Planted directions for each one that was counted."""

_SAME = 0.8
"""Cosine above which a planted direction is found: that at which dictionaries agree."""

_QUANTILES = 65
_LEAST_DENSITY = 1e-6
_PURSUED = 16_384
_LEVEL, _Z = 0.9, 1.645


@dataclass(frozen=True, eq=False)
class Checks:
    """How the procedure does on what it is told of its own finding.

    Args:
        planted: directions that were planted.
        recovered: of them, those found again.
        twins: ln(counted / true) in each twin world.
        findings: what was measured.
        sentences: what they say.
    """

    planted: int
    recovered: int
    twins: tuple[float, ...]
    findings: tuple[Measurement, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was counted, as it is in levelled rows.

    Args:
        directions: unit rows.
        densities: share of rows in which each is active.
        lengths: mean value while active.
        law: of values while active, in units of their mean.
        residual: V, so that what the directions leave has the covariance V^T V.
    """

    directions: Tensor
    densities: Tensor
    lengths: Tensor
    law: Magnitude
    residual: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, look: Look, held: Tensor) -> _Seen:
        x = held[:_PURSUED]
        directions, densities = look.agreed.directions[look.kept], look.agreed.densities[look.kept]
        dictionary = Dictionary(directions.to(x))
        k = max(1, min(math.ceil(2 * float(densities.sum())), dictionary.n, x.shape[1] // 2))
        codes = NNOMP(dictionary, k=k).solve(x).code
        values = codes.dense()
        # A pursuit gives most rows some small values of what is not active: as many of the largest as it is dense.
        lengths, relative = [], []
        for j, density in enumerate(densities.tolist()):
            active = values[:, j].topk(max(2, round(density * len(x)))).values
            lengths.append(max(float(active.mean()), 1e-6))
            relative.append(active / lengths[-1])
        left = x - dictionary.compose(codes)
        spread = moments([Activations(left)])
        variances, vectors = torch.linalg.eigh(spread.covariance.double())
        residual = (vectors * variances.clamp(min=0).sqrt()).T.to(x)
        return cls(
            dictionary.atoms,
            densities.clamp(_LEAST_DENSITY, 1.0),
            torch.tensor(lengths),
            Tabulated(tuple(torch.cat(relative).quantile(torch.linspace(0, 1, _QUANTILES)).tolist())),
            residual,
        )


def checked(
    x: Tensor, held: Tensor, found: Search, value: float, run: Run, given: Given, *, place: str = "checks"
) -> Generator[Progress, None, Checks]:
    r"""Completeness of planted directions, and the bias of the count in worlds like the one that was counted in.

    **Plant and recover.** As many as a tenth of the directions that were counted are added to the rows, each a random
    direction with the density and the length of one that was counted, independent of all. The look that the answer was
    read at is taken again. Estimand: completeness, the chance that a feature of the kind that was counted is found;
    interval: 90 %, binomial (Clopper and Pearson). $\hat n = n_\mathrm{counted} / \mathrm{completeness}$. Features of
    another kind, rarer or fainter than any that was counted, are in neither.

    **Twin worlds.** A world of n features, n the answer: the directions that were counted and random ones for those
    that were not, with their densities, magnitudes and the covariance of what they leave unexplained, and all of it
    independent. The same look is taken at as many rows of it; $b = \ln(\hat n / n)$ is known there, and
    $\hat n e^{-b}$ is the count corrected for it. Interval: 90 %, the look's own deviation, the range of b over
    twins and `combined.FLOOR`. What makes the real rows unlike their twin (dependence, several dimensions) is not in b.

    Args:
        x: the rows that were learned from.
        held: those that directions were certified on.
        found: the search that is checked.
        value: the answer, in features.
        run: keeps the dictionaries.
        given: the seed.
        place: folder of the run.

    Source:
        Planting: peptides of known amount ("spike-in") in mass spectrometry; simulated sources in sky surveys. Twins:
        the parametric bootstrap; Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 6.
    """
    level, held_level, _ = levelled(x, held)
    seen = _Seen.of(found.best, held_level)
    setting, unlimited = found.best.setting, replace(given, budget=math.inf)
    generator = torch.Generator().manual_seed(given.seed)
    of = torch.randint(len(seen.directions), (max(4, round(_PLANTS * len(seen.directions))),), generator=generator)
    atoms = random_unit(n=len(of), d=x.shape[1], seed=given.seed + 1).atoms * seen.lengths[of, None]
    densities = tuple(seen.densities[of].tolist())

    def planted(rows: Tensor, seed: int) -> Tensor:
        return next(
            Planted(MemorySource(rows), Dictionary(atoms), densities, seen.law, seed).batches(len(rows), seed=0)
        ).x

    looker = Looker(planted(level, 1), planted(held_level, 2), run, unlimited, f"{place}/plants")
    look = yield from looker.at(setting)
    back = torch.nn.functional.normalize(look.agreed.directions[look.kept].to(looker.back) @ looker.back, dim=1)
    recovered = 0
    if len(back):
        cosines = torch.nn.functional.normalize(atoms, dim=1).to(back) @ back.T
        recovered = int((cosines.max(1).values > _SAME).sum())
    biases = []
    n = max(round(value), len(seen.directions))
    for twin in range(TWINS):
        world = _twin(seen, n, given.seed + 10 + twin)
        rows = next(world.batches(len(x) + len(held), seed=given.seed + 10 + twin)).x
        looker = Looker(rows[: len(x)], rows[len(x) :], run, unlimited, f"{place}/twin{twin}")
        counted = (yield from looker.at(setting)).count
        biases.append(math.log(max(counted.value, 0.5) / n))
    return _read(found.best, value, len(of), recovered, tuple(biases), len(x))


def _twin(seen: _Seen, n: int, seed: int) -> World:
    """n features as those that were counted, the ones that were not seen with densities of the rarer half."""
    more = n - len(seen.directions)
    generator = torch.Generator().manual_seed(seed)
    rarest = seen.densities.argsort()[: max(1, len(seen.densities) // 2)]
    of = rarest[torch.randint(len(rarest), (more,), generator=generator)]
    own = seen.directions * seen.lengths[:, None]
    if more:
        unseen = random_unit(n=more, d=own.shape[1], seed=seed).atoms * seen.lengths[of, None]
        own = torch.cat([own, unseen.to(own)])
    densities = torch.cat([seen.densities, seen.densities[of]])
    law = Independent(n, tuple(densities.tolist()), seen.law)
    return World(law, Dictionary(own), nuisance=Dictionary(seen.residual))


def _read(best: Look, value: float, planted: int, recovered: int, twins: tuple[float, ...], rows: int) -> Checks:
    """The measurements, and what they say in words."""
    tail = (1 - _LEVEL) / 2
    low = float(beta.ppf(tail, recovered, planted - recovered + 1)) if recovered else 0.0
    high = float(beta.ppf(1 - tail, recovered + 1, planted - recovered)) if recovered < planted else 1.0
    share, counted, bias = recovered / planted, best.count.counted, mean(twins)
    deviation = math.hypot(best.count.deviation, max(twins) - min(twins), FLOOR)
    corrected = best.count.value * math.exp(-bias)
    plants = {"n": planted, "of": "planted directions", "how": f"{_LEVEL:.0%}, binomial"}
    findings = (
        Measurement(
            name="plant_completeness", value=share, unit="share of planted directions", low=low, high=high, **plants
        ),
        Measurement(
            name="count_by_plants",
            value=counted / share if recovered else None,
            unit="features",
            low=counted / high,
            high=counted / low if low else None,
            caution="" if recovered else "no planted direction was found again: nothing is known of what was missed",
            **plants,
        ),
        Measurement(
            name="twin_bias",
            value=bias,
            unit="ln(counted / true)",
            n=len(twins),
            of="twin worlds",
            low=min(twins),
            high=max(twins),
            how="the range over twin worlds",
            reference=0.0,
            reference_is="counted right",
        ),
        Measurement(
            name="count_by_twins",
            value=corrected,
            unit="features",
            n=rows,
            of="rows",
            low=corrected * math.exp(-_Z * deviation),
            high=corrected * math.exp(_Z * deviation),
            how=f"{_LEVEL:.0%}: the look's own deviation, the range over twin worlds and what no look shows",
        ),
    )
    sentences = (
        f"Of {planted} directions planted as dense and as long as those counted, {recovered} were found again"
        + (f": {counted / share:,.0f} features by this." if recovered else ": what was missed is not known."),
        f"In {len(twins)} worlds of {round(value):,} known features made like these rows the same look counts "
        f"{math.expm1(bias):+.0%}: {corrected:,.0f} features once this is taken off.",
    )
    return Checks(planted, recovered, twins, findings, sentences)


__all__ = ["Checks", "checked"]
