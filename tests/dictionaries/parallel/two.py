"""Run by torch.distributed.run, as each of several processes: what test_parallel.py compares with one process."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from superscope.capture import StoredSource
from superscope.dictionaries import ARCHITECTURES
from superscope.dictionaries.parallel import ParallelTraining, mesh
from superscope.testing import example

D, N, K = 6, 13, 3
SETTINGS = {"batch": 32, "lr": 0.01, "dead_after": 96, "auxiliary_k": 2, "seed": 3, "clip": 1.0}


def rows() -> StoredSource:
    return StoredSource(torch.randn(330, D, generator=torch.Generator().manual_seed(0)) + 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--architectures", nargs="+", required=True)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--die", type=int, default=0, help="the last process kills itself after this step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = mesh(options.groups, minutes=1)
    for name in options.architectures:
        architecture = next(kind for kind in ARCHITECTURES if kind.__name__ == name)
        sae = example(architecture, d=D, n=N, k=K)
        training = ParallelTraining(sae, rows(), where, steps=options.steps, **SETTINGS)
        folder = options.out / name
        training.resume(folder / "checkpoint")
        numbers = []
        for step in training:
            numbers.append([step.loss, *(step.numbers[key] for key in ("fraction_variance_unexplained", "l0", "dead"))])
            if options.save:
                training.save(folder / "checkpoint")
            if options.die == step.index and dist.get_rank() == dist.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if options.stop == step.index:
                break
        else:
            whole = training.gathered()
            if dist.get_rank() == 0:
                whole.save(folder / "sae")
        if dist.get_rank() == 0:
            torch.save(torch.tensor(numbers, dtype=torch.float64), folder / "numbers.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
