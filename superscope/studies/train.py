"""One dictionary learned from any stream of activations, and what it is worth on rows it has not seen."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro

from .. import capture, measure
from ..core import ActivationSource, FormatError, Measurement, Report, RunFolder, files
from ..core.errors import nearest
from ..dictionaries import ARCHITECTURES, SAE, Ramp, Whitening, train
from ..dictionaries.checkpoint import save_state
from ..dictionaries.parallel import ParallelTraining, launched, leave, mesh, newest, told
from ..dictionaries.train import Training
from .stream import FromStream, Stream
from .study import Progress, environment, timestamp
from .trackers import Name, open_tracker

_CHECKPOINT, _SHARDS, _CURVE = "checkpoint.safetensors", "checkpoint", "curve.json"
_WHITENING = "whitening.safetensors"
_NAMES = {architecture.__name__.lower(): architecture for architecture in ARCHITECTURES}
_OWN = ("k", "coefficient", "norm", "bandwidth", "penalty_warmup", "end", "begin", "widths", "candidates", "slack")
_OWN += ("emphasis",)
_SHOWN = 20
_SPLICED_WINDOWS = 128


@dataclass(frozen=True)
class Train(FromStream):
    """Learn a sparse dictionary.

    SOURCE is a model (a Hugging Face name, a folder, "pocket"), a folder that `superscope harvest` wrote, a world whose
    features are known (`world:exactly_k`), or rows in a .safetensors or .npy file. Ctrl-C keeps what was learned: the
    same command with the same --out goes on, to the bit on a CPU of the same kind. SOURCE may also be the run folder of
    a training: its settings are repeated, with those changed that are given here.

    Several processes train one dictionary together where torchrun starts them, each holding a part of the latents:
    torchrun --nproc-per-node 2 -m superscope.cli train SOURCE --out RUN. Any number of them can take RUN up again.
    """

    kind: ClassVar[str] = "train"
    shared: ClassVar[bool] = True
    """Several processes may run it together."""

    source: Annotated[str, tyro.conf.Positional]
    """Model, store, world:NAME, file of rows, or run folder of a training whose settings to repeat."""
    architecture: str = "topk"
    """abstopk, archetypal, batchtopk, gated, interferencepenalised, jumprelu, matchingpursuit, matryoshka, pannealed,
    relu, topk. An option that an architecture does not have is refused."""
    k: int | None = None
    """Latents active in a row, where the architecture has a k. Default: 32, or n/4 if that is less."""
    coefficient: float | None = None
    """Weight of the penalty (relu, gated, pannealed, jumprelu, interferencepenalised)."""
    norm: Literal["unit", "weighted"] | None = None
    """relu: penalise values, or values times the norm of their atom."""
    penalty_warmup: float | None = None
    """Share of the steps in which the penalty rises (relu, gated, pannealed, jumprelu)."""
    bandwidth: float | None = None
    """jumprelu: width of the step whose gradient is smoothed."""
    end: float | None = None
    """pannealed: the last exponent."""
    begin: float | None = None
    """pannealed: share of the steps before annealing begins."""
    widths: tuple[int, ...] = ()
    """matryoshka: nested widths, rising to n."""
    emphasis: float | None = None
    """matryoshka: a prefix weighs as its width to this power."""
    candidates: int | None = None
    """archetypal: points that atoms are mixtures of."""
    slack: float | None = None
    """archetypal: how far an atom may leave them."""
    k_from: float | None = None
    """Begin with so many times k, and go to k over the first `ramp` of the steps."""
    penalty_from: float | None = None
    """Begin with so many times the coefficient, and go to it over the first `ramp` of the steps."""
    ramp: float = 0.2
    """Share of the steps."""
    whiten: Literal["none", "zca", "pca", "scale"] = "none"
    """Learn from rows of equal variance in every direction (zca, pca) or of unit mean square (scale); the weights that
    are saved take x itself."""
    precision: Literal["auto", "full", "bfloat16", "int8"] = "auto"
    """What the encoder's product is made in: bfloat16 where the device multiplies it faster, or as said. "int8" looks
    for what is active by whole numbers (topk, abstopk, batchtopk, matryoshka; CPUs with VNNI)."""
    clip: float | None = None
    """Largest norm of the gradient."""
    resample_every: int = 0
    """Steps between replacements of dead latents; 0 never."""
    dead_after: int | None = None
    """Rows of silence that make a latent dead. Default: a twentieth of all rows, at most 50 000."""
    checkpoint_every: int = 200
    """Steps between checkpoints: a kill loses no more than these."""
    groups: int = 1
    """Groups of processes that see different rows, where torchrun starts several; in a group each has other latents."""
    patience: float = 10.0
    """Minutes to wait for another process before calling it lost."""
    tracker: Name = "none"
    """Also write the curve to a tracker, which must be installed."""

    def __post_init__(self) -> None:
        if self.architecture.lower() not in _NAMES:
            offer = nearest(self.architecture.lower(), list(_NAMES))
            raise ValueError(f"there is no architecture {self.architecture!r}.{offer} Known: {', '.join(_NAMES)}.")
        accepted = self._accepted()
        for name in _OWN:
            if getattr(self, name) not in (None, ()) and name not in accepted:
                own = ", ".join(f"--{each.replace('_', '-')}" for each in _OWN if each in accepted)
                raise ValueError(
                    f"{self.architecture} has no option --{name.replace('_', '-')}. Its own are: {own or 'none'}."
                )
        super().__post_init__()
        for name in ("checkpoint_every", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")

    def _accepted(self) -> dict[str, str]:
        """This study's options that the architecture has, with its own names for them."""
        taken = inspect.signature(_NAMES[self.architecture.lower()]).parameters
        names = {name: "warmup" if name == "penalty_warmup" else name for name in _OWN}
        return {name: its for name, its in names.items() if its in taken}

    def make(self, d: int) -> SAE:
        """The SAE that the settings describe, for activations of d numbers.

        Raises:
            ValueError: if k is above n, or another option is out of range.
        """
        n = self.n or 8 * d
        arguments: dict[str, Any] = {}
        for name, its in self._accepted().items():
            value = getattr(self, name)
            if value not in (None, ()):
                arguments[its] = value
            elif name == "k":
                arguments["k"] = min(32, max(n // 4, 1))
        return _NAMES[self.architecture.lower()](d=d, n=n, **arguments, seed=self.seed).to(self.device)

    def stages(self, out: Path | None = None) -> Generator[Progress, None, Report]:
        saved = self._saved()
        if saved is not None:
            return (yield from saved.stages(out))
        began, clock = timestamp(), time.monotonic()
        settings = dataclasses.asdict(self)
        where = mesh(self.groups, minutes=self.patience) if launched() else None
        leads = where is None or where.leads
        if where is not None:
            out = Path(told(str(out))) if out is not None else None
        run = None
        if out is not None and leads:
            run = RunFolder.standing(out, kind=self.kind, settings=settings)
            files.require_space(out, 64 * 2**20)
        yield Progress(f"Opening {self.source}", 0, 1)
        stream = self.open_stream()
        sae = self.make(stream.train.d)
        white, rows = self._whitened(sae, stream.train, out, leads)
        options: dict[str, Any] = {
            "steps": self.steps,
            "batch": self._batch(stream.train),
            "lr": self.lr,
            "seed": self.seed,
            "clip": self.clip,
            "resample_every": self.resample_every,
            "dead_after": self.dead_after,
            "precision": self.precision,
            "k_ramp": None if self.k_from is None else Ramp(self.k_from, self.ramp),
            "penalty_ramp": None if self.penalty_from is None else Ramp(self.penalty_from, self.ramp),
        }
        training = train(sae, rows, **options)
        yield Progress(f"Opening {self.source}", 1, 1, ". ".join(filter(None, (f"d = {stream.train.d}", stream.said))))
        if where is not None:
            training = ParallelTraining(sae, rows, where, **options)
            if out is not None:
                training.resume(out / _SHARDS, alone=out / _CHECKPOINT)
        elif run is not None:
            state = newest(run / _SHARDS, run / _CHECKPOINT, 0, sae.n)
            if state is not None:
                training.restore(state)
        if training.done:
            yield Progress("Learning", training.done, self.steps, "taken up from the last checkpoint")
        if leads:
            run = run or self.open_run(out)
            if run is not None and white is not None and not (run / _WHITENING).is_file():
                white.save(run / _WHITENING)
        curve = yield from self._learn(training, run, out)
        if isinstance(training, ParallelTraining):
            sae = training.gathered()
            leave()
        if white is not None:
            white.fold(sae)
        if not leads:
            return Report(title="The first process has the report", kind=self.kind, measurements=())
        measurements = yield from self._measure(sae, stream)
        if run is not None:
            sae.save(run / "sae", notes={"source": self.source, "site": str(stream.site or ""), "steps": self.steps})
            for name in ("weights.safetensors", "about.json"):
                run.keep(f"sae/{name}")
            for name in (_CHECKPOINT, _CURVE, _WHITENING):
                (run / name).unlink(missing_ok=True)
            shutil.rmtree(run / _SHARDS, ignore_errors=True)
        found = {m.name: m for m in measurements}
        fvu, l0 = found["fraction_variance_unexplained"].value, found["l0"].value
        findings = [
            f"{type(sae).__name__} with {sae.n:,} latents leaves {fvu:.1%} of the variance of held-out rows "
            f"unexplained, with {l0:.1f} latents active in a row."
        ]
        if stream.truth is not None and found["mean_nearest_cosine"].value is not None:
            findings.append(
                f"The true atoms have a learned one at cosine {found['mean_nearest_cosine'].value:.3f} on average; "
                f"{stream.l0:.1f} features are truly active in a row."
            )
        report = Report(
            title=f"{type(sae).__name__} of {stream.name}{f' at {stream.site}' if stream.site else ''}",
            kind=self.kind,
            measurements=tuple(measurements),
            settings=settings,
            environment=environment()
            | {"created": began, "finished": timestamp(), "seconds": round(time.monotonic() - clock, 1)},
            tables={"training": curve} if curve["step"] else {},
            findings=tuple(findings),
        )
        if run is not None:
            run.about["environment"] = dict(report.environment)
            report.write(run)
            run.finish(report.title, str(report.environment["finished"]))
        return report

    def _whitened(
        self, sae: SAE, source: ActivationSource, out: Path | None, leads: bool
    ) -> tuple[Whitening | None, ActivationSource]:
        """The whitening, that of an interrupted run where there is one, and the rows to learn from."""
        if self.whiten == "none":
            return None, source
        Whitening.check(sae)
        if out is not None and (out / _WHITENING).is_file():
            white = Whitening.load(out / _WHITENING)
        else:
            white = Whitening.of(source, kind=self.whiten, batch=self._batch(source), seed=self.seed)
        return white, white.source(source)

    def _batch(self, source: ActivationSource) -> int:
        rows = getattr(source, "__len__", None)
        return self.batch if rows is None else min(self.batch, max(rows(), 2))

    def _saved(self) -> Train | None:
        """The training whose run folder SOURCE is, with the settings changed that were given beside it.

        Raises:
            FormatError: if SOURCE is the run folder of another study, or its settings are none of ours.
        """
        folder = Path(self.source)
        if not (folder / "about.json").is_file() or (folder / "store").exists():
            return None
        about = RunFolder.open(folder).about
        if about["kind"] != self.kind:
            raise FormatError(f"{folder} is a run of `superscope {about['kind']}`, which has no rows to learn from.")
        fields = {field.name: field for field in dataclasses.fields(self)}
        files.refuse_unknown(about["settings"], tuple(fields), f"{folder}/about.json")
        given = {name: getattr(self, name) for name in fields if getattr(self, name) != fields[name].default}
        settings = about["settings"] | {name: value for name, value in given.items() if name != "source"}
        return dataclasses.replace(self, **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})

    def _learn(
        self, training: Training, run: RunFolder | None, out: Path | None
    ) -> Generator[Progress, None, dict[str, list[Any]]]:
        # Of several processes all keep their part of a checkpoint in `out`, and one has the run.
        together = isinstance(training, ParallelTraining)
        tracker = open_tracker(
            self.tracker if run is not None or not together else "none",
            run,
            dataclasses.asdict(self),
            done=training.done,
        )
        curve: dict[str, list[Any]] = {"step": [], "loss": [], "fraction_variance_unexplained": []}
        curve |= {"l0": [], "dead": [], "rows_per_second": []}
        if run is not None and training.done and (run / _CURVE).is_file():
            kept = files.read_json(run / _CURVE)
            shown = sum(index <= training.done for index in kept["step"])
            curve = {name: kept[name][:shown] for name in curve}
        whole = False
        try:
            for step in training:
                whole, index = True, step.index
                if index % _SHOWN == 0 or index in (1, self.steps):
                    curve["step"].append(index)
                    curve["loss"].append(step.loss)
                    for name in ("fraction_variance_unexplained", "l0", "dead", "rows_per_second"):
                        curve[name].append(step.numbers[name])
                    tracker.log(index, {"loss": step.loss, **step.numbers})
                    unexplained = step.numbers["fraction_variance_unexplained"]
                    yield Progress("Learning", index, self.steps, f"{unexplained:.1%} of variance unexplained")
                if out is not None and index % self.checkpoint_every == 0:
                    _keep(run, out, training, curve)
                whole = False
        except (KeyboardInterrupt, GeneratorExit):
            # Between two steps everything is whole; within one it is the last checkpoint that counts.
            if out is not None and whole and not together:
                _keep(run, out, training, curve)
            raise
        finally:
            tracker.close()
        return curve

    def _measure(self, sae: SAE, stream: Stream) -> Generator[Progress, None, list[Measurement]]:
        yield Progress("Measuring", 0, 1)
        size = min(4096, self.held_out)
        length = getattr(stream.held_out, "__len__", None)
        if length is not None:
            size = min(size, length())
        batches = max(self.held_out // size, 1)
        # A world or store has no rows set apart: an order that no training draws.
        options: dict[str, Any] = {"batches": batches, "size": size, "seed": self.seed + 1_000_003}
        documents = None if stream.corpus is None else stream.corpus.document
        found = list(measure.evaluate(sae, stream.held_out, documents=documents, **options))
        if stream.truth is not None:
            found += list(measure.recovery_scores(sae, stream.held_out, stream.truth, **options))
            found.append(measure.mean_nearest_cosine(sae.dictionary, stream.truth))
        if stream.loaded is not None and stream.corpus is not None and stream.site is not None:
            found += _recovered(sae, stream, self.seed)
        yield Progress("Measuring", 1, 1)
        return [
            measurement.at_site(site=str(stream.site)) if stream.site is not None else measurement
            for measurement in found
        ]


def _recovered(sae: SAE, stream: Stream, seed: int) -> list[Measurement]:
    assert stream.loaded is not None
    assert stream.corpus is not None
    assert stream.site is not None
    corpus = stream.corpus.take(torch.arange(min(_SPLICED_WINDOWS, len(stream.corpus))))
    mean = next(stream.train.batches(256, seed=0)).x.mean(0)
    changes = (None, sae.reconstruct, lambda x: mean.expand_as(x))
    with torch.no_grad():
        clean, spliced, ablated = (
            capture.next_token_loss(stream.loaded, corpus, splice=None if change is None else {stream.site: change})
            for change in changes
        )
    if not int(clean.counts.sum()):
        return []
    return list(
        measure.cross_entropy_recovered(
            clean.nats, spliced.nats, ablated.nats, clean.counts, documents=corpus.document, seed=seed
        )
    )


def _keep(run: RunFolder | None, out: Path, training: Training, curve: dict[str, list[Any]]) -> None:
    if run is not None:
        files.write_json(run / _CURVE, curve)
    if isinstance(training, ParallelTraining):
        training.save(out / _SHARDS)
    else:
        save_state(out / _CHECKPOINT, training.state())
