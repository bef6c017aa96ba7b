"""The top-k autoencoder whose atoms are mixtures of rows of the data."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core import SparseCode
from ..step import sparse
from .base import SAE
from .rule import Largest
from .topk import choose_largest


@final
class Archetypal(SAE):
    r"""f = ReLU(TopK(E (x - b) + e)), $w_i \propto M_i C + \Lambda_i$; rows of M >= 0 sum to 1, $|\Lambda_i|$ <= slack.

    C are rows of the data less their mean, in units of their root mean square length, so an atom cannot leave the
    cone that the data spans by more than `slack`: two seeds then find nearly the same dictionary, which a free
    dictionary does not. The price is a larger error, the larger the fewer candidates and the smaller the slack. Atoms
    are of norm 1, as in every SAE here: they are mixtures up to length. M costs n x `candidates` numbers, and a step
    two products with C.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row.
        candidates: rows of C. They are drawn from the first batch by `start`, or set before with `set_candidates`;
            until then they are random directions.
        slack: largest length of $\Lambda_i$; 0 is the strict archetypal dictionary.
        seed: of the random start and of the draw.

    Attributes:
        mixture: M.
        relaxation: the $\Lambda_i$.
        rows: C.
        atoms: the dictionary those make, kept beside them; not trained itself.

    Raises:
        ValueError: if k is not in 1..n, candidates is smaller than 1, or slack is negative or not finite.

    Source:
        Fel et al., "Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision
        models", 2025 (equations 4 to 6). They take k-means centres of the whole data as C: give those to
        `set_candidates`.

    Example:
        >>> Archetypal(d=4, n=8, k=2, candidates=5).encode(torch.ones(3, 4)).values.shape
        torch.Size([3, 2])
    """

    whitens = False

    def __init__(self, d: int, n: int, k: int, candidates: int = 1000, slack: float | int = 0.1, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"Archetypal: k must be in 1..n = {n}, the latents of a row; got k = {k}.")
        if candidates < 1:
            raise ValueError(f"Archetypal: candidates must be at least 1; got {candidates}.")
        if not 0 <= slack < math.inf:
            raise ValueError(f"Archetypal: slack must be at least 0 and finite; got {slack}.")
        super().__init__(d, n, k=k, candidates=candidates, slack=slack, seed=seed)
        self.k, self.slack = k, slack
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(candidates, d, generator=generator)
        # An atom starts at one candidate; where there are fewer than atoms, on the way from one to another.
        first = torch.arange(n) % candidates
        second = torch.randint(candidates, (n,), generator=generator)
        mixture = torch.zeros(n, candidates)
        mixture[torch.arange(n), second] = torch.rand(n, generator=generator) * (torch.arange(n) >= candidates)
        mixture[torch.arange(n), first] += 1
        self.mixture = nn.Parameter(mixture / mixture.sum(1, keepdim=True))
        self.relaxation = nn.Parameter(torch.zeros(n, d))
        del self.atoms
        self.register_buffer("rows", directions / directions.norm(dim=1, keepdim=True))
        self.register_buffer("atoms", torch.zeros(n, d))
        # Whether C is data yet: part of the state, since a resumed training must not draw again.
        self.register_buffer("drawn", torch.zeros(()))
        self.rows: Tensor
        self.atoms: Tensor
        self.drawn: Tensor
        self.constrain()
        with torch.no_grad():
            self.encoder.copy_(self.atoms)

    def mixed(self) -> Float[Tensor, "n d"]:
        """The atoms with their gradients to mixture and relaxation."""
        atoms = self.mixture @ self.rows + self.relaxation
        return atoms / atoms.norm(dim=1, keepdim=True).clamp(min=torch.finfo(atoms.dtype).tiny)

    def rule(self) -> Largest:
        return Largest(self.k)

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return choose_largest(pre, self.k)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        with torch.no_grad():
            code = self.encode(x)
        chosen = sparse.Chosen(code.indices, self.n)
        values = sparse.pre_activations(x, self.encoder, self.encoder_bias, self.bias, code.values, chosen).relu()
        x_hat = sparse.decode(values, self.mixed(), chosen) + self.bias
        return SparseCode(values, code.indices, self.n), x_hat

    @torch.no_grad()
    def set_candidates(self, rows: Float[Tensor, "m d"], centre: Float[Tensor, "d"] | None = None) -> None:
        """Takes C from the given rows of x, less their mean (or `centre`), in units of their root mean square length.

        Raises:
            ValueError: if there are other than `candidates` rows, or all are equal.
        """
        if len(rows) != len(self.rows):
            raise ValueError(
                f"Archetypal.set_candidates: this SAE has candidates = {len(self.rows)} and got {len(rows)} rows. "
                "Give as many, or build it with as many candidates as you have rows."
            )
        away = rows.to(self.rows) - (rows.to(self.rows).mean(0) if centre is None else centre)
        length = away.square().sum(1).mean().sqrt()
        if not float(length) > 0:
            raise ValueError("Archetypal.set_candidates: all rows are equal and span nothing. Give rows that differ.")
        self.rows.copy_(away / length)
        self.drawn.fill_(1.0)
        self.constrain()
        self.encoder.copy_(self.atoms)

    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        """Draws the candidates from x, unless they were set, then starts as every SAE does.

        Raises:
            ValueError: if x has fewer rows than there are candidates.
        """
        if not float(self.drawn):
            wanted = len(self.rows)
            if len(x) < wanted:
                raise ValueError(
                    f"Archetypal: the first batch has {len(x)} rows and candidates = {wanted}. "
                    "Train with a larger batch, ask for fewer candidates, or call set_candidates before training."
                )
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.about["seed"]))
            self.set_candidates(x[order[:wanted].to(x.device)], centre=x.mean(0))
        super().start(x, target=target, centre=centre)

    def auxiliary(
        self, x: Float[Tensor, "b d"], error: Float[Tensor, "b d"], dead: Bool[Tensor, "n"], k: int
    ) -> Float[Tensor, ""]:
        """As everywhere, with the dead atoms' gradient passed on to their mixtures."""
        rows = dead.nonzero().squeeze(1)
        pre = torch.addmm(self.encoder_bias[rows], x - self.bias.detach(), self.encoder[rows].T)
        return residual_share(error, pre, self.mixed()[rows], k)

    @property
    def unit(self) -> bool:
        """False: `mixed` divides by the norm, so gradients have no part along an atom and atoms need no rescaling."""
        return False

    @torch.no_grad()
    def constrain(self, *, normalised: bool = False) -> None:
        """M back to nonnegative rows that sum to 1, the relaxation back within its slack, the atoms made anew."""
        self.mixture.clamp_(min=0)
        total = self.mixture.sum(1, keepdim=True)
        # A row that has lost every candidate takes all alike, as it has no preference left.
        self.mixture.copy_(torch.where(total > 0, self.mixture / total, 1 / self.mixture.shape[1]))
        length = self.relaxation.norm(dim=1, keepdim=True)
        self.relaxation.mul_((self.slack / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1))
        self.atoms.copy_(self.mixed())


def residual_share(
    error: Float[Tensor, "b e"], pre: Float[Tensor, "b m"], atoms: Float[Tensor, "m e"], k: int
) -> Float[Tensor, ""]:
    """The share of the error's energy that each row's k largest pre-activations, composed with atoms, leave.

    0 where there is no error: nothing is left to be fitted, and a share of nothing would be infinite.
    """
    if k < len(atoms):
        pre = torch.where(pre >= pre.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True), pre, 0.0)
    left, energy = (error - pre.relu() @ atoms).square().sum(), error.square().sum()
    tiny = torch.finfo(error.dtype).tiny
    return torch.where(energy > tiny, left, 0.0) / energy.clamp(min=tiny)
