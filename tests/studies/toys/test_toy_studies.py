from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Dictionary, Report, ShapeError, SparseCode, files
from superscope.features import Fixed, Independent, Uniform
from superscope.studies.arguments import Asked
from superscope.studies.toys.correlation import ToyCorrelation
from superscope.studies.toys.experiments import EXPERIMENTS, Lab, merge_neurons, nonlinear_compression
from superscope.studies.toys.one_liners import analyze_superposition, measure_interference
from superscope.studies.toys.phase_diagram import PhaseDiagram, phase
from superscope.studies.toys.reproduce import Reproduce, table
from superscope.studies.toys.robustness import ToyRobustness
from superscope.studies.toys.scaling import ToyScaling
from superscope.studies.toys.sweep import METRICS, ToySweep
from superscope.theory.toy_loss import naive_computation_loss
from superscope.toys import FAMILIES, AbsoluteValue, And, Ensemble, ResidualMLP, Tied

SMALL = {"n": 5, "d": 2, "densities": (0.5, 0.05), "seeds": (0, 1), "steps": 40, "batch": 32}


def test_sweep_report(tmp_path):
    report = ToySweep(**SMALL).run(tmp_path / "run")
    again = Report.load(tmp_path / "run")
    assert again.tables["features"] == report.tables["features"]
    assert torch.equal(again.arrays["W"], report.arrays["W"])
    for name in METRICS:
        assert [(m.at["density"], m.at["seed"]) for m in report[name]] == [(0.5, 0), (0.05, 0), (0.5, 1), (0.05, 1)]
    assert report.arrays["snapshots"].shape == (41, 4, 5, 2)
    assert len(report.tables["features"]["norm"]) == 4 * 5
    loss = report["loss"][0]
    assert loss.reference is not None
    assert len(report.findings) == 2


def test_a_killed_sweep_ends_with_the_same_weights(tmp_path):
    study = ToySweep(**SMALL)
    whole = study.run()
    stages = study.stages(tmp_path / "run")
    for progress in stages:
        if progress.done >= 25:
            break
    stages.close()
    assert (tmp_path / "run" / "state.safetensors").exists()
    kept = files.read_tensors(tmp_path / "run" / "arrays.safetensors")
    assert 0 < kept["snapshot_steps"][-1] <= 25
    with pytest.raises(FileExistsError, match="steps differ"):
        ToySweep(**{**SMALL, "steps": 41}).run(tmp_path / "run")
    resumed = study.run(tmp_path / "run")
    assert torch.equal(whole.arrays["snapshot_biases"][-1], whole.arrays["b"])
    for name in ("W", "b", "snapshots", "snapshot_biases", "snapshot_steps"):
        assert torch.equal(resumed.arrays[name], whole.arrays[name]), name
    assert resumed.tables["training"] == whole.tables["training"]
    state = files.read_tensors(tmp_path / "run" / "state.safetensors")
    assert int(state["step"]) == study.steps, "the state that is kept depends on when training was kept"


RESUMED = {
    "correlation": (
        ToyCorrelation(d=2, size=2, ratios=(1, 2), correlations=(0.0, 1.0), seeds=2, steps=20, batch=16),
        "ratio-2.safetensors",
    ),
    "scaling": (ToyScaling(n=16, widths=(2, 3, 4), seeds=1, steps=20, batch=16), "weak-3.safetensors"),
    "robustness": (ToyRobustness(n=6, d=2, densities=(1.0, 0.5, 0.1), steps=40, batch=16), "trained.safetensors"),
    "restarts": (PhaseDiagram(size=3, restarts=4, steps=80), "restarts.safetensors"),
    "polish": (PhaseDiagram(size=3, restarts=4, steps=80), "polished.safetensors"),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_study_ends_as_an_uninterrupted_one(name, tmp_path):
    study, file = RESUMED[name]
    whole = study.run()
    stages = study.stages(tmp_path)
    counted = 0
    for progress in stages:
        # A step or two beyond the state that was kept, which must then be done again.
        counted += (tmp_path / file).exists() and progress.done < progress.total
        if counted == 2:
            break
    stages.close()
    assert counted == 2
    resumed = study.run(tmp_path)
    assert resumed.tables == whole.tables
    assert [m.value for m in resumed.measurements] == [m.value for m in whole.measurements]
    for key, array in whole.arrays.items():
        assert torch.equal(resumed.arrays[key], array), key


@pytest.mark.parametrize("family", ["tied", "linear", "untied", "relu-hidden", "absolute-value"])
@pytest.mark.parametrize("magnitude", ["uniform", "gaussian", "fixed"])
def test_every_family_and_magnitude(family, magnitude):
    report = ToySweep(
        n=4, d=2, densities=(0.3,), seeds=(0,), steps=5, batch=16, family=family, magnitude=magnitude, record=0
    ).run()
    assert math.isfinite(report["loss"][0].value)


def test_divergence_is_reported_not_raised():
    report = ToySweep(n=4, d=2, densities=(0.9,), seeds=(0,), steps=30, batch=16, lr=1e30).run()
    assert report["loss"][0].value is None
    assert "diverged" in report["loss"][0].caution
    assert "every model diverged" in report.findings[0]


def test_phase_diagram_against_theory():
    report = PhaseDiagram(n=2, d=1, size=9, restarts=6, steps=400).run()
    assert report["agreement_with_theory"][0].value >= 0.9
    gain = report["gain_over_theory"][0]
    assert gain.low > -0.01
    assert 0.02 < gain.high < 0.14
    assert set(report.tables["cells"]["phase"]) == {"antipodal", "first only", "second only"}


@pytest.mark.parametrize(
    ("W", "name"),
    [
        ([[1.0], [0.2]], "first only"),
        ([[0.2], [-1.0]], "second only"),
        ([[1.0], [-0.9]], "antipodal"),
        ([[1.0, 0], [0, 1], [0.1, 0]], "third ignored"),
        ([[0.1, 0], [0, 1], [1, 0]], "first ignored"),
        ([[1.0, 0], [0, 1], [-1, 0]], "third shares"),
        ([[1.0, 0], [-1, 0], [0, 1]], "others share"),
        ([[1.0, 0], [0, 1], [0, 0], [0, 0.1]], "last ignored"),
        ([[1.0, 0], [0, 0.1], [0, 0], [0, 1.0]], "last dedicated"),
        ([[1.0, 0], [0, 1], [0, 0], [0, -1.0]], "last shares"),
    ],
)
def test_phases(W, name):
    assert phase(torch.tensor(W)) == name


def test_one_line_calls():
    report = analyze_superposition(n_features=6, n_hidden=2, sparsity=0.9, seeds=(0,), steps=300)
    # Sparsity is P(zero): 0.9 must give superposition, and 0 must not.
    assert report["features_per_dimension"][0].at["density"] == 0.1
    dense = analyze_superposition(n_features=6, n_hidden=2, sparsity=0.0, seeds=(0,), steps=300)
    assert report["features_per_dimension"][0].value > dense["features_per_dimension"][0].value + 0.5
    W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    found = measure_interference(W, torch.eye(3))
    assert found["interference"][0].value == pytest.approx(2 / 9)
    assert measure_interference(Dictionary(W), SparseCode.from_dense(torch.eye(3)))["coherence"][0].value == 1
    assert found.tables["features"]["dimensionality"] == [0.5, 0.5, 1.0]


def test_reproduction_runs_resumes_and_tells(tmp_path):
    report = Reproduce(only=("E4", "E25", "E26")).run(tmp_path / "run")
    columns = report.tables["experiments"]
    assert columns["experiment"] == ["E4", "E25", "E26"]
    assert columns["met"] == [True, True, None]
    assert report["criteria_met"][0].value == 1.0
    assert Report.load(tmp_path / "run").tables["experiments"]["met"] == [True, True, None]
    assert table(report.tables).count("\n") == 4
    assert (tmp_path / "run" / "experiments.md").read_text() == table(report.tables) + "\n"


def test_reproduction_keeps_finished_experiments(tmp_path):
    study = Reproduce(only=("E4", "E26"))
    stages = study.stages(tmp_path / "run")
    for progress in stages:
        if progress.done == 1:
            break
    stages.close()
    first = (tmp_path / "run" / "E4.json").read_bytes()
    study.run(tmp_path / "run")
    assert (tmp_path / "run" / "E4.json").read_bytes() == first


def test_there_are_all_experiments():
    assert list(EXPERIMENTS) == [f"E{i}" for i in range(27)]


def test_nonlinear_compression_with_steps_is_known():
    # Steps: x is known to 1/Z, y exactly.
    assert nonlinear_compression(3, 1e-9) == pytest.approx(1 / (12 * 9), rel=0.02)


# Experiments that do not meet their criterion after real attempts. Strict: a change for the better is noticed too.
FALL_SHORT = {
    "E13": "p = 0.35: the least exact loss (0.1671) keeps one pair apart; all three collapsed, what 58 % of models "
    "find and the paper reports, costs 0.1698",
    "E19": "p = 0.12: the model of least loss of 96 (0.02082) has two monosemantic neurons; the best with one, 0.02108",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=FALL_SHORT[name]) if name in FALL_SHORT else ())
        for name in EXPERIMENTS
        if name != "E26"
    ],
)
def test_experiments(name, lab):
    row = EXPERIMENTS[name](lab)
    assert row.met, row.found


def test_merged_neurons_do_what_they_did():
    models = Ensemble(AbsoluteValue(4, 3), Independent(4, 0.5))
    models.parameters["W1"][0] = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.0, 0.3], [0, 0, 0], [0.1, 0.2, 0.7]])
    f = torch.rand(1, 50, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    before = models.family.forward(models.parameters, f)
    merge_neurons(models, torch.Generator().manual_seed(0))
    # The freed neuron starts small but not at nothing.
    assert float(models.parameters["W1"][0, :, 1].norm()) < 0.2
    models.parameters["W2"][0, :, 1] = 0
    assert torch.allclose(models.family.forward(models.parameters, f), before, atol=1e-6)


@pytest.fixture(scope="module")
def lab():
    return Lab()


def test_correlation_study_decides_its_prediction(tmp_path):
    study = ToyCorrelation(ratios=(1, 4), correlations=(0.0, 1.0), seeds=3, steps=400)
    report = study.run(tmp_path / "run")
    rise = report["rise_with_features_per_dimension"][0]
    # With one feature per dimension there is nothing to share; with four there is.
    assert rise.value > 0.7
    assert rise.low > 0
    assert len(Report.load(tmp_path / "run").tables["models"]["seed"]) == 12
    assert report.findings[0].startswith("Superposition rises with n/d: holds")


def test_trends_are_found_and_not_invented():
    study = ToyCorrelation(seeds=4)
    cells = [(r, c, s) for r in study.ratios for c in study.correlations for s in range(4)]
    table = dict(zip(("ratio", "correlation", "seed"), map(list, zip(*cells, strict=True)), strict=True))
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(len(cells), generator=g).tolist()
    wanted = [r - 10 * c for r, c, _ in cells]
    flat = study._report(table | {"superposition": noise, "per_dimension": noise}).findings
    falling = study._report(table | {"superposition": wanted, "per_dimension": wanted}).findings
    assert falling["rise_with_features_per_dimension"].value == pytest.approx(1)
    assert falling["change_with_correlation"].value == pytest.approx(-1)
    assert abs(flat["change_with_correlation"].value) < 0.4


def test_scaling_study(tmp_path):
    study = ToyScaling(n=48, widths=(4, 8, 16), seeds=1, steps=300, batch=128)
    report = study.run(tmp_path / "run")
    weak, strong = report["represented"]
    assert weak.value < strong.value
    exponents = {m.at["regime"]: m for m in report["width_exponent"]}
    assert exponents["strong"].low < exponents["strong"].value < exponents["strong"].high
    assert exponents["strong"].value > 0.3


def test_robustness_study(tmp_path):
    study = ToyRobustness(n=20, d=4, densities=(1.0, 0.3, 0.05), steps=500, batch=128)
    report = study.run(tmp_path / "run")
    table = report.tables["models"]
    assert table["features_per_dimension"][2] > table["features_per_dimension"][0] + 0.5
    assert table["attack"][2] > table["attack"][0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ToyCorrelation(size=3), "must divide every n"),
        (lambda: ToyCorrelation(correlations=(0.0, 1.5)), "correlation must lie in"),
        (lambda: ToyCorrelation(seeds=1), "seeds must be at least 2"),
        (lambda: ToyScaling(widths=(4, 8)), "at least three different"),
        (lambda: ToyScaling(decay=-1.0), "decay must be above 0"),
        (lambda: ToyRobustness(size=0.0), "size must be above 0"),
        (lambda: ToyRobustness(densities=(1.0, 0.5, 2.0)), "densities must be"),
        (lambda: ToySweep(n=0), "n must be at least 1"),
        (lambda: ToySweep(d=-2), "d must be at least 1"),
        (lambda: ToySweep(densities=(0.0,)), r"densities must be numbers in \(0, 1\]"),
        (lambda: ToySweep(densities=()), "densities"),
        (lambda: ToySweep(steps=0), "steps must be at least 1"),
        (lambda: ToySweep(seeds=()), "seeds must name"),
        (lambda: ToySweep(importance=-0.5), "importance must be at least 0"),
        (lambda: ToySweep(metrics=("capacity",)), "metrics knows"),
        (lambda: PhaseDiagram(n=9), "n must be at most 8"),
        (lambda: PhaseDiagram(size=1), "size must be at least 2"),
        (lambda: PhaseDiagram(densities=(0.5, 1.5)), "densities must rise"),
        (lambda: PhaseDiagram(ratios=(2.0, 1.0)), "ratios must be positive"),
        (lambda: Reproduce(only=("E99",)), "got 'E99'"),
        (lambda: analyze_superposition(sparsity=1.0), r"must lie in \[0, 1\)"),
        (lambda: analyze_superposition(n_hidden=0), "n_hidden must be at least 1"),
        (lambda: measure_interference(torch.eye(3, 2)[:2], torch.ones(4, 5)), "features has 5 columns"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, ShapeError), match=message):
        call()


@pytest.mark.parametrize("family", [*FAMILIES, "linear"], ids=lambda family: getattr(family, "name", family))
def test_every_family_is_in_the_command(family) -> None:
    name = getattr(family, "name", family)
    study = ToySweep(**{**SMALL, "densities": (0.3,), "seeds": (0,), "steps": 20, "record": 2}, family=name.upper())
    assert isinstance(study.model(), family if isinstance(family, type) else Tied)
    report = study.run()
    best = report["loss"][0].reference
    # A loss that a construction reaches, so that 20 steps from a random start are above it.
    assert best is not None
    assert best < (report["loss"][0].high or report["loss"][0].value)


def test_the_best_known_loss_of_computing_families_is_that_of_the_construction() -> None:
    """Each construction, set by hand, has the loss that its family says; with importance, and a neuron more."""
    family, d, p = And(4, 3), 3, 0.4
    i, j = torch.triu_indices(4, 4, 1)
    W1, W2, b2 = torch.zeros(4, d), torch.zeros(6, d), torch.full((6,), p * p)
    for neuron in range(d):
        W1[i[neuron], neuron] = W1[j[neuron], neuron] = W2[neuron, neuron] = 1.0
        b2[neuron] = 0.0
    parameters = {"W1": W1[None], "b1": torch.full((1, d), -1.0), "W2": W2[None], "b2": b2[None]}
    importance = [0.9**k for k in range(6)]
    f = Independent(4, p, Fixed()).sample(200_000).dense()
    error = (family.forward(parameters, f[None]) - family.target(f[None])).square().mean(1)[0]
    best, _ = family.best_known(importance, p, Fixed())
    assert float(error @ torch.tensor(importance)) == pytest.approx(best, rel=0.02)
    assert family.best_known(importance, p, Uniform()) == (None, "")

    mlp = ResidualMLP(4, 2)
    eye = torch.eye(4)[None]
    f = Independent(4, p, Uniform(-1.0, 1.0)).sample(200_000).dense()
    parameters = {"W_in": eye[:, :, :2], "W_out": eye[:, :2]}
    error = (mlp.forward(parameters, f[None]) - mlp.target(f[None])).square().mean(1)[0]
    assert float(error.sum()) == pytest.approx(mlp.best_known([1.0] * 4, p, mlp.magnitude)[0], rel=0.02)
    assert mlp.best_known([1.0] * 4, p, mlp.magnitude)[0] == pytest.approx(p * naive_computation_loss(4, 2))


def test_settings_of_a_family_are_checked_and_explained() -> None:
    assert ToySweep(family="residual_mlp", set=("width=4",)).model() == ResidualMLP(20, 5, width=4)
    assert ToySweep(family="absolute-value", magnitude="uniform").law(AbsoluteValue(2, 2)) == Uniform(-1.0, 1.0)
    assert ToySweep(magnitude="uniform:0:2").law(Tied(2, 2)) == Uniform(0.0, 2.0)
    with pytest.raises(ValueError, match="no family of toy models 'tide'. Did you mean tied"):
        ToySweep(family="tide")
    with pytest.raises(ValueError, match="linear has no setting 'activation'"):
        ToySweep(family="linear", set=("activation=relu",))
    with pytest.raises(ValueError, match="no law of magnitudes 'cauchy'"):
        ToySweep(magnitude="cauchy")
    with pytest.raises(Asked, match="embedding_seed: E's random rows"):
        ToySweep(family="residual-mlp", set=("help",))
