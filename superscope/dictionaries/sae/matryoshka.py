"""The nested autoencoder: its first latents alone already reconstruct x, the next ones add detail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..step import exchange, sparse
from .base import SAE, Fit
from .batch_topk import BatchTopKSAE
from .rule import BatchLargest, Rule


@final
class Matryoshka(BatchTopKSAE):
    r"""BatchTopK on $\sum_m \omega_m |x - \hat x_{n_m}|^2$, $\hat x_{n_m}$ made by the first $n_m$ latents alone.

    Early latents must be useful without the later ones, so a general feature is not torn into the exceptions that
    wide dictionaries prefer (absorption, splitting). One encoder product and one choice over the batch serve all
    widths; each reconstruction adds the next latents' share to the last. `prefix(m)` is the narrower dictionary.

    $\omega_m \propto n_m^p$, with sum 1. With p = 0 the narrow prefixes weigh as much as the whole, and where no
    feature is more general than another they can only blend several: on the easy world (n = 256, d = 64, k = 4, 800
    steps of 1 024 rows) the default widths end at MMCS 0.976, with p = 1/2 at 0.994, with p = 1 at 0.997. On a
    SynthSAEBench replica, whose features form trees, latent_f1 is 0.818, 0.773 and 0.723 (± 0.03, 0.02 and 0.01 over
    five seeds; BatchTopK 0.650): p = 1/2 keeps most of what nesting is for, and p = 0 is for trees.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row, on average, at full width.
        widths: n_1 < ... < n_M = n. Default: n/16, n/8, n/4, n/2, n.
        emphasis: p.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n, widths do not rise from at least 1 to n, or emphasis is not finite.

    Source:
        Bussmann, Nabeshima, Karvonen and Nanda, "Learning multi-level features with Matryoshka sparse autoencoders",
        2025 (equation 4, where p = 0; they sum over m where this takes the mean, so that the learning rate keeps its
        meaning).

    Example:
        >>> Matryoshka(d=4, n=32, k=2).widths
        (2, 4, 8, 16, 32)
    """

    def __init__(
        self,
        d: int,
        n: int,
        k: int,
        widths: Sequence[int] | None = None,
        emphasis: float | int = 0.5,
        seed: int = 0,
    ) -> None:
        if widths is None:
            widths = tuple(sorted({max(n // part, 1) for part in (16, 8, 4, 2, 1)}))
        rising = all(a < b for a, b in itertools.pairwise(widths))
        if not widths or widths[0] < 1 or widths[-1] != n or not rising:
            raise ValueError(f"Matryoshka: widths must rise from at least 1 to n = {n}; got {tuple(widths)}.")
        if not math.isfinite(emphasis):
            raise ValueError(f"Matryoshka: emphasis must be a finite exponent; got {emphasis}.")
        super().__init__(d, n, k, widths=list(widths), emphasis=emphasis, seed=seed)
        self.widths = tuple(widths)
        # In units of the widest, so that no power overflows.
        powers = [(width / n) ** emphasis for width in widths]
        self.weights = tuple(power / sum(powers) for power in powers)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.widths

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        if not isinstance(rule, BatchLargest) or not rule.groups:
            return None
        sae = cls(d, n, rule.k, widths=rule.groups)
        sae.threshold.fill_(max(rule.threshold, 0.0))
        return sae

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        target = x if target is None else target
        rows, columns, values = self.choose(x)
        self.learn_threshold(values)
        chosen = sparse.Chosen.ragged(rows, columns, len(x), self.n)
        values = sparse.pre_activations(x, self.encoder, self.encoder_bias, self.bias, values, chosen)
        first = exchange.current().first()
        groups = []
        for low, high in itertools.pairwise((0, *self.widths)):
            # What this shard has of the group.
            low, high = (min(max(edge - first, 0), self.n) for edge in (low, high))
            at = ((columns >= low) & (columns < high)).nonzero().squeeze(1)
            groups.append((low, at, sparse.Chosen.ragged(rows[at], columns[at] - low, len(x), high - low)))
        parts = sparse.deferred_parts(self.atoms)
        loss, x_hat = _Nested.apply(values, self.atoms, self.bias, target, groups, self.weights, scale, parts)  # type: ignore[misc]
        return Fit(chosen.code(values), x_hat, loss)

    @torch.no_grad()
    def prefix(self, width: int) -> Matryoshka:
        """The autoencoder of the first `width` latents, with the same threshold.

        Raises:
            ValueError: if width is none of the widths it was trained for.
        """
        if width not in self.widths:
            raise ValueError(f"Matryoshka.prefix: width must be one of {self.widths}; got {width}.")
        widths = [w for w in self.widths if w <= width]
        inner = Matryoshka(self.d, width, min(self.k, width), widths, self.about["emphasis"])
        inner.to(self.atoms.dtype)
        for name in ("atoms", "encoder", "encoder_bias"):
            getattr(inner, name).copy_(getattr(self, name)[:width])
        inner.bias.copy_(self.bias)
        inner.threshold.copy_(self.threshold)
        return inner


class _Nested(torch.autograd.Function):
    r"""$\sum_m \omega_m |t - \hat x_{n_m}|^2$ and $\hat x_{n_M}$, the latter without gradients.

    Of each width the error is held and nothing else of its size; going back, each becomes the gradient for its group
    of latents in its own memory. A group's gradients touch its own atoms alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        atoms: Tensor,
        bias: Tensor,
        target: Tensor,
        groups: list[tuple[int, Tensor, sparse.Chosen]],
        weights: tuple[float, ...],
        scale: float,
        parts: list[sparse.Part] | None,
    ) -> tuple[Tensor, Tensor]:
        errors: list[Tensor] = []
        loss = values.new_zeros(())
        for (low, at, group), weight in zip(groups, weights, strict=True):
            share = exchange.current().total(group.uses.bag_sum(values[at], atoms[low : low + group.n]))
            # The next width's error is this one's and the next group's share; of the first, the bias's and its own.
            error = share.add_(errors[-1] if errors else bias - target)
            loss = loss + weight * torch.linalg.vector_norm(error).square()
            errors.append(error)
        per_error = 1 / (target.numel() * scale**2)
        ctx.save_for_backward(values, atoms)
        ctx.errors, ctx.groups, ctx.parts = errors, groups, parts
        ctx.factors = [2 * per_error * weight for weight in weights]
        x_hat = errors[-1] + target
        ctx.mark_non_differentiable(x_hat)
        return loss * per_error, x_hat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms = ctx.saved_tensors
        errors, ctx.errors, parts = ctx.errors, None, ctx.parts
        if errors is None:
            raise RuntimeError("Matryoshka.fit: its gradients were taken already. Call fit again for another pass.")
        need, g = ctx.needs_input_grad, None
        d_values = torch.zeros_like(values)
        d_atoms = torch.zeros_like(atoms) if need[1] and parts is None else None
        for (low, at, group), factor in zip(reversed(ctx.groups), reversed(ctx.factors), strict=True):
            # A group takes part in its own width and all wider ones.
            wider, g = g, errors.pop().mul_(gradients[0] * factor)
            if wider is not None:
                g += wider
            part = slice(low, low + group.n)
            d_values[at] = group.uses.bag_dot(g, atoms[part])
            if d_atoms is not None:
                d_atoms[part] = group.uses.atom_sum(values[at], g)
            elif need[1] and parts is not None:
                parts.append(sparse.Part(values[at], g, group, low))
        assert g is not None
        return d_values, d_atoms, g.sum(0) if need[2] else None, -g if need[3] else None, None, None, None, None
