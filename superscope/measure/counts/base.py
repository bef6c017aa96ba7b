"""How many features are there? What every estimator of that number is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from ...core import Measurement
from ..evidence import Evidence, Wanted


class Counter(ABC):
    """An estimator of how many features stand behind the rows of one place. It never trains: it says what it wants.

    The same counter is run where the number is known, on worlds, and where it is not. Its laws are
    `testing.check_counter`'s: it counts nothing on Gaussian rows, is blind to rotation, and abstains with a caution.
    """

    name: ClassVar[str]
    """Of the measurement that answers."""

    @abstractmethod
    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        """The dictionaries it needs, where n latents, k of them active, and these seeds are what is learned anyway."""

    @abstractmethod
    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        """The number first, then what belongs to it; a value of None with a caution where it abstains.

        Args:
            seen: holds what it wanted.
            wanted: what `wants` answered.
        """
