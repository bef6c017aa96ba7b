from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import FormatError, ShapeError, SparseCoder, files
from superscope.dictionaries import ARCHITECTURES, SAE, TopK, load
from superscope.testing import example

BUILD = {a: lambda d, n, seed, a=a: example(a, d, n, seed) for a in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES, ids=lambda a: a.__name__)
def sae(request):
    return BUILD[request.param](6, 11, 3)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_is_a_coder_whose_dictionary_has_unit_atoms(sae):
    assert isinstance(sae, SparseCoder)
    assert isinstance(sae, SAE)
    torch.testing.assert_close(sae.dictionary.norms, torch.ones(11))
    assert not sae.dictionary.atoms.requires_grad


def test_decode_and_forward_are_the_dictionary_composed(sae):
    x = rows(7, 6)
    code = sae.encode(x)
    torch.testing.assert_close(sae(x), code.dense() @ sae.atoms + sae.bias)
    torch.testing.assert_close(sae.reconstruction(x)[1], sae(x))


def test_encode_keeps_the_shape_of_the_batch(sae):
    x = rows(2, 5, 6)
    code = sae.encode(x)
    assert code.values.shape[:2] == (2, 5)
    assert torch.equal(code.values.reshape(10, -1), sae.encode(x.reshape(10, 6)).values)
    assert sae.encode(x[:0]).values.shape[0] == 0
    assert sae.encode(x[0, 0]).values.ndim == 1


def test_blocks_do_not_change_the_code(sae, monkeypatch):
    x = rows(50, 6)
    whole = sae.encode(x)
    monkeypatch.setattr("superscope.dictionaries.sae.base._CPU_BYTES", 11 * 7 * 4)
    assert sae.block == 7
    parts = sae.encode(x)
    torch.testing.assert_close(parts.dense(), whole.dense())


def test_same_seed_same_weights_other_seed_others(sae):
    build = BUILD[type(sae)]
    assert torch.equal(build(6, 11, 3).atoms, sae.atoms)
    assert not torch.equal(build(6, 11, 4).atoms, sae.atoms)


def test_building_one_leaves_the_global_generator_alone(sae):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    BUILD[type(sae)](6, 11, 9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_gradients_reach_x_through_a_splice(sae):
    x = rows(4, 6).requires_grad_()
    sae(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any())


@settings(max_examples=30, deadline=None)
@given(b=st.integers(0, 9), n=st.integers(1, 12), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_topk_keeps_the_largest_positive_pre_activations(b, n, k, seed):
    k = min(k, n)
    sae = TopK(4, n, k, seed)
    x = rows(b, 4, seed=seed)
    pre = (x - sae.bias) @ sae.encoder.T + sae.encoder_bias
    cut = pre.topk(k, dim=1).values[:, -1:] if b else pre[:, :1]
    expected = torch.where(pre >= cut, pre, 0.0).relu()
    code = sae.encode(x)
    torch.testing.assert_close(code.dense(), expected)
    assert bool((code.l0 <= k).all())
    assert bool((code.values >= 0).all())


@pytest.mark.parametrize(("arguments", "says"), [((4, 8, 9), "k must be in 1..n = 8"), ((4, 8, 0), "got k = 0")])
def test_topk_refuses_an_impossible_k(arguments, says):
    with pytest.raises(ValueError, match=says):
        TopK(*arguments)


@pytest.mark.parametrize(("d", "n", "named"), [(0, 4, "d must be"), (4, 0, "k must be in 1..n = 0")])
def test_empty_sizes_are_refused(d, n, named):
    with pytest.raises(ValueError, match=named):
        TopK(d, n, 1)


def test_wrong_rows_are_refused_with_both_sizes_named(sae):
    with pytest.raises(ShapeError, match=r"rows of 7 numbers, this SAE wants d = 6"):
        sae.encode(rows(3, 7))
    with pytest.raises(TypeError, match=r"float64 and the weights are torch\.float32"):
        sae.encode(rows(3, 6).double())


def test_saved_and_loaded_is_bit_equal(sae, tmp_path):
    with torch.no_grad():
        sae.bias.add_(rows(6))
    sae.save(tmp_path / "a", notes={"site": "transformer.h.2"})
    again = load(tmp_path / "a")
    assert type(again) is type(sae)
    assert again.about == sae.about
    for name, tensor in sae.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert json.loads((tmp_path / "a" / "about.json").read_text())["notes"] == {"site": "transformer.h.2"}
    assert type(sae).load(tmp_path / "a").about == sae.about


def test_dtype_survives_the_disk(sae, tmp_path):
    sae.double().save(tmp_path)
    assert load(tmp_path).atoms.dtype == torch.float64


def change(folder, **fields):
    about = json.loads((folder / "about.json").read_text()) | fields
    files.write_json(folder / "about.json", about)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"architecture": "Topk"}, "unknown architecture 'Topk'. Did you mean TopK"),
        ({"kind": "cat"}, "does not describe an SAE"),
        ({"arguments": {"d": 6, "n": 11, "k": 3, "sparsity": 2}}, "TopK does not take"),
        ({"arguments": {"d": 6, "n": 11, "k": 300, "seed": 0}}, "TopK does not take"),
        ({"arguments": {"d": 6, "n": 12, "k": 3, "seed": 0}}, r"atoms has shape \(11, 6\)"),
        ({"arguments": [1]}, "lacks its arguments"),
    ],
)
def test_a_changed_about_is_refused(tmp_path, fields, says):
    TopK(6, 11, 3).save(tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(FormatError, match=says):
        load(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    sae = TopK(6, 11, 3)
    sae.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="may be truncated"):
        load(tmp_path)
    files.write_tensors(weights, {**sae.state_dict(), "extra": torch.zeros(1)})
    with pytest.raises(FormatError, match="unknown key 'extra'"):
        load(tmp_path)
    files.write_tensors(weights, {"atoms": sae.atoms})
    with pytest.raises(FormatError, match="lacks 'encoder'"):
        load(tmp_path)
    files.write_tensors(weights, {**sae.state_dict(), "bias": torch.full((6,), float("nan"))})
    with pytest.raises(FormatError, match="bias holds NaN"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no SAE"):
        load(tmp_path / "nowhere")


def test_loading_by_the_wrong_class_says_which_it_is(tmp_path):
    TopK(6, 11, 3).save(tmp_path)
    change(tmp_path, architecture="Gated")
    with pytest.raises(FormatError, match="describes a Gated, not a TopK"):
        TopK.load(tmp_path)
