"""What does a model lose when a direction or a latent is taken out of x? Several ablations beside each other."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import Tensor

from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site
from ...intervene import Edit, Loss, collateral, generate, next_token_loss, text_of
from ...intervene.edits import Add, OracleLeace, over_floor
from ...measure.interval import bootstrap
from ..settings import at_least
from ..study import Progress
from .aimed import Aimed, rows_of_corpus
from .metering import Meter
from .offers import ABLATIONS, Material, missing


@dataclass(frozen=True)
class Ablate(Aimed):
    """What does a model lose when a direction is taken out of x?

    Takes a direction (of contrasting texts, of a file, or a latent) out of x at one site in several ways, and says of
    each what it changes in rows that have the concept, rows that have not and unrelated ones, and what the model's
    predictions of each lose, beside random ablations of the same size. The floor is what erasing as much of the
    contrast would cost if every row's side were known: the rows "oracle_leace".
    """

    kind: ClassVar[str] = "ablate"

    ablations: tuple[str, ...] = ()
    """Which (project_out, mean, norm_kept, clamp, leace, splince, midsteer, alphasteer, protected, gated, latent,
    latent_gated, splice_in). Default: all that what is given allows."""
    new_tokens: Annotated[int, at_least(0)] = 16
    """Tokens to write after the beginnings of the texts that have the concept, with each; 0 writes none."""

    def check(self) -> None:
        super().check()
        for name in self.ablations:
            if name not in ABLATIONS:
                raise ValueError(f"there is no ablation {name!r}. There are {', '.join(ABLATIONS)}.")
            lacking = missing(ABLATIONS[name], latent=self.latent is not None, protect=bool(self.protect))
            if lacking:
                raise ValueError(f"{name} {lacking}.")

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
        corpus = corpora["unrelated"]
        assert isinstance(corpus, Corpus)
        x = rows_of_corpus(subject, site, corpus)
        material, origin = self.material(subject, site, x, self.coder(subject, x.shape[1]))
        rows = {"unrelated": x, "towards": material.has, "away": material.lacks}
        edits = self._edits(material)
        yield Progress("Reading x", 1, 1, f"{len(material.both):,} rows of contrast")
        found = Findings()
        self.tell(found, subject, site)
        own = {name: next_token_loss(subject, text) for name, text in corpora.items()}
        size = float(x.double().square().sum(1).mean())
        oracle = OracleLeace.fit(material.both, material.label)
        for done, (name, everywhere) in enumerate({_ORACLE: _shifts(oracle), **edits}.items()):
            yield Progress("Ablating", done, len(edits) + 1, name)
            for where, text in corpora.items():
                edit = everywhere[where] if isinstance(everywhere, Mapping) else everywhere
                if edit is None:
                    continue
                at = {"edit": name, "where": where}
                found.add(_added(own[where], next_token_loss(subject, text, splice={site: edit}), self.seed), at=at)
                found.add(_change(rows[where], edit(rows[where]), size), at=at)
            self._erased(found, name, oracle if isinstance(everywhere, Mapping) else everywhere, material, size)
        yield Progress("Ablating", len(edits) + 1, len(edits) + 1)
        both = material.both
        meter = self.meter(
            subject, site, corpus, material, lambda edit: 1 - _left(material, (edit(both) - both).double())
        )
        yield from self._metered(found, meter, edits, subject, site)
        return Answer(
            title=f"{subject.name}: a direction taken out at {site}",
            findings=found,
            sentences=[*self._sentences(found, edits, origin), *meter.sentences(found)],
            arrays={"direction": material.direction},
        )

    def _edits(self, material: Material) -> dict[str, Edit]:
        """What was asked for, or all that can be made."""
        made: dict[str, Edit] = {}
        for name, offer in ABLATIONS.items():
            asked = name in self.ablations
            lacking = missing(offer, latent=self.latent is not None, protect=bool(self.protect))
            if (self.ablations and not asked) or lacking:
                continue
            rows, d = material.both.shape
            if "rows" in offer.needs and rows <= d:
                if asked:
                    raise ValueError(
                        f"{name} reads {d} dimensions off {rows} rows of contrast; give more or longer texts with "
                        "--towards and --away."
                    )
                continue
            made[name] = offer.edit(material)
        return made

    def _erased(self, found: Findings, name: str, edit: Edit, material: Material, size: float) -> None:
        """What it takes out of the contrast, and at how many times what the oracle would need for as much."""
        both, label = material.both.double(), material.label
        change = edit(both) - both
        at = {"edit": name, "where": "contrast"}
        found.add(_change(both, both + change, size), at=at)
        left = _left(material, change)
        rows: dict[str, Any] = {"n": len(both), "of": "tokens", "at": at}
        found.add(
            Measurement(
                name="difference_left",
                value=left,
                unit="share",
                reference=0.0,
                reference_is="nothing left is",
                **rows,
            )
        )
        floor = over_floor(change, label)
        found.add(
            Measurement(
                name="over_floor",
                value=floor,
                unit="times",
                reference=1.0,
                reference_is="oracle LEACE",
                caution="" if floor else "it does nothing to the covariance with the label",
                **rows,
            )
        )
        if len(material.x) < material.x.shape[1]:
            return
        present = change[label == 1]
        value = collateral.rho_of_changes(present, material.probe.vector, collateral.second_moment(material.x))
        moves = math.isfinite(value)
        found.add(
            Measurement(
                name="rho",
                value=value if moves else None,
                unit="times",
                n=len(present),
                of="tokens",
                reference=1.0,
                reference_is="no edit is below",
                at={"edit": name, "metric": "second moment"},
                caution="" if moves else "it does not move the concept's read-out on average",
            )
        )

    def _metered(
        self, found: Findings, meter: Meter, edits: Mapping[str, Edit], subject: Subject, site: Site
    ) -> Generator[Progress, None, None]:
        longest = getattr(subject.model.config, "max_position_embeddings", None) or 128
        ids = (subject.tokenizer(text)["input_ids"] for text in self.towards)
        prompts = [one[: max(len(one) // 2, 1)][: max(int(longest) - self.new_tokens, 1)] for one in ids]
        plain = generate(subject, prompts, max_new_tokens=self.new_tokens) if self.new_tokens else ()
        for done, (name, edit) in enumerate(edits.items()):
            yield Progress("Measuring side effects", done, len(edits), name)
            # Its controls at equal KL and effect, of the first: of all it would be as long again.
            meter.measure(found, edit, {"edit": name}, matched=done == 0)
            if plain:
                written = generate(subject, prompts, edits={site: edit}, max_new_tokens=self.new_tokens)
                meter.answers(found, {"edit": name}, written, plain)
                if self.text:
                    columns = {"prompt": list(text_of(subject, prompts)), "written": list(text_of(subject, written))}
                    found.rows("texts", columns, at={"edit": name})
        meter.foretell(found)
        yield Progress("Measuring side effects", len(edits), len(edits))

    def _sentences(self, found: Findings, edits: Mapping[str, Edit], origin: str) -> list[str]:
        lost = {name: found["loss_added", name, "unrelated"].value or 0.0 for name in edits}
        least = min(lost, key=lambda name: abs(lost[name]))
        reads = "; ".join(dict.fromkeys(f"{name}: {edit.reads}" for name, edit in edits.items()))
        floor = {name: found["over_floor", name].value for name in edits}
        near = min((name for name in edits if floor[name] is not None), key=lambda n: floor[n] or 0.0, default=None)
        lines = [
            f"Direction: {origin}.",
            f"Unrelated text loses least to {least} ({ABLATIONS[least].words}): {lost[least]:+.4f} nats a token; to "
            f"orthogonal projection {lost.get('project_out', lost[least]):+.4f}.",
        ]
        if near is not None:
            lines.append(
                f"Nearest to the floor, oracle LEACE, is {near}: it changes the contrast {floor[near]:.3g} times as "
                f"much as knowing every row's side would for as much erased, and leaves "
                f"{found['difference_left', near].value or 0:.0%} of the difference."
            )
        return [*lines, f"Read-outs assumed: {reads}."]


_ORACLE = "oracle_leace"


def _shifts(oracle: OracleLeace) -> dict[str, Edit | None]:
    """The floor of every erasure: what a label explains taken off, on each side one shift; unrelated text has none."""
    shifts = {where: -oracle.write[:, 0] * (side - oracle.mean[0]) for where, side in (("towards", 1.0), ("away", 0.0))}
    return {"unrelated": None, **{where: Add(shift) for where, shift in shifts.items()}}


def _left(material: Material, change: Tensor) -> float:
    """Share of the two sides' difference of means that changes of the contrast's rows leave."""
    side = material.label == 1
    gap = lambda rows: float((rows[side].mean(0) - rows[~side].mean(0)).norm())  # noqa: E731
    both = material.both.double()
    return gap(both + change) / gap(both)


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
