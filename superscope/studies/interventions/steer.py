"""What does a model do as a direction is added to x, more and more of it? A dose-response curve, and what it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site
from ...intervene import (
    dose,
    dose_response,
    generate,
    log_odds,
    log_odds_gradient,
    next_token_loss,
    pullback_fisher,
    text_of,
)
from ...intervene.edits import Edit
from ...measure.interval import bootstrap
from ..settings import Count, at_least
from ..study import Progress
from .aimed import Aimed, rows_of_corpus
from .distance import OTHER_SEED, distances, metrics_of
from .metering import TABLE, Meter, foretold_nats
from .offers import GATES, STEERING, missing


@dataclass(frozen=True)
class Steer(Aimed):
    """What does a model do as a direction is added to x?

    Adds a direction (of contrasting texts, of a file, or a latent's atom) at one site at several strengths. Says how
    the log-odds of an answer go with strength, what the model writes, what it costs on unrelated text, and how far the
    direction is from the one that does the same at the least collateral. All strengths share the pass below the site.
    """

    kind: ClassVar[str] = "steer"

    prompts: tuple[str, ...] = ("The", "This is", "If the", "A list", "In order to", "When")
    """What is continued."""
    wanted: str | None = None
    """What steering is to make likelier, with the space before it. Default: the first contrasting texts."""
    unwanted: str | None = None
    """What it is to make less likely."""
    strengths: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0)
    """How much is added, in --unit."""
    unit: Literal["norms", "nats"] = "norms"
    """"norms": mean lengths of x at the site; "nats": what unrelated predictions lose, to second order."""
    edit: Literal[
        "add",
        "norm_kept",
        "least_moment",
        "least_fisher",
        "least_latents",
        "protected",
        "sae_targeted",
        "clamp",
        "scale",
        "midsteer",
        "alphasteer",
        "latent",
        "splice_in",
    ] = "add"
    """"add" the direction; turn x without lengthening it (norm_kept); move what the answers are read by at the least
    collateral, by the second moment of x, by the Fisher matrix, or a latent by what other latents read (least_*); move
    no protected concept; no other latent (sae_targeted); set or multiply what there is of the direction (clamp, scale);
    turn one side of the contrast into the other (midsteer); leave unrelated text (alphasteer); set a latent, with the
    dictionary's error or without it (splice_in)."""
    gate: Literal["always", "clip", "lmmse", "latent"] = "always"
    """Where: in every row; where the concept's read-out is above the middle of the two sides (clip); where a linear
    estimate of the contrast is on (lmmse); where the latent is."""
    at: float | None = None
    """The strength at which side effects are measured beside controls. Default: the middle one of those above 0."""
    positions: Literal["all", "last", "after", "answering"] = "all"
    """At which tokens: all, the prompt's last, those after it, or those that predict an answer."""
    new_tokens: Annotated[int, at_least(0)] = 16
    """Tokens to write at each strength; 0 writes none."""
    fisher_tokens: Count = 2_000
    """Tokens of unrelated text that the Fisher matrix is drawn on."""
    draws: Count = 4
    """Draws of the next token for each of them."""

    def check(self) -> None:
        super().check()
        if not self.prompts or not all(self.prompts):
            raise ValueError("there is no prompt to continue; give at least one with --prompts, and none empty.")
        if not self.strengths or not all(math.isfinite(one) for one in self.strengths):
            raise ValueError(f"strengths must be finite numbers, at least one; got {self.strengths}.")
        if self.unit == "nats" and min(self.strengths) < 0:
            raise ValueError("a dose in nats is at least 0; give strengths of 0 and above, or --unit norms.")
        if (self.wanted is None) != (self.unwanted is None):
            raise ValueError("log-odds are of one answer against another; give --wanted and --unwanted together.")
        if self.at is not None and self.at not in self.strengths:
            raise ValueError(f"at must be one of the strengths {self.strengths}; got {self.at}.")
        lacking = missing(STEERING[self.edit], latent=self.latent is not None, protect=bool(self.protect))
        if lacking:
            raise ValueError(f"{self.edit} {lacking}.")
        if self.gate == "latent" and self.latent is None:
            raise ValueError("a gate on a latent needs a dictionary; give --sae and --latent.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        self.conceal(run, "prompts", "wanted", "unwanted")
        yield Progress(f"Loading {self.model}", 0, 1)
        subject, site = self.opened()
        corpus = self.corpus(subject)
        yield Progress(f"Loading {self.model}", 1, 1, str(site))
        yield Progress("Reading x", 0, 1)
        x = rows_of_corpus(subject, site, corpus)
        material, origin = self.material(subject, site, x, self.coder(subject, x.shape[1]))
        wanted, unwanted = self._pair()
        n = len(self.prompts)
        read = log_odds_gradient(subject, site, self.prompts, [wanted] * n, [unwanted] * n, positions=self.positions)
        yield Progress("Reading x", 1, 1, f"{len(x):,} rows")
        yield Progress("Drawing the Fisher matrix", 0, 1)
        windows = max(1, min(len(corpus), self.fisher_tokens // corpus.context))
        part = corpus.take(torch.arange(windows))
        priced = pullback_fisher(subject, site, part, draws=self.draws, seed=self.seed)
        fisher = priced.matrix
        # What costs least is chosen by other draws than those that price it: by the same it would seem to be free.
        other = pullback_fisher(subject, site, part, draws=self.draws, seed=self.seed + OTHER_SEED)
        yield Progress("Drawing the Fisher matrix", 1, 1)
        metrics = metrics_of(x, other)
        offer = STEERING[self.edit]
        material = dataclasses.replace(material, read=read, metrics=metrics)
        direction = material.direction if offer.vector is None else offer.vector(material).float()
        unit = dose.in_mean_norms(direction, x) if self.unit == "norms" else dose.in_nats(direction, fisher)
        made = offer.edit(dataclasses.replace(material, direction=unit))
        edit = dataclasses.replace(made, gate=GATES[self.gate](material)) if self.gate != "always" else made
        found = Findings()
        self.tell(found, subject, site)
        at = self._metered_at()
        change = None if at is None else edit.at(self._strength(at))(x) - x
        moved = unit[None] if change is None else change
        found.add(distances(moved, read, metrics, priced, other, tokens=len(x)))
        effect = self._effect(subject, site)
        meter = self.meter(subject, site, corpus, material, effect, fisher)
        plain, at_dose = yield from self._doses(found, subject, site, edit, corpus, x, fisher)
        if at is not None:
            yield from self._metered(found, meter, edit, at)
            if plain is not None and at_dose is not None:
                meter.answers(found, {"strength": float(at)}, at_dose, plain)
        return Answer(
            title=f"{subject.name}: steered at {site}",
            findings=found,
            sentences=[
                *self._sentences(found, origin, f"{self.edit}: {offer.words}", edit),
                *self._beside(found, at),
                *meter.sentences(found),
            ],
            arrays={"direction": unit, "read": read},
        )

    def _metered_at(self) -> float | None:
        """The dose that side effects are measured at; None where all are 0."""
        if self.at is not None:
            return self.at or None
        up = sorted(one for one in self.strengths if one > 0)
        return up[(len(up) - 1) // 2] if up else next((one for one in self.strengths if one), None)

    def _effect(self, subject: Subject, site: Site) -> Callable[[Edit], float]:
        """From an edit to the rise of the log-odds, nats."""
        n = len(self.prompts)
        wanted, unwanted = self._pair()

        def odds(edits: Mapping[Site | str, Edit]) -> float:
            return float(
                log_odds(
                    subject, self.prompts, [wanted] * n, [unwanted] * n, edits=edits, positions=self.positions
                ).mean()
            )

        own = odds({})
        return lambda edit: odds({site: edit}) - own if edit.strength else 0.0

    def _metered(self, found: Findings, meter: Meter, edit: Edit, at: float) -> Generator[Progress, None, None]:
        """What else moves at one dose, beside controls; at the others without; and what foretold it."""
        yield Progress("Measuring side effects", 0, 3)
        meter.measure(found, edit.at(self._strength(at)), {"strength": float(at)})
        yield Progress("Measuring side effects", 1, 3)
        others = [one for one in self.strengths if one not in (0, at)]
        meter.curve(found, {float(one): edit.at(self._strength(one)) for one in others})
        yield Progress("Measuring side effects", 2, 3)
        meter.foretell(found)
        yield Progress("Measuring side effects", 3, 3)

    def _pair(self) -> tuple[str, str]:
        """The answer that is wanted and the one that is not."""
        if self.wanted is not None and self.unwanted is not None:
            return self.wanted, self.unwanted
        return " " + self.towards[0], " " + self.away[0]

    def _strength(self, dosed: float) -> float:
        """The edit's strength at a dose: nats grow with its square."""
        return math.sqrt(dosed) if self.unit == "nats" else dosed

    def _doses(
        self, found: Findings, subject: Subject, site: Site, edit: Edit, corpus: Corpus, x: Tensor, fisher: Tensor
    ) -> Generator[Progress, None, tuple[Answers | None, Answers | None]]:
        """The curve; and what was written without the edit and at the dose that is metered."""
        written: dict[float, Answers] = {}
        strengths = [self._strength(one) for one in self.strengths]
        odds = []
        for done, prompt in enumerate(self.prompts):
            yield Progress("Steering", done, len(self.prompts) + len(strengths))
            wanted, unwanted = (
                dose_response(
                    subject, prompt, answer, site=site, edit=edit, strengths=strengths, positions=self.positions
                )
                for answer in self._pair()
            )
            odds.append(wanted - unwanted)
        table = torch.stack(odds)
        own = next_token_loss(subject, corpus)
        for row, (dosed, strength) in enumerate(zip(self.strengths, strengths)):
            yield Progress("Steering", len(self.prompts) + row, len(self.prompts) + len(strengths))
            at = {"strength": float(dosed)}
            sums = torch.stack([table[:, row], torch.ones(len(table), dtype=torch.float64)], 1).numpy()
            between = bootstrap(_mean, sums, of="prompts", seed=self.seed)
            found.add(
                Measurement(
                    name="steered_log_odds",
                    value=float(table[:, row].mean()),
                    unit="nats",
                    n=len(table),
                    of="prompts",
                    **between.fields,
                ),
                at=at,
            )
            steered = next_token_loss(subject, corpus, splice={site: edit.at(strength)})
            added = np.stack([(steered.nats - own.nats).numpy(), own.counts.double().numpy()], 1)
            found.add(
                Measurement(
                    name="loss_added",
                    value=steered.mean - own.mean,
                    unit="nats per token",
                    n=int(own.counts.sum()),
                    of="tokens",
                    **bootstrap(_mean, added, of="windows", seed=self.seed).fields,
                ),
                at=at,
            )
            after = edit.at(strength)(x)
            ratio = float((after.double().norm(dim=1) / x.double().norm(dim=1)).mean())
            found.row("doses", strength=float(dosed), norm_ratio=ratio, predicted_nats=foretold_nats(after - x, fisher))
            if self.new_tokens:
                written[dosed] = answers = generate(
                    subject,
                    self.prompts,
                    edits={site: edit.at(strength)},
                    positions=self.positions,
                    max_new_tokens=self.new_tokens,
                    seed=self.seed,
                )
                if self.text:
                    found.rows(
                        "texts",
                        {"prompt": list(self.prompts), "written": list(text_of(subject, answers))},
                        at={"strength": float(dosed)},
                    )
        at = self._metered_at()
        if not self.new_tokens or at is None:
            return None, None
        plain = written.get(0.0) or generate(
            subject, self.prompts, max_new_tokens=self.new_tokens, positions=self.positions, seed=self.seed
        )
        return plain, written[at]

    def _beside(self, found: Findings, at: float | None) -> list[str]:
        """What random edits do beside it."""
        kl = None if at is None else found.get("steering_kl", float(at))
        if kl is None or kl.value is None or kl.chance is None:
            return []
        rows = found.tables[TABLE]
        chosen = [i for i, way in enumerate(rows["matched"]) if way == "size"]
        own, *rest = ([rows[name][i] for name in ("kind", "effect", "kl")] for i in chosen)
        by = {kind: [effect for k, effect, _ in rest if k == kind] for kind in dict.fromkeys(k for k, _, _ in rest)}
        band = "; ".join(f"{kind} {min(v):+.2f}{f' to {max(v):+.2f}' if len(v) > 1 else ''}" for kind, v in by.items())
        return [
            f"At {at:g} it moves the log-odds by {own[1]:+.2f} nats at {kl.value:.3f} nats of KL a token; edits of the "
            f"same size elsewhere: {band} nats; a random one costs {kl.chance:.3f}."
        ]

    def _sentences(self, found: Findings, origin: str, what: str, edit: Edit) -> list[str]:
        most = max(self.strengths, key=abs)
        quiet = min(self.strengths, key=abs)
        raised, start = (found["steered_log_odds", float(one)].value or 0.0 for one in (most, quiet))
        added = found["loss_added", float(most)]
        unit = "mean norms" if self.unit == "norms" else "nats"
        return [
            f"Direction: {origin}. Edit: {what}; it reads {edit.reads}.",
            f"At {most:g} {unit} the log-odds are {raised:.2f} nats, {raised - start:+.2f} beside {quiet:g}; unrelated "
            f"text costs {added.value:+.3f} nats a token.",
            *(
                f"By the {m.at['metric']} it costs {m.value:.3g} times the least that moves the log-odds as much."
                for m in found
                if m.name == "rho" and m.value is not None
            ),
            "Read-outs assumed: the gradient of the log-odds at strength 0 for the effect; for the collateral, "
            "matched filters of whatever is in x (second moment), or the model's own predictions (Fisher, against the "
            "best edit by other draws, with a tenth of the second moment: a lower bound).",
        ]


Answers = Sequence[Sequence[int]]


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]
