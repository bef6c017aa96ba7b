"""How easily is a layer disturbed, along features, between them and through their interference?"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ... import measure
from ...core import Answer, Findings, Measurement, Run
from ...intervene.fisher import pullback_fisher
from ...intervene.jacobian import pullback_metric
from ...intervene.robustness import (
    along,
    at_random,
    between,
    damage,
    interference_gain,
    last_logits,
    through_interference,
)
from ..settings import Count, above, at_least
from ..study import Progress
from .place import AtPlace, code_of, drawn
from .rank_correlation import rank_correlation

_FISHER_WINDOWS = 160
_NOTICED = 8
_LP_ROWS, _LP_CONTEXT, _LP_DIRECTIONS = 4, 8, 16
_LP: dict[str, Any] = {"partners": 4, "null": 20}
_KINDS = ("along", "between", "interference", "random", "noticed")

Harm = Callable[[Tensor], Tensor]
"""From moves [m, d] to the damage of each on each row or window, [m, rows]."""


@dataclass(frozen=True)
class Perturb(AtPlace):
    """How easily is a layer disturbed, along features, between them and through their interference?

    Moves x at one token by equal lengths along features, halfway between two, along what reaches a feature's read-out
    by other features alone, along random directions, and along those that the output notices most; and measures the KL
    of all predictions behind it. Set beside what the pullback Fisher predicts, what the overlap with all features
    predicts (interference), and the exponent p of the norm that the network measures features by: at p above 2 a move
    between two features does less than one along either. In a world the network is the world's own and damage the
    squared change of its outputs.
    """

    kind: ClassVar[str] = "perturb"

    sizes: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Lengths of a move, in root mean square norms of x about its mean."""
    directions: Annotated[int, at_least(8)] = 24
    """Moves of each kind; of the most noticed, at most eight."""
    windows: Count = 8
    """Windows that every move is tried on, at one token each."""
    level: Annotated[float, above(0, finite=True)] = 0.1
    """Of change that the exponent p is measured at, in shares of the usual distance between outputs."""

    def check(self) -> None:
        if len(self.sizes) < 2 or not all(0 < s < math.inf for s in self.sizes):
            raise ValueError(f"sizes are at least two lengths of a move, each above 0 and finite; got {self.sizes}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        if self.is_world:
            yield Progress(f"Drawing {self.source}", 0, 1)
            world = self.open_world()
            if world.network is None:
                raise ValueError(
                    f"{self.source} has no network behind x, so nothing is damaged; take world:toy_networks, or "
                    "world:circuits with --world compression=learned."
                )
            network = world.network
            x, f = drawn(world, self.seed)
            x = x[f.sum(1) > 0]
            atoms, density = world.dictionary.atoms, (f != 0).double().mean(0)
            stored = world.dictionary.norms > 0.5
            density = torch.where(stored, density, 0.0)
            some = x[: 32 * self.windows]
            fisher = 2 * pullback_metric(network, some, seed=self.seed)

            def harm(moves: Tensor) -> Tensor:
                clean = network(some)
                return torch.stack([(network(some + move) - clean).square().sum(1).double() for move in moves])

            def exponent(features: Tensor) -> measure.LpExponent:
                return measure.lp_exponent(
                    network, some[:_LP_ROWS], atoms[features], level=self.level, seed=self.seed, **_LP
                )

            return (yield from self._moved(self.source, x, atoms, density, fisher, harm, exponent, "rows"))
        place = yield from self.open_place(run)
        subject = place.subject
        code = code_of(place.sae, place.rows.x)
        g = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(place.corpus), generator=g)[:_FISHER_WINDOWS].sort().values
        yield Progress("Asking what the output notices", 0, 1)
        fisher = pullback_fisher(subject, place.site, place.corpus.take(chosen), at="one", seed=self.seed).matrix
        windows, positions = _tokens(place.where, self.windows, g)
        text = place.held_out.take(windows)

        def harm_of_text(moves: Tensor) -> Tensor:
            return damage(subject, place.site, text, positions, moves)

        def exponent_of_text(features: Tensor) -> measure.LpExponent:
            ids = text.ids[0, : min(_LP_CONTEXT, int(text.length[0]))]
            rows = place.held.x[torch.randperm(len(place.held.x), generator=g)[:_LP_ROWS]]
            return measure.lp_exponent(
                last_logits(subject, place.site, ids),
                rows,
                place.atoms.atoms[features[:_LP_DIRECTIONS]],
                level=self.level,
                distance=measure.kl_divergence,
                seed=self.seed,
                **_LP,
            )

        density = (code != 0).double().mean(0)
        where = f"{subject.name} at {place.site}"
        return (
            yield from self._moved(
                where, place.rows.x, place.atoms.atoms, density, fisher, harm_of_text, exponent_of_text, "windows"
            )
        )

    def _moved(
        self,
        where: str,
        x: Tensor,
        atoms: Tensor,
        density: Tensor,
        fisher: Tensor,
        harm: Harm,
        exponent: Callable[[Tensor], measure.LpExponent],
        of: str,
    ) -> Generator[Progress, None, Answer]:
        findings = Findings()
        radius = float((x - x.mean(0)).square().sum(1).mean().sqrt())
        alive = (density > 0).nonzero()[:, 0]
        if len(alive) < 8:
            raise ValueError(f"only {len(alive)} features are ever active; at least 8 are needed. Read more text.")
        g = torch.Generator().manual_seed(self.seed)
        # As likely as they are active: what a feature does is asked of those that there are.
        count = min(self.directions, len(alive))
        features = alive[torch.multinomial(density[alive], count, generator=g)]
        moves = {
            "along": along(atoms, features),
            "between": between(atoms, features, seed=self.seed),
            "interference": through_interference(atoms[alive], torch.searchsorted(alive, features)),
            "random": at_random(count, x.shape[1], seed=self.seed).to(x),
            "noticed": torch.linalg.eigh(fisher).eigenvectors[:, -min(_NOTICED, x.shape[1]) :].flip(1).T.to(x),
        }
        unit = torch.nn.functional.normalize(atoms[alive], dim=1).double()
        total, done = len(moves) * len(self.sizes), 0
        yield Progress("Moving x", 0, total)
        harms: dict[tuple[str, float], Tensor] = {}
        for size in self.sizes:
            for name, directions in moves.items():
                found = harm(size * radius * directions)
                harms[name, size] = found
                d = directions.double()
                noticed = 0.5 * (size * radius) ** 2 * ((d @ fisher.to(d)) * d).sum(1)
                overlap = (d @ unit.T).square().sum(1)
                findings.rows(
                    "moves",
                    {
                        "direction": list(range(len(d))),
                        "feature": features.tolist()
                        if name in ("along", "between", "interference")
                        else [None] * len(d),
                        "damage": found.mean(1).tolist(),
                        "noticed": noticed.tolist(),
                        "overlap": overlap.tolist(),
                    },
                    at={"kind": name, "size": size},
                )
                done += 1
                yield Progress("Moving x", done, total, f"{name}, {size:g}: {float(found.mean()):.3g}")
        for size in self.sizes:
            for name in _KINDS:
                findings.add(self._damage(harms[name, size], name, size, of))
                if name != "random":
                    findings.add(self._ratio(harms[name, size], harms["random", size], name, "random", size))
            findings.add(self._ratio(harms["between", size], harms["along", size], "between", "along", size))
        self._predictors(findings)
        yield Progress("Measuring the exponent", 0, 1)
        self._exponent(findings, harms, exponent(features))
        gain = interference_gain(atoms[alive], torch.arange(len(alive)))
        findings.add(
            Measurement(
                name="interference_gain",
                value=float(gain.square().mean().sqrt()),
                unit="read-out per unit of other features",
                n=len(gain),
                of="features",
                how="root mean square over features; no interval: it is a fact of the atoms",
                reference=math.sqrt(max(len(alive) / x.shape[1] - 1, 0)),
                reference_is="least possible for unit atoms",
            )
        )
        return Answer(title=f"Disturbing {where}", findings=findings, sentences=_sentences(findings, self.sizes))

    def _damage(self, found: Tensor, name: str, size: float, of: str) -> Measurement:
        """Mean damage of one kind; windows and directions are both drawn, so it is resampled over directions' means."""
        means = found.mean(1).numpy()
        interval = measure.bootstrap(
            lambda s: s[:, 0] / s[:, 1], np.stack([means, np.ones_like(means)], 1), of="directions", seed=self.seed
        )
        return Measurement(
            name="damage",
            value=float(means.mean()),
            unit="nats of KL" if of == "windows" else "squared change of outputs",
            n=found.numel(),
            of=f"pairs of a direction and one of {found.shape[1]} {of}",
            **interval.fields,
            at={"move": name, "size": size},
        )

    def _ratio(self, first: Tensor, second: Tensor, name: str, other: str, size: float) -> Measurement:
        a, b = first.mean(1).numpy(), second.mean(1).numpy()
        random = np.random.default_rng(self.seed)
        top = a[random.integers(len(a), size=(1000, len(a)))].mean(1)
        bottom = b[random.integers(len(b), size=(1000, len(b)))].mean(1)
        value = float(a.mean() / b.mean()) if b.mean() > 0 else None
        where: dict[str, Any] = {"move": name, "over": other, "size": size}
        common = {"name": "damage_ratio", "unit": "ratio", "n": len(a), "of": "directions", "at": where}
        if value is None or (bottom <= 0).any():
            return Measurement(**common, value=value, caution=f"moves of kind {other} did no damage")
        low, high = np.quantile(top / bottom, (0.025, 0.975))
        how = "95 % percentile bootstrap over directions of both kinds, 1000 draws"
        return Measurement(
            **common, value=value, low=float(low), high=float(high), how=how, chance=1.0, chance_is="no difference"
        )

    def _predictors(self, findings: Findings) -> None:
        """Does what is predicted before a move follow what it does? Over all moves of a size, and random ones alone."""
        table = {name: np.array(column) for name, column in findings.tables["moves"].items() if name != "feature"}
        for size in self.sizes:
            for only, chosen in (("all", table["size"] == size), ("random", table["kind"] == "random")):
                rows = chosen & (table["size"] == size)
                for predictor in ("noticed", "overlap"):
                    values = table[predictor][rows].astype(float), table["damage"][rows].astype(float)
                    made = rank_correlation("damage_predicted", *values, of="moves", seed=self.seed)
                    findings.add(made, at={"by": predictor, "moves": only, "size": size})

    def _exponent(self, findings: Findings, harms: dict[tuple[str, float], Tensor], found: measure.LpExponent) -> None:
        """p, and what it says of moves between features; beside what those did."""
        findings.add(found)
        p = found["lp_exponent"].value
        for small, large in zip(self.sizes, self.sizes[1:], strict=False):
            before, after = (float(harms["along", size].mean()) for size in (small, large))
            if p is None or before <= 0 or after <= 0:
                continue
            power = math.log(after / before) / math.log(large / small)
            findings.row(
                "exponent",
                size=large,
                power=power,
                p=p,
                predicted=2 ** (power * (1 / p - 0.5)),
                measured=findings["damage_ratio", "between", "along", large].value,
            )


def _tokens(where: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows that have an ordinary token before their middle, and one such token of each."""
    early = where.clone()
    early[:, where.shape[1] // 2 :] = False
    windows = early.any(1).nonzero()[:, 0]
    if not len(windows):
        raise ValueError("no window of the held-out text has a token to move x at; give longer documents.")
    windows = windows[torch.randperm(len(windows), generator=generator)[:count]].sort().values
    return windows, torch.multinomial(early[windows].double(), 1, generator=generator)[:, 0]


def _sentences(findings: Findings, sizes: tuple[float, ...]) -> list[str]:
    """The main results, at the middle size."""
    size = sizes[len(sizes) // 2]
    random = findings["damage", "random", size]
    said = [f"A random move of {size:g} root mean square norms does {random.value:.3g} {random.unit}."]
    ratios = [m for m in findings if m.name == "damage_ratio" and m.at["size"] == size and m.low is not None]
    shown = ", ".join(
        f"{m.at['move']} {m.value:.2g} ({m.low:.2g} to {m.high:.2g})" for m in ratios if m.at["over"] == "random"
    )
    said.append(f"Against random moves of the same length: {shown}.")
    middle = next((m for m in ratios if m.at["over"] == "along"), None)
    if middle is not None:
        said.append(
            f"A move between two features does {middle.value:.2g} ({middle.low:.2g} to {middle.high:.2g}) of what one "
            "along a feature does."
        )
    for by in ("noticed", "overlap"):
        told = [m for m in findings if m.name == "damage_predicted" and m.at["by"] == by and m.at["size"] == size]
        values = ", ".join(f"{m.value:+.2f} over {m.at['moves']} moves" for m in told if m.value is not None)
        if values:
            what = "what the output notices (Fisher)" if by == "noticed" else "overlap with all features"
            said.append(f"Rank correlation of damage with {what}: {values}.")
    return said
