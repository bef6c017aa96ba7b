"""How many latents should be active at once? Dictionaries of many k beside each other, and the k to take."""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from ... import measure
from ...core import Answer, Findings, Measurement, Run
from ...dictionaries import SAE, TopK
from ...dictionaries.many import train_many
from ...dictionaries.sae.base import SAVED
from ...measure.choice import decoder_projection, description_length, mean_overlap
from ..settings import Count, above, at_least
from ..study import Progress
from .stream import FromStream, Stream

_ENOUGH = 0.95
"""Share of the most recurring directions that a k must have to count as one where seeds agree."""

_SHOWN = 20
_EVALUATION = 4.0
"""What measuring a row costs, in rows of training (timed)."""


@dataclass(frozen=True)
class Frontier(FromStream):
    """How sparse should this dictionary be?

    Learns top-k dictionaries of several k and seeds side by side from one stream, draws what each leaves unexplained
    against its L0, and recommends the k whose description of a held-out row is shortest. Two criteria that look at the
    dictionary in other ways are shown beside it: the decoder's projections and the agreement of seeds. SOURCE as for
    `superscope train`.
    """

    kind: ClassVar[str] = "frontier"

    ks: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Numbers of active latents to try."""
    seeds: Annotated[int, at_least(2, why="Without a second there is no interval.")] = 3
    """Dictionaries of each k."""
    steps: Count = 600
    """Training steps."""
    batch: Annotated[int, at_least(2)] = 1024
    """Rows in one step."""
    precision: Annotated[float, above(0, finite=True)] = 0.2
    """To what share of x's deviation per dimension a row is to be described; what is finer counts as noise."""
    held_out: Annotated[int, at_least(2)] = 20_000
    """Rows to measure on."""

    def check(self) -> None:
        if len(set(self.ks)) < 3:
            raise ValueError(f"ks must hold at least 3 different numbers to choose among; got {self.ks}.")
        if min(self.ks) < 1:
            raise ValueError(f"every k must be at least 1; got {min(self.ks)}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        run.require_space(64 * 2**20)
        yield Progress(f"Opening {self.source}", 0, 1)
        stream = self.open_stream()
        n, ks = self.n or 8 * stream.train.d, sorted(set(self.ks))
        if ks[-1] > n:
            raise ValueError(f"k = {ks[-1]} latents cannot be active among n = {n}. Give smaller --ks or a larger --n.")
        run.open()
        yield Progress(f"Opening {self.source}", 1, 1, ". ".join(filter(None, (f"d = {stream.train.d}", stream.note))))
        saes = yield from self._trained(stream, n, ks, run)
        measurements, table = yield from self._measured(stream, saes, ks)
        chosen, reasons = recommend(table)
        measurements.append(
            Measurement(
                name="recommended_k",
                value=float(chosen),
                unit="latents",
                n=len(ks),
                of="numbers of active latents tried",
                how="no interval: the shortest description among those tried",
                reference=stream.l0,
                reference_is="features truly active" if stream.l0 is not None else "",
                caution="at the end of what was tried: extend --ks there" if chosen in (ks[0], ks[-1]) else "",
            )
        )
        return Answer(
            title=f"{stream.name}{f' at {stream.site}' if stream.site else ''}: how sparse?",
            findings=Findings(measurements, {"frontier": table}),
            sentences=reasons,
        )

    def _trained(
        self, stream: Stream, n: int, ks: Sequence[int], run: Run
    ) -> Generator[Progress, None, dict[tuple[int, int], SAE]]:
        """One SAE for each k and seed; a finished k is taken from an interrupted run."""
        stage, total = "Learning dictionaries", len(ks) * self.steps
        saes: dict[tuple[int, int], SAE] = {}
        ahead = {stage: float(self.steps * self.batch), "Measuring": _EVALUATION * self.held_out}
        yield Progress(stage, 0, total, ahead=ahead)
        length = getattr(stream.train, "__len__", None)
        batch = self.batch if length is None else min(self.batch, max(length(), 2))
        for done, k in enumerate(ks):
            folders = {seed: f"saes/k{k}/seed{seed}" for seed in range(self.seeds)}
            if run.has(*(f"{folder}/{part}" for folder in folders.values() for part in SAVED)):
                for seed, folder in folders.items():
                    loaded = TopK.load(run / folder)
                    saes[k, seed] = loaded.to(self.device)
                yield Progress(
                    stage, (done + 1) * self.steps, total, f"k = {k} taken from the interrupted run", resumed=True
                )
                continue
            # The seeds of one k are one stack, so a kill loses one k, not the whole sweep.
            members = [TopK(d=stream.train.d, n=n, k=k, seed=self.seed + s).to(self.device) for s in range(self.seeds)]
            options: dict[str, Any] = self.descent(TopK) | {"steps": self.steps, "batch": batch, "seed": self.seed}
            for steps in train_many(members, stream.train, **options):
                if steps[0].index % _SHOWN == 0:
                    unexplained = steps[0].numbers["fraction_variance_unexplained"]
                    detail = f"k = {k}: {unexplained:.1%} of variance unexplained"
                    yield Progress(stage, done * self.steps + steps[0].index, total, detail)
            for seed, sae in enumerate(members):
                saes[k, seed] = sae
                notes = {"source": self.source, "site": str(stream.site or "")}
                run.keep(folders[seed], functools.partial(sae.save, notes=notes), SAVED)
        return saes

    def _measured(
        self, stream: Stream, saes: dict[tuple[int, int], SAE], ks: Sequence[int]
    ) -> Generator[Progress, None, tuple[list[Measurement], dict[str, list[Any]]]]:
        length = getattr(stream.held_out, "__len__", None)
        size = min(4096, self.held_out, *(() if length is None else (length(),)))
        options: dict[str, Any] = {"size": size, "batches": max(self.held_out // size, 1)}
        options["seed"] = self.seed + 1_000_003
        x = next(stream.held_out.batches(size, seed=options["seed"])).x.to(self.device)
        deviation = float((x.double() - x.double().mean(0)).square().mean().sqrt())
        names = {
            "fraction_variance_unexplained": "share",
            "l0": "latents",
            "description_length": "bits per row",
            "decoder_projection": "share of a row's length",
            "mean_overlap": "cosine",
        }
        if stream.truth is not None:
            names["feature_nearest_cosine"] = "cosine"
        columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
        table: dict[str, list[Any]] = {name: [] for name in ("k", *columns, "recurring_features")}
        measurements: list[Measurement] = []
        for done, k in enumerate(ks):
            yield Progress("Measuring", done, len(ks), f"k = {k}")
            members = [saes[k, seed] for seed in range(self.seeds)]
            found: dict[str, list[float]] = {name: [] for name in names}
            for sae in members:
                evaluation = measure.evaluate(sae, stream.held_out, **options)
                for name in ("fraction_variance_unexplained", "l0"):
                    found[name].append(evaluation[name].value or 0.0)
                found["description_length"].append(
                    description_length(sae, stream.held_out, precision=self.precision * deviation, **options)
                )
                found["decoder_projection"].append(decoder_projection(sae.dictionary, x))
                found["mean_overlap"].append(mean_overlap(sae.dictionary) if sae.n > 1 else 0.0)
                if stream.truth is not None:
                    found["feature_nearest_cosine"].append(
                        measure.feature_nearest_cosine(sae.dictionary, stream.truth, draws=1).value or 0.0
                    )
            table["k"].append(k)
            for name, unit in names.items():
                values = found[name]
                interval = measure.over_seeds(values)
                value = sum(values) / len(values)
                for end, number in (("", value), ("_low", min(values)), ("_high", max(values))):
                    table[f"{name}{end}"].append(number)
                measurements.append(
                    Measurement(
                        name=name, value=value, unit=unit, n=self.seeds, of="seeds", at={"k": k}, **interval.fields
                    )
                )
            recurring = measure.recurring_features([sae.dictionary for sae in members], draws=0).measurements[0]
            table["recurring_features"].append(recurring.value or 0.0)
            measurements.append(recurring.at_site(k=k))
        yield Progress("Measuring", len(ks), len(ks))
        return measurements, table


def recommend(table: dict[str, list[Any]]) -> tuple[int, tuple[str, ...]]:
    """The k to take, and why, in sentences.

    The shortest description of a held-out row decides: of the three criteria it alone weighs a further latent against
    what it explains. A k within the seeds' spread of the shortest is preferred if it is smaller. The decoder's
    projections and the agreement of seeds are told, with what they would have chosen.

    Args:
        table: columns k (rising), description_length with its _low and _high, decoder_projection, recurring_features.
    """
    ks, bits = table["k"], table["description_length"]
    best = min(range(len(ks)), key=lambda i: bits[i])
    # The smaller k wins a tie: its mean inside the best's own spread over seeds.
    chosen = next(i for i in range(best + 1) if bits[i] <= table["description_length_high"][best])
    projection = min(range(len(ks)), key=lambda i: table["decoder_projection"][i])
    recurring = table["recurring_features"]
    agreeing = [k for k, count in zip(ks, recurring, strict=True) if count >= _ENOUGH * max(recurring)]
    k = int(ks[chosen])
    first = f"Take k = {k}: it describes a held-out row in {bits[chosen]:.1f} bits"
    first += "." if chosen == best else f", no worse over seeds than k = {ks[best]} with {bits[best]:.1f}."
    second = (
        f"The decoder's projections are lowest at k = {ks[projection]}; seeds agree on the most directions at "
        f"k = {', '.join(map(str, agreeing))} (at most {max(recurring):.0f} recur)."
    )
    apart = [other for other in (ks[projection], *agreeing[-1:]) if not k / 2 <= other <= 2 * k]
    third = (
        ("They are more than a factor of two from it, so try a finer range of k, longer training or more latents.",)
        if apart
        else ()
    )
    ends = ("It is the end of what was tried; extend --ks there.",) if chosen in (0, len(ks) - 1) else ()
    return k, (first, second, *third, *ends)
