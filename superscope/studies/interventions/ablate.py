"""What does a model lose when a direction or a latent is taken out of x? Several ablations beside each other."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site, SparseCoder
from ...intervene import Edit, Loss, next_token_loss
from ...intervene.edits import Latent, Leace, MeanAblate, NormKept, OracleLeace, ProjectOut, Scale
from ...intervene.gates import LatentActive, Lmmse
from ...measure.interval import bootstrap
from ..study import Progress
from .aimed import Aimed, rows_of_corpus, rows_of_texts

ABLATIONS: Mapping[str, str] = {
    "project_out": "orthogonal projection",
    "mean": "projection to the mean",
    "norm_kept": "orthogonal projection at the same length",
    "leace": "no linear reader tells the two sides of the contrast",
    "gated": "only where a linear read-out of the contrast is on",
    "latent": "the latent set to 0, the dictionary's error kept",
    "latent_gated": "orthogonal projection where the latent is on",
}
"""What each is, in words. Those of a latent need a dictionary."""


@dataclass(frozen=True)
class Ablate(Aimed):
    """What does a model lose when a direction is taken out of x?

    Takes a direction (of contrasting texts, of a file, or a latent) out of x at one site in several ways, and says of
    each what it changes in rows that have the concept, rows that have not and unrelated ones, and what the model's
    predictions of each lose. The floor is what erasing the contrast would cost if every row's side were known.
    """

    kind: ClassVar[str] = "ablate"

    ablations: tuple[str, ...] = ()
    """Which (project_out, mean, norm_kept, leace, gated, latent, latent_gated). Default: all that can be."""

    def check(self) -> None:
        super().check()
        for name in self.ablations:
            if name not in ABLATIONS:
                raise ValueError(f"there is no ablation {name!r}. There are {', '.join(ABLATIONS)}.")
            if name.startswith("latent") and self.sae is None:
                raise ValueError(f"{name} needs a dictionary; give --sae and --latent.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        self.conceal(run)
        yield Progress(f"Loading {self.model}", 0, 1)
        subject, site = self.opened()
        corpora: dict[str, Corpus | list[str]] = {
            "unrelated": self.corpus(subject),
            "towards": list(self.towards),
            "away": list(self.away),
        }
        yield Progress(f"Loading {self.model}", 1, 1, str(site))
        yield Progress("Reading x", 0, 1)
        rows = {
            name: rows_of_texts(subject, site, text) if isinstance(text, list) else rows_of_corpus(subject, site, text)
            for name, text in corpora.items()
        }
        coder = self.coder(subject, rows["away"].shape[1])
        direction, origin = self.aim(site, rows["away"].shape[1], coder, rows["towards"], rows["away"])
        both = torch.cat([rows["towards"], rows["away"]])
        label = (torch.arange(len(both)) < len(rows["towards"])).double()
        edits = self._edits(direction, rows["unrelated"].mean(0), both, label, coder)
        yield Progress("Reading x", 1, 1, f"{len(both):,} rows of contrast")
        found, size = Findings(), float(rows["unrelated"].double().square().sum(1).mean())
        floor = OracleLeace.fit(both, label)
        found.add(_change(both, floor(both), size), at={"edit": "oracle", "where": "contrast"})
        own = {name: next_token_loss(subject, text) for name, text in corpora.items()}
        for done, (name, edit) in enumerate(edits.items()):
            yield Progress("Ablating", done, len(edits), name)
            self._measure(found, subject, site, name, edit, corpora, rows, own, size)
            found.add(_change(both, edit(both), size), at={"edit": name, "where": "contrast"})
            found.add(_told(both, edit(both), label), at={"edit": name, "where": "contrast"})
        yield Progress("Ablating", len(edits), len(edits))
        return Answer(
            title=f"{subject.name}: a direction taken out at {site}",
            findings=found,
            sentences=self._sentences(found, edits, origin),
            arrays={"direction": direction},
        )

    def _edits(
        self, direction: Tensor, mean: Tensor, both: Tensor, label: Tensor, coder: SparseCoder | None
    ) -> dict[str, Edit]:
        gate = Lmmse.fit(both, label) if len(both) > both.shape[1] else None
        made: dict[str, Edit] = {
            "project_out": ProjectOut(direction),
            "mean": MeanAblate(mean, direction),
            "norm_kept": NormKept(ProjectOut(direction)),
            "leace": Leace.fit(both, label),
        }
        if gate is not None:
            made["gated"] = Scale(direction, gate=gate)
        if coder is not None and self.latent is not None:
            made["latent"] = Latent(coder, {self.latent: 0.0})
            made["latent_gated"] = ProjectOut(direction, gate=LatentActive(coder, self.latent))
        if "gated" in self.ablations and gate is None:
            raise ValueError(
                f"gated reads {both.shape[1]} dimensions off {len(both)} rows of contrast; give more or longer "
                "texts with --towards and --away."
            )
        return {name: edit for name, edit in made.items() if not self.ablations or name in self.ablations}

    def _measure(
        self,
        found: Findings,
        subject: Subject,
        site: Site,
        name: str,
        edit: Edit,
        corpora: Mapping[str, Corpus | list[str]],
        rows: Mapping[str, Tensor],
        own: Mapping[str, Loss],
        size: float,
    ) -> None:
        for where, text in corpora.items():
            at = {"edit": name, "where": where}
            ablated = next_token_loss(subject, text, splice={site: edit})
            found.add(_added(own[where], ablated, self.seed), at=at)
            found.add(_change(rows[where], edit(rows[where]), size), at=at)

    def _sentences(self, found: Findings, edits: Mapping[str, Edit], origin: str) -> list[str]:
        lost = {name: found["loss_added", name, "unrelated"].value or 0.0 for name in edits}
        least = min(lost, key=lambda name: abs(lost[name]))
        reads = "; ".join(dict.fromkeys(f"{name}: {edit.reads}" for name, edit in edits.items()))
        return [
            f"Direction: {origin}.",
            f"Unrelated text loses least to {least} ({ABLATIONS[least]}): {lost[least]:+.4f} nats a token; to "
            f"orthogonal projection {lost.get('project_out', lost[least]):+.4f}.",
            f"Read-outs assumed: {reads}.",
        ]


def _added(clean: Loss, ablated: Loss, seed: int) -> Measurement:
    sums = np.stack([(ablated.nats - clean.nats).numpy(), clean.counts.double().numpy()], 1)
    return Measurement(
        name="loss_added",
        value=ablated.mean - clean.mean,
        unit="nats per token",
        n=int(clean.counts.sum()),
        of="tokens",
        **bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of="windows", seed=seed).fields,
    )


def _change(before: Tensor, after: Tensor, size: float) -> Measurement:
    change = (after.double() - before.double()).square().sum(1)
    return Measurement(
        name="squared_change",
        value=float(change.mean()) / size,
        unit="share of the mean squared norm",
        n=len(change),
        of="tokens",
    )


def _told(before: Tensor, after: Tensor, label: Tensor) -> Measurement:
    """How much of the two sides' difference of means is left."""
    gap = lambda x: (x[label == 1].double().mean(0) - x[label == 0].double().mean(0)).norm()  # noqa: E731
    return Measurement(
        name="difference_left",
        value=float(gap(after) / gap(before)),
        unit="share",
        n=len(before),
        of="tokens",
        reference=0.0,
        reference_is="nothing left is",
    )
