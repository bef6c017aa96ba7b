"""Round trips with the packages themselves: they load what we write, we read what they write, codes agree to 1e-5.

Not in the default suite, since they live in an environment of their own: `scripts/peers` makes it and runs this.
"""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from superscope.dictionaries import formats
from superscope.dictionaries.sae import (
    AbsTopK,
    BatchTopK,
    Gated,
    InterferencePenalised,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    PAnnealed,
    ReLU,
    TopK,
)
from superscope.dictionaries.transcoders import SkipTranscoder, Transcoder

from . import peers_cases
from .conftest import close, inputs, shaken

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Every case of peers_cases, made afresh by the packages installed here."""
    folder = tmp_path_factory.mktemp("theirs")
    return {name: (path, codes, x_hat) for name, path, codes, x_hat in peers_cases.made(folder)}


@pytest.mark.parametrize("case", peers_cases.CASES)
def test_we_read_what_they_write(theirs, case):
    path, codes, x_hat = theirs[case]
    found = formats.read(path)
    x = peers_cases.inputs()
    assert close(found.codes(x).dense(), codes, TOLERANCE)
    assert close(found.reconstruct(x), x_hat, TOLERANCE)


@pytest.mark.parametrize(
    "architecture",
    [TopK, InterferencePenalised, AbsTopK, ReLU, PAnnealed, JumpReLU, BatchTopK, Matryoshka, Gated, MatchingPursuit],
)
def test_saelens_loads_what_we_write(architecture, tmp_path):
    from sae_lens import SAE

    sae = shaken(architecture)
    notes = {"model": "gpt2", "site": "transformer.h.2", "hook_name": "blocks.2.hook_resid_post"}
    formats.write(sae, tmp_path / "sae", "saelens", notes=notes)
    loaded, x = SAE.load_from_disk(tmp_path / "sae"), inputs()
    assert close(loaded.encode(x), sae.encode(x).dense(), TOLERANCE)
    assert close(loaded(x), sae.reconstruct(x), TOLERANCE)
    assert loaded.cfg.metadata.hook_name == "blocks.2.hook_resid_post"


@pytest.mark.parametrize("rows", ["layer norm", "constant norm"])
def test_saelens_does_to_rows_what_we_say(rows, tmp_path):
    from sae_lens import SAE

    sae = shaken(TopK)
    ours = formats.Imported(sae, "test", torch.ones(sae.n, dtype=torch.float64), rows)
    formats.write(ours, tmp_path / "sae", "saelens")
    loaded, x = SAE.load_from_disk(tmp_path / "sae"), inputs()
    assert close(loaded.encode(x), ours.codes(x).dense(), TOLERANCE)
    assert close(loaded(x), ours.reconstruct(x), TOLERANCE)


def test_sparsify_loads_what_we_write(tmp_path):
    from sparsify import SparseCoder

    sae = shaken(TopK)
    formats.write(sae, tmp_path / "layers.2", "sparsify")
    loaded, x = SparseCoder.load_from_disk(tmp_path / "layers.2"), inputs()
    top = loaded.encode(x)
    codes = torch.zeros(len(x), sae.n).scatter(1, top.top_indices, top.top_acts)
    assert close(codes, sae.encode(x).dense(), TOLERANCE)
    assert close(loaded.decode(top.top_acts, top.top_indices), sae.reconstruct(x), TOLERANCE)
    assert set(SparseCoder.load_many(str(tmp_path), local=True)) == {"layers.2"}


@pytest.mark.parametrize("architecture", [Transcoder, SkipTranscoder])
def test_sparsify_loads_our_transcoders(architecture, tmp_path):
    from sparsify import SparseCoder

    sae, x = architecture(d=10, n=36, d_out=10, k=4), inputs()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in sae.state_dict().items():
        if name != "atoms":
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    formats.write(sae, tmp_path / "mlp", "sparsify")
    found = SparseCoder.load_from_disk(tmp_path / "mlp")(x, torch.zeros_like(x))
    codes = torch.zeros(len(x), sae.n).scatter(1, found.latent_indices, found.latent_acts)
    assert close(codes, sae.encode(x).dense(), TOLERANCE)
    assert close(found.sae_out, sae(x), TOLERANCE)


@pytest.mark.parametrize("architecture", [TopK, ReLU, JumpReLU, BatchTopK, Matryoshka, Gated])
def test_dictionary_learning_loads_what_we_write(architecture, tmp_path):
    from dictionary_learning import dictionary, utils

    sae = shaken(architecture)
    formats.write(sae, tmp_path / "trainer_0", "dictionary_learning")
    if architecture is Matryoshka:
        # Their load_dictionary hands the class no device it knows of; the class itself loads the file.
        from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE

        loaded = MatryoshkaBatchTopKSAE.from_pretrained(tmp_path / "trainer_0" / "ae.pt")
    elif architecture is TopK:
        # Their from_pretrained of top-k forgets to return the dictionary where no device is given.
        loaded, _ = utils.load_dictionary(str(tmp_path / "trainer_0"), device="cpu")
    elif architecture is ReLU:
        loaded = dictionary.AutoEncoder.from_pretrained(tmp_path / "trainer_0" / "ae.pt", normalize_decoder=False)
    else:
        loaded, _ = utils.load_dictionary(str(tmp_path / "trainer_0"), device="cpu")
    x = inputs()
    codes = loaded.encode(x)
    assert close(codes, sae.encode(x).dense(), TOLERANCE)
    assert close(loaded.decode(codes), sae.reconstruct(x), TOLERANCE)


def test_saelens_reads_our_jumprelu_through_dictionary_learning_and_back(tmp_path):
    """A chain through three packages ends where it began."""
    sae, x = shaken(JumpReLU), inputs()
    place = tmp_path / "0"
    formats.write(sae, place, "saelens")
    for step, name in enumerate(("dictionary_learning", "gemma_scope", "openmoss", "plain", "saelens"), 1):
        suffix = ".safetensors" if name == "plain" else ""
        following = tmp_path / f"{step}{suffix}"
        formats.write(formats.read(place), following, name)
        place = following
    from sae_lens import SAE

    loaded = SAE.load_from_disk(place)
    assert close(loaded.encode(x), sae.encode(x).dense(), TOLERANCE)
    assert close(loaded(x), sae.reconstruct(x), TOLERANCE)


def test_the_fixtures_are_what_these_versions_still_write(theirs):
    """Names of settings and tensors in the committed fixtures are those of the packages installed now."""
    for case, (path, _, _) in theirs.items():
        stored = peers_cases.FIXTURES / case
        assert {file.name for file in path.iterdir()} == {file.name for file in stored.iterdir()}, case
        for name in ("cfg.json", "config.json"):
            if (path / name).is_file():
                new, old = json.loads((path / name).read_text()), json.loads((stored / name).read_text())
                assert set(new) == set(old), case


def test_the_stored_versions_are_recorded():
    recorded = json.loads((peers_cases.FIXTURES / "versions.json").read_text())
    if recorded != peers_cases.versions():
        warnings.warn(f"fixtures were written by {recorded}, installed are {peers_cases.versions()}", stacklevel=1)
    assert set(recorded) == set(peers_cases.versions())
