"""One training step of a sparse autoencoder: ours beside the packages people use, on the same batches.

    scripts/peers                                                      # once: an environment with theirs and ours
    PYTHONPATH=. .venv-peers/bin/python benchmarks/sae_step.py         # half an hour on two cores

Every round hands one batch to every contestant in turn, the order rotated, so that other load falls on all alike. The
rounds are a training run: what each leaves unexplained on held-out rows after the same tokens stands beside its time.
Peers run their own step functions with their own defaults but for the learning rate, 1e-3 of Adam for all (signum as
sparsify ships it). CPU seconds of one process.

Memory is the peak of the first three steps above a built model, each contestant in a process of its own in which a
smaller twin has been stepped before, so that the code a step loads is not counted, neither ours nor theirs. What the
optimiser keeps from step to step (Adam: two numbers a weight, the same for all who use it) is told apart; the rest is
what a step needs.

A ReLU autoencoder starts with half its latents on and ends with about one in a hundred, and its cost here follows that
share while a dense step's does not. So it is measured twice: from the start, and with both contestants on weights that
keep some 64 latents a row and leave less than half unexplained, where most of a training run is spent. To come there by
a penalty takes thousands of steps; so those weights are a TopK autoencoder's (k = 64, `--relu-steps` steps), its biases
lowered to the level that 64 values a row exceed, its encoder scaled to what is left, and five steps of ReLU at a
penalty of 1 on top. They are made once and kept in `--relu-weights`.

"int8" is ours with `precision="int8"`: most latents are excluded by a product of whole numbers.

Compiled loops (numba, the extra `fast`) run where they are installed; "without numba" is the same step in torch's own
pieces. Results go to benchmarks/sae_step_results.md.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WANDB_MODE", "disabled")

import peers
import torch
from peers import Learner
from results import claim
from timing import environment
from torch import Tensor

from superscope.core import Activations, ActivationSource
from superscope.dictionaries import BatchTopK, JumpReLU, Matryoshka, ReLU, TopK, load, train
from superscope.dictionaries.step.adam import Adam
from superscope.kernels import can_screen, compiled_loops

LR = 1e-3


def activations(rows: int, d: int, seed: int = 1) -> Tensor:
    """Sums of 16 of 8 d unit directions, the i-th used about 1 / (i + 10)^0.7 as often as the first; a mean; noise."""
    random = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(8 * d, d, generator=random), dim=1)
    use = (torch.arange(8 * d) + 10.0) ** -0.7
    x = 0.5 * torch.randn(d, generator=random) + 0.05 * torch.randn(rows, d, generator=random)
    for part in torch.arange(rows).split(4096):
        chosen = torch.multinomial(use.expand(len(part), -1), 16, generator=random)
        size = 0.5 + torch.empty(len(part), 16).exponential_(generator=random)
        x[part] += torch.nn.functional.embedding_bag(chosen, atoms, per_sample_weights=size, mode="sum")
    return x


class Handed(ActivationSource):
    """The batch that was handed over last."""

    def __init__(self, d: int) -> None:
        self.d = d
        self.x: Tensor | None = None

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        while True:
            assert self.x is not None
            yield Activations(self.x)


def ours(
    architecture: type,
    d: int,
    n: int,
    k: int,
    batch: int,
    *,
    numba: bool = True,
    trained: bool = False,
    precision: Literal["full", "int8"] = "full",
) -> Learner:
    source = Handed(d)
    if trained:
        sae = learned_relu(d, n)
    else:
        sae = architecture(d, n, **({} if architecture is ReLU else {"k": k}))
    training = train(
        sae, source, steps=10**6, batch=batch, lr=LR, warmup=0, decay=0, initialise=not trained, precision=precision
    )

    def step(x: Tensor) -> object:
        source.x = x
        with compiled_loops(numba):
            return next(training)

    return Learner(step, lambda x: sae.reconstruct(x), lambda x: sae.encode(x).dense() > 0, lambda: sae.atoms.detach())


def learned_relu(d: int, n: int) -> ReLU:
    """The ReLU autoencoder of `--relu-weights`; the twin of another shape that memory is measured after is new."""
    found = load(RELU_WEIGHTS)
    assert isinstance(found, ReLU)
    return found if (found.d, found.n) == (d, n) else ReLU(d, n)


def learn_relu(d: int, n: int, batch: int, steps: int) -> None:
    """Makes it on the same stream, other rows; see the head of this file."""
    source = Handed(d)
    rows = activations(max(steps // 2, 1) * batch, d, seed=1)
    parts = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3)).split(batch)
    top = TopK(d, n, k=min(64, n))
    training = train(top, source, steps=10**6, batch=batch, lr=3 * LR, warmup=0, decay=0)
    for index in range(steps):
        source.x = rows[parts[index % len(parts)]]
        step = next(training)
        print(f"\rlearning step {index + 1} of {steps}", end="", file=sys.stderr)
    print(file=sys.stderr)
    sae, x = ReLU(d, n, coefficient=1.0, warmup=0), rows[parts[0]]
    sae.load_state_dict(top.state_dict())
    with torch.no_grad():
        pre = sae.pre_activations(x)
        level = pre.flatten().kthvalue(pre.numel() - top.k * len(x)).values
        sae.encoder_bias -= level
        found = (pre - level).relu() @ sae.atoms
        scale = (found * (x - sae.bias)).sum() / found.square().sum()
        sae.encoder *= scale
        sae.encoder_bias *= scale
    training = train(sae, source, steps=10**6, batch=batch, lr=LR, warmup=0, decay=0, initialise=False)
    for index in range(5):
        source.x = rows[parts[index % len(parts)]]
        step = next(training)
    sae.save(RELU_WEIGHTS, notes={"steps": steps, **step.numbers})


def saelens(kind: str, d: int, n: int, k: int, batch: int, *, trained: bool = False) -> Learner:
    return peers.saelens(kind, d, n, k, batch, lr=LR, weights=learned_relu(d, n) if trained else None)


def sparsify(optimizer: str, d: int, n: int, k: int, batch: int) -> Learner:
    return peers.sparsify(optimizer, d, n, k, batch, lr=LR if optimizer == "adam" else peers.signum_rate(n))


CONTESTANTS: dict[str, Callable[[int, int, int, int], Learner]] = {
    "superscope TopK": functools.partial(ours, TopK),
    "superscope BatchTopK": functools.partial(ours, BatchTopK),
    "superscope Matryoshka": functools.partial(ours, Matryoshka),
    "superscope JumpReLU": functools.partial(ours, JumpReLU),
    "superscope ReLU": functools.partial(ours, ReLU),
    "superscope ReLU, trained": functools.partial(ours, ReLU, trained=True),
    "superscope TopK, int8": functools.partial(ours, TopK, precision="int8"),
    "superscope BatchTopK, int8": functools.partial(ours, BatchTopK, precision="int8"),
    "superscope Matryoshka, int8": functools.partial(ours, Matryoshka, precision="int8"),
    "superscope TopK, without numba": functools.partial(ours, TopK, numba=False),
    "superscope BatchTopK, without numba": functools.partial(ours, BatchTopK, numba=False),
    "superscope Matryoshka, without numba": functools.partial(ours, Matryoshka, numba=False),
    "sparsify TopK, Adam": functools.partial(sparsify, "adam"),
    "sparsify TopK, signum": functools.partial(sparsify, "signum"),
    "SAELens TopK": functools.partial(saelens, "TopK"),
    "SAELens BatchTopK": functools.partial(saelens, "BatchTopK"),
    "SAELens Matryoshka": functools.partial(saelens, "MatryoshkaBatchTopK"),
    "SAELens JumpReLU": functools.partial(saelens, "JumpReLU"),
    "SAELens ReLU": functools.partial(saelens, "Standard"),
    "SAELens ReLU, trained": functools.partial(saelens, "Standard", trained=True),
    "dictionary_learning TopK": functools.partial(peers.dictionary_learning, "TopK", lr=LR),
    "dictionary_learning BatchTopK": functools.partial(peers.dictionary_learning, "BatchTopK", lr=LR),
}
RATIOS = (
    ("superscope TopK", "sparsify TopK, Adam"),
    ("superscope TopK", "SAELens TopK"),
    ("superscope TopK", "dictionary_learning TopK"),
    ("superscope BatchTopK", "SAELens BatchTopK"),
    ("superscope BatchTopK", "dictionary_learning BatchTopK"),
    ("superscope Matryoshka", "SAELens Matryoshka"),
    ("superscope JumpReLU", "SAELens JumpReLU"),
    ("superscope ReLU", "SAELens ReLU"),
    ("superscope ReLU, trained", "SAELens ReLU, trained"),
    ("superscope TopK, int8", "sparsify TopK, Adam"),
    ("superscope TopK, int8", "SAELens TopK"),
    ("superscope TopK, int8", "dictionary_learning TopK"),
    ("superscope BatchTopK, int8", "SAELens BatchTopK"),
    ("superscope BatchTopK, int8", "dictionary_learning BatchTopK"),
    ("superscope Matryoshka, int8", "SAELens Matryoshka"),
    ("superscope TopK, without numba", "sparsify TopK, Adam"),
    ("superscope TopK, without numba", "SAELens TopK"),
    ("superscope TopK, without numba", "dictionary_learning TopK"),
    ("superscope BatchTopK, without numba", "SAELens BatchTopK"),
    ("superscope Matryoshka, without numba", "SAELens Matryoshka"),
)
MEMORY = ("superscope TopK", "sparsify TopK, Adam", "SAELens TopK", "dictionary_learning TopK")
"""Contestants whose memory is compared in the short form."""
RELU_WEIGHTS = Path(tempfile.gettempdir()) / "superscope-sae-step-relu"
# Large enough for the compiled loops to be compiled, or loaded from where they are kept.
TWIN = (256, 8192, 16, 512)


def lacking(name: str) -> str:
    """What a contestant needs and this machine has not; empty where it can run."""
    if name.endswith("int8") and not can_screen("cpu"):
        return "a CPU with VNNI instructions, and the extra superscope[fast]"
    return peers.lacking(name)


def peak_memory(name: str, d: int, n: int, k: int, batch: int) -> tuple[float, float]:
    """MB that three steps add to a built model, and of these what the optimiser keeps; in a process of its own."""
    learner = CONTESTANTS[name](*TWIN)
    for _ in range(2):
        learner.step(torch.randn(TWIN[3], TWIN[0]))
    del learner
    gc.collect()
    learner = CONTESTANTS[name](d, n, k, batch)
    x = activations(batch, d)
    # What the twin left in the allocator's hands would hide as much of the steps' memory.
    ctypes.CDLL(None).malloc_trim(0)
    # Not getrusage: a process begins with the peak of the one that started it. Linux forgets the peak when told 5.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(3):
        learner.step(x.clone())
    added = resident("VmHWM") - before
    kept: dict[int, int] = {}
    for found in gc.get_objects():
        if isinstance(found, Adam | torch.optim.Optimizer):
            for state in list(found.state.values()):
                for value in state.values() if isinstance(state, dict) else ():
                    if isinstance(value, Tensor):
                        kept[value.data_ptr()] = value.nbytes
    return added, sum(kept.values()) / 2**20


def resident(what: str) -> float:
    """VmRSS (now) or VmHWM (at most) of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in (("d", 512), ("n", 8192), ("k", 32), ("batch", 2048), ("rounds", 24), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", default="", help="contestants whose name contains this, commas between")
    parser.add_argument("--relu-weights", type=Path, default=RELU_WEIGHTS, help="made there if there are none")
    parser.add_argument("--relu-steps", type=int, default=80)
    parser.add_argument("--memory", default="", help="print the memory of one contestant, and end")
    parser.add_argument("--memory-of", default="", help="as --only, for the memory: it takes as long as the times")
    parser.add_argument("--memory-file", type=Path, help="JSON of such figures by name, which are then not measured")
    parser.add_argument("--dry", action="store_true", help="print, and leave the results file alone")
    parser.add_argument(
        "--short", action="store_true", help="three architectures beside peers, few rounds; printed only"
    )
    options = parser.parse_args()
    if options.short:
        options.rounds, options.dry = 8, True
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    globals()["RELU_WEIGHTS"] = options.relu_weights
    shape = (options.d, options.n, options.k, options.batch)
    if options.memory:
        print(*peak_memory(options.memory, *shape))
        return
    wanted = [part.strip() for part in options.only.split(",")]
    names = [name for name in CONTESTANTS if any(part in name for part in wanted)]
    if options.short:
        names = [name for name in names if any(name in pair for pair in RATIOS[:6])]
    left_out = [f"Left out: {name}, which needs {need}." for name in names if (need := lacking(name))]
    if left_out:
        print(*left_out, sep="\n")
    names = [name for name in names if not lacking(name)]
    if not names:
        raise SystemExit("No contestant is left: change --only, or run where they can.")
    if any("trained" in name for name in names) and not (RELU_WEIGHTS / "about.json").exists():
        learn_relu(options.d, options.n, options.batch, options.relu_steps)
    data = activations((options.rounds + 1) * options.batch, options.d)
    held_out, data = data[-options.batch :], data[: -options.batch]
    variance = float((held_out - held_out.mean(0)).square().sum())
    built = {}
    for name in names:
        torch.manual_seed(0)
        built[name] = CONTESTANTS[name](*shape)
    seconds: dict[str, list[float]] = {name: [] for name in [*names, "product"]}
    encoder = torch.randn(options.n, options.d)
    for index, x in enumerate(data.split(options.batch)):
        began = time.process_time()
        _ = x @ encoder.T
        seconds["product"].append(time.process_time() - began)
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            given = x.clone()
            began = time.process_time()
            built[name].step(given)
            seconds[name].append(time.process_time() - began)
        print(f"\rround {index + 1} of {options.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    skip = min(4, options.rounds - 1)
    median = {name: statistics.median(times[skip:]) for name, times in seconds.items()}
    print(", ".join(f"{name} {1e3 * found:.0f} ms" for name, found in median.items()), file=sys.stderr, flush=True)
    gflop = 2 * options.batch * options.d * options.n / 1e9
    lines = [
        f"## {environment().replace('single thread', f'{options.threads} threads')}",
        "",
        f"d = {options.d}, n = {options.n}, k = {options.k}, batch {options.batch}, {options.rounds} rounds, float32. "
        f"The encoder's product alone: {median['product'] * 1e3:.0f} ms ({gflop / median['product']:.0f} GFLOP/s).",
        "",
        "| | CPU ms a step | rows per CPU second | product's share of the step | unexplained, held out "
        "| MB a step needs | MB the optimiser keeps |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    measured = json.loads(options.memory_file.read_text()) if options.memory_file else {}
    left: dict[str, float] = {}
    needed: dict[str, float] = {}
    for name in names:
        with torch.no_grad():
            unexplained = float((built[name].reconstruct(held_out) - held_out).square().sum()) / variance
        left[name] = unexplained
        command = [sys.executable, __file__, "--memory", name, "--relu-weights", str(RELU_WEIGHTS)]
        for key in ("d", "n", "k", "batch", "threads"):
            command += [f"--{key}", str(getattr(options, key))]
        memory = "– | –"
        if name in measured:
            memory = f"{measured[name][0] - measured[name][1]:.0f} | {measured[name][1]:.0f}"
        elif name in MEMORY if options.short else any(part.strip() in name for part in options.memory_of.split(",")):
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            added, kept = map(float, said.split()[-2:])
            memory, needed[name] = f"{added - kept:.0f} | {kept:.0f}", added - kept
        lines.append(
            f"| {name} | {median[name] * 1e3:.0f} | {options.batch / median[name]:,.0f} "
            f"| {median['product'] / median[name]:.0%} | {unexplained:.3f} | {memory} |"
        )
    if left_out:
        lines += ["", *left_out]
    if any("trained" in name for name in names):
        notes = json.loads((RELU_WEIGHTS / "about.json").read_text())["notes"]
        lines += [
            "",
            f"Trained ReLU: begun with {notes['l0']:.0f} latents on per row, "
            f"{notes['fraction_variance_unexplained']:.2f} unexplained.",
        ]
    lines += ["", "Ratios of medians, in CPU seconds:", ""]
    for one, other in RATIOS:
        if one in names and other in names:
            rounds = [b / a for a, b in zip(seconds[one][skip:], seconds[other][skip:], strict=True)]
            lines.append(
                f"- {one} against {other}: **{median[other] / median[one]:.1f}** "
                f"({min(rounds):.1f} to {max(rounds):.1f} over rounds)"
            )
            package = peers.package_of(other)
            claim(
                f"a training step, {one.removeprefix('superscope ')}, d = {options.d}, n = {options.n}",
                other,
                f"{median[other] / median[one]:.1f} ({min(rounds):.1f} to {max(rounds):.1f})",
                f"{left[one]:.3f} and {left[other]:.3f} unexplained after {options.rounds} steps",
                package[1] if package else "",
            )
    for other in MEMORY[1:]:
        package = peers.package_of(other)
        if MEMORY[0] in needed and other in needed and package:
            ratio = f"{needed[other] / needed[MEMORY[0]]:.1f}"
            what = f"memory that a step takes, TopK, d = {options.d}, n = {options.n}"
            claim(what, other, ratio, f"{needed[MEMORY[0]]:.0f} and {needed[other]:.0f} MB", package[1])
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.dry:
        file = Path(__file__).with_name("sae_step_results.md")
        head = "# A training step beside its peers\n\nMade by `benchmarks/sae_step.py`; newest first.\n"
        old = file.read_text().removeprefix(head) if file.exists() else ""
        file.write_text(head + "\n" + text + old)


if __name__ == "__main__":
    main()
