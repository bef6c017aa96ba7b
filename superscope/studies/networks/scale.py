"""How do loss, overlap, features and sparsity go with a network's width, and are larger models sparser?"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ... import capture, measure
from ...capture import Corpus, Subject
from ...core import Answer, Dictionary, Findings, Measurement, Run, result_of
from ..settings import Count, at_least
from ..study import Progress
from . import twins
from .comparing import held_out_losses
from .layers import Explained, Recurring
from .readings import CONTROL, TRAINED, Activation, Interference, Reading, View
from .survey import Survey

STREAM, HIDDEN = "stream", "hidden layer"
"""Where sparsity is read, as tables call it: behind the last block, and inside its MLP."""

_PARTS = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_COUNTED_TOKENS = 100_000
_FEWEST_WIDTHS = 4


@dataclass(frozen=True)
class Scale(Survey):
    """How do loss, overlap, features and sparsity go with a network's width?

    Trains small GPTs of the pocket model's architecture, several of each width, with its optimizers and schedule and on
    the same text, and keeps them in the run folder, where every other command can read them. Then fits powers of the
    width: to the held-out loss (as it is, and above a floor), to the mean squared cosine of token embeddings (1/d is
    what random directions have), to directions that recur and to the dimensions in use; and says whether activations
    grow sparser with width. Beside each the same of networks that were not trained.

    With --experts, mixtures of experts of the largest width and their dense twins of as many active parameters are
    trained in the same way and compared.
    """

    kind: ClassVar[str] = "scale"

    widths: tuple[int, ...] = (16, 24, 32, 48, 64)
    """Dimensions d of the residual stream, at least four."""
    models: Annotated[int, at_least(2, why="Two of one width say how much a start matters.")] = 2
    """Models trained at each width, from different random starts."""
    layers: Count = 2
    """Blocks of every model."""
    heads: Count = 2
    """Attention heads of every block; each width must be a multiple."""
    passes: Count = 1
    """Times that a model reads the text in training."""
    rows: Count = 16
    """Windows in one step of training a model."""
    tokens: Count = 250_000
    """Tokens that each model is trained on, and dictionaries learned from the first 100 000 of them."""
    n: Annotated[int, at_least(2)] | None = 512
    """Latents of each dictionary, as many at every width, so that no count grows for their sake."""
    k: Count = 8
    """Latents that may be active at a token."""
    seeds: Annotated[int, at_least(2, why="A direction can only recur over at least two.")] = 2
    """Dictionaries learned of each model, from different random starts."""
    steps: Count = 100
    """Training steps of each dictionary."""
    experts: Annotated[int, at_least(0)] = 0
    """Experts of a mixture, two of which read each token, beside a dense twin; 0 trains neither."""

    def check(self) -> None:
        if len(set(self.widths)) < max(len(self.widths), _FEWEST_WIDTHS) or min(self.widths) < 2:
            raise ValueError(
                f"widths must be at least {_FEWEST_WIDTHS} different numbers from 2 on: a law above a floor has three "
                f"unknowns. Got {self.widths}."
            )
        if 0 < self.experts <= twins.CHOSEN:
            raise ValueError(
                f"a mixture of {self.experts} is dense, since {twins.CHOSEN} experts read each token. Give more "
                "--experts, or 0."
            )
        for d in self.widths:
            if d % self.heads:
                raise ValueError(
                    f"a width of {d} does not part into {self.heads} heads. Give another, or other --heads."
                )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the text", 0, 1)
        pocket = capture.load("pocket", device=self.device)
        corpus, held_out = self.corpora(pocket)
        models = [(d, number) for d in sorted(self.widths) for number in range(self.models)]
        subjects = {label_of(d, number): self._fresh(pocket, d, self.seed + number) for d, number in models}
        # The start of each width's first model: what there is before training.
        controls = {label_of(d): self._fresh(pocket, d, self.seed) for d in sorted(self.widths)}
        everyone = subjects | controls
        (site,) = capture.sites(controls[label_of(min(self.widths))].model, [f"resid_post.{self.layers - 1}"])
        part = corpus.take(torch.arange(max(1, int((corpus.keep.sum(1).cumsum(0) <= _COUNTED_TOKENS).sum()))))
        yield Progress(
            "Reading the text", 1, 1, ahead=self._ahead(everyone, corpus) | self.ahead(everyone, [site], part, held_out)
        )
        for d, number in models:
            label = label_of(d, number)
            yield from self._trained(run, corpus, subjects[label], label, self.seed + number)
        readings = (Activation(), Explained(), Recurring(), Hidden())
        findings = yield from self.survey(run, everyone, [site], part, held_out, readings)
        yield Progress("Fitting powers of the width", 0, 1)
        held_out_losses(everyone, held_out, findings, str(site))
        read = _rows_read(corpus)
        for label, subject in everyone.items():
            findings.add(overlap(subject.model.lm_head.weight[read], label))
        table = ByWidth(findings, self.widths, self.models)
        findings.rows("widths", table.columns())
        findings.add(laws(table))
        findings.add(sparser(table))
        yield Progress("Fitting powers of the width", 1, 1)
        said = sentences(findings)
        if self.experts:
            said += yield from self._twins(run, pocket, corpus, part, held_out, findings)
        run.note(text=f"{len(set(corpus.document.tolist()))} documents", window=str(corpus.policy))
        return Answer(
            title=f"Widths {', '.join(map(str, sorted(self.widths)))}, {self.models} models of each",
            findings=findings,
            sentences=tuple(said),
        )

    def _twins(
        self, run: Run, pocket: Subject, corpus: Corpus, part: Corpus, held_out: Corpus, findings: Findings
    ) -> Generator[Progress, None, list[str]]:
        """Mixtures and their dense twins, trained and measured as the others."""
        places: dict[str, dict[str, str]] = {}
        for kind in (twins.MIXTURE, twins.DENSE):
            subjects = {}
            for number in range(self.models):
                label, seed = twins.label_of(kind, number), self.seed + number
                subject = subjects[label] = twins.fresh(
                    kind, pocket.tokenizer, context=self.context, d=max(self.widths), layers=self.layers,
                    heads=self.heads, experts=self.experts, seed=seed,
                )  # fmt: skip
                subject.model.to(self.device)
                yield from self._trained(run, corpus, subject, label, seed)
                active, everything = twins.parameters(subject)
                findings.row("twins", model=label, kind=kind, active_parameters=active, parameters=everything)
            sites = {role: capture.sites(subject.model, [f"{role}.{self.layers - 1}"])[0] for role in twins.ROLES}
            places[kind] = {role: str(site) for role, site in sites.items()}
            readings = (Activation(), Explained(), Recurring(), Interference())
            also = yield from self.survey(run, subjects, list(sites.values()), part, held_out, readings)
            findings.add(also)
            for name, table in also.tables.items():
                findings.rows(name, table)
            held_out_losses(subjects, held_out, findings, str(sites[twins.ROLES[0]]))
        found = twins.compared(findings, places, self.models)
        findings.add(found)
        return twins.sentences(found)

    def _fresh(self, pocket: Subject, d: int, seed: int) -> Subject:
        from ...capture.pocket import training, weights

        config = training.architecture(
            vocabulary=len(pocket.tokenizer), context=self.context, d=d, layers=self.layers, heads=self.heads
        )
        # transformers gives `to` a type of its own.
        model: Any = weights.fresh(config, seed)
        return Subject(model.to(self.device), pocket.tokenizer, f"{d} wide", "causal")

    def _ahead(self, subjects: Mapping[str, Subject], corpus: Corpus) -> dict[str, float]:
        """Multiply-adds of training each model, forwards and back."""
        each = {
            label: sum(weight.numel() for weight in subject.model.parameters()) for label, subject in subjects.items()
        }
        return {
            f"Training {label}": 3.0 * self.passes * corpus.n_tokens * count
            for label, count in each.items()
            if CONTROL not in label
        }

    def _trained(
        self, run: Run, corpus: Corpus, subject: Subject, label: str, seed: int
    ) -> Generator[Progress, None, None]:
        """Trains a model in place, or takes up the one that the run folder has."""
        from ...capture.pocket import training, weights

        name, stage = f"models/{label}", f"Training {label}"
        if (kept := run.kept(name, lambda path: path, parts=_PARTS)) is not None:
            with weights.without_progress_bars():
                subject.model.load_state_dict(type(subject.model).from_pretrained(kept).state_dict())
            yield Progress(stage, 1, 1, resumed=True)
            return
        loss = math.nan
        batches = training.train(subject.model, corpus.ids, corpus.keep, passes=self.passes, rows=self.rows, seed=seed)
        for step, steps, loss in batches:
            if step % 10 == 1:
                yield Progress(stage, step - 1, steps, f"{loss:.3f} nats per token")

        def write(path: Path) -> None:
            with weights.without_progress_bars():
                subject.model.save_pretrained(path)
            subject.tokenizer.save_pretrained(path)

        run.keep(name, write, parts=_PARTS)
        yield Progress(stage, steps, steps, f"{loss:.3f} nats per token")


class Hidden(Reading):
    """Gini index of the hidden layer of the last block's MLP, without a dictionary of it."""

    name: ClassVar[str] = "sparsity of the hidden layer"

    def read(self, seen: View, findings: Findings) -> None:
        last = len(capture.blocks(seen.subject.model)) - 1
        (site,) = capture.sites(seen.subject.model, [f"mlp_act.{last}"])
        held = result_of(capture.record(seen.subject, [site], seen.held_out, None))[site]
        spread = measure.activation_sparsity(list(held.rows()), documents=seen.documents, seed=seen.seed)
        findings.add(spread[0], at={**seen.at, "site": str(site)})


def overlap(rows: torch.Tensor, label: str) -> list[Measurement]:
    """Mean squared cosine over pairs of rows: as they are, and about their mean."""
    found = []
    for which, x in (("as they are", rows), ("less their mean", rows - rows.mean(0))):
        energy = measure.interference_energy(Dictionary(x.detach().float().cpu()))
        assert energy.value is not None
        assert energy.reference is not None
        pairs = energy.n - 1
        found.append(
            Measurement(
                name="embedding_overlap",
                value=energy.value / pairs,
                unit="squared cosine",
                n=energy.n,
                of="tokens",
                how="exact: every pair, through the frame operator",
                reference=energy.reference / pairs,
                reference_is="tight frame",
                chance=1 / x.shape[1],
                chance_is="random directions, 1/d",
                caution=energy.caution,
                at={"model": label, "rows": which},
            )
        )
    return found


_QUANTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("held_out_loss", ()),
    "overlap": ("embedding_overlap", ("as they are",)),
    "centred_overlap": ("embedding_overlap", ("less their mean",)),
    "recurring": ("recurring_features", ()),
    "participation": ("participation_ratio", ()),
}
"""Columns of the table that powers are fitted to: the measurement's name, and where."""
_SPARSITY = {"gini": STREAM, "hidden_gini": HIDDEN}
_LAW = {("loss", True): -1.0, ("overlap", False): -1.0, ("centred_overlap", False): -1.0}
"""The published exponents, of the loss above a floor."""


class ByWidth:
    """What was measured of every model, by width; the untrained ones apart.

    Args:
        findings: with the quantities of each.
        widths: in any order.
        models: of each width.
    """

    def __init__(self, findings: Findings, widths: Sequence[int], models: int) -> None:
        self.widths = tuple(sorted(widths))
        self.cells: list[dict[str, Any]] = []
        for d in self.widths:
            for number in (*range(models), None):
                label = label_of(d, number)
                row = {"d": d, "model": label, "weights": CONTROL if number is None else TRAINED}
                for column, (name, places) in _QUANTITIES.items():
                    row[column] = findings[(name, label, *places)].value
                ginis = [m.value for m in findings if m.name == "activation_gini" and m.at.get("model") == label]
                row["gini"], row["hidden_gini"] = ginis
                self.cells.append(row)

    def columns(self) -> dict[str, list[Any]]:
        return {name: [row[name] for row in self.cells] for name in self.cells[0]}

    def of(self, column: str, weights: str) -> list[list[float]]:
        """What each width's models have, None left out."""
        return [
            [
                row[column]
                for row in self.cells
                if (row["d"], row["weights"]) == (d, weights) and row[column] is not None
            ]
            for d in self.widths
        ]


def laws(table: ByWidth) -> list[Measurement]:
    """Exponents of the width in every quantity, and in the loss above a floor."""
    found = []
    for column in _QUANTITIES:
        found.append(_law(table, column, measure.power_law, "scaling_exponent"))
    found.append(_law(table, "loss", measure.power_law_above_floor, "scaling_exponent_above_floor"))
    return found


def _law(table: ByWidth, column: str, fit: Callable[..., measure.PowerLaw], name: str) -> Measurement:
    each = {weights: table.of(column, weights) for weights in (TRAINED, CONTROL)}
    count = sum(map(len, each[TRAINED]))
    about: dict[str, Any] = {"unit": "exponent of the width", "n": count, "of": "models", "at": {"quantity": column}}
    if any(not cells or min(cells) <= 0 for cells in each[TRAINED]):
        return Measurement(
            name=name, value=None, caution="nothing was found at one width, so there is no power", **about
        )
    # One point for each width, since the models of one share what bends the law there.
    of = f"widths, each the geometric mean of {len(each[TRAINED][0])} models"
    law = fit(table.widths, _means(each[TRAINED]), of=of)
    null = None
    # An untrained network's loss has no floor but its own.
    if fit is measure.power_law and all(cells and min(cells) > 0 for cells in each[CONTROL]):
        null = measure.power_law(table.widths, _means(each[CONTROL])).exponent
    published = _LAW.get((column, fit is measure.power_law_above_floor))
    caution = ""
    if law.is_none:
        caution = "the interval holds 0: no law is seen"
    elif law.explained < 0.9:
        caution = f"a power explains only {law.explained:.0%} of it"
    if law.floor:
        caution = ", ".join(filter(None, (caution, f"floor {law.floor:.3f}")))
    return Measurement(
        name=name,
        value=law.exponent,
        reference=published,
        reference_is="published law of strong superposition, 1/d" if published else "",
        chance=null,
        chance_is="untrained networks" if null is not None else "",
        caution=caution,
        **law.interval.fields,
        **about,
    )


def _means(cells: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.exp(np.mean(np.log(each)))) for each in cells]


def sparser(table: ByWidth) -> list[Measurement]:
    """What a doubling of the width adds to the Gini index: as it is, and over that of the untrained network.

    The index of d numbers of one law grows with d towards that of the law, so only what untrained networks do not gain
    is of training.
    """
    x = np.log2(table.widths)
    found = []
    for column, role in _SPARSITY.items():
        means, null = (
            np.array([np.mean(cells) for cells in table.of(column, weights)]) for weights in (TRAINED, CONTROL)
        )
        null_slope, *_ = measure.straight_line(x, null)
        for name, y, chance, chance_is in (
            ("sparsity_with_width", means, null_slope, "untrained networks"),
            ("sparsity_with_width_over_untrained", means - null, 0.0, "no difference from untrained networks"),
        ):
            slope, interval, _ = measure.straight_line(x, y, of="widths, each the mean of its models")
            found.append(
                Measurement(
                    name=name,
                    value=slope,
                    unit="Gini index for a doubling",
                    n=sum(map(len, table.of(column, TRAINED))),
                    of="models",
                    chance=chance,
                    chance_is=chance_is,
                    at={"role": role},
                    **interval.fields,
                )
            )
    return found


def sentences(findings: Findings) -> list[str]:
    """What was found of each law, and of sparsity."""
    said = []
    words = {
        "loss": "Held-out loss",
        "overlap": "The mean squared cosine of token embeddings",
        "centred_overlap": "Less their mean it",
        "recurring": "Directions that recur",
        "participation": "Dimensions in use",
    }
    for m in findings:
        if m.name not in ("scaling_exponent", "scaling_exponent_above_floor") or m.value is None or m.low is None:
            continue
        column = str(m.at["quantity"])
        what = words[column] + (" above a floor" if m.name.endswith("floor") else "")
        goes = "go" if column in ("recurring", "participation") else "goes"
        beside = [] if m.reference is None else [f"{m.reference:g} is the published law"]
        beside += [] if m.chance is None else [f"untrained networks {m.chance:+.2f}"]
        ending = f"; {', '.join(beside)}" if beside else ""
        note = f" ({m.caution})" if m.caution else ""
        said.append(f"{what} {goes} as d^{m.value:+.2f} [{m.low:+.2f}, {m.high:+.2f}]{note}{ending}.")
    for m in findings:
        if m.name != "sparsity_with_width_over_untrained" or m.low is None or m.high is None:
            continue
        which = "sparser" if m.low > 0 else "denser" if m.high < 0 else "neither sparser nor denser"
        plain = findings["sparsity_with_width", m.at["role"]]
        said.append(
            f"Wider networks are {which} in the {m.at['role']} by their training: a doubling changes the Gini "
            f"index by {plain.value:+.4f}, of untrained ones by {plain.chance:+.4f}; the difference by {m.value:+.4f} "
            f"[{m.low:+.4f}, {m.high:+.4f}]."
        )
    return said


def label_of(d: int, number: int | None = None) -> str:
    """What tables and folders call a model."""
    return f"d{d}-{CONTROL if number is None else number + 1}"


def _rows_read(corpus: Corpus) -> torch.Tensor:
    """Tokens that training has seen: embeddings of others stay at their random start, which obeys any law of chance."""
    return corpus.ids[corpus.keep].unique()
