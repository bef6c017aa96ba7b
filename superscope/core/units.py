"""Idempotent units of work, on one machine or many: what a lost worker leaves undone is done again."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import logging
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

log = logging.getLogger(__name__)
Unit = TypeVar("Unit")
Outcome = tuple[int, Exception | None]
"""A unit's place in the list that was handed out, and what it raised (None: it is done)."""


class Executor(ABC):
    """Where units run. It need not be reliable: a unit it never answers for is handed out again."""

    @abstractmethod
    def attempt(self, work: Callable[[Unit], object], units: Sequence[Unit]) -> Generator[Outcome, None, None]:
        """Runs work(unit) for each unit, in any order, answering for each as it ends.

        A unit whose worker was lost (killed, out of memory, its machine gone) gets no answer. Closing the generator
        stops what still runs.
        """


@dataclass(frozen=True)
class Inline(Executor):
    """One unit after another in this process: the reference that the others equal."""

    def attempt(self, work: Callable[[Unit], object], units: Sequence[Unit]) -> Generator[Outcome, None, None]:
        for place, unit in enumerate(units):
            yield place, _attempt(work, unit)


@dataclass(frozen=True)
class Processes(Executor):
    """Worker processes on this machine, the cores shared out among them.

    Args:
        workers: processes; 0 means one per core that this process may use.
    """

    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"Processes: workers must be at least 1, or 0 for one per core; got {self.workers}.")

    def attempt(self, work: Callable[[Unit], object], units: Sequence[Unit]) -> Generator[Outcome, None, None]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(self.workers or cores, len(units))
        # Spawned, not forked: a fork copies locks that torch's threads may hold, and the copy waits on them for ever.
        pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(max(1, cores // workers),),
        )
        try:
            futures = {pool.submit(_attempt, work, unit): place for place, unit in enumerate(units)}
            for future in concurrent.futures.as_completed(futures):
                # One killed worker breaks the whole pool: its unit and all that had not ended go unanswered.
                with contextlib.suppress(BrokenProcessPool, concurrent.futures.CancelledError):
                    yield futures[future], future.result()
        finally:
            processes = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()


@dataclass(frozen=True)
class Slurm(Executor):
    """A Slurm job array, one job a unit, through the package `submitit`.

    Args:
        folder: where submitit keeps scripts and logs; every node must see it, as it must see the run folder.
        parameters: submitit's own, such as `{"timeout_min": 240, "gpus_per_node": 1, "slurm_partition": "gpu"}`.
        cluster: "slurm"; "local" runs the jobs as processes here, "debug" in this process, to try a set-up out.

    Raises:
        ModuleNotFoundError: if submitit is not installed.
    """

    folder: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        _require("submitit", "slurm")

    def attempt(self, work: Callable[[Unit], object], units: Sequence[Unit]) -> Generator[Outcome, None, None]:
        import submitit

        executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        jobs = executor.map_array(_attempt, [work] * len(units), list(units))
        places = {id(job): place for place, job in enumerate(jobs)}
        try:
            # A cluster's accounting is asked seldom; processes of this machine may be asked often.
            for job in submitit.helpers.as_completed(jobs, poll_frequency=10 if self.cluster == "slurm" else 0.2):
                try:
                    answer = job.result()
                except submitit.core.utils.UncompletedJobError as error:
                    log.warning("job %s was lost: %s", job.job_id, error)
                else:
                    yield places[id(job)], answer
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)


@dataclass(frozen=True)
class Ray(Executor):
    """Tasks on a Ray cluster (`address`), or on one started here for the purpose.

    Args:
        address: of a running cluster ("auto" finds it); None starts one here.
        options: of each task, such as `{"num_gpus": 1}`.

    Raises:
        ModuleNotFoundError: if ray is not installed.
    """

    address: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require("ray", "ray")

    def attempt(self, work: Callable[[Unit], object], units: Sequence[Unit]) -> Generator[Outcome, None, None]:
        import ray  # pyright: ignore[reportMissingImports]

        started = not ray.is_initialized()
        if started:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        waiting: dict[Any, int] = {}
        try:
            # Retries are ours: every executor then loses and redoes units by the same rule.
            task = ray.remote(max_retries=0, **self.options)(_attempt)
            waiting = {task.remote(work, unit): place for place, unit in enumerate(units)}
            while waiting:
                (reference,), _ = ray.wait(list(waiting), num_returns=1)
                place = waiting.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayError as error:
                    log.warning("a ray worker was lost: %s", error)
                else:
                    yield place, answer
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if started:
                ray.shutdown()


def executor(name: str, *, workers: int = 0, folder: Path | None = None) -> Executor:
    """The executor a command's option names: "inline", "processes", "slurm" or "ray".

    Args:
        workers: of "processes".
        folder: of "slurm": where its scripts and logs go. A job may take a day; sbatch's own variables
            (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS_PER_NODE) say otherwise.

    Raises:
        ValueError: if there is no executor of that name, or "slurm" has no folder.
    """
    if name == "inline":
        return Inline()
    if name == "processes":
        return Processes(workers)
    if name == "slurm":
        if folder is None:
            raise ValueError("executor: slurm needs a folder that every node sees; give a run folder with --out.")
        # submitit's own limit is five minutes. What else a cluster wants comes from sbatch's variables.
        return Slurm(folder, {"timeout_min": 24 * 60})
    if name == "ray":
        return Ray()
    raise ValueError(f"executor: there is no executor {name!r}; choose inline, processes, slurm or ray.")


def run_units(
    work: Callable[[Unit], object],
    units: Sequence[Unit],
    *,
    is_done: Callable[[Unit], bool],
    executor: Executor | None = None,
    attempts: int = 3,
) -> Iterator[int]:
    """Does every unit that is not done yet, yielding how many of all are done, after each.

    A unit is a pure function of its argument that leaves its result on disk, whole or not at all; so it may be begun
    anywhere, any number of times, and the results are the same whatever the executor.

    Args:
        work: importable by name, since workers import it; bind settings with `functools.partial`.
        units: arguments of `work`, one each; small, since they are sent.
        is_done: whether a unit's result stands, by looking at the disk; asked before a unit is handed out and after it.
        executor: None runs the units here, one after another.
        attempts: times in a row that no handed-out unit gets done before this gives up.

    Raises:
        RuntimeError: if workers are lost `attempts` times in a row with nothing done in between, or a unit claims to
            be done and left no result.
        Exception: whatever a unit raises; what other units finished stays, and a note names the unit.

    Example:
        >>> squares = {}
        >>> list(run_units(lambda n: squares.update({n: n * n}), [1, 2, 3], is_done=squares.__contains__))
        [0, 1, 2, 3]
    """
    if attempts < 1:
        raise ValueError(f"run_units: attempts must be at least 1; got {attempts}.")
    where = executor or Inline()
    left = [unit for unit in units if not is_done(unit)]
    done = len(units) - len(left)
    yield done
    fruitless = 0
    while left:
        finished: set[int] = set()
        with contextlib.closing(where.attempt(work, left)) as answers:
            for place, error in answers:
                if error is not None:
                    error.add_note(f"in unit {left[place]!r}; the units that were done are kept")
                    raise error
                if not is_done(left[place]):
                    raise RuntimeError(
                        f"Unit {left[place]!r} ended without an error and without a result. "
                        "Its worker may not see the same folder: give one on a disk that all of them share."
                    )
                finished.add(place)
                done += 1
                yield done
        # A worker may have been lost after its result was written.
        left = [unit for place, unit in enumerate(left) if place not in finished and not is_done(unit)]
        if len(units) - len(left) > done:
            done = len(units) - len(left)
            yield done
            fruitless = 0
        fruitless = 0 if finished else fruitless + 1
        if left and fruitless == attempts:
            raise RuntimeError(
                f"Workers were lost {attempts} times in a row with nothing done; {len(left)} units are left, "
                f"the first {left[0]!r}. The machine may be out of memory: use fewer workers or smaller units. "
                "What was done is kept; the same command goes on from there."
            )
        if left:
            log.warning("%d units lost their worker and are handed out again", len(left))


def _attempt(work: Callable[[Unit], object], unit: Unit) -> Exception | None:
    """What the unit raised, as a value: an executor's own wrapping would hide it, or take it for a lost worker."""
    try:
        work(unit)
    # The boundary of a worker: whatever the unit raises is the answer.
    except Exception as error:
        return error
    return None


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{package} is not installed, and workers of that kind need it: pip install 'superscope[{extra}]'."
        )
