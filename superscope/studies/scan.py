"""How superposed are the layers of this model? From a model's name and a text to a report."""

from __future__ import annotations

import dataclasses
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro

from .. import capture, measure
from ..capture import Corpus, Loaded, ShardSource, StoredSource, pieces, spelling
from ..core import Activations, Measurement, Report, RunFolder, Site, SparseCode, Step, files
from ..dictionaries import SAE, SHORT, TopK, train
from .study import Progress, Study, environment, timestamp

_ROOM = 3 * 2**30
"""Bytes of activations held in memory; more are kept on disk while the scan runs."""

_BLOCKS = 6
"""Blocks read by default: each site of a large model costs minutes; --sites takes any number."""

_SPLICED_TOKENS = 16_384
"""Held-out tokens on which the model runs with a reconstruction in place of x."""

_CONTEXTS = 12
_SHOWN_LATENTS = 400
"""Latents of each site whose contexts are kept in the run, the most reliable ones: 400 are about 2 MB."""

_SAVED = ("weights.safetensors", "about.json", "training.json")
Rows = StoredSource | ShardSource
Learned = tuple[SAE, dict[str, list[float]]]
"""An SAE and the curve of its training."""

_SHOWN_NEURONS = 100
_FEATURES_PER_NEURON = 16
_EVERY = 10


@dataclass(frozen=True)
class Scan(Study):
    """How superposed are this model's layers?

    Reads a text with the model, records the activations at each site, learns a sparse dictionary of each with several
    seeds, and measures: sparsity, what the dictionary explains, how many directions recur over seeds against the
    dimensions there are, how much they interfere, which neurons mix which features. Writes one run folder.
    """

    kind: ClassVar[str] = "scan"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hugging Face name or local folder of a causal or encoder model; "pocket" travels inside the package."""
    sites: tuple[str, ...] = ()
    """Module paths to read, globs allowed (`transformer.h.*`); `path:in` reads a module's input. Default: the outputs
    of the blocks, six where there are more, and the hidden layer of the middle block's MLP, where neurons are."""
    text: str | None = None
    """Text to read: a file, a folder, or `datasets:NAME`. Default: the text every Python carries."""
    tokens: int = 300_000
    """Tokens to learn from; less if the text is shorter."""
    held_out: int = 40_000
    """Tokens of other documents, to measure on."""
    context: int = 128
    """Tokens the model sees at once."""
    n: int | None = None
    """Latents of each dictionary. Default: 8 for each dimension of the residual stream."""
    k: int = 16
    """Latents that may be active at a token."""
    seeds: int = 3
    """Dictionaries learned at each site, from different random starts."""
    steps: int = 300
    """Training steps of each dictionary, with the trainer's arguments for few steps (`dictionaries.SHORT`). At block 2
    of the pocket model 250 of them left 0.184 of variance unexplained and 545 directions recurred over three seeds; 500
    with the trainer's defaults left 0.194, and 247 recurred. Block 0, whose rows are nearly tokens, wants more: 225
    left 0.121 where the 500 left 0.118."""
    batch: int = 1024
    """Activations in one training step. With the trainer's defaults, 600 steps of 1024 gave 271 recurring features
    where 300 of 2048, the same tokens, gave 170 (pocket model, block 2, n = 1536, three seeds)."""
    control: bool = False
    """Also scan a copy of the model with random weights, to see what training put there."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of everything random: the order of the text, the starts, the bootstrap."""

    def __post_init__(self) -> None:
        least = {"tokens": 1, "held_out": 1, "context": 2, "k": 1, "seeds": 2, "steps": 1, "batch": 2}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                why = " A direction can only recur over at least two." if name == "seeds" else ""
                raise ValueError(f"{name} must be at least {lowest}; got {getattr(self, name)}.{why}")
        if self.n is not None and self.n < 2:
            raise ValueError(f"n must be at least 2; got {self.n}.")

    def stages(self, out: Path | None = None) -> Generator[Progress, None, Report]:
        began, clock = timestamp(), time.monotonic()
        # Whether the folder can be used is found out before minutes are spent on what would go there.
        settings = dataclasses.asdict(self)
        if out is not None:
            RunFolder.standing(out, kind=self.kind, settings=settings)
            files.require_space(out, 64 * 2**20)
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        sites = capture.sites(loaded.model, self.sites) if self.sites else _default_sites(loaded)
        n = self.n or 8 * loaded.d
        if self.k > n:
            raise ValueError(
                f"k = {self.k} latents cannot be active among n = {n}. Give a smaller --k or a larger --n."
            )
        yield Progress(f"Loading {self.model}", 1, 1, f"{len(sites)} site{'' if len(sites) == 1 else 's'}")
        yield Progress("Reading the text", 0, 1)
        corpus, held_out = self._corpora(loaded)
        yield Progress(
            "Reading the text", 1, 1, f"{corpus.n_tokens:,} tokens to learn from, {held_out.n_tokens:,} held out"
        )

        subjects = {"trained": loaded} | ({"control": capture.control(loaded, self.seed)} if self.control else {})
        found = _Found()
        run: RunFolder | None = None
        for label, subject in subjects.items():
            parts = {"activations": corpus, "held-out activations": held_out}
            with self._room(loaded, sites, parts.values(), out) as folder:
                if folder is not None and out is not None:
                    # What has been recorded is kept from here on, should the scan be interrupted.
                    run = run or self.open_run(out)
                recorded = {}
                for name, part in parts.items():
                    stage = f"Recording {name}{self._of(label)}"
                    place = None if folder is None else folder / label / name.replace(" ", "-")
                    recording = capture.record(subject, sites, part, place)
                    recorded[name] = yield from _told(recording, stage, part.n_tokens)
                for site in sites:
                    # The folder appears with the first result, so that whatever fails before it leaves nothing behind.
                    if out is not None and run is None:
                        run = self.open_run(out)
                    source, held = (recorded[name].pop(site) for name in parts)
                    learned = yield from self._learned(subject, label, site, source, run)
                    for index, (_, curve) in enumerate(learned):
                        found.add("training", {"site": str(site), "model": label, "seed": index}, curve)
                    saes = [sae for sae, _ in learned]
                    stage = f"Measuring {site}{self._of(label)}"
                    yield Progress(stage, 0, 1)
                    view = _View(self, subject, label, site, source, held, corpus, held_out, saes)
                    yield from _measured(view, found, stage)
        report = Report(
            title=f"{loaded.name}: superposition at {len(sites)} site{'s' if len(sites) > 1 else ''}",
            kind=self.kind,
            measurements=tuple(found.measurements),
            settings=settings,
            environment=environment()
            | {"created": began, "finished": timestamp(), "seconds": round(time.monotonic() - clock, 1)}
            | {"text": f"{len(set(corpus.document.tolist()))} documents", "window": str(corpus.policy)},
            tables=found.tables,
            findings=_findings(found, sites, self.seeds),
        )
        if run is not None:
            run.about["environment"] = dict(report.environment)
            report.write(run)
            run.finish(report.title, str(report.environment["finished"]))
        return report

    def _of(self, label: str) -> str:
        """Which of two models a stage is about; nothing where there is but one."""
        return f" ({label})" if self.control else ""

    def _corpora(self, loaded: Loaded) -> tuple[Corpus, Corpus]:
        everything = self.tokens + self.held_out
        corpus = capture.tokens(
            loaded.tokenizer, capture.documents(self.text), context=self.context, limit=everything, seed=self.seed
        )
        corpus, held_out = corpus.split(self.tokens / everything, seed=self.seed)
        if corpus.n_tokens < self.batch or held_out.n_tokens < 2:
            raise ValueError(
                f"the text gives {corpus.n_tokens:,} tokens to learn from and {held_out.n_tokens:,} to measure on, "
                f"too few for batches of {self.batch:,}. Give more text with --text, or a smaller --batch."
            )
        return corpus, held_out

    @contextmanager
    def _room(
        self, loaded: Loaded, sites: Sequence[Site], parts: Iterable[Corpus], out: Path | None
    ) -> Iterator[Path | None]:
        """The folder for rows that do not fit in memory, gone when they are no more wanted; None where they fit."""
        wanted = sum(capture.bytes_to_record(loaded, sites, part) for part in parts)
        if wanted <= _ROOM:
            yield None
        elif out is None:
            with tempfile.TemporaryDirectory(prefix="superscope-scan-") as folder:
                yield Path(folder)
        else:
            yield out / "activations"
            shutil.rmtree(out / "activations")

    def _learned(
        self, subject: Loaded, label: str, site: Site, source: Rows, run: RunFolder | None
    ) -> Generator[Progress, None, list[Learned]]:
        """One SAE for each seed, trained side by side, or taken from an interrupted run."""
        stage, total = f"Learning {site}{self._of(label)}", self.seeds * self.steps
        learned: dict[int, Learned] = {}
        folders = {index: f"saes/{label}/{str(site).replace(':', '-')}/seed{index}" for index in range(self.seeds)}
        for index, folder in folders.items():
            if run is not None and all(run.has(f"{folder}/{name}") for name in _SAVED):
                learned[index] = (TopK.load(run / folder), files.read_json(run / f"{folder}/training.json"))
                yield Progress(stage, len(learned) * self.steps, total, "taken from the interrupted run")
        done = dict.fromkeys(learned, self.steps)
        missing = [index for index in folders if index not in learned]
        for index, step, result in _side_by_side([self._training(subject, source, index) for index in missing]):
            index = missing[index]
            if result is not None:
                learned[index] = result
                if run is not None:
                    sae, curve = result
                    sae.save(
                        run / folders[index], notes={"model": subject.name, "site": str(site), "tokens": len(source)}
                    )
                    files.write_json(run / folders[index] / "training.json", curve)
                    for name in _SAVED:
                        run.keep(f"{folders[index]}/{name}")
            if step is not None:
                done[index] = step.index
                unexplained = step.numbers["fraction_variance_unexplained"]
                yield Progress(stage, sum(done.values()), total, f"{unexplained:.1%} of variance unexplained")
        return [learned[index] for index in range(self.seeds)]

    def _training(self, subject: Loaded, source: Rows, index: int) -> Generator[Step, None, Learned]:
        """The steps worth showing of one seed's training."""
        sae = TopK(d=source.d, n=self.n or 8 * subject.d, k=self.k, seed=self.seed + index).to(subject.model.device)
        curve: dict[str, list[float]] = {"step": [], "fraction_variance_unexplained": [], "dead": []}
        settings = {**SHORT, "batch": min(self.batch, len(source)), "seed": self.seed + index}
        for step in train(sae, source, steps=self.steps, **settings):
            if step.index % _EVERY == 0 or step.index in (1, self.steps):
                curve["step"].append(step.index)
                curve["fraction_variance_unexplained"].append(step.numbers["fraction_variance_unexplained"])
                curve["dead"].append(step.numbers["dead"])
                yield step
        return sae, curve


def _told(
    counts: Generator[int, None, dict[Site, Rows]], stage: str, total: int
) -> Generator[Progress, None, dict[Site, Rows]]:
    """Counts as progress."""
    while True:
        try:
            yield Progress(stage, next(counts), total)
        except StopIteration as end:
            return end.value


def _side_by_side(
    trainings: Sequence[Generator[Step, None, Learned]],
) -> Iterator[tuple[int, Step | None, Learned | None]]:
    """(number, step, None) as trainings go on, (number, None, result) as they end, each in a thread of its own.

    Three small problems on two cores run faster beside each other with one thread each than one after the other with
    two: no thread waits for another at the end of every operation. Each training has its own random numbers, so the
    results are those of running them in turn.
    """
    news: queue.SimpleQueue[tuple[int, Step | None, Learned | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(number: int) -> None:
        try:
            while not stopped.is_set():
                try:
                    news.put((number, next(trainings[number]), None, None))
                except StopIteration as end:
                    news.put((number, None, end.value, None))
                    return
        except BaseException as error:
            # It is raised in the thread that waits for the news.
            news.put((number, None, None, error))

    threads = torch.get_num_threads()
    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(trainings))]
    torch.set_num_threads(max(threads // max(len(workers), 1), 1))
    try:
        for worker in workers:
            worker.start()
        running = len(workers)
        while running:
            number, step, result, error = news.get()
            if error is not None:
                raise error
            running -= result is not None
            yield number, step, result
    finally:
        stopped.set()
        for worker in workers:
            worker.join()
        torch.set_num_threads(threads)


@dataclass
class _Found:
    """What has been measured so far."""

    measurements: list[Measurement] = field(default_factory=list)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    clean: dict[str, capture.Loss] = field(default_factory=dict)
    """Each model's own loss on the held-out text, which is the same whatever the site."""

    def add(self, table: str, where: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        """Appends rows to a table; `where` fills further columns with one value."""
        rows = len(next(iter(columns.values())))
        whole = {name: [value] * rows for name, value in where.items()} | columns
        for name, cells in whole.items():
            self.tables.setdefault(table, {}).setdefault(name, []).extend(cells)

    def value(self, name: str, site: Site, label: str = "trained") -> Measurement | None:
        """One measurement, if it was made and has a value."""
        for m in self.measurements:
            if m.name == name and m.at.get("site") == str(site) and m.at.get("model") == label and m.value is not None:
                return m
        return None


@dataclass(frozen=True, eq=False)
class _View:
    """One site of one model with all that is known there."""

    scan: Scan
    subject: Loaded
    label: str
    site: Site
    source: Rows
    held: Rows
    corpus: Corpus
    held_out: Corpus
    saes: list[SAE]

    @property
    def at(self) -> dict[str, str | int | float]:
        return {"site": str(self.site), "model": self.label}


def _measured(view: _View, found: _Found, stage: str) -> Generator[Progress, None, None]:
    """Every measurement and table of one site."""
    scan, sae, site = view.scan, view.saes[0], view.site
    kind = view.subject.kind_of(site)
    held = list(view.held.rows())
    documents = view.held_out.document
    measurements = [
        Measurement(
            name="tokens",
            value=float(len(view.source)),
            unit="tokens",
            n=len(view.source),
            of="tokens",
            how="no interval: a count of what was read",
        ),
        Measurement(
            name="dimensions",
            value=float(sae.d),
            unit="dimensions",
            n=sae.d,
            of="coordinates",
            how="no interval: a property of the model",
        ),
    ]
    measurements += measure.activation_sparsity(held, documents=documents, seed=scan.seed)
    parts = 6
    yield Progress(stage, 1, parts)

    # The whole evaluation is of the first seed; the other seeds give its error a range.
    evaluations = [measure.evaluate(each, held, documents=documents, seed=scan.seed) for each in view.saes]
    measurements += list(evaluations[0])
    over = measure.over_seeds([e["fraction_variance_unexplained"].value or 0.0 for e in evaluations])
    measurements.append(
        dataclasses.replace(
            evaluations[0]["fraction_variance_unexplained"],
            name="fraction_variance_unexplained_over_seeds",
            value=sum(e["fraction_variance_unexplained"].value or 0.0 for e in evaluations) / len(evaluations),
            **over.fields,
        )
    )
    yield Progress(stage, 2, parts)
    moments = measure.moments(view.source.rows())
    measurements += _cross_entropy(view, moments.mean.to(sae.atoms), found)
    yield Progress(stage, 3, parts)

    alive = [evaluation.density > 0 for evaluation in evaluations]
    recurrence = measure.recurring_features(
        [each.dictionary for each in view.saes], alive=alive, covariance=moments.covariance, seed=scan.seed
    )
    measurements += [m for m in recurrence if m.name != "recurring_features_most"]
    W = sae.dictionary
    # The pair that attains the coherence is in the table of latents, as everybody's nearest atom is.
    coherence = dataclasses.replace(measure.coherence(W), at={})
    measurements += [coherence, measure.mean_max_cosine(W), measure.interference_energy(W)]
    near = measure.nearest(W)
    for what, histogram in (
        ("nearest cosine", measure.nearest_histogram(W)),
        ("interference", measure.cosine_histogram(W)),
    ):
        found.add(
            "histograms", {**view.at, "what": what}, {key: list(cells) for key, cells in histogram.table().items()}
        )
    yield Progress(stage, 4, parts)

    mixing = measure.polysemanticity(sae, held, documents=documents, top=_FEATURES_PER_NEURON, seed=scan.seed)
    measurements += list(mixing)
    _neurons(view, mixing, found)
    yield Progress(stage, 5, parts)

    codes = [(sae.encode(batch.x), batch) for batch in view.source.rows()]
    density = _latents(view, codes, near, recurrence, found)
    _density_histogram(view, density, found)
    note = {
        "residual": "The stream between blocks: its coordinates are no neurons, and nothing makes their axes special.",
        "neurons": "The hidden layer of an MLP: coordinates are neurons.",
    }.get(kind, "")
    found.add(
        "sites",
        view.at,
        {
            "d": [sae.d],
            "n": [sae.n],
            "k": [scan.k],
            "seeds": [scan.seeds],
            "rows": [len(view.source)],
            "kind": [kind],
            "note": [note],
        },
    )
    found.measurements += [m.at_site(**view.at) for m in measurements]
    yield Progress(stage, parts, parts)


def _cross_entropy(view: _View, mean: torch.Tensor, found: _Found) -> tuple[Measurement, ...]:
    """What the model loses when it runs on the reconstruction, where it predicts tokens."""
    if view.subject.kind != "causal":
        return ()
    windows = max(_SPLICED_TOKENS // view.held_out.context, 2)
    corpus = view.held_out.take(torch.arange(min(windows, len(view.held_out))))
    sae = view.saes[0]
    with torch.no_grad():
        if view.label not in found.clean:
            found.clean[view.label] = capture.next_token_loss(view.subject, corpus)
        clean = found.clean[view.label]
        if not int(clean.counts.sum()):
            return ()
        spliced, ablated = (
            capture.next_token_loss(view.subject, corpus, splice={view.site: change})
            for change in (sae.reconstruct, lambda x: mean.expand_as(x))
        )
    return measure.cross_entropy_recovered(
        clean.nats, spliced.nats, ablated.nats, clean.counts, documents=corpus.document, seed=view.scan.seed
    )


def _neurons(view: _View, mixing: measure.Mixing, found: _Found) -> None:
    """The table of the most polysemantic neurons, and the histogram of all beside random directions."""
    numbers = mixing.effective_features.nan_to_num(-1.0)
    order = numbers.argsort(descending=True, stable=True)[:_SHOWN_NEURONS]
    order = order[numbers[order] > 0]
    found.add(
        "neurons",
        view.at,
        {
            "neuron": order.tolist(),
            "effective_features": mixing.effective_features[order].tolist(),
            "explained": [None if value != value else value for value in mixing.explained[order].tolist()],
            "features": mixing.features[order].tolist(),
            "shares": mixing.shares[order].tolist(),
            "signs": mixing.signs[order].tolist(),
        },
    )
    series = {"neurons": mixing.effective_features, "random rotation": mixing.rotated}
    top = max(
        (float(values[values.isfinite()].max()) for values in series.values() if values.isfinite().any()), default=1.0
    )
    edges = torch.linspace(0, top * (1 + 1e-6), 41, dtype=torch.float64)
    for name, values in series.items():
        values = values[values.isfinite()]
        if len(values):
            # Random directions may be more or fewer than neurons: scaled to as many, so that the bars compare.
            scale = len(series["neurons"]) / len(values)
            counts = torch.histogram(values.double(), edges).hist * scale
            found.add(
                "histograms",
                {**view.at, "what": "features per neuron", "series": name},
                {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
            )


def _latents(
    view: _View,
    codes: Sequence[tuple[SparseCode, Activations]],
    near: measure.Nearest,
    recurrence: measure.Recurrence,
    found: _Found,
) -> torch.Tensor:
    """The tables of latents and of contexts; returns the density of each latent on the text learned from."""
    corpus, tokenizer, sae = view.corpus, view.subject.tokenizer, view.saes[0]
    places = [(code, batch.places) for code, batch in codes if batch.places is not None]
    shares = measure.token_shares((code, batch.tokens) for code, batch in codes if batch.tokens is not None)
    top = measure.top_contexts(places, count=_CONTEXTS, documents=corpus.document)
    texts = spelling(tokenizer)
    clear = measure.clarity(
        top,
        corpus.ids,
        kinds=measure.token_kinds(texts),
        words=measure.token_words(texts),
        keep=corpus.keep,
        seed=view.scan.seed,
    )
    rows = sum(len(code) for code, _ in codes)
    used = [code.values != 0 for code, _ in codes]
    indices = torch.cat([code.indices[mask] for (code, _), mask in zip(codes, used, strict=True)])
    values = torch.cat([code.values[mask] for (code, _), mask in zip(codes, used, strict=True)]).double()
    count = torch.bincount(indices, minlength=sae.n)
    mean = torch.zeros(sae.n, dtype=torch.float64).index_add_(0, indices, values) / count.clamp(min=1)
    promoted = _promoted(view, texts)
    # What every seed found first, among it the clearest (clarity is at most 1); the silent last.
    order = (2.0 * recurrence.counts + clear.score - 2.0 * (count == 0)).argsort(descending=True, stable=True)
    found.add(
        "latents",
        view.at,
        {
            "latent": order.tolist(),
            "density": (count / rows)[order].tolist(),
            "mean_active": mean[order].tolist(),
            "max_active": top.values[:, 0][order].tolist(),
            "recurs": recurrence.counts[order].tolist(),
            "nearest": near.partner[order].tolist(),
            "nearest_cosine": near.cosine[order].tolist(),
            "clarity": clear.score[order].tolist(),
            "clear_by": [clear.readings[reading] for reading in clear.reading[order].tolist()],
            "top_tokens": [[texts[t] for t in row if t >= 0] for row in shares.tokens[order].tolist()],
            "top_token_share": [
                [share for share, t in zip(row, ids, strict=True) if t >= 0]
                for row, ids in zip(shares.shares[order].tolist(), shares.tokens[order].tolist(), strict=True)
            ],
            "promotes": [promoted[latent] if promoted else [] for latent in order.tolist()],
        },
    )
    before, after = 12, 8
    around = measure.activations_around(places, top, before=before, after=after)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("latent", "rank", "activation", "document", "position", "tokens", "activations")
    }
    for latent in order[:_SHOWN_LATENTS].tolist():
        for rank in range(int(top.filled[latent])):
            sequence, position = int(top.sequences[latent, rank]), int(top.positions[latent, rank])
            low, high = max(position - before, 0), min(position + after + 1, int(corpus.length[sequence]))
            shown = corpus.ids[sequence, low:high].tolist()
            first = low - (position - before)
            columns["latent"].append(latent)
            columns["rank"].append(rank)
            columns["activation"].append(float(top.values[latent, rank]))
            columns["document"].append(corpus.names[int(corpus.document[sequence])])
            # Where the token stands in its document: added special tokens at the window's head do not count.
            added = int(corpus.keep[sequence].int().argmax())
            columns["position"].append(int(corpus.start[sequence]) + position - added)
            columns["tokens"].append(pieces(tokenizer, shown))
            columns["activations"].append(around[latent, rank, first : first + len(shown)].tolist())
    found.add("contexts", view.at, columns)
    return count / rows


def _promoted(view: _View, texts: list[str], most: int = 6) -> list[list[str]]:
    """The tokens that each atom raises most if it is read out directly: largest entries of W_U w_i."""
    head = getattr(view.subject.model, "get_output_embeddings", lambda: None)()
    atoms = view.saes[0].dictionary.atoms
    if head is None or view.subject.kind_of(view.site) != "residual" or head.weight.shape[1] != atoms.shape[1]:
        return []
    with torch.no_grad():
        # About the mean token: what raises all tokens alike raises none.
        weight = head.weight.float() - head.weight.float().mean(0)
        found = torch.cat([(block @ weight.T).topk(most).indices for block in atoms.split(512)])
    return [[texts[token] for token in row] for row in found.tolist()]


def _density_histogram(view: _View, density: torch.Tensor, found: _Found) -> None:
    logs = density[density > 0].double().log10()
    edges = torch.linspace(-6, 0, 49, dtype=torch.float64)
    counts = torch.histogram(logs.clamp(min=-6 + 1e-9), edges).hist
    found.add(
        "histograms",
        {**view.at, "what": "latent density", "series": "latents"},
        {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
    )


def _default_sites(loaded: Loaded) -> tuple[Site, ...]:
    """Block outputs, at most six of them evenly spaced to the last, and the middle block's MLP where it has neurons."""
    outputs = capture.default_sites(loaded.model)
    count = min(_BLOCKS, len(outputs))
    chosen = tuple(outputs[round((i + 1) * len(outputs) / count) - 1] for i in range(count))
    hidden = capture.mlp_hidden(loaded.model, outputs[len(outputs) // 2].path)
    return chosen + (capture.sites(loaded.model, [hidden]) if hidden else ())


def _findings(found: _Found, sites: Sequence[Site], seeds: int) -> tuple[str, ...]:
    """The main results as sentences a reader can quote, with their chance levels."""
    per_dimension = {site: m for site in sites if (m := found.value("recurring_per_dimension", site))}
    recurring = {site: m for site in sites if (m := found.value("recurring_features", site))}
    wide = {site: recurring[site].at_site(d=found.tables["sites"]["d"][i]) for i, site in enumerate(sites)}
    over = [site for site, m in per_dimension.items() if (m.value or 0) - (m.chance or 0) > 1]
    strongest = max(per_dimension, key=lambda site: per_dimension[site].value or 0)
    most = wide[strongest]
    counted = (
        f"{most.value:,.0f} directions are found by all {seeds} seeds in {most.at['d']:,} dimensions, "
        f"{per_dimension[strongest].value:.2f} per dimension; chance gives {most.chance:,.0f}"
    )
    if over:
        where = "this site holds" if len(sites) == 1 else f"{len(over)} of {len(sites)} sites hold"
        sentences = [
            f"Superposition: {where} more recurring directions than dimensions, most at {strongest}: {counted}."
        ]
    else:
        where = "this site does not hold" if len(sites) == 1 else f"none of the {len(sites)} sites holds"
        sentences = [
            f"No superposition shown: {where} more recurring directions than dimensions. The most are at {strongest}: "
            f"{counted}. A count of this kind is a lower one: more text or training may find more."
        ]
    controls = {site: m for site in sites if (m := found.value("recurring_features", site, "control"))}
    if controls:
        largest = max(controls, key=lambda site: controls[site].value or 0)
        sentences.append(
            f"With random weights in place of the trained ones, {controls[strongest].value:,.0f} directions recur at "
            f"{strongest}, and at most {controls[largest].value:,.0f} at any site ({largest})."
        )
    unexplained = [m.value for site in sites if (m := found.value("fraction_variance_unexplained", site)) and m.value]
    l0 = [m.value for site in sites if (m := found.value("l0", site)) and m.value]
    recovered = [
        m.value
        for site in sites
        if (m := found.value("cross_entropy_recovered", site)) and m.value is not None and not m.caution
    ]
    if unexplained and l0:
        kept = f"; the model keeps {_span(recovered)} of what it gets from a site" if recovered else ""
        sentences.append(
            f"With {max(l0):.0f} latents per token, the dictionaries leave {_span(unexplained)} of variance "
            f"unexplained{kept}."
        )
    for site, kind in zip(sites, found.tables["sites"]["kind"], strict=False):
        mixing = found.value("polysemanticity", site)
        if kind == "neurons" and mixing is not None:
            sentences.append(
                f"At {site} the median neuron mixes {mixing.value:.0f} features, where a random direction of the same "
                f"space mixes {mixing.chance:.0f}."
            )
    return tuple(sentences)


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low.removesuffix('%')} to {high}"
