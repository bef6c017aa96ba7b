"""How long until a TopK autoencoder is as good? CPU seconds to equal held-out error, ours beside other packages.

    scripts/real-model                                              # once: the real model
    scripts/peers --only dictionaries                               # once: an environment with theirs and ours
    PYTHONPATH=. .venv-peers/bin/python benchmarks/time_to_quality.py            # 30 minutes of one core
    PYTHONPATH=. .venv-peers/bin/python benchmarks/time_to_quality.py --short    # 4 minutes, one site, one seed
    PYTHONPATH=. .venv-peers/bin/python benchmarks/time_to_quality.py --report   # tables and plot of what is there

Rows are those behind two blocks of the pocket model and block 15 of the real one (outliers left out), in units of their
root mean square deviation; n = 8 d, k = 32, batches of 1 024, float32, one thread. Every contestant reads the same rows
in the same order, takes its own steps with its own defaults, and has the learning rate that left least unexplained on
other documents of the same model, first seed, after half the steps (a quarter for the real model): rates a factor of 2
apart, until the best lies between two others. sparsify is tried with its default optimiser and with Adam, and keeps the
better.

Seconds are CPU seconds of building, starting and stepping, batches included; looking at the held-out rows is outside
the clock. With the harvest, every row that is read costs what the model took to give it, those of a start too, up to
all the rows there are. The trainings of one site and seed go
on by turns of a few steps, so that other load on the machine falls on all alike.

A peer's rate is constant, so each point of its curve is the end of a run of that length. Ours decays over its run;
so its curve is made of whole runs of several lengths, each from its own start to its own end, and no point of it is
the middle of a run. Three targets: what the best peer leaves after a fifth, after half and after all of its steps.
The moment of reaching one lies between two points of the curve, on logarithmic axes; where a peer does not come so far
in all of its steps, its ratio is a lower bound.

Each finished training is a line of time_to_quality.jsonl and is not made again; results go to
time_to_quality_results.md and docs/images/time-to-quality.png.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WANDB_MODE", "disabled")

import numpy as np
import peers
import torch
from peers import Learner
from quality_forms import ALIKE, BATCH, BESIDE, CONSTANT, DECAYING, FULL, OURS, ROUNDED, SHORT, SILENT, Form, K, Place
from quality_page import FASTEST, curves, page, picture, spread, summary
from results import claim, commit, sources
from safetensors.torch import load_file, save_file
from timing import environment
from torch import Tensor

from superscope import capture, dictionaries, intervene
from superscope.capture import MemorySource
from superscope.core import Activations
from superscope.dictionaries import TopK, Whitening, train
from superscope.kernels.choice import multiplies_bfloat16

RECIPE: Mapping[str, Any] = dictionaries.SHORT
"""What our trainer is given: the one line to change when there is a better one."""
TURNED = True
"""Whether it learns from rows turned to their principal axes (`Whitening.of(..., kind="axes")`)."""

HERE = Path(__file__).parent
LINES = HERE / "time_to_quality.jsonl"
PAGE = HERE / "time_to_quality_results.md"
SLICE = 10
"""Steps of a turn."""


# ---- rows


TUNING = 0.5
"""Rows to choose rates on, of those to learn from."""


class Counted(MemorySource):
    """Rows in memory that say how many of them have been read."""

    read = 0

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        for batch in super().batches(size, seed=seed):
            self.read += len(batch)
            yield batch


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a place, in units of their deviation.

    Args:
        learn, held: to learn from and to look at.
        scale: the unit, in the model's own.
        second: CPU seconds that the model takes for a row.
        recovered: of a reconstruction, the share of the cross entropy that the site is worth; None while rates are
            chosen.
    """

    learn: Tensor
    held: Tensor
    scale: float
    second: float
    recovered: Callable[[Callable[[Tensor], Tensor]], float] | None = None

    @functools.cached_property
    def variance(self) -> float:
        return float((self.held - self.held.mean(0)).square().sum())


def rows_of(place: Place, folder: Path, *, tuning: bool = False) -> Rows:
    """Reads the model, or the file that an earlier call left; documents to choose rates on are others."""
    loaded = capture.load(place.model)
    (site,) = capture.name_sites(loaded.model, (place.site,)).values()
    wanted = {"learn": place.rows, "held": place.held, "tune": round(TUNING * place.rows), "tune held": place.held}
    corpus = capture.tokens(loaded.tokenizer, capture.documents(None), context=128, limit=sum(wanted.values()), seed=0)
    parts = {}
    left = sum(wanted.values())
    for name, count in list(wanted.items())[:0:-1]:
        corpus, parts[name] = corpus.split(1 - count / left, seed=0)
        left -= count
    parts["learn"] = corpus
    file = folder / f"{place.name.replace(' ', '-')}-{place.rows}.safetensors"
    if not file.exists():
        limits = capture.outlier_limits(loaded.model, [site], corpus)
        tensors, spent = {}, 0.0
        for name, part in parts.items():
            print(f"reading {name}: {part.n_tokens} rows of {place.name}", file=sys.stderr, flush=True)
            began = time.process_time()
            source = returned(capture.record(loaded, [site], part, limits=limits))[site]
            spent += time.process_time() - began
            tensors[name] = source.x
            tensors[f"{name} left out"] = source.left_out.places
        tensors["second"] = torch.tensor(spent / sum(part.n_tokens for part in parts.values()), dtype=torch.float64)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    found = load_file(file)
    scale = float((found["learn"] - found["learn"].mean(0)).square().mean().sqrt())
    of = "tune" if tuning else "learn"
    held = "tune held" if tuning else "held"
    recovered = None
    if not tuning:
        gone = Activations(found["held"][:0], places=found["held left out"])
        recovered = recovering(loaded, site, parts["held"], place.windows, gone, found["learn"].mean(0), scale)
    return Rows(found[of] / scale, found[held] / scale, scale, float(found["second"]), recovered)


def returned(generator: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def recovering(
    loaded: Any, site: Any, corpus: Any, windows: int, gone: Activations, mean: Tensor, scale: float
) -> Callable[[Callable[[Tensor], Tensor]], float]:
    """(ablated - spliced) / (ablated - clean) of next-token losses on some windows, against the mean in place of x."""
    where = capture.ordinary_places(corpus, gone)[:windows]
    some = corpus.take(torch.arange(windows))

    def loss(function: Callable[[Tensor], Tensor] | None) -> float:
        splice = None if function is None else {site: function}
        return float(intervene.next_token_loss(loaded, some, splice=splice, where=where).nats.sum())

    clean, ablated = loss(None), loss(lambda x: mean.expand_as(x))

    def recovered(reconstruct: Callable[[Tensor], Tensor]) -> float:
        return (ablated - loss(lambda x: reconstruct(x / scale) * scale)) / (ablated - clean)

    return recovered


# ---- contestants


def ours(
    rows: Counted, n: int, steps: int, lr: float, seed: int, precision: str = "full", **changes: Any
) -> tuple[Callable[[], object], Learner]:
    """Our trainer with the recipe, on the rows it reads itself."""
    sae = TopK(rows.d, n, k=K, seed=seed)
    options: dict[str, Any] = {**RECIPE, "lr": lr, "precision": precision, **changes}
    white = Whitening.of(rows, kind="axes", rows=16_384, seed=seed) if TURNED else None
    training = train(sae, rows if white is None else white.source(rows), steps=steps, batch=BATCH, seed=seed, **options)
    left = steps

    def step() -> None:
        nonlocal left
        next(training)
        left -= 1
        if white is not None and not left:
            white.fold(sae)

    def reconstruct(x: Tensor) -> Tensor:
        if white is None or not left:
            return sae.reconstruct(x)
        return (sae.reconstruct(white(x)) @ white.back.T.float()) + white.mean.float()

    # A rotation leaves cosines what they are.
    learner = Learner(
        lambda x: None, reconstruct, lambda x: sae.encode(x).dense() > 0, lambda: sae.dictionary.unit().atoms
    )
    return step, learner


def theirs(
    make: Callable[..., Learner], rows: Counted, n: int, steps: int, lr: float, seed: int
) -> tuple[Callable[[], object], Learner]:
    """A peer's trainer, on the batches that ours draws for the same seed."""
    learner = make(rows.d, n, K, BATCH, lr=lr, seed=seed)
    stream = batches(rows, seed)
    return lambda: learner.step(next(stream)), learner


def batches(rows: MemorySource, seed: int) -> Iterator[Tensor]:
    """In the order in which `train` reads them; epoch after epoch."""
    epoch = 0
    while True:
        order = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
        for batch in rows.batches(BATCH, seed=order):
            yield batch.x
        epoch += 1


@dataclass(frozen=True)
class Tool:
    """A contestant.

    Args:
        make: (rows, n, steps, lr, seed) to a step and a learner.
        rate: the middle of the rates tried first, given n.
        like: the contestant whose rate it takes; its own without.
    """

    make: Callable[..., tuple[Callable[[], object], Learner]]
    rate: Callable[[int], float]
    like: str = ""


TOOLS = {
    OURS: Tool(ours, lambda n: RECIPE.get("lr", 3e-3)),
    ROUNDED: Tool(functools.partial(ours, precision="bfloat16"), lambda n: RECIPE.get("lr", 3e-3), like=OURS),
    CONSTANT: Tool(functools.partial(ours, warmup=0, decay=0), lambda n: RECIPE.get("lr", 3e-3) / 2),
    "sparsify, signum": Tool(functools.partial(theirs, functools.partial(peers.sparsify, "signum")), peers.signum_rate),
    "sparsify, Adam": Tool(functools.partial(theirs, functools.partial(peers.sparsify, "adam")), lambda n: 3e-3),
    "SAELens": Tool(functools.partial(theirs, functools.partial(peers.saelens, "TopK")), lambda n: 3e-3),
    "dictionary_learning": Tool(
        functools.partial(theirs, functools.partial(peers.dictionary_learning, "TopK")), lambda n: 3e-3
    ),
}


def lacking(name: str) -> str:
    """What a contestant needs and is not here; empty where it can run."""
    if name == ROUNDED and not multiplies_bfloat16("cpu"):
        return "a processor that multiplies bfloat16"
    return peers.lacking(name)


def made_by(name: str) -> str:
    """The version of a peer, or what our trainer's sources and recipe are."""
    package = peers.package_of(name)
    if package is not None:
        return importlib.metadata.version(package[1])
    recipe = json.dumps(dict(RECIPE), sort_keys=True, default=repr)
    return f"{SOURCES} {recipe}{' on rows turned to their axes' if TURNED else ''}"


SOURCES = sources()


# ---- one training


@dataclass(frozen=True)
class Run:
    """One training, and at which steps it is looked at."""

    tool: str
    place: str
    n: int
    steps: int
    lr: float
    seed: int
    marks: tuple[int, ...]

    @property
    def key(self) -> dict[str, Any]:
        return {**vars(self), "marks": list(self.marks), "by": made_by(self.tool)}


class Going:
    """A training between two of its turns.

    Args:
        run: what is trained.
        rows: on what.
        losses: at which steps the model's loss is measured too.
    """

    def __init__(self, run: Run, rows: Rows, losses: Iterable[int] = ()) -> None:
        self.run, self.rows, self.losses = run, rows, set(losses)
        self.source = Counted(rows.learn)
        self.cpu = self.wall = 0.0
        self.done = 0
        self.points: list[dict[str, float]] = []
        with self._clock():
            self.step, self.learner = TOOLS[run.tool].make(self.source, run.n, run.steps, run.lr, run.seed)

    def to(self, step: int) -> None:
        """Goes on to a step, looking at the marks on the way."""
        while self.done < step:
            upto = min([mark for mark in self.run.marks if mark > self.done] + [step])
            with self._clock():
                for _ in range(min(upto, step) - self.done):
                    self.step()
            self.done = min(upto, step)
            if self.done in self.run.marks:
                self.points.append(self._look())

    def _clock(self) -> _Clock:
        return _Clock(self)

    @torch.no_grad()
    def _look(self) -> dict[str, float]:
        held = self.rows.held
        left = sum(float((self.learner.reconstruct(x) - x).square().sum()) for x in held.split(BATCH))
        point = {
            "step": self.done,
            "cpu": round(self.cpu, 4),
            "wall": round(self.wall, 4),
            "harvest": round(min(self.source.read, len(self.rows.learn)) * self.rows.second, 4),
            "unexplained": round(left / self.rows.variance, 6),
        }
        if self.done in self.losses and self.rows.recovered is not None:
            point["recovered"] = round(self.rows.recovered(self.learner.reconstruct), 5)
        return point

    @torch.no_grad()
    def ended(self) -> dict[str, float]:
        """What the finished autoencoder is like."""
        on = torch.zeros(self.run.n, dtype=torch.bool)
        for x in self.rows.learn[-SILENT * BATCH :].split(BATCH):
            on |= self.learner.active(x).any(0)
        return {"dead": int((~on).sum()), "duplicates": duplicates(self.learner.atoms()[on])}


class _Clock:
    """Adds what passes inside to a training's seconds."""

    def __init__(self, going: Going) -> None:
        self.going = going

    def __enter__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.going.cpu += time.process_time() - self.cpu
        self.going.wall += time.perf_counter() - self.wall


def duplicates(atoms: Tensor) -> int:
    """Atoms with a cosine above ALIKE to another."""
    unit = torch.nn.functional.normalize(atoms, dim=1)
    found = 0
    for start, part in zip(range(0, len(unit), BATCH), unit.split(BATCH), strict=True):
        cosines = part @ unit.T
        cosines[torch.arange(len(part)), start + torch.arange(len(part))] = -1
        found += int((cosines.amax(1) > ALIKE).sum())
    return found


def product(n: int, d: int) -> float:
    """CPU seconds of one encoder product now: how fast the machine is while others use it."""
    x, encoder = torch.randn(BATCH, d), torch.randn(n, d)
    began = time.process_time()
    _ = x @ encoder.T
    return time.process_time() - began


# ---- all trainings


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def line_of(run: Run) -> dict[str, Any] | None:
    """The line of a training that has been made."""
    key = run.key
    return next((line for line in reversed(lines()) if all(line.get(name) == key[name] for name in key)), None)


def write(going: Going, products: Sequence[float]) -> None:
    line = {
        **going.run.key,
        "points": going.points,
        **going.ended(),
        "product": round(statistics.median(products), 5),
        "when": environment(),
        "commit": commit(),
    }
    with LINES.open("a") as file:
        file.write(json.dumps(line) + "\n")
    last = going.points[-1]
    print(
        f"{going.run.place}, seed {going.run.seed}: {going.run.tool}, {going.run.steps} steps at {going.run.lr:.2g}: "
        f"{last['unexplained']:.4f} unexplained after {last['cpu']:.1f} CPU s ({last['wall']:.1f} s by the clock), "
        f"product {1e3 * line['product']:.0f} ms",
        flush=True,
    )


def alternate(runs: Sequence[Run], rows: Rows, losses: Callable[[Run], Iterable[int]]) -> None:
    """Makes those that have no line, by turns of some steps, all spread over the same time."""
    todo = [run for run in runs if line_of(run) is None]
    if not todo:
        return
    for tool in dict.fromkeys(run.tool for run in todo):
        # Compilation and first allocations, outside the clock.
        Going(Run(tool, "", todo[0].n, 3, todo[0].lr, 99, ()), rows).to(3)
    going: dict[Run, Going] = {}
    products: list[float] = []
    turns = []
    for index, run in enumerate(todo):
        count = -(-run.steps // SLICE)
        turns += [((turn + 0.5) / count, (index + turn) % len(todo), run, turn) for turn in range(count)]
    for _, _, run, turn in sorted(turns, key=lambda each: each[:2]):
        products.append(product(run.n, rows.learn.shape[1]))
        if turn == 0:
            going[run] = Going(run, rows, losses(run))
        going[run].to(min((turn + 1) * SLICE, run.steps))
        if going[run].done == run.steps:
            write(going.pop(run), products)


def chosen_rate(tool: str, place: Place, rows: Callable[[], Rows], first: float) -> tuple[float, float]:
    """The best rate of those a factor of 2 apart, and what it left; on rows that nothing is measured on."""
    tried: dict[float, float] = {}

    def left(rate: float) -> float:
        if rate not in tried:
            n, steps = 8 * rows().learn.shape[1], place.tuning
            run = Run(tool, f"{place.name}, other documents", n, steps, rate, 0, (steps,))
            alternate([run], rows(), lambda run: ())
            line = line_of(run)
            assert line is not None
            found = line["points"][-1]["unexplained"]
            tried[rate] = found if found == found else float("inf")
        return tried[rate]

    best = first
    while True:
        near = min((best / 2, best, best * 2), key=left)
        if near == best:
            return best, tried[best]
        best = near


def chosen_rates(places: Sequence[Place], folder: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Rates by model and contestant. The first site of a model decides for its others.

    A later model's search begins at the best rate of the one before; which optimiser sparsify has, and the rates of
    contestants that only stand beside, are those of the first.
    """
    rates: dict[str, dict[str, float]] = {}
    for place in places:
        if place.model in rates:
            continue
        rows = functools.cache(functools.partial(rows_of, place, folder, tuning=True))
        before = next(reversed(rates.values()), None)
        if before is None:
            own = [name for name in names if not TOOLS[name].like]
            n = 8 * rows().learn.shape[1]
            tried = {name: chosen_rate(name, place, rows, TOOLS[name].rate(n)) for name in own}
            fits = {name: tried[name] for name in tried if name.startswith("sparsify")}
            worse = set(fits) - {min(fits, key=lambda name: fits[name][1])} if fits else set()
            here = {name: rate for name, (rate, _) in tried.items() if name not in worse}
        else:
            here = {
                name: rate if name in BESIDE else chosen_rate(name, place, rows, rate)[0]
                for name, rate in before.items()
            }
        here |= {name: here[TOOLS[name].like] for name in names if TOOLS[name].like in here}
        rates[place.model] = here
    return rates


def measure(form: Form, some: Sequence[Place], folder: Path, names: Sequence[str]) -> None:
    """Makes the trainings of a form at some of its places that have no line; a seed at all of them before the next."""
    rates = chosen_rates(form.places[: form.places.index(some[-1]) + 1], folder, names)
    measured = functools.cache(functools.partial(rows_of, folder=folder))
    for seed in range(form.seeds):
        for place in some:
            runs = []
            for name, rate in rates[place.model].items():
                if name in BESIDE and seed:
                    continue
                for steps in form.lengths if name in DECAYING else (form.steps,):
                    marks = (steps,) if name in DECAYING else form.marks
                    runs.append(Run(name, place.name, 8 * measured(place).learn.shape[1], steps, rate, seed, marks))
            alternate(runs, measured(place), functools.partial(losses, form))


def losses(form: Form, run: Run) -> Iterable[int]:
    """Where the model's loss is measured: a pass of the model each, so where it is read and no more."""
    return run.marks if run.tool == OURS else [step for step in form.targets if step in run.marks]


def claims(form: Form) -> None:
    """The lines of docs/speed.md."""
    total = summary(form, curves(form, lines()))
    if total is None:
        return
    for name, ratios in total.ratios.items():
        package = peers.package_of(name)
        if package is not None or name == FASTEST:
            claim(
                f"learning to equal held-out error, TopK, {form.steps} steps, {total.cells} targets",
                name,
                spread(ratios["cpu"]),
                f"cross entropy recovered there {total.recovered:+.3f} beside the best peer's",
                package[1] if package else "",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one site, one seed; printed, the results file stays")
    parser.add_argument("--only", default="", help="contestants whose name contains one of these, commas between")
    parser.add_argument("--places", default="", help="sites whose name contains one of these, commas between")
    parser.add_argument("--report", action="store_true", help="train nothing; tables and plot of what is there")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "superscope-time-to-quality",
        help="where rows are kept",
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    form = SHORT if options.short else FULL
    if not options.report:
        some = tuple(
            place for place in form.places if any(part.strip() in place.name for part in options.places.split(","))
        )
        if not some:
            raise SystemExit(f"No site is called so; there are {', '.join(place.name for place in form.places)}.")
        for place in some:
            if place.model != "pocket" and not Path(place.model).is_dir():
                raise SystemExit(f"{place.model} is not there. Make it: scripts/real-model")
        wanted = [part.strip() for part in options.only.split(",")]
        names = [name for name in TOOLS if any(part in name for part in wanted)]
        for name in names:
            if need := lacking(name):
                print(f"Left out: {name}, which needs {need}.", flush=True)
        measure(form, some, options.folder, [name for name in names if not lacking(name)])
    text = page(form, lines())
    print(text)
    claims(form)
    if not options.short:
        head = "# Time to equal quality\n\nMade by `benchmarks/time_to_quality.py`, which says how.\n\n"
        PAGE.write_text(head + text)
        if importlib.util.find_spec("matplotlib") is not None:
            picture(form, lines())


if __name__ == "__main__":
    main()
