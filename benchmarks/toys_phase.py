"""Phase diagrams on exact gradients: time per model-step against the sampled batched recipe, and whole diagrams.

python benchmarks/toys_phase.py [--rounds 5] [--diagrams]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from results import claim
from toys_training import Published

from superscope.features import Independent
from superscope.studies.toys.phase_diagram import PhaseDiagram
from superscope.toys import Ensemble, Recipe, Tied, train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--diagrams", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models, sampled_models = 25_000, 200
    exact = Ensemble(Tied(2, 1), Independent(2, 0.1), seeds=[i % 10 for i in range(models)], dtype=torch.float64)
    steps = train(exact, Recipe(steps=10**6, lr=0.02, estimator="exact"), every=4)
    small = Ensemble(Tied(2, 1), Independent(2, 0.1), seeds=range(sampled_models))
    published = Published(2, 1, torch.full((sampled_models,), 0.1), small.parameters)
    next(steps)
    published.step()
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        clock = time.process_time()
        # The loss is looked at once a round: a training run shows it every hundred steps or so.
        next(steps)
        ours.append((time.process_time() - clock) / 4 / models)
        clock = time.process_time()
        for _ in range(4):
            published.step()
        theirs.append((time.process_time() - clock) / 4 / sampled_models)
    print(
        json.dumps(
            {
                "exact_microseconds_per_model_step": 1e6 * statistics.median(ours),
                "sampled_microseconds_per_model_step": 1e6 * statistics.median(theirs),
                "ratio": statistics.median(theirs) / statistics.median(ours),
            }
        )
    )
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    claim(
        "a step of one model of a phase diagram, exact gradients",
        "the published batched recipe, sampling",
        f"{statistics.median(theirs) / statistics.median(ours):.0f} ({min(ratios):.0f} to {max(ratios):.0f})",
        "exact against sampled gradients",
    )
    if arguments.diagrams:
        for study in (PhaseDiagram(), PhaseDiagram(n=3, d=2, size=64, restarts=8)):
            clock, processor = time.monotonic(), time.process_time()
            report = study.run()
            print(
                json.dumps(
                    {
                        "diagram": report.title,
                        "restarts": study.restarts,
                        "cpu_seconds": time.process_time() - processor,
                        "seconds": time.monotonic() - clock,
                        "labels_as_in_theory": report["agreement_with_theory"][0].value,
                        "largest_gain_over_theory": report["gain_over_theory"][0].high,
                        "worst_excess_over_theory": -(report["gain_over_theory"][0].low or 0.0),
                    }
                )
            )


if __name__ == "__main__":
    main()
