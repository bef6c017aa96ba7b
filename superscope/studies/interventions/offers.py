"""Which edits can be asked for by name, what does each need, and how is it made of what was read at a site?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCoder
from ...dictionaries import SAE
from ...intervene import collateral
from ...intervene.concepts import ContrastRows, Direction, dense_code
from ...intervene.edits import (
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
    ProjectOut,
    Protected,
    SaeTargeted,
    Scale,
    SpliceIn,
    Splince,
)
from ...intervene.gates import ALWAYS, Clip, Gate, LatentActive, Lmmse

_TRIES = 2
"""Directions that SAE-TS tries, for each dimension."""
_SEEN = 256
"""Rows on which it sees what they do."""


@dataclass(frozen=True, eq=False)
class Material:
    """What was read at a site.

    Args:
        direction: of the concept; where an edit is dosed, as long as strength 1 is to be.
        x: rows of unrelated text.
        has, lacks: rows of texts with the concept and without.
        probe: the concept's read-out, its threshold between the two.
        read: what the answers are read by; the probe's vector where there are no answers.
        metrics: of collateral, by name.
        protected: rows with and without each concept that is to stay.
        probes: their read-outs.
        coder, latent: a dictionary, and which of its latents is meant.
        seed: of what is drawn.
    """

    direction: Float[Tensor, "d"]
    x: Float[Tensor, "rows d"]
    has: Float[Tensor, "a d"]
    lacks: Float[Tensor, "b d"]
    probe: Direction
    read: Float[Tensor, "d"]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    protected: Mapping[str, ContrastRows] = field(default_factory=dict)
    probes: Mapping[str, Direction] = field(default_factory=dict)
    coder: SparseCoder | None = None
    latent: int | None = None
    seed: int = 0

    @property
    def both(self) -> Float[Tensor, "n d"]:
        """Rows of the contrast, those with the concept first."""
        return torch.cat([self.has, self.lacks])

    @property
    def label(self) -> Float[Tensor, "n"]:
        """1 with the concept, 0 without."""
        return (torch.arange(len(self.has) + len(self.lacks)) < len(self.has)).double()

    @property
    def size(self) -> float:
        """Mean length of x."""
        return float(self.x.double().norm(dim=1).mean())

    @property
    def dictionary(self) -> tuple[SparseCoder, int]:
        """The dictionary and the latent, where they were asked for."""
        assert self.coder is not None
        assert self.latent is not None
        return self.coder, self.latent


@dataclass(frozen=True)
class Offer:
    """An edit that a command offers.

    Args:
        words: what it does.
        edit: makes it.
        vector: the direction that it adds, where the direction is found and then dosed.
        needs: "latent" (a dictionary and a latent of it), "protect" (concepts that are to stay), "rows" (more rows of
            contrast than dimensions).
    """

    words: str
    edit: Callable[[Material], Edit] = lambda m: Add(m.direction)
    vector: Callable[[Material], Tensor] | None = None
    needs: tuple[str, ...] = ()


def _read_outs(coder: SparseCoder) -> Tensor:
    return (coder.encoder if isinstance(coder, SAE) else coder.dictionary.atoms).detach().double().cpu()


def _sparing(m: Material) -> Tensor:
    """K^-1 g, K what the other latents are read by, weighted by their power."""
    coder, latent = m.dictionary
    f = dense_code(coder)(m.x).double().cpu()
    reads = _read_outs(coder)
    ridge = 1e-3 * float((f.square().mean(0) * reads.square().sum(1)).sum()) / reads.shape[1]
    metric = collateral.interference(reads, f.square().mean(0), leave_out=latent, ridge=ridge)
    return Least(reads[latent], metric).direction


def _protected(m: Material) -> Protected:
    return Protected(m.probe.vector, torch.stack([probe.vector for probe in m.probes.values()]))


def _targeted(m: Material) -> Tensor:
    """SAE-TS, effects taken at the site itself: mean change of the dictionary's code of unrelated rows."""
    coder, latent = m.dictionary
    d, atoms = m.x.shape[1], coder.dictionary.atoms.detach().float().cpu()
    g = torch.Generator().manual_seed(m.seed)
    some = m.x[torch.randperm(len(m.x), generator=g)[:_SEEN]]
    tried = torch.randn(_TRIES * d, d, generator=g)
    # Half of them near atoms, the wanted one among them: a random direction hardly opens any latent.
    chosen = torch.randint(coder.dictionary.n, (_TRIES * d // 2,), generator=g)
    chosen[: max(len(chosen) // 8, 1)] = latent
    tried[: len(chosen)] = 0.3 * tried[: len(chosen)] / d**0.5 + torch.nn.functional.normalize(atoms[chosen], dim=1)
    tried = torch.nn.functional.normalize(tried, dim=1) * (0.5 * m.size)
    code = dense_code(coder)
    before = code(some).double().mean(0)
    effects = torch.stack([code(some + v).double().mean(0) - before for v in tried])
    return SaeTargeted.fit(tried, effects.cpu(), latent).direction


def _splince(m: Material) -> Splince:
    """Labels of the concept and of the protected ones, each on its own rows and at its mean on the others'."""
    rows, count = [m.both, *(r.x for r in m.protected.values())], 1 + len(m.protected)
    labels = [m.label, *(r.labels for r in m.protected.values())]
    z = torch.zeros(sum(map(len, rows)), count, dtype=torch.float64)
    start = 0
    for column, own in enumerate(labels):
        z[start : start + len(own), column] = own.double() - own.double().mean()
        start += len(own)
    return Splince.fit(torch.cat([one.double() for one in rows]), z[:, :1], z[:, 1:])


STEERING: Mapping[str, Offer] = {
    "add": Offer("the direction added"),
    "norm_kept": Offer("x turned towards the direction at its own length", lambda m: NormKept(Add(m.direction))),
    "least_moment": Offer(
        "what moves the answers' log-odds at the least second moment",
        vector=lambda m: Least(m.read, m.metrics["second moment"]).direction,
    ),
    "least_fisher": Offer(
        "what moves the answers' log-odds at the least change of unrelated predictions",
        vector=lambda m: Least(m.read, m.metrics["Fisher"]).direction,
    ),
    "least_latents": Offer(
        "what opens the latent at the least that the other latents read of it", vector=_sparing, needs=("latent",)
    ),
    "protected": Offer(
        "what moves the concept's read-out and none of the protected ones'",
        vector=lambda m: _protected(m).direction,
        needs=("protect",),
    ),
    "sae_targeted": Offer(
        "what opens the latent and, on average, no other (SAE-TS)", vector=_targeted, needs=("latent",)
    ),
    "clamp": Offer(
        "the coefficient along the direction set to 1, the strength's share of the way",
        lambda m: Clamp(m.direction, to=1.0),
    ),
    "scale": Offer(
        "the coefficient along the direction raised by the strength's share of itself",
        lambda m: Scale(m.direction, factor=2.0),
    ),
    "midsteer": Offer(
        "what a row has of the texts without the concept turned into what those with it have (MidSteer)",
        lambda m: MidSteer.fit(torch.cat([m.x, m.both]), m.lacks, m.has),
    ),
    "alphasteer": Offer(
        "the direction, by what a row has beyond unrelated text (AlphaSteer)",
        lambda m: AlphaSteer.fit(m.x, m.lacks, m.direction),
    ),
    "latent": Offer(
        "the latent set to a mean length of x, the strength's share of the way, the dictionary's error kept",
        lambda m: Latent(m.dictionary[0], {m.dictionary[1]: m.size}),
        needs=("latent",),
    ),
    "splice_in": Offer(
        "the dictionary's reconstruction in the place of x, the latent set to a mean length of x",
        lambda m: SpliceIn(m.dictionary[0], {m.dictionary[1]: m.size}),
        needs=("latent",),
    ),
}
"""What `superscope steer --edit` takes."""

ABLATIONS: Mapping[str, Offer] = {
    "project_out": Offer("orthogonal projection", lambda m: ProjectOut(m.direction)),
    "mean": Offer("projection to the mean", lambda m: MeanAblate(m.x.mean(0), m.direction)),
    "norm_kept": Offer("orthogonal projection at the same length", lambda m: NormKept(ProjectOut(m.direction))),
    "clamp": Offer(
        "the coefficient set to what rows without the concept have",
        lambda m: Clamp(m.direction, to=float(Clamp(m.direction).value(m.lacks).mean())),
    ),
    "leace": Offer("no linear reader tells the two sides of the contrast", lambda m: Leace.fit(m.both, m.label)),
    "splince": Offer("the same, and the protected concepts stand out as before", _splince, needs=("protect",)),
    "midsteer": Offer(
        "what a row has of the texts with the concept turned into what those without it have",
        lambda m: MidSteer.fit(torch.cat([m.x, m.both]), m.has, m.lacks),
    ),
    "alphasteer": Offer(
        "the direction taken off by what a row has beyond unrelated text",
        lambda m: AlphaSteer.fit(m.x, m.has, m.lacks.mean(0) - m.has.mean(0)),
    ),
    "protected": Offer(
        "a constant shift that takes the concept's read-out from one side to the other and moves no protected one",
        lambda m: Add(-_gap(m) * _protected(m).direction),
        needs=("protect",),
    ),
    "gated": Offer(
        "only where a linear read-out of the contrast is on",
        lambda m: Scale(m.direction, gate=Lmmse.fit(m.both, m.label)),
        needs=("rows",),
    ),
    "latent": Offer(
        "the latent set to 0, the dictionary's error kept",
        lambda m: Latent(m.dictionary[0], {m.dictionary[1]: 0.0}),
        needs=("latent",),
    ),
    "latent_gated": Offer(
        "orthogonal projection where the latent is on",
        lambda m: ProjectOut(m.direction, gate=LatentActive(*m.dictionary)),
        needs=("latent",),
    ),
    "splice_in": Offer(
        "the dictionary's reconstruction in the place of x, without the latent",
        lambda m: SpliceIn(m.dictionary[0], {m.dictionary[1]: 0.0}),
        needs=("latent",),
    ),
}
"""What `superscope ablate` tries."""


def _gap(m: Material) -> float:
    return float(m.probe.read(m.has).mean() - m.probe.read(m.lacks).mean())


GATES: Mapping[str, Callable[[Material], Gate]] = {
    "always": lambda m: ALWAYS,
    "clip": lambda m: Clip(m.probe.vector, 0.0, m.probe.offset),
    "lmmse": lambda m: Lmmse.fit(m.both, m.label),
    "latent": lambda m: LatentActive(*m.dictionary),
}
"""Where edits may act: everywhere, on the concept's side of the middle, where a linear estimate says that it is there,
where the latent is on."""


def missing(offer: Offer, *, latent: bool, protect: bool) -> str:
    """What an edit needs and was not given, as the end of a sentence; empty where nothing is."""
    if "latent" in offer.needs and not latent:
        return "needs a dictionary; give --sae and --latent"
    if "protect" in offer.needs and not protect:
        return "needs concepts that are to stay; give them with --protect"
    return ""
