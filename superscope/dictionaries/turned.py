"""What would this encoder do if its atoms were right? An SAE whose latents read and write other directions."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Dictionary, ShapeError, SparseCode, SparseCoder
from .sae import SAE


class Turned(SparseCoder):
    r"""An SAE with latent $m_i$ turned onto atom $b_i$, one for each atom; its other latents are off.

    The rotation that takes a latent's atom $\hat a$ to $\hat b$ and leaves all that is orthogonal to both takes its
    encoder row along: $e' = e - (\hat a + \hat b) \frac{(\hat a + \hat b) \cdot e}{1 + \hat a \cdot \hat b} + 2 \hat b
    (\hat a \cdot e)$. So length of the row, angle to its atom, bias, threshold and rule are the encoder's own, and only
    where it looks is another's. What it still misses is no fault of the atoms.

    Args:
        sae: the encoder; it is not changed.
        atoms: W, whose unit atoms are read and written instead.
        latents: of each atom the latent that is turned onto it; -1 for an atom that gets none.

    Raises:
        ShapeError: if there is not one latent for each atom, or d differs.
        ValueError: if a latent is given twice, or an atom is zero.

    Example:
        >>> from .sae import TopK
        >>> sae = TopK(d=4, n=8, k=1)
        >>> turned = Turned(sae, Dictionary(torch.eye(4)), torch.arange(4))
        >>> turned.encode(torch.eye(4)).indices[:, 0].tolist()
        [0, 1, 2, 3]
    """

    def __init__(self, sae: SAE, atoms: Dictionary, latents: Int[Tensor, "n"]) -> None:
        if atoms.d != sae.d or len(latents) != atoms.n:
            raise ShapeError(
                f"Turned: {atoms.n} atoms in d = {atoms.d} with {len(latents)} latents of an SAE of d = {sae.d}. Give "
                "one latent for each atom, of the same space."
            )
        used = latents[latents >= 0]
        if len(used.unique()) != len(used):
            raise ValueError("Turned: a latent is given twice. It can be turned onto one atom only.")
        self.sae = copy.deepcopy(sae).requires_grad_(False)
        unit = atoms.unit().atoms.to(sae.encoder)
        self._atom_of = torch.full((sae.n,), -1)
        self._atom_of[used] = (latents >= 0).nonzero()[:, 0]
        # An atom without a latent is never written; it keeps its place so that atoms are counted as they were.
        self.dictionary = Dictionary(unit, sae.bias.detach().clone())
        with torch.no_grad():
            read = sae.atoms[used] / sae.atoms[used].norm(dim=1, keepdim=True).clamp_min(1e-30)
            rows = _rotated(sae.encoder[used], read, unit[latents >= 0])
            for own, turned in ((self.sae.encoder, rows), (self.sae.atoms, unit[latents >= 0])):
                own.zero_()
                own[used] = turned
            off = torch.ones(sae.n, dtype=torch.bool)
            off[used] = False
            self.sae.encoder_bias[off] = 0.0

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The turned SAE's code, its indices counted among the atoms."""
        code = self.sae.encode(x)
        indices = self._atom_of[code.indices]
        return SparseCode(torch.where(indices >= 0, code.values, 0), indices.clamp(min=0), self.dictionary.n)


def _rotated(e: Float[Tensor, "m d"], a: Float[Tensor, "m d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    along = (a * b).sum(1, keepdim=True)
    # No rotation is the least one for opposite atoms: there e is mirrored, which takes a to b as well.
    opposite = along < -1 + 1e-6
    both = a + b
    turned = (
        e - both * (both * e).sum(1, keepdim=True) / (1 + along).clamp_min(1e-6) + 2 * b * (a * e).sum(1, keepdim=True)
    )
    return torch.where(opposite, e - 2 * a * (a * e).sum(1, keepdim=True), turned)
