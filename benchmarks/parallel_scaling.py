"""One dictionary trained by one process and by two: time, CPU time of each, and the bytes that they exchange.

    python benchmarks/parallel_scaling.py [--small]

Strong scaling: the same dictionary and the same batch. Layouts are data x dictionary: 1 x 2 shares the atoms (both
processes see all rows), 2 x 1 shares the rows (both hold all atoms). Bytes are counted by wrapping the collectives that
training calls: what one process must send with the algorithms of a ring (a sum of s bytes: 2 (P-1)/P s; a gathering:
(P-1) times its own part), beside what `superscope.theory.cost.step_cost` says for a top-k dictionary in float32. gloo,
one thread a process; wall clock, so nothing else may run. Appends what it printed, dated, to
parallel_scaling_results.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from results import report

from superscope.capture import MemorySource
from superscope.dictionaries import SAE, BatchTopK, JumpReLU, Matryoshka, ReLU, TopK, train
from superscope.dictionaries.parallel import ParallelTraining, mesh
from superscope.theory import cost

LAYOUTS = {"1 process": (1, 1, 1), "1 process, 2 threads": (1, 1, 2), "1 x 2": (2, 1, 1), "2 x 1": (2, 2, 1)}
"""Processes, groups, threads a process."""


def architectures(d: int, n: int, k: int) -> dict[str, SAE]:
    return {
        "TopK": TopK(d, n, k=k),
        "BatchTopK": BatchTopK(d, n, k=k),
        "Matryoshka": Matryoshka(d, n, k=k),
        "JumpReLU": JumpReLU(d, n, k=k),
        "ReLU": ReLU(d, n),
    }


def counting() -> tuple[Counter[str], Counter[str]]:
    """Bytes that this process sends from now on, by collective, and calls."""
    sent: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def wrap(name: str, size: Callable[..., float]) -> None:
        original = getattr(dist, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            P = dist.get_world_size(options.get("group"))
            if P > 1:
                sent[name] += int(size(P, *arguments))
                calls[name] += 1
            return original(*arguments, **options)

        setattr(dist, name, counted)

    wrap("all_reduce", lambda P, tensor, *rest: 2 * (P - 1) / P * tensor.numel() * tensor.element_size())
    wrap("all_gather", lambda P, parts, mine, *rest: (P - 1) * mine.numel() * mine.element_size())
    wrap("broadcast", lambda P, tensor, *rest: tensor.numel() * tensor.element_size())
    return sent, calls


def worker(layout: tuple[int, int, int], sizes: dict[str, int], steps: int, out: Path) -> None:
    processes, groups, threads = layout
    torch.set_num_threads(threads)
    d, n, k, batch = (sizes[name] for name in ("d", "n", "k", "batch"))
    rows = MemorySource(torch.randn(8 * batch, d, generator=torch.Generator().manual_seed(0)))
    where = mesh(groups) if processes > 1 else None
    sent, calls = counting()
    found: dict[str, Any] = {}
    for name, sae in architectures(d, n, k).items():
        settings: dict[str, Any] = {"steps": steps, "batch": batch, "dead_after": 10**9}
        run = train(sae, rows, **settings) if where is None else ParallelTraining(sae, rows, where, **settings)
        wall, own, loss = [], [], 0.0
        for step in run:
            if step.index == 3:
                sent.clear()
                calls.clear()
            if step.index >= 3:
                wall.append(time.perf_counter())
                own.append(time.process_time())
            loss = step.loss
        found[name] = {
            "wall": statistics.median(b - a for a, b in itertools.pairwise(wall)),
            "own": statistics.median(b - a for a, b in itertools.pairwise(own)),
            "bytes": sum(sent.values()) / (steps - 3),
            "calls": sum(calls.values()) / (steps - 3),
            "loss": loss,
        }
    rank = 0 if where is None else dist.get_rank()
    (out / f"{rank}.json").write_text(json.dumps(found))


def together(layout: tuple[int, int, int], sizes: dict[str, int], steps: int) -> list[dict[str, Any]]:
    """What each process of a layout found; they are forked, as torch is loaded here already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(layout[0]):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(layout[0])}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                worker(layout, sizes, steps, Path(folder))
                os._exit(0)
            children.append(child)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children), "a process failed"
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(layout[0])]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="tiny sizes, and nothing is written")
    small = parser.parse_args().small
    sizes = {"d": 64, "n": 512, "k": 8, "batch": 128} if small else {"d": 512, "n": 8192, "k": 32, "batch": 1024}
    steps = 6 if small else 11
    found = {title: together(layout, sizes, steps) for title, layout in LAYOUTS.items()}
    lines = [", ".join(f"{name} = {size}" for name, size in sizes.items()) + f"; median of {steps - 3} steps"]
    head = f"{'':12s}{'layout':22s}{'wall ms':>9s}{'speed':>7s}{'CPU ms of each':>18s}{'calls':>7s}{'MB sent':>9s}"
    lines.append(head + f"{'formula':>9s}{'loss - that of one':>20s}")
    d, n, k, batch = (sizes[name] for name in ("d", "n", "k", "batch"))
    for name in architectures(d, n, k):
        alone = found["1 process"][0][name]
        for title, (processes, groups, _) in LAYOUTS.items():
            ranks = [each[name] for each in found[title]]
            step = cost.step_cost(d, n, k, batch, mesh=cost.Mesh(groups, processes // groups), mixed=False)
            own = " + ".join(f"{each['own'] * 1e3:.0f}" for each in ranks)
            wall = max(each["wall"] for each in ranks)
            exchanged = f"{ranks[0]['bytes'] / 1e6:9.3f}{step.exchange / 1e6:9.3f}" if processes > 1 else " " * 18
            lines.append(
                f"{name:12s}{title:22s}{wall * 1e3:9.1f}{alone['wall'] / wall:7.2f}{own:>18s}"
                f"{ranks[0]['calls']:7.0f}{exchanged}{ranks[0]['loss'] - alone['loss']:20.1e}"
            )
    report("\n".join(lines), None if small else "parallel_scaling_results.md")


if __name__ == "__main__":
    main()
