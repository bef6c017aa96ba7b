"""What holds of every reading of a site."""

from __future__ import annotations

import torch

from ..core import Findings
from ..studies.networks.readings import Reading, View
from .law import LawBroken, require


def check_reading(reading: Reading, seen: View) -> tuple[str, ...]:
    """Holds a reading to what the studies that use it rely on.

    Every measurement and every row says its site and model; a measurement's chance level has a name; the same site read
    again gives the same numbers; and the model is left as it was: its weights, its modes, no hook of the reading's.

    Args:
        reading: what is read.
        seen: a place that has what it needs.

    Returns:
        The names of the laws it was held to.

    Raises:
        LawBroken: with the reading's name, the law, and what differed.
        ValueError: if the place lacks what the reading needs.
    """
    if lacking := [need for need in reading.needs if not seen.has(need)]:
        raise ValueError(f"check_reading: {reading.name} needs {', '.join(lacking)}, which this place has not.")
    model = seen.subject.model

    def state() -> tuple:
        hooks = tuple(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
        modes = tuple(module.training for module in model.modules())
        return hooks, modes, tuple(parameter._version for parameter in model.parameters()), torch.is_grad_enabled()

    try:
        before, found, again = state(), Findings(), Findings()
        reading.read(seen, found)
        require(state() == before, "it leaves the model, or torch, in another state.")
        for measurement in found:
            for key, value in seen.at.items():
                require(measurement.at.get(key) == value, f"{measurement.name} does not say its {key}.")
            named = measurement.chance is None or bool(measurement.chance_is)
            require(named, f"{measurement.name} has a chance level without a name.")
        for name, table in found.tables.items():
            require(set(seen.at) <= set(table), f"the rows of {name} do not say {', '.join(seen.at)}.")
        reading.read(seen, again)
        require(list(found) == list(again), "it measures one thing now and another then.")
    except LawBroken as broken:
        raise LawBroken(f"{type(reading).__name__}: {broken}") from broken
    return ("says where", "names its chance", "repeatable", "leaves the model alone")
