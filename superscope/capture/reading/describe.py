"""Which roles does a model have, and what are their shapes? Found by one run of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...core import Site
from ..models.roles import LAYER_ROLES, ROLES, blocks_or_none, inside, outside
from .hooks import Capture


@dataclass(frozen=True)
class RoleSite:
    """One role of one layer, as `describe` found it.

    Args:
        role: as it is asked for, `resid_post.6`.
        site: where that is in this model.
        shape: of the tensor, on the probe's input.
        d: its last dimension; a row per token has that many numbers.
    """

    role: str
    site: Site
    shape: tuple[int, ...]
    d: int


def describe(model: nn.Module, inputs: dict[str, Any], roles: Sequence[str] = ROLES) -> list[RoleSite]:
    """Every role this model has, found by one run of it on `inputs`, with its shape there.

    Args:
        model: of transformers.
        inputs: keywords of its forward.
        roles: which to look for.
    """
    paths = blocks_or_none(model)
    wanted: dict[str, Site] = {}
    for role in roles:
        if role in LAYER_ROLES:
            found = {f"{role}.{i}": inside(model, path, role, None) for i, path in enumerate(paths)}
        else:
            found = {role: outside(model, role)}
        wanted |= {name: site for name, site in found.items() if site is not None}
    if not wanted:
        return []
    with Capture(model, list(dict.fromkeys(wanted.values()))) as capture:
        read = capture(**inputs)
    return [RoleSite(name, site, tuple(read[site].shape), read[site].shape[-1]) for name, site in wanted.items()]
