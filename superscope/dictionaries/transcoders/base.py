"""What every transcoder is: an SAE whose code of x is read out as something else than x."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core import ActivationSource, Dictionary, ShapeError, SparseCode
from ..sae.archetypal import residual_share
from ..sae.base import SAE, Fit, geometric_median
from ..sae.rule import Largest
from ..sae.topk import choose_largest
from ..step import precision, sparse
from .sources import Paired


class Predictor(SAE):
    r"""f = ReLU(TopK(g E (x - c) + e)),  t ~ D^T f + b,  with t what is to be predicted from x.

    c, the centre of the first batch's x, and g, the ratio of the root mean square deviations of t and x, are fixed by
    `start`, so that E has no units and the values are lengths in the units of t. `bias` is b: it belongs to the output.

    Args:
        d: dimension of x.
        n: number of latents.
        d_out: dimension of t.
        k: latents kept per row.
        seed: of the random start.
        further: the architecture's own arguments.

    Attributes:
        atoms: D, n unit-norm rows in the space of t.
        encoder: E, n rows in the space of x.
        centre: c.
        gain: g.

    Raises:
        ValueError: if a size is smaller than 1, or k is not in 1..n.
    """

    whitens = False
    sized_by = ("d", "d_out")
    skips: ClassVar[bool] = False
    """Whether an affine map `skip` stands beside the latents."""

    @abstractmethod
    def __init__(self, d: int, n: int, d_out: int, k: int, seed: int = 0, **further: Any) -> None:
        name = type(self).__name__
        if d_out < 1:
            raise ValueError(f"{name}: d_out must be at least 1; got {d_out}.")
        if not 1 <= k <= n:
            raise ValueError(f"{name}: k must be in 1..n = {n}, since a row has n latents to choose from; got k = {k}.")
        super().__init__(d, n, d_out=d_out, k=k, **further, seed=seed)
        self.d_out, self.k = d_out, k
        # Directions of input and output are drawn apart: they live in different spaces.
        atoms = torch.randn(n, d_out, generator=torch.Generator().manual_seed(seed + 2**32))
        self.atoms = nn.Parameter(atoms / atoms.norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(torch.zeros(d_out))
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("gain", torch.ones(()))
        self.centre: Tensor
        self.gain: Tensor

    @classmethod
    def join(cls, sources: Sequence[ActivationSource]) -> Paired:
        """The second's rows as what is to be predicted from the first's."""
        if len(sources) != 2:
            raise ValueError(
                f"{cls.__name__} predicts one site from another; got {len(sources)}. Name the site that it reads, and "
                "the one that it predicts."
            )
        return Paired(*sources)

    def inputs(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """g (x - c): what the encoder's rows are multiplied with."""
        return (x - self.centre) * self.gain

    def pre_activations(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """g E (x - c) + e, dense."""
        return precision.product(self.encoder_bias, self.inputs(x), self.encoder)

    def combination(self, x: Float[Tensor, "b d"]) -> tuple[Dictionary, Float[Tensor, "b d"]]:
        raise TypeError(
            f"{type(self).__name__}.encode: its code adds up to another activation than x, and fitting it to x would "
            "mean nothing. Leave out `refine`."
        )

    def rule(self) -> Largest:
        return Largest(self.k)

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return choose_largest(pre, self.k)

    def beside(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b e"] | None:
        """What the prediction holds besides D^T f + b; None is nothing."""
        return None

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b e"]]:
        """The code, and the prediction of t, with gradients to every parameter."""
        with torch.no_grad():
            code = self.encode(x)
        chosen = sparse.Chosen(code.indices, self.n)
        nothing = torch.zeros_like(self.centre)
        pre = sparse.pre_activations(self.inputs(x), self.encoder, self.encoder_bias, nothing, code.values, chosen)
        values = pre.relu()
        t_hat = sparse.decode(values, self.atoms, chosen) + self.bias
        beside = self.beside(x)
        return SparseCode(values, code.indices, self.n), t_hat if beside is None else t_hat + beside

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b e"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        r"""$|t - \hat t|^2 / (B d_{out}\,\mathrm{scale}^2)$ on one batch.

        Raises:
            ShapeError: if there is no target, or it has another width than d_out.
        """
        return super().fit(x, target=self.checked(target), scale=scale, progress=progress)

    def checked(self, target: Float[Tensor, "b e"] | None) -> Float[Tensor, "b e"]:
        """The target, if it is one."""
        if target is None or target.shape[-1] != self.d_out:
            came = "none" if target is None else f"rows of {target.shape[-1]} numbers"
            raise ShapeError(
                f"{type(self).__name__}: wants a target with rows of d_out = {self.d_out} numbers, and got {came}. "
                "Train it on a source whose batches carry one, such as transcoders.Paired(source, target_source)."
            )
        return target

    @torch.no_grad()
    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b e"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        r"""Centres x and t; $w_i \propto \sum_b f_{bi} (t_b - b)$ for the random encoder's f; E at its best scale.

        The first atoms are what the random latents' activity goes with in the target: a step of regression, where
        copying the encoder has no meaning across two spaces.

        Raises:
            ValueError: if x is constant.
        """
        t = self.checked(target)
        middle = geometric_median if centre == "median" else lambda rows: rows.double().mean(0).to(rows.dtype)
        self.centre.copy_(middle(x))
        self.bias.copy_(middle(t))
        away, wanted = (x - x.double().mean(0)).double(), (t - self.bias).double()
        spread = float(away.square().mean().sqrt())
        if not spread > 0:
            raise ValueError(f"{type(self).__name__}: all rows of x are equal, so nothing can be predicted from them.")
        self.gain.fill_(float(wanted.square().mean().sqrt()) / spread)
        self.encoder_bias.zero_()
        code = self.encode(x)
        together = torch.zeros(self.n, self.d_out, dtype=torch.float64, device=x.device)
        for slot in range(code.k):
            together.index_add_(0, code.indices[:, slot], code.values[:, slot, None].double() * wanted)
        norms = together.norm(dim=1, keepdim=True)
        self.atoms.copy_(torch.where(norms > 0, together / norms.clamp(min=1e-300), self.atoms.double()))
        r = (self.decode(self.encode(x)) - self.bias).double()
        energy = float(r.square().sum())
        c = float((r * wanted).sum()) / energy if energy > 0 else 1.0
        if c > 0:
            self.encoder.mul_(c)

    def auxiliary(
        self, x: Float[Tensor, "b d"], error: Float[Tensor, "b e"], dead: Bool[Tensor, "n"], k: int
    ) -> Float[Tensor, ""]:
        """The share of the error's energy that the dead latents' own prediction of it leaves."""
        rows = dead.nonzero().squeeze(1)
        pre = torch.addmm(self.encoder_bias[rows], self.inputs(x), self.encoder[rows].T)
        return residual_share(error, pre, self.atoms[rows], k)

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """D and b, in the space of t, without gradients."""
        return Dictionary(self.atoms.detach(), self.bias.detach())

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch e"]:
        """The prediction of t."""
        t_hat = self.decode(self.encode(x))
        beside = self.beside(x.reshape(-1, self.d))
        return t_hat if beside is None else t_hat + beside.reshape(t_hat.shape)
