"""Do these dictionaries, or runs, say the same? Atoms beside atoms, codes beside codes, numbers beside numbers."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from ... import capture, measure
from ...core import Activations, Answer, Findings, Measurement, Report, Run, files
from ...measure.interval import Interval, bootstrap, wilson
from ...measure.stream import Groups, GroupSums
from ...worlds import AnswerKey
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .judge import UNSEEN, Judge
from .reader import Reader, in_run, read_coder
from .stream import open_world

MOST = 8
"""Sources beside each other."""
_ATOMS = 5_000
"""Atoms of a pair that the table lists; all are counted."""
_NUMBERS = 3_000
_THRESHOLDS = tuple(round(0.025 * i, 3) for i in range(41))
_KINDS = ("feature", "duplicate", "composite", "dead", "other")


@dataclass(frozen=True, eq=False)
class _Source:
    """One thing that is compared."""

    name: str
    path: str
    report: Report | None = None
    reader: Reader | None = None
    why_none: str = ""
    world: tuple[str, ...] = ()
    model: str = ""
    site: str = ""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows that all dictionaries read, and where they are from."""

    batches: Sequence[Activations]
    documents: Tensor | None
    origin: str


@dataclass(frozen=True)
class Compare(Study):
    """Do these dictionaries, or runs, say the same?

    Each SOURCE is a run folder, a saved dictionary in any format that `superscope convert` reads, or a matrix of atoms.
    The first is what the others are compared with: which of its atoms they have, split, merge or lack, beside random
    directions; which latents fire alike and what each leaves unexplained, where all were learned at one place; what was
    found of the truth, where they were learned in a world; and every number that several runs measured.
    """

    kind: ClassVar[str] = "compare"

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folders, saved dictionaries or matrices of atoms, the one to compare with first."""
    threshold: Annotated[float, above(0)] = 0.7
    """Cosine from which two atoms are taken for one."""
    signs: Literal["kept", "dropped"] = "kept"
    """Whether an atom and its negative are two things; drop signs where codes may be negative."""
    world: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME of the world and NAME=VALUE for its numbers, where the dictionaries do not say it. To be repeated."""
    rows: Annotated[int, at_least(100)] = 20_000
    """Rows of the world to read."""
    tokens: Annotated[int, at_least(100)] = 4_000
    """Tokens of the model's site to read."""
    text: str | None = None
    """Text for it. Default: the text every Python carries."""
    draws: Count = 3
    """Random dictionaries for chance levels."""
    seed: int = 0
    """Of the rows, of random dictionaries and of the bootstrap."""

    def check(self) -> None:
        if not 2 <= len(self.sources) <= MOST or not all(each.strip() for each in self.sources):
            raise ValueError(f"sources must be 2 to {MOST} paths; got {len(self.sources)}.")
        if not self.threshold < 1:
            raise ValueError(f"threshold must be a cosine below 1; got {self.threshold}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        found, opened = Findings(), []
        names = _names(self.sources)
        for done, (name, path) in enumerate(zip(names, self.sources)):
            yield Progress("Reading", done, len(names), name)
            opened.append(_opened(name, path))
        yield Progress("Reading", len(names), len(names))
        _settings_beside(found, opened)
        _numbers_beside(found, opened)
        for each in opened:
            found.row("sources", **_described(each))
        learned = [each for each in opened if each.reader is not None]
        sentences: list[str] = []
        for done, each in enumerate(learned[1:]):
            yield Progress("Comparing atoms", done, len(learned) - 1, each.name)
            sentences += self._atoms(found, learned[0], each)
        rows = yield from self._rows(found, learned)
        if rows is not None:
            yield from self._codes(found, learned, rows)
        yield from self._truth(found, learned)
        sentences += _of_truth(found)
        if len(learned) < 2:
            sentences.append(
                f"{len(learned) or 'None'} of these {len(opened)} sources "
                f"{'is' if len(learned) == 1 else 'are'} a dictionary, so no atoms are compared; their numbers are."
            )
        sentences += _refusals(found)
        return Answer(title=" beside ".join(names), findings=found, sentences=tuple(sentences))

    def _atoms(self, found: Findings, first: _Source, second: _Source) -> Iterator[str]:
        """What has become of the first one's atoms in the second."""
        assert first.reader is not None
        assert second.reader is not None
        a, b = first.reader.dictionary, second.reader.dictionary
        why = ""
        if a.d != b.d:
            why = f"atoms have d = {a.d} and d = {b.d}"
        elif first.site and second.site and (first.model, first.site) != (second.model, second.site):
            why = (
                f"they were learned at {first.site} of {first.model} and at {second.site} of {second.model}, whose "
                "coordinates mean different things; `superscope transfer` compares what fires there"
            )
        if why:
            found.row("refused", first=first.name, second=second.name, why=f"atoms are not compared: {why}.")
            return
        one = measure.correspondence(
            a, b, threshold=self.threshold, signed=self.signs == "kept", draws=self.draws, seed=self.seed
        )
        pair: dict[str, str | int | float] = {"first": first.name, "second": second.name}
        found.add(one, at=pair)
        sides = (
            ("first", first.reader, one.kind, one.group, one.nearest, one.cosine, one.chance, second.reader),
            (
                "second",
                second.reader,
                one.other_kind,
                one.other_group,
                one.other_nearest,
                one.other_cosine,
                one.other_chance,
                first.reader,
            ),
        )
        for side, reader, kind, group, nearest, cosine, chance, other in sides:
            # Those that are told of first are those that did not simply come again.
            order = sorted(range(len(kind)), key=lambda i: (kind[i] == "matched", int(group[i]), i))[:_ATOMS]
            found.rows(
                "atoms",
                {
                    "atom": reader.kept[order].tolist(),
                    "kind": [kind[i] for i in order],
                    "group": group[order].tolist(),
                    "nearest": other.kept[nearest[order]].tolist(),
                    "cosine": cosine[order].tolist(),
                },
                at={**pair, "side": side},
            )
            shares = [(chance >= t).double().mean(1) for t in _THRESHOLDS]
            found.rows(
                "thresholds",
                {
                    "threshold": list(_THRESHOLDS),
                    "share": [float((cosine >= t).double().mean()) for t in _THRESHOLDS],
                    "chance": [float(s.mean()) for s in shares],
                    "chance_low": [float(s.min()) for s in shares],
                    "chance_high": [float(s.max()) for s in shares],
                },
                at={**pair, "side": side},
            )
        count = {kind: one.kind.count(kind) for kind in measure.CORRESPONDENCES}
        chance = next(m.chance or 0.0 for m in one if m.at["kind"] == "matched" and m.at["atoms_of"] == "first")
        yield (
            f"Of the {a.n:,} atoms of {first.name} {count['matched']:,} ({count['matched'] / a.n:.0%}; by chance "
            f"{chance:.0%}) have one partner among the {b.n:,} of {second.name} at cosine {self.threshold:g}; "
            f"{count['split']:,} split, {count['merged']:,} merged, {count['tangled']:,} tangled and "
            f"{count['unmatched']:,} without a partner."
        )

    def _rows(self, found: Findings, learned: Sequence[_Source]) -> Generator[Progress, None, _Rows | None]:
        """Rows of the one place at which all were learned; None where there is no such place."""
        worlds = {self.world or each.world for each in learned}
        places = {(each.model, each.site) for each in learned}
        if len(learned) < 2 or len({each.reader.dictionary.d for each in learned if each.reader}) > 1:
            return None
        if len(worlds) == 1 and (named := next(iter(worlds))):
            yield Progress("Reading rows", 0, 1)
            name, *numbers = named
            key = AnswerKey.of(open_world(name, numbers), rows=self.rows, seed=self.seed + UNSEEN)
            return _Rows(key.rows, None, f"world:{name}")
        if len(places) == 1 and all(next(iter(places))):
            ((model, site),) = places
            yield Progress("Reading rows", 0, 1, site)
            subject = capture.load(model)
            (place,) = capture.sites(subject.model, [site])
            corpus = capture.tokens(
                subject.tokenizer, capture.documents(self.text), context=128, limit=self.tokens, seed=self.seed
            )
            read = [batch[place] for batch in capture.harvest(subject.model, [place], corpus, device="cpu")]
            return _Rows(read, corpus.document, f"{site} of {model}")
        first = learned[0].name
        why = "they were not all learned at one place that they name, so that there are no rows for all of them"
        for each in learned[1:]:
            found.row("refused", first=first, second=each.name, why=f"codes are not compared: {why}.")
        return None

    def _codes(self, found: Findings, learned: Sequence[_Source], rows: _Rows) -> Generator[Progress, None, None]:
        """What each makes of the same rows, and how it differs from the first."""
        codes, sums = [], []
        for done, each in enumerate(learned):
            yield Progress("Comparing codes", done, 2 * len(learned), each.name)
            assert each.reader is not None
            if each.reader.decodes:
                evaluation = measure.evaluate(each.reader, rows.batches, documents=rows.documents, seed=self.seed)
                found.add(
                    [evaluation[name] for name in ("fraction_variance_unexplained", "l0", "alive_latents")],
                    at={"source": each.name},
                )
            codes.append(measure.active(each.reader.encode(batch.x) for batch in rows.batches))
            sums.append(_errors(each.reader, rows))
        for done, (each, code, error) in enumerate(zip(learned[1:], codes[1:], sums[1:])):
            yield Progress("Comparing codes", len(learned) + done, 2 * len(learned), each.name)
            pair: dict[str, str | int | float] = {"first": learned[0].name, "second": each.name}
            if learned[0].reader.decodes and each.reader.decodes:  # type: ignore[union-attr]
                found.add(_differences(sums[0], error, rows, self.seed), at=pair)
            for side, a, b in (("first", codes[0], code), ("second", code, codes[0])):
                measured, _ = measure.features_found(a, b, draws=self.draws, seed=self.seed)
                found.add(measured, at={**pair, "atoms_of": side})

    def _truth(self, found: Findings, learned: Sequence[_Source]) -> Generator[Progress, None, None]:
        """Each against the world that it was learned in."""
        for each in learned:
            named = self.world or each.world
            if not named:
                continue
            judge = Judge(each.path, world=named, rows=self.rows, ceilings=False, seed=self.seed)
            judged = yield from judge.answer(Run.begin(judge.kind, {}))
            found.add(judged.findings, at={"source": each.name})
            for table in ("features", "latents", "detection"):
                columns = judged.findings.tables.get(table)
                if columns:
                    rows = len(next(iter(columns.values())))
                    # A world of single features has no parents; the table keeps one shape for all.
                    more = {"parent": [None] * rows} if table == "features" and "parent" not in columns else {}
                    found.rows(table, {**columns, **more}, at={"source": each.name})
            _summed(found, each.name, judged.findings)


def _opened(name: str, path: str) -> _Source:
    """What a path names: a run's report, its dictionary, or a dictionary alone."""
    place, world = in_run(path)
    folder = Path(path).expanduser()
    if not world and (place.parent / "about.json").is_file() and not (place / "report.json").is_file():
        # The dictionary of a training that is named itself.
        _, world = in_run(str(place.parent))
    report = None
    if not path.startswith("hub:") and _is_run(folder):
        report = Report.load(folder)
        if place == folder:
            return _Source(name, path, report, why_none="it holds no dictionary of its own")
    reader = read_coder(place, path)
    notes = _notes(place)
    model = str(notes.get("model") or notes.get("source") or "")
    is_model = not model.startswith("world:") and bool(notes.get("site"))
    return _Source(
        name,
        path,
        report,
        reader,
        world=world,
        model=model if is_model else "",
        site=str(notes["site"]) if is_model else "",
    )


def _is_run(folder: Path) -> bool:
    return (folder / "report.json").is_file() and (folder / "about.json").is_file()


def _notes(place: Path) -> Mapping[str, Any]:
    about = place / "about.json"
    notes = files.read_json(about).get("notes") if about.is_file() else None
    return notes if isinstance(notes, dict) else {}


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """Each path by as many of its last parts as tell it from the others.

    Example:
        >>> _names(("runs/a/sae", "runs/b/sae"))
        ('a/sae', 'b/sae')
    """
    parts = [Path(path).parts or (path,) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{path} ({number + 1})" for number, path in enumerate(paths))


def _described(each: _Source) -> dict[str, Any]:
    W = None if each.reader is None else each.reader.dictionary
    return {
        "source": each.name,
        "path": each.path,
        "study": "" if each.report is None else each.report.kind,
        "title": "" if each.report is None else each.report.title,
        "dictionary": each.why_none if each.reader is None else each.reader.what,
        "n": None if W is None else W.n,
        "d": None if W is None else W.d,
        "learned_at": " ".join(("world:" + each.world[0], *each.world[1:])) if each.world else each.site,
        "cautions": "" if each.reader is None else " ".join(each.reader.cautions),
    }


def _settings_beside(found: Findings, opened: Sequence[_Source]) -> None:
    """The settings in which runs differ."""
    runs = [(each.name, each.report.settings) for each in opened if each.report is not None]
    if len(runs) < 2:
        return
    for key in dict.fromkeys(key for _, settings in runs for key in settings):
        values = [(name, "" if settings.get(key) is None else str(settings[key])) for name, settings in runs]
        if len({value for _, value in values}) > 1:
            for name, value in values:
                found.row("settings", setting=key, source=name, value=value)


def _numbers_beside(found: Findings, opened: Sequence[_Source]) -> None:
    """Every number that at least two runs measured at the same place."""
    seen: dict[tuple[str, str], list[tuple[str, Measurement]]] = {}
    for each in opened:
        for m in () if each.report is None else each.report.measurements:
            place = ", ".join(f"{key} {value}" for key, value in m.at.items())
            seen.setdefault((m.name, place), []).append((each.name, m))
    for (name, place), several in itertools.islice(
        ((key, found_in) for key, found_in in seen.items() if len({source for source, _ in found_in}) > 1), _NUMBERS
    ):
        for source, m in several:
            found.row(
                "measured",
                name=name,
                place=place,
                source=source,
                value=m.value,
                unit=m.unit,
                low=m.low,
                high=m.high,
                interval=m.how,
                n=m.n,
                of=m.of,
            )


def _errors(reader: Reader, rows: _Rows) -> np.ndarray:
    """By document the sums of squared error, of active latents, of energy about the mean, and of rows."""
    mean = torch.cat([batch.x for batch in rows.batches]).double().mean(0)
    groups, sums = Groups(rows.documents), GroupSums(4)
    for batch in rows.batches:
        code = reader.encode(batch.x)
        error = (batch.x - reader.decode(code)).double().square().sum(1)
        energy = (batch.x.double() - mean).square().sum(1)
        sums.add(groups(batch), torch.stack([error, code.l0.double(), energy, torch.ones_like(error)], 1))
    return sums.sums


def _differences(first: np.ndarray, second: np.ndarray, rows: _Rows, seed: int) -> list[Measurement]:
    """The second less the first on the same rows, documents resampled for both at once."""
    both = np.concatenate([first, second], 1)
    count = int(first[:, 3].sum())
    unexplained = lambda s: (s[:, 4] - s[:, 0]) / s[:, 2]  # noqa: E731
    active = lambda s: (s[:, 5] - s[:, 1]) / s[:, 3]  # noqa: E731
    return [
        Measurement(
            name=name,
            value=float(statistic(both.sum(0, keepdims=True))[0]),
            unit=unit,
            n=count,
            of="tokens" if rows.documents is not None else "rows",
            **_paired(bootstrap(statistic, both, of="documents" if rows.documents is not None else "runs of 64 rows",
                                seed=seed)).fields,
        )
        for name, unit, statistic in (
            ("unexplained_difference", "share of variance", unexplained),
            ("l0_difference", "latents", active),
        )
    ]  # fmt: skip


def _paired(spread: Interval) -> Interval:
    return Interval(spread.low, spread.high, f"{spread.how}, paired")


def _summed(found: Findings, source: str, judged: Findings) -> None:
    """What of the truth was found, missed, invented and absorbed, in one table."""
    detected = judged.tables["features"]["detected"]
    kinds = judged.tables["latents"]["kind"]
    n, latents = len(detected), len(kinds)
    children = judged["absorbed_children"]
    found_by_chance = judged["atom_recall"].chance
    entries: list[tuple[str, int, int, str, float | None]] = [
        ("found", sum(detected), n, "features", found_by_chance),
        ("missed", n - sum(detected), n, "features", None if found_by_chance is None else 1 - found_by_chance),
        ("absorbed", round((children.value or 0.0) * children.n), children.n, "pairs of parent and child", None),
        *(
            (
                {"other": "invented", "feature": "stand for a feature"}.get(kind, kind),
                kinds.count(kind),
                latents,
                "latents",
                next((m.chance for m in judged if m.name == f"{kind}_latents"), None),
            )
            for kind in _KINDS
        ),
    ]
    for what, count, of, things, chance in entries:
        spread = wilson(count, of, of=things) if of else Interval(None, None, "no interval: there are none")
        found.row(
            "truth",
            source=source,
            what=what,
            count=count,
            of=of,
            things=things,
            share=count / of if of else None,
            low=spread.low,
            high=spread.high,
            chance=chance,
        )


def _of_truth(found: Findings) -> Iterator[str]:
    table = found.tables.get("truth", {})
    for source in dict.fromkeys(table.get("source", ())):
        of = {
            what: (count, total)
            for each, what, count, total in zip(table["source"], table["what"], table["count"], table["of"])
            if each == source
        }
        absorbed = f" and {of['absorbed'][0]} of {of['absorbed'][1]} children absorbed" if of["absorbed"][1] else ""
        yield (
            f"{source}: {of['found'][0]:,} of {of['found'][1]:,} true features found, {of['missed'][0]:,} missed; "
            f"{of['invented'][0]:,} of {of['invented'][1]:,} latents invented{absorbed}."
        )


def _refusals(found: Findings) -> Iterator[str]:
    table = found.tables.get("refused", {})
    for first, second, why in zip(*(table.get(name, ()) for name in ("first", "second", "why"))):
        yield f"{first} and {second}: {why}"
