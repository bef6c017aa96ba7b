"""The cost model of `superscope plan` beside what was measured: step time, memory, capture and disk.

    python benchmarks/cost_model.py [--small]

The machine is rated as `superscope plan --machine here` rates it, beside each training: one product, one pass over
memory, the codes of a batch, steps of two small trainings. Then every formula of superscope/theory/cost.py that
predicts a time or a size is set beside a real training, a real capture and a real store; one thread, CPU seconds, the
least of several on both sides. Prints predicted / measured, and whether each is within the stated factor.
Appends what it printed, dated, to cost_model_results.md.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results import report
from torch import Tensor

from superscope import capture
from superscope.capture import MemorySource
from superscope.capture.models.outline import outline
from superscope.dictionaries import TopK, train
from superscope.studies import Harvest
from superscope.studies.learning.plan import timed
from superscope.theory import cost

FACTORS = {"step time": 1.5, "memory": 1.5, "capture": 2.5, "disk": 1.01}
"""Within which every prediction is to lie of what was measured, either way."""
SHAPES = (
    (128, 1024, 16, 1024),
    (256, 4096, 32, 512),
    (256, 4096, 32, 4096),
    (512, 4096, 32, 2048),
    (512, 8192, 32, 256),
    (512, 8192, 32, 2048),
    (512, 8192, 128, 2048),
    (768, 12288, 32, 1024),
    (256, 1024, 16, 8192),
)
SMALL = ((64, 512, 8, 256), (128, 1024, 16, 1024))


def training(d: int, n: int, k: int, batch: int, steps: int) -> dict[str, Any]:
    """The least CPU seconds of a step after the third, the bytes the training took, and the machine, rated after."""
    rows = MemorySource(torch.randn(max(4 * batch, 4096), d, generator=torch.Generator().manual_seed(0)))
    # What torch and numba load of themselves at their first steps is no part of the dictionary.
    list(train(TopK(256, 4096, k=16), MemorySource(torch.randn(512, 256)), steps=2, batch=512))
    gc.collect()
    if sys.platform == "linux":
        # What that freed goes back, or this training would be given it again and seem to take nothing.
        ctypes.CDLL(None).malloc_trim(0)
    before = _peak()
    before = _peak()
    run = train(TopK(d, n, k=k), rows, steps=steps, batch=batch, dead_after=10**9)
    seconds = []
    began = time.process_time()
    for _ in run:
        now = time.process_time()
        seconds.append(now - began)
        began = now
    taken = _peak() - before
    return {"seconds": min(seconds[3:]), "bytes": taken, "machine": dataclasses.asdict(timed(d, n, k, batch))}


def _peak() -> float:
    """The most memory this process has had since the last call."""
    status = Path("/proc/self/status").read_text()
    found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmHWM", "VmRSS"))}
    Path("/proc/self/clear_refs").write_text("5")
    return 1024.0 * float(found["VmHWM"])


def apart(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The work in a process of its own, so that what earlier ones left behind is not counted."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _peak()
        with os.fdopen(write, "w") as answer:
            json.dump(work(), answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def gpt2(ids: Tensor) -> tuple[float, float]:
    """CPU seconds of reading block 6 of a random model of GPT-2 small's shape, and its parameters up to there."""
    import transformers

    config = transformers.GPT2Config()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
    with capture.Capture(model, ["transformer.h.6"]) as reading:
        reading(input_ids=ids)
        times = []
        for _ in range(3):
            began = time.process_time()
            reading(input_ids=ids)
            times.append(time.process_time() - began)
    parameters = sum(p.numel() for block in model.transformer.h[:7] for p in block.parameters())
    return statistics.median(times), parameters


def stores(tokens: int) -> list[tuple[str, float, float]]:
    """What a store of the pocket model takes on disk: rows alone, predicted and found."""
    found = []
    for title, sites, dtype in (
        ("one site, bfloat16", ("resid_post.1",), "bfloat16"),
        ("three sites, bfloat16", ("resid_post.0", "resid_post.1", "mlp_act.2"), "bfloat16"),
        ("one site, float32", ("resid_post.1",), "float32"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            study = Harvest("pocket", sites=sites, tokens=tokens, dtype=dtype, compute="float32", store=folder)
            rows = int(study.run()["rows"][0].value or 0)
            widths = [int(said["d"]) for said in capture.Store(capture.place(folder)).manifest.sites.values()]
            on_disk = sum(path.stat().st_size for path in Path(folder).glob("units/*"))
        number = 4 if dtype == "float32" else 2
        predicted = cost.storage(1, rows, sites=sum(widths), number=number)
        found.append((f"{title}, {rows:,} rows", predicted, float(on_disk)))
    return found


def captured(row: Callable[..., None], lines: list[str], head: str, small: bool) -> None:
    """Capture and disk."""
    lines.append(f"\n{'capture':44s}{head}")
    ids = torch.randint(50257, (1 if small else 8, 256), generator=torch.Generator().manual_seed(0))
    measured, parameters = gpt2(ids)
    predicted = cost.forward_operations(parameters, ids.numel()) / timed(768, 1024, 16, 64).operations
    row("capture", f"GPT-2 small's shape, block 6, {ids.numel():,} tokens", predicted, measured, "s", 1.0)
    pocket = outline("pocket")
    began = time.process_time()
    loaded = capture.load("pocket")
    corpus = capture.tokens(
        loaded.tokenizer, capture.documents(None), context=128, limit=4_000 if small else 40_000, seed=0
    )
    began = time.process_time()
    tokens = sum(len(next(iter(batch.values())).x) for batch in harvested(loaded, corpus))
    measured = time.process_time() - began
    predicted = cost.forward_operations(pocket.up_to(1), tokens) / timed(192, 1024, 16, 64).operations
    row("capture", f"pocket model, block 1, {tokens:,} tokens", predicted, measured, "s", 1.0)
    lines.append(f"\n{'disk':44s}{head}")
    for what, predicted, found_bytes in stores(4_000 if small else 100_000):
        row("disk", what, predicted, found_bytes, "MB", 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="tiny sizes, and nothing is written")
    parser.add_argument("--only", choices=("memory",), help="memory alone, which other load does not change")
    options = parser.parse_args()
    small, everything = options.small, options.only is None
    torch.set_num_threads(1)
    lines: list[str] = []
    ratios: dict[str, list[float]] = {}

    def row(kind: str, what: str, predicted: float, measured: float, unit: str, scale: float) -> None:
        ratios.setdefault(kind, []).append(predicted / measured)
        lines.append(
            f"{what:44s}{predicted * scale:12.4g}{measured * scale:12.4g} {unit:4s}{predicted / measured:8.2f}"
        )

    trained: dict[tuple[int, int, int, int], dict[str, Any]] = {}
    # In children first: a child of a process that has multiplied already would share its warmed-up memory.
    for shape in SMALL if small else SHAPES:
        trained[shape] = apart(lambda shape=shape: training(*shape, steps=12 if everything and not small else 5))
    machines = {shape: cost.Machine(**found["machine"]) for shape, found in trained.items()}
    lines.append("Rated beside each training, in float32, one thread:")
    for shape, machine in machines.items():
        lines.append(
            f"{', '.join(map(str, shape)):20s}{machine.operations / 1e9:7.1f} GFLOP/s, encoding "
            f"{machine.encoding / 1e9:6.1f} GFLOP/s, {machine.bandwidth / 1e9:5.1f} GB/s, "
            f"{machine.overhead * 1e3:4.1f} ms a step, {machine.bookkeeping * 1e9:4.0f} ns a use"
        )
    lines.append("")
    head = f"{'predicted':>12s}{'measured':>12s}      {'ratio':>7s}"
    if everything:
        lines.append(f"{'a training step (d, n, k, B)':44s}{head}")
    for shape, found in trained.items() if everything else ():
        predicted = cost.step_cost(*shape, mixed=False).seconds(machines[shape])
        row("step time", ", ".join(map(str, shape)), predicted, found["seconds"], "ms", 1e3)
    lines.append(f"\n{'memory that a training takes':44s}{head}")
    for shape, found in trained.items():
        row("memory", ", ".join(map(str, shape)), cost.training_memory(*shape, mixed=False), found["bytes"], "MB", 1e-6)
    if everything:
        captured(row, lines, head, small)
    lines.append("")
    for kind, all_ratios in ratios.items():
        low, high = min(all_ratios), max(all_ratios)
        factor = FACTORS[kind]
        verdict = "yes" if 1 / factor <= low and high <= factor else "NO"
        lines.append(
            f"{kind:12s}predicted / measured {low:.2f} to {high:.2f}; within a factor of {factor:g}: {verdict}"
        )
    report("\n".join(lines), None if small else "cost_model_results.md")


def harvested(loaded: Any, corpus: Any) -> Any:
    places = tuple(capture.name_sites(loaded.model, ("resid_post.1",)).values())
    return capture.harvest(loaded.model, places, corpus)


if __name__ == "__main__":
    main()
