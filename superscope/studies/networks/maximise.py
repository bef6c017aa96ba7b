"""Which prompt, or which picture, moves this unit most, beside what the data holds and what chance finds?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from ... import capture, measure
from ...capture import Images, Subject
from ...core import Answer, Findings, Measurement, Run, Site, files
from ...measure.interval import Interval
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .maximise_pictures import SHOWN, Ascent, Pictures, climbed, real_pictures, shape_of
from .maximise_prompts import Search, Text, columns_of, searched
from .readings import CONTROL, TRAINED
from .targets import Unit, Units, dictionary_of, directions_in, scanned

_UNITS = "units"


@dataclass(frozen=True)
class Maximise(Study):
    """Find the prompt, or the picture, that makes a unit largest.

    A unit is a latent of a dictionary, a coordinate of a site (at `mlp_act`, a neuron), or the part along a direction.
    For a causal language model, prompts of a few tokens evolve by the slope of their tokens, once for each weight of
    fluency; for a vision model, pictures are climbed to from noise. Beside each: the strongest found in text or in real
    pictures, the best of as many prompts or pictures at random, and the same model with random weights.
    """

    kind: ClassVar[str] = "maximise"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal language model or a vision model; "pocket" travels inside the
    package."""
    site: str | None = None
    """Where the unit is: `mlp_act.2`, `resid_post.6`, a module path. Default: the middle block's neurons, or the stream
    behind it where a dictionary or a direction is given."""
    dictionary: str | None = None
    """Take latents of it: the run folder of `superscope scan` or `superscope train`, or a saved dictionary in any known
    format."""
    direction: str | None = None
    """Take directions of it: a .npy or .safetensors file of vectors."""
    units: tuple[Annotated[int, at_least(0)], ...] = ()
    """Numbers of latents, coordinates or directions. Default: some are drawn; of a scan, its most reliable ones; of a
    file, its first directions."""
    count: Count = 4
    """Units, where none are named."""
    length: Annotated[int, at_least(1, why="A prompt has a token.")] = 8
    """Tokens of a prompt."""
    position: Literal["last", "best"] = "last"
    """Where a prompt, or a picture, is read: at the last token, or the best one; of a picture in the mean of its
    patches, or at the best one."""
    fluency: tuple[Annotated[float, at_least(0, finite=True)], ...] = (0.0, 0.1, 0.3, 1.0)
    """Weights of fluency: what a nat a token costs, in units of how far the strongest in text is above the mean. A
    prompt is searched for each."""
    iterations: Count = 60
    """Of the evolution of prompts."""
    children: Count = 12
    """New prompts in an iteration, for each weight of fluency."""
    top: Count = 64
    """Tokens that the slope proposes at each position."""
    steps: Count = 200
    """Of ascent on pictures."""
    starts: Count = 4
    """Pictures climbed to side by side; the best is shown, and all of them give the interval."""
    rate: Annotated[float, above(0, finite=True)] = 0.05
    """Of ascent on pictures, per Fourier coefficient."""
    jitter: Annotated[int, at_least(0)] = 1
    """Pixels by which a picture is moved at random in each step."""
    images: str | None = None
    """Real pictures for a vision model: a folder, which its own processor prepares, or a .npy file (count, channels,
    height, width) as the model wants them. Their range bounds the pixels."""
    control: bool = True
    """Whether to search the same network with random weights too."""
    text: str | None = None
    """Text to look for the strongest in: a file, a folder, or `datasets:NAME`. Default: the text every Python
    carries."""
    tokens: Annotated[int, at_least(200)] = 20_000
    """Tokens of it."""
    context: Annotated[int, at_least(2)] = 128
    """Tokens the model sees at once."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of everything random: the text, the units drawn, the starts, what is tried."""

    def check(self) -> None:
        if self.dictionary is not None and self.direction is not None:
            raise ValueError("a unit is a latent or a direction; give one of --dictionary and --direction.")
        if not self.fluency or len(set(self.fluency)) < len(self.fluency):
            raise ValueError(f"fluency must be different weights, at least one; got {self.fluency}.")
        if self.length > self.context:
            raise ValueError(
                f"a prompt of {self.length} tokens is longer than the {self.context} the text is read in. "
                "Give a shorter --length, or more --context."
            )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        sees = loaded.tokenizer is None
        if not sees and loaded.kind != "causal":
            raise ValueError(
                f"'{loaded.name}' is an encoder of text and says of no prompt how likely it is; give a causal language "
                "model, or a vision model."
            )
        if sees:
            shape_of(loaded)
        elif self.images is not None:
            raise ValueError(f"'{loaded.name}' reads text and no pictures; leave out --images.")
        units, asked = self._asked()
        layers = len(capture.blocks(loaded.model))
        default = "resid_post" if self.dictionary or self.direction else "mlp_act"
        named = asked or f"{default}.{(layers - 1) // 2}"
        site, *more = capture.name_sites(loaded.model, (named,)).values()
        if more:
            raise ValueError(f"{named} names {1 + len(more)} sites; units are of one. Give one with --site.")
        yield Progress(f"Loading {self.model}", 1, 1, str(site))
        subjects = {TRAINED: loaded} | ({CONTROL: capture.control(loaded, self.seed)} if self.control else {})
        findings = Findings()
        if sees:
            found, arrays = yield from self._pictures(run, subjects, site, units, findings)
        else:
            found, arrays = yield from self._prompts(run, subjects, site, units, findings)
        return Answer(
            title=f"{loaded.name} at {site}: {'pictures' if sees else 'prompts'} that move a unit most",
            findings=findings,
            sentences=tuple(_sentences(findings, found, sees, self.length)),
            arrays=arrays,
        )

    def _asked(self) -> tuple[Units, str | None]:
        """How units are found, and the site that was named, or that a scan has them at."""
        if self.direction is not None:
            return Units(directions=directions_in(self.direction), asked=self.units), self.site
        if self.dictionary is None:
            return Units(asked=self.units), self.site
        of_scan = scanned(self.dictionary, self.model, self.site)
        if of_scan is None:
            return Units(dictionary_of(self.dictionary), asked=self.units), self.site
        place, site, latents = of_scan
        return Units(dictionary_of(str(place)), asked=self.units, offered=latents), site

    def _prompts(
        self, run: Run, subjects: Mapping[str, Subject], site: Site, units: Units, findings: Findings
    ) -> Generator[Progress, None, tuple[dict[str, list[dict[str, Any]]], dict[str, Tensor]]]:
        loaded = subjects[TRAINED]
        corpus = capture.tokens(
            loaded.tokenizer,
            capture.documents(self.text),
            context=self.context,
            limit=self.tokens,
            seed=self.seed,
        )
        how = Search(self.fluency, self.iterations, self.children, self.top, self.seed)
        found: dict[str, list[dict[str, Any]]] = {}
        chosen: list[Unit] = []
        for label, subject in subjects.items():
            yield Progress(f"Reading text ({label})", 0, 1)
            text = Text.of(subject, site, corpus, length=self.length, best=self.position == "best", seed=self.seed)
            # The same numbers in both: drawn once, of the trained model's rows.
            chosen = chosen or units.of(text.rows.x, str(site), self.count, self.seed)
            yield Progress(f"Reading text ({label})", 1, 1, f"{len(text.rows):,} rows")
            found[label] = yield from _each(
                run, label, chosen, self.iterations, lambda unit, text=text: searched(unit, text, how)
            )
            at = {"site": str(site), "model": label}
            findings.rows("maximised", columns_of(found[label]), at=at)
            front: dict[str, list[Any]] = {name: [] for name in ("target", "value", "nats", "prompt")}
            for one in found[label]:
                for row in one["front"]:
                    for name, cell in {"target": one["label"], **row}.items():
                        front[name].append(cell)
            findings.rows("front", front, at=at)
            nats = text.likelihood(chosen[0].target)
            for one in found[label]:
                values = {t["fluency"]: t["value"] for t in one["texts"] if t["what"] == "maximised"}
                chance = next((t["value"] for t in one["texts"] if t["what"] == "at random"), None)
                findings.add(_activation(one, max(_known(values.values()), default=None), chance, "text"), at=at)
            for weight in self.fluency:
                where = {**at, "fluency": weight}
                findings.add(_summary(found[label], weight, self.seed), at=where)
                findings.add(_nats(found[label], weight, nats, self.seed), at=where)
        run.note(text=f"{len(corpus.names)} documents", window=str(corpus.policy))
        return found, {}

    def _pictures(
        self, run: Run, subjects: Mapping[str, Subject], site: Site, units: Units, findings: Findings
    ) -> Generator[Progress, None, tuple[dict[str, list[dict[str, Any]]], dict[str, Tensor]]]:
        loaded = subjects[TRAINED]
        images: Images | None = None if self.images is None else real_pictures(loaded, self.images)
        how = Ascent(self.starts, self.steps, self.rate, self.jitter, self.seed)
        found: dict[str, list[dict[str, Any]]] = {}
        arrays: dict[str, Tensor] = {}
        chosen: list[Unit] = []
        for label, subject in subjects.items():
            yield Progress(f"Reading pictures ({label})", 0, 1)
            given = Pictures.of(subject, site, images, best=self.position == "best", seed=self.seed)
            chosen = chosen or units.of(given.x, str(site), self.count, self.seed)
            yield Progress(f"Reading pictures ({label})", 1, 1, f"{len(given.x):,} patches")

            def climb(unit: Unit, given: Pictures = given, label: str = label) -> Generator[int, None, dict[str, Any]]:
                one, pixels = yield from climbed(unit, given, how)
                return one | {"pixels": pixels.tolist()}

            found[label] = yield from _each(run, label, chosen, self.steps, climb)
            at = {"site": str(site), "model": label}
            low, high = given.bounds.low.tolist(), given.bounds.high.tolist()
            for number, one in enumerate(found[label]):
                name = f"pictures.{label}.{number}"
                for shown in one["shown"]:
                    room = None if one["strongest"] is None else one["strongest"] - one["mean"]
                    over = (shown["value"] - one["mean"]) / room if room and shown["value"] is not None else None
                    where = {"target": one["label"], "array": name, "index": SHOWN.index(shown["what"])}
                    findings.row("pictures", **at, **where, **shown, above=over, low=low, high=high)
                if one["shown"]:
                    arrays[name] = torch.tensor(one.pop("pixels"))
                    for start in range(len(one["starts"])):
                        for step, values in zip(one["climb"]["step"], one["climb"]["value"], strict=True):
                            row = {"target": one["label"], "start": start, "step": step, "value": values[start]}
                            findings.row("climbs", **at, **row)
                values = {s["what"]: s["value"] for s in one["shown"]}
                spread = measure.over_seeds(one["starts"], of="starts")
                made = _activation(one, values.get(SHOWN[0]), values.get(SHOWN[2]), "real pictures", spread)
                findings.add(made, at=at)
            findings.add(_summary(found[label], None, self.seed), at=at)
        return found, arrays


def _each(
    run: Run,
    label: str,
    units: Sequence[Unit],
    steps: int,
    make: Callable[[Unit], Generator[int, None, dict[str, Any]]],
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """What is found of each unit; those that an interrupted run has found are read."""
    stage, total, found = f"Climbing ({label})", len(units) * steps, list[dict[str, Any]]()
    for number, unit in enumerate(units):
        name = f"{_UNITS}/{label}-{number}.json"
        run.drop(name)
        made = run.kept(name, files.read_json)
        if made is not None:
            yield Progress(stage, (number + 1) * steps, total, unit.label, resumed=True)
        else:
            yield Progress(stage, number * steps, total, unit.label)
            search = make(unit)
            while made is None:
                try:
                    yield Progress(stage, number * steps + next(search), total, unit.label)
                except StopIteration as end:
                    made = end.value
            run.keep(name, partial(files.write_json, value=made))
        found.append(made)
    run.drop(_UNITS)
    return found


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def _activation(
    one: Mapping[str, Any], value: float | None, chance: float | None, where: str, spread: Interval | None = None
) -> Measurement:
    """The largest value of one unit that was found, beside the largest in the data and at random."""
    alone = Interval(None, None, "no interval: one search")
    said = (alone if spread is None or value is None else spread).fields
    caution = ""
    if value is None:
        caution = (
            "it is the same on every row and every input tried, so nothing can be raised"
            if not one["moves"]
            else "every input tried was an outlier"
        )
    return Measurement(
        name="maximised_activation",
        value=value,
        unit="as x",
        n=max(one["evaluations"], 1),
        of="inputs tried",
        reference=one["strongest"],
        reference_is=f"the strongest in {where}" if one["strongest"] is not None else "",
        chance=chance,
        chance_is="the best of as many at random" if chance is not None else "",
        at={"target": one["label"]},
        caution=caution,
        **said,
    )


def _values(one: Mapping[str, Any], weight: float | None) -> tuple[float | None, float | None]:
    """The value that was found of a unit, and the best at random."""
    rows = one["texts"] if "texts" in one else one["shown"]
    found = [r["value"] for r in rows if r["what"] == "maximised" and r.get("fluency") == weight]
    chance = [r["value"] for r in rows if r["what"] in ("at random", SHOWN[2])]
    return (found[0] if found else None), (chance[0] if chance else None)


def _summary(found: Sequence[Mapping[str, Any]], weight: float | None, seed: int) -> Iterator[Measurement]:
    """Over units: how much further than the data, and how often."""
    rows = []
    for one in found:
        value, chance = _values(one, weight)
        room = 0.0 if one["strongest"] is None else one["strongest"] - one["mean"]
        if value is not None and chance is not None and room > 0:
            rows.append(((value - one["mean"]) / room, (chance - one["mean"]) / room))
    sums = np.array([[ratio, 1.0] for ratio, _ in rows])
    why = "" if rows else "no unit is ever above its mean in the data, so there is nothing to compare with"
    spread = measure.bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of="units", seed=seed).fields if rows else {}
    yield Measurement(
        name="maximised_ratio",
        value=float(sums[:, 0].mean()) if rows else None,
        unit="times the strongest in the data",
        n=len(rows),
        of="units",
        reference=1.0,
        reference_is="the strongest in the data",
        chance=float(np.mean([chance for _, chance in rows])) if rows else None,
        chance_is="the best of as many at random" if rows else "",
        caution=why,
        **spread,
    )
    over = sum(ratio > 1 for ratio, _ in rows)
    yield Measurement(
        name="maximised_above",
        value=over / len(rows) if rows else None,
        unit="share",
        n=len(rows),
        of="units",
        chance=sum(chance > 1 for _, chance in rows) / len(rows) if rows else None,
        chance_is="the best of as many at random" if rows else "",
        caution=why,
        **(measure.wilson(over, len(rows), of="units").fields if rows else {}),
    )


def _nats(found: Sequence[Mapping[str, Any]], weight: float, nats: Mapping[str, Tensor], seed: int) -> Measurement:
    """How unlikely the prompts are, beside windows of text and prompts at random."""
    own = _known(
        t["nats"] for one in found for t in one["texts"] if t["what"] == "maximised" and t["fluency"] == weight
    )
    sums = np.array([[value, 1.0] for value in own])
    spread = measure.bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of="units", seed=seed).fields if own else {}
    return Measurement(
        name="maximised_nats",
        value=float(np.mean(own)) if own else None,
        unit="nats a token",
        n=len(own),
        of="prompts",
        reference=float(nats["text"].mean()),
        reference_is="windows of text as long",
        chance=float(nats["random"].mean()),
        chance_is="prompts at random",
        caution="" if own else "no unit could be moved",
        **spread,
    )


def _sentences(
    findings: Findings, found: Mapping[str, Sequence[Mapping[str, Any]]], sees: bool, length: int
) -> Iterator[str]:
    of = "real pictures" if sees else "text"
    what = "a picture" if sees else f"a prompt of {length} tokens"
    for label, units in found.items():
        own = "" if label == TRAINED else "With random weights: "
        ratio = findings.get("maximised_ratio", label)
        over = findings.get("maximised_above", label)
        assert ratio is not None
        assert over is not None
        if ratio.value is not None and over.value is not None:
            span = "" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
            yield (
                f"{own}{round(over.value * over.n)} of {over.n} units are raised above their strongest in {of} by "
                f"{what}, on average to {ratio.value:.2f}{span} times it; the best of as many at random reaches "
                f"{ratio.chance:.2f}."
            )
        still = [one["label"] for one in units if not one["moves"]]
        if still:
            yield (
                f"{own}Nothing moves {', '.join(still)}: the value is the same on every row and every input tried, so "
                "nothing can be raised. Give another unit."
            )
    ways = [m for m in findings if m.name == "maximised_nats" and m.at["model"] == TRAINED and m.value is not None]
    if ways:
        first, last = ways[0], ways[-1]
        more = findings.get("maximised_ratio", TRAINED, last.at["fluency"])
        beside = (
            f"; at weight {last.at['fluency']} {last.value:.1f}, and {more.value:.2f} times the strongest in text"
            if len(ways) > 1 and more is not None and more.value is not None
            else ""
        )
        yield (
            f"At weight {first.at['fluency']} of fluency such a prompt costs {first.value:.1f} nats a token{beside}; "
            f"windows of text cost {first.reference:.1f}, prompts at random {first.chance:.1f}."
        )
    texts = [t for units in found.values() for one in units for t in one.get("texts", ()) if t["what"] == "maximised"]
    lost = sum(not t["returns"] for t in texts)
    if lost:
        yield f"{lost} of {len(texts)} prompts do not come back from their text: typed, they are other tokens."
