from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from superscope.cli import main
from superscope.core import FormatError, Report
from superscope.dictionaries import TopK, formats
from superscope.dictionaries.sae import ReLU
from superscope.studies import Convert

FIXTURES = Path(__file__).parents[2] / "dictionaries" / "formats" / "fixtures"


@pytest.fixture
def saved(tmp_path):
    sae = TopK(d=6, n=20, k=3, seed=2)
    sae.save(tmp_path / "sae", notes={"model": "gpt2", "site": "transformer.h.2"})
    return tmp_path / "sae"


def test_the_copy_is_written_checked_and_told_of(saved, tmp_path):
    report = Convert(str(saved), str(tmp_path / "copy")).run(tmp_path / "run")
    for name in ("code_difference", "reconstruction_difference", "stored_code_difference"):
        (m,) = report[name]
        assert m.value <= 1e-6
        assert m.n in (256, 8)
    (support,) = report["rows_with_another_support"]
    assert (support.value, support.unit) == (0.0, "rows")
    assert 2 < report["l0"][0].value <= 3
    found = formats.read(tmp_path / "copy")
    assert (found.format, found.notes) == ("saelens", {"model": "gpt2", "site": "transformer.h.2"})
    assert sorted(report.tables["files"]["file"]) == [
        "copy/cfg.json",
        "copy/probe.safetensors",
        "copy/sae_weights.safetensors",
    ]
    assert Report.load(tmp_path / "run").title == "sae from superscope to saelens"
    assert "computes what the original in superscope does" in report.findings[0]


def test_from_another_package_with_its_cautions_and_the_scale_of_its_codes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = Convert(str(FIXTURES / "dictionary_learning" / "standard"), str(tmp_path / "copy")).run()
    assert any("is a pickle" in finding for finding in report.findings)
    assert any("Norms of atoms were folded" in finding for finding in report.findings)
    assert any("has no probe beside it" in finding for finding in report.findings)
    assert report["code_difference"][0].value <= 1e-6
    scale = report.arrays["scale"]
    expected = torch.load(FIXTURES / "dictionary_learning" / "standard" / "ae.pt", weights_only=True)
    assert torch.allclose(scale.float(), expected["decoder.weight"].norm(dim=0), rtol=1e-5)


def test_an_original_with_a_probe_is_held_to_it(saved, tmp_path):
    Convert(str(saved), str(tmp_path / "a"), to="sparsify").run()
    report = Convert(str(tmp_path / "a"), str(tmp_path / "b"), model="other").run()
    assert [m.at["of"] for m in report["stored_code_difference"]] == ["original", "copy"]
    assert any("agrees with the probe stored beside it" in finding for finding in report.findings)
    assert formats.read(tmp_path / "b").notes["model"] == "other"


def test_back_to_our_own(tmp_path):
    Convert(str(FIXTURES / "saelens" / "gated"), str(tmp_path / "ours"), to="superscope").run()
    assert formats.read(tmp_path / "ours").agreement.good


def test_what_cannot_be_done_is_said_before_anything_is_written(saved, tmp_path):
    with pytest.raises(ValueError, match="to must be one of superscope, saelens"):
        Convert(str(saved), str(tmp_path / "x"), to="pickle")
    with pytest.raises(ValueError, match="source and target must be paths"):
        Convert("", str(tmp_path / "x"))
    with pytest.raises(FormatError, match="cannot hold"):
        Convert(str(saved), str(tmp_path / "x"), to="gemma_scope").run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(FileExistsError, match="already exists"):
        Convert(str(saved), str(saved)).run()
    with pytest.raises(ValueError, match="needs a folder of its own"):
        Convert(str(saved), str(tmp_path / "run")).run(tmp_path / "run")


def test_the_command(saved, tmp_path, capsys):
    arguments = ["convert", str(saved), str(tmp_path / "copy.safetensors"), "--to", "plain"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["kind"] == "convert"
    assert (tmp_path / "run" / "report.json").is_file()
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "y"), "--out", str(tmp_path / "run2")]) == 2
    assert "There is no file or folder" in capsys.readouterr().err


def test_weights_that_say_nothing_get_their_meaning_from_options(tmp_path, capsys):
    import safetensors.torch

    sae = ReLU(d=6, n=20)
    weights = {"W_enc": sae.encoder.T, "b_enc": sae.encoder_bias, "W_dec": sae.atoms, "b_dec": sae.bias}
    safetensors.torch.save_file({k: v.detach().contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    command = ["convert", str(tmp_path / "w.safetensors"), str(tmp_path / "sae"), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "--architecture" in capsys.readouterr().err
    assert main([*command, "--architecture", "relu", "--subtract-bias", "True"]) == 0
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(formats.read(tmp_path / "sae").reconstruct(x), sae.reconstruct(x), atol=1e-5)


def test_a_dictionary_on_the_hub_is_named_by_owner_name_and_folder(monkeypatch, saved, tmp_path):
    asked = []

    def stand_in(name, inside, **given):
        asked.append((name, inside))
        return formats.read(saved)

    monkeypatch.setattr("superscope.dictionaries.hub.from_pretrained", stand_in)
    Convert("hub:me/saes/a/b", str(tmp_path / "copy")).run()
    assert asked == [("me/saes", "a/b")]
