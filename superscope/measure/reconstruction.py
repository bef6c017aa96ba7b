"""What a sparse code keeps of x, how sparse it is, and what the model loses when it runs on the code instead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Measured, Measurement, ShapeError, SparseCoder
from .codes.sparsity import code_gini, effective_number, mean_measurement
from .interval import Interval, bootstrap, jackknife
from .stream import BlockSums, Groups, GroupSums, Rows, read


@dataclass(frozen=True, eq=False)
class Evaluation(Measured):
    """What `evaluate` found; iterating gives the measurements.

    Args:
        measurements: one number each, with interval.
        tokens: rows read.
        density: per latent, the share of rows on which it is nonzero.
        mean_active: per latent, its mean value where it is nonzero; 0 if it never is.
        max_active: per latent, its largest magnitude.
        mass: per latent, the mean of |f_i| over all rows.
    """

    measurements: tuple[Measurement, ...]
    tokens: int
    density: Float[Tensor, "n"]
    mean_active: Float[Tensor, "n"]
    max_active: Float[Tensor, "n"]
    mass: Float[Tensor, "n"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


def _unexplained(sums: np.ndarray) -> np.ndarray:
    """Squared error over centred energy, from sums of (error^2, |x - s|^2, 1, x - s) per row of draws."""
    error, energy, count, first = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return error / (energy - (first**2).sum(1) / count)


@torch.no_grad()
def evaluate(
    coder: SparseCoder,
    rows: Rows,
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> Evaluation:
    r"""fraction_variance_unexplained $= \sum_t |x_t - \hat x_t|^2 / \sum_t |x_t - \bar x|^2$, and the code's sparsity.

    - `fraction_variance_unexplained`: of x, or of what a transcoder predicts from it; about the mean of the whole
      sample, summed over rows and dimensions before dividing; not the mean of per-row ratios. Predicting the mean
      gives 1; nothing bounds it above. 0 is perfect.
    - `l0`: mean nonzeros per row.
    - `alive_latents`: latents nonzero on at least one of the rows read; a latent of density p is missed with
      probability (1 - p)^tokens, so more rows find more.
    - `median_density`: median over the alive of P(f_i != 0).
    - `code_gini`: mean over rows of the Gini index of the code over all n latents.
    - `entropy_effective_latents`: exp entropy of the activation mass E|f_i| over latents, on unit-norm atoms where
      the coder is one of our SAEs. On data without any structure it is near n: it measures use, not features.

    Sums are in float64, one pass, memory O(n). Intervals resample documents.

    Args:
        coder: an SAE, or any other coder.
        rows: a source, or batches of activations.
        documents: the document of each sequence in `places`; without, a sequence is resampled as one.
        batches: read at most so many of them; None reads one epoch.
        size: rows per batch asked of a source.
        seed: of the source's order and of the bootstrap.

    Raises:
        ValueError: if there is nothing to read, x is constant, or numbers are not finite.

    Example:
        >>> from superscope.core import Activations, Dictionary, SparseCode
        >>> class Positive(SparseCoder):                        # keeps positive coordinates
        ...     dictionary = Dictionary(torch.eye(2))
        ...     def encode(self, x):
        ...         return SparseCode.from_dense(x.relu())
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> evaluate(Positive(), [Activations(x)])["fraction_variance_unexplained"].value
        0.5
    """
    groups = Groups(documents)
    W = coder.dictionary
    squares: GroupSums | None = None
    per_row, mass, fires = GroupSums(4), BlockSums((W.n,)), BlockSums((W.n,))
    signed, largest = torch.zeros(W.n, dtype=torch.float64), torch.zeros(W.n, dtype=torch.float64)
    shift = torch.zeros(0)
    tokens = 0
    for batch in read(rows, size=size, most=batches, seed=seed):
        x = batch.x
        number = groups(batch)
        code = coder.encode(x)
        predicted = coder.decode(code)
        if batch.target is not None and hasattr(coder, "d_out"):
            # A transcoder says another activation than the one that it reads.
            beside, x = getattr(coder, "beside", lambda x: None)(x), batch.target
            predicted = predicted if beside is None else predicted + beside
        error = (x - predicted).double().square().sum(1, keepdim=True)
        if squares is None:
            squares, shift = GroupSums(3 + x.shape[1]), x.double().mean(0)
        centred = x.double() - shift
        ones = torch.ones_like(error)
        squares.add(number, torch.cat([error, centred.square().sum(1, keepdim=True), ones, centred], 1))
        spread = code_gini(code)
        columns = [code.l0.double(), ones[:, 0], spread.nan_to_num(0.0), spread.isfinite().double()]
        per_row.add(number, torch.stack(columns, 1))
        values, indices = code.values.double().cpu(), code.indices.cpu()
        used = values != 0
        v, i = values[used], indices[used]
        block = torch.from_numpy(mass.numbers(number))[:, None].expand_as(indices)[used]
        fires.numbers(number)
        flat = block * W.n + i
        length = mass.blocks * W.n
        mass.sums += torch.bincount(flat, v.abs(), minlength=length).reshape(mass.sums.shape).numpy()
        fires.sums += torch.bincount(flat, minlength=length).reshape(mass.sums.shape).numpy()
        signed.index_add_(0, i, v)
        largest.scatter_reduce_(0, i, v.abs(), "amax")
        tokens += len(x)
    assert squares is not None
    count = fires.used.sum(0)
    total = mass.used.sum(0)
    n_alive = int((count > 0).sum())
    at_all: dict[str, Any] = {"n": tokens, "of": "tokens"}
    energy = squares.sums.sum(0)
    variance = energy[1] - (energy[3:] ** 2).sum() / energy[2]
    if not variance > 1e-12 * energy[2] * max(float((shift**2).sum()), 1e-300):
        raise ValueError("evaluate: the activations are constant, so there is no variance to explain. Check the site.")
    unexplained = float(_unexplained(energy[None])[0])
    found = [
        Measurement(
            name="fraction_variance_unexplained",
            value=unexplained,
            unit="share",
            **at_all,
            reference=0.0,
            reference_is="perfect",
            chance=1.0,
            chance_is="predicting the mean",
            **bootstrap(_unexplained, squares.sums, of=groups.of, seed=seed).fields,
        ),
        mean_measurement("l0", "latents", per_row.sums[:, :2], of="tokens", groups=groups.of, seed=seed),
        Measurement(
            name="alive_latents",
            value=float(n_alive),
            unit="latents",
            **at_all,
            reference=float(W.n),
            reference_is="latents of the dictionary",
            how=f"no interval: a count on these {tokens} tokens",
        ),
    ]
    dead: dict[str, Any] = {"value": None, "caution": "no latent fires on these tokens"}
    if n_alive:
        found += [
            Measurement(
                name="median_density",
                value=float(np.median(count[count > 0])) / tokens,
                unit="share of tokens",
                n=n_alive,
                of="alive latents",
                **_density_interval(fires, squares.sums[:, 2], groups.of, seed).fields,
            ),
        ]
    else:
        found.append(Measurement(name="median_density", unit="share of tokens", n=0, of="alive latents", **dead))
    found.append(
        mean_measurement("code_gini", "Gini index", per_row.sums[:, 2:], of="tokens", groups=groups.of, seed=seed)
    )
    if n_alive:
        interval = jackknife(_entropy_number, mass.used, of=f"groups of {groups.of}", logarithmic=True)
        found.append(
            Measurement(
                name="entropy_effective_latents",
                value=_entropy_number(total),
                unit="latents",
                **at_all,
                reference=float(n_alive),
                reference_is="alive latents",
                **interval.fields,
            )
        )
    else:
        found.append(Measurement(name="entropy_effective_latents", unit="latents", **at_all, **dead))
    counts = torch.from_numpy(count)
    return Evaluation(
        measurements=tuple(found),
        tokens=tokens,
        density=counts / tokens,
        mean_active=signed / counts.clamp(min=1),
        max_active=largest,
        mass=torch.from_numpy(total) / tokens,
    )


def _entropy_number(mass: np.ndarray) -> float:
    # Taking one block's sums from the total may leave -1e-17 where 0 is meant.
    return float(effective_number(torch.from_numpy(np.where(mass > 1e-12 * mass.max(), mass, 0.0))))


def _density_interval(fires: BlockSums, rows: np.ndarray, of: str, seed: int) -> Interval:
    """Bootstrap of the median density of the latents alive in the whole sample, resampling blocks of documents."""
    alive = fires.used.sum(0) > 0
    mean_rows = rows.sum() / fires.filled

    def median(counts: np.ndarray) -> np.ndarray:
        return np.median(counts, axis=1) / (mean_rows * fires.filled)

    return bootstrap(median, fires.used[:, alive], of=f"groups of {of}", draws=200, seed=seed)


def cross_entropy_recovered(
    clean: Float[Tensor, "sequences"],
    spliced: Float[Tensor, "sequences"],
    ablated: Float[Tensor, "sequences"],
    tokens: Int[Tensor, "sequences"],
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    ablation: str = "mean",
    seed: int = 0,
) -> tuple[Measurement, Measurement]:
    r"""$(\ell_{ablated} - \ell_{spliced}) / (\ell_{ablated} - \ell_{clean})$, and the added nats.

    The share of what the site is worth to the model that survives when its activation is replaced by the
    reconstruction. It nears 1 long before a reconstruction is good, since ablation is a low bar, so the added nats
    stand beside it. Mean ablation is the fairer baseline; published figures mostly use zero ablation, which is
    easier: say which.

    Args:
        clean: summed next-token nats of each sequence, model untouched.
        spliced: the same with x replaced by its reconstruction.
        ablated: the same with x replaced by its mean (or by zero).
        tokens: predicted tokens in each sequence.
        documents: the document of each sequence, to resample by; without, sequences are resampled.
        ablation: "mean" or "zero", for the record.
        seed: of the bootstrap.

    Returns:
        `cross_entropy_recovered` (share; None where ablation does not hurt) and `cross_entropy_added` (nats per token).

    Raises:
        ShapeError: if the four differ in length.
        ValueError: if no token is predicted or a loss is not finite.

    Source:
        Bricken et al., "Towards Monosemanticity", 2023, with zero ablation.
    """
    lengths = {
        name: len(v) for name, v in (("clean", clean), ("spliced", spliced), ("ablated", ablated), ("tokens", tokens))
    }
    if len(set(lengths.values())) != 1:
        raise ShapeError(f"cross_entropy_recovered: one number per sequence is needed in each; got {lengths}.")
    table = torch.stack([t.double().cpu() for t in (clean, spliced, ablated, tokens)], 1)
    if not bool(torch.isfinite(table).all()) or int(tokens.sum()) < 1:
        raise ValueError("cross_entropy_recovered: losses must be finite and at least one token predicted.")
    sums = GroupSums(4)
    groups = np.arange(len(table)) if documents is None else documents.cpu().numpy()
    sums.add(groups, table)
    of = "sequences" if documents is None else "documents"
    total = sums.sums.sum(0)
    n = int(total[3])

    def recovered(s: np.ndarray) -> np.ndarray:
        worth = s[:, 2] - s[:, 0]
        return np.divide(s[:, 2] - s[:, 1], worth, out=np.full(len(s), math.nan), where=worth > 0)

    share = float(recovered(total[None])[0])
    added = bootstrap(lambda s: (s[:, 1] - s[:, 0]) / s[:, 3], sums.sums, of=of, seed=seed)
    worth = (total[2] - total[0]) / n
    if math.isnan(share):
        first = Measurement(
            name="cross_entropy_recovered",
            value=None,
            unit="share",
            n=n,
            of="tokens",
            caution=f"{ablation} ablation does not raise the loss here, so there is nothing to recover",
        )
    else:
        first = Measurement(
            name="cross_entropy_recovered",
            value=share,
            unit="share",
            n=n,
            of="tokens",
            reference=1.0,
            reference_is="the model untouched",
            chance=0.0,
            chance_is=f"{ablation} ablation",
            caution="" if worth > 0.01 else f"the site is worth only {worth:.2g} nats, so the share is uncertain",
            **bootstrap(recovered, sums.sums, of=of, seed=seed).fields,
        )
    second = Measurement(
        name="cross_entropy_added",
        value=float((total[1] - total[0]) / n),
        unit="nats per token",
        n=n,
        of="tokens",
        reference=float(worth),
        reference_is=f"{ablation} ablation",
        **added.fields,
    )
    return first, second
