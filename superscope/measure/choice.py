"""How many latents should be active at once? Criteria that need no truth, one number each per trained dictionary."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary, SparseCoder
from .stream import Rows, read


@torch.no_grad()
def decoder_projection(W: Dictionary, x: Float[Tensor, "b d"], *, order: int | None = None, chunk: int = 1024) -> float:
    r"""$s = z_{(o b)} / \overline{|x|}$: the (o b)-th largest of the b n projections $z = (x - \bar x) \cdot w_i$.

    With too small or too large a k, latents are mixtures of features, and a mixture projects on rows that hold any of
    its parts; the background of projections, which s is the edge of, is then higher. It is smallest near the right k.

    Args:
        W: a trained dictionary.
        x: rows it was not trained on.
        order: o, rank per row; well above any k in question. None is n/4, between the largest k and half the latents.
        chunk: rows projected at once.

    Raises:
        ValueError: if order is not in 1..n, or there are no rows.

    Source:
        Chanin and Garriga-Alonso, "Sparse but wrong", 2025 (arXiv 2508.16560), nth decoder projection.

    Example:
        >>> W = Dictionary(torch.eye(4))
        >>> x = torch.cat([torch.eye(4), -torch.eye(4)])        # centred: one feature in each row
        >>> decoder_projection(W, x, order=2)                   # the background of a true dictionary is 0
        0.0
    """
    o = max(W.n // 4, 1) if order is None else order
    if not 1 <= o <= W.n:
        raise ValueError(f"decoder_projection: order must be in 1..n = {W.n}, a rank among a row's latents; got {o}.")
    if not len(x):
        raise ValueError("decoder_projection: there are no rows; give some that the dictionary was not trained on.")
    atoms = W.unit().atoms.to(x)
    centred = x - x.mean(0)
    length = float(centred.double().norm(dim=1).mean())
    # The rank is taken in each chunk and averaged: a chunk of 1 024 rows gives it to three digits.
    edges = []
    for block in centred.split(chunk):
        z = (block @ atoms.T).flatten()
        edges.append((float(z.kthvalue(z.numel() - o * len(block) + 1).values), len(block)))
    mean = sum(edge * rows for edge, rows in edges) / len(x)
    return mean / length if length > 0 else 0.0


@torch.no_grad()
def mean_overlap(W: Dictionary, *, chunk: int = 2048) -> float:
    r"""$c = \frac{2}{n (n-1)} \sum_{i<j} |w_i \cdot w_j|$ over unit atoms: rises where latents mix features.

    Args:
        W: a trained dictionary of at least two atoms.
        chunk: atoms whose overlaps are held at once.

    Raises:
        ValueError: if there are fewer than two atoms.

    Source:
        Chanin and Garriga-Alonso, "Sparse but wrong", 2025 (arXiv 2508.16560), decoder pairwise cosine.

    Example:
        >>> mean_overlap(Dictionary(torch.eye(3)))
        0.0
    """
    if W.n < 2:
        raise ValueError("mean_overlap: a pair needs two atoms; the dictionary has fewer.")
    atoms = W.unit().atoms.double()
    alive = atoms[atoms.norm(dim=1) > 0]
    n = max(len(alive), 2)
    total = sum(float((block @ alive.T).abs().sum()) for block in alive.split(chunk))
    return max(total - len(alive), 0.0) / (n * (n - 1))


@torch.no_grad()
def description_length(
    coder: SparseCoder, rows: Rows, *, precision: float, batches: int | None = None, size: int = 4096, seed: int = 0
) -> float:
    r"""Bits to write a row of x down to a given precision: which latents, how strong, and what is left.

    $\sum_i H(p_i) + \bar l_0\, \tfrac12 \log_2(2 \pi e\, v_f / \delta^2) + \tfrac d2 \log_2(2 \pi e\, v_e / \delta^2)$

    with p_i the share of rows that use latent i, v_f the variance of values about their latent's mean, v_e that of the
    residual per dimension and delta the precision; each Gaussian's bits are at least 0. More latents cost indices and
    values and save residual; the sum is smallest where a further latent pays for itself no more. The dictionary's own
    bits are the same for every k and are left out, so compare equal n and d alone.

    Args:
        coder: a trained dictionary with its encoder.
        rows: a source, or batches, it was not trained on.
        precision: delta, in the units of x; the noise where it is known.
        batches: read at most so many.
        size: rows per batch asked of a source.
        seed: of the source's order.

    Raises:
        ValueError: if precision is not positive, or there is nothing to read.

    Source:
        Ayonrinde, Pearce and Sharkey, "Interpretability as compression", 2024 (arXiv 2410.11179), with the residual
        counted, so that descriptions of different fidelity can be compared.

    Example:
        >>> from superscope.recovery import OMP
        >>> from superscope.worlds import exactly_k
        >>> world = exactly_k(n=40, d=20, k=2, noise=0.05)
        >>> bits = [
        ...     description_length(OMP(world.dictionary, k=k), world, precision=0.05, batches=1, size=512)
        ...     for k in (1, 2, 4)
        ... ]
        >>> min(bits) == bits[1]
        True
    """
    if not (math.isfinite(precision) and precision > 0):
        raise ValueError(f"description_length: precision must be positive and finite; got {precision}.")
    n = coder.dictionary.n
    sums = torch.zeros(3, n, dtype=torch.float64)
    error, count, d = 0.0, 0, coder.dictionary.d
    for batch in read(rows, size=size, most=batches, seed=seed):
        code = coder.encode(batch.x)
        error += float((batch.x - coder.decode(code)).double().square().sum())
        used = code.values != 0
        values, indices = code.values[used].double().cpu(), code.indices[used].cpu()
        for power in range(3):
            sums[power].index_add_(0, indices, values**power)
        count += len(batch.x)
    p = (sums[0] / count).clamp(0, 1)
    inside = p[(p > 0) & (p < 1)]
    index_bits = float(-(inside * inside.log2() + (1 - inside) * (1 - inside).log2()).sum())
    uses = sums[0].clamp(min=1)
    variance = float((sums[2] - sums[1].square() / uses).sum().clamp(min=0)) / max(float(sums[0].sum()), 1.0)
    l0 = float(sums[0].sum()) / count
    return index_bits + l0 * _bits(variance, precision) + d * _bits(error / (count * d), precision)


def _bits(variance: float, precision: float) -> float:
    """Of a Gaussian number written to a precision, whose own error of delta^2/12 is written with it."""
    spread = variance + precision**2 / 12
    return max(0.5 * math.log2(2 * math.pi * math.e * spread / precision**2), 0.0)
