"""What does making a layer smaller cost, and which of its features outlive it?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ... import intervene, measure
from ...core import Answer, Findings, Measurement, Run, Site
from ...intervene.collateral import second_moment
from ...intervene.compression import (
    METHODS,
    Method,
    Projection,
    Survival,
    compressed,
    feature_moment,
    input_moments,
    linear_layers,
    projection,
    restored_loss,
    survival,
)
from ...intervene.compression.method import output_error
from ...intervene.fisher import pullback_fisher
from ...intervene.jacobian import pullback_metric
from ..settings import at_least
from ..study import Progress
from .place import AtPlace, Place, code_of, drawn
from .rank_correlation import rank_correlation

_DAMPING = 1e-3
"""Of the Fisher: it sees nothing of a stream's mean over coordinates, which LayerNorm takes away."""
_FISHER_WINDOWS = 160
_CAUSAL_WINDOWS = 24
_GROUPS = 100


@dataclass(frozen=True)
class Compress(AtPlace):
    """What does making a layer smaller cost, and which of its features outlive it?

    Projects the stream at a site onto r dimensions by four rules that are one formula (loudest directions, features by
    their power, features alike, the directions that the output notices), and compresses the weights of whole blocks by
    pruning and by lower rank at the same number of stored numbers; each is judged by the cross-entropy of other
    documents. Then, feature by feature: is its read-out's survival predicted by geometry and density, do rare features
    outlive frequent ones, and does surviving geometrically mean surviving causally? In a world the features are the
    true ones, the weights are the W of x = W f, and the loss is that of reading f back.
    """

    kind: ClassVar[str] = "compress"

    layers: tuple[str, ...] = ()
    """Modules whose linear layers are compressed, as paths or globs. Default: every block."""
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Shares of weights set to zero; low-rank methods get the rank that stores as many numbers."""
    ranks: tuple[int, ...] = ()
    """Dimensions that a projection leaves. Default: a quarter, half and three quarters."""
    features: Annotated[int, at_least(8)] = 48
    """Features that are put back one by one, evenly over densities."""

    def check(self) -> None:
        if not self.sparsities or not all(0 <= s < 1 for s in self.sparsities):
            raise ValueError(
                f"sparsities are shares of weights set to zero, each in [0, 1), at least one; got {self.sparsities}."
            )
        if any(r < 1 for r in self.ranks):
            raise ValueError(f"ranks are dimensions that are left, each at least 1; got {self.ranks}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        if self.is_world:
            return (yield from self._world())
        return (yield from self._model(run))

    def _ranks(self, d: int) -> tuple[int, ...]:
        ranks = self.ranks or tuple(sorted({max(1, d // 4), max(1, d // 2), max(1, 3 * d // 4)}))
        if max(ranks) > d:
            raise ValueError(f"x has {d} dimensions here, so none of the ranks can be above {d}; got {max(ranks)}.")
        return ranks

    def _model(self, run: Run) -> Generator[Progress, None, Answer]:
        place = yield from self.open_place(run)
        ranks, findings = self._ranks(place.rows.d), Findings()
        subject, text = place.subject, place.held_out
        layers = linear_layers(subject.model, self.layers or [f"{block}" for block in _blocks(place)])
        code = code_of(place.sae, place.rows.x)
        mean = place.rows.x.double().mean(0)
        chosen = torch.randperm(len(place.corpus), generator=torch.Generator().manual_seed(self.seed))[:_FISHER_WINDOWS]
        yield Progress("Fitting projections", 0, 1)
        fisher = pullback_fisher(
            subject, place.site, place.corpus.take(chosen.sort().values), at="one", seed=self.seed
        ).matrix
        families = _projections(second_moment(place.rows.x, centred=True), code, place.atoms.atoms, fisher, mean)
        clean = intervene.next_token_loss(subject, text)
        findings.add(_own_loss(clean, text.document.numpy(), self.seed))

        def rise(splice: dict | None = None) -> tuple[np.ndarray, float]:
            changed = intervene.next_token_loss(subject, text, splice=splice, where=place.where if splice else None)
            return (changed.nats - clean.nats).numpy(), changed.mean - clean.mean

        done, total = 0, len(ranks) * (len(families) + 1)
        yield Progress("Projecting", 0, total)
        for rank in ranks:
            for name, make in (*families.items(), ("random", _random(place.rows.d, mean, self.seed))):
                made = make(rank)
                nats, value = rise({place.site: made})
                predicted = made.lost / 2 if name == "fisher" else None
                self._add(findings, "projections", name, nats, clean.counts.numpy(), text.document.numpy(), rank=rank)
                findings.row(
                    "projections",
                    projection=name,
                    rank=rank,
                    lost=made.lost / made.whole if made.whole else None,
                    predicted_nats=predicted,
                    rise=value,
                    low=findings.measurements[-1].low,
                    high=findings.measurements[-1].high,
                )
                done += 1
                yield Progress("Projecting", done, total, f"{name}, rank {rank}: {value:+.3f} nats")

        yield Progress("Compressing weights", 0, 1)
        moments = input_moments(subject, layers, place.corpus)
        done, total = 0, len(METHODS) * len(self.sparsities)
        yield Progress("Compressing weights", 0, total)
        for sparsity in self.sparsities:
            for method in METHODS:
                kept: list[tuple[int, int]] = []
                errors: list[float] = []

                def change(W: Tensor, H: Tensor, method: Method = method, sparsity: float = sparsity) -> Tensor:
                    new, stored = _changed(method, W, H, sparsity)
                    kept.append((stored, W.numel()))  # noqa: B023
                    errors.append(output_error(W, new, H))  # noqa: B023
                    return new

                with compressed(subject.model, change, moments):
                    nats, value = rise()
                share = sum(stored for stored, _ in kept) / sum(size for _, size in kept)
                self._add(
                    findings,
                    "weights",
                    method.name,
                    nats,
                    clean.counts.numpy(),
                    text.document.numpy(),
                    sparsity=sparsity,
                )
                findings.row(
                    "weights",
                    method=method.name,
                    kind=method.kind,
                    sparsity=sparsity,
                    stored=share,
                    output_error=float(np.mean(errors)),
                    rise=value,
                    low=findings.measurements[-1].low,
                    high=findings.measurements[-1].high,
                )
                done += 1
                yield Progress("Compressing weights", done, total, f"{method.name}, {sparsity:.0%}: {value:+.3f} nats")

        held_code = code_of(place.sae, place.held.x)
        rank = ranks[len(ranks) // 2]
        for name in ("pca", "fisher"):
            made = families[name](rank)
            moved = place.atoms.atoms.double() @ made.matrix.T
            lived = survival(
                held_code, place.held.x, made(place.held.x), place.atoms.atoms, moved.to(place.atoms.atoms)
            )
            features = _evenly(lived.density, self.features)
            restored = yield from self._restored(place, made, held_code, features, name)
            self._features(findings, name, {"rank": rank}, lived, features, *restored)
        return Answer(
            title=f"Compressing {subject.name} at {place.site}",
            findings=findings,
            sentences=_sentences(findings, ranks, self.sparsities),
        )

    def _restored(
        self, place: Place, made: Projection, code: Tensor, features: Tensor, name: str
    ) -> Generator[Progress, None, tuple[Tensor, Tensor]]:
        """What the cross-entropy falls by, at each appearance of a feature, when it is put back."""
        assert place.held.places is not None
        atoms = place.atoms.atoms
        mean, deviation = (torch.full((len(features),), torch.nan, dtype=torch.float64) for _ in range(2))
        sequence = place.held.places[:, 0]
        stage = f"Putting features back ({name})"
        yield Progress(stage, 0, len(features))
        base = intervene.next_token_loss(place.subject, place.held_out, splice={place.site: made}, where=place.where)
        for at, j in enumerate(features.tolist()):
            windows, times = sequence[code[:, j] != 0].unique(return_counts=True)
            windows, times = windows[:_CAUSAL_WINDOWS], times[:_CAUSAL_WINDOWS]
            missing = atoms[j] - made.matrix.to(atoms) @ atoms[j]

            def back(x: Tensor, j: int = j, missing: Tensor = missing) -> Tensor:
                return made(x) + place.sae.encode(x).dense()[:, j, None] * missing

            if len(windows) >= 2:
                part = place.held_out.take(windows)
                splice: dict[Site | str, Callable[[Tensor], Tensor]] = {place.site: back}
                found = intervene.next_token_loss(place.subject, part, splice=splice, where=place.where[windows])
                fall = (base.nats[windows] - found.nats) / times
                weights = times / times.sum()
                mean[at] = (fall * weights).sum()
                # Of a weighted mean, windows being drawn independently.
                deviation[at] = ((weights * (fall - mean[at])).square().sum() * len(fall) / (len(fall) - 1)).sqrt()
            yield Progress(stage, at + 1, len(features))
        return mean, deviation

    def _world(self) -> Generator[Progress, None, Answer]:
        yield Progress(f"Drawing {self.source}", 0, 1)
        world, findings = self.open_world(), Findings()
        atoms, ranks = world.dictionary.atoms, self._ranks(world.d)
        x, f = drawn(world, self.seed)
        held, f_held = drawn(world, self.seed + 1)
        mean = x.double().mean(0)
        network = world.network or _reader(x, f)
        fisher = pullback_metric(network, x[:2000], seed=self.seed)
        families = _projections(second_moment(x, centred=True), f, atoms, fisher, mean)
        H = second_moment(f)
        scale = float(f_held.square().sum(1).mean())

        def loss(y: Tensor, rows: Tensor) -> Tensor:
            return (network(y) - f_held[rows]).square().sum(1)

        everything = torch.arange(len(held))
        clean = loss(held, everything)
        groups = np.arange(len(held)) * _GROUPS // len(held)
        made: dict[str, tuple[str, str, int | float, Tensor, Tensor, int]] = {}
        for rank in ranks:
            for name, make in (*families.items(), ("random", _random(world.d, mean, self.seed))):
                change = make(rank)
                moved = (atoms.double() @ change.matrix.T).to(atoms)
                made[f"{name}, rank {rank}"] = ("projections", name, rank, change(held), moved, rank)
        W = atoms.T
        for sparsity in self.sparsities:
            for method in METHODS:
                new, stored = _changed(method, W, H, sparsity)
                moved = new.T.contiguous()
                y = held + f_held @ (moved - atoms)
                made[f"{method.name}, {sparsity:g}"] = ("weights", method.name, sparsity, y, moved, stored)
        yield Progress("Compressing", 0, len(made))
        features = _evenly((f != 0).double().mean(0), self.features)
        for done, (label, (table, name, amount, y, moved, stored)) in enumerate(made.items()):
            lost = (loss(y, everything) - clean).numpy() / scale
            where = {"rank": amount} if table == "projections" else {"sparsity": amount}
            self._add(findings, table, name, lost, np.ones(len(lost)), groups, of="groups of rows", **where)
            last = findings.measurements[-1]
            cells = {"projection" if table == "projections" else "method": name, **where}
            findings.row(table, **cells, stored=stored, rise=last.value, low=last.low, high=last.high)
            if name != "random":
                lived = survival(f_held, held, y, atoms, moved)
                restored = restored_loss(loss, f_held, y, atoms, moved, features)
                self._features(findings, name, where, lived, features, *restored)
            yield Progress("Compressing", done + 1, len(made), label)
        return Answer(
            title=f"Compressing {self.source}",
            findings=findings,
            sentences=_sentences(findings, ranks, self.sparsities),
        )

    def _add(
        self,
        findings: Findings,
        table: str,
        name: str,
        lost: np.ndarray,
        counts: np.ndarray,
        groups: np.ndarray,
        of: str = "documents",
        **where: Any,
    ) -> None:
        """The rise of the loss, with an interval over whole groups."""
        _, index = np.unique(groups, return_inverse=True)
        sums = np.zeros((index.max() + 1, 2))
        np.add.at(sums, index, np.stack([lost, counts], 1))
        interval = measure.bootstrap(lambda s: s[:, 0] / s[:, 1].clip(min=1), sums, of=of, seed=self.seed)
        is_model = of == "documents"
        findings.add(
            Measurement(
                name=f"{'projected' if table == 'projections' else 'compressed'}_loss_rise",
                value=float(sums[:, 0].sum() / sums[:, 1].sum()),
                unit="nats per token" if is_model else "share of E‖f‖²",
                n=int(counts.sum()),
                of="tokens" if is_model else "rows",
                **interval.fields,
                at={"by": name, **where},
            )
        )

    def _features(
        self,
        findings: Findings,
        name: str,
        where: Mapping[str, int | float],
        lived: Survival,
        features: Tensor,
        restored: Tensor,
        deviation: Tensor,
    ) -> None:
        """The table of one compression's features, and what follows what."""
        amount = f"rank {where['rank']}" if "rank" in where else f"{where['sparsity']:g}"
        columns: dict[str, Sequence[Any]] = {
            "feature": features.tolist(),
            **{
                name: _cells(getattr(lived, name)[features])
                for name in ("density", "cosine", "before", "predicted", "measured")
            },
            "restored": _cells(restored),
            "deviation": _cells(deviation),
        }
        findings.rows("features", columns, at={"compression": f"{name}, {amount}"})
        whole = {name: getattr(lived, name).numpy() for name in ("density", "predicted", "measured")}
        alive = whole["density"] > 0
        pairs = (
            ("survival_predicted", whole["predicted"][alive], whole["measured"][alive]),
            ("survival_over_density", whole["density"][alive], whole["measured"][alive]),
            ("restored_over_density", lived.density[features].numpy(), restored.numpy()),
            ("restored_over_survival", lived.measured[features].numpy(), restored.numpy()),
        )
        for quantity, a, b in pairs:
            findings.add(rank_correlation(quantity, a, b, seed=self.seed), at={"by": name, **where})


def _blocks(place: Place) -> tuple[str, ...]:
    from ...capture import blocks

    return tuple(blocks(place.subject.model))


def _projections(
    C: Tensor, f: Tensor, atoms: Tensor, fisher: Tensor, mean: Tensor
) -> dict[str, Callable[[int], Projection]]:
    """The projection's settings by name, each to be given a rank."""
    power = feature_moment(atoms, f.double().var(0))
    alike = feature_moment(atoms / atoms.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return {
        "pca": lambda rank: projection(C, rank, mean=mean),
        "features": lambda rank: projection(power, rank, mean=mean),
        "features, alike": lambda rank: projection(alike, rank, mean=mean),
        "fisher": lambda rank: projection(C, rank, metric=fisher, damping=_DAMPING, mean=mean),
        "fisher of features": lambda rank: projection(power, rank, metric=fisher, damping=_DAMPING, mean=mean),
    }


def _random(d: int, mean: Tensor, seed: int) -> Callable[[int], Projection]:
    """A random orthogonal projection of that rank: what no rule at all costs."""

    def make(rank: int) -> Projection:
        g = torch.Generator().manual_seed(seed)
        Q, _ = torch.linalg.qr(torch.randn(d, rank, generator=g, dtype=torch.float64))
        return Projection((Q @ Q.T).to(mean), mean, 0.0, 0.0, rank)

    return make


def _reader(x: Tensor, f: Tensor) -> Callable[[Tensor], Tensor]:
    """The affine read-out of f that is best on rows, and a ReLU: the network of a world that has none."""
    ones = torch.cat([x, torch.ones(len(x), 1).to(x)], 1).double()
    G = torch.linalg.lstsq(ones, f.double()).solution.to(x)
    return lambda y: torch.relu(y @ G[:-1] + G[-1])


def _changed(method: Method, W: Tensor, H: Tensor, sparsity: float) -> tuple[Tensor, int]:
    """A compressed W, and how many numbers it stores."""
    if method.kind == "sparse":
        new = method.sparse(W, H, sparsity)
        return new, W.numel() - int(sparsity * W.numel())
    outputs, inputs = W.shape
    rank = min(max(1, int((1 - sparsity) * W.numel() / (outputs + inputs))), min(W.shape))
    return method.low_rank(W, H, rank), rank * (outputs + inputs)


def _evenly(density: Tensor, count: int) -> Tensor:
    """Features that are ever active, evenly over the order of their densities."""
    order = density.argsort(descending=True)
    order = order[density[order] > 0]
    picked = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return order[picked.unique()]


def _own_loss(clean: intervene.Loss, documents: np.ndarray, seed: int) -> Measurement:
    _, index = np.unique(documents, return_inverse=True)
    sums = np.zeros((index.max() + 1, 2))
    np.add.at(sums, index, np.stack([clean.nats.numpy(), clean.counts.numpy()], 1))
    interval = measure.bootstrap(lambda s: s[:, 0] / s[:, 1].clip(min=1), sums, seed=seed)
    return Measurement(
        name="cross_entropy",
        value=clean.mean,
        unit="nats per token",
        n=int(clean.counts.sum()),
        of="tokens",
        **interval.fields,
    )


def _cells(values: Tensor) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _sentences(findings: Findings, ranks: Sequence[int], sparsities: Sequence[float]) -> list[str]:
    """The main results."""
    said = []
    for name, at, amount, what in (
        ("projected_loss_rise", "rank", ranks[len(ranks) // 2], "dimensions left"),
        ("compressed_loss_rise", "sparsity", sparsities[len(sparsities) // 2], "of weights taken"),
    ):
        some = [m for m in findings if m.name == name and m.at[at] == amount and m.value is not None]
        ranked = sorted(some, key=lambda m: m.value or 0.0)
        if ranked:
            shown = f"{amount} {what}" if at == "rank" else f"{amount:.0%} {what}"
            costs = ", ".join(f"{m.value:.3g} by {m.at['by']}" for m in ranked)
            said.append(f"With {shown} the loss rises by {costs} ({ranked[0].unit}).")
    words = {
        "survival_predicted": "how well a feature's read-out survives follows what geometry and density predict",
        "survival_over_density": "the read-outs of frequent features survive better",
        "restored_over_density": "putting a frequent feature back helps more",
        "restored_over_survival": "putting back a feature that survived geometrically helps more",
    }
    for name, meaning in words.items():
        some = [m for m in findings if m.name == name and m.value is not None]
        if some:
            middle = [m for m in some if m.at.get("rank", ranks[len(ranks) // 2]) == ranks[len(ranks) // 2]]
            values = ", ".join(f"{m.value:+.2f} ({m.at['by']})" for m in middle[:6])
            said.append(f"Rank correlation that {meaning}: {values}.")
    return said
