"""How far is an edit from the cheapest one of the same effect? rho, by what matched filters read and by predictions."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from ...core import Measurement
from ...intervene import Fisher, collateral

OTHER_SEED = 1_000_003
"""Between the seeds of the draws that price an edit and of those that choose the cheapest."""
_DAMPING = 0.1


def metrics_of(x: Float[Tensor, "rows d"], other: Fisher) -> dict[str, Tensor]:
    """What cheapest edits are chosen by: the second moment of x, and a Fisher matrix with a tenth of it at equal trace.

    Fewer draws than dimensions leave directions that seem to cost nothing; the second moment says that they do.

    Args:
        x: rows of unrelated text.
        other: F of other draws than those that price an edit: along what its own draws missed it would seem free.
    """
    moment, F = collateral.second_moment(x), other.matrix
    return {"second moment": moment, "Fisher": (1 - _DAMPING) * F + _DAMPING * moment * (F.trace() / moment.trace())}


def distances(
    change: Float[Tensor, "rows d"],
    read: Float[Tensor, "d"],
    metrics: dict[str, Tensor],
    fisher: Fisher,
    other: Fisher,
    *,
    tokens: int,
) -> list[Measurement]:
    """Collateral over that of the cheapest edit of equal effect, by the second moment and by the Fisher matrix.

    Args:
        change: what the edit adds to each row, or one vector as a row.
        read: the read-out that is to move.
        metrics: see `metrics_of`.
        fisher: prices both edits.
        other: of the draws that chose the cheaper one.
        tokens: that it is measured on.
    """
    least = collateral.minimal(read, metrics["Fisher"])
    told = {
        "second moment": (collateral.rho_of_changes(change, read, metrics["second moment"]), "no edit is below", ""),
        "Fisher": (
            collateral.rho_of_changes(change, read, fisher.matrix, least=least),
            "the least edit by other draws",
            f"at least: the edit that it is compared with was made of {other.samples:,} other draws in {len(read)} "
            "dimensions, and one made of more costs less",
        ),
    }
    return [
        Measurement(
            name="rho",
            value=value if math.isfinite(value) else None,
            unit="times",
            n=tokens,
            of="tokens",
            reference=1.0,
            reference_is=reference_is,
            at={"metric": name},
            caution=caution if math.isfinite(value) else "the edit does not move the log-odds at all, to first order",
        )
        for name, (value, reference_is, caution) in told.items()
    ]
