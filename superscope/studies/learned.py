"""The dictionaries that counters and readings want of some rows, each learned once, and read again by a resumed run."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from ..capture import MemorySource, StoreSource
from ..core import Run, Step, files
from ..core.threads import torch_threads
from ..dictionaries import SAE, SHORT, TopK, train
from ..dictionaries.sae.base import SAVED
from ..measure import Wanted
from .study import Progress

Rows = MemorySource | StoreSource

Learned = tuple[SAE, dict[str, list[float]]]
"""An SAE and the curve of its training."""

_CURVE = "training.json"
_EVERY = 10


def learned(
    wanted: Sequence[Wanted],
    source: Rows | Callable[[Wanted], Rows],
    run: Run,
    *,
    steps: int,
    batch: int,
    device: torch.device,
    stage: str,
    folder: Callable[[Wanted], str],
    notes: Mapping[str, Any],
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Generator[Progress, None, dict[Wanted, Learned]]:
    """A TopK dictionary for each of `wanted`, trained side by side, or taken from an interrupted run.

    Args:
        wanted: which, each once.
        source: rows to learn from, or for each dictionary its own.
        run: keeps them.
        steps, batch: of each training, with the trainer's arguments for few steps.
        device: where the rows are.
        stage: what is being done, in words.
        folder: of each in the run.
        notes: kept with each.
        settings: of training, beside those.
    """
    total = len(wanted) * steps
    found: dict[Wanted, Learned] = {}
    for each in wanted:
        place = folder(each)
        if run.has(*(f"{place}/{name}" for name in (*SAVED, _CURVE))):
            found[each] = (TopK.load(run / place).to(device), files.read_json(run / f"{place}/{_CURVE}"))
            yield Progress(stage, len(found) * steps, total, "taken from the interrupted run", resumed=True)
    if not found:
        yield Progress(stage, 0, total)
    done = dict.fromkeys(found, steps)
    missing = [each for each in wanted if each not in found]
    of = source if callable(source) else lambda _: source
    for number, step, result in _side_by_side(
        [_training(each, of(each), steps, batch, device, settings) for each in missing]
    ):
        each = missing[number]
        if result is not None:
            found[each] = result
            sae, curve = result
            run.keep(folder(each), functools.partial(sae.save, notes=notes), SAVED)
            run.keep(f"{folder(each)}/{_CURVE}", functools.partial(files.write_json, value=curve))
        if step is not None:
            done[each] = step.index
            unexplained = step.numbers["fraction_variance_unexplained"]
            yield Progress(stage, sum(done.values()), total, f"{unexplained:.1%} of variance unexplained")
    return {each: found[each] for each in wanted}


def _training(
    wanted: Wanted, source: Rows, steps: int, batch: int, device: torch.device, more: Mapping[str, Any]
) -> Generator[Step, None, Learned]:
    """The steps worth showing of one training."""
    sae = TopK(d=source.d, n=wanted.n, k=wanted.k, seed=wanted.seed).to(device)
    curve: dict[str, list[float]] = {"step": [], "fraction_variance_unexplained": [], "dead": []}
    settings = {**SHORT, "batch": min(batch, len(source)), "seed": wanted.seed, **more}
    for step in train(sae, source, steps=steps, **settings):
        if step.index % _EVERY == 0 or step.index in (1, steps):
            curve["step"].append(step.index)
            curve["fraction_variance_unexplained"].append(step.numbers["fraction_variance_unexplained"])
            curve["dead"].append(step.numbers["dead"])
            yield step
    return sae, curve


def _side_by_side(
    trainings: Sequence[Generator[Step, None, Learned]],
) -> Iterator[tuple[int, Step | None, Learned | None]]:
    """(number, step, None) as trainings go on, (number, None, result) as they end, each in a thread of its own.

    Three small problems on two cores run faster beside each other with one thread each than one after the other with
    two: no thread waits for another at the end of every operation. Each training has its own random numbers, so the
    results are those of running them in turn, which is what torch's one thread does where it has no more.
    """
    news: queue.SimpleQueue[tuple[int, Step | None, Learned | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(numbers: Iterable[int]) -> None:
        for number in numbers:
            try:
                while not stopped.is_set():
                    news.put((number, next(trainings[number]), None, None))
            except StopIteration as end:
                news.put((number, None, end.value, None))
            except BaseException as error:
                # It is raised in the thread that waits for the news.
                news.put((number, None, None, error))
                return

    numbers = range(len(trainings))
    shares = [numbers] if torch.get_num_threads() == 1 else [[number] for number in numbers]
    workers = [threading.Thread(target=work, args=(share,), daemon=True) for share in shares]
    with torch_threads(max(torch.get_num_threads() // max(len(workers), 1), 1)):
        try:
            for worker in workers:
                worker.start()
            running = len(trainings)
            while running:
                number, step, result, error = news.get()
                if error is not None:
                    raise error
                running -= result is not None
                yield number, step, result
        finally:
            stopped.set()
            for worker in workers:
                worker.join()
