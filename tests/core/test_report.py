"""A report survives the disk, and nothing dishonest gets into one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from superscope.core import FormatError, Measurement, Report


def example() -> Report:
    return Report(
        title="A small report",
        kind="example",
        measurements=(
            Measurement(
                name="l0",
                value=3.5,
                low=3.0,
                high=4.0,
                how="min and max over 3 seeds",
                unit="latents",
                n=10,
                of="tokens",
            ),
            Measurement(
                name="gini", value=None, unit="share", n=0, of="tokens", caution="undefined: no token was read"
            ),
        ),
        settings={"k": 4},
        environment={"superscope": "0", "created": "now", "finished": "later"},
        tables={"latents": {"latent": [0, 1], "tokens": [["a", "</script>"], []]}},
        arrays={"atoms": torch.eye(2)},
        findings=("Two features.",),
    )


def test_round_trip(tmp_path: Path) -> None:
    example().save(tmp_path / "run")
    back = Report.load(tmp_path / "run")
    assert back.measurements == example().measurements
    assert back.tables == example().tables
    assert torch.equal(back.arrays["atoms"], torch.eye(2))
    assert (back.title, back.kind, back.findings, back.settings) == (
        "A small report",
        "example",
        ("Two features.",),
        {"k": 4},
    )


def test_a_finished_run_is_not_written_again(tmp_path: Path) -> None:
    example().save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError, match="already holds a finished run. Choose another folder with --out"):
        example().save(tmp_path / "run")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_folder_of_something_else_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty and holds no run of ours"):
        example().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["report.json", "latents.parquet", "arrays.safetensors"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    example().save(tmp_path / "run")
    path = tmp_path / "run" / name
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(FormatError, match=f"{name} is missing or has changed"):
        Report.load(tmp_path / "run")


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    example().save(tmp_path / "run")
    path = tmp_path / "run" / "about.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"setings": {}}))
    with pytest.raises(FormatError, match="unknown key 'setings'. Did you mean settings?"):
        Report.load(tmp_path / "run")


def test_missing_and_damaged_about(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run: there is no about.json"):
        Report.load(tmp_path)
    (tmp_path / "about.json").write_text('{"kind": "sc')
    with pytest.raises(FormatError, match="not valid JSON"):
        Report.load(tmp_path)
    (tmp_path / "about.json").write_text('{"kind": "scan"}')
    with pytest.raises(FormatError, match="lacks title"):
        Report.load(tmp_path)


def test_measurements_are_honest() -> None:
    with pytest.raises(ValueError, match="value is nan. Give a finite number, or None with a caution"):
        Measurement(name="a", value=float("nan"), unit="share", n=1, of="tokens")
    with pytest.raises(ValueError, match="needs both low and high"):
        Measurement(name="a", value=1.0, low=0.0, unit="share", n=1, of="tokens")
    with pytest.raises(ValueError, match="a missing value needs a caution"):
        Measurement(name="a", value=None, unit="share", n=1, of="tokens")
    with pytest.raises(ValueError, match=r"low 2.0 is above high 1.0"):
        Measurement(name="a", value=1.0, low=2.0, high=1.0, unit="share", n=1, of="tokens")


def test_text_carries_interval_bound_and_caution() -> None:
    text = str(example()) + str(
        Measurement(
            name="coherence",
            value=0.5,
            unit="cosine",
            n=4,
            of="atoms",
            reference=0.33,
            reference_is="Welch bound",
            chance=0.6,
            chance_is="random frame",
        )
    )
    for part in (
        "l0 3.5 [3, 4] latents, n = 10 tokens",
        "undefined: no token was read",
        "Welch bound 0.33",
        "random frame 0.6",
    ):
        assert part in text


def test_lookup_offers_the_nearest_name() -> None:
    assert example()["l0"][0].value == 3.5
    with pytest.raises(KeyError, match="Did you mean gini"):
        example()["ginni"]
