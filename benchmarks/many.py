"""Eight top-k autoencoders at once against eight one after the other, on the same batches.

    python benchmarks/many.py [--d 64 --n 512 --k 8 --batch 512 --members 8 --steps 20 --rounds 5 --threads 2]

Prints and appends to many_results.jsonl: seconds of both (wall and CPU, medians over rounds, order alternated), their
ratio, what both leave unexplained, and the share of time that is the encoder product's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from superscope.dictionaries import TopK, train, train_many
from superscope.worlds import World, exactly_k


def members(d: int, n: int, k: int, count: int) -> list[TopK]:
    return [TopK(d=d, n=n, k=k, seed=seed) for seed in range(count)]


def timed(work: Callable[[], float]) -> tuple[float, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    unexplained = work()
    return time.perf_counter() - wall, time.process_time() - cpu, unexplained


def together(world: World, saes: list[TopK], **options: Any) -> float:
    *_, last = train_many(saes, world, **options)
    return statistics.mean(step.numbers["fraction_variance_unexplained"] for step in last)


def apart(world: World, saes: list[TopK], **options: Any) -> float:
    found = []
    for sae in saes:
        *_, last = train(sae, world, **options)
        found.append(last.numbers["fraction_variance_unexplained"])
    return statistics.mean(found)


def product(d: int, n: int, batch: int, count: int, steps: int) -> float:
    """CPU seconds of the encoder products alone."""
    x, encoder, bias = torch.randn(batch, d), torch.randn(n, d), torch.zeros(n)
    torch.addmm(bias, x, encoder.T)
    began = time.process_time()
    for _ in range(steps):
        torch.addmm(bias, x, encoder.T)
    return (time.process_time() - began) * count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("d", 64), ("n", 512), ("k", 8), ("batch", 512), ("members", 8), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    world = exactly_k(n=given.n, d=given.d, k=given.k)
    options = {"steps": given.steps, "batch": given.batch}
    ways = {"together": together, "apart": apart}
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for index in range(given.rounds):
        for name in list(ways) if index % 2 else list(ways)[::-1]:
            saes = members(given.d, given.n, given.k, given.members)
            runs[name].append(timed(lambda way=ways[name], saes=saes: way(world, saes, **options)))
    medians = {name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in runs.items()}
    floor = statistics.median(
        product(given.d, given.n, given.batch, given.members, given.steps) for _ in range(given.rounds)
    )
    result = vars(given) | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "wall_together": medians["together"][0],
        "wall_apart": medians["apart"][0],
        "cpu_together": medians["together"][1],
        "cpu_apart": medians["apart"][1],
        "wall_ratio": medians["together"][0] / medians["apart"][0],
        "cpu_ratio": medians["together"][1] / medians["apart"][1],
        "unexplained_together": medians["together"][2],
        "unexplained_apart": medians["apart"][2],
        "encoder_product_share_of_cpu_together": floor / medians["together"][1],
    }
    print(json.dumps(result, indent=2))
    with Path(__file__).with_name("many_results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
