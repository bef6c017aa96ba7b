"""How good is a direction of a concept: held-out texts, other concepts, a dictionary's latents?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...core import Findings, Measurement, Site, SparseCoder
from ...intervene import concepts
from ...intervene.concepts import ContrastRows, Direction, Finder
from ...measure.interval import Interval, bootstrap, wilson

STEERED = concepts.DiffMean.name
"""The finder whose direction is added to x."""


def judged(
    found: Findings,
    site: Site,
    name: str,
    finder: Finder,
    train: ContrastRows,
    held: ContrastRows,
    caution: str,
    seed: int,
) -> Direction:
    """One direction of a concept at a site, and what is known of it on held-out texts."""
    direction = finder.find(train)
    known = concepts.reliability(direction, held, train=train, finder=finder)
    at = {"site": str(site), "concept": name, "finder": finder.name}
    texts = len(known.correct)
    most = max(len(held.positive), len(held.negative)) / texts
    said = joined(caution, known.caution)
    found.add(
        Measurement(
            name="probe_accuracy",
            value=known.accuracy,
            unit="share of texts",
            n=texts,
            of="held-out texts",
            chance=most,
            chance_is="the more frequent side",
            caution=said,
            at=at,
            **wilson(int(known.correct.sum()), texts, of="held-out texts").fields,
        )
    )
    found.add(
        Measurement(
            name="concept_separation",
            value=known.d_prime if math.isfinite(known.d_prime) else None,
            unit="standard deviations",
            n=texts,
            of="held-out texts",
            chance=0.0,
            chance_is="a direction that knows nothing",
            caution="" if math.isfinite(known.d_prime) else "undefined: the sides do not spread",
            at=at,
            **_separation(direction, held, seed).fields,
        )
    )
    of = "held-out pairs" if held.paired else "held-out texts"
    found.add(
        Measurement(
            name="wrong_way_share",
            value=known.wrong_way,
            unit="share",
            n=len(known.wrong),
            of=of,
            chance=0.5,
            chance_is="a direction that knows nothing",
            at=at,
            **wilson(int(known.wrong.sum()), len(known.wrong), of=of).fields,
        )
    )
    if known.cosine is not None and finder.name == STEERED:
        found.add(
            Measurement(
                name="pair_cosine",
                value=known.cosine,
                unit="cosine",
                n=len(train.positive),
                of="pairs",
                how="no interval: one measurement",
                chance=1 / math.sqrt(len(train.positive)),
                chance_is="pairs that share nothing",
                at=at,
            )
        )
    found.add(
        Measurement(
            name="class_dimension",
            value=float(known.class_dimension),
            unit="directions",
            n=texts,
            of="held-out texts",
            how="no interval: a count",
            caution="the search ended at its limit" if known.capped else "",
            at=at,
        )
    )
    return direction


def _separation(direction: Direction, held: ContrastRows, seed: int) -> Interval:
    """Of d', texts being resampled."""
    reads = [direction.read(side).numpy() for side in (held.positive, held.negative)]
    # Counts, sums and squares of each side: what d' is made of.
    sums = np.zeros((sum(map(len, reads)), 6))
    start = 0
    for side, read in enumerate(reads):
        part = slice(start, start + len(read))
        sums[part, 3 * side : 3 * side + 3] = np.column_stack([np.ones(len(read)), read, read**2])
        start += len(read)

    def statistic(s: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [s[:, 3 * side + 1] / s[:, 3 * side] for side in (0, 1)]
            spread = [s[:, 3 * side + 2] / s[:, 3 * side] - means[side] ** 2 for side in (0, 1)]
            return (means[0] - means[1]) / np.sqrt((spread[0] + spread[1]) / 2)

    return bootstrap(statistic, sums, of="held-out texts", seed=seed)


def entangled(
    found: Findings,
    site: Site,
    directions: Mapping[str, Direction],
    rows: Mapping[str, tuple[dict[Site, ContrastRows], dict[Site, ContrastRows]]],
) -> None:
    """How far concepts move each other, at one site."""
    if len(directions) < 2:
        return
    matrix = concepts.entanglement(directions, {name: rows[name][1][site] for name in directions})
    for i, name in enumerate(matrix.names):
        for j, other in enumerate(matrix.names):
            cosine, effect = float(matrix.cosines[i, j]), float(matrix.effects[i, j])
            found.row("entanglement", site=str(site), concept=name, other=other, cosine=cosine, effect=effect)
        found.add(
            Measurement(
                name="concept_crosstalk",
                value=float(matrix.crosstalk[i]),
                unit="share of its own effect",
                n=sum(len(rows[other][1][site].x) for other in matrix.names),
                of="held-out texts",
                at={"site": str(site), "concept": name},
            )
        )


def in_dictionary(
    found: Findings,
    site: Site,
    coder: SparseCoder,
    directions: Mapping[tuple[Site, str, str], Direction],
    rows: Mapping[str, tuple[dict[Site, ContrastRows], dict[Site, ContrastRows]]],
    seed: int,
) -> None:
    """Which latents tell the concepts apart, and which share their directions."""
    code = concepts.dense_code(coder)
    for name, (first, second) in rows.items():
        at = {"site": str(site), "concept": name}
        ranked = concepts.rank_latents(code, first[site], second[site], seed=seed)
        found.rows(
            "latents",
            {"latent": ranked.latent.tolist(), "auc": ranked.auc.tolist(), "train_auc": ranked.train_auc.tolist()},
            at=at,
        )
        best = float((ranked.auc - 0.5).abs().max()) + 0.5
        found.add(
            Measurement(
                name="best_latent_auc",
                value=best,
                unit="probability",
                n=len(second[site].x),
                of="held-out texts",
                chance=ranked.chance,
                chance_is="the best of as many where sides were shuffled",
                at=at,
            )
        )
        if (site, name, STEERED) not in directions:
            continue
        shared = concepts.shared_features(directions[site, name, STEERED], coder.dictionary, code, second[site])
        for quantity, value, unit in (
            ("own_features", float(shared.own), "latents"),
            ("probe_interference", shared.interference, "share of variance"),
        ):
            found.add(
                Measurement(name=quantity, value=value, unit=unit, n=len(second[site].x), of="held-out texts", at=at)
            )
        found.rows(
            "shared_features",
            {
                "latent": shared.latent[:20].tolist(),
                "cosine": shared.cosine[:20].tolist(),
                "carries": shared.carries[:20].tolist(),
            },
            at=at,
        )


def joined(*cautions: str) -> str:
    """Cautions as one, each once."""
    return "; ".join(dict.fromkeys(each for each in cautions if each))
