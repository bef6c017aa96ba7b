"""One of every edit and of every gate, for rows of d numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from superscope.core import Dictionary
from superscope.intervene import gates
from superscope.intervene.edits import (
    Add,
    AlphaSteer,
    Clamp,
    Edit,
    Latent,
    Leace,
    Least,
    MeanAblate,
    MidSteer,
    NormKept,
    OracleLeace,
    ProjectOut,
    Protected,
    SaeTargeted,
    Scale,
    SpliceIn,
    Splince,
)
from superscope.recovery import OMP


def rows_of(d: int, count: int = 400, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(count, d, generator=generator, dtype=torch.float64) @ mixed + mixed[0]


def labels_of(x: Tensor, seed: int = 0) -> Tensor:
    """A noisy label of x."""
    generator = torch.Generator().manual_seed(seed + 100)
    direction = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    noise = torch.randn(len(x), generator=generator, dtype=torch.float64)
    read = (x - x.mean(0)) @ direction
    return (read + noise * read.std() > 0).double()


def coder_of(d: int) -> OMP:
    atoms = torch.randn(2 * d, d, generator=torch.Generator().manual_seed(3))
    return OMP(Dictionary(torch.nn.functional.normalize(atoms, dim=1)), k=2)


def edits_of(d: int, count: int = 400) -> Mapping[type[Edit], Edit]:
    """One of every edit; `count` rows is what the oracle has labels of."""
    x = rows_of(d)
    z, y, v = labels_of(x), labels_of(x, seed=1), x[0]
    coder = coder_of(d)
    metric = x.T @ x / len(x)
    made = (
        Add(v),
        AlphaSteer.fit(x[z == 0], x[z == 1], v),
        Clamp(v, x[1], to=2.0),
        Latent(coder, {0: 1.0, 3: 0.0}),
        Leace.fit(x, z),
        Least(v, metric),
        MeanAblate(x.mean(0), x[:2]),
        MidSteer.fit(x, x[z == 1], x[z == 0]),
        NormKept(Add(v)),
        OracleLeace.fit(x, z).of(labels_of(rows_of(d, count))),
        ProjectOut(x[:2]),
        Protected(v, x[1:3]),
        SaeTargeted.fit(x, x @ x[:5].T, 2),
        Scale(v, factor=-1.0),
        SpliceIn(coder, {1: 0.5}),
        Splince.fit(x, z, y),
    )
    return {type(edit): edit for edit in made}


def gates_of(d: int) -> Mapping[type[gates.Gate], gates.Gate]:
    x, coder = rows_of(d), coder_of(d)
    share = (coder.encode(x.float()).dense() > 0).double().mean(0)
    often = int((share - 0.5).abs().argmin())
    made = (
        gates.ALWAYS,
        gates.Clip(x[0]),
        gates.Threshold(x[0], 0.3, 0.1),
        gates.LatentActive(coder, often),
        gates.Lmmse.fit(x, labels_of(x)),
    )
    return {type(gate): gate for gate in made}
