"""What every sparse autoencoder is: an encoder, a unit-norm dictionary, and a rule that keeps few latents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._version import __version__
from ...core import Dictionary, FormatError, ShapeError, SparseCode, SparseCoder, files

_ABOUT = ("kind", "architecture", "arguments", "superscope", "notes")
# Numbers in one block of pre-activations: 8 MB in float32, small enough to stay in cache beside the encoder.
_BLOCK = 2**21


class SAE(nn.Module, SparseCoder):
    r"""f = sparsify(E (x - b) + e),  x ~ D^T f + b, with the rows of D of norm 1.

    Abstract: an architecture says `sparsify` and, if it has one, `penalty`. The encoder starts as the dictionary;
    `train` rescales it to the data. Rows of D have norm 1, so that a latent's value is a length in the units of x.

    Args:
        d: dimension of x.
        n: number of latents.
        seed: of the random start.
        further: the architecture's own arguments, kept with these as `about`.

    Attributes:
        about: the arguments of the constructor, verbatim.
        atoms: the dictionary D, one unit-norm row per latent.
        encoder: E, one row per latent.
        encoder_bias: e.
        bias: b, taken from x before encoding and added after decoding.

    Raises:
        ValueError: if d or n is smaller than 1.
    """

    def __init__(self, d: int, n: int, *, seed: int = 0, **further: Any) -> None:
        super().__init__()
        for name, number in (("d", d), ("n", n)):
            if number < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1; got {number}.")
        self.about: Mapping[str, Any] = {"d": d, "n": n, **further, "seed": seed}
        self.d, self.n = d, n
        atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
        atoms /= atoms.norm(dim=1, keepdim=True)
        self.atoms = nn.Parameter(atoms)
        self.encoder = nn.Parameter(atoms.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(d))

    @abstractmethod
    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        """The code that the architecture keeps of dense pre-activations."""

    def penalty(self, code: SparseCode) -> Float[Tensor, ""]:
        """What is added to the squared error while training; zero unless the architecture says otherwise."""
        return code.values.new_zeros(())

    def pre_activations(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """E (x - b) + e, dense."""
        return torch.addmm(self.encoder_bias, x - self.bias, self.encoder.T)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        """The code and D^T f + b, with gradients to every parameter: what training descends on.

        Here by autograd through the dense pre-activations, right for every architecture. One whose values depend on
        the chosen pre-activations alone overrides it with the sparse products.
        """
        code = self.sparsify(self.pre_activations(x))
        return code, code.dense() @ self.atoms + self.bias

    @final
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The code of each row of x. Memory O(block), never (rows, n).

        Raises:
            ShapeError: if the rows of x have another length than d.
            TypeError: if x has another dtype than the weights.
        """
        if x.shape[-1] != self.d:
            raise ShapeError(
                f"{type(self).__name__}.encode: x has rows of {x.shape[-1]} numbers, this SAE wants d = {self.d}. "
                "Give one activation per row, from the site it was trained on."
            )
        if x.dtype != self.encoder.dtype:
            raise TypeError(
                f"{type(self).__name__}.encode: x is {x.dtype} and the weights are {self.encoder.dtype}. "
                "Convert one: x.to(sae.encoder.dtype)."
            )
        rows = x.reshape(-1, self.d)
        size = max(_BLOCK // self.n, 1)
        codes = [self.sparsify(self.pre_activations(block)) for block in rows.split(size)]
        if not codes:
            codes = [self.sparsify(rows.new_zeros(1, self.n))[:0]]
        k = max(code.k for code in codes)
        codes = [_widen(code, k) for code in codes]
        values, indices = torch.cat([c.values for c in codes]), torch.cat([c.indices for c in codes])
        return SparseCode(values.reshape(*x.shape[:-1], k), indices.reshape(*x.shape[:-1], k), self.n)

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """D and b, without gradients. They share memory with the weights, so training goes on to change them."""
        return Dictionary(self.atoms.detach(), self.bias.detach())

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The reconstruction of x."""
        return self.reconstruct(x)

    @torch.no_grad()
    def normalise(self) -> None:
        """Divides every atom by its norm; a zero atom is left as it is."""
        norms = self.atoms.norm(dim=1, keepdim=True)
        self.atoms.div_(torch.where(norms > 0, norms, torch.ones_like(norms)))

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.about.items())

    def save(self, folder: Path | str, *, notes: Mapping[str, Any] | None = None) -> None:
        """Writes weights.safetensors and about.json, each atomically.

        Args:
            folder: made if it is not there.
            notes: anything JSON can hold: the site, the data, the figures reached.
        """
        folder = Path(folder)
        files.write_tensors(folder / "weights.safetensors", dict(self.state_dict()))
        about = {
            "kind": "sae",
            "architecture": type(self).__name__,
            "arguments": dict(self.about),
            "superscope": __version__,
            "notes": dict(notes or {}),
        }
        files.write_json(folder / "about.json", about)

    @classmethod
    def load(cls, folder: Path | str) -> SAE:
        """The SAE saved in a folder, which must be of this architecture (`dictionaries.load` takes any).

        Raises:
            FileNotFoundError: if a file is missing.
            FormatError: if a file is damaged, of another architecture, has unknown keys or weights that do not fit.
        """
        about = read_about(folder)
        where = Path(folder) / "about.json"
        if about["architecture"] != cls.__name__:
            raise FormatError(
                f"{where} describes a {about['architecture']}, not a {cls.__name__}. "
                "Load it with dictionaries.load(folder)."
            )
        try:
            sae = cls(**about["arguments"])
        except (TypeError, ValueError) as error:
            raise FormatError(f"{where} has arguments that {cls.__name__} does not take: {error}") from error
        weights = files.read_tensors(Path(folder) / "weights.safetensors")
        expected = sae.state_dict()
        files.refuse_unknown(weights, tuple(expected), str(Path(folder) / "weights.safetensors"))
        for name, tensor in expected.items():
            if name not in weights:
                raise FormatError(f"{folder}/weights.safetensors lacks {name!r}. Save the SAE again.")
            if weights[name].shape != tensor.shape:
                raise FormatError(
                    f"{folder}/weights.safetensors: {name} has shape {tuple(weights[name].shape)}, "
                    f"about.json says {tuple(tensor.shape)}."
                )
            if not bool(torch.isfinite(weights[name]).all()):
                raise FormatError(
                    f"{folder}/weights.safetensors: {name} holds NaN or infinite numbers. Train it again."
                )
        sae.to(weights["atoms"].dtype).load_state_dict(weights)
        return sae


def _widen(code: SparseCode, k: int) -> SparseCode:
    """The same code with k slots; the new ones are unused."""
    if code.k == k:
        return code
    room = (0, k - code.k)
    return SparseCode(nn.functional.pad(code.values, room), nn.functional.pad(code.indices, room), code.n)


def read_about(folder: Path | str) -> dict[str, Any]:
    """The about.json of a saved SAE, checked.

    Raises:
        FileNotFoundError: if there is none.
        FormatError: if it is damaged, no SAE's, or has unknown or missing keys.
    """
    where = Path(folder) / "about.json"
    if not where.is_file():
        raise FileNotFoundError(f"{folder} holds no SAE: there is no about.json. Save one there with sae.save(folder).")
    about = files.read_json(where)
    if not isinstance(about, dict) or about.get("kind") != "sae":
        raise FormatError(f"{where} does not describe an SAE.")
    files.refuse_unknown(about, _ABOUT, str(where))
    missing = [key for key in _ABOUT if key not in about]
    if missing or not isinstance(about["arguments"], dict):
        raise FormatError(f"{where} lacks {', '.join(missing) or 'its arguments'}. Save the SAE again.")
    return about
