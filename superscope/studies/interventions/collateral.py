"""Which edits will move much else, and can that be known before anything is steered?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ... import measure
from ...core import Answer, Dictionary, Findings, Measurement, Run
from ...intervene import Edits, concepts
from ...intervene.edits import Add
from ...intervene.fisher import pullback_fisher
from ...intervene.jacobian import pullback_metric
from ...intervene.side_effects import Features, divergences, predicted_collateral, rank_agreement
from ..settings import Count, at_least
from ..study import Progress
from .place import AtPlace, code_of, drawn, features_of
from .rank_correlation import order_of_edits

_RARE, _FREQUENT = 1e-3, 0.2
_AT_ONCE = 8
"""Edits that share the pass without one."""
_ROWS = 4_000
"""Of a world, to measure on."""
_STRENGTHS = {"natural": "as strong as they are", "equal": "all of one length"}
_DOSES = tuple(_STRENGTHS)
_FROM = {
    "features": "atoms, densities and co-activations",
    "overlap": "overlaps and densities",
    "fisher": "the Fisher matrix of predictions",
}
_PREDICTIONS = tuple(_FROM)


@dataclass(frozen=True)
class Collateral(AtPlace):
    """Which edits will move much else, and can that be known before anything is steered?

    Adds features of a dictionary to x one by one, and beside them concepts of the text and random directions; each as
    strong as it is where it is found ("natural"), and all at one length ("equal"). Measured is the KL of predictions on
    other text, and how far the other features of the dictionary move. Predicted, without an edit, from atoms,
    read-outs, densities and co-activations ("features"), from overlaps and densities alone ("overlap"), and from the
    gradients of the predictions ("fisher"). Then: does the prediction put edits in the order of what they do, and
    better than how frequent a feature is, or how long the vector, does? In a world with a network features are the true
    ones, and measured is the squared change of the network's other outputs.
    """

    kind: ClassVar[str] = "collateral"

    held_out: Annotated[int, at_least(2)] = 2_000
    """Tokens of other documents, on which every edit is tried."""
    edits: Annotated[int, at_least(8)] = 48
    """Features that are added, drawn from those of density 0.001 to 0.2."""
    concepts: tuple[str, ...] = concepts.POCKET_CONCEPTS
    """Built-in concepts whose difference of means is added too: code, errors, numbers, quoting."""
    texts: Count = 60
    """Texts on each side of a concept."""
    controls: Count = 8
    """Random directions beside them."""
    fisher_tokens: Count = 20_000
    """Tokens, at most, that the gradients of the predictions are read on."""

    def check(self) -> None:
        for name in self.concepts:
            if name not in concepts.POCKET_CONCEPTS:
                raise ValueError(
                    f"there is no built-in concept {name!r}. There are {', '.join(concepts.POCKET_CONCEPTS)}."
                )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        if self.is_world:
            return (yield from self._world())
        return (yield from self._model(run))

    def _model(self, run: Run) -> Generator[Progress, None, Answer]:
        place = yield from self.open_place(run)
        subject, site, sae = place.subject, place.site, place.sae
        f = code_of(sae, place.rows.x)
        features = features_of(sae, f)
        chosen = self._usual(features.density)
        others: dict[str, Tensor] = {}
        for done, name in enumerate(self.concepts):
            yield Progress("Reading concepts", done, len(self.concepts), name)
            contrast = concepts.pocket_contrast(name, n=self.texts, seed=self.seed)
            (rows,) = concepts.contrast_rows(subject, contrast, [site]).values()
            others[f"concept {name}"] = concepts.DiffMean().find(rows).vector.double()
        yield Progress("Reading concepts", len(self.concepts), len(self.concepts))
        yield Progress("Asking what the output notices", 0, 1)
        g = torch.Generator().manual_seed(self.seed)
        count = max(1, self.fisher_tokens // place.corpus.context)
        windows = torch.randperm(len(place.corpus), generator=g)[:count].sort().values
        fisher = pullback_fisher(subject, site, place.corpus.take(windows), draws=2, seed=self.seed).matrix
        yield Progress("Asking what the output notices", 1, 1)
        held = place.held.x
        before = code_of(sae, held)

        def moved(vectors: Tensor, own: Tensor, stage: str) -> Generator[Progress, None, dict[str, Tensor]]:
            kl, latents = [], []
            for at in range(0, len(vectors), _AT_ONCE):
                yield Progress(stage, at, len(vectors))
                some: list[Edits] = [{site: Add(v)} for v in vectors[at : at + _AT_ONCE].float()]
                kl += [one.mean for one in divergences(subject, place.held_out, some, where=place.where)]
            for v, i in zip(vectors.to(held), own.tolist(), strict=True):
                change = (code_of(sae, held + v) - before).double().square().mean(0)
                latents.append(float(change.sum() - (change[i] if i >= 0 else 0.0)))
            yield Progress(stage, len(vectors), len(vectors))
            return {"predictions": torch.tensor(kl).double(), "latents": torch.tensor(latents).double()}

        where = f"{subject.name} at {site}"
        size = min(4096, len(place.held))
        worth = measure.evaluate(sae, place.held, documents=place.held_out.document, size=size, seed=self.seed)
        answer = yield from self._foretold(where, features, chosen, others, fisher, moved)
        answer.findings.add(worth["fraction_variance_unexplained"])
        return answer

    def _world(self) -> Generator[Progress, None, Answer]:
        yield Progress(f"Drawing {self.source}", 0, 1)
        world = self.open_world()
        network = world.network
        if network is None:
            raise ValueError(
                f"{self.source} has no network behind x, so nothing else is moved; take world:toy_networks, or "
                "world:circuits with --world compression=learned."
            )
        x, f = drawn(world, self.seed)
        held, _ = drawn(world, self.seed + 1, _ROWS)
        reads, offsets = _read_outs(network, x)
        features = Features.of(Dictionary(world.dictionary.atoms), f, reads=reads, offsets=offsets)
        stored = (world.dictionary.norms > 0.5) & (features.density > 0).to(world.dictionary.norms.device)
        chosen = self._some(stored)
        fisher = pullback_metric(network, x[:2000], seed=self.seed)
        plain = network(held)
        yield Progress(f"Drawing {self.source}", 1, 1)

        def moved(vectors: Tensor, own: Tensor, stage: str) -> Generator[Progress, None, dict[str, Tensor]]:
            yield Progress(stage, 0, len(vectors))
            result = []
            for v, i in zip(vectors.to(held), own.tolist(), strict=True):
                change = (network(held + v) - plain).double().square().mean(0)
                result.append(float(change.sum() - (change[i] if i >= 0 else 0.0)))
            yield Progress(stage, len(vectors), len(vectors))
            return {"outputs": torch.tensor(result).double()}

        return (yield from self._foretold(self.source, features, chosen, {}, fisher, moved))

    def _usual(self, density: Float[Tensor, "n"]) -> Int[Tensor, "m"]:
        """Features of usual density, at random."""
        usual = (density > _RARE) & (density < _FREQUENT)
        if int(usual.sum()) < 8:
            raise ValueError(
                f"only {int(usual.sum())} features have a density between {_RARE} and {_FREQUENT}; at least 8 are "
                "needed. Read more text, or learn more latents with --n."
            )
        return self._some(usual)

    def _some(self, eligible: Bool[Tensor, "n"]) -> Int[Tensor, "m"]:
        """As many features as are added, of those that may be, at random."""
        numbers = eligible.nonzero()[:, 0]
        order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(self.seed))
        return numbers[order[: self.edits]].sort().values

    def _foretold(
        self,
        where: str,
        features: Features,
        chosen: Int[Tensor, "m"],
        others: Mapping[str, Float[Tensor, "d"]],
        fisher: Float[Tensor, "d d"],
        moved: Callable[[Tensor, Tensor, str], Generator[Progress, None, dict[str, Tensor]]],
    ) -> Generator[Progress, None, Answer]:
        """What every edit was expected to do, what it did, and how well the one orders the other."""
        findings = Findings()
        density = features.density[chosen]
        level = features.total[chosen] / density
        own = features.atoms[chosen] * level[:, None]
        length = float(own.norm(dim=1).median())
        g = torch.Generator().manual_seed(self.seed)
        random = torch.randn(self.controls, own.shape[1], generator=g, dtype=torch.float64)
        random = length * torch.nn.functional.normalize(random, dim=1)
        vectors = torch.cat([own, *(v.cpu()[None] for v in others.values()), random])
        targets = torch.cat([chosen.cpu(), torch.full((len(vectors) - len(chosen),), -1)])
        labels = [*(f"feature {i}" for i in chosen.tolist()), *others, *(f"random {i}" for i in range(self.controls))]
        frequency = [*density.tolist(), *[None] * (len(vectors) - len(chosen))]
        for dose in _DOSES:
            sized = vectors if dose == "natural" else length * torch.nn.functional.normalize(vectors, dim=1)
            measured = yield from moved(sized, targets, f"Steering, {_STRENGTHS[dose]}")
            predicted = self._predicted(features, sized, targets, fisher)
            findings.rows(
                "edits",
                {
                    "edit": labels,
                    "kind": [label.split()[0] for label in labels],
                    "density": frequency,
                    "norm": sized.norm(dim=1).tolist(),
                    **{f"by {name}": values.tolist() for name, values in predicted.items()},
                    **{f"moved {name}": values.tolist() for name, values in measured.items()},
                },
                at={"dose": dose},
            )
            self._agreement(findings, dose, predicted, measured, density, sized.norm(dim=1), len(chosen))
        return Answer(title=f"Collateral of edits of {where}", findings=findings, sentences=_sentences(findings))

    def _predicted(
        self, features: Features, vectors: Tensor, targets: Tensor, fisher: Tensor
    ) -> dict[str, Float[Tensor, "m"]]:
        has = targets >= 0
        by_features = predicted_collateral(features, vectors)
        by_features[has] = predicted_collateral(features, vectors[has], targets=targets[has])
        overlap = (vectors @ features.reads.T).square() * features.density
        overlap[has.nonzero()[:, 0], targets[has]] = 0.0
        F = fisher.double().cpu()
        return {
            "features": by_features,
            "overlap": overlap.sum(1),
            "fisher": ((vectors @ F) * vectors).sum(1) / 2,
        }

    def _agreement(
        self,
        findings: Findings,
        dose: str,
        predicted: Mapping[str, Tensor],
        measured: Mapping[str, Tensor],
        density: Tensor,
        norm: Tensor,
        features: int,
    ) -> None:
        """Rank correlations over the features alone, whose density is known, and over all edits."""
        for what, truth in measured.items():
            for by, values in predicted.items():
                at = {"moved": what, "dose": dose, "by": by}
                # At one length the length orders nothing.
                simple = {"density": density} | ({"norm": norm[:features]} if dose == "natural" else {})
                one = rank_agreement(values[:features], truth[:features], simple, seed=self.seed)
                findings.add(order_of_edits(one, "features", at))
                every = rank_agreement(values, truth, {"norm": norm}, seed=self.seed)
                findings.row(
                    "all_edits",
                    **at,
                    correlation=every.correlation,
                    low=every.low,
                    high=every.high,
                    given_norm=every.partial,
                    given_low=every.partial_low,
                    given_high=every.partial_high,
                    n=every.n,
                )


def _read_outs(network: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """g and b of each output where it is open, ReLU(g x + b), by least squares; closed for good where it never is."""
    y = network(x).double()
    inputs = torch.cat([x.double(), torch.ones(len(x), 1).to(x).double()], 1)
    reads = inputs.new_zeros(y.shape[1], inputs.shape[1])
    for j in range(y.shape[1]):
        is_open = y[:, j] > 0
        if int(is_open.sum()) > inputs.shape[1]:
            reads[j] = torch.linalg.lstsq(inputs[is_open], y[is_open, j, None]).solution[:, 0]
    return reads[:, :-1], reads[:, -1]


def _sentences(findings: Findings) -> list[str]:
    """Of all that was measured, which prediction orders it best; then what the others say of it."""
    said = [
        _best(findings, what)
        for what in dict.fromkeys(str(m.at["moved"]) for m in findings if m.name == "collateral_order")
    ]
    return [first for first, _ in said] + [rest for _, rest in said]


def _best(findings: Findings, what: str) -> tuple[str, str]:
    """A sentence on the prediction that says most beyond density and length, and one on the others."""
    order = {by: findings["collateral_order", what, "natural", by] for by in _PREDICTIONS}
    given = {by: findings["collateral_order_given", what, "natural", by] for by in _PREDICTIONS}
    alike = {by: findings["collateral_order", what, "equal", by] for by in _PREDICTIONS}
    best, *others = sorted(_PREDICTIONS, key=lambda by: given[by].value or 0.0, reverse=True)
    rest = "; ".join(
        f"{_FROM[by]}, {_signed(order[by])}, {_signed(given[by])} and {_signed(alike[by])}" for by in others
    )
    return (
        f"How far {what} move is foretold best by {_FROM[best]}: over {order[best].n} features the rank correlation is "
        f"{_signed(order[best])}, and {_signed(given[best])} given density and length; where all are of one length "
        f"{_signed(alike[best])}.",
        f"The same of {what} by {rest}.",
    )


def _signed(m: Measurement) -> str:
    return f"{m.value:+.2f} [{m.low:+.2f}, {m.high:+.2f}]" if None not in (m.value, m.low, m.high) else "undefined"
