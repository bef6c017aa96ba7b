"""One dictionary for several sites or models at once, and which of them each atom lives in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ActivationSource, Dictionary, ShapeError, SparseCode
from ..sae.archetypal import residual_share
from ..sae.base import SAE, Fit, geometric_median
from ..sae.topk import choose_largest
from ..step import sparse
from .sources import Beside


@final
class Crosscoder(SAE):
    r"""z = ((x_1 - c_1) g_1, ..., (x_s - c_s) g_s);  f = ReLU(TopK(E (z - b) + e)),  z ~ D^T f + b.

    x is the sites' activations side by side. Each is centred by c and brought by g to the spread of the whole, fixed by
    `start`, so that no site is heard only for being loud. An atom has norm 1 over all sites together; the norm of its
    part at a site says how much it lives there. `dictionary` is in the units of x.

    Args:
        d: dimension of x, the sum of `widths`.
        n: number of latents.
        k: latents kept per row.
        widths: numbers of each site, in the order they stand in x.
        one_site: whether a row is coded from one of its sites in training, by turns, and all sites are rebuilt from
            that: latents then stand for what every site shows. In use the code is that of the sites' mean
            pre-activations; `from_site` is what one of them says.
        seed: of the random start.

    Attributes:
        centre: c.
        gain: g, one factor per number of x.

    Raises:
        ValueError: if k is not in 1..n, or the widths are not positive or do not sum to d.

    Source:
        Lindsey et al., "Sparse crosscoders for cross-layer features and model diffing", Transformer Circuits 2024
        (there with an L1 penalty weighted by the parts' norms; here the k largest, which Minder et al., "Robustly
        identifying concepts introduced during chat fine-tuning using crosscoders", 2025, found to leave fewer latents
        that only seem to live at one site). With `one_site` the objective of Thasarathan et al., "Universal sparse
        autoencoders", 2025 (arXiv 2502.03714), who draw a site for each batch; here the rows of a batch take turns.

    Example:
        >>> sae = Crosscoder(d=7, n=8, k=2, widths=(4, 3))
        >>> sae.shares().sum(1).allclose(torch.ones(8))
        True
    """

    whitens = False
    sized_by = ("d", "widths")

    @classmethod
    def join(cls, sources: Sequence[ActivationSource]) -> Beside:
        """All rows side by side."""
        if len(sources) < 2:
            raise ValueError("Crosscoder learns of several sites at once; got one. Name further ones, or take TopK.")
        return Beside(sources)

    def __init__(self, d: int, n: int, k: int, widths: Sequence[int], one_site: bool = False, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"Crosscoder: k must be in 1..n = {n}, the latents of a row; got k = {k}.")
        if not widths or min(widths) < 1 or sum(widths) != d:
            raise ValueError(
                f"Crosscoder: widths must be positive and sum to d = {d}; got {tuple(widths)}. "
                "Give one width per site, in the order in which they stand side by side."
            )
        super().__init__(d, n, k=k, widths=list(widths), one_site=one_site, seed=seed)
        self.k, self.widths, self.one_site = k, tuple(widths), one_site
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("gain", torch.ones(d))
        self.centre: Tensor
        self.gain: Tensor

    def levelled(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z: every site about its centre, all with one spread."""
        return (x - self.centre) * self.gain

    def read(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """What the encoder is given of z: all of it; with `one_site` the sites' mean, each for its own part."""
        return z / len(self.widths) if self.one_site else z

    def pre_activations(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        return super().pre_activations(self.read(self.levelled(x)))

    @torch.no_grad()
    def from_site(self, x: Float[Tensor, "b _"], site: int) -> SparseCode:
        """The code that one site gives by itself, the others at their centres.

        Args:
            x: rows of that site alone.
            site: its number.

        Raises:
            ShapeError: if the rows have another length than the site's.
        """
        if x.shape[1] != self.widths[site]:
            raise ShapeError(
                f"Crosscoder.from_site: site {site} has rows of {self.widths[site]} numbers; got {x.shape[1]}."
            )
        whole = self.centre.repeat(len(x), 1)
        whole.split(self.widths, dim=1)[site].copy_(x)
        return self.sparsify(super().pre_activations(self.levelled(whole)))

    def _by_turns(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z with one site left in each row: the batch's rows are in no order, so that turns are draws."""
        site = torch.repeat_interleave(torch.tensor(self.widths, device=z.device))
        turn = torch.arange(len(z), device=z.device) % len(self.widths)
        return torch.where(site == turn[:, None], z, 0.0)

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return choose_largest(pre, self.k)

    def _levelled_reconstruction(
        self, x: Float[Tensor, "b d"], *, by_turns: bool = False
    ) -> tuple[SparseCode, Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """The code, z and its reconstruction."""
        with torch.no_grad():
            z = self.levelled(x)
            if by_turns:
                given = self._by_turns(z)
                code = self.sparsify(super().pre_activations(given))
            else:
                given, code = self.read(z), self.encode(x)
        chosen = sparse.Chosen(code.indices, self.n)
        pre = sparse.pre_activations(given, self.encoder, self.encoder_bias, self.bias, code.values, chosen)
        values = pre.relu()
        return SparseCode(values, code.indices, self.n), z, sparse.decode(values, self.atoms, chosen) + self.bias

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        """The code, and x from it in x's own units."""
        code, _, z_hat = self._levelled_reconstruction(x)
        return code, z_hat / self.gain + self.centre

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b e"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        r"""$|z - \hat z|^2 / (B d\,\mathrm{scale}^2)$: each site counts by its own spread.

        Raises:
            ShapeError: if there is a target of another width.
        """
        if target is not None and target.shape != x.shape:
            raise ShapeError(
                f"Crosscoder: predicts all of x, d = {self.d}; got a target with rows of {target.shape[-1]} numbers. "
                "Put it beside x as one more site."
            )
        code, z, z_hat = self._levelled_reconstruction(x, by_turns=self.one_site)
        wanted = z if target is None else self.levelled(target)
        return Fit(code, z_hat / self.gain + self.centre, self.squared(z_hat, wanted, scale))

    @torch.no_grad()
    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        """Centres each site, measures its spread, and sets the encoder to the dictionary at its best scale.

        Raises:
            ValueError: if a site is constant.
        """
        middle = x.double().mean(0)
        away = x.double() - middle
        self.centre.copy_(geometric_median(x) if centre == "median" else middle)
        whole = float(away.square().mean().sqrt())
        for site, part in enumerate(away.split(self.widths, dim=1)):
            spread = float(part.square().mean().sqrt())
            if not spread > 0:
                raise ValueError(f"Crosscoder: site {site} is constant in the first batch. Leave it out, or check it.")
            self.gain.split(self.widths)[site].fill_(whole / spread)
        self.bias.zero_()
        self.encoder_bias.zero_()
        self.encoder.copy_(self.atoms)
        z = self.levelled(x).double()
        code = self.encode(x)
        r = Dictionary(self.atoms.detach()).compose(code).double()
        energy = float(r.square().sum())
        c = float((r * z).sum()) / energy if energy > 0 else 1.0
        if c > 0:
            self.encoder.mul_(c)

    def auxiliary(self, x: Tensor, error: Tensor, dead: Tensor, k: int) -> Tensor:
        """The share of the levelled error's energy that the dead latents' own reconstruction of it leaves."""
        rows = dead.nonzero().squeeze(1)
        z = self.read(self.levelled(x)) - self.bias.detach()
        pre = torch.addmm(self.encoder_bias[rows], z, self.encoder[rows].T)
        return residual_share(error * self.gain, pre, self.atoms[rows], k)

    def combination(self, x: Float[Tensor, "b d"]) -> tuple[Dictionary, Float[Tensor, "b d"]]:
        """In z, where every site counts by its own spread, as in training."""
        return Dictionary(self.atoms.detach(), self.bias.detach()), self.levelled(x)

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """Atoms and bias in the units of x, without gradients: D / g and b / g + c. Their norms differ."""
        return Dictionary(self.atoms.detach() / self.gain, self.bias.detach() / self.gain + self.centre)

    @torch.no_grad()
    def norms(self) -> Float[Tensor, "n sites"]:
        """Norm of each atom's part at each site, sites made equally loud; the squares of a row sum to 1."""
        return torch.stack([part.norm(dim=1) for part in self.atoms.split(self.widths, dim=1)], 1)

    def shares(self) -> Float[Tensor, "n sites"]:
        """Share of each atom's energy at each site: 1 / sites everywhere for an atom that lives in all alike.

        A share near 0 says that the site hardly shows what the latent finds, not that it has no such feature: the
        feature may have another latent there.
        """
        return self.norms().square()

    def relative_norm(self, one: int, other: int) -> Float[Tensor, "n"]:
        r"""$|w^{other}| / (|w^{one}| + |w^{other}|)$ of each atom: 0 lives at `one` only, 1/2 in both, 1 at `other`.

        Of two models, those near 0 and near 1 are the candidates for what training added or took away.
        """
        norms = self.norms()
        return norms[:, other] / (norms[:, one] + norms[:, other])
