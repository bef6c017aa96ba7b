"""A module's output predicted from its input through few latents, alone or beside an affine map."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .base import Predictor


@final
class Transcoder(Predictor):
    r"""f = ReLU(TopK(g E (x - c) + e)), t ~ D^T f + b: what goes into a module, its output as target.

    A latent then says what the module computes, not what its output looks like: encoder row and atom are an input
    and an output direction of one sparse part of the map.

    Args:
        d: dimension of x.
        n: number of latents.
        d_out: dimension of t.
        k: latents kept per row.
        seed: of the random start.

    Source:
        Dunefsky, Chlenski and Nanda, "Transcoders find interpretable LLM feature circuits", 2024 (there with an L1
        penalty on all positive latents; here the k largest, as in the next).
        Paulo, Shabalin and Belrose, "Transcoders beat sparse autoencoders for interpretability", 2025.

    Example:
        >>> Transcoder(d=4, n=8, d_out=3, k=2)(torch.ones(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, d: int, n: int, d_out: int, k: int, seed: int = 0) -> None:
        super().__init__(d, n, d_out, k, seed)


@final
class SkipTranscoder(Predictor):
    r"""t ~ D^T f + b + g S (x - c), f = ReLU(TopK(g E (x - c) + e)): a transcoder beside an affine skip connection.

    S takes what the module does to every x alike, so the latents need only say what is special. `decode` and
    `reconstruct` give D^T f + b, as for every coder; the call `transcoder(x)` gives the whole prediction.

    Args:
        d: dimension of x.
        n: number of latents.
        d_out: dimension of t.
        k: latents kept per row.
        seed: of the random start.

    Attributes:
        skip: S, which starts at 0.

    Source:
        Paulo, Shabalin and Belrose, "Transcoders beat sparse autoencoders for interpretability", 2025 (section 3.2).

    Example:
        >>> SkipTranscoder(d=4, n=8, d_out=3, k=2)(torch.ones(5, 4)).shape
        torch.Size([5, 3])
    """

    skips = True

    def __init__(self, d: int, n: int, d_out: int, k: int, seed: int = 0) -> None:
        super().__init__(d, n, d_out, k, seed)
        self.skip = nn.Parameter(torch.zeros(d_out, d))

    def beside(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        return self.inputs(x) @ self.skip.T
