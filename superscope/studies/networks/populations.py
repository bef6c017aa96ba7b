"""What do activations look like laid flat, how far is that true, and in how many dimensions do they lie?"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor

from ... import capture, measure
from ...capture import Corpus, MemorySource, Subject
from ...core import Activations, Answer, Findings, Measurement, Run, Site, result_of
from ...worlds.elliptical import surrogate
from ..settings import at_least
from ..study import Progress, Study
from .layers import chosen, sites_of
from .readings import CONTROL, TRAINED

GAUSSIAN = "Gaussian"
"""Rows of the same covariance and nothing else, as tables call them."""

_SPARE = 3
"""So many tokens are read for each row that is kept, since outliers are left out and rows drawn from all documents."""


@dataclass(frozen=True)
class Populations(Study):
    """What do the activations of each layer look like laid flat?

    Reads the same tokens at several layers, and lays them in the plane by principal axes, by neighbours and by t-SNE
    (and UMAP, where it is asked for and installed): each layer's map begins at the map of the layer before and is laid
    onto it. Beside every map stands the share of neighbours that it keeps, and what it keeps of Gaussian rows of the
    same covariance, in which there is nothing to see. Then in how many dimensions the rows lie, by their spread and by
    the distances of neighbours, beside the same network with random weights.
    """

    kind: ClassVar[str] = "populations"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal or encoder model; "pocket" travels inside the package."""
    layers: tuple[Annotated[int, at_least(0)], ...] = ()
    """Which, counted from 0. Default: the first, the middle and the last."""
    role: str = "resid_post"
    """What to read in each of them, as `superscope sites` lists roles."""
    maps: tuple[Literal["pca", "flat", "tsne", "umap"], ...] = ("pca", "flat", "tsne")
    """Ways to lay rows flat: two principal axes; by neighbours, as the atlas of a scan; t-SNE, which needs scikit-learn
    (extra `classical`); UMAP, which needs umap-learn (extra `umap`)."""
    rows: Annotated[int, at_least(200, why="Fewer have no neighbours to speak of.")] = 1500
    """Tokens whose activations are laid flat, drawn from all documents read."""
    neighbours: Annotated[int, at_least(1)] = 12
    """Of each row, that a map should keep."""
    control: bool = True
    """Whether to read the same network with random weights too."""
    text: str | None = None
    """Text to read: a file, a folder, or `datasets:NAME`. Default: the text every Python carries."""
    context: Annotated[int, at_least(2)] = 128
    """Tokens the model sees at once."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of everything random: the order of the text, the rows drawn, the maps, the bootstrap."""

    def check(self) -> None:
        if self.role not in capture.ROLES:
            raise ValueError(f"there is no role {self.role!r}. Roles are {', '.join(capture.ROLES)}.")
        if not self.maps or len(set(self.maps)) < len(self.maps):
            raise ValueError(f"maps must be different ways, at least one; got {self.maps}.")
        if self.neighbours >= self.rows:
            raise ValueError(f"{self.rows} rows have no {self.neighbours} neighbours each. Give more --rows.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        layers = chosen(loaded, self.layers)
        sites = list(sites_of(loaded, layers, [self.role]))
        if not sites:
            raise ValueError(
                f"'{loaded.name}' has no {self.role} that can be read. `superscope sites` lists what it has."
            )
        yield Progress(f"Loading {self.model}", 1, 1, f"{len(sites)} sites")
        subjects = {TRAINED: loaded} | ({CONTROL: capture.control(loaded, self.seed)} if self.control else {})
        corpus = capture.tokens(
            loaded.tokenizer,
            capture.documents(self.text),
            context=self.context,
            limit=_SPARE * self.rows,
            seed=self.seed,
        )
        findings, sentences = Findings(), []
        for label, subject in subjects.items():
            yield Progress(f"Reading {label}", 0, 1)
            places, tokens, found = self._read(subject, sites, corpus)
            documents = corpus.document[places[:, 0]]
            yield Progress(f"Reading {label}", 1, 1, f"{len(places):,} rows")
            if label == TRAINED:
                findings.rows("rows", _rows(loaded, tokens, places, documents))
                drawn = yield from self._maps(found, documents, findings)
                sentences += drawn
            for done, (site, x) in enumerate(found.items()):
                yield Progress(f"Measuring dimensions ({label})", done, len(sites), str(site))
                at: dict[str, Any] = {"site": str(site), "model": label}
                findings.add(measure.intrinsic_dimensions(x, documents=documents, seed=self.seed), at=at)
                batch = Activations(x, places=torch.stack([documents, torch.zeros_like(documents)], 1))
                spread = measure.activation_sparsity([batch], documents=torch.arange(len(corpus.names)), seed=self.seed)
                findings.add([m for m in spread if m.name == "participation_ratio"], at=at)
            yield Progress(f"Measuring dimensions ({label})", len(sites), len(sites))
        run.note(text=f"{len(corpus.names)} documents", window=str(corpus.policy))
        return Answer(
            title=f"{loaded.name}: {self.role} of layers {', '.join(map(str, layers))} laid flat",
            findings=findings,
            sentences=[*sentences, *_dimensions(findings, sites)],
        )

    def _read(
        self, subject: Subject, sites: Sequence[Site], corpus: Corpus
    ) -> tuple[Tensor, Tensor, dict[Site, Tensor]]:
        """The same rows at every site: their places and tokens, and x."""
        limits = capture.outlier_limits(subject.model, sites, corpus)
        recorded = result_of(capture.record(subject, sites, corpus, None, limits=limits))
        found: dict[Site, Tensor] = {}
        places = tokens = torch.zeros(0)
        for site in sites:
            source = recorded.pop(site)
            assert isinstance(source, MemorySource)
            if len(source) < self.rows:
                raise ValueError(
                    f"the text gives {len(source):,} rows of the {self.rows:,} asked for. Give more text with --text, "
                    "or fewer --rows."
                )
            order = torch.randperm(len(source), generator=torch.Generator().manual_seed(self.seed))[: self.rows]
            assert source.places is not None
            assert source.tokens is not None
            found[site] = source.x[order].float().cpu()
            places, tokens = source.places[order].cpu(), source.tokens[order].cpu()
        return places, tokens, found

    def _maps(
        self, found: dict[Site, Tensor], documents: Tensor, findings: Findings
    ) -> Generator[Progress, None, list[str]]:
        """Every map of every site; what each keeps of rows and of Gaussian ones; what becomes of it a layer later."""
        said, total = [], len(self.maps) * len(found)
        for way, how in enumerate(self.maps):
            before: Tensor | None = None
            for number, (site, x) in enumerate(found.items()):
                yield Progress("Laying flat", way * len(found) + number, total, f"{how}, {site}")
                at: dict[str, Any] = {"site": str(site), "map": how}
                places = self._laid(x, how, before)
                if before is not None:
                    places, share = measure.procrustes(places, before)
                    mixed = before[torch.randperm(len(before), generator=torch.Generator().manual_seed(self.seed))]
                    findings.add(
                        Measurement(
                            name="map_agreement",
                            value=share,
                            unit="share of variance",
                            n=len(x),
                            of="rows",
                            how="no interval: two maps",
                            reference=1.0,
                            reference_is="the same map",
                            chance=measure.procrustes(places, mixed)[1],
                            chance_is="rows in another order",
                            at=at,
                        )
                    )
                findings.rows("maps", {"x": places[:, 0].tolist(), "y": places[:, 1].tolist()}, at=at)
                kept = self._kept(x, places, documents)
                noise = surrogate(MemorySource(x), rows=len(x), seed=self.seed)
                rows = noise.draw(len(x), generator=torch.Generator().manual_seed(self.seed)).x
                null = self._kept(rows, self._laid(rows, how, None), None)
                findings.add(kept, at={**at, "model": TRAINED})
                findings.add(null, at={**at, "model": GAUSSIAN})
                said.append(_sentence(kept, null, how, site))
                before = places
        yield Progress("Laying flat", total, total)
        return said

    def _laid(self, x: Tensor, how: str, start: Tensor | None) -> Tensor:
        return measure.laid_flat(x, how, start=start, neighbours=self.neighbours, seed=self.seed)

    def _kept(self, x: Tensor, places: Tensor, documents: Tensor | None) -> Measurement:
        return measure.row_neighbours_kept(x, places, neighbours=self.neighbours, documents=documents, seed=self.seed)


def _rows(loaded: Subject, tokens: Tensor, places: Tensor, documents: Tensor) -> dict[str, list[Any]]:
    """What each row is, in the order of every map."""
    texts = [loaded.tokenizer.decode([token]) for token in tokens.tolist()]
    return {
        "row": list(range(len(texts))),
        "token": texts,
        "kind": [measure.KINDS[int(kind)] for kind in measure.token_kinds(texts)],
        "sequence": places[:, 0].tolist(),
        "position": places[:, 1].tolist(),
        "document": documents.tolist(),
    }


def _sentence(kept: Measurement, null: Measurement, how: str, site: Site) -> str:
    assert kept.value is not None
    span = "" if kept.low is None else f" [{kept.low:.2f}, {kept.high:.2f}]"
    known = None not in (kept.low, kept.high, null.low, null.high)
    more = known and (kept.low or 0) > (null.high or 0)
    less = known and (kept.high or 0) < (null.low or 0)
    verdict = "more than" if more else "less than" if less else "no more than"
    return (
        f"By {how} {site} keeps {kept.value:.2f}{span} of {kept.n:,} rows' neighbours, {verdict} Gaussian rows of the "
        f"same covariance, {null.value:.2f}; a random map keeps {kept.chance:.3f}."
    )


def _dimensions(findings: Findings, sites: Sequence[Site]) -> list[str]:
    said = []
    for site in sites:
        parts = []
        for name, what in (
            ("participation_ratio", "by spread"),
            ("two_nn_dimension", "by two neighbours"),
            ("likelihood_dimension", "by twenty"),
        ):
            m = findings.get(name, site, TRAINED)
            if m is None or m.value is None:
                continue
            span = "" if m.low is None else f" [{m.low:.1f}, {m.high:.1f}]"
            null = findings.get(name, site, CONTROL)
            beside = "" if null is None or null.value is None else f", random weights {null.value:.1f}"
            parts.append(f"{m.value:.1f}{span} {what}{beside}")
        if parts:
            said.append(f"Dimensions at {site}: {'; '.join(parts)}.")
    return said
