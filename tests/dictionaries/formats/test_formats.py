from __future__ import annotations

import json
import math
import pickle
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from superscope.core import FormatError
from superscope.dictionaries import formats
from superscope.dictionaries.formats import form as forms
from superscope.dictionaries.formats import stored
from superscope.dictionaries.sae import (
    ARCHITECTURES,
    AbsTopK,
    Archetypal,
    BatchTopK,
    Gated,
    InterferencePenalised,
    JumpReLU,
    Matryoshka,
    PAnnealed,
    ReLU,
    TopK,
)
from superscope.dictionaries.transcoders import SkipTranscoder, Transcoder

from .conftest import D, K, N, by_definition, close, inputs, shaken

WRITTEN = [format for format in formats.FORMATS if format.write is not None]
LARGEST = {TopK, Archetypal, InterferencePenalised}
RECTIFIED = {ReLU, PAnnealed}
THRESHOLD = {JumpReLU, BatchTopK, Matryoshka}
HELD = {
    "saelens": set(ARCHITECTURES),
    "plain": set(ARCHITECTURES),
    "sparsify": LARGEST,
    "dictionary_learning": LARGEST | RECTIFIED | THRESHOLD | {Gated},
    # Its top-k reads rows under layer norm, which ours does not.
    "openai": RECTIFIED,
    "openmoss": LARGEST | RECTIFIED | THRESHOLD,
    "gemma_scope": RECTIFIED | THRESHOLD,
    "gemma_scope_2": RECTIFIED | THRESHOLD,
}


def quiet(function, *arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)


def place(tmp_path, format):
    return tmp_path / f"sae{format.suffix}"


# --- the laws: every architecture, every format -------------------------------------------------------------------


@pytest.mark.parametrize("format", WRITTEN, ids=lambda format: format.name)
def test_what_a_format_holds_comes_back_the_same_and_the_rest_is_refused(sae, format, tmp_path):
    where = place(tmp_path, format)
    if type(sae) not in HELD[format.name]:
        with pytest.raises(FormatError, match="cannot hold"):
            quiet(formats.write, sae, where, format.name)
        assert not where.exists()
        return
    agreement = quiet(formats.write, sae, where, format.name)
    assert agreement.good
    assert agreement.support == 0
    assert formats.detect(where) == format.name
    found, x = quiet(formats.read, where), inputs()
    assert close(found.codes(x).dense(), sae.encode(x).dense())
    assert close(found.reconstruct(x), sae.reconstruct(x))


def test_no_architecture_is_without_a_format_and_saelens_and_plain_hold_all(sae, tmp_path):
    assert formats.write(sae, tmp_path / "saelens", "saelens").good
    assert formats.write(sae, tmp_path / "plain.safetensors", "plain").good


def test_the_form_of_an_sae_says_what_it_computes(sae):
    x = inputs().double()
    sae = sae.double()
    f, x_hat = by_definition(formats.form_of(sae), x)
    assert close(sae.encode(x).dense(), f, 1e-12)
    assert close(sae.reconstruct(x), x_hat, 1e-12)


def test_the_sae_of_a_form_is_the_sae(sae):
    again, form = formats.sae_of(formats.form_of(sae))
    x = inputs()
    assert close(again.encode(x).dense(), sae.encode(x).dense())
    assert form.scale is None or torch.allclose(form.scale, torch.ones_like(form.scale), atol=1e-5)


def test_our_own_format_is_read_and_written_too(sae, tmp_path):
    assert formats.write(sae, tmp_path / "ours", formats.OURS, notes={"model": "m", "site": "s"}).codes == 0
    found = formats.read(tmp_path / "ours")
    assert (found.format, type(found.sae)) == (formats.OURS, type(sae))
    assert found.notes == {"model": "m", "site": "s"}


def test_notes_travel_with_the_formats_that_have_a_place_for_them(tmp_path):
    notes = {"model": "gpt2", "site": "transformer.h.2"}
    for name in ("saelens", "dictionary_learning"):
        formats.write(shaken(TopK), tmp_path / name, name, notes=notes)
        assert notes.items() <= quiet(formats.read, tmp_path / name).notes.items()
    formats.write(shaken(TopK), tmp_path / "plain.safetensors", "plain", notes=notes)
    assert formats.read(tmp_path / "plain.safetensors").notes == notes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_double_precision_is_kept_and_half_becomes_single(dtype, tmp_path):
    sae = shaken(JumpReLU, dtype)
    assert formats.write(sae, tmp_path / "sae").good
    found = formats.read(tmp_path / "sae").sae
    assert found.encoder.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # Norms of atoms rounded to bfloat16 are a little off 1 and are folded.
    assert torch.allclose(found.threshold, sae.threshold.to(found.encoder.dtype), rtol=5e-3)


# --- forms: folding is exact ---------------------------------------------------------------------------------------

RULES = {
    "relu": forms.Rectify(),
    "jump": forms.Jump(torch.linspace(-0.2, 1, N)),
    "largest": forms.Largest(K),
    "signed": forms.Largest(K, signed=True),
    "batch": forms.BatchLargest(K, 0.4),
    "gate": forms.Gate(torch.linspace(-0.5, 0.5, N), torch.linspace(-1, 1, N)),
    "pursuit": forms.Pursuit(K),
}


def random_form(rule, seed, norms=True):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    atoms = normal(N, D)
    atoms /= atoms.norm(dim=1, keepdim=True)
    if norms:
        atoms *= torch.rand(N, 1, generator=generator, dtype=torch.float64) + 0.5
    bias = normal(D)
    pursuit = isinstance(rule, forms.Pursuit)
    return forms.Form(
        rule=rule,
        encoder=atoms if pursuit else normal(N, D),
        encoder_bias=torch.zeros(N, dtype=torch.float64) if pursuit else normal(N),
        centre=bias if pursuit else normal(D),
        atoms=atoms,
        bias=bias,
    )


@given(rule=st.sampled_from(sorted(RULES)), seed=st.integers(0, 1000), norms=st.booleans())
def test_an_sae_computes_what_the_form_says_up_to_the_scale_it_states(rule, seed, norms):
    form = random_form(RULES[rule], seed, norms)
    sae, made = formats.sae_of(form)
    x = inputs(16, seed=seed).double()
    f, x_hat = by_definition(form, x)
    scale = torch.ones(N, dtype=torch.float64) if made.scale is None else made.scale
    assert close(sae.encode(x).dense() / scale, f, 1e-9)
    assert close(sae.reconstruct(x), x_hat, 1e-9)
    unit = torch.allclose(sae.atoms.norm(dim=1), torch.ones(N, dtype=torch.float64))
    assert unit or made.cautions
    # Only rules that compare latents with each other may keep the norms they came with.
    assert unit or rule in ("largest", "signed", "pursuit")


@given(rule=st.sampled_from(sorted(RULES)), seed=st.integers(0, 1000))
def test_folding_of_centre_scale_and_whitening_leaves_the_function(rule, seed):
    form = random_form(RULES[rule], seed)
    if rule == "pursuit":
        return
    x = inputs(16, seed=seed).double()
    f, x_hat = by_definition(form, x)
    for other in (form.centred(), form.uncentred()):
        g, y = by_definition(other, x)
        assert close(g, f, 1e-9)
        assert close(y, x_hat, 1e-9)
    g, y = by_definition(form.scaled_input(0.37, 2.1), x)
    f, x_hat = by_definition(form, 0.37 * x)
    assert close(g, f, 1e-9)
    assert close(y, x_hat / 2.1, 1e-9)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(D, D, generator=generator, dtype=torch.float64) + 3 * torch.eye(D)
    mean, inverse = torch.randn(D, generator=generator, dtype=torch.float64), torch.linalg.inv(matrix)
    g, y = by_definition(form.whitened_input(mean, matrix, inverse), x)
    f, x_hat = by_definition(form, (x - mean) @ matrix)
    assert close(g, f, 1e-7)
    assert close(y, x_hat @ inverse + mean, 1e-7)


def test_equal_norms_fold_even_where_latents_are_compared():
    form = random_form(forms.Largest(K), 0, norms=False)
    tripled = forms.Form(**{**vars(form), "atoms": 3 * form.atoms})
    sae, made = formats.sae_of(tripled)
    assert torch.allclose(sae.atoms.norm(dim=1), torch.ones(N, dtype=torch.float64))
    assert torch.allclose(made.scale, torch.full((N,), 3.0, dtype=torch.float64))
    assert not made.cautions


def test_a_zero_atom_stays_a_zero_atom():
    form = random_form(forms.Rectify(), 0)
    form.atoms[3] = 0
    x = inputs().double()
    sae, made = formats.sae_of(form)
    assert close(sae.reconstruct(x), by_definition(form, x)[1], 1e-9)
    assert close(sae.encode(x).dense() / made.scale, by_definition(form, x)[0], 1e-9)


# --- formats whose packages are not at hand: their published formula ------------------------------------------------


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "encoder": 0.5 * torch.randn(N, D, generator=generator),
        "encoder_bias": 0.3 * torch.randn(N, generator=generator),
        "atoms": 0.5 * torch.randn(N, D, generator=generator),
        "bias": torch.randn(D, generator=generator),
        "threshold": 0.2 + torch.rand(N, generator=generator),
    }


def test_openai_top_k_reads_rows_under_layer_norm(tmp_path):
    w, x = weights(), 3 * inputs() + 1
    torch.save(
        {
            "pre_bias": w["bias"],
            "latent_bias": w["encoder_bias"],
            "encoder.weight": w["encoder"],
            "decoder.weight": w["atoms"].T.contiguous(),
            "stats_last_nonzero": torch.zeros(N, dtype=torch.long),
            "activation": "TopK",
            "activation_state_dict": {"k": K, "postact_fn": "ReLU"},
        },
        tmp_path / "5.pt",
    )
    with pytest.warns(UserWarning, match="is a pickle. It is read with weights_only"):
        found = formats.read(tmp_path / "5.pt")
    mean = x.mean(-1, keepdim=True)
    deviation = (x - mean).std(-1, keepdim=True)
    z = (x - mean) / (deviation + 1e-5)
    top = ((z - w["bias"]) @ w["encoder"].T + w["encoder_bias"]).topk(K)
    codes = torch.zeros(len(x), N).scatter(1, top.indices, top.values.relu())
    assert (found.format, found.rows) == ("openai", "layer norm")
    assert close(found.codes(x).dense(), codes)
    assert close(found.reconstruct(x), (codes @ w["atoms"] + w["bias"]) * deviation + mean)
    again = tmp_path / "again.pt"
    quiet(formats.write, found, again, "openai")
    assert close(quiet(formats.read, again).codes(x).dense(), codes)


def test_openai_relu_tied_and_not(tmp_path):
    w, x = weights(), inputs()
    shared = {"pre_bias": w["bias"], "latent_bias": w["encoder_bias"], "encoder.weight": w["encoder"]}
    torch.save({**shared, "decoder.linear.weight": w["encoder"], "activation": "ReLU"}, tmp_path / "tied.pt")
    codes = ((x - w["bias"]) @ w["encoder"].T + w["encoder_bias"]).relu()
    found = quiet(formats.read, tmp_path / "tied.pt")
    assert close(found.codes(x).dense(), codes)
    assert close(found.reconstruct(x), codes @ w["encoder"] + w["bias"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "GELU"}, "activation is 'GELU'"),
        ({"activation": "TopK", "activation_state_dict": {"k": 3, "postact_fn": "Identity"}}, "followed by 'Identity'"),
        ({"activation": "TopK"}, "k = None"),
        ({"more": torch.zeros(2)}, "unknown key 'more'"),
        ({"pre_bias": torch.zeros(D + 1)}, "pre_bias has shape"),
    ],
)
def test_openai_files_that_say_something_else(change, says, tmp_path):
    w = weights()
    whole = {
        "pre_bias": w["bias"],
        "latent_bias": w["encoder_bias"],
        "encoder.weight": w["encoder"],
        "decoder.weight": w["atoms"].T.contiguous(),
        **change,
    }
    torch.save(whole, tmp_path / "x.pt")
    with pytest.raises(FormatError, match=says):
        quiet(formats.read, tmp_path / "x.pt")


@pytest.mark.parametrize("release", [1, 2])
def test_gemma_scope_takes_nothing_from_x(release, tmp_path):
    w, x = weights(), inputs()
    pre = x @ w["encoder"].T + w["encoder_bias"]
    codes = pre * (pre > w["threshold"])
    arrays = {"enc": w["encoder"].T.contiguous(), "dec": w["atoms"]}
    rest = {"b_enc": w["encoder_bias"], "b_dec": w["bias"], "threshold": w["threshold"]}
    if release == 1:
        np.savez(tmp_path / "params.npz", **{f"W_{k}": v.numpy() for k, v in arrays.items()}, **rest)
    else:
        stored_arrays = {f"w_{k}": v for k, v in arrays.items()} | rest
        safetensors.torch.save_file(stored_arrays, tmp_path / "params.safetensors")
        about = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.3.output", "model_name": "gemma"}
        (tmp_path / "config.json").write_text(json.dumps(about))
    found = formats.read(tmp_path)
    assert found.format == ("gemma_scope" if release == 1 else "gemma_scope_2")
    assert close(found.codes(x).dense(), codes)
    assert close(found.reconstruct(x), codes @ w["atoms"] + w["bias"])
    if release == 1:
        scaled = formats.read(tmp_path / "params.npz", input_scale=1 / math.sqrt(D))
        assert close(scaled.codes(x * math.sqrt(D)).dense(), codes)


def test_gemma_scope_transcoders_are_refused(tmp_path):
    w = weights()
    arrays = {"w_enc": w["encoder"].T.contiguous(), "w_dec": w["atoms"], "b_enc": w["encoder_bias"]}
    arrays |= {"b_dec": w["bias"], "threshold": w["threshold"], "affine_skip_connection": torch.zeros(D, D)}
    safetensors.torch.save_file(arrays, tmp_path / "params.safetensors")
    with pytest.raises(FormatError, match="skip transcoder"):
        formats.read(tmp_path)
    about = {"architecture": "jump_relu", "hf_hook_point_in": "a", "hf_hook_point_out": "b"}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(FormatError, match="it reads a and predicts b"):
        formats.read(tmp_path)


MOSS = {
    "sae_type": "sae",
    "d_model": D,
    "expansion_factor": N / D,
    "use_decoder_bias": True,
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "top_k": K,
    "use_triton_kernel": False,
    "hook_point_in": "blocks.3.hook_resid_post",
    "hook_point_out": "blocks.3.hook_resid_post",
    "use_glu_encoder": False,
    "device": "cpu",
    "dtype": "torch.float32",
}


def moss(tmp_path, tensors=None, **changes):
    w = weights()
    arrays = {"W_E": w["encoder"].T, "b_E": w["encoder_bias"], "W_D": w["atoms"], "b_D": w["bias"]}
    if {**MOSS, **changes}["act_fn"] == "jumprelu":
        arrays["activation_function.log_jumprelu_threshold"] = w["threshold"].log()
    arrays["dataset_average_activation_norm.blocks.3.hook_resid_post"] = torch.tensor(7.0)
    arrays |= tensors or {}
    safetensors.torch.save_file({k: v.contiguous() for k, v in arrays.items()}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**MOSS, **changes}))
    return w


@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("activation", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference", "token-wise"])
def test_openmoss_normalises_x_and_judges_latents_by_their_norm(activation, norm, by_norm, tmp_path):
    w = moss(tmp_path, act_fn=activation, norm_activation=norm, sparsity_include_decoder_norm=by_norm)
    x = inputs()
    factor = {"dataset-wise": math.sqrt(D) / 7, "inference": 1.0}.get(norm, math.sqrt(D) / x.norm(dim=1, keepdim=True))
    pre = (x * factor) @ w["encoder"].T + w["encoder_bias"]
    norms = w["atoms"].norm(dim=1) if by_norm else 1.0
    score = pre * norms
    if activation == "jumprelu":
        score = score * (score > w["threshold"])
    elif activation == "topk":
        score = torch.zeros_like(score).scatter(1, score.topk(K).indices, score.topk(K).values.relu())
    else:
        score = score.relu()
    codes = score / norms
    found = formats.read(tmp_path)
    assert found.format == "openmoss"
    assert close(found.codes(x).dense(), codes)
    assert close(found.reconstruct(x), (codes @ w["atoms"] + w["bias"]) / factor)


def test_llama_scope_of_old_scales_its_threshold_with_x(tmp_path):
    w, x = weights(), inputs()
    arrays = {"encoder.weight": w["encoder"], "encoder.bias": w["encoder_bias"]}
    arrays |= {"decoder.weight": w["atoms"].T.contiguous(), "decoder.bias": w["bias"]}
    (tmp_path / "checkpoints").mkdir()
    safetensors.torch.save_file(arrays, tmp_path / "checkpoints" / "final.safetensors")
    about = {"d_model": D, "d_sae": N, "act_fn": "jumprelu", "jump_relu_threshold": 0.4, "top_k": 50}
    about |= {"norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 7.0, "out": 7.0}}
    about |= {"use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "init_decoder_norm": 0.5}
    about |= {"hook_point_in": "blocks.3.hook_resid_post", "hook_point_out": "blocks.3.hook_resid_post"}
    (tmp_path / "hyperparams.json").write_text(json.dumps(about))
    factor = math.sqrt(D) / 7
    pre = (factor * x) @ w["encoder"].T + w["encoder_bias"]
    codes = pre * (pre > 0.4 * factor)
    found = formats.read(tmp_path)
    assert found.notes == {"hook_name": "blocks.3.hook_resid_post"}
    assert close(found.codes(x).dense(), codes)
    assert close(found.reconstruct(x), (codes @ w["atoms"] + w["bias"]) / factor)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_glu_encoder": True}, "use_glu_encoder is set"),
        ({"sae_type": "crosscoder"}, "it is no SAE"),
        ({"hook_point_out": "elsewhere"}, "a transcoder"),
        ({"norm_activation": "batch-wise"}, "which rows come together"),
        ({"act_fn": "batchtopk"}, "holds no threshold"),
        ({"norm_activation": "sideways"}, "'sideways', which is not known here"),
        ({"new_idea": 1}, "unknown key 'new_idea'"),
    ],
)
def test_openmoss_files_that_say_something_else(change, says, tmp_path):
    moss(tmp_path, **change)
    with pytest.raises(FormatError, match=says):
        formats.read(tmp_path)


def test_openmoss_without_its_average_norm_asks_for_it(tmp_path):
    moss(tmp_path, {"dataset_average_activation_norm.blocks.3.hook_resid_post": torch.tensor(0.0)})
    with pytest.raises(FormatError, match="Give input_scale"):
        formats.read(tmp_path)
    assert formats.read(tmp_path, input_scale=0.5).sae.n == N


def plain(tmp_path, names=("W_enc", "b_enc", "W_dec", "b_dec"), turn=True, **more):
    w = weights()
    matrices = (w["encoder"].T if turn else w["encoder"], w["encoder_bias"], w["atoms"], w["bias"])
    arrays = {name: tensor.contiguous() for name, tensor in zip(names, matrices, strict=True)}
    safetensors.torch.save_file({**arrays, **more}, tmp_path / "w.safetensors")
    return w, tmp_path / "w.safetensors"


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize(
    "names", [("W_enc", "b_enc", "W_dec", "b_dec"), ("encoder.weight", "encoder.bias", "W_D", "b_D")]
)
def test_plain_weights_compute_what_the_caller_says(names, subtract, tmp_path):
    w, path = plain(tmp_path, names, turn=names[0] == "W_enc")
    x = inputs()
    found = formats.read(path, architecture="topk", k=K, subtract_bias=subtract)
    pre = (x - subtract * w["bias"]) @ w["encoder"].T + w["encoder_bias"]
    codes = torch.zeros_like(pre).scatter(1, pre.topk(K).indices, pre.topk(K).values.relu())
    assert close(found.codes(x).dense(), codes)


def test_plain_weights_are_not_guessed_at(tmp_path):
    _, path = plain(tmp_path)
    with pytest.raises(FormatError, match="Say it: architecture"):
        formats.read(path)
    with pytest.raises(FormatError, match="whether its bias is taken from x"):
        formats.read(path, architecture="relu")
    with pytest.raises(FormatError, match="how many latents a row keeps"):
        formats.read(path, architecture="topk", subtract_bias=True)
    with pytest.raises(FormatError, match="'cubic' is not known"):
        formats.read(path, architecture="cubic", subtract_bias=True)
    _, path = plain(tmp_path, encoder=torch.zeros(N, D))
    with pytest.raises(FormatError, match="name the same thing"):
        formats.read(path, architecture="relu", subtract_bias=True)


def test_a_threshold_says_jumprelu(tmp_path):
    _, path = plain(tmp_path, threshold=torch.full((N,), 0.5))
    assert isinstance(formats.read(path, subtract_bias=True).sae, JumpReLU)


# --- hostile input --------------------------------------------------------------------------------------------------


def damaged(path, how):
    body = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(bytes(body[: len(body) // 2]))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(bytes(7 * len(body) * [0])[: len(body)])


@pytest.mark.parametrize("how", ["cut", "empty", "zeros"])
@pytest.mark.parametrize("format", WRITTEN, ids=lambda format: format.name)
def test_a_damaged_file_is_a_sentence(format, how, tmp_path):
    sae = shaken(JumpReLU if format.name.startswith("gemma") else ReLU if format.name == "openai" else TopK)
    where = place(tmp_path, format)
    quiet(formats.write, sae, where, format.name)
    files = [where] if where.is_file() else [file for file in where.iterdir() if file.name != "probe.safetensors"]
    for file in files:
        kept = file.read_bytes()
        damaged(file, how)
        with pytest.raises((FormatError, FileNotFoundError)) as caught:
            quiet(formats.read, where, format.name)
        assert str(where) in str(caught.value)
        assert len(str(caught.value)) < 600
        file.write_bytes(kept)
    assert quiet(formats.read, where).agreement.good


@pytest.mark.parametrize("format", WRITTEN, ids=lambda format: format.name)
def test_a_missing_file_is_a_sentence(format, tmp_path):
    sae = shaken(JumpReLU if format.name.startswith("gemma") else ReLU if format.name == "openai" else TopK)
    where = place(tmp_path, format)
    quiet(formats.write, sae, where, format.name)
    for file in [where] if where.is_file() else list(where.iterdir()):
        if file.name in ("probe.safetensors", "config.json"):
            continue
        file.rename(tmp_path / "away")
        with pytest.raises((FormatError, FileNotFoundError)):
            quiet(formats.read, where)
        (tmp_path / "away").rename(file)


def test_tampered_weights_fail_the_probe(tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    file = tmp_path / "sae" / "sae_weights.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["W_enc"][:, 0] += 1
    safetensors.torch.save_file(tensors, file)
    # A latent that no stored row wakes: only the hash can tell.
    with pytest.raises(FormatError, match="has changed since probe.safetensors was written"):
        formats.read(tmp_path / "sae")
    (tmp_path / "sae" / "probe.safetensors").unlink()
    assert formats.read(tmp_path / "sae").agreement is None


def test_a_changed_setting_fails_the_probe(tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "apply_b_dec_to_input": False}))
    with pytest.raises(FormatError, match="does not compute what it did when it was written"):
        formats.read(tmp_path / "sae")


def test_the_probe_of_another_dictionary(tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    other = TopK(d=D + 1, n=N, k=K)
    formats.write(other, tmp_path / "other")
    moved = safetensors.torch.load_file(tmp_path / "other" / "probe.safetensors")
    safetensors.torch.save_file(moved, tmp_path / "sae" / "probe.safetensors")
    with pytest.raises(FormatError, match="the probe of another dictionary"):
        formats.read(tmp_path / "sae")
    safetensors.torch.save_file({"x": torch.zeros(1, D)}, tmp_path / "sae" / "probe.safetensors")
    with pytest.raises(FormatError, match="lacks values"):
        formats.read(tmp_path / "sae")


SAELENS_CHANGES = [
    ({"architecture": "temporal"}, "architecture is 'temporal'"),
    ({"normalize_activations": "whatever"}, "'whatever', which is not known here"),
    ({"surprise": 1}, "unknown key 'surprise'"),
    ({"k": None}, "lacks 'k'"),
    ({"k": "four"}, "k must be a int"),
    ({"d_in": D + 1}, "has shape"),
    ({"k": N + 1}, "k must lie in 1..n"),
    ({"normalize_activations": "expected_average_only_in"}, "Give it: input_scale"),
    ({"normalize_activations": "covariance_whitening"}, "does not hold activation_whitening"),
]


@pytest.mark.parametrize(("change", "says"), SAELENS_CHANGES)
def test_saelens_settings_that_say_something_else(change, says, tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(FormatError, match=says):
        formats.read(tmp_path / "sae")


def test_unknown_names_can_be_left_aside_knowingly(tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "surprise": 1}))
    with pytest.warns(UserWarning, match="unknown keys left aside: 'surprise'"):
        found = formats.read(tmp_path / "sae", strict=False)
    assert found.agreement.good


def test_the_average_norm_can_be_given(tmp_path):
    sae = shaken(ReLU)
    formats.write(sae, tmp_path / "sae")
    (tmp_path / "sae" / "probe.safetensors").unlink()
    file = tmp_path / "sae" / "cfg.json"
    changed = {**json.loads(file.read_text()), "normalize_activations": "expected_average_only_in"}
    file.write_text(json.dumps(changed))
    x = inputs()
    found = formats.read(tmp_path / "sae", input_scale=0.5)
    assert close(found.codes(x).dense(), sae.encode(0.5 * x).dense())
    assert close(found.reconstruct(x), 2 * sae.reconstruct(0.5 * x))


@pytest.mark.parametrize("architecture", [Transcoder, SkipTranscoder])
def test_transcoders_go_into_sparsify_and_nowhere_else(architecture, tmp_path):
    sae, x = architecture(d=D, n=N, d_out=D, k=K), inputs()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in sae.state_dict().items():
        if name != "atoms":
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    assert formats.write(sae, tmp_path / "mlp", "sparsify").good
    found = formats.read(tmp_path / "mlp")
    assert type(found.sae) is architecture
    assert close(found.codes(x).dense(), sae.encode(x).dense())
    assert close(found.reconstruct(x), sae(x))
    with pytest.raises(FormatError, match=r"cannot hold a transcoder: it holds SAEs \(transcoders go into sparsify\)"):
        formats.write(sae, tmp_path / "other", "saelens")
    with pytest.raises(FormatError, match="as many dimensions as it reads"):
        formats.write(architecture(d=D, n=N, d_out=D + 1, k=K), tmp_path / "wide", "sparsify")


@pytest.mark.parametrize(
    ("name", "says"),
    [("signed", "signed is set"), ("skip_connection", "lacks 'W_skip'"), ("transcode", "does not compute what it did")],
)
def test_sparsify_files_that_say_something_else(name, says, tmp_path):
    formats.write(shaken(TopK), tmp_path / "layers.1", "sparsify")
    file = tmp_path / "layers.1" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: True}))
    with pytest.raises(FormatError, match=says):
        formats.read(tmp_path / "layers.1")


def test_sparsify_groups_are_refused_and_the_run_names_the_model(tmp_path):
    formats.write(shaken(TopK), tmp_path / "layers.1", "sparsify")
    (tmp_path / "config.json").write_text(json.dumps({"model": "pythia", "batch_size": 3}))
    assert formats.read(tmp_path / "layers.1").notes == {"model": "pythia", "site": "layers.1"}
    file = tmp_path / "layers.1" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "activation": "groupmax"}))
    with pytest.raises(FormatError, match="'groupmax', which is not known"):
        formats.read(tmp_path / "layers.1")


class Harmful:
    def __reduce__(self):
        return (print, ("this was run",))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, capsys):
    with (tmp_path / "ae.pt").open("wb") as file:
        pickle.dump({"encoder.weight": Harmful()}, file)
    with pytest.raises(FormatError, match="which are never loaded"):
        quiet(formats.read, tmp_path)
    np.savez(tmp_path / "params.npz", W_enc=np.array([Harmful()], dtype=object))
    with pytest.raises(FormatError, match=r"not a readable .npz of numbers"):
        formats.read(tmp_path / "params.npz")
    assert "this was run" not in capsys.readouterr().out


def test_a_pickle_that_is_no_dict_and_integers_as_weights(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    with pytest.raises(FormatError, match="holds a Tensor, not a dict"):
        quiet(formats.read, tmp_path / "x.pt")
    np.savez(tmp_path / "y.npz", W_enc=np.zeros((3, 3), dtype=int))
    with pytest.raises(FormatError, match="weights are floating point"):
        formats.read(tmp_path / "y.npz")


def test_dictionary_learning_without_its_settings(tmp_path):
    for architecture in (ReLU, Gated, JumpReLU, Matryoshka):
        sae = shaken(architecture)
        where = tmp_path / architecture.__name__
        quiet(formats.write, sae, where, "dictionary_learning")
        (where / "config.json").unlink()
        assert quiet(formats.read, where).agreement.good
    for architecture, said in ((TopK, "topk"), (BatchTopK, "batchtopk")):
        where = tmp_path / architecture.__name__
        quiet(formats.write, shaken(architecture), where, "dictionary_learning")
        (where / "config.json").unlink()
        with pytest.raises(FormatError, match="may be a top-k or a batch top-k"):
            quiet(formats.read, where)
        assert quiet(formats.read, where, architecture=said).agreement.good


def test_dictionary_learning_files_that_say_something_else(tmp_path):
    quiet(formats.write, shaken(Matryoshka), tmp_path / "a", "dictionary_learning")
    config = tmp_path / "a" / "config.json"
    kept = config.read_text()
    config.write_text(kept.replace("MatryoshkaBatchTopKSAE", "SomethingNew"))
    with pytest.raises(FormatError, match="dict_class is 'SomethingNew'"):
        quiet(formats.read, tmp_path / "a")
    config.write_text(kept)
    state = torch.load(tmp_path / "a" / "ae.pt", weights_only=True)
    torch.save({**state, "group_sizes": torch.tensor([1, 2])}, tmp_path / "a" / "ae.pt")
    with pytest.raises(FormatError, match="sum to n"):
        quiet(formats.read, tmp_path / "a")
    torch.save({**state, "threshold": torch.tensor(-1.0)}, tmp_path / "a" / "ae.pt")
    (tmp_path / "a" / "probe.safetensors").unlink()
    found = quiet(formats.read, tmp_path / "a")
    assert any("threshold was never set" in caution for caution in found.cautions)
    torch.save({"other": torch.zeros(2)}, tmp_path / "a" / "ae.pt")
    config.unlink()
    with pytest.raises(FormatError, match="no dictionary of this format"):
        quiet(formats.read, tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("W_enc", torch.full((D, N), torch.nan), "NaN or infinite"),
        ("W_enc", torch.zeros(D, N, dtype=torch.int64), "weights are floating point"),
        ("more", torch.zeros(3), "unknown key 'more'"),
        ("b_enc", None, "lacks 'b_enc'"),
    ],
)
def test_tensors_that_are_not_what_they_should_be(name, value, says, tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    (tmp_path / "sae" / "probe.safetensors").unlink()
    file = tmp_path / "sae" / "sae_weights.safetensors"
    tensors = safetensors.torch.load_file(file)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(FormatError, match=says):
        formats.read(tmp_path / "sae")


def test_places_that_hold_no_dictionary_or_several(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        formats.detect(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="is in no format known here; it holds nothing"):
        formats.detect(tmp_path)
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(FormatError, match=r"readme.txt. Known: superscope, saelens"):
        formats.detect(tmp_path)
    with pytest.raises(FormatError, match="in no format known here"):
        formats.detect(tmp_path / "readme.txt")
    for name in ("a", "b"):
        formats.write(shaken(TopK), tmp_path / name)
    with pytest.raises(FormatError, match=r"several dictionaries: a, b. Give the folder of one"):
        formats.read(tmp_path)
    with pytest.raises(ValueError, match="there is no format 'saelense'. Did you mean saelens?"):
        formats.read(tmp_path / "a", "saelense")


def test_nothing_is_overwritten_and_suffixes_are_kept(tmp_path):
    formats.write(shaken(TopK), tmp_path / "sae")
    with pytest.raises(FileExistsError, match="already exists"):
        formats.write(shaken(TopK), tmp_path / "sae", "sparsify")
    with pytest.raises(FormatError, match="one file that ends in .safetensors"):
        formats.write(shaken(TopK), tmp_path / "folder", "plain")


def test_the_refusal_names_what_cannot_be_held(tmp_path):
    with pytest.raises(FormatError, match="cannot hold a dictionary that keeps the k largest in size"):
        formats.write(shaken(AbsTopK), tmp_path / "a", "dictionary_learning")
    ours = formats.Imported(shaken(TopK), "test", torch.ones(N, dtype=torch.float64), "layer norm")
    with pytest.raises(FormatError, match="of rows under layer norm"):
        formats.write(ours, tmp_path / "b", "sparsify")


def test_layer_norm_and_constant_norm_are_undone(tmp_path):
    x = inputs()
    x[3] = 0
    for rows in ("layer norm", "constant norm", "as they are"):
        z, shift, stretch = formats.normalise(x, rows)
        assert torch.isfinite(z).all()
        assert close(z * stretch + shift, x, 1e-4)
    assert torch.allclose(formats.normalise(x[:3], "constant norm")[0].norm(dim=1), torch.tensor(D**0.5))


def test_settings_say_what_was_wanted():
    with pytest.raises(FormatError, match="holds a list, not values by name"):
        stored.Settings([1], "here")
    with pytest.raises(FormatError, match="flag must be a bool; got 3"):
        stored.Settings({"flag": 3}, "here").take("flag", bool)
    with pytest.raises(FormatError, match="k must be a int; got True"):
        stored.Settings({"k": True}, "here").take("k", int)
    assert stored.Settings({"x": 2}, "here").take("x", float) == 2.0
    assert stored.Settings({"x": None}, "here").take("x", float, 1.5) == 1.5
    held = stored.Weights({"a": "text", "b": torch.zeros(2)}, "here")
    with pytest.raises(FormatError, match="a is a str, not a tensor"):
        held.take("a", 2)
    with pytest.raises(FormatError, match="one number was expected"):
        held.number("b")
    with pytest.raises(FormatError, match="must be a number; got None"):
        held.number("c")
