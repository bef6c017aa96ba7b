"""Coherence of all pairs: CPU seconds, and the share of the machine's own matrix-product rate that is reached.

    python benchmarks/geometry_coherence.py                 # 24 576 x 768, some 10 s per pass
    python benchmarks/geometry_coherence.py --n 131072 --d 4096 --device cuda

Claim: at least 60 % of measured GEMM peak in float32. The work counted is n^2 d, half of the full product, since each
pair is needed once; blocks on the diagonal are done whole, and are part of the loss. Product and pass alternate.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from results import report

from superscope.core import Dictionary
from superscope.measure import coherence, coherent_pairs, cosine_histogram, interference_energy, nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=24_576)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-file", action="store_true", help="print only; else append to geometry_results.md")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    W = Dictionary(torch.randn(options.n, options.d, generator=torch.Generator().manual_seed(0)).to(options.device))
    size = min(2048 if options.device == "cpu" else 8192, options.n)
    left, right = W.atoms[:size].contiguous(), W.atoms[-size:].contiguous()
    out = torch.empty(size, size, device=options.device)

    def seconds(work) -> float:
        # CPU seconds where the CPU works; wall seconds where it waits for a device.
        clock = time.process_time if options.device == "cpu" else time.perf_counter
        if options.device != "cpu":
            torch.cuda.synchronize()
        start = clock()
        work()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    repeats = 8
    passes = {
        "coherence": lambda: coherence(W),
        "nearest": lambda: nearest(W),
        "coherent_pairs": lambda: coherent_pairs(W, most=20),
        "cosine_histogram": lambda: cosine_histogram(W),
        "interference_energy": lambda: interference_energy(W),
    }
    peak, spent = [], {name: [] for name in passes}
    torch.mm(left, right.T, out=out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(options.rounds):
        for name, work in passes.items():
            peak.append(
                2
                * size**2
                * options.d
                * repeats
                / seconds(lambda: [torch.mm(left, right.T, out=out) for _ in range(repeats)])
            )
            spent[name].append(seconds(work))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    best = statistics.median(peak)
    lines = [
        f"{options.n} x {options.d} float32 on {options.device}; "
        f"product of blocks of {size}: {best / 1e9:.1f} GFLOP/s (median)"
    ]
    for name, each in spent.items():
        taken = statistics.median(each)
        lines.append(f"{name:22s}{taken:8.2f} s   {options.n**2 * options.d / taken / best:6.1%} of the product's rate")
    lines.append(
        f"peak memory beyond the dictionary: {grown:.0f} MiB (its normalised copy is {W.atoms.numel() * 4 / 2**20:.0f})"
    )
    lines.append(str(coherence(W)))
    report("\n".join(lines), None if options.no_file else "geometry_results.md")


if __name__ == "__main__":
    main()
