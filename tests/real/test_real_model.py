"""What holds on tiny models holds on a real one: reading it, scanning it, and exchanging what was learned from it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from superscope import capture
from superscope.capture import Capture, Corpus
from superscope.cli import main
from superscope.core import Report
from superscope.dictionaries import SAE, BatchTopK, ReLU, TopK, formats, train
from superscope.intervene import next_token_loss
from superscope.studies import Scan
from superscope.studio import write_html

pytestmark = pytest.mark.real

FORMATS = {
    TopK: ("saelens", "sparsify", "dictionary_learning", "openmoss", "plain"),
    BatchTopK: ("saelens", "dictionary_learning", "openmoss", "gemma_scope", "gemma_scope_2", "plain"),
    ReLU: ("saelens", "dictionary_learning", "openai", "openmoss", "gemma_scope", "gemma_scope_2", "plain"),
}
"""Formats of others that hold what an architecture computes."""


def test_it_answers(loaded: Any) -> None:
    asked = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        answer = loaded.model.generate(**asked, max_new_tokens=12, do_sample=False)
    said = loaded.tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == "The capital of France is Paris."


def test_it_knows_the_language(loaded: Any, corpus: Corpus) -> None:
    """Far below the log of the number of tokens, which is what the same network gives before training."""
    some = corpus.take(torch.arange(6))
    trained, untrained = (next_token_loss(each, some) for each in (loaded, capture.control(loaded, seed=0)))
    loss, chance = (float(each.nats.sum() / each.counts.sum()) for each in (trained, untrained))
    assert loaded.model.config.vocab_size == 49_152
    assert chance == pytest.approx(torch.tensor(49_152.0).log().item(), abs=0.5)
    assert loss < 4


def test_capture_reads_what_plain_hooks_do(loaded: Any, corpus: Corpus) -> None:
    model, ids = loaded.model, corpus.ids[:3]
    block = model.model.layers[15]
    plain: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, given, x: plain.update(resid_post=x)),
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, given: plain.update(z=given[0])),
        block.mlp.down_proj.register_forward_pre_hook(lambda _, given: plain.update(mlp_act=given[0])),
        block.mlp.register_forward_hook(lambda _, given, x: plain.update(mlp_out=x)),
    ]
    with torch.no_grad():
        model(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    shapes = {"resid_post": 576, "z": 9 * 64, "mlp_act": 1536, "mlp_out": 576}
    for role, d in shapes.items():
        with Capture(model, [f"{role}.15"]) as reading:
            (x,) = reading(ids).values()
        assert x.shape == (3, 64, d), role
        assert torch.equal(x, plain[role]), role


def test_patterns_are_the_models_own(loaded: Any, corpus: Corpus) -> None:
    model, ids = loaded.model, corpus.ids[:2]
    own = model.config._attn_implementation
    with Capture(model, ["pattern.15", "pattern.29"]) as reading:
        patterns = list(reading(ids).values())
    assert model.config._attn_implementation == own
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            attentions = model(ids, output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation(own)
    for pattern, layer in zip(patterns, (15, 29), strict=True):
        assert pattern.shape == (2, 9, 64, 64)
        assert torch.equal(pattern, attentions[layer])
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
        assert pattern.triu(1).abs().max() == 0


@pytest.fixture(scope="module")
def rows(loaded: Any, corpus: Corpus) -> Any:
    """Activations behind block 15."""
    recording = capture.record(loaded, capture.sites(loaded.model, ["resid_post.15"]), corpus)
    while True:
        try:
            next(recording)
        except StopIteration as end:
            (source,) = end.value.values()
            return source


@pytest.mark.parametrize("architecture", FORMATS)
def test_formats_hold_what_was_learned_from_it(architecture: type[SAE], rows: Any, tmp_path: Path) -> None:
    options = {} if architecture is ReLU else {"k": 16}
    sae = architecture(d=576, n=1152, seed=0, **options)
    *_, last = train(sae, rows, steps=40, batch=256, seed=0)
    assert last.numbers["fraction_variance_unexplained"] < 0.9
    x = next(rows.batches(256, seed=1)).x
    code, x_hat = sae.encode(x).dense(), sae.reconstruct(x)
    assert 0 < (code != 0).sum(1).double().mean() < 1152
    for name in FORMATS[architecture]:
        (suffix,) = (format.suffix for format in formats.FORMATS if format.name == name)
        where = tmp_path / f"{name}{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles, and of notes that a format has no place for
            assert formats.write(sae, where, name, x=x).good, name
            found = formats.read(where)
        assert (found.codes(x).dense() - code).norm() < 1e-4 * code.norm(), name
        assert (found.reconstruct(x) - x_hat).norm() < 1e-4 * x_hat.norm(), name


def test_a_scan_of_two_sites_beside_a_control(folder: Path, tmp_path: Path) -> None:
    scan = Scan(
        model=str(folder),
        sites=("resid_post.7", "resid_post.15"),
        tokens=1500,
        held_out=400,
        context=64,
        n=576,
        k=16,
        seeds=2,
        steps=60,
        batch=256,
        control=True,
    )
    scan.run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    found = {(m.name, str(m.at["site"]), str(m.at["model"])): m for m in report}
    for site in ("model.layers.7", "model.layers.15"):
        for model in ("trained", "control"):
            for name in ("recurring_features", "recurring_per_dimension", "polysemanticity"):
                m = found[name, site, model]
                assert m.chance is not None
                assert m.value is not None
                assert 0 <= m.chance < 576
                assert 0 <= m.value < 576
            assert 1 <= found["participation_ratio", site, model].value <= 576
            assert found["l0", site, model].value == pytest.approx(16, abs=1)
        # What so little text teaches of random weights carries over to no other text.
        unexplained = {model: found["fraction_variance_unexplained", site, model] for model in ("trained", "control")}
        assert unexplained["trained"].high < 0.8 < 0.9 < unexplained["control"].low
        # A trained network leans on every site; one with random weights predicts nothing, with the site or without.
        added = {model: found["cross_entropy_added", site, model] for model in ("trained", "control")}
        assert 0 < added["trained"].value < added["trained"].reference
        assert added["trained"].reference > 3
        assert added["control"].reference < 0.5
    assert any("random weights" in sentence for sentence in report.findings)
    assert write_html(tmp_path / "run").stat().st_size > 100_000


@pytest.mark.slow
def test_the_gguf_file_is_the_folder(folder: Path, loaded: Any, corpus: Corpus) -> None:
    (file,) = folder.glob("*.gguf")
    direct = capture.load(str(file))
    assert type(direct.model) is type(loaded.model)
    one, other = direct.model.state_dict(), loaded.model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = capture.tokens(direct.tokenizer, capture.documents(), context=64, limit=1500)
    assert torch.equal(again.ids, corpus.ids)
    with torch.no_grad():
        assert torch.equal(direct.model(corpus.ids[:1]).logits, loaded.model(corpus.ids[:1]).logits)


@pytest.mark.slow
def test_the_command_reads_the_gguf_file(folder: Path, tmp_path: Path) -> None:
    (file,) = folder.glob("*.gguf")
    settings = "--tokens 600 --held-out 200 --context 64 --n 64 --k 4 --seeds 2 --steps 5 --batch 64"
    code = main(["scan", str(file), "--sites", "resid_post.3", *settings.split(), "--out", str(tmp_path / "run")])
    assert code == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    assert Report.load(tmp_path / "run").title.startswith(str(file))
