"""What does an edit cost, and what do strengths save that share the pass below the site?

CPU time of one thread, alternating, medians: a forward pass of the pocket model over a window of 64 tokens with and
without `Add` at its middle block; and a dose-response curve of 16 strengths at that block, shared and apart.

    OMP_NUM_THREADS=1 python benchmarks/steering_speed.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from superscope import capture
from superscope.intervene import dose_response, edited
from superscope.intervene.edits import Add


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ratio(work: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median, least and most of the CPU time of one over that of the other, each round's two side by side."""
    work(), other()
    ratios = [cpu_seconds(work) / cpu_seconds(other) for _ in range(rounds)]
    return median(ratios), min(ratios), max(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    subject = capture.load("pocket")
    count = len(capture.blocks(subject.model))
    site = f"resid_post.{(count - 1) // 2}"
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, subject.model.config.vocab_size, (8, 64), generator=generator)
    edit = Add(torch.randn(subject.d, generator=generator))

    @torch.no_grad()
    def plain() -> None:
        for _ in range(4):
            subject.model(input_ids=ids, use_cache=False)

    @torch.no_grad()
    def steered() -> None:
        with edited(subject, {site: edit}):
            for _ in range(4):
                subject.model(input_ids=ids, use_cache=False)

    prompt, answer = ids[0, :56].tolist(), ids[0, 56:].tolist()
    strengths = [i / 8 for i in range(16)]

    def curve(share: bool) -> None:
        dose_response(subject, prompt, answer, site=site, edit=edit, strengths=strengths, share=share)

    for what, (middle, least, most) in (
        (f"a pass with an edit at {site}, over one without", ratio(steered, plain, rounds)),
        (f"16 strengths at {site} apart, over sharing", ratio(lambda: curve(False), lambda: curve(True), rounds)),
    ):
        print(f"{what}: {middle:.3f} ({least:.3f} to {most:.3f}, {rounds} rounds)", flush=True)


if __name__ == "__main__":
    main()
