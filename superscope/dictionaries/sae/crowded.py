"""The step of an autoencoder so many of whose latents are on that dense products cost less than gathers of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core import SparseCode
from .base import SAE, Fit

# Bytes of a block of codes, and of one of their gradients: the five products of a block follow each other in cache.
_CPU_BYTES, _GPU_BYTES = 2**23, 2**27


class CrowdedFit(Fit):
    """A fit whose code is made only if somebody reads it: most of its entries would be on.

    Args:
        x_hat: the reconstruction, without gradients.
        loss: with gradients.
        fired: which latents were on in some row.
        l0: mean number on per row.
        make: makes the code.
    """

    def __init__(self, x_hat: Tensor, loss: Tensor, fired: Tensor, l0: float, make: Callable[[], SparseCode]) -> None:
        for name, value in (("x_hat", x_hat), ("loss", loss), ("_fired", fired), ("_l0", l0), ("_make", make)):
            object.__setattr__(self, name, value)

    _fired: Tensor
    _l0: float
    _make: Callable[[], SparseCode]

    @property
    def code(self) -> SparseCode:  # type: ignore[override]
        return self._make()

    @property
    def fired(self) -> Bool[Tensor, "n"]:
        return self._fired

    @property
    def l0(self) -> float:
        return self._l0


def fit(
    sae: SAE,
    x: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    *,
    scale: float,
    price: float,
    weighted: bool,
) -> CrowdedFit:
    r"""$|t - \hat x|^2 / (b d\,\mathrm{scale}^2) + p \sum_{bi} f_{bi} c_i$, f = ReLU(E (x - b) + e), in blocks of rows.

    Nothing of b x n is held: a block's gradients are made while its code is at hand, five products of b x d x n in all,
    and wait for the backward pass.

    Args:
        price: p, what a unit of a latent costs.
        weighted: whether $c_i$ is the norm of atom i; else 1.
    """
    parameters = (sae.encoder, sae.encoder_bias, sae.bias, sae.atoms)
    loss, x_hat, sums, on = _Crowded.apply(*parameters, x, target, scale, price, weighted)  # type: ignore[misc]

    def make() -> SparseCode:
        with torch.no_grad():
            return sae.sparsify(sae.pre_activations(x))

    return CrowdedFit(x_hat, loss, sums > 0, float(on) / len(x), make)


def count(f: Float[Tensor, "b n"]) -> Tensor:
    """How many entries are greater than 0."""
    on = f > 0
    # Torch counts booleans one by one; as words, eight counters are added up at once and none exceeds 255.
    if on.is_cuda or on.numel() % 1024:
        return on.sum()
    return on.view(-1).view(torch.int64).view(-1, 128).sum(1).view(torch.uint8).sum()


class _Crowded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoder: Tensor,
        encoder_bias: Tensor,
        bias: Tensor,
        atoms: Tensor,
        x: Tensor,
        target: Tensor,
        scale: float,
        price: float,
        weighted: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, b = len(atoms), len(x)
        per_error = 1 / (target.numel() * scale**2)
        norms = torch.linalg.vector_norm(atoms, dim=1) if weighted else atoms.new_ones(n)
        cost = price * norms
        size = max((_GPU_BYTES if x.is_cuda else _CPU_BYTES) // (n * x.element_size()), 1)
        codes, d_codes = x.new_empty(min(size, b), n), x.new_empty(min(size, b), n)
        x_hat = torch.empty_like(target)
        d_encoder, d_atoms = torch.zeros_like(encoder), torch.zeros_like(atoms)
        sums, d_encoder_bias = torch.zeros_like(encoder_bias), torch.zeros_like(encoder_bias)
        d_bias = torch.zeros_like(bias)
        squares, on = x.new_zeros(()), torch.zeros((), dtype=torch.long, device=x.device)
        ones = x.new_ones(min(size, b))
        for start in range(0, b, size):
            z, t = x[start : start + size] - bias, target[start : start + size]
            f, df, one = codes[: len(z)], d_codes[: len(z)], ones[: len(z)]
            torch.addmm(encoder_bias, z, encoder.T, out=f).relu_()
            found = torch.addmm(bias, f, atoms, out=x_hat[start : start + size])
            g = found - t
            squares += g.square().sum()
            g *= 2 * per_error
            d_atoms.addmm_(f.T, g)
            d_bias += g.sum(0)
            # Sums over rows as products: torch's own go through columns one by one.
            sums += one @ f
            on += count(f)
            torch.addmm(cost, g, atoms.T, out=df)
            torch.ops.aten.threshold_backward.grad_input(df, f, 0, grad_input=df)
            d_encoder.addmm_(df.T, z)
            d_encoder_bias += one @ df
        if weighted:
            d_atoms.addcmul_(atoms, (price * sums / norms.clamp(min=torch.finfo(norms.dtype).tiny))[:, None])
        d_bias -= d_encoder_bias @ encoder
        ctx.gradients = (d_encoder, d_encoder_bias, d_bias, d_atoms)
        ctx.mark_non_differentiable(x_hat, sums, on)
        return squares * per_error + (cost * sums).sum(), x_hat, sums, on

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Given away, since parameters take for their own only what nobody else holds; a copy would cost as much again.
        given, ctx.gradients = ctx.gradients, None
        if given is None:
            raise RuntimeError("ReLU.fit: its gradients were taken already. Call fit again for another backward pass.")
        factor = float(gradients[0])
        # They are the gradient of 1 already, which is nearly always what is asked for.
        if factor != 1:
            given = tuple(gradient * factor for gradient in given)
        return *given, None, None, None, None, None
