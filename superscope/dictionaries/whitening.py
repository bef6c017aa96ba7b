"""Activations made level in all directions before learning, and the way back into the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, FormatError, ShapeError, files
from .sae.base import SAE


@dataclass(frozen=True, eq=False)
class Whitening:
    r"""y = T (x - m): what an SAE learns from in place of x, and `fold` to give it back to x.

    An SAE spends its latents where the squared error is. Where a few directions carry most of the variance it explains
    those and little else; after whitening every direction counts alike. Errors are then measured about T, so that
    fraction_variance_unexplained of y and of x are different numbers.

    Args:
        mean: m.
        T: d x d, invertible.
        back: its inverse.

    Source:
        Saraswatula and Klindt, "Data whitening improves sparse autoencoder learning", 2025 (arXiv 2511.13981), for
        SAEs. Kessy, Lewin and Strimmer, "Optimal whitening and decorrelation", 2018, for the choice of T.

    Example:
        >>> from superscope.dictionaries import TopK, train
        >>> from superscope.worlds import exactly_k
        >>> world, sae = exactly_k(n=32, d=16, k=2), TopK(d=16, n=32, k=2)
        >>> white = Whitening.of(world, kind="zca", rows=4096)
        >>> for step in train(sae, white.source(world), steps=5, batch=64):
        ...     pass
        >>> x = next(world.batches(8, seed=1)).x
        >>> y = white(x)
        >>> learned = sae.encode(y)
        >>> bool(torch.allclose(white.fold(sae).encode(x).dense(), learned.dense(), atol=1e-5))
        True
    """

    mean: Float[Tensor, "d"]
    T: Float[Tensor, "d d"]
    back: Float[Tensor, "d d"]

    @classmethod
    def of(
        cls,
        source: ActivationSource,
        *,
        kind: Literal["zca", "pca", "scale", "axes"] = "zca",
        rows: int = 65_536,
        batch: int = 2048,
        floor: float = 1e-4,
        seed: int = 0,
    ) -> Whitening:
        r"""T from the first rows of a source, summed in float64: with covariance $V \Lambda V^\top$,

        "zca": $T = V \Lambda^{-1/2} V^\top$, the one that moves x least. "pca": $T = \Lambda^{-1/2} V^\top$, the same
        turned to the principal axes. "scale": $T = 1 / \sqrt{\mathrm{tr}\,\Lambda / d}$, one number: unit mean square.
        "axes": $T = V^\top$, turned to the principal axes and nothing else: errors, norms and what is learned stay what
        they are, but for Adam, whose step for each coordinate then suits a direction's variance.

        Args:
            source: where x comes from.
            kind: which T.
            rows: rows to sum over, or as many as the source has.
            batch: rows asked for at once.
            floor: share of the mean variance that a direction is held to have at least, so that directions without
                variance are not blown up; the condition number of T is at most $\sqrt{d / \mathrm{floor}}$.
            seed: of the order of rows.

        Raises:
            ValueError: if an argument is out of range, the source has no batch, or x is constant.
            FloatingPointError: if x is not finite.
        """
        if kind not in ("zca", "pca", "scale", "axes"):
            raise ValueError(f'Whitening.of: kind must be "zca", "pca", "scale" or "axes"; got {kind!r}.')
        if rows < 2 or batch < 2:
            raise ValueError(f"Whitening.of: rows and batch must be at least 2; got {rows} and {batch}.")
        if not 0 < floor <= 1:
            raise ValueError(f"Whitening.of: floor must be a share in (0, 1]; got {floor}.")
        first, count = None, 0
        total = torch.zeros(source.d, dtype=torch.float64)
        products = torch.zeros(source.d, source.d, dtype=torch.float64)
        for given in islice(source.batches(batch, seed=seed), math.ceil(rows / batch)):
            x = given.x.double().cpu()
            if not math.isfinite(float(x.sum())):
                raise FloatingPointError("Whitening.of: the activations hold NaN or infinite numbers.")
            # About the first row, so that a large mean does not eat the digits of the covariance.
            first = x[0] if first is None else first
            x = x - first
            total += x.sum(0)
            products += x.T @ x
            count += len(x)
        if first is None:
            raise ValueError(f"Whitening.of: the source has no batch of {batch} rows. Give more, or a smaller batch.")
        away = total / count
        variances, axes = torch.linalg.eigh(products / count - torch.outer(away, away))
        level = float(variances.mean())
        if not level > 1e-12 * float((first + away).square().mean()):
            raise ValueError("Whitening.of: the activations are constant, so there is nothing to level.")
        if kind == "scale":
            T, back = (torch.eye(source.d, dtype=torch.float64) * f for f in (level**-0.5, level**0.5))
        elif kind == "axes":
            T, back = axes.T, axes
        else:
            spread = variances.clamp(min=floor * level).sqrt()
            T, back = axes / spread @ axes.T, axes * spread @ axes.T
            if kind == "pca":
                T, back = (axes / spread).T, axes * spread
        return cls(first + away, T, back)

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """y, in the dtype and on the device of x."""
        mean, T = self.mean.to(x.device), self.T.to(x.device)
        if self.turns:
            # No direction is blown up, so nothing is lost in the digits of x.
            return (x.double() - mean).to(x.dtype) @ T.T.to(x.dtype)
        return ((x.double() - mean) @ T.T).to(x.dtype)

    @property
    def turns(self) -> bool:
        """Whether T is a rotation, so that errors and norms of y are those of x."""
        return torch.equal(self.back, self.T.T)

    def source(self, source: ActivationSource) -> ActivationSource:
        """The source whose rows are y. What it knows of the truth is not carried over: that is in the units of x.

        Raises:
            ShapeError: if the source has another d.
        """
        if source.d != len(self.mean):
            raise ShapeError(f"Whitening.source: measured at d = {len(self.mean)}, and the source has d = {source.d}.")
        return _Whitened(source, self)

    @torch.no_grad()
    def fold(self, sae: SAE) -> SAE:
        r"""Changes an SAE of y into one of x, in place, with the same codes: E T, b' = m + T^{-1} b, D T^{-T}.

        Its reconstructions are those of y brought back. Its atoms are no longer of norm 1: made so, latents would have
        other sizes, and the k largest would be others.

        Returns:
            The same SAE.

        Raises:
            TypeError: if the architecture does not read x through an encoder E (x - b) + e and free atoms.
            ShapeError: if the SAE has another d.
        """
        self.check(sae)
        if sae.d != len(self.mean):
            raise ShapeError(f"Whitening.fold: measured at d = {len(self.mean)}, and the SAE has d = {sae.d}.")
        T, back, mean = (tensor.to(sae.atoms.device) for tensor in (self.T, self.back, self.mean))
        sae.encoder.copy_(sae.encoder.double() @ T)
        sae.atoms.copy_(sae.atoms.double() @ back.T)
        sae.bias.copy_(mean + back @ sae.bias.double())
        return sae

    @staticmethod
    def check(sae: SAE) -> None:
        """Whether a whitening can be folded into an SAE, before it is trained.

        Raises:
            TypeError: if it cannot.
        """
        if not sae.whitens:
            raise TypeError(
                f"Whitening: {type(sae).__name__} reads x otherwise than by E (x - b) + e with free atoms, so T cannot "
                "be folded into it. Train it on x itself."
            )

    def save(self, path: Path | str) -> None:
        """Writes one .safetensors file, atomically."""
        tensors = {"mean": self.mean, "T": self.T, "back": self.back}
        files.write_tensors(Path(path), {name: tensor.contiguous() for name, tensor in tensors.items()})

    @classmethod
    def load(cls, path: Path | str) -> Whitening:
        """The whitening in a file.

        Raises:
            FileNotFoundError: if there is none.
            FormatError: if it is damaged or holds something else.
        """
        tensors = files.read_tensors(Path(path))
        if set(tensors) != {"mean", "T", "back"}:
            raise FormatError(f"{path} holds no whitening: its tensors are {', '.join(sorted(tensors))}.")
        return cls(**tensors)


class _Whitened(ActivationSource):
    """Another source's rows, whitened."""

    def __init__(self, inner: ActivationSource, white: Whitening) -> None:
        self.inner, self.white, self.d, self.site = inner, white, inner.d, inner.site

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        return self.batches_from(0, size, seed=seed)

    def batches_from(self, index: int, size: int, *, seed: int) -> Iterator[Activations]:
        for given in self.inner.batches_from(index, size, seed=seed):
            yield Activations(self.white(given.x), code=given.code, places=given.places)
