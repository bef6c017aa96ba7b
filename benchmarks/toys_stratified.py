"""Variance of the gradient, `stratified` against `sampled`, at equal cost, over (n, d, density).

Cost is measured process time per step, `sampled` with 1024 rows, `stratified` with 4096 (its closed-form terms cost the
same however many rows follow them); the ratio of variances is divided by the ratio of times, which is the comparison at
equal cost, for either variance falls as one over the rows.
Models are taken part of the way through training, where gradients are what an optimiser sees.

    python benchmarks/toys_stratified.py [--draws 40]
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from superscope.features import Independent
from superscope.toys import Ensemble, Recipe, Tied, train
from superscope.toys.train import _GRADIENTS

ROWS = {"sampled": 1024, "stratified": 4096}
CASES = (
    (5, 2, 0.05),
    (5, 2, 0.1),
    (20, 5, 0.01),
    (20, 5, 0.025),
    (80, 20, 0.003),
    (80, 20, 0.00625),
    (20, 5, 0.001),
    (100, 20, 0.01),
    (200, 20, 0.05),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for n, d, p in CASES:
        ensemble = Ensemble(Tied(n, d), Independent(n, p), seeds=0)
        for _ in train(ensemble, Recipe(steps=300, batch=256, lr=0.01), every=300):
            pass
        variance, seconds = {}, {}
        for estimator in ("sampled", "stratified"):
            recipe = Recipe(batch=ROWS[estimator], estimator=estimator)
            gradient = _GRADIENTS[estimator](ensemble, recipe)
            with torch.no_grad():
                gradient(0)
                clock = time.process_time()
                draws = []
                for index in range(arguments.draws):
                    slopes = gradient(index)[1]
                    draws.append(torch.cat([slope.double().flatten() for slope in slopes.values()]))
                seconds[estimator] = (time.process_time() - clock) / arguments.draws
            variance[estimator] = float(torch.stack(draws).var(0).sum())
        gain = variance["sampled"] / variance["stratified"]
        cost = seconds["stratified"] / seconds["sampled"]
        print(
            json.dumps(
                {
                    "n": n,
                    "d": d,
                    "density": p,
                    "n_times_density": n * p,
                    "rows": list(ROWS.values()),
                    "variance_ratio": round(gain, 1),
                    "cost_ratio": round(cost, 2),
                    "variance_ratio_at_equal_cost": round(gain / cost, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
