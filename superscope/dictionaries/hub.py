"""Dictionaries on the Hugging Face hub: fetched in any format known here, shared so that others can load them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from jaxtyping import Float
from torch import Tensor

from ..core import FormatError, files
from . import formats
from .formats import Agreement, Imported
from .sae.base import SAE

# One of these lies in the folder of every dictionary (Llama Scope's one folder further down).
_WEIGHTS = (
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
    "params.npz",
    "params.safetensors",
    "final.safetensors",
    "pruned.safetensors",
    "weights.safetensors",
)
# The base of what the hub raises for answers and for connections; OSError where it builds on requests.
_FAILED: tuple[type[Exception], ...] = (OSError, getattr(errors, "HTTPError", OSError))


def from_pretrained(
    name: str,
    inside: str = "",
    *,
    revision: str | None = None,
    format: str | None = None,
    **given: Any,
) -> Imported:
    """The dictionary in a repository on the hub, or in a local folder.

    Only the files of that one dictionary are fetched, into the hub's cache; what is there already is not fetched again,
    and with HF_HUB_OFFLINE=1 nothing is.

    Args:
        name: repository "owner/name", or a local folder.
        inside: folder or file within it; needed where there are several dictionaries.
        revision: branch, tag or commit; a commit makes the result repeatable.
        format: as for `formats.read`.
        given: further arguments of `formats.read`: what the files do not say.

    Raises:
        FileNotFoundError: if there is no such repository, folder or revision, or it is not in the cache and offline.
        FormatError: if it holds none or several dictionaries, or one that cannot be read.
        OSError: if the hub cannot be reached.

    Example:
        >>> import tempfile, superscope as ss
        >>> folder = tempfile.mkdtemp()
        >>> agreement = ss.dictionaries.formats.write(ss.dictionaries.TopK(d=8, n=32, k=4), folder + "/layer 3")
        >>> ss.dictionaries.from_pretrained(folder, "layer 3").sae.k
        4
    """
    local = Path(name).expanduser()
    if local.exists():
        return formats.read(local / inside, format, **given)
    if len(PurePosixPath(name).parts) != 2:
        raise FileNotFoundError(
            f"there is no folder '{name}', and it is no repository of the hub either: those are called owner/name."
        )
    inside = inside.strip("/")
    with _told(name, revision):
        if not inside:
            inside = _only(name, huggingface_hub.list_repo_files(name, revision=revision))
        # A file's settings and probe lie beside it; sparsify's run settings lie one folder up.
        above = PurePosixPath(inside).parent
        patterns = [inside, f"{inside}/*", f"{inside}.probe.safetensors", str(above / "config.json")]
        if inside == ".":
            patterns = ["*.json", "*.safetensors", "*.npz", "*.pt", "checkpoints/*.safetensors"]
        root = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    if not (root / inside).exists():
        raise FileNotFoundError(f"{name} has no '{inside}'. Look at its files on the hub for the right folder.")
    return formats.read(root / inside, format, **given)


def _only(name: str, listed: list[str]) -> str:
    """The one folder with weights in a list of files; "." for the root."""
    folders = {PurePosixPath(file).parent for file in listed if PurePosixPath(file).name in _WEIGHTS}
    found = sorted(str(folder.parent if folder.name == "checkpoints" else folder) for folder in folders)
    if len(found) == 1:
        return found[0]
    if found:
        raise FormatError(
            f"{name} holds {len(found)} dictionaries: {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}. "
            "Say which with `inside`."
        )
    raise FormatError(
        f"{name} holds no dictionary under a name known here: no {', '.join(_WEIGHTS)}. If it has one under another "
        "name, give the file with `inside`."
    )


@contextmanager
def _told(name: str, revision: str | None) -> Iterator[None]:
    """What the hub raises, as a sentence with what to do."""
    try:
        yield
    except FormatError:
        raise
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{name} is gated: accept its terms on the hub, then log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the hub has no repository '{name}', or it is private. Check the spelling, or log in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no revision '{revision}'.") from error
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is not in the cache and the hub was not reached. Go online once, or unset HF_HUB_OFFLINE."
        ) from error
    except _FAILED as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"the hub could not give {name}: {said}") from error


def push_to_hub(
    sae: SAE | Imported,
    name: str,
    inside: str = "sae",
    *,
    format: str = "saelens",
    notes: Mapping[str, Any] | None = None,
    x: Float[Tensor, "b d"] | None = None,
    private: bool = False,
    revision: str | None = None,
) -> Agreement:
    """Writes an SAE in a format and uploads it with its probe; the repository is made if it is not there.

    In SAELens's format, `SAE.from_pretrained(name, inside)` of theirs then loads it. A README is added where there is
    none. You must be logged in (`hf auth login`).

    Args:
        sae: it.
        name: repository "owner/name".
        inside: folder in it (or file, where the format is one file).
        format: one of `formats.FORMATS`, or "superscope".
        notes, x: as for `formats.write`.
        private: for a new repository.
        revision: branch to upload to.

    Returns:
        How what was uploaded compares with `sae`.

    Raises:
        FormatError: if the format cannot hold this SAE.
        FileNotFoundError, OSError: if the hub refuses or cannot be reached.
        ValueError: if `inside` leads out of the repository.
    """
    where = PurePosixPath(inside)
    if where.is_absolute() or ".." in where.parts or not where.parts:
        raise ValueError(f"inside must be a folder or file within the repository, such as 'layer_3'; got {inside!r}.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        agreement = formats.write(sae, root / where, format, notes=notes, x=x)
        with _told(name, revision):
            hub = huggingface_hub.HfApi()
            hub.create_repo(name, private=private, exist_ok=True)
            if not hub.file_exists(name, "README.md", revision=revision):
                files.write_text(root / "README.md", _card(sae, name, inside, format, notes or {}))
            hub.upload_folder(
                repo_id=name, folder_path=root, revision=revision, commit_message=f"Add {inside} ({format})"
            )
    return agreement


def _card(sae: SAE | Imported, name: str, inside: str, format: str, notes: Mapping[str, Any]) -> str:
    notes = {**sae.notes, **notes} if isinstance(sae, Imported) else notes
    sae = sae.sae if isinstance(sae, Imported) else sae
    library = "saelens" if format == "saelens" else "superscope"
    theirs = ""
    if format == "saelens":
        theirs = f'\n```python\nfrom sae_lens import SAE\nsae = SAE.from_pretrained("{name}", "{inside}")\n```\n'
    told = "".join(f"- {key}: {value}\n" for key, value in notes.items())
    return (
        f"---\nlibrary_name: {library}\ntags:\n- sparse-autoencoder\n- {library}\n---\n\n# {name}\n\n"
        f"`{inside}`: a {type(sae).__name__} dictionary of n = {sae.n} atoms in d = {sae.d} dimensions, in the format "
        f"{format}. `probe.safetensors` beside it holds inputs with their codes and reconstructions, so that any "
        f"loader can be checked by numbers.\n\n{told}\n"
        f'```python\nimport superscope as ss\nsae = ss.dictionaries.from_pretrained("{name}", "{inside}").sae\n```\n'
        f"{theirs}"
    )
