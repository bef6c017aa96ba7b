"""Where should each latent's own threshold lie? Midway between off and the mean of its values when it is on."""

from __future__ import annotations

import torch

from ..core import ActivationSource
from .sae import SAE, JumpReLU
from .sae.rule import BatchLargest, Jump, Largest, Rectify

# Of JumpReLU's k, which further training would steer to and codes do not depend on, where the SAE has none.
_L0 = 32


@torch.no_grad()
def own_thresholds(
    sae: SAE,
    source: ActivationSource,
    *,
    share: float | int = 0.5,
    rows: int = 16_384,
    batch: int = 2048,
    seed: int = 0,
) -> JumpReLU:
    r"""The SAE with a threshold for each latent in place of its rule: $\theta_i = s\, E[f_i \mid f_i > 0]$.

    One threshold for all, as BatchTopK and Matryoshka learn it, treats alike a latent whose feature is strong and one
    whose feature is weak, one that is on in a third of the rows and one in a thousandth. The rare ones pay: of their
    few firings many are other features' small projections, far below the values that they have for their own. The
    values of a latent lie round two places, near 0 and near the magnitude of its feature; halfway between them, s =
    1/2, is the best cut where both spread alike. No truth is asked for: values are those of the SAE's own code.

    On five worlds of SynthSAEBench's law the mean over latents of F1 grows from 0.904 to 0.958 by it (Matryoshka;
    BatchTopK 0.757 to 0.840), and unexplained variance from 0.193 to 0.199 (0.178 to 0.189): docs/worlds.md.

    The criterion is ours; it is that of two clusters of one spread, whose best cut is midway between their means.

    Args:
        sae: whose values are its pre-activations, kept or not; it is not changed. Its weights are copied.
        source: rows that the means are taken of.
        share: s. Less keeps more.
        rows: how many rows, at least; fewer if the source ends. A latent needs to be on in some of them: one that is on
            in none gets the least value that any latent was on with.
        batch, seed: how the rows are asked for.

    Returns:
        A JumpReLU, to be encoded with, saved, written to any format that knows thresholds, or trained further.

    Raises:
        ValueError: if share is not in (0, 1], rows is not positive, the SAE's values are not its pre-activations, the
            source has no batch of this size, or no latent is on.

    Example:
        >>> from superscope.dictionaries import TopK
        >>> from superscope.worlds import exactly_k
        >>> world = exactly_k(n=20, d=6, k=2)
        >>> own_thresholds(TopK(d=6, n=20, k=4), world).threshold.shape
        torch.Size([20])
    """
    if not 0 < share <= 1:
        raise ValueError(f"own_thresholds: share must be in (0, 1]; got {share}.")
    if rows < 1:
        raise ValueError(f"own_thresholds: rows must be at least 1; got {rows}.")
    rule = sae.rule()
    read = isinstance(rule, Rectify | Jump | Largest | BatchLargest) and not sae.signed
    if not read or sae.atoms.shape != sae.encoder.shape:
        raise ValueError(
            f"own_thresholds: the values of a {type(sae).__name__} are not its positive pre-activations, or "
            "it writes another space than it reads. Give a TopK, BatchTopK, Matryoshka, ReLU or JumpReLU."
        )
    total = torch.zeros(sae.n, dtype=torch.float64, device=sae.encoder.device)
    count = torch.zeros(sae.n, dtype=torch.long, device=sae.encoder.device)
    least, seen = float("inf"), 0
    for given in source.batches(batch, seed=seed):
        code = sae.encode(given.x.to(sae.encoder))
        on = code.values > 0
        which, values = code.indices[on], code.values[on].double()
        total.index_add_(0, which, values)
        count += which.bincount(minlength=sae.n)
        least = min(least, float(values.min())) if len(values) else least
        seen += len(given.x)
        if seen >= rows:
            break
    if not seen:
        raise ValueError(f"own_thresholds: the source has no batch of {batch} rows. Ask for a smaller batch.")
    if least == float("inf"):
        raise ValueError(f"own_thresholds: no latent is on in {seen} rows, so there are no values to go by.")
    own = JumpReLU(sae.d, sae.n, k=int(getattr(sae, "k", min(_L0, sae.n)))).to(sae.encoder)
    for name in ("atoms", "encoder", "encoder_bias", "bias"):
        getattr(own, name).copy_(getattr(sae, name))
    means = torch.where(count > 0, total / count.clamp(min=1), least / share)
    own.threshold.copy_(share * means)
    return own
