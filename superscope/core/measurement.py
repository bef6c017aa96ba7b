"""What is one number worth? Its interval, what it was counted over, and what chance or a bound would give."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number that can be judged: how sure it is, what it was counted over, and what chance or a bound would give.

    Args:
        name: the quantity, in the house's words (`fraction_variance_unexplained`).
        value: the number; None where it is undefined, with the reason as caution.
        unit: "cosine", "latents", "share" ...
        n: how many things it was counted over.
        of: what those things are ("tokens", "atoms").
        low, high: the interval around value; both or neither.
        how: how the interval was made ("min and max over 3 seeds"), or why there is none.
        reference, reference_is: a bound or ideal that value cannot beat, and its name.
        chance, chance_is: what the same measurement gives where there is nothing to find, and how that was made.
        at: where it was measured (site, model, seed, density ...).
        caution: what a reader must know before using it; the report prints it.

    Raises:
        ValueError: if the interval is half given or does not contain the value's side of it, or a number is not finite.
    """

    name: str
    value: float | None
    unit: str
    n: int
    of: str
    low: float | None = None
    high: float | None = None
    how: str = "no interval: one measurement"
    reference: float | None = None
    reference_is: str = ""
    chance: float | None = None
    chance_is: str = ""
    at: Mapping[str, str | int | float] = field(default_factory=dict)
    caution: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "reference", "chance"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"Measurement {self.name}: {name} is {number}. "
                    "Give a finite number, or None with a caution that says why."
                )
        if (self.low is None) != (self.high is None):
            raise ValueError(f"Measurement {self.name}: an interval needs both low and high.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Measurement {self.name}: low {self.low} is above high {self.high}.")
        if self.value is None and not self.caution:
            raise ValueError(f"Measurement {self.name}: a missing value needs a caution that says why it is missing.")

    def at_site(self, **where: str | int | float) -> Measurement:
        """The same measurement with more said about where it was made."""
        return dataclasses.replace(self, at={**self.at, **where})

    def __str__(self) -> str:
        value = "undefined" if self.value is None else f"{self.value:.4g}"
        spread = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        bounds = "".join(
            f", {label} {number:.4g}"
            for label, number in ((self.reference_is, self.reference), (self.chance_is, self.chance))
            if number is not None
        )
        caution = f" ({self.caution})" if self.caution else ""
        return f"{self.name} {value}{spread} {self.unit}, n = {self.n} {self.of}{bounds}{caution}"
