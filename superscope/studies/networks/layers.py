"""Are early layers dense and later ones sparse, and which part of a block is the most superposed? Layer by layer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import tyro

from ... import capture, measure
from ...capture import Corpus, Subject
from ...capture.models.facts import batch_that_fits, is_causal
from ...capture.models.roles import inside, outside
from ...capture.reading.harvest import passes
from ...core import Answer, Findings, Measurement, Run, Site
from ...measure.stream import Groups
from ..settings import at_least
from ..study import Progress
from .readings import CONTROL, TRAINED, Activation, Interference, Neurons, Reading, View
from .survey import Survey

SHUFFLED = "shuffled"
"""The trained model on the same tokens in a random order, as tables call it."""

_LAYER_ROLES = ("resid_post", "attn_out", "z", "mlp_act", "mlp_out")
_ROLES = ("embed", *_LAYER_ROLES, "unembed")
_PATTERN_TOKENS = 16_384


@dataclass(frozen=True)
class Layers(Survey):
    """How superposed, sparse and polysemantic is each layer and each part of it?

    Reads token embeddings, and in each layer the residual stream, attention's output, what its heads found, the MLP's
    hidden layer and its output, and what the unembedding is given; of attention the patterns too, head by head. Each
    beside the same network with random weights, and on the same tokens in a random order. Says whether later layers are
    sparser than early ones, and which kind of site holds the most directions for its width.
    """

    kind: ClassVar[str] = "layers"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal or encoder model; "pocket" travels inside the package."""
    layers: tuple[Annotated[int, at_least(0)], ...] = ()
    """Which, counted from 0. Default: the first, the middle and the last."""
    roles: tuple[str, ...] = _ROLES
    """Kinds of site, as `superscope sites` lists them; those a model has not are left out, and named."""
    controls: tuple[str, ...] = (CONTROL, SHUFFLED)
    """Beside what to read it: `control`, random weights, and `shuffled`, the tokens in a random order."""
    expansion: Annotated[int, at_least(1)] = 2
    """Latents of each dictionary for each dimension of its site, where `n` is not given: sites of unequal width are
    then compared at equal room."""

    def check(self) -> None:
        for role in self.roles:
            if role not in capture.ROLES:
                raise ValueError(f"there is no role {role!r}. Roles are {', '.join(capture.ROLES)}.")
        for each in self.controls:
            if each not in (CONTROL, SHUFFLED):
                raise ValueError(f"there is no control {each!r}. Controls are {CONTROL} and {SHUFFLED}.")

    def width(self, subject: Subject, d: int) -> int:
        return self.n or self.expansion * d

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        layers = chosen(loaded, self.layers)
        sites = sites_of(loaded, layers, [role for role in self.roles if role != "pattern"])
        lacking = sorted(set(self.roles) - {role for role, _ in sites.values()} - {"pattern"})
        if not sites:
            raise ValueError(
                f"'{loaded.name}' has none of {', '.join(self.roles)} that this study can read. "
                "`superscope sites` lists what there is."
            )
        yield Progress(f"Loading {self.model}", 1, 1, f"{len(sites)} sites")
        yield Progress("Reading the text", 0, 1)
        corpus, held_out = self.corpora(loaded)
        subjects = {TRAINED: loaded}
        if CONTROL in self.controls:
            subjects[CONTROL] = capture.control(loaded, self.seed)
        yield Progress(
            "Reading the text",
            1,
            1,
            f"{corpus.n_tokens:,} tokens",
            ahead=self.ahead(subjects, list(sites), corpus, held_out),
        )
        depth = Depth()
        readings: tuple[Reading, ...] = (Activation(), Explained(), Recurring(), Interference(), Neurons(), depth)
        findings = yield from self.survey(run, subjects, list(sites), corpus, held_out, readings)
        texts = dict.fromkeys(subjects, held_out)
        if SHUFFLED in self.controls:
            texts[SHUFFLED], subjects = held_out.shuffled(self.seed), subjects | {SHUFFLED: loaded}
            also = yield from self.survey(
                run, {SHUFFLED: loaded}, list(sites), corpus.shuffled(self.seed), texts[SHUFFLED], readings
            )
            findings.add(also)
            for name, table in also.tables.items():
                findings.rows(name, table)
        yield from attention(subjects, layers, texts, findings, self.seed)
        for site, (role, layer) in sites.items():
            findings.row("places", site=str(site), role=role, layer=layer)
        for label in subjects:
            findings.add(depth.trends(label, sites, self.seed))
        run.note(text=f"{len(set(corpus.document.tolist()))} documents", window=str(corpus.policy))
        return Answer(
            title=f"{loaded.name}: {len(sites)} sites in layers {', '.join(map(str, layers))}",
            findings=findings,
            sentences=tuple(sentences(findings, sites, tuple(subjects), lacking)),
        )


def chosen(loaded: Subject, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers asked for, or the first, the middle and the last.

    Raises:
        ValueError: if the model has no such layer.
    """
    count = len(capture.blocks(loaded.model))
    for layer in layers:
        if layer >= count:
            raise ValueError(f"'{loaded.name}' has the layers 0 to {count - 1}; there is no layer {layer}.")
    return tuple(layers) or tuple(sorted({0, count // 2, count - 1}))


def sites_of(loaded: Subject, layers: Sequence[int], roles: Sequence[str]) -> dict[Site, tuple[str, int]]:
    """Each site with its role and layer, -1 before the first and as many as there are after the last."""
    blocks = capture.blocks(loaded.model)
    found: dict[Site, tuple[str, int]] = {}
    for role in roles:
        if role in ("embed", "unembed"):
            site = outside(loaded.model, role)
            if site is not None:
                found[site] = role, -1 if role == "embed" else len(blocks)
            continue
        for layer in layers:
            site = inside(loaded.model, blocks[layer], role, None)
            if site is not None:
                found.setdefault(site, (role, layer))
    return found


class Explained(Reading):
    """How sparse the codes of the first seed are, and what they explain."""

    name: ClassVar[str] = "reconstruction"

    def read(self, seen: View, findings: Findings) -> None:
        findings.add(seen.evaluations[seen.wanted[0]], at=seen.at)


class Recurring(Reading):
    """Directions that two seeds share: the mean over pairs of seeds, and its range."""

    name: ClassVar[str] = "recurring directions"

    def read(self, seen: View, findings: Findings) -> None:
        pairs = [seen.recurrence(pair) for pair in itertools.combinations(seen.wanted, 2)]
        n = seen.wanted[0].n
        for name in ("recurring_features", "recurring_per_dimension"):
            each = [pair[name] for pair in pairs]
            values = [m.value or 0.0 for m in each]
            spread = measure.over_seeds(values, of="pairs of seeds")
            findings.add(
                dataclasses.replace(
                    each[0],
                    value=sum(values) / len(values),
                    reference=float(n) if name == "recurring_features" else n / seen.d,
                    reference_is="latents that were to be had",
                    **spread.fields,
                ),
                at=seen.at,
            )


@dataclass(frozen=True)
class Depth(Reading):
    """Gini index of |x| at every site, document by document: for differences between sites on the same documents."""

    name: ClassVar[str] = "sparsity by document"

    sums: dict[tuple[str, str], dict[int, np.ndarray]] = field(default_factory=dict)

    def read(self, seen: View, findings: Findings) -> None:
        groups, found = Groups(seen.documents), {}
        for batch in seen.held:
            number = groups(batch)
            values = measure.gini(batch.x.double().cpu()).nan_to_num(0.0).numpy()
            for group in np.unique(number).tolist():
                here = number == group
                found[group] = found.get(group, np.zeros(2)) + np.array([values[here].sum(), here.sum()])
        self.sums[seen.label, str(seen.site)] = found

    def trends(self, label: str, sites: Mapping[Site, tuple[str, int]], seed: int) -> Iterator[Measurement]:
        """The trend of every role that was read in two layers or more."""
        for role in dict.fromkeys(role for role, _ in sites.values()):
            ordered = [site for site, (own, _) in sites.items() if own == role and (label, str(site)) in self.sums]
            if len(ordered) > 1:
                yield self.trend(label, ordered, role, seed)

    def trend(self, label: str, ordered: Sequence[Site], role: str, seed: int) -> Measurement:
        """The last site's Gini index less the first one's."""
        first, last = self.sums[label, str(ordered[0])], self.sums[label, str(ordered[-1])]
        shared = sorted(set(first) & set(last))
        sums = np.array([np.concatenate([first[group], last[group]]) for group in shared])

        def gain(s: np.ndarray) -> np.ndarray:
            return s[:, 2] / s[:, 3] - s[:, 0] / s[:, 1]

        return Measurement(
            name="sparsity_with_depth",
            value=float(gain(sums.sum(0)[None])[0]),
            unit="Gini index",
            n=int(sums[:, 1].sum()),
            of="tokens",
            at={"model": label, "role": role, "from": str(ordered[0]), "to": str(ordered[-1])},
            **measure.bootstrap(gain, sums, seed=seed).fields,
        )


def attention(
    subjects: Mapping[str, Subject], layers: Sequence[int], texts: Mapping[str, Corpus], findings: Findings, seed: int
) -> Generator[Progress, None, None]:
    """Patterns of every layer: means as measurements, heads as a table."""
    for label, subject in subjects.items():
        blocks = capture.blocks(subject.model)
        for done, layer in enumerate(layers):
            site = inside(subject.model, blocks[layer], "pattern", None)
            if site is None:
                continue
            yield Progress(f"Measuring attention ({label})", done, len(layers), str(site))
            found = measure.attention_sparsity(_patterns(subject, site, texts[label]), seed=seed)
            at = {"site": f"pattern.{layer}", "model": label}
            findings.add(found, at=at)
            heads = len(found.heads["attention_entropy"])
            findings.rows("heads", {"head": list(range(heads)), **found.heads}, at=at)
        yield Progress(f"Measuring attention ({label})", len(layers), len(layers))


def _patterns(subject: Subject, site: Site, corpus: Corpus) -> Iterator[measure.Patterns]:
    """Attention's weights at a layer on the first windows, with what each query might attend to."""
    import torch

    windows = torch.arange(min(len(corpus), max(2, _PATTERN_TOKENS // corpus.context)))
    corpus = corpus.take(windows)
    causal = is_causal(subject.model)
    with capture.Capture(subject.model, [site]) as cap:
        for first, past, ids, keep, given in passes(cap.runs, subject.model, corpus, batch_that_fits(subject.model)):
            weights = cap(**given)[site]
            assert ids is not None
            real = torch.arange(ids.shape[1]) < corpus.length[first:past, None]
            keys = real[:, None, :].expand(-1, ids.shape[1], -1)
            if causal:
                keys = keys & torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
            yield measure.Patterns(weights.cpu(), keys.clone(), keep, corpus.document[first:past].numpy())


def sentences(
    findings: Findings, sites: Mapping[Site, tuple[str, int]], labels: Iterable[str], lacking: Sequence[str] = ()
) -> Iterator[str]:
    """What was found of depth, of kinds of site and of attention, of the subjects with these labels."""
    for label, what in ((TRAINED, ""), (CONTROL, "With random weights "), (SHUFFLED, "On shuffled tokens ")):
        gain = findings.get("sparsity_with_depth", label, "resid_post")
        if gain is None or gain.value is None or label not in labels:
            continue
        if gain.low is None:
            said = "with one document there is no interval, so nothing is said of depth"
        elif gain.low > 0:
            said = "activations grow sparser from the first layer to the last"
        elif (gain.high or 0) < 0:
            said = "activations grow denser from the first layer to the last"
        else:
            said = "activations are about as sparse in the first layer as in the last"
        span = "" if gain.low is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
        said = f"{what}{said}: the Gini index in the residual stream changes by {gain.value:+.3f}{span}."
        yield said[0].upper() + said[1:]
    by_role: dict[str, list[float]] = {}
    for site, (role, _) in sites.items():
        found = findings.get("recurring_per_dimension", site, TRAINED)
        if found is not None and found.value is not None:
            by_role.setdefault(role, []).append(found.value)
    if by_role:
        means = sorted(((sum(v) / len(v), role, v) for role, v in by_role.items()), reverse=True)
        listed = ", ".join(f"{role} {mean:.2f} ({min(v):.2f} to {max(v):.2f})" for mean, role, v in means)
        yield f"Directions that two seeds share, for each dimension, mean over layers (range): {listed}."
    alone = [m for m in findings if m.name == "attention_entropy" and m.at.get("model") == TRAINED]
    if alone:
        listed = ", ".join(f"{m.at['site']} {m.value:.2f}" for m in alone)
        yield f"Entropy of attention's weights, where 1 is uniform and 0 a single key: {listed}."
    if lacking:
        yield f"This model has no {', '.join(lacking)}; it was left out."
