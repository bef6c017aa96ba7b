"""Networks of several widths: known laws, no law, resuming, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from superscope.core import Findings, Measurement, Report, result_of
from superscope.studies import Scale
from superscope.studies.networks.scale import ByWidth, label_of, laws, sentences, sparser

SMALL: dict[str, Any] = {
    "widths": (4, 6, 8, 12),
    "layers": 1,
    "tokens": 2500,
    "held_out": 800,
    "context": 32,
    "n": 16,
    "k": 3,
    "steps": 2,
    "batch": 64,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters drawn at random."""
    folder = tmp_path_factory.mktemp("noise")
    random = Random(0)
    for i in range(12):
        (folder / f"{i}.txt").write_text(" ".join(random.choices("abcdefgh", k=400)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that is stopped once its first models are trained, and gone on with; and the stages that were resumed."""
    folder = tmp_path_factory.mktemp("scale") / "run"
    study = Scale(**SMALL, text=str(text), experts=3)
    stages = study.stages(folder)
    for progress in stages:
        if progress.stage == "Training d6-1":
            break
    stages.close()
    again, resumed = study.stages(folder), []

    def watched():
        while True:
            try:
                progress = next(again)
            except StopIteration as end:
                return end.value
            if progress.resumed:
                resumed.append(progress.stage)
            yield progress

    result_of(watched())
    return folder, resumed


def test_models_that_were_trained_are_taken_up_and_can_be_read_by_others(run: tuple[Path, list[str]]) -> None:
    from superscope import capture

    folder, resumed = run
    assert resumed[:2] == ["Training d4-1", "Training d4-2"]
    assert "Training d6-1" not in resumed
    assert capture.load(str(folder / "models" / "d12-2")).d == 12


def test_untrained_embeddings_obey_the_law_of_chance(run: tuple[Path, list[str]]) -> None:
    report = Report.load(run[0])
    laws = {m.at["quantity"]: m for m in report["scaling_exponent"]}
    assert laws["overlap"].chance == pytest.approx(-1, abs=0.05)
    assert laws["overlap"].reference == -1
    assert set(laws) == {"loss", "overlap", "centred_overlap", "recurring", "participation"}
    assert len(report["sparsity_with_width"]) == len(report["sparsity_with_width_over_untrained"]) == 2
    assert len(report["held_out_loss"]) == len(report.tables["widths"]["d"]) + len(report.tables["twins"]["model"])
    assert len(report.tables["widths"]["d"]) == 12


def measured(quantities: Callable[[int, int | None], dict[str, float]]) -> ByWidth:
    """What a run would have measured, were these its networks'."""
    findings, widths = Findings(), (16, 24, 32, 48, 64)
    for d in widths:
        for number in (0, 1, None):
            values = quantities(d, number)
            for name, places in (
                ("held_out_loss", {}),
                ("embedding_overlap", {"rows": "as they are"}),
                ("embedding_overlap", {"rows": "less their mean"}),
                ("recurring_features", {}),
                ("participation_ratio", {}),
                ("activation_gini", {"site": "stream"}),
                ("activation_gini", {"site": "hidden"}),
            ):
                at = {"model": label_of(d, number), **places}
                findings.add(Measurement(name=name, value=values[name], unit="", n=1, of="tokens", at=at))
    return ByWidth(findings, widths, 2)


def test_known_laws_are_found_and_what_has_none_is_said_to_have_none() -> None:
    random = Random(1)

    def quantities(d: int, number: int | None) -> dict[str, float]:
        noise = random.gauss(0, 0.003)
        return {
            "held_out_loss": 8.3 if number is None else 2 + 40 / d + noise,
            "embedding_overlap": (1 + noise) / d,
            "recurring_features": 100 * (1 + 20 * noise),
            "participation_ratio": d * (1 + noise) / 2,
            # Both grow with d alike, as the index itself does; training adds nothing of its own.
            "activation_gini": 0.4 - 1 / d + noise,
        }

    table = measured(quantities)
    found = Findings([*laws(table), *sparser(table)])
    for quantity, exponent in (("overlap", -1), ("participation", 1)):
        m = found["scaling_exponent", quantity]
        assert m.low is not None
        assert m.high is not None
        assert m.low <= exponent <= m.high
        assert m.high - m.low < 0.05
    above = found["scaling_exponent_above_floor", "loss"]
    assert above.value == pytest.approx(-1, abs=0.1)
    assert "floor 2.0" in above.caution
    assert found["scaling_exponent", "loss"].value == pytest.approx(-0.35, abs=0.1), (
        "a pure power is blind to the floor"
    )
    assert "no law is seen" in found["scaling_exponent", "recurring"].caution
    for m in found:
        if m.name == "sparsity_with_width":
            assert m.low is not None
            assert m.low > 0
    said = sentences(found)
    assert sum("neither sparser nor denser" in sentence for sentence in said) == 2
    assert any("Directions that recur go as" in sentence and "no law is seen" in sentence for sentence in said)


def test_one_width_without_a_feature_leaves_no_power_of_their_number() -> None:
    table = measured(
        lambda d, number: {
            "held_out_loss": 3.0 + d / 100,
            "embedding_overlap": 1 / d,
            "recurring_features": 0.0 if d == 16 else 5.0,
            "participation_ratio": 4.0,
            "activation_gini": 0.4 + (0.01 * d if number is not None else 0),
        }
    )
    found = Findings(laws(table))
    assert found["scaling_exponent", "recurring"].value is None
    assert found["scaling_exponent", "participation"].value == pytest.approx(0, abs=1e-9)
    assert "not bounded" in found["scaling_exponent_above_floor", "loss"].how
    (stream, _) = (m for m in sparser(table) if m.name == "sparsity_with_width_over_untrained")
    assert stream.low is not None
    assert stream.low > 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"widths": (8, 16, 32)}, "at least 4 different numbers"),
        ({"widths": (8, 16, 32, 32)}, "at least 4 different numbers"),
        ({"widths": (8, 16, 32, 33)}, "a width of 33 does not part into 2 heads"),
        ({"models": 1}, "models must be at least 2; got 1. Two of one width"),
    ],
)
def test_widths_that_tell_no_law(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Scale(**settings)


def test_too_little_text_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match="give more text"):
        Scale(**SMALL, text=str(tmp_path / "a.txt")).run()


def test_twins_have_as_many_active_parameters_and_what_they_differ_by_is_told_with_its_interval() -> None:
    from superscope.studies.networks import twins

    findings = Findings()
    for number in range(3):
        for kind, more in ((twins.MIXTURE, 0.5), (twins.DENSE, 0.0)):
            for name in ("held_out_loss", "recurring_per_dimension", "interference_energy_ratio", "activation_gini"):
                # Loss is lower by half in every pair; the rest differs by chance alone.
                value = 4 - more + number / 10 if name == "held_out_loss" else 1 + (more > 0) * (number - 1) / 10
                for site in ("s", "m") if name != "held_out_loss" else ("s",):
                    at = {"model": twins.label_of(kind, number), "site": site}
                    findings.add(Measurement(name=name, value=value, unit="", n=1, of="tokens", at=at))
            for site in ("s", "m"):
                at = {"model": twins.label_of(kind, number), "site": site}
                value, caution = (None, "too few rows") if number == 2 else (3.0, "")
                m = Measurement(
                    name="participation_ratio", value=value, unit="", n=1, of="tokens", at=at, caution=caution
                )
                findings.add(m)
    places = {"resid_post": "s", "mlp_out": "m"}
    found = twins.compared(findings, {twins.MIXTURE: places, twins.DENSE: places}, 3)
    said = {(m.at["quantity"], m.at["role"]): m for m in found}
    loss = said["held_out_loss", "network"]
    assert (loss.value, loss.low, loss.high) == pytest.approx((-0.5, -0.5, -0.5))
    gini = said["activation_gini", "mlp_out"]
    # Three differences of -0.1, 0 and 0.1: 4.303 times 0.1 / sqrt 3.
    assert gini.high == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert said["participation_ratio", "resid_post"].value is None
    sentences = twins.sentences(found)
    assert sum("no difference shown" in sentence for sentence in sentences) == 6
    assert "less (mixture 3.6, dense 4.1)" in sentences[0]


def test_a_mixture_and_its_twin_are_trained_and_compared(run: tuple[Path, list[str]]) -> None:
    from superscope.capture.pocket import training
    from superscope.studies.networks import twins

    report = Report.load(run[0])
    table = report.tables["twins"]
    active = dict(zip(table["model"], table["active_parameters"], strict=True))
    # The router reads 12 numbers for each of 3 experts.
    assert active["mixture-1"] - active["dense-1"] == 36
    assert len(report["mixture_over_dense"]) == 9
    assert {m.at["role"] for m in report["mixture_over_dense"]} == {"network", "resid_post", "mlp_out"}
    assert any("Mixture of experts less its dense twin" in sentence for sentence in report.findings)
    with pytest.raises(ValueError, match="a mixture of 2 is dense"):
        Scale(experts=2)
    # A stack of experts is stepped matrix by matrix.
    subject = twins.fresh("mixture", range(8), context=8, d=4, layers=1, heads=1, experts=3, seed=0)
    (stack,) = [weight for name, weight in subject.model.named_parameters() if name.endswith("down_proj")]
    muon, _ = training.optimizers(subject.model, ThreadPoolExecutor(1))
    before = stack.detach().clone()
    stack.grad = torch.randn(stack.shape, generator=torch.Generator().manual_seed(0))
    muon._move(stack, muon.param_groups[0])
    lr, decay = training.MUON_LR, training.WEIGHT_DECAY
    for one, was, gradient in zip(stack.detach(), before, stack.grad, strict=True):
        step = (was * (1 - lr * decay) - one) / (lr * 0.2 * max(one.shape) ** 0.5)
        torch.testing.assert_close(step, training.orthogonal(gradient), rtol=1e-3, atol=1e-3)
