"""A survey of a small model: what is read and learned how often, what stands in its report, and what it leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from superscope import capture
from superscope.core import Report
from superscope.dictionaries import SAE
from superscope.studies import FullSurvey, learned
from superscope.studies.networks import full_survey
from superscope.studies.networks.concepts import Concept

SMALL: dict[str, Any] = {
    "tokens": 2500, "held_out": 1500, "context": 32, "n": 24, "k": 3, "steps": 4, "batch": 128, "seeds": 2,
    "layers": (0, 1), "roles": ("resid_post",),
}  # fmt: skip
DIGITS = Concept(tuple("01234567"), ("It is", "She has", "Add", "Page"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains: the second has words of its own."""
    folder = tmp_path_factory.mktemp("domains")
    random = Random(0)
    for domain, own in (("code", "01234567"), ("prose", "ZYXWVUTS")):
        (folder / domain).mkdir()
        for i in range(10):
            (folder / domain / f"{i:02d}.txt").write_text("".join(random.choices(own, k=600)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def surveyed(
    model_folder: Callable[[str], Path], text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Counter[str], list[str], Counter[Any]]:
    """A survey that was killed while measuring and taken up again: its report, and how often what was done then."""
    done: Counter[str] = Counter()
    taught: list[str] = []
    encoded: Counter[Any] = Counter()
    folder = tmp_path_factory.mktemp("survey") / "run"
    study = FullSurvey(**SMALL, model=str(model_folder("GPT-2")), text=str(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_survey, "CONCEPTS", {"digits": DIGITS})
        patch.setattr("superscope.studies.networks.manifolds.CONCEPTS", {"digits": DIGITS})

        def counting(module: Any, name: str) -> None:
            own = getattr(module, name)

            def counted(*args: Any, **kwargs: Any) -> Any:
                done[name] += 1
                return own(*args, **kwargs)

            patch.setattr(module, name, counted)

        def teaching(wanted: Any, source: Any, *args: Any) -> Any:
            taught.append(f"{wanted} of {source.site}")
            return own_training(wanted, source, *args)

        def encoding(sae: SAE, x: torch.Tensor, **given: Any) -> Any:
            if len(x) != SMALL["batch"]:  # what a step of training reads
                rows = x.reshape(-1, sae.d)
                encoded[id(sae), len(rows), tuple(rows[:3].flatten().tolist())] += 1
                kept.append(sae)  # so that its id is not given to another
            return own_encode(sae, x, **given)

        own_encode, kept = SAE.encode, []
        patch.setattr(SAE, "encode", encoding)
        own_training = learned._training
        patch.setattr(learned, "_training", teaching)
        for name in ("documents", "record"):
            counting(capture, name)
        stages = study.stages(folder)
        for progress in stages:
            if progress.stage == "Measuring transformer.h.1":
                break
        stages.close()
        before, first = len(taught), Counter(done)
        done.clear()
        encoded.clear()
        report, resumed = None, 0
        again = study.stages(folder)
        while report is None:
            try:
                resumed += next(again).resumed
            except StopIteration as end:
                report = end.value
        assert before
        assert resumed >= before
        assert first["documents"] == 1
    return report, done, taught, encoded


def test_the_text_is_read_once_and_each_dictionary_is_learned_once(surveyed: Any) -> None:
    _, done, taught, _ = surveyed
    # To learn from and to measure on, of the model and of its control.
    assert done == {"documents": 1, "record": 4}
    assert max(Counter(taught).values()) <= 2, "a dictionary is learned again, beside the control's of the same place"
    sites = 2
    wanted_at_each = len(taught) / (2 * sites)
    assert wanted_at_each == int(wanted_at_each) >= 2


def test_codes_are_computed_once_for_each_dictionary_and_batch(surveyed: Any) -> None:
    *_, encoded = surveyed
    # Of two sites of the model and of its control: rows held out by two dictionaries at least, and rows learned from.
    assert len(encoded) >= 2 * 2 * 3
    # The model itself encodes them again, once, where it runs on the reconstruction of the first dictionary.
    assert sum(encoded.values()) <= len(encoded) + 2 * 2, [key[:2] for key, count in encoded.items() if count > 1]


def test_one_report_holds_what_every_study_says(surveyed: Any) -> None:
    report, *_ = surveyed
    names = {m.name for m in report}
    assert {
        "recurring_per_dimension", "cross_entropy_recovered", "attention_entropy", "sparsity_with_depth",
        "domain_latents", "difficulty_trend", "features_found", "circle_foretold", "probe_accuracy",
    } <= names  # fmt: skip
    assert report.tables["studies"]["study"] == [
        "scan", "control", "layers", "domains", "transfer", "manifolds", "evaluate",
    ]  # fmt: skip
    # Of eight tokens each, none in both: what is known of this text.
    assert {m.at["domain"] for m in report["domain_latents"]} == {"code", "prose"}
    # And of random weights: they attend nearly evenly.
    assert all(0.98 < (m.value or 0) <= 1 for m in report["attention_entropy"])
    assert {m.at["model"] for m in report["recurring_per_dimension"]} == {"trained", "control"}
    assert report.findings[-1].startswith("Left out: dynamics, since it needs --checkpoints")


def test_past_its_minutes_it_ends_and_names_what_was_left_out(model_folder: Callable[[str], Path], text: Path) -> None:
    study = FullSurvey(**SMALL, model=str(model_folder("GPT-2")), text=str(text / "code"), minutes=1e-9)
    report = study.run()
    assert {m.at["site"] for m in report["recurring_per_dimension"]} == {"transformer.h.0"}
    assert report.tables["left_out"]["site"] == ["transformer.h.1"]
    left = report.findings[-1]
    assert left.startswith("Left out: transformer.h.1, for want of time; ")
    for study_name in ("control", "layers", "domains", "transfer", "manifolds"):
        assert f"{study_name}, since" in left


def test_what_cannot_be_surveyed_is_said(model_folder: Callable[[str], Path], text: Path) -> None:
    given: dict[str, Any] = {**SMALL, "model": str(model_folder("GPT-2")), "text": str(text)}
    with pytest.raises(ValueError, match="there is no role 'soul'"):
        FullSurvey(**{**given, "roles": ("soul",)})
    with pytest.raises(ValueError, match="--checkpoints wants --seeds 3"):
        FullSurvey(**given, checkpoints=("a", "b"))
    with pytest.raises(ValueError, match="there is no layer 9"):
        FullSurvey(**{**given, "layers": (9,)}).run()
    with pytest.raises(ValueError, match="k = 30 latents cannot be active among n = 24"):
        FullSurvey(**{**given, "k": 30}).run()
    with pytest.raises(ValueError, match="no domain 'verse'"):
        FullSurvey(**given, domains=("code", "verse")).run()
