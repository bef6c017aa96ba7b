"""Files that other packages wrote, beside what those packages compute from them (see peers_cases.py, versions.json)."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from superscope.dictionaries import formats

FIXTURES = Path(__file__).parent / "fixtures"
CASES = sorted(
    str(file.relative_to(FIXTURES)).split(".expected")[0] for file in FIXTURES.glob("*/*.expected.safetensors")
)
PICKLED = "dictionary_learning"


def _read(case, **given):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = formats.read(FIXTURES / case, **given)
    assert bool(caught) == case.startswith(PICKLED)
    return found


def test_every_package_is_there():
    assert {case.split("/")[0] for case in CASES} == {"saelens", "sparsify", "dictionary_learning"}
    assert len(CASES) >= 27


@pytest.mark.parametrize("case", CASES)
def test_codes_and_reconstructions_are_the_packages_own(case):
    expected = load_file(FIXTURES / f"{case}.expected.safetensors")
    found = _read(case)
    assert found.format == case.split("/")[0]
    codes = found.codes(expected["x"]).dense()
    assert torch.equal(codes != 0, expected["codes"] != 0)
    assert (codes - expected["codes"]).abs().max() <= 1e-5 * expected["codes"].abs().max()
    x_hat = found.reconstruct(expected["x"])
    assert (x_hat - expected["x_hat"]).abs().max() <= 1e-5 * expected["x_hat"].abs().max()


@pytest.mark.parametrize("case", CASES)
def test_atoms_have_norm_1_or_a_caution_says_why_not(case):
    found = _read(case)
    unit = torch.allclose(found.sae.atoms.norm(dim=1), torch.ones(found.sae.n), atol=1e-5)
    assert unit or any("norms" in caution for caution in found.cautions)


def test_the_model_and_the_site_come_along():
    assert _read("saelens/standard").notes == {
        "model": "gpt2",
        "hook_name": "blocks.2.hook_resid_post",
        "site": "transformer.h.2",
    }
    assert _read("dictionary_learning/topk").notes["site"] == "gpt_neox.layers.3"


@pytest.mark.parametrize("case", CASES)
def test_a_copy_in_our_own_format_computes_the_same(case, tmp_path):
    found = _read(case)
    if found.rows != "as they are":
        with pytest.raises(formats.FormatError, match="our own format has no place for"):
            formats.write(found, tmp_path / "copy", formats.OURS)
        return
    assert formats.write(found, tmp_path / "copy", formats.OURS).good
    expected = load_file(FIXTURES / f"{case}.expected.safetensors")
    x_hat = formats.read(tmp_path / "copy").reconstruct(expected["x"])
    assert (x_hat - expected["x_hat"]).abs().max() <= 1e-5 * expected["x_hat"].abs().max()
