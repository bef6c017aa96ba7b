"""One training step of a top-k autoencoder on a GPU: ours, ours straight from the kernels, and sparsify's Triton step.

    PYTHONPATH=. .venv-peers/bin/python benchmarks/sae_gpu.py                  # d=768 n=24576 k=32 B=4096
    PYTHONPATH=. .venv-peers/bin/python benchmarks/sae_gpu.py --size large     # d=4096 n=131072 k=64 B=8192
    PYTHONPATH=. python benchmarks/sae_gpu.py --size small                     # any machine; says that it is no GPU

Every round hands one batch to every contestant in turn, the order rotated, and waits for the device before and after.
What is left unexplained on held-out rows after the same tokens stands beside the time, and the time beside the step's
floor: its one product at the rate that a large bfloat16 product reaches on this device, and what must move through its
memory at the rate that a large copy reaches, both measured before. "kernels" is a step without autograd: encode and
choose in bfloat16 with float32 values, decode, and gradients that go straight to their optimiser rows.

Then each piece of the step by itself, beside torch's own: time, and the share of the ceiling that bounds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("WANDB_MODE", "disabled")

import torch
import torch.nn.functional as F
from results import report
from torch import Tensor

from superscope.core import Activations, ActivationSource
from superscope.dictionaries import TopK, train
from superscope.kernels import Plan, adam_rows, bag_dot, bag_sum, encode_topk, topk
from superscope.theory.cost import step_cost

LR = 1e-3
SIZES = {"small": (64, 512, 8, 256), "medium": (768, 24576, 32, 4096), "large": (4096, 131072, 64, 8192)}
Step = Callable[[Tensor], object]


class Handed(ActivationSource):
    """The batch that was handed over last."""

    def __init__(self, d: int, first: Tensor) -> None:
        self.d, self.x = d, first

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        while True:
            yield Activations(self.x)


class Kernels:
    """The same descent as `train` with warmup and decay 0 and no auxiliary loss, written in kernels alone."""

    def __init__(self, sae: TopK, first: Tensor) -> None:
        self.sae, self.done = sae, 0
        self.product = torch.bfloat16 if first.is_cuda else None
        self.moments = {id(p): (torch.zeros_like(p), torch.zeros_like(p)) for p in (sae.atoms, sae.encoder)}

    def begin(self, x: Tensor) -> None:
        """As `train` begins, on the first batch handed over."""
        sae = self.sae
        self.scale = float((x - x.mean(0)).double().square().mean().sqrt())
        sae.start(x)
        self.biases = torch.optim.Adam(
            [sae.encoder_bias, sae.bias], lr=LR * self.scale, eps=1e-8 / self.scale, fused=True
        )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> None:
        sae = self.sae
        if not self.done:
            self.begin(x)
        self.done += 1
        rows = x - sae.bias
        values, indices = encode_topk(rows, sae.encoder, sae.encoder_bias, sae.k, product=self.product)
        columns, f = indices.reshape(-1), values.relu().reshape(-1)
        offsets = torch.arange(len(x) + 1, device=x.device) * sae.k
        plan = Plan(columns, offsets, sae.n)
        g = bag_sum(f, columns, offsets, sae.atoms).add_(sae.bias).sub_(x).mul_(2 / (x.numel() * self.scale**2))
        dv = bag_dot(g, columns, offsets, sae.atoms) * (f > 0)
        sae.encoder_bias.grad = dv.new_zeros(sae.n).index_add_(0, columns, dv)
        sae.bias.grad = g.sum(0) - sae.encoder_bias.grad @ sae.encoder
        for parameter, weights, table in ((sae.atoms, f, g), (sae.encoder, dv, rows)):
            mean, square = self.moments[id(parameter)]
            unit = parameter is sae.atoms
            adam_rows(parameter.data, mean, square, weights, table, plan, step=self.done, lr=LR, unit=unit)
        self.biases.step()


def trained(sae: TopK, first: Tensor, precision: str = "full") -> Step:
    source = Handed(sae.d, first)
    settings = {"warmup": 0, "decay": 0, "auxiliary": 0, "precision": precision}
    training = train(sae, source, steps=10**6, batch=len(first), lr=LR, **settings)

    def step(x: Tensor) -> object:
        source.x = x
        return next(training)

    return step


def sparsify(d: int, n: int, k: int, first: Tensor) -> tuple[Step, Callable[[Tensor], Tensor]]:
    from sparsify import SparseCoder, SparseCoderConfig

    torch.manual_seed(0)
    sae = SparseCoder(d, SparseCoderConfig(num_latents=n, k=k), device=first.device)
    sae.b_dec.data = first.mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step, lambda x: sae(x).sae_out


def activations(rows: int, d: int, seed: int, device: str) -> Tensor:
    """Sums of 16 of 8 d unit directions, frequent ones first, a mean and noise."""
    random = torch.Generator(device).manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(8 * d, d, generator=random, device=device), dim=1)
    mean = 0.5 * torch.randn(d, generator=random, device=device)
    random = torch.Generator(device).manual_seed(seed)
    # The cube of a uniform number prefers small indices.
    chosen = (torch.rand(rows, 16, generator=random, device=device).pow(3) * 8 * d).long()
    size = 0.5 + torch.empty(rows, 16, device=device).exponential_(generator=random)
    x = torch.nn.functional.embedding_bag(chosen, atoms, per_sample_weights=size, mode="sum")
    return x + mean + 0.05 * torch.randn(rows, d, generator=random, device=device)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    """The median time of a piece of work, by the device's own clock where it has one."""
    for _ in range(3):
        work()
    if device != "cuda":
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for before, after in marks:
        before.record()
        work()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) / 1e3 for before, after in marks)


def ceilings(device: str) -> tuple[float, float]:
    """Operations a second of a large bfloat16 product, and bytes a second, read and written, of a large copy."""
    side, numbers = (8192, 2**30) if device == "cuda" else (512, 2**22)
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = 2 * side**3 / seconds(lambda: left @ right.T, device)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    return product, 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def pieces(d: int, n: int, k: int, batch: int, device: str, ceiling: tuple[float, float]) -> list[str]:
    """Each piece of a step by itself: milliseconds, its rate, and the share of the ceiling that bounds it."""
    operations, bandwidth = ceiling
    x = torch.randn(batch, d, device=device)
    encoder = F.normalize(torch.randn(n, d, device=device))
    bias = torch.zeros(n, device=device)
    low, right = x.bfloat16(), encoder.bfloat16()
    rows = min(batch, 2048)
    pre = F.linear(low[:rows], right)
    values, indices = encode_topk(x, encoder, bias, k, product=torch.bfloat16)
    columns, f = indices.reshape(-1), values.reshape(-1)
    offsets = torch.arange(batch + 1, device=device) * k
    plan = Plan(columns, offsets, n)
    mean, square = torch.zeros_like(encoder), torch.zeros_like(encoder)
    parameter = torch.nn.Parameter(encoder.clone())
    parameter.grad = torch.randn_like(parameter)
    dense = torch.optim.Adam([parameter], lr=LR, fused=True)
    product = 2.0 * batch * d * n
    gathered = 4.0 * batch * d * (k + 1)
    stepped = 24.0 * n * d + 4.0 * batch * k * d
    offered: list[tuple[str, Callable[[], object], float, float]] = [
        ("product, bfloat16", lambda: [F.linear(part, right) for part in low.split(rows)], product, operations),
        ("encode and choose", lambda: encode_topk(x, encoder, bias, k, product=torch.bfloat16), product, operations),
        (f"choose, {rows} rows", lambda: topk(pre, k), pre.nbytes, bandwidth),
        ("  torch.topk", lambda: pre.topk(k, dim=1, sorted=False), pre.nbytes, bandwidth),
        ("decode", lambda: bag_sum(f, columns, offsets, encoder), gathered, bandwidth),
        (
            "  torch embedding_bag",
            lambda: F.embedding_bag(indices, encoder, per_sample_weights=values, mode="sum"),
            gathered,
            bandwidth,
        ),
        ("chosen products", lambda: bag_dot(x, columns, offsets, encoder), gathered, bandwidth),
        ("plan", lambda: Plan(columns, offsets, n), 16.0 * len(columns), bandwidth),
        (
            "Adam from uses",
            lambda: adam_rows(encoder, mean, square, f, x, plan, step=1, lr=LR, unit=True),
            stepped,
            bandwidth,
        ),
        ("  torch Adam, fused", dense.step, 28.0 * n * d, bandwidth),
    ]
    lines = [f"{'':26s}{'ms':>9s}{'rate':>16s}{'of ceiling':>12s}"]
    for name, work, amount, most in offered:
        taken = seconds(work, device)
        unit = f"{amount / taken / 1e12:10.1f} TFLOP/s" if most is operations else f"{amount / taken / 1e9:11.0f} GB/s"
        lines.append(f"{name:26s}{1e3 * taken:9.3f}{unit:>16s}{amount / taken / most:12.1%}")
    return lines


@torch.no_grad()
def unexplained(answer: Callable[[Tensor], Tensor], held: Tensor) -> float:
    """The share of the rows' energy about their mean that is left."""
    return float((held - answer(held)).square().sum() / (held - held.mean(0)).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=None, help="medium on a GPU, small without one")
    parser.add_argument("--rounds", type=int, default=50)
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = chosen.size or ("medium" if device == "cuda" else "small")
    d, n, k, batch = SIZES[size]
    first, held = activations(batch, d, 1, device), activations(batch, d, 2, device)
    torch.set_float32_matmul_precision("high")  # sparsify's default on a GPU; ours multiplies in bfloat16 or float32

    steps: dict[str, Step] = {}
    answers: dict[str, Callable[[Tensor], Tensor]] = {}
    makes: dict[str, Callable[[TopK, Tensor], Step]] = {
        "superscope train": trained,
        "  in bfloat16": lambda sae, first: trained(sae, first, "bfloat16"),
        "superscope kernels": Kernels,
    }
    for name, make in makes.items():
        sae = TopK(d, n, k).to(device)
        steps[name], answers[name] = make(sae, first), sae.reconstruct
    missing = ""
    if importlib.util.find_spec("sparsify") is not None:
        steps["sparsify"], answers["sparsify"] = sparsify(d, n, k, first)
    else:
        missing = "\nsparsify is not installed here: no ratio. Run it in the environment that scripts/peers makes."

    times: dict[str, list[float]] = {name: [] for name in steps}
    peak = dict.fromkeys(steps, 0.0)
    names = list(steps)
    for turn in range(chosen.rounds + 3):
        x = activations(batch, d, 3 + turn, device)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wait(device)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            began = time.perf_counter()
            steps[name](x)
            wait(device)
            # The first rounds compile kernels.
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
                if device == "cuda":
                    peak[name] = max(peak[name], (torch.cuda.max_memory_allocated() - before) / 2**20)

    # The contestants' memory is wanted for the pieces.
    scores = {name: unexplained(answer, held) for name, answer in answers.items()}
    steps.clear()
    answers.clear()
    operations, bandwidth = ceilings(device)
    cost = step_cost(d, n, k, batch)
    machine = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    lines = [
        f"{machine}: d={d} n={n} k={k} B={batch}, {chosen.rounds} rounds, tokens {chosen.rounds + 3} x {batch}",
        f"ceilings: bfloat16 product {operations / 1e12:.0f} TFLOP/s, copy {bandwidth / 1e9:.0f} GB/s",
        f"floor of a step: product {1e3 * cost.product / operations:.2f} ms, "
        f"memory {1e3 * cost.traffic / bandwidth:.2f} ms",
        f"{'':20s}{'ms':>9s}{'from':>9s}{'to':>9s}{'tokens/s':>12s}{'x sparsify':>12s}{'product':>9s}{'memory':>9s}"
        f"{'floor':>9s}{'step MiB':>10s}{'FVU':>9s}",
    ]
    floor = cost.product / operations + cost.traffic / bandwidth
    for name, taken in times.items():
        median = statistics.median(taken)
        ratio = f"{statistics.median(times['sparsify']) / median:12.2f}" if "sparsify" in times else f"{'-':>12s}"
        shares = (cost.product / median / operations, cost.traffic / median / bandwidth, floor / median)
        memory = f"{peak[name]:10.0f}" if device == "cuda" else f"{'-':>10s}"
        spread = "".join(f"{1e3 * t:9.2f}" for t in (median, min(taken), max(taken)))
        of = "".join(f"{share:9.1%}" for share in shares)
        lines.append(f"{name:20s}{spread}{batch / median:12.0f}{ratio}{of}{memory}{scores[name]:9.4f}")
    lines += ["", *pieces(d, n, k, batch, device, (operations, bandwidth))]
    if device == "cpu":
        lines.append("Not a GPU: this shows that the steps agree, and measures nothing that the claims are about.")
    report("\n".join(lines) + missing, "sae_gpu_results.md" if device == "cuda" else None)


if __name__ == "__main__":
    main()
