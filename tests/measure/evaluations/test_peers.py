"""SAELens's and SAEBench's evaluations, run as they are on our dictionaries and a model, and ours on the same tokens.

What is defined alike agrees to 1e-4; where theirs are defined otherwise, the tests show by how much. Not in the default
suite, since the packages live in an environment of their own: `scripts/peers` makes it and runs this.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from superscope import capture, intervene, measure
from superscope.core import Activations
from superscope.dictionaries import formats, train
from superscope.dictionaries.sae import JumpReLU, TopK
from superscope.intervene.side_effects import divergences
from superscope.measure.evaluations.recovered import divergence_recovered

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-4
SITE, HOOK = "transformer.h.2", "blocks.2.hook_resid_post"
WINDOWS, CONTEXT = 16, 64


@pytest.fixture(scope="module")
def subject():
    return capture.load("pocket")


@pytest.fixture(scope="module")
def ids(subject):
    corpus = capture.tokens(subject.tokenizer, capture.documents(None), context=CONTEXT, limit=WINDOWS * CONTEXT * 2)
    # Whole windows without their separators: every position counts for both.
    whole = corpus.ids[(corpus.length == CONTEXT)][:WINDOWS]
    assert len(whole) == WINDOWS
    return whole


@pytest.fixture(scope="module")
def rows(subject, ids):
    return torch.cat([batch[site].x for batch in capture.harvest(subject.model, [SITE], ids) for site in batch])


@pytest.fixture(scope="module", params=[TopK, JumpReLU])
def sae(request, rows):
    made = request.param(d=rows.shape[1], n=256, k=16, seed=0)
    source = capture.MemorySource(rows)
    for _ in train(made, source, steps=40, batch=256, lr=1e-2):
        pass
    return made


@pytest.fixture(scope="module")
def ours(subject, ids, rows, sae):
    """Everything that both define, by our functions."""
    found = measure.evaluate(sae, [Activations(rows)])
    losses = {
        name: intervene.next_token_loss(subject, ids, splice=splice).mean
        for name, splice in (("own", None), ("sae", {SITE: sae.reconstruct}), ("zero", {SITE: torch.zeros_like}))
    }
    kept, gone = divergences(subject, ids, [{SITE: sae.reconstruct}, {SITE: torch.zeros_like}])
    divergence, _ = divergence_recovered(kept.kl, gone.kl, kept.positions, ablation="zero")
    return SimpleNamespace(
        l0=found["l0"].value,
        unexplained=found["fraction_variance_unexplained"].value,
        losses=losses,
        divergence=divergence.value,
        recovered=(losses["zero"] - losses["sae"]) / (losses["zero"] - losses["own"]),
        error=float((rows - sae.reconstruct(rows)).double().square().sum(1).mean()),
    )


def _saelens(subject, sae, ids, folder, hook=SITE):
    """SAELens's own SAE, model and store of tokens."""
    from datasets import Dataset
    from sae_lens import SAE
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.training.activations_store import ActivationsStore

    formats.write(sae, folder, "saelens", notes={"model": "pocket", "site": SITE, "hook_name": hook})
    loaded = SAE.load_from_disk(folder)
    loaded.cfg.metadata.context_size, loaded.cfg.metadata.prepend_bos = CONTEXT, False
    model = HookedProxyLM(subject.model, subject.tokenizer)
    store = ActivationsStore.from_sae(
        model,
        loaded,
        dataset=Dataset.from_dict({"tokens": ids.tolist()}),
        streaming=False,
        store_batch_size_prompts=len(ids),
        sequence_separator_token=None,
    )
    return loaded, model, store


def test_saelens_says_of_our_dictionary_what_we_say(subject, ids, sae, ours, tmp_path):
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    loaded, model, store = _saelens(subject, sae, ids, tmp_path / "sae")
    assert torch.equal(store.get_batch_tokens(len(ids)), ids)
    theirs, _ = run_evals(
        loaded,
        store,
        model,
        ActivationScaler(),
        get_eval_everything_config(len(ids), n_eval_reconstruction_batches=1, n_eval_sparsity_variance_batches=1),
        exclude_special_tokens=False,
    )
    kept = theirs["model_performance_preservation"]
    for name, own in (("ce_loss_without_sae", "own"), ("ce_loss_with_sae", "sae"), ("ce_loss_with_ablation", "zero")):
        assert kept[name] == pytest.approx(ours.losses[own], rel=TOLERANCE)
    assert kept["ce_loss_score"] == pytest.approx(ours.recovered, abs=TOLERANCE)
    kept = theirs["model_behavior_preservation"]["kl_div_score"]
    assert kept == pytest.approx(ours.divergence, abs=TOLERANCE)
    assert theirs["sparsity"]["l0"] == pytest.approx(ours.l0, rel=TOLERANCE)
    quality = theirs["reconstruction_quality"]
    assert quality["explained_variance"] == pytest.approx(1 - ours.unexplained, abs=TOLERANCE)
    assert quality["mse"] == pytest.approx(ours.error, rel=TOLERANCE)
    # Their older one is a mean over tokens of ratios to each token's own distance from the mean: another number.
    assert abs(quality["explained_variance_legacy"] - (1 - ours.unexplained)) > 10 * TOLERANCE


def test_saebench_says_of_our_dictionary_what_we_say_but_of_variance_and_error(subject, ids, sae, rows, ours, tmp_path):
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.evals.core.main import run_evals

    _, model, store = _saelens(subject, sae, ids, tmp_path / "sae")
    adapted = formats.AsSAEBench(sae, hook_name=SITE, hook_layer=2, model_name="pocket")
    config = CoreEvalConfig(
        batch_size_prompts=len(ids),
        n_eval_reconstruction_batches=1,
        n_eval_sparsity_variance_batches=1,
        compute_kl=True,
        compute_ce_loss=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    theirs, _ = run_evals(adapted, store, model, config)
    kept = theirs["model_performance_preservation"]
    for name, own in (("ce_loss_without_sae", "own"), ("ce_loss_with_sae", "sae"), ("ce_loss_with_ablation", "zero")):
        assert kept[name] == pytest.approx(ours.losses[own], rel=TOLERANCE)
    assert kept["ce_loss_score"] == pytest.approx(ours.recovered, abs=TOLERANCE)
    kept = theirs["model_behavior_preservation"]["kl_div_score"]
    assert kept == pytest.approx(ours.divergence, abs=TOLERANCE)
    assert theirs["sparsity"]["l0"] == pytest.approx(ours.l0, rel=TOLERANCE)
    quality = theirs["reconstruction_quality"]
    # Its squared error is divided by the batch's tokens before their mean is taken: a larger batch, a smaller error.
    assert quality["mse"] * len(rows) == pytest.approx(ours.error, rel=TOLERANCE)
    # Its variance is the second moment less the squared mean of *squares*: neither about the mean nor about 0.
    square = rows.double().square()
    wrong = square.sum(1).mean() - square.mean(0).mean() ** 2
    assert quality["explained_variance"] == pytest.approx(float(1 - ours.error / wrong), abs=TOLERANCE)
    assert abs(quality["explained_variance"] - (1 - ours.unexplained)) > 10 * TOLERANCE
