"""The feature-dimensionality sweep against the published way of training it, equal steps, interleaved.

The baseline is written after the public notebook of "Toy Models of Superposition" (Elhage et al., 2022): instances in
one einsum, `(batch, instance, feature)`, two uniform draws per element, autograd, torch's AdamW. It is ours in code and
theirs in method. Quality: both train from the same weights for the same steps, and their expected losses on one large
sample are compared.

    python benchmarks/toys_training.py [--steps 20] [--rounds 5] [--sizes 200 400]
        [--quality-steps 0 --quality-models 4]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from results import claim

from superscope.features import Independent
from superscope.toys import Ensemble, Recipe, Tied, train

SIZES = ((200, 20, 20), (400, 30, 10))


class Published:
    """The notebook's loop."""

    def __init__(self, n: int, d: int, densities: torch.Tensor, start: dict[str, torch.Tensor]) -> None:
        self.W = torch.nn.Parameter(start["W"].clone())
        self.b = torch.nn.Parameter(start["b"].clone())
        self.p = densities
        self.n = n
        self.optimizer = torch.optim.AdamW([self.W, self.b], lr=1e-3)

    def step(self, batch: int = 1024) -> None:
        with torch.no_grad():
            x = torch.rand(batch, len(self.p), self.n)
            x = torch.where(torch.rand(batch, len(self.p), self.n) <= self.p[:, None], x, torch.zeros(()))
        hidden = torch.einsum("...if,ifh->...ih", x, self.W)
        out = torch.relu(torch.einsum("...ih,ifh->...if", hidden, self.W) + self.b)
        error = (x - out) ** 2
        # The notebook's mean over batch and features, summed over instances.
        loss = error.mean((0, 2)).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="fewer rounds, and losses compared after few steps")
    parser.add_argument("--quality-steps", type=int, default=0)
    parser.add_argument("--quality-models", type=int, default=4, help="densities, from 1 to 1/20, compared at the end")
    parser.add_argument("--sizes", type=int, nargs="+", default=[n for n, _, _ in SIZES], help="n of the sizes to run")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.quality_steps, arguments.quality_models = 3, 200, 2
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    for n, d, count in SIZES:
        if n not in arguments.sizes:
            continue
        densities = 20.0 ** -torch.linspace(0, 1, count, dtype=torch.float64)
        ensemble = Ensemble(Tied(n, d), [Independent(n, p) for p in densities.tolist()])
        published = Published(n, d, densities.float(), ensemble.parameters)
        # The loss is looked at once a round: a training run shows it every hundred steps or so.
        steps = train(ensemble, Recipe(steps=10**6), every=arguments.steps)
        next(steps)
        published.step()
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            clock = time.process_time()
            next(steps)
            ours.append((time.process_time() - clock) / arguments.steps)
            clock = time.process_time()
            for _ in range(arguments.steps):
                published.step()
            theirs.append((time.process_time() - clock) / arguments.steps)
        result = {
            "n": n,
            "d": d,
            "models": count,
            "ours_ms": 1e3 * statistics.median(ours),
            "published_ms": 1e3 * statistics.median(theirs),
            "ratio": statistics.median(theirs) / statistics.median(ours),
        }
        if arguments.quality_steps:
            few = 20.0 ** -torch.linspace(0, 1, arguments.quality_models, dtype=torch.float64)
            result |= quality(n, d, few, arguments.quality_steps)
        results.append(result)
        print(json.dumps(result))
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        quality_reached = "equal steps"
        if arguments.quality_steps:
            steps_said = f"after {arguments.quality_steps} equal steps"
            quality_reached = f"losses {result['largest_loss_difference']:.1%} apart {steps_said}"
        claim(
            f"a step of {count} toy models, n = {n}, d = {d}",
            "the published batched recipe",
            f"{result['ratio']:.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            quality_reached,
        )


def quality(n: int, d: int, densities: torch.Tensor, steps: int) -> dict[str, object]:
    """Expected losses after equal steps from equal starts."""
    ensemble = Ensemble(Tied(n, d), [Independent(n, p) for p in densities.tolist()])
    published = Published(n, d, densities.float(), ensemble.parameters)
    for _ in train(ensemble, Recipe(steps=steps), every=steps):
        pass
    for _ in range(steps):
        published.step()
    ours = ensemble.expected_loss(rows=16_384)[0]
    ensemble.parameters = {"W": published.W.detach(), "b": published.b.detach()}
    theirs = ensemble.expected_loss(rows=16_384)[0]
    differences = (ours / theirs - 1).tolist()
    return {
        "quality_steps": steps,
        "densities": [round(p, 3) for p in densities.tolist()],
        "loss_differences": [round(x, 5) for x in differences],
        "largest_loss_difference": max(abs(x) for x in differences),
    }


if __name__ == "__main__":
    main()
