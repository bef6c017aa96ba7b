"""Layers, domains, dynamics and transfer: known answers of whole runs, resuming, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from superscope import capture
from superscope.core import Report
from superscope.studies import Domains, Dynamics, Layers, Transfer
from superscope.studies.networks.dynamics import generalisation_gap
from superscope.studies.study import Progress

SMALL: dict[str, Any] = {"tokens": 2500, "held_out": 1500, "context": 32, "n": 24, "k": 3, "steps": 4, "batch": 128}
ROLES = ("embed", "resid_post", "mlp_act")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains: the second has words of its own, and less text."""
    folder = tmp_path_factory.mktemp("domains")
    random = Random(0)
    for domain, own, count in (("code", "01234567", 12), ("prose", "ZYXWVUTS", 8)):
        (folder / domain).mkdir()
        for i in range(count):
            (folder / domain / f"{i:02d}.txt").write_text("".join(random.choices(own, k=600)), encoding="utf-8")
    return folder


def test_layers_reads_every_kind_of_site_beside_both_controls_and_resumes(
    model_folder: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    study = Layers(**SMALL, model=str(model_folder("GPT-2")), text=str(text), seeds=2, layers=(0, 1), roles=ROLES)
    stages = study.stages(tmp_path / "run")
    for progress in stages:
        if progress.stage.startswith("Measuring"):
            break
    stages.close()
    again = study.stages(tmp_path / "run")
    resumed = [p for p in _through(again) if p.resumed]
    assert resumed, "dictionaries that were learned are learned again"
    report = Report.load(tmp_path / "run")
    roles = report.tables["places"]["role"]
    assert {role: roles.count(role) for role in roles} == {"embed": 1, "resid_post": 2, "mlp_act": 2}
    labels = {"trained", "control", "shuffled"}
    assert {m.at["model"] for m in report["recurring_per_dimension"]} == labels
    # Random weights attend nearly evenly, which is the one known answer that a network gives.
    assert all(0.98 < (m.value or 0) <= 1 for m in report["attention_entropy"])
    assert set(report.tables["heads"]["head"]) == {0, 1}
    assert len(report.tables["heads"]["head"]) == 3 * 2 * 2
    # Embeddings are those of the token, in whatever order tokens come.
    entropies = [m.value for m in report["activation_gini"] if m.at["site"] == "transformer.wte"]
    assert entropies[0] == pytest.approx(entropies[2], abs=0.02)


def _through(stages: Any) -> list[Progress]:
    return list(stages)


def test_domains_of_other_words_have_latents_of_their_own_and_domains_dealt_at_random_do_not(
    model_folder: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    settings = SMALL | {"model": str(model_folder("GPT-2")), "sites": ("embed",), "steps": 60, "n": 32, "k": 1}
    report = Domains(**settings, text=str(text)).run()
    shares = {m.at["domain"]: m for m in report["domain_latents"]}
    assert set(shares) == {"code", "prose"}
    # Eight tokens each, none in both, and a latent for each of them.
    assert [m.value for m in shares.values()] == pytest.approx([0.5, 0.5], abs=0.1), shares
    # Documents that hold some of both, dealt to two halves: no latent is of one half.
    halves = [
        [file.read_text(encoding="utf-8") for file in sorted((text / name).glob("*.txt"))] for name in ("code", "prose")
    ]
    for i, (code, prose) in enumerate(zip(halves[0] * 2, halves[1] * 3, strict=True)):
        half = tmp_path / "dealt" / ("even" if i % 2 else "odd")
        half.mkdir(parents=True, exist_ok=True)
        (half / f"{i}.txt").write_text("".join(map("".join, zip(code, prose, strict=True))), encoding="utf-8")
    dealt = Domains(**settings, text=str(tmp_path / "dealt")).run()
    assert all(m.value == 0 for m in dealt["domain_latents"])


def test_domains_of_unequal_size_are_cut_to_the_smallest_and_it_is_said(
    model_folder: Callable[[str], Path], text: Path
) -> None:
    settings = SMALL | {"model": str(model_folder("GPT-2")), "sites": ("embed",), "tokens": 100_000}
    report = Domains(**settings, text=str(text)).run()
    assert any("Domains differ in size" in sentence and "'prose'" in sentence for sentence in report.findings)
    tokens = [m.n for m in report["domain_error"]]
    assert min(tokens) > 0.8 * max(tokens)
    with pytest.raises(ValueError, match="domain of text cannot be compared"):
        Domains(**settings, text=str(text / "code")).run()
    with pytest.raises(ValueError, match="no domain 'verse'. It has"):
        Domains(**settings, text=str(text), domains=("code", "verse")).run()


def test_a_checkpoint_beside_itself_has_no_history_and_beside_other_weights_nothing_is_kept(
    model_folder: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    import shutil

    first = model_folder("GPT-2")
    for name in ("a", "b"):
        shutil.copytree(first, tmp_path / name)
    report = Dynamics(
        **SMALL | {"steps": 30},
        checkpoints=(str(tmp_path / "a"), str(tmp_path / "b")),
        site="embed",
        text=str(text),
        seen=str(text),
        unseen=str(text),
    ).run()
    assert [gap.value for gap in report["generalisation_gap"]] == [0, 0]
    fates = {name: report[f"features_{name}"][0].value for name in ("kept", "split", "died", "merged", "born")}
    assert fates == {"kept": 1, "split": 0, "died": 0, "merged": 0, "born": 0}
    with pytest.raises(ValueError, match="one checkpoint has no history"):
        Dynamics(**SMALL, checkpoints=(str(first),)).run()
    with pytest.raises(ValueError, match="a name of its own"):
        Dynamics(**SMALL, checkpoints=(str(first), str(first))).run()
    with pytest.raises(ValueError, match="seeds"):
        Dynamics(**SMALL, seeds=2)
    with pytest.raises(ValueError, match="--seen and --unseen go together"):
        Dynamics(**SMALL, seen=str(text))


def test_what_is_known_by_heart_is_seen_and_an_untrained_model_knows_nothing() -> None:
    model = capture.load("pocket")
    texts = ([document.text for document in part] for part in capture.pocket.split())
    seen, unseen = (capture.tokens(model.tokenizer, text, context=128, limit=6000) for text in texts)
    gap = generalisation_gap(model, seen, unseen)
    assert gap.low is not None
    assert gap.low > 0
    nothing = generalisation_gap(capture.control(model, 0), seen, unseen)
    # What the texts differ by for who has read neither.
    assert abs(nothing.value or 1.0) < 0.1 < (gap.value or 0.0)


def test_features_transfer_to_the_same_place_and_what_cannot_be_compared_is_said(
    model_folder: Callable[[str], Path], text: Path
) -> None:
    model = model_folder("GPT-2")
    report = Transfer(**SMALL | {"steps": 30}, a=f"{model}@embed", b=f"{model}@embed", text=str(text)).run()
    assert ["of A are found in B" in report.findings[0], "of B are found in A" in report.findings[1]] == [True, True]
    assert [m.value for m in report["features_found"]] == [1.0, 1.0]
    assert all((m.chance or 0) < 0.2 for m in report["features_found"])
    left = {(m.at["from"], m.at["to"]): m.value for m in report["universal_unexplained"]}
    assert set(left) == {("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")}
    assert left["A", "B"] == pytest.approx(left["A", "A"], abs=0.2), "the same place twice"
    assert f"B's own leaves {left['B', 'B']:.0%}" in report.findings[2]
    with pytest.raises(ValueError, match="one tokenizer"):
        Transfer(**SMALL, a=f"{model}@embed", b="pocket@embed", text=str(text)).run()
    with pytest.raises(ValueError, match="too few to compare"):
        Transfer(**SMALL | {"held_out": 500}, a=f"{model}@embed", b=f"{model}@embed", text=str(text)).run()
    with pytest.raises(ValueError, match="Write a model and a site"):
        Transfer(a="pocket")


def test_what_layers_cannot_read_is_said(model_folder: Callable[[str], Path], text: Path) -> None:
    settings = SMALL | {"model": str(model_folder("BERT")), "text": str(text), "seeds": 2}
    report = Layers(**settings, layers=(0,), roles=("resid_post", "unembed"), controls=()).run()
    assert any("has no unembed" in sentence for sentence in report.findings)
    with pytest.raises(ValueError, match="can read"):
        Layers(**settings, roles=("unembed",)).run()
    with pytest.raises(ValueError, match="no layer 7"):
        Layers(**settings, layers=(7,)).run()
    with pytest.raises(ValueError, match="no role 'gut'"):
        Layers(roles=("gut",))
    with pytest.raises(ValueError, match="no control 'placebo'"):
        Layers(controls=("placebo",))
