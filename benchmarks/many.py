"""Eight top-k autoencoders at once against eight one after the other, on the same batches, one thread.

    python benchmarks/many.py                        every case below; appends to many_results.md
    python benchmarks/many.py --only small pocket    some of them
    python benchmarks/many.py --rounds 1 --steps 2 --dry     a try, written nowhere

What is saved depends on where rows come from and on how large the dictionaries are, so there is a case for each: rows
in memory, which cost nothing to read, with small and with large dictionaries; and rows read from a model (the pocket
model) while training, as every run without a store reads them. Each way is begun (weights made, first batch, start) and
warmed by one step outside the clock; then both are timed for the same steps in turn, order alternated over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from results import claim, report

from superscope import capture
from superscope.capture import HookSource
from superscope.core import Activations, ActivationSource, Step
from superscope.dictionaries import TopK, train, train_many
from superscope.worlds import exactly_k


@dataclass(frozen=True)
class Case:
    """Dictionaries of one size on rows from one place.

    Args:
        what: said in the table.
        d, n, k, batch: as everywhere.
        model: rows are read from the pocket model; else they are in memory.
        steps: timed in one round.
    """

    what: str
    d: int
    n: int
    k: int
    batch: int
    steps: int
    model: bool = False


CASES = {
    "tiny": Case("rows in memory", 32, 256, 4, 512, 60),
    "small": Case("rows in memory", 64, 512, 8, 512, 40),
    "medium": Case("rows in memory", 128, 1024, 16, 1024, 6),
    "pocket": Case("pocket model read while training", 0, 512, 16, 1024, 3, model=True),
    "full": Case("rows in memory", 512, 8192, 32, 2048, 1),
}


class Kept(ActivationSource):
    """A few batches in memory, over and over."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.kept, self.d = batches, batches[0].shape[1]

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        while True:
            yield from (Activations(x) for x in self.kept)


def source_of(case: Case) -> ActivationSource:
    if not case.model:
        world = exactly_k(n=case.n, d=case.d, k=min(case.k, 8))
        return Kept([batch.x for batch in islice(world.batches(case.batch, seed=0), 4)])
    loaded = capture.load("pocket")
    middle = (len(capture.blocks(loaded.model)) - 1) // 2
    (site,) = capture.name_sites(loaded.model, (f"resid_post.{middle}",)).values()
    corpus = capture.tokens(loaded.tokenizer, capture.documents(None), context=128, limit=200_000, seed=0)
    return HookSource(loaded.model, site, corpus)


def product(case: Case, d: int, members: int) -> float:
    """CPU seconds of the encoder products of one step, alone."""
    x, encoder, bias = torch.randn(case.batch, d), torch.randn(case.n, d), torch.zeros(case.n)
    torch.addmm(bias, x, encoder.T)
    found = []
    for _ in range(3):
        began = time.process_time()
        torch.addmm(bias, x, encoder.T)
        found.append(time.process_time() - began)
    return statistics.median(found) * members


def ways(case: Case, members: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """Each way, begun and warm: () -> CPU seconds of its steps, and what the last left unexplained."""
    options: dict[str, Any] = {"steps": 10**6, "batch": case.batch}

    def made(source: ActivationSource) -> list[TopK]:
        return [TopK(d=source.d, n=case.n, k=case.k, seed=seed) for seed in range(members)]

    at_once: Iterator[tuple[Step, ...]] = train_many(made(first := source_of(case)), first, **options)
    alone = [iter(train(sae, own, **options)) for own in [source_of(case)] for sae in made(own)]
    next(at_once)
    for training in alone:
        next(training)

    def together() -> tuple[float, float]:
        began = time.process_time()
        *_, last = islice(at_once, case.steps)
        spent = time.process_time() - began
        return spent, statistics.mean(step.numbers["fraction_variance_unexplained"] for step in last)

    def apart() -> tuple[float, float]:
        spent, found = 0.0, []
        for training in alone:
            began = time.process_time()
            *_, last = islice(training, case.steps)
            spent += time.process_time() - began
            found.append(last.numbers["fraction_variance_unexplained"])
        return spent, statistics.mean(found)

    return {"together": together, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of each case's own")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--short", action="store_true", help="three cases, few rounds, written nowhere")
    given = parser.parse_args()
    if given.short:
        given.only, given.rounds, given.dry = ["tiny", "small", "medium"], 3, True
    torch.set_num_threads(1)
    lines = [
        f"{'rows':33s}{'d':>5s}{'n':>6s}{'k':>4s}{'batch':>6s}  {'together':>9s}{'apart':>9s}{'ratio':>7s}"
        f"  {'products':>9s}  {'unexplained, together and apart':>31s}",
        f"{'':54s}  {'ms/step':>9s}{'ms/step':>9s}{'':7s}  {'ms/step':>9s}",
    ]
    for name in given.only:
        case = CASES[name]
        case = Case(**{**vars(case), "steps": given.steps or case.steps})
        both = ways(case, given.members)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in both}
        for index in range(given.rounds):
            for way in list(both)[:: 1 if index % 2 else -1]:
                found[way].append(both[way]())
        ms = {way: 1000 * statistics.median(spent for spent, _ in each) / case.steps for way, each in found.items()}
        d = case.d or source_of(case).d
        lines.append(
            f"{case.what:33s}{d:5d}{case.n:6d}{case.k:4d}{case.batch:6d}  {ms['together']:9.1f}{ms['apart']:9.1f}"
            f"{ms['together'] / ms['apart']:7.2f}  {1000 * product(case, d, given.members):9.1f}"
            f"  {found['together'][-1][1]:15.3f}{found['apart'][-1][1]:16.3f}"
        )
        print(lines[-1], flush=True)
        left = " and ".join(f"{statistics.mean(u for _, u in found[way]):.3f}" for way in both)
        claim(
            f"{given.members} dictionaries at once, d = {d}, n = {case.n}, k = {case.k}",
            "ours, one after the other",
            f"{ms['apart'] / ms['together']:.2f}",
            f"{left} unexplained",
        )
    lines.append(
        f"{given.members} dictionaries; CPU time, medians of {given.rounds} rounds; products: the encoder products "
        "alone, which unrelated dictionaries cannot share."
    )
    report("\n".join(lines), None if given.dry else "many_results.md")


if __name__ == "__main__":
    main()
