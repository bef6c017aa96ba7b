"""Variance of the gradient, `stratified` against `sampled`, at equal cost, over (n, d, density).

`sampled` is given as many rows as take the processor time of a step of `stratified`: its rows are chosen by timing both
and corrected until their times agree within a tenth; the times that remain are printed, with the ratio of variance x
time, in which what is left of the difference counts too. Beside it stands the same for equal rows.
Each case is measured for one model, where a step's fixed cost weighs most, and for twenty side by side, as in a sweep.
Models are taken part of the way through training, where gradients are what an optimiser sees. One thread, process
time, steps of both in turn, medians.

    python benchmarks/toys_stratified.py [--draws 40] [--rows 1024] [--models 1 20]

`--rows` are those of `stratified`; the published recipe's are 1024. Its closed-form terms cost the same however many
rows follow them, so that more rows are better for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from superscope.features import Independent
from superscope.toys import Ensemble, Recipe, Tied, train
from superscope.toys.train import _GRADIENTS, Estimator

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


def measure(
    ensemble: Ensemble, rows: dict[Estimator, int], draws: int
) -> tuple[dict[Estimator, float], dict[Estimator, float]]:
    """Variance of the gradient (summed over its entries) and median process seconds of a step, of each estimator."""
    gradients: dict[Estimator, Callable] = {
        estimator: _GRADIENTS[estimator](ensemble, Recipe(batch=count, estimator=estimator))
        for estimator, count in rows.items()
    }
    found: dict[Estimator, list[torch.Tensor]] = {estimator: [] for estimator in rows}
    seconds: dict[Estimator, list[float]] = {estimator: [] for estimator in rows}
    with torch.no_grad():
        for gradient in gradients.values():
            gradient(0, False)
        for index in range(draws):
            for estimator, gradient in gradients.items():
                clock = time.process_time()
                slopes = gradient(index, False)[1]
                seconds[estimator].append(time.process_time() - clock)
                found[estimator].append(torch.cat([slope.double().flatten() for slope in slopes.values()]))
    variance: dict[Estimator, float] = {
        estimator: float(torch.stack(each).var(0).sum()) for estimator, each in found.items()
    }
    return variance, {estimator: statistics.median(each) for estimator, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--rows", type=int, nargs="+", default=[1024])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 20])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for (n, d, p), models in [(case, int(count)) for case in CASES for count in arguments.models]:
        ensemble = Ensemble(Tied(n, d), Independent(n, p), seeds=range(models))
        for _ in train(ensemble, Recipe(steps=300, batch=256, lr=0.01), every=300):
            pass
        for count in arguments.rows:
            rows: dict[Estimator, int] = {"sampled": count, "stratified": count}
            variance, seconds = measure(ensemble, rows, arguments.draws)
            equal_rows = variance["sampled"] / variance["stratified"]
            cost = seconds["stratified"] / seconds["sampled"]
            # A step of `sampled` has a fixed cost too, and larger batches leave the cache: hence several corrections.
            for _ in range(6):
                if abs(seconds["stratified"] / seconds["sampled"] - 1) < 0.1:
                    break
                rows["sampled"] = max(1, round(rows["sampled"] * seconds["stratified"] / seconds["sampled"]))
                variance, seconds = measure(ensemble, rows, arguments.draws)
            gain = variance["sampled"] / variance["stratified"]
            print(
                json.dumps(
                    {
                        "n": n,
                        "d": d,
                        "density": p,
                        "n_times_density": round(n * p, 3),
                        "models": models,
                        "rows_stratified": count,
                        "rows_sampled_in_equal_time": rows["sampled"],
                        "milliseconds": {name: round(1e3 * value, 3) for name, value in seconds.items()},
                        "variance_ratio_in_equal_time": float(f"{gain:.3g}"),
                        "variance_times_time_ratio": float(f"{gain * seconds['sampled'] / seconds['stratified']:.3g}"),
                        "equal_rows": {
                            "variance_ratio": float(f"{equal_rows:.3g}"),
                            "cost_ratio": round(cost, 2),
                            "variance_times_time_ratio": float(f"{equal_rows / cost:.3g}"),
                        },
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
