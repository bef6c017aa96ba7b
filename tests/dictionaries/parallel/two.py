"""What each of several processes runs in the tests of parallel training; test_parallel.py compares it with one process.

As a script it is one process that `torch.distributed.run` started, or, with `--serve`, a server that has torch loaded
and forks such processes on demand, which takes milliseconds where a new interpreter takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import superscope.cli
from superscope.capture import MemorySource
from superscope.dictionaries import ARCHITECTURES, TopK, train
from superscope.dictionaries.parallel import ParallelTraining, mesh
from superscope.dictionaries.train import Training
from superscope.testing import example

D, N, K = 6, 13, 3
SETTINGS: dict[str, Any] = {"batch": 32, "lr": 0.01, "dead_after": 32, "auxiliary_k": 2, "seed": 3, "clip": 1.0}
SETTINGS |= {"start": "residuals", "betas": (0.5, 0.95), "atoms_lr": 2.0}
WIDE = 1040
"""Latents of which a batch's pre-activations fill several blocks."""
SHY = (1, 2, 9)
"""Latents that begin too rare to fire in every batch: dead in some steps, and fitted to the residual then."""
NUMBERS = ("fraction_variance_unexplained", "l0", "dead")


def rows(count: int = 330, dtype: torch.dtype = torch.float32) -> MemorySource:
    return MemorySource((torch.randn(count, D, generator=torch.Generator().manual_seed(0)) + 1).to(dtype))


def wide_settings() -> dict[str, Any]:
    return SETTINGS | {"batch": 1024}


def make_shy(training: Training) -> None:
    """Lowers the biases of SHY after the start, on whichever shard holds them."""
    sae, first = training.sae, training.exchange.first() if isinstance(training, ParallelTraining) else 0
    start = sae.start

    def started(x: torch.Tensor, **options: Any) -> None:
        start(x, **options)
        with torch.no_grad():
            for latent in SHY:
                if first <= latent < first + sae.n:
                    sae.encoder_bias[latent - first] = -1.5

    sae.start = started  # type: ignore[method-assign]


def watch_gradients(training: Training) -> list[dict[str, torch.Tensor]]:
    """The gradients of every step to come, as Adam gets them: of all rows, projected and clipped."""
    found: list[dict[str, torch.Tensor]] = []
    before = training._before

    def kept() -> None:
        before()
        gradients = {name: p.grad for name, p in training.sae.named_parameters() if p.grad is not None}
        found.append({name: gradient.detach().clone() for name, gradient in gradients.items()})

    training._before = kept  # type: ignore[method-assign]
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--architectures", nargs="+", required=True)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--die", type=int, default=0, help="the last process kills itself after this step")
    parser.add_argument("--sleep", type=int, default=0, help="the last process sleeps for long after this step")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--double", action="store_true", help="in float64, where rounding hides nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    where = mesh(options.groups, minutes=options.minutes)
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    for name in options.architectures:
        architecture = next(kind for kind in ARCHITECTURES if kind.__name__ == name)
        sae = example(architecture, d=D, n=WIDE if options.wide else N, k=K)
        source, settings = (rows(4096), wide_settings()) if options.wide else (rows(), SETTINGS)
        if options.double:
            sae, source = sae.double(), rows(dtype=torch.float64)
        training = ParallelTraining(sae, source, where, steps=options.steps, **settings)
        folder = options.out / name
        folder.mkdir(exist_ok=True)
        make_shy(training)
        gradients = watch_gradients(training)
        training.resume(folder / "checkpoint")
        print("ready", flush=True)
        numbers = []
        for step in training:
            numbers.append([step.loss, *(step.numbers[key] for key in NUMBERS)])
            if options.save:
                training.save(folder / "checkpoint")
                print(step.index, flush=True)
            if options.die == step.index and rank == last:
                os.kill(os.getpid(), signal.SIGKILL)
            if options.sleep == step.index and rank == last:
                time.sleep(60)
            if options.stop == step.index:
                break
        else:
            whole = training.gathered()
            if rank == 0:
                whole.save(folder / "sae")
        if rank == 0:
            torch.save(torch.tensor(numbers, dtype=torch.float64), folder / "numbers.pt")
        torch.save(gradients, folder / f"gradients{rank}.pt")
    dist.destroy_process_group()


def _warm(program: str) -> None:
    """Does once what is to be done often: torch and matplotlib load half of themselves when they are first used."""
    if program == "two":
        list(train(TopK(D, N, k=K), rows(), steps=1, **SETTINGS))
        return
    small = ["world:exactly_k", "--n", "16", "--k", "2", "--steps", "1", "--batch", "8", "--held-out", "8"]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        superscope.cli.main(["train", *small, "--out", f"{folder}/run"])


def serve() -> None:
    """Each line of input is a list: how many processes, where they write what they say, what to run ("two" is `main`,
    "superscope" the command) and its arguments. Answers with a line of their ids, and one of how they ended."""
    warm: set[str] = set()
    for line in sys.stdin:
        processes, out, program, *arguments = json.loads(line)
        if program not in warm:
            _warm(program)
            warm.add(program)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(int(processes)):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": processes, "LOCAL_RANK": str(rank)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                for stream, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(f"{out}/{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                code: int | None = 0
                try:
                    code = superscope.cli.main(arguments) if program == "superscope" else main(arguments)
                # The boundary of a process: what it raised is what it said.
                except BaseException:
                    traceback.print_exc()
                    code = 1
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code or 0)
            children.append(child)
        print(json.dumps(children), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
