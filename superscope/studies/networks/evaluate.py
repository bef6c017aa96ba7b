"""How does this dictionary do in the field's own evaluations, each beside its chance level?"""

from __future__ import annotations

import string
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from torch import Tensor

from ... import capture, measure
from ...capture import Corpus, MemorySource, Subject
from ...core import Activations, Answer, Findings, Measurement, Run, Site, SparseCode, SparseCoder, files, result_of
from ...dictionaries import SAE, load_coder
from ...dictionaries.classical.learner import KIND as LEARNED
from ...intervene.side_effects import divergences
from ...measure.evaluations.contrast import contrast
from ...measure.evaluations.interchange import interchange
from ...measure.evaluations.probing import probe_absorption, sparse_probing
from ...measure.evaluations.recovered import divergence_recovered
from ...worlds import AnswerKey
from ..learning.convert import imported
from ..learning.reader import in_run
from ..learning.stream import open_world
from ..settings import Count, above, at_least
from ..study import Progress, Study

_UNSEEN = 1_000_003
_PROBED = 4000
_FEWEST = 40
_PRECISION = 0.2


@dataclass(frozen=True)
class Evaluate(Study):
    """Run the field's evaluations on a dictionary.

    DICTIONARY is the run folder of `superscope train`, or a saved dictionary in any format that `superscope convert`
    reads (hub:OWNER/NAME/FOLDER too). With --model and --site: variance unexplained, description length, cross-entropy
    and divergence recovered from zero and mean ablation, sparse probes of kinds of token and of first letters with
    absorption, and the contrast of texts. With --world, or where the dictionary was learned on one: absorption and
    recovery by its truth, and exchanges of latents.
    """

    kind: ClassVar[str] = "evaluate"

    dictionary: Annotated[str, tyro.conf.Positional]
    """Run folder of a training, or saved dictionary in any known format."""
    model: str = "pocket"
    """The model that it was learned on."""
    site: str | None = None
    """Where. Default: the stream behind the middle block."""
    world: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME of the world that it was learned on, and NAME=VALUE for its numbers. To be repeated."""
    text: str | None = None
    """Text to read. Default: the text every Python carries."""
    rows: Annotated[int, at_least(200)] = 20_000
    """Tokens, or rows of a world, to measure on."""
    context: Annotated[int, at_least(8)] = 128
    """Tokens the model sees at once."""
    spliced: Count = 8192
    """Tokens on which the model runs with a reconstruction in place of x."""
    precision: Annotated[float, above(0, finite=True)] = _PRECISION
    """To what share of x's deviation per dimension a row is described, for the description length."""
    seed: int = 0
    """Of the text's order, folds, shuffles and the bootstrap."""

    def check(self) -> None:
        if not self.dictionary.strip():
            raise ValueError("dictionary must be a path; got an empty one.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the dictionary", 0, 1)
        place, known = in_run(self.dictionary)
        coder = coder_at(self.dictionary if self.dictionary.startswith("hub:") else str(place))
        yield Progress("Reading the dictionary", 1, 1, f"{coder.dictionary.n:,} latents")
        named = self.world or known
        findings = Findings()
        if named:
            where = yield from self._on_world(coder, named, findings)
        else:
            where = yield from self._on_model(coder, findings)
        return Answer(
            title=f"{place.name} on {where}: the field's evaluations",
            findings=findings,
            sentences=tuple(_sentences(findings)),
        )

    def _on_world(
        self, coder: SparseCoder, named: tuple[str, ...], findings: Findings
    ) -> Generator[Progress, None, str]:
        names = [each for each in named if "=" not in each]
        if len(names) != 1:
            raise ValueError(f"one world is wanted; got {', '.join(names) or 'none'}. Give --world NAME.")
        name = names[0].removeprefix("world:")
        yield Progress("Evaluating", 0, 4)
        world = open_world(name, [each for each in named if each != names[0]])
        truth = AnswerKey.of(world, rows=self.rows, seed=self.seed + _UNSEEN)
        _require_d(coder, truth.dictionary.d, f"the world {name}")
        findings.add(measure.evaluate(coder, truth.rows, seed=self.seed))
        findings.add(self._length(coder, truth.rows))
        yield Progress("Evaluating", 1, 4, "atoms and codes")
        findings.add(measure.atom_scores(coder.dictionary, truth.dictionary, seed=self.seed))
        findings.add(measure.code_scores(coder, truth.rows, truth.dictionary, seed=self.seed))
        yield Progress("Evaluating", 2, 4, "absorption")
        findings.add(measure.latent_kinds(coder, truth.rows, truth.dictionary, parents=truth.parents, seed=self.seed))
        yield Progress("Evaluating", 3, 4, "exchanges")
        pairs = measure.match(coder.dictionary, truth.dictionary)
        latent = torch.full((truth.dictionary.n,), -1)
        latent[pairs.second] = pairs.first
        findings.add(interchange(coder, _first(truth.rows, _PROBED), truth.dictionary, latent, seed=self.seed))
        yield Progress("Evaluating", 4, 4)
        return name

    def _on_model(self, coder: SparseCoder, findings: Findings) -> Generator[Progress, None, str]:
        yield Progress("Reading the model", 0, 1)
        loaded = capture.load(self.model)
        asked = self.site or f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}"
        site, *more = capture.name_sites(loaded.model, (asked,)).values()
        if more:
            raise ValueError(f"{asked} names {1 + len(more)} sites; a dictionary is of one. Give one with --site.")
        corpus = capture.tokens(
            loaded.tokenizer, capture.documents(self.text), context=self.context, limit=self.rows, seed=self.seed
        )
        limits = capture.outlier_limits(loaded.model, (site,), corpus)
        source = result_of(capture.record(loaded, (site,), corpus, limits=limits))[site]
        assert isinstance(source, MemorySource)
        _require_d(coder, source.d, f"{loaded.name} at {site}")
        yield Progress("Reading the model", 1, 1, f"{len(source):,} rows of {source.d} numbers")
        batch = Activations(source.x, tokens=source.tokens, places=source.places)
        yield Progress("Evaluating", 0, 5)
        findings.add(measure.evaluate(coder, [batch], documents=corpus.document, seed=self.seed))
        findings.add(self._length(coder, [batch]))
        yield Progress("Evaluating", 1, 5, "the model on reconstructions")
        if loaded.kind == "causal":
            findings.add(_recovered(loaded, site, corpus, coder, source, self.spliced, self.seed))
        yield from probed(coder, batch, corpus, capture.spelling(loaded.tokenizer), self.seed, findings)
        return f"{loaded.name} at {site}"

    def _length(self, coder: SparseCoder, rows: Any) -> Measurement:
        rows = list(rows)
        x = torch.cat([batch.x for batch in rows]).double()
        deviation = float((x - x.mean(0)).square().mean().sqrt())
        if deviation <= 0:
            raise ValueError("x does not vary, so it takes no bits to write it down. Check the site.")
        bits = measure.description_length(coder, rows, precision=self.precision * deviation)
        # The same precision without a dictionary: each coordinate by itself, as a Gaussian of its variance.
        own = x.var(0)
        step = self.precision * deviation
        plain = float((0.5 * (2 * torch.pi * torch.e * (own + step**2 / 12) / step**2).log2()).clamp(min=0).sum())
        return Measurement(
            name="description_length",
            value=bits,
            unit="bits per row",
            n=len(x),
            of="rows",
            how="no interval: a function of totals",
            chance=plain,
            chance_is="each coordinate by itself, without a dictionary",
        )


def probed(
    coder: SparseCoder,
    batch: Activations,
    corpus: Corpus,
    spelled: Sequence[str],
    seed: int,
    findings: Findings,
    at: Mapping[str, str | int | float] | None = None,
    code: SparseCode | None = None,
) -> Generator[Progress, None, None]:
    """Probes of kinds of token and of first letters, absorption, and the contrast of documents, added to `findings`.

    Args:
        coder: whose latents are asked.
        batch: rows with their tokens and places.
        corpus: that they were read in.
        spelled: each token as text.
        seed: of folds and shuffles.
        findings: to add to.
        at: where, for each.
        code: of the batch, where it is known.
    """
    part = _first([batch], _PROBED)
    if code is None:
        with torch.no_grad():
            code = coder.encode(part.x)
    else:
        code = SparseCode(code.values[:_PROBED], code.indices[:_PROBED], code.n)
    assert part.tokens is not None
    assert part.places is not None
    groups = corpus.document[part.places[:, 0].cpu()]
    yield Progress("Evaluating", 2, 5, "kinds of token")
    kinds = measure.token_kinds(spelled)[part.tokens.cpu()]
    for number, name in enumerate(measure.KINDS):
        findings.add(_probes(code, part.x, kinds == number, groups, name, seed), at=at)
    yield Progress("Evaluating", 3, 5, "first letters")
    letters = [spelled[token].strip()[:1].lower() for token in part.tokens.tolist()]
    for letter in string.ascii_lowercase:
        labels = torch.tensor([one == letter for one in letters])
        if int(labels.sum()) >= _FEWEST:
            absorbed = probe_absorption(
                code, part.x, labels, coder.dictionary, name=f"first letter {letter}", seed=seed
            )
            findings.add(absorbed, at=at)
    yield Progress("Evaluating", 4, 5, "contrast of texts")
    pairs = list(_pairs(code, groups))
    if len(pairs) >= 2:
        findings.add(contrast(pairs, seed=seed), at=at)
    yield Progress("Evaluating", 5, 5)


def coder_at(path: str) -> SparseCoder:
    """The dictionary at a path, or of the hub after `hub:`, in any format, with its own encoder.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it reads rows otherwise than as they are.
        FormatError: if it is damaged or of no known format.
    """
    place = Path(path)
    about = place / "about.json"
    if not path.startswith("hub:") and not place.exists():
        raise FileNotFoundError(
            f"there is no file or folder {path}. Give a run folder of `superscope train` or a saved dictionary."
        )
    if about.is_file() and files.read_json(about).get("kind") == LEARNED:
        return load_coder(place)
    original = imported(path)
    if original.rows != "as they are":
        raise ValueError(
            f"{path} reads rows under a {original.rows} of its package, so it cannot stand for x in a model. Convert "
            "it first: `superscope convert`."
        )
    assert isinstance(original.sae, SAE)
    return original.sae.eval()


def _require_d(coder: SparseCoder, d: int, where: str) -> None:
    if coder.dictionary.d != d:
        raise ValueError(
            f"the dictionary reads rows of d = {coder.dictionary.d}, and {where} has rows of d = {d}. Give the model "
            "and site, or the world, that it was learned on."
        )


def _first(rows: Any, most: int) -> Activations:
    batches = list(rows)
    whole = batches[0]
    if len(batches) > 1:
        parts = [batch.code.dense() for batch in batches if batch.code is not None]
        code = SparseCode.from_dense(torch.cat(parts)) if parts else None
        whole = Activations(torch.cat([batch.x for batch in batches]), code)
    code = whole.code
    return Activations(
        whole.x[:most],
        None if code is None else SparseCode(code.values[:most], code.indices[:most], code.n),
        None if whole.tokens is None else whole.tokens[:most],
        None if whole.places is None else whole.places[:most],
    )


def _recovered(
    loaded: Subject, site: Site, corpus: Corpus, coder: SparseCoder, source: MemorySource, most: int, seed: int
) -> Iterator[Measurement]:
    windows = min(max(most // corpus.context, 2), len(corpus))
    where = capture.ordinary_places(corpus, source.left_out)[:windows]
    part = corpus.take(torch.arange(windows))
    mean = source.x.mean(0)
    changes = {"reconstruction": coder.reconstruct, "mean": mean.expand_as, "zero": torch.zeros_like}
    with torch.no_grad():
        found = divergences(loaded, part, [{site: change} for change in changes.values()], where=where)
    moved = dict(zip(changes, found, strict=True))
    rebuilt = moved["reconstruction"]
    for ablation in ("zero", "mean"):
        entropy = measure.cross_entropy_recovered(
            rebuilt.loss, rebuilt.edited_loss, moved[ablation].edited_loss, rebuilt.targets,
            documents=part.document, ablation=ablation, seed=seed,
        )  # fmt: skip
        yield from (one.at_site(ablation=ablation) for one in entropy)
        yield from divergence_recovered(
            rebuilt.kl, moved[ablation].kl, rebuilt.positions,
            documents=part.document, ablation=ablation, seed=seed,
        )  # fmt: skip


def _probes(
    code: SparseCode, x: Tensor, labels: Tensor, groups: Tensor, name: str, seed: int
) -> tuple[Measurement, ...]:
    folds = min(5, len(groups.unique()))
    if min(int(labels.sum()), int((~labels).sum())) < _FEWEST or folds < 2:
        return ()
    return sparse_probing(code, x, labels, groups=groups, ks=(1, 5), folds=folds, shuffles=2, name=name, seed=seed)


def _pairs(code: SparseCode, groups: Tensor) -> Iterator[tuple[SparseCode, SparseCode]]:
    """Documents two by two."""
    numbers = groups.unique().tolist()
    for first, second in zip(numbers[::2], numbers[1::2], strict=False):
        rows = [(groups == number).nonzero().flatten() for number in (first, second)]
        if min(map(len, rows)) >= 8:
            one, other = (SparseCode(code.values[at], code.indices[at], code.n) for at in rows)
            yield one, other


def _sentences(findings: Findings) -> Iterator[str]:
    unexplained, length = findings["fraction_variance_unexplained"], findings["description_length"]
    yield (
        f"It leaves {(unexplained.value or 0):.1%} of variance unexplained about the mean, and writes a row in "
        f"{length.value:,.0f} bits, where its coordinates one by one take {length.chance:,.0f}."
    )
    for ablation in ("zero", "mean"):
        entropy, kl = (findings.get(f"{name}_recovered", ablation) for name in ("cross_entropy", "divergence"))
        if entropy is not None and entropy.value is not None and kl is not None and kl.value is not None:
            yield (
                f"Of what {ablation} ablation costs the model, it saves {entropy.value:.1%} in cross-entropy and "
                f"{kl.value:.1%} in divergence."
            )
    probes = [m for m in findings if m.name == "probe_accuracy" and m.at.get("k") == 1]
    if probes:
        mean = [sum(getattr(m, part) or 0.0 for m in probes) / len(probes) for part in ("value", "chance", "reference")]
        yield (
            f"One latent tells {len(probes)} kinds of token with a balanced accuracy of {mean[0]:.2f} on average; "
            f"shuffled labels give {mean[1]:.2f}, a probe of all of x {mean[2]:.2f}."
        )
    absorbed = [m for m in findings if m.name == "probe_absorption"]
    shown = [m for m in absorbed if m.value is not None]
    if shown:
        mean = [sum(getattr(m, part) or 0.0 for m in shown) / len(shown) for part in ("value", "chance")]
        yield (
            f"First letters that x shows ({len(shown)} of {len(absorbed)}) are absorbed in {mean[0]:.1%} of rows; "
            f"by chance in {mean[1]:.1%}."
        )
    elif absorbed:
        yield "x itself shows no first letter at this site, so their absorption cannot be judged."
    cause = findings.get("interchange_cause")
    if cause is not None and cause.value is not None:
        alone, moves = findings["interchange_isolation"], findings["multi_concept_moves"]
        yield (
            f"Exchanging a feature's latent moves {cause.value:.0%} of it (a random latent {(cause.chance or 0):.0%}), "
            f"with isolation {(alone.value or 0):.2f} where its true atom has {(alone.reference or 0):.2f}, and moves "
            f"{(moves.value or 0):.1f} features."
        )
