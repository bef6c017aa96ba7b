"""Directions of steering-vectors, repeng and dialz and ours on the same texts: the same to 1e-5 of their length.

Not in the default suite, since they want older transformers and numpy: `scripts/peers steering` makes an environment
with them and runs this.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from superscope import capture
from superscope.capture import Subject
from superscope.intervene.concepts import ContrastRows, ContrastSet, DiffMean, PairPca, contrast_rows
from superscope.studies.interventions.aimed import WITH, WITHOUT

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5


def llama() -> Subject:
    """A llama with random weights that reads the pocket model's tokens, of which it adds none."""
    pocket = capture.load("pocket")
    config = transformers.LlamaConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=len(pocket.tokenizer),
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config).eval()
    return Subject(model, pocket.tokenizer, "llama", "causal")


@pytest.fixture(scope="module", params=["pocket", "llama"])
def subject(request: pytest.FixtureRequest) -> Subject:
    made = capture.load("pocket") if request.param == "pocket" else llama()
    # They hand a model all that its tokenizer makes, and this class makes token types, which GPT-2 adds to x.
    made.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return made


@pytest.fixture(scope="module")
def contrast() -> ContrastSet:
    return ContrastSet("code", WITH, WITHOUT, paired=True)


@pytest.fixture(scope="module")
def pairs(subject, contrast) -> list[tuple[str, str]]:
    """The texts as theirs must be given them: we put the token that begins a sequence before a text, whatever its
    tokenizer does; they leave it to the tokenizer, and this one puts none."""
    begin = subject.tokenizer.bos_token
    assert subject.tokenizer(begin + "a")["input_ids"][0] == subject.tokenizer.bos_token_id
    return [(begin + first, begin + second) for first, second in zip(contrast.positive, contrast.negative)]


BLOCKS = (0, 1, 2)
"""The last is not among them: repeng and dialz read it behind the final norm, see below."""


@pytest.fixture(scope="module")
def rows(subject, contrast):
    sites = {f"resid_post.{block}": block for block in BLOCKS}
    read = contrast_rows(subject, contrast, list(sites), token="last")
    return dict(zip(BLOCKS, read.values()))


def close(theirs: np.ndarray | torch.Tensor, ours: torch.Tensor) -> None:
    theirs = torch.as_tensor(theirs).double()
    assert float((theirs - ours).norm()) <= TOLERANCE * float(ours.norm())


def unit(ours: torch.Tensor, rows, by: str) -> torch.Tensor:
    """Our PCA at length 1, with the sign that theirs has.

    Ours points where the mean of the pair differences does, as steering-vectors' does ("mean"); repeng's and dialz's to
    where most pairs go ("most").
    """
    ours = ours / ours.norm()
    along = rows.differences @ ours
    ahead = float(along.mean()) if by == "mean" else float((along > 0).double().mean() - (along < 0).double().mean())
    return -ours if ahead < 0 else ours


@pytest.mark.parametrize("kind", ["mean", "pca"])
def test_steering_vectors(kind, subject, pairs, rows):
    from steering_vectors import mean_aggregator, pca_aggregator, train_steering_vector

    theirs = train_steering_vector(
        subject.model,
        subject.tokenizer,
        pairs,
        layers=list(BLOCKS),
        aggregator=mean_aggregator() if kind == "mean" else pca_aggregator(),
    ).layer_activations
    assert set(theirs) == set(BLOCKS)
    for block, own in rows.items():
        if kind == "mean":
            close(theirs[block], DiffMean().vector(own))
        else:
            ours = PairPca().vector(own)
            assert torch.equal(unit(ours, own, "mean"), ours / ours.norm()), "our sign is theirs"
            close(theirs[block], ours / ours.norm())


@pytest.mark.parametrize("method", ["pca_diff", "pca_center"])
def test_repeng(method, subject, pairs, rows):
    from repeng import ControlVector, DatasetEntry

    entries = [DatasetEntry(*pair) for pair in pairs]
    theirs = ControlVector.train(
        subject.model, subject.tokenizer, entries, method=method, hidden_layers=BLOCKS, batch_size=4
    ).directions
    for block, own in rows.items():
        # Its centred halves of a pair are each other's mirror images, so that PCA of them is not centred at all.
        ours = PairPca(centred=method == "pca_diff").vector(own)
        close(theirs[block], unit(ours, own, "most"))


@pytest.mark.parametrize("method", ["mean_diff", "pca", "pca_center"])
def test_dialz(method, subject, pairs, rows):
    from dialz import Dataset
    from dialz.vector import read_representations

    entries = Dataset()
    for pair in pairs:
        entries.add_entry(*pair)
    # Its SteeringVector.train reads the tokenizer by the model's name from a hub, and calls this.
    theirs = read_representations(
        subject.model, subject.tokenizer, entries, hidden_layers=BLOCKS, method=method, batch_size=4
    )
    for block, own in rows.items():
        if method == "mean_diff":
            ours = DiffMean().vector(own)
            along = own.differences @ ours
            close(theirs[block], ours if float((along > 0).double().mean()) >= 0.5 else -ours)
        else:
            close(theirs[block], unit(PairPca(centred=method == "pca").vector(own), own, "most"))


def test_the_last_block_is_read_behind_the_final_norm_by_repeng(subject, contrast, pairs):
    from repeng import ControlVector, DatasetEntry

    last = subject.model.config.num_hidden_layers - 1
    entries = [DatasetEntry(*pair) for pair in pairs]
    theirs = ControlVector.train(
        subject.model, subject.tokenizer, entries, method="pca_center", hidden_layers=(last,), batch_size=4
    ).directions[last]
    (own,) = contrast_rows(subject, contrast, [f"resid_post.{last}"], token="last").values()
    norm = subject.model.transformer.ln_f if subject.name == "pocket" else subject.model.model.norm
    with torch.no_grad():
        normed = ContrastRows(norm(own.positive.float()), norm(own.negative.float()), paired=True)
    close(theirs, unit(PairPca().vector(normed), normed, "most"))
    block = unit(PairPca().vector(own), own, "most")
    assert float((torch.as_tensor(theirs).double() - block).norm()) > 100 * TOLERANCE
