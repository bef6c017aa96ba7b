"""Which matrix is meant? A dictionary from a saved SAE, a .safetensors or .npy file, or a model's unembedding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ... import capture, dictionaries
from ...core import Activations, Dictionary, FormatError, SparseCode, SparseCoder, files
from ...core.errors import nearest
from ...dictionaries import SAE
from ...dictionaries.sae.base import read_about

RowMeaning = Literal["atoms", "dimensions"]

UNEMBEDDING = "pocket:unembedding"
DUPLICATE = 1 - 1e-6
"""Cosine from which two atoms count as one: float32 rounding of an exact copy stays above it."""


@dataclass(frozen=True, eq=False)
class DictionaryFile:
    """A dictionary and where it came from.

    Args:
        dictionary: W without its zero atoms.
        origin: what was read, in words.
        kept: for each atom, its number in the file.
        zeros: zero atoms left out.
        rows: what a row of the matrix in the file was taken to be.
        sae: the SAE that the dictionary belongs to, if it does.
        model, site: where the SAE says its activations are from; "" where it does not say.
    """

    dictionary: Dictionary
    origin: str
    kept: Int[Tensor, "n"]
    zeros: int
    rows: RowMeaning
    sae: SAE | None = None
    model: str = ""
    site: str = ""

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the reader of any figure about this dictionary must know."""
        if not self.zeros:
            return ()
        return (f"{self.zeros} zero atom{'s' if self.zeros > 1 else ''} left out, since zero has no direction",)


def read_dictionary(path: str, *, tensor: str | None = None, rows: RowMeaning | None = None) -> DictionaryFile:
    """The dictionary that `path` names. Nothing is normalised; zero atoms are left out and counted.

    Without `rows` a matrix is taken to have one atom per row, and is refused if it has fewer rows than columns: most
    such matrices are the formula's d x n. Nothing in a file is ever run: `.npy` files that hold Python objects are
    refused.

    Args:
        path: a folder of a saved SAE, a `.safetensors` or `.npy` file, or `pocket:unembedding`.
        tensor: which tensor of a `.safetensors` file; its only matrix without it.
        rows: "atoms" if each row of the matrix is an atom, "dimensions" if each column is.

    Returns:
        The dictionary in float32 or float64, as stored (half precision becomes float32).

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FormatError: if the file is damaged, or holds no such matrix.
        ValueError: if it is not clear which tensor or which way round is meant, or the matrix is no dictionary.
        TypeError: if the numbers are not floating point.
    """
    if path == UNEMBEDDING:
        _refuse(path, tensor, rows)
        loaded = capture.load("pocket")
        weight = loaded.model.get_output_embeddings().weight.detach()
        return _checked(weight, "the pocket model's unembedding", "atoms")
    place = Path(path).expanduser()
    if not path.strip() or not place.exists():
        raise FileNotFoundError(
            f"there is no file or folder '{path}'. Give the folder of a saved SAE, a .safetensors or .npy file, or "
            f"'{UNEMBEDDING}'."
        )
    if place.is_dir():
        _refuse(path, tensor, rows)
        coder = dictionaries.load_coder(place)
        sae = coder if isinstance(coder, dictionaries.SAE) else None
        notes = read_about(place)["notes"]
        model, site = (str(notes.get(key, "")) if isinstance(notes, dict) else "" for key in ("model", "site"))
        what = f"{type(coder).__name__}{' SAE' if sae is not None else ''} in {place.name}"
        found = _checked(coder.dictionary.atoms, what, "atoms")
        return DictionaryFile(
            found.dictionary, found.origin, found.kept, found.zeros, "atoms", sae=sae, model=model, site=site
        )
    if place.suffix == ".safetensors":
        matrix, name = _from_safetensors(place, tensor)
        return _oriented(matrix, f"{name} of {place.name}", rows)
    if place.suffix == ".npy":
        if tensor is not None:
            raise ValueError(f"tensor names a tensor of a .safetensors file; '{path}' holds one array. Leave it out.")
        return _oriented(_from_npy(place), place.name, rows)
    raise FormatError(
        f"'{path}' is not a format of dictionaries: give a .safetensors or .npy file or the folder of a saved SAE. "
        "Convert others with safetensors.torch.save_file; pickles (.pt, .pkl) are not read, since they can run code."
    )


def _refuse(path: str, tensor: str | None, rows: RowMeaning | None) -> None:
    for name, given in (("tensor", tensor), ("rows-are", rows)):
        if given is not None:
            raise ValueError(
                f"{name} is for .safetensors and .npy files; '{path}' says itself what it is. Leave it out."
            )


def _from_safetensors(place: Path, tensor: str | None) -> tuple[Tensor, str]:
    tensors = files.read_tensors(place)
    if tensor is not None:
        if tensor not in tensors:
            listed = ", ".join(sorted(tensors)[:12]) or "none"
            raise ValueError(f"{place} has no tensor {tensor!r}.{nearest(tensor, tensors)} It has: {listed}.")
        return tensors[tensor], tensor
    matrices = sorted(name for name, value in tensors.items() if value.ndim == 2)
    if not matrices:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(tensors.items())[:6]) or "nothing"
        raise FormatError(f"{place} holds no matrix, only {shapes}. A dictionary has two axes: atoms and dimensions.")
    if len(matrices) > 1:
        more = ", ..." if len(matrices) > 12 else ""
        raise ValueError(
            f"{place} holds {len(matrices)} matrices: {', '.join(matrices[:12])}{more}. Say which with --tensor NAME."
        )
    return tensors[matrices[0]], matrices[0]


def _from_npy(place: Path) -> Tensor:
    array = files.read_array(place)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{place} holds {array.dtype} numbers, and atoms are floating point. "
            "Save it as float32: x.astype('float32')."
        )
    # longdouble has no torch dtype; foreign byte orders have none either.
    kept = np.float64 if array.dtype.itemsize >= 8 else np.float32
    return torch.from_numpy(np.ascontiguousarray(array, dtype=kept))


def _oriented(matrix: Tensor, origin: str, rows: RowMeaning | None) -> DictionaryFile:
    if matrix.ndim != 2:
        raise FormatError(
            f"{origin} has shape {tuple(matrix.shape)}; a dictionary is a matrix of atoms and dimensions."
        )
    if not matrix.is_floating_point():
        raise TypeError(f"{origin} is {matrix.dtype}, and atoms are floating point. Save it as float32.")
    height, width = matrix.shape
    if rows is None and height < width:
        raise ValueError(
            f"{origin} is {height} x {width}. With one atom per row that is {height} atoms in {width} dimensions, "
            f"fewer atoms than dimensions; transposed it is {width} atoms in {height} dimensions. Say which is meant: "
            "--rows-are atoms, or --rows-are dimensions."
        )
    rows = rows or "atoms"
    return _checked(matrix if rows == "atoms" else matrix.T.contiguous(), origin, rows)


def _checked(atoms: Tensor, origin: str, rows: RowMeaning) -> DictionaryFile:
    atoms = atoms.detach()
    atoms = atoms if atoms.dtype in (torch.float32, torch.float64) else atoms.float()
    finite = torch.isfinite(atoms).all(1)
    if not bool(finite.all()):
        bad = (~finite).nonzero()[:, 0]
        raise ValueError(
            f"{origin}: {len(bad)} of {len(atoms)} atoms have a NaN or infinite entry, the first is "
            f"atom {int(bad[0])}. Repair or remove them."
        )
    n, d = atoms.shape
    if d < 2:
        raise ValueError(
            f"{origin} has d = {d} dimension{'' if d == 1 else 's'}; directions need at least two. "
            "If the matrix is the other way round, say --rows-are " + ("dimensions." if rows == "atoms" else "atoms.")
        )
    kept = (atoms != 0).any(1).nonzero()[:, 0]
    if len(kept) < 2:
        raise ValueError(
            f"{origin} has {len(kept)} nonzero atom{'' if len(kept) == 1 else 's'} of {n}; geometry needs at least two."
        )
    return DictionaryFile(Dictionary(atoms[kept].clone()), origin, kept, n - len(kept), rows)


class OwnEncoder(SparseCoder):
    """An SAE's encoder on the atoms that were kept: latents with zero atoms, which write nothing, are dropped.

    Args:
        found: a dictionary read from an SAE's folder.
    """

    def __init__(self, found: DictionaryFile) -> None:
        assert found.sae is not None
        self.sae = found.sae
        self.dictionary = Dictionary(found.dictionary.atoms, found.sae.bias.detach())
        self._place = torch.full((found.sae.n,), -1, dtype=torch.int64)
        self._place[found.kept] = torch.arange(len(found.kept))

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The SAE's code, its indices counted among the atoms that were kept."""
        code = self.sae.encode(x)
        indices = self._place[code.indices]
        return SparseCode(torch.where(indices >= 0, code.values, 0), indices.clamp(min=0), self.dictionary.n)


def read_codes(
    found: DictionaryFile, *, tokens: int, text: str | None = None, seed: int = 0, context: int = 128
) -> tuple[Activations, SparseCode, Int[Tensor, "sequences"]]:
    """Rows of the site an SAE was trained at, its `OwnEncoder`'s code of them, and the document of each sequence.

    The model and the site are those in the SAE's notes.

    Args:
        found: a dictionary read from an SAE's folder.
        tokens: rows wanted; fewer if the text is shorter.
        text: as for `superscope scan`: a file, a folder, `datasets:NAME`; the text every Python carries without it.
        seed: of the order of the text.
        context: tokens the model sees at once.

    Raises:
        ValueError: if the dictionary is no SAE's, the SAE does not say where it was trained, or x does not fit it.
    """
    sae = found.sae
    if sae is None:
        raise ValueError(
            f"{found.origin} has no encoder, so there are no codes of data. Give the folder of a saved SAE."
        )
    if not found.model or not found.site:
        raise ValueError(
            f"{found.origin} does not say which model and site it was trained at, so its codes cannot be made. "
            "Save it with sae.save(folder, notes={'model': ..., 'site': ...}), or use random supports only: "
            "--tokens 0."
        )
    loaded = capture.load(found.model)
    (site,) = capture.sites(loaded.model, [found.site])
    corpus = capture.tokens(loaded.tokenizer, capture.documents(text), context=context, limit=tokens, seed=seed)
    parts = [batch[site] for batch in capture.harvest(loaded.model, [site], corpus)]
    x = torch.cat([part.x for part in parts])[:tokens].to(sae.encoder.dtype)
    places = torch.cat([part.places for part in parts if part.places is not None])[:tokens]
    if x.shape[1] != sae.d:
        raise ValueError(
            f"{found.origin} wants d = {sae.d}, but {found.site} of {found.model} has {x.shape[1]} dimensions. "
            "The notes name another site than the one it was trained at."
        )
    return Activations(x, places=places), OwnEncoder(found).encode(x), corpus.document
