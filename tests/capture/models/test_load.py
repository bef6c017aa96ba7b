from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
import transformers
from torch import nn

from superscope.capture import Subject, blocks, control, default_sites, harvest, load, mlp_hidden, tokens
from superscope.core import FormatError, Site, SiteNotFound

from ..conftest import CAUSAL, ENCODERS, FAMILIES, TEXTS, make_model, make_tokenizer

BLOCKS = {
    "gpt2": "transformer.h",
    "llama": "model.layers",
    "gpt_neox": "gpt_neox.layers",
    "gemma2": "model.layers",
    "qwen2": "model.layers",
    "gpt_neo": "transformer.h",
    "bloom": "transformer.h",
    "opt": "model.decoder.layers",
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "distilbert": "transformer.layer",
}
HIDDEN = {
    "gpt2": "mlp.c_proj",
    "llama": "mlp.down_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "gemma2": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "gpt_neo": "mlp.c_proj",
    "bloom": "mlp.dense_4h_to_h",
    "opt": "fc2",
    "bert": "output.dense",
    "roberta": "output.dense",
    "distilbert": "ffn.lin2",
}


# --- blocks and roles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_neurons_and_default_sites(family, model_of, tokenizer):
    model = model_of(family)
    expected = tuple(f"{BLOCKS[family]}.{i}" for i in range(3))
    assert blocks(model) == expected
    assert default_sites(model) == tuple(Site(block) for block in expected)
    hidden = mlp_hidden(model, expected[1])
    assert hidden == f"{expected[1]}.{HIDDEN[family]}:in"
    loaded = Subject(model, tokenizer, family, "encoder" if family in ENCODERS else "causal")
    assert loaded.kind_of(expected[2]) == "residual"
    assert loaded.kind_of(Site(expected[0], "in")) == "residual"
    assert loaded.kind_of(hidden) == "neurons"
    assert loaded.kind_of(hidden.removesuffix(":in")) == "other"
    assert loaded.kind_of("lm_head") == "other"
    assert loaded.d == 16


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "bloom", "opt", "bert", "roberta", "distilbert"])
def test_neurons_come_after_the_nonlinearity(family, model_of, tokenizer):
    # The activation functions of these families are bounded below by -0.17 (GELU) or 0 (ReLU); what goes in is not.
    model = model_of(family)
    hidden = mlp_hidden(model, blocks(model)[1])
    corpus = tokens(tokenizer, TEXTS, context=16)
    (batch,) = harvest(model, [hidden], corpus)
    ((_, activations),) = batch.items()
    assert activations.x.shape[1] in (40, 64)
    assert activations.x.min() >= -0.171
    assert activations.x.max() > 0.2


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_neurons_of_a_gated_mlp_are_gate_times_up(family, model_of, tokenizer):
    model = model_of(family)
    mlp = f"{blocks(model)[1]}.mlp"
    corpus = tokens(tokenizer, TEXTS, context=16)
    (batch,) = harvest(model, [f"{mlp}.act_fn", f"{mlp}.up_proj", mlp_hidden(model, blocks(model)[1])], corpus)
    gate, up, hidden = (activations.x for activations in batch.values())
    assert torch.allclose(gate * up, hidden, atol=1e-5)


def test_an_unknown_family_is_read_by_role():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.Linear(8, 8)
            self.feed_forward = nn.ModuleDict({"grow": nn.Linear(8, 24), "shrink": nn.Linear(24, 8)})

    class Unknown(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.config = transformers.PreTrainedConfig(num_hidden_layers=n, hidden_size=8, intermediate_size=24)
            self.other = nn.ModuleList([nn.Identity()])
            self.stack = nn.ModuleList([Block(), Block()])

    model = Unknown(2)
    assert blocks(model) == ("stack.0", "stack.1")
    assert mlp_hidden(model, "stack.1") == "stack.1.feed_forward.shrink:in"
    del model.stack[1].feed_forward["shrink"]
    assert mlp_hidden(model, "stack.1") is None
    with pytest.raises(ValueError, match="Unknown has no list of 5 modules"):
        blocks(Unknown(5))
    with pytest.raises(ValueError, match=r"no module named 'stack\.7'"):
        mlp_hidden(model, "stack.7")
    with pytest.raises(ValueError, match="Linear has no config"):
        default_sites(nn.Linear(2, 2))


def test_a_state_space_model_has_no_neurons():
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=300)
    with torch.random.fork_rng():
        model = transformers.MambaForCausalLM(config).eval()
    assert blocks(model) == ("backbone.layers.0", "backbone.layers.1")
    assert mlp_hidden(model, "backbone.layers.0") is None


# --- control --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_control_is_the_same_architecture_untrained(family, tokenizer):
    loaded = Subject(make_model(family).to(torch.bfloat16), tokenizer, family, "causal")
    state = torch.get_rng_state()
    one, same, other = control(loaded, 1), control(loaded, 1), control(loaded, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.name == f"{family}, random weights (seed 1)"
    assert (one.kind, one.tokenizer) == (loaded.kind, tokenizer)
    trained, first, second, third = (dict(m.model.named_parameters()) for m in (loaded, one, same, other))
    assert {name: p.shape for name, p in first.items()} == {name: p.shape for name, p in trained.items()}
    assert all(torch.equal(first[name], second[name]) for name in first)
    matrices = [name for name, p in first.items() if p.ndim == 2]
    assert all(not torch.equal(first[name], third[name]) for name in matrices)
    assert all(not torch.equal(first[name], trained[name]) for name in matrices)
    assert all(p.dtype == torch.bfloat16 for p in first.values())
    assert not one.model.training
    assert one.model.config is not loaded.model.config
    assert one.model.config._attn_implementation == loaded.model.config._attn_implementation


def test_control_starts_where_training_starts(tokenizer):
    config = transformers.GPT2Config(n_embd=64, n_layer=3, n_head=2, vocab_size=300, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng():
        model = transformers.GPT2LMHeadModel(config)
    made = control(Subject(model, tokenizer, "tiny", "causal"), 0).model
    # GPT-2's own initialisation: 0.02, divided by the square root of twice the depth where a block adds to the stream.
    assert made.transformer.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.transformer.h[0].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.05)
    assert made.lm_head.weight is made.transformer.wte.weight


# --- load -----------------------------------------------------------------------------------------------------------


def saved(folder, family, **special):
    model = make_model(family)
    model.save_pretrained(folder)
    make_tokenizer(**(special or {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    saved(folder, "gpt2")
    return folder


@pytest.fixture
def folder(gpt2_folder, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(gpt2_folder, tmp_path / "model")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_gives_back_the_model(family, tmp_path):
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"} if family in ENCODERS else {}
    model = saved(tmp_path, family, **special)
    loaded = load(str(tmp_path))
    assert loaded.kind == ("encoder" if family in ENCODERS else "causal")
    assert loaded.name == str(tmp_path)
    assert type(loaded.model) is type(model)
    assert not loaded.model.training
    corpus = tokens(loaded.tokenizer, TEXTS, context=16)
    for one, two in zip(
        harvest(model, default_sites(model), corpus), harvest(loaded.model, default_sites(loaded.model), corpus)
    ):
        for site in one:
            assert torch.equal(one[site].x, two[site].x)


def test_loading_says_nothing_and_leaves_transformers_as_it_was(gpt2_folder, capfd):
    notes = transformers.utils.logging
    before = notes.get_verbosity(), notes.is_progress_bar_enabled()
    load(str(gpt2_folder))
    assert (notes.get_verbosity(), notes.is_progress_bar_enabled()) == before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_weights_are_float32_unless_asked(gpt2_folder, tmp_path):
    make_model("gpt2").to(torch.float16).save_pretrained(tmp_path)
    make_tokenizer(bos_token="<|endoftext|>").save_pretrained(tmp_path)
    assert load(str(tmp_path)).model.dtype == torch.float32
    assert load(str(gpt2_folder), dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_masked_language_models_are_encoders(tmp_path):
    with torch.random.fork_rng():
        transformers.BertForMaskedLM(ENCODERS["bert"]()).save_pretrained(tmp_path)
    make_tokenizer(cls_token="[CLS]", sep_token="[SEP]").save_pretrained(tmp_path)
    loaded = load(str(tmp_path))  # without a pooler, which is no part of any block
    assert loaded.kind == "encoder"
    assert blocks(loaded.model) == ("encoder.layer.0", "encoder.layer.1", "encoder.layer.2")


def test_a_causal_class_that_looks_ahead_is_an_encoder(tmp_path):
    with torch.random.fork_rng():
        transformers.BertLMHeadModel(ENCODERS["bert"]()).save_pretrained(tmp_path)
    make_tokenizer(cls_token="[CLS]", sep_token="[SEP]").save_pretrained(tmp_path)
    assert load(str(tmp_path)).kind == "encoder"


def test_of_an_encoder_decoder_the_encoder(tmp_path):
    config = transformers.T5Config(d_model=16, num_layers=2, num_heads=2, d_ff=40, d_kv=8, vocab_size=300)
    with torch.random.fork_rng():
        transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    make_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert loaded.kind == "encoder"
    assert blocks(loaded.model) == ("block.0", "block.1")
    assert mlp_hidden(loaded.model, "block.1") == "block.1.layer.1.DenseReluDense.wo:in"
    corpus = tokens(loaded.tokenizer, TEXTS, context=16)
    for made in (loaded, control(loaded, 0)):
        (batch,) = harvest(made.model, ["block.*"], corpus)
        assert all(activations.x.shape == (corpus.n_tokens, 16) for activations in batch.values())


def test_the_pocket_model_is_the_default():
    pocket = pytest.importorskip("superscope.capture.pocket", reason="checks that load() gives the pocket model")
    try:
        pocket.folder()
    except FileNotFoundError:
        pytest.skip("would check that load() gives the pocket model, whose weights are not in this tree")
    loaded = load()
    assert (loaded.name, loaded.kind) == ("pocket", "causal")
    assert loaded.d == 192
    assert len(blocks(loaded.model)) == 4
    assert loaded.model.dtype == torch.float32


# --- what can be wrong with a model ---------------------------------------------------------------------------------


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '\./nowhere'.*or 'pocket'"):
        load("./nowhere")
    with pytest.raises(FileNotFoundError, match="no folder ''"):
        load("")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="is a file; give the folder"):
        load(str(tmp_path / "file"))


def test_no_such_name_and_no_network(no_network):
    with pytest.raises(ValueError, match=r"'no-such/model' in the local cache.*no network here.*--local-dir FOLDER"):
        load("no-such/model")


def test_no_such_name_on_the_hub(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked = []

    def refuse(source, **options):
        asked.append(options)
        raise OSError(f"{source} is not a valid model identifier\nmore")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(
        ValueError, match=r"hub gave none: no-such/model is not a valid model identifier\. Check the name"
    ):
        load("no-such/model")
    assert [options.get("local_files_only") for options in asked] == [True, None]  # the cache first
    assert all(options["trust_remote_code"] is False for options in asked)


def test_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, so it is no saved model"):
        load(str(folder))


def test_damaged_or_foreign_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(FormatError, match=r"cannot be read as a model|is damaged"):
        load(str(folder))
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(FormatError, match="cannot be loaded"):
        load(str(folder))


def test_fields_of_a_wrong_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": "many"}))
    with pytest.raises(FormatError, match="cannot be loaded"):
        load(str(folder))


def test_code_that_comes_with_a_model_is_not_run(folder):
    config = {"model_type": "weird", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(FormatError, match="code of its own, which Superscope does not run"):
        load(str(folder))


def test_without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer .*tokenizer\.save_pretrained\(folder\)"):
        load(str(folder))


def test_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(FormatError):
        load(str(folder))


def test_an_empty_tokenizer_is_none(folder, monkeypatch):
    empty = make_tokenizer(bos_token="<|endoftext|>")
    monkeypatch.setattr(type(empty), "__len__", lambda self: 1)
    with pytest.raises(FileNotFoundError, match="comes without a tokenizer"):
        load(str(folder))


def test_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights \(model\.safetensors\)"):
        load(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 1000, -100])
def test_truncated_weights(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"model\.safetensors' is damaged or cut short \([\d,]+ bytes"):
        load(str(folder))


def test_weights_that_are_no_weights(folder):
    (folder / "model.safetensors").write_bytes(b"<html>rate limited</html>" * 40)
    with pytest.raises(FormatError, match="damaged or cut short"):
        load(str(folder))


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 32}))
    with pytest.raises(FormatError, match=r"\d+ weights of .* have other shapes .* as \S+ with \(.*\) instead of \("):
        load(str(folder))


def test_weights_of_another_depth(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 5}))
    with pytest.raises(FormatError, match=r"lack \d+ tensors that it computes with, as transformer\.h\.3\."):
        load(str(folder))


def test_devices(gpt2_folder):
    with pytest.raises(ValueError, match="no device 'gpu0'; write cpu, cuda"):
        load(str(gpt2_folder), device="gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch has no cuda"):
            load(str(gpt2_folder), device="cuda:0")


def test_sites_of_another_family_are_offered_the_nearest(model_of):
    from superscope.capture import sites

    with pytest.raises(SiteNotFound, match=r"Did you mean .*layers"):
        sites(model_of("gpt_neox"), ["gpt_neox.layer.1"])
    assert set(BLOCKS) == set(CAUSAL) | set(ENCODERS)
