"""What does a model do as a direction is added to x, more and more of it? A dose-response curve, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site
from ...intervene import (
    collateral,
    dose,
    dose_response,
    generate,
    log_odds_gradient,
    next_token_loss,
    pullback_fisher,
    text_of,
)
from ...intervene.edits import Add, Edit, Least, NormKept
from ...measure.interval import bootstrap
from ..settings import Count, at_least
from ..study import Progress
from .aimed import Aimed, rows_of_corpus, rows_of_texts


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
    edit: Literal["add", "norm_kept", "least_moment", "least_fisher"] = "add"
    """"add" the direction; turn x without lengthening it; or move what the answers are read by at the least collateral:
    measured by the second moment of x, or by the Fisher matrix."""
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

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        self.conceal(run, "prompts", "wanted", "unwanted")
        yield Progress(f"Loading {self.model}", 0, 1)
        subject, site = self.opened()
        corpus = self.corpus(subject)
        yield Progress(f"Loading {self.model}", 1, 1, str(site))
        yield Progress("Reading x", 0, 1)
        has, lacks = (rows_of_texts(subject, site, texts) for texts in (self.towards, self.away))
        x = rows_of_corpus(subject, site, corpus)
        direction, origin = self.aim(site, x.shape[1], self.coder(subject, x.shape[1]), has, lacks)
        wanted, unwanted = self._pair()
        n = len(self.prompts)
        read = log_odds_gradient(subject, site, self.prompts, [wanted] * n, [unwanted] * n, positions=self.positions)
        yield Progress("Reading x", 1, 1, f"{len(x):,} rows")
        yield Progress("Drawing the Fisher matrix", 0, 1)
        windows = max(1, min(len(corpus), self.fisher_tokens // corpus.context))
        part = corpus.take(torch.arange(windows))
        fisher = pullback_fisher(subject, site, part, draws=self.draws, seed=self.seed).matrix
        yield Progress("Drawing the Fisher matrix", 1, 1)
        moment = collateral.second_moment(x)
        # Fewer draws than dimensions leave directions that seem to cost nothing; the second moment says they do.
        damped = (1 - _DAMPING) * fisher + _DAMPING * moment * (fisher.trace() / moment.trace())
        metrics = {"second moment": moment, "Fisher": damped}
        if self.edit in _METRIC:
            direction = Least(read, metrics[_METRIC[self.edit]]).direction.float()
            origin = f"least collateral by the {_METRIC[self.edit]} for what the answers are read by"
        unit = dose.in_mean_norms(direction, x) if self.unit == "norms" else dose.in_nats(direction, fisher)
        edit: Edit = NormKept(Add(unit)) if self.edit == "norm_kept" else Add(unit)
        found = Findings()
        for name, metric in metrics.items():
            found.add(_distance(unit, read, metric, name, len(x)))
        yield from self._doses(found, subject, site, edit, corpus, x, fisher)
        return Answer(
            title=f"{subject.name}: steered at {site}",
            findings=found,
            sentences=self._sentences(found, origin),
            arrays={"direction": unit, "read": read},
        )

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
    ) -> Generator[Progress, None, None]:
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
            found.row("doses", strength=float(dosed), norm_ratio=ratio, predicted_nats=_nats(after - x, fisher))
            if self.new_tokens:
                answers = generate(
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

    def _sentences(self, found: Findings, origin: str) -> list[str]:
        most = max(self.strengths, key=abs)
        quiet = min(self.strengths, key=abs)
        raised, start = (found["steered_log_odds", float(one)].value or 0.0 for one in (most, quiet))
        added = found["loss_added", float(most)]
        unit = "mean norms" if self.unit == "norms" else "nats"
        return [
            f"Direction: {origin}.",
            f"At {most:g} {unit} the log-odds are {raised:.2f} nats, {raised - start:+.2f} beside {quiet:g}; unrelated "
            f"text costs {added.value:+.3f} nats a token.",
            *(
                f"By the {m.at['metric']} this direction costs {m.value:.3g} times the least that moves the log-odds "
                "as much."
                for m in found
                if m.name == "rho" and m.value is not None
            ),
            "Read-outs assumed: the gradient of the log-odds at strength 0 for the effect; for the collateral, "
            "matched filters of whatever is in x (second moment), or the model's own predictions (Fisher, with a "
            "tenth of the second moment).",
        ]


_DAMPING = 0.1
"""Share of the second moment, at equal trace, that is mixed into the Fisher matrix before it is inverted."""
_METRIC = {"least_moment": "second moment", "least_fisher": "Fisher"}


def _distance(direction: Tensor, read: Tensor, metric: Tensor, name: str, rows: int) -> Measurement:
    value = collateral.rho(direction, read, metric)
    known = math.isfinite(value)
    return Measurement(
        name="rho",
        value=value if known else None,
        unit="times",
        n=rows,
        of="tokens",
        reference=1.0,
        reference_is="no edit is below",
        at={"metric": name},
        caution="" if known else "the direction does not move the log-odds at all, to first order",
    )


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _nats(change: Tensor, fisher: Tensor) -> float:
    """Mean of the second-order cost over rows."""
    delta = change.double()
    return float(torch.einsum("ri,ij,rj->r", delta, fisher, delta).mean()) / 2
