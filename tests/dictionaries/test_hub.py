from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

import huggingface_hub
import pytest
from huggingface_hub import errors

from superscope.core import FormatError
from superscope.dictionaries import TopK, formats, from_pretrained, hub, push_to_hub


@pytest.fixture
def sae():
    return TopK(d=6, n=20, k=3, seed=2)


def refusal(kind):
    """The client's own exception, without the response of a server that there was not."""
    error = kind.__new__(kind)
    error.args = ("no",)
    return error


class Hub:
    """A hub on disk: what the client's functions do, without a network."""

    def __init__(self, root: Path) -> None:
        self.root, self.fetched, self.created = root, [], []

    def folder(self, name):
        if not (self.root / name).is_dir():
            raise refusal(errors.RepositoryNotFoundError)
        return self.root / name

    def list_repo_files(self, name, *, revision=None):
        folder = self.folder(name)
        return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]

    def snapshot_download(self, name, *, revision=None, allow_patterns):
        kept = self.root / "cache" / name
        for file in self.list_repo_files(name):
            if any(
                PurePosixPath(file).match(p) or file == p or file.startswith(p.removesuffix("*"))
                for p in allow_patterns
            ):
                self.fetched.append(file)
                (kept / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder(name) / file, kept / file)
        kept.mkdir(parents=True, exist_ok=True)
        return str(kept)

    def create_repo(self, name, *, private, exist_ok):
        self.created.append((name, private))
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)

    def file_exists(self, name, file, *, revision=None):
        return (self.folder(name) / file).is_file()

    def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
        shutil.copytree(folder_path, self.folder(repo_id), dirs_exist_ok=True)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stand_in)
    for name in ("list_repo_files", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(stand_in, name))
    return stand_in


def test_a_local_folder_needs_no_hub(sae, tmp_path):
    formats.write(sae, tmp_path / "many" / "layer_3", "sparsify")
    found = from_pretrained(str(tmp_path / "many"), "layer_3")
    assert (found.format, found.sae.k) == ("sparsify", 3)
    assert from_pretrained(str(tmp_path / "many" / "layer_3")).agreement.good


def test_what_is_pushed_is_found_again_with_its_probe_and_a_card(sae, remote):
    assert push_to_hub(sae, "me/saes", "layer_3", notes={"model": "gpt2"}, private=True).good
    assert remote.created == [("me/saes", True)]
    found = from_pretrained("me/saes")
    assert found.notes == {"model": "gpt2"}
    assert found.agreement.good
    card = (remote.root / "me" / "saes" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: saelens\n")
    assert 'SAE.from_pretrained("me/saes", "layer_3")' in card
    assert "- model: gpt2" in card


def test_only_the_files_of_one_dictionary_are_fetched_and_a_card_is_kept(sae, remote):
    push_to_hub(sae, "me/saes", "a")
    card = remote.root / "me" / "saes" / "README.md"
    card.write_text("mine")
    push_to_hub(formats.read(remote.root / "me" / "saes" / "a"), "me/saes", "b", format="sparsify")
    assert card.read_text() == "mine"
    with pytest.raises(FormatError, match=r"me/saes holds 2 dictionaries: a, b. Say which with `inside`"):
        from_pretrained("me/saes")
    assert from_pretrained("me/saes", "b").format == "sparsify"
    assert {PurePosixPath(file).parts[0] for file in remote.fetched} == {"b"}


def test_a_dictionary_that_is_one_file(sae, remote):
    push_to_hub(sae, "me/one", "l3.safetensors", format="plain")
    found = from_pretrained("me/one", "l3.safetensors")
    assert found.agreement is not None
    assert found.sae.k == 3


def test_a_dictionary_at_the_root_and_one_in_checkpoints(sae, remote, tmp_path):
    formats.write(sae, remote.root / "me" / "root")
    assert from_pretrained("me/root").sae.k == 3
    assert hub._only("x/y", ["L3/hyperparams.json", "L3/checkpoints/final.safetensors"]) == "L3"


def test_sentences_for_what_is_not_there(sae, remote, tmp_path):
    with pytest.raises(FileNotFoundError, match="it is no repository of the hub either"):
        from_pretrained("nowhere")
    with pytest.raises(FileNotFoundError, match="the hub has no repository 'me/none', or it is private"):
        from_pretrained("me/none")
    push_to_hub(sae, "me/saes", "a")
    with pytest.raises(FileNotFoundError, match="me/saes has no 'b'"):
        from_pretrained("me/saes", "b")
    (remote.root / "me" / "text").mkdir()
    (remote.root / "me" / "text" / "README.md").write_text("hello")
    with pytest.raises(FormatError, match="holds no dictionary under a name known here"):
        from_pretrained("me/text")
    for inside in ("", "/etc", "../x"):
        with pytest.raises(ValueError, match="within the repository"):
            push_to_hub(sae, "me/saes", inside)


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (lambda: refusal(errors.GatedRepoError), FileNotFoundError, "is gated: accept its terms"),
        (lambda: refusal(errors.RevisionNotFoundError), FileNotFoundError, "has no revision 'v9'"),
        (
            lambda: errors.LocalEntryNotFoundError("no"),
            FileNotFoundError,
            "not in the cache and the hub was not reached",
        ),
        (lambda: OSError("disk is full\nmore"), OSError, "the hub could not give me/saes: disk is full$"),
        (lambda: errors.OfflineModeIsEnabled("offline"), OSError, "the hub could not give me/saes: offline"),
    ],
)
def test_what_the_hub_raises_is_told_in_a_sentence(raised, kind, says, monkeypatch):
    def fail(*arguments, **named):
        raise raised()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=says):
        from_pretrained("me/saes", "a", revision="v9")
