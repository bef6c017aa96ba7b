from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.theory import (
    minimax_risk,
    minimax_threshold,
    noise_sensitivity,
    soft_threshold_risk,
    state_evolution,
    weak_threshold,
)


@pytest.mark.parametrize(
    ("density", "risk", "threshold", "risk_nn", "threshold_nn"),
    [
        (0.001, 0.009458, 2.6329, 0.008415, 2.4361),
        (0.01, 0.061244, 1.9451, 0.052219, 1.7208),
        (0.05, 0.203900, 1.3984, 0.167082, 1.1589),
        (0.1, 0.328794, 1.1402, 0.265304, 0.9015),
        (0.2, 0.511130, 0.8616, 0.409903, 0.6360),
    ],
)
def test_minimax_table(density, risk, threshold, risk_nn, threshold_nn):
    signed, nonnegative = minimax_risk(density), minimax_risk(density, nonnegative=True)
    assert signed.risk == pytest.approx(risk, abs=6e-7)
    assert signed.threshold == pytest.approx(threshold, abs=6e-5)
    assert nonnegative.risk == pytest.approx(risk_nn, abs=6e-7)
    assert nonnegative.threshold == pytest.approx(threshold_nn, abs=6e-5)


@settings(deadline=None)
@given(st.floats(1e-4, 0.9), st.booleans(), st.floats(0.5, 2))
def test_minimax_is_a_minimum_over_thresholds_of_the_worst_law(density, nonnegative, other):
    risk, threshold = minimax_risk(density, nonnegative=nonnegative)

    def worst(t):
        far = soft_threshold_risk(1e8, t, nonnegative=nonnegative)
        return density * far + (1 - density) * soft_threshold_risk(0, t, nonnegative=nonnegative)

    assert worst(threshold) == pytest.approx(risk, rel=1e-9)
    assert worst(threshold * other) >= risk * (1 - 1e-9)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("value", "threshold"), [(0, 1.0), (0.7, 1.3), (2.5, 0.4), (5.0, 2.0), (-1.2, 0.8)])
def test_risk_by_quadrature(value, threshold, nonnegative):
    if nonnegative and value < 0:
        with pytest.raises(ValueError, match="value must lie in"):
            soft_threshold_risk(value, threshold, nonnegative=True)
        return
    z = np.linspace(-12, 12, 400_001)
    y = value + z
    kept = np.maximum(y - threshold, 0) if nonnegative else np.sign(y) * np.maximum(abs(y) - threshold, 0)
    expected = np.trapezoid((kept - value) ** 2 * np.exp(-z * z / 2), z) / math.sqrt(2 * math.pi)
    assert soft_threshold_risk(value, threshold, nonnegative=nonnegative) == pytest.approx(expected, rel=1e-7)


LAWS = {
    "flat": ((1.0,), None),
    "wide": ((0.1, 1.0, 10.0), (0.3, 0.4, 0.3)),
    "gaussian": tuple(np.abs(a) if i == 0 else a for i, a in enumerate(np.polynomial.hermite_e.hermegauss(40))),
}


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("delta", [0.1, 0.5])
@pytest.mark.parametrize("law", LAWS)
def test_state_evolution_turns_at_the_weak_threshold(law, delta, nonnegative):
    values, weights = LAWS[law]
    rho = weak_threshold(delta, nonnegative=nonnegative)

    def last(share):
        run = state_evolution(
            delta, share * rho * delta, values, weights, nonnegative=nonnegative, steps=1000, tolerance=1e-11
        )
        power = share * rho * delta * np.average(np.square(values), weights=weights)
        return run.error[-1] / power

    assert last(0.93) < 1e-10
    assert last(1.07) > 1e-6


def test_noise_sensitivity_is_the_fixed_point_of_state_evolution():
    delta, rho, noise = 0.3, 0.2, 0.01
    alpha = minimax_risk(rho * delta).threshold
    # The worst law is far away: its risk is 1 + alpha^2 exactly.
    run = state_evolution(delta, rho * delta, (1e6,), noise=noise, threshold=alpha, tolerance=0.0, steps=400)
    assert run.error[-1] == pytest.approx(noise * noise_sensitivity(delta, rho), rel=1e-6)


def test_noise_sensitivity_ends_at_the_weak_threshold():
    for nonnegative in (False, True):
        rho = weak_threshold(0.4, nonnegative=nonnegative)
        assert noise_sensitivity(0.4, rho * 0.999, nonnegative=nonnegative) > 100
        assert noise_sensitivity(0.4, rho * 1.001, nonnegative=nonnegative) == math.inf


def test_state_evolution_follows_simulated_amp():
    # The algorithm itself on Gaussian matrices: given the noise it has, each step's error is the formula's. (Over
    # several steps the chance of one matrix adds up to 10 % and more at this size.)
    n, d, density = 1200, 600, 0.08
    alpha = minimax_threshold(d / n)
    ratios = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        w = generator.standard_normal((d, n)) / math.sqrt(d)
        f = np.where(np.arange(n) < density * n, 1.0, 0.0)
        x = w @ f
        estimate, residual = np.zeros(n), x
        ratios.append([])
        for _ in range(4):
            tau2 = float(residual @ residual) / d
            on, off = soft_threshold_risk(1 / math.sqrt(tau2), alpha), soft_threshold_risk(0, alpha)
            expected = tau2 * (density * on + (1 - density) * off)
            y = estimate + w.T @ residual
            estimate = np.sign(y) * np.maximum(abs(y) - alpha * math.sqrt(tau2), 0)
            residual = x - w @ estimate + residual * np.count_nonzero(estimate) / d
            ratios[-1].append(np.mean((estimate - f) ** 2) / expected)
    assert np.mean(ratios, axis=0) == pytest.approx(np.ones(4), rel=0.08)


def test_state_evolution_reports_running_out_of_steps():
    run = state_evolution(0.25, 0.25 * 0.26, steps=3)
    assert not run.converged
    assert len(run.error) == len(run.noise) == 3
    assert state_evolution(0.25, 0.01).converged


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="values must be a list of finite positive"):
        state_evolution(0.5, 0.1, (1.0, -1.0), nonnegative=True)
    with pytest.raises(ValueError, match="weights must be one"):
        state_evolution(0.5, 0.1, (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="noise must lie in"):
        state_evolution(0.5, 0.1, noise=-1)
    with pytest.raises(ValueError, match="density must lie in"):
        minimax_risk(0)
    with pytest.raises(ValueError, match="rho must lie in"):
        noise_sensitivity(0.5, 1.2)
