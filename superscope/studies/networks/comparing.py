"""What must be kept of a place to compare it with another? Codes of what was held out, by every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_matrix

from ... import intervene
from ...capture import Corpus, Subject
from ...core import Findings, Measurement
from ...measure import active, bootstrap, features_found
from ...measure.agreement.transfer import ALIKE, used
from .readings import Reading, View

FEWEST_ROWS = 1000
"""Held-out rows below which features are not compared."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Codes of one place.

    Args:
        rows: of each code its row's number, sequence * context + position, rising.
        codes: of each seed's dictionary.
    """

    rows: np.ndarray
    codes: tuple[csr_matrix, ...]


@dataclass(frozen=True)
class Codes(Reading):
    """Keeps the codes of each place by the label of its model, or of it and its site."""

    name: ClassVar[str] = "codes"

    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)

    def read(self, seen: View, findings: Findings) -> None:
        places = [batch.places for batch in seen.held]
        assert all(each is not None for each in places)
        where = torch.cat([each for each in places if each is not None]).cpu().numpy()
        rows = where[:, 0] * seen.held_out.context + where[:, 1]
        order = np.argsort(rows, kind="stable")
        codes = tuple(active(seen.readers[w].encode(batch.x) for batch in seen.held)[order] for w in seen.wanted)
        self.kept[seen.label, str(seen.site)] = Kept(rows[order], codes)


def aligned(a: Kept, b: Kept) -> tuple[tuple[csr_matrix, ...], tuple[csr_matrix, ...]]:
    """The codes of both on the rows that both have: outliers of either are left out of both.

    Raises:
        ValueError: if these are too few.
    """
    _, i, j = np.intersect1d(a.rows, b.rows, return_indices=True)
    if len(i) < FEWEST_ROWS:
        raise ValueError(
            f"{len(i):,} held-out rows are in both, too few to compare features on: {FEWEST_ROWS:,} are needed. Give "
            "more --held-out tokens, or more text."
        )
    return tuple(c[i] for c in a.codes), tuple(c[j] for c in b.codes)


def stable(codes: Sequence[csr_matrix], *, seed: int = 0) -> np.ndarray:
    """Latents of the first dictionary that the last one has as well: so that none is an accident of a start."""
    chosen = used(codes[0])
    _, best = features_found(codes[0], codes[-1], among=chosen, draws=1, seed=seed)
    return chosen[best >= ALIKE] if len(chosen) else chosen


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """Several corpora of one context as one, in turn.

    Raises:
        ValueError: if their windows differ in length.
    """
    if len({corpus.context for corpus in corpora}) > 1:
        raise ValueError(f"joined: windows of {[c.context for c in corpora]} ids are no one corpus. Give one context.")
    first, names, documents = corpora[0], [], []
    for corpus in corpora:
        documents.append(corpus.document + len(names))
        names += corpus.names
    parts = {name: torch.cat([getattr(c, name) for c in corpora]) for name in ("ids", "keep", "length", "start")}
    return replace(first, **parts, document=torch.cat(documents), names=tuple(names))


def found_beside_seed(
    a: Sequence[csr_matrix], b: Sequence[csr_matrix], *, seed: int = 0
) -> tuple[Measurement, Measurement, np.ndarray]:
    """`features_found` of a in b with, as its reference, of a in a's own last seed; that; and each latent's best.

    What dictionaries of one place do not share, another cannot have either: the reference is what may be expected.
    """
    own, _ = features_found(a[0], a[-1], seed=seed)
    found, best = features_found(a[0], b[0], seed=seed)
    found = replace(found, reference=own.value, reference_is="found by another seed of the same place")
    return found, replace(own, name="features_found_by_seed"), best


def held_out_losses(subjects: Mapping[str, Subject], held_out: Corpus, findings: Findings, site: str) -> list[float]:
    """Nats per held-out token of each model, resampled by documents; nothing where one predicts none."""
    found = []
    for label, subject in subjects.items():
        if subject.kind != "causal":
            return []
        with torch.no_grad():
            loss = intervene.next_token_loss(subject, held_out)
        document = held_out.document.numpy()
        sums = np.stack([np.bincount(document, v.double().numpy()) for v in (loss.nats, loss.counts)], 1)
        interval = bootstrap(lambda s: s[:, 0] / s[:, 1], sums[sums[:, 1] > 0])
        findings.add(
            Measurement(
                name="held_out_loss",
                value=loss.mean,
                unit="nats per token",
                n=int(loss.counts.sum()),
                of="tokens",
                at={"site": site, "model": label},
                **interval.fields,
            )
        )
        found.append(loss.mean)
    return found
