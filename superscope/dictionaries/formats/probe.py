"""A stored batch that says what a dictionary computes, so that every copy of it can be checked by numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from jaxtyping import Float
from torch import Tensor

from ..._version import __version__
from ...core import FormatError, SparseCode, files
from ..sae.base import SAE

ROWS = 8
TOLERANCE = 1e-4
"""Relative error that an import may show: float32 sums in another order stay near 1e-6, a wrong flag near 1."""
_CANDIDATES = 64


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs and what a dictionary makes of them.

    Args:
        x: inputs.
        code: their codes.
        x_hat: their reconstructions.
    """

    x: Float[Tensor, "b d"]
    code: SparseCode
    x_hat: Float[Tensor, "b e"]

    def save(self, path: Path, weights: Path) -> None:
        """Writes it as one safetensors file, with the hashes of the files of weights that it was made for."""
        tensors = {"x": self.x, "values": self.code.values, "indices": self.code.indices, "x_hat": self.x_hat}
        hashes = {name: files.sha256(file) for name, file in _weights(weights).items()}
        files.write_tensors(path, tensors, {"superscope": __version__, "n": str(self.code.n), **hashes})

    @classmethod
    def load(cls, path: Path, n: int, weights: Path) -> Probe:
        """The probe in a file, for a dictionary of n latents.

        Few rows wake few latents of many, so a change to the others would go unseen: the hashes see it.

        Raises:
            FormatError: if it is damaged, for another dictionary, or the weights have changed since it was made.
        """
        found = files.read_tensors(path)
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        for name, stored in _weights(weights).items():
            if name in about and about[name] != files.sha256(stored):
                raise FormatError(
                    f"{stored} has changed since {path.name} was written beside it: their hashes differ. Copy both "
                    f"again; to use the weights as they are, remove {path.name}."
                )
        files.refuse_unknown(found, ("x", "values", "indices", "x_hat"), str(path))
        missing = [name for name in ("x", "values", "indices", "x_hat") if name not in found]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}. Remove it, or copy it again.")
        try:
            return cls(found["x"], SparseCode(found["values"], found["indices"], n), found["x_hat"])
        except (ValueError, TypeError) as error:
            raise FormatError(f"{path} is the probe of another dictionary: {error}") from error


def _weights(path: Path) -> dict[str, Path]:
    """The files of weights of a dictionary, by name; settings, which others may add notes to, are not among them."""
    if path.is_file():
        return {"weights": path}
    kinds = (".safetensors", ".npz", ".pt")
    found = sorted(file for file in path.rglob("*") if file.suffix in kinds and "probe" not in file.name)
    return {str(file.relative_to(path)): file for file in found}


@dataclass(frozen=True)
class Agreement:
    """How well two versions of one dictionary agree on a probe.

    Args:
        rows: inputs compared.
        codes: largest difference of a code's entry, over the largest entry.
        reconstruction: largest difference of a reconstruction's entry, over the largest entry.
        support: entries that are zero in one and not in the other.
    """

    rows: int
    codes: float
    reconstruction: float
    support: int

    @property
    def good(self) -> bool:
        """Whether both errors are within the tolerance."""
        return self.codes <= TOLERANCE and self.reconstruction <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"on {self.rows} stored rows codes differ by {self.codes:.1e} and reconstructions by "
            f"{self.reconstruction:.1e} of the largest entry, {self.support} latents in support"
        )


def compare(
    probe: Probe, encode: Callable[[Tensor], SparseCode], reconstruct: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Agreement:
    """What a dictionary makes of the probe's inputs, against what the probe says."""
    x = probe.x.to(dtype)
    ours, theirs = encode(x).dense().double(), probe.code.dense().double()
    x_hat, expected = reconstruct(x).double(), probe.x_hat.double()

    def error(a: Tensor, b: Tensor) -> float:
        largest = float(b.abs().max())
        return float((a - b).abs().max()) / (largest if largest > 0 else 1.0)

    return Agreement(len(x), error(ours, theirs), error(x_hat, expected), int(((ours != 0) != (theirs != 0)).sum()))


@torch.no_grad()
def make(
    sae: SAE,
    encode: Callable[[Tensor], SparseCode],
    reconstruct: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b d"] | None = None,
) -> Probe:
    """The probe of an SAE: on rows of x, or on rows made up to wake its latents.

    Made-up rows stand off from b by mixtures of encoder rows, long enough for latents to be on. Of the rows those are
    kept whose support does not change when x changes by 1e-4 of its distance from b, so that rounding flips no latent.
    """
    rows = _candidates(sae) if x is None else x.to(sae.encoder.dtype)
    generator = torch.Generator().manual_seed(1)
    step = torch.randn(rows.shape, generator=generator).to(rows)
    nearby = rows + 1e-4 * (rows - _centre(sae)) * step
    flips = (encode(rows).support != encode(nearby).support).sum(1)
    # Stable, so that equal rows keep their order and the choice repeats.
    kept = rows[flips.argsort(stable=True)[:ROWS]].contiguous()
    return Probe(kept, encode(kept), reconstruct(kept))


def _centre(sae: SAE) -> Float[Tensor, "d"]:
    return sae.bias.detach() if len(sae.bias) == sae.d else sae.encoder.detach().new_zeros(sae.d)


def _candidates(sae: SAE) -> Float[Tensor, "b d"]:
    generator = torch.Generator().manual_seed(0)
    encoder = sae.encoder.detach()
    n, d = encoder.shape
    directions = torch.zeros(_CANDIDATES, d, dtype=encoder.dtype)
    unit = encoder / encoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(encoder.dtype).tiny)
    for _ in range(4):
        chosen = torch.randint(n, (_CANDIDATES,), generator=generator)
        weight = torch.rand(_CANDIDATES, 1, generator=generator).to(encoder) + 0.5
        directions += weight * unit[chosen]
    noise = torch.randn(_CANDIDATES, d, generator=generator).to(encoder) / d**0.5
    directions += 0.3 * noise
    centre = _centre(sae)
    rows, most = centre + directions, -1
    # Thresholds and biases set how far from b the first latents wake; lengths are doubled until every row has one.
    for power in range(-4, 21):
        candidates = centre + directions * 2.0**power
        awake = int((sae.encode(candidates).l0 > 0).sum())
        if awake > most:
            rows, most = candidates, awake
        if awake == _CANDIDATES:
            break
    return rows
