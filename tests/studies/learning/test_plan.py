"""A plan is arithmetic on a model's outline; nothing is downloaded or trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from superscope.capture import MemorySource
from superscope.capture.models.outline import outline
from superscope.cli import main
from superscope.core import Report
from superscope.studies import Plan, Train
from superscope.studies.learning import stream
from superscope.theory import cost


def test_outline_counts_what_the_loaded_model_has(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        max_position_embeddings=48,
    )
    config.save_pretrained(tmp_path)
    found = outline(str(tmp_path))
    with torch.random.fork_rng():
        model = transformers.AutoModel.from_config(config)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.block_parameters == (sum(p.numel() for p in model.layers[0].parameters()),) * 3
    assert (found.d, found.positions) == (32, 48)
    assert found.up_to(1) == 2 * found.block_parameters[0]
    with pytest.raises(ValueError, match="has blocks 0 to 2; there is no block 3"):
        found.up_to(3)


def test_a_plan_for_the_pocket_model_is_its_cost_model(tmp_path: Path) -> None:
    plan = Plan(model="pocket", latents=1536, tokens=3e5, k=16, batch=1024, machine="h100", uses=2)
    report = plan.run(tmp_path / "plan")
    assert Report.load(tmp_path / "plan").measurements == report.measurements
    size = outline("pocket")
    (model,) = report["model_operations"]
    assert model.value == pytest.approx(2 * size.up_to(1) * 3e5 / 1e12)
    (hours,) = report["training_hours"]
    h100 = next(machine for machine in cost.MACHINES if machine.name == "h100")
    step = cost.step_cost(192, 1536, 16, 1024).seconds(h100)
    assert hours.value == pytest.approx(2 * 293 * step / 3600)
    assert any(finding.startswith("Store the activations") for finding in report.findings)


def test_plan_and_train_decide_alike_whether_to_keep_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model, site, width and number of uses: `plan` says Store where `train` holds its rows in memory."""
    monkeypatch.setattr(stream, "_held", lambda *_: [MemorySource(torch.zeros(2, 192))])
    # Neither always nor never, and for one width by the number of uses.
    stored = {(96, 1): False, (96, 2): True, (20_000, 2): False, (20_000, 5): True, (200_000, 5): False}
    for (latents, uses), expected in stored.items():
        plan = Plan(model="pocket", layer=1, latents=latents, tokens=2e3, k=32, uses=uses)
        planned = plan.run().findings[-1].startswith("Store")
        train = Train("pocket", site="resid_post.1", n=latents, tokens=2000, held_out=500, batch=200, steps=10 * uses)
        held = isinstance(train.open_stream().train, MemorySource)
        assert planned == held == expected, (latents, uses)


def test_what_does_not_fit_is_said_with_what_would() -> None:
    report = Plan(d=8192, latents=2**24, tokens=1e10, k=256, machine="h200", devices=8).run()
    assert report.findings[0] == (
        "This does not fit: a dictionary of 16,777,216 latents does not fit on 8 H200; at least 64 are needed."
    )
    (hours,) = report["training_hours"]
    assert hours.value is None
    assert not any(report.tables["layouts"]["fits"])
    enough = Plan(d=8192, latents=2**24, tokens=1e10, k=256, machine="h200", devices=64, batch=131072).run()
    assert enough.tables["layouts"]["chosen"][-1]


def test_this_machine_is_timed() -> None:
    report = Plan(d=64, latents=512, tokens=1e5, k=8, batch=256, machine="here").run()
    rates = report.environment["machine"]
    assert 1e9 < rates["operations"] < 1e15
    assert 1e8 < rates["bandwidth"] < 1e13
    assert 1e7 < rates["encoding"] < 1e15
    assert 1e-5 < rates["overhead"] < 1
    assert report.findings[0].startswith("Training takes about")


def test_wide_batches_move_a_step_from_memory_to_arithmetic() -> None:
    small, large = (Plan(d=4096, latents=131072, tokens=1e9, batch=batch).run() for batch in (512, 65536))
    assert any("emory traffic rules the step" in finding for finding in small.findings)
    assert not any("emory traffic rules the step" in finding for finding in large.findings)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Give either --model, which says d"),
        ({"model": "pocket", "d": 8}, "Give either --model, which says d"),
        ({"d": 8, "layer": 1}, "layer counts the blocks of a model"),
        ({"model": "pocket", "parameters": 5.0}, "leave --parameters out"),
        ({"d": 8, "k": 999}, "k = 999 of 16 latents cannot be active"),
        ({"d": 0}, "d must be at least 1; got 0"),
        ({"d": 8, "uses": 0}, "uses must be at least 1; got 0"),
        ({"d": 8, "room": float("nan")}, "room must be at least 0 and finite; got nan"),
        ({"d": 8, "machine": "here", "devices": 2}, "leave --devices out"),
    ],
)
def test_bad_settings(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan(latents=16, tokens=1e6, **({"k": 4} | options))


def test_no_tokens() -> None:
    with pytest.raises(ValueError, match="tokens must be at least 1 and finite; got 0.0"):
        Plan(latents=16, tokens=0.0, d=8, k=4)


def test_a_block_the_model_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--model", "pocket", "--layer", "4", "--latents", "16", "--k", "4", "--tokens", "1e6", "--out"]
    assert main([*arguments, str(tmp_path / "plan")]) == 2
    assert "pocket has blocks 0 to 3; there is no block 4" in capsys.readouterr().err
    assert not (tmp_path / "plan").exists()
