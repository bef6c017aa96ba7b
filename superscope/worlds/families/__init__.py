"""Families of worlds that a count is calibrated on: each asks one question, and four are kept from all tuning.

A member is a function of n, d, l0, a seed and its own settings that makes a source which knows its truth, and a line
in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .dependent import bows, copula, gated, hierarchy
from .disturbed import bias, noise, outlier_coordinates, planted, sinks, token_norms
from .family import HELD_OUT as HELD_OUT
from .family import Family as Family
from .family import Known as Known
from .independent import coherent, log_uniform, magnitudes, uniform, zipf
from .networks import circuits, toy_networks
from .nulls import autoregressive, coloured, elliptical, gaussian, shuffled, surrogate
from .several import basis_ambiguous, group_sparse, ring_clusters, rings

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(uniform, "Is the plainest world counted right?"),
            Family(zipf, "Are rare features counted, and frequent ones not twice?"),
            Family(log_uniform, "Likewise, where densities span orders of magnitude evenly?"),
            Family(magnitudes, "Does it matter how strong an active feature is?"),
            Family(coherent, "Are two features counted whose directions are alike?"),
            Family(copula, "Are features counted that tend to come together?"),
            Family(hierarchy, "Are children counted that come only with a parent, and in proportion to it?"),
            Family(gated, "Likewise, where siblings do not exclude each other?"),
            Family(bows, "Are features counted that lie round a circle because they come together?"),
            Family(bias, "Does a constant far from 0 disturb?"),
            Family(noise, "How much noise is too much?"),
            Family(token_norms, "Are rows of different strength taken for features?"),
            Family(sinks, "Do a few enormous rows disturb?"),
            Family(outlier_coordinates, "Do a few coordinates with most of the variance disturb?"),
            Family(planted, "Are known directions found among unknown ones?"),
            Family(rings, "Is a ring counted once, however many directions tile it?"),
            Family(ring_clusters, "Is a ring of clusters counted once?"),
            Family(group_sparse, "Is a group that is active as a whole counted once?"),
            Family(basis_ambiguous, "Is a subspace counted once in which every basis is as good?"),
            Family(toy_networks, "Are the features counted that a trained network chose to represent?"),
            Family(circuits, "Are variables counted that are computed from others?"),
            Family(gaussian, "Is nothing found in white noise?", null=True),
            Family(coloured, "Is nothing found where directions differ in variance?", null=True),
            Family(elliptical, "Is nothing found where rows differ in strength?", null=True),
            Family(autoregressive, "Is nothing found where rows remember each other?", null=True),
            Family(surrogate, "Is nothing found in rows that share a real world's covariance?", null=True),
            Family(shuffled, "Is nothing found once coordinates know nothing of each other?", null=True),
        )
    }
)
"""Every family by its name: `world:NAME`, the table of docs/worlds.md and the laws of sources read it."""
