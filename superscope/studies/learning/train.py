"""One dictionary learned from any stream of activations, and what it is worth on rows it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from torch import Tensor

from ... import measure
from ...core import (
    ActivationSource,
    Answer,
    Findings,
    FormatError,
    Measurement,
    Run,
    RunFolder,
    SparseCoder,
    files,
)
from ...dictionaries import SAE, Learner, Ramp, Refined, Whitening, train
from ...dictionaries.checkpoint import save_state
from ...dictionaries.parallel import ParallelTraining, broadcast_text, end_group, launched, mesh, newest
from ...dictionaries.sae.base import SAVED
from ...dictionaries.train import Training
from ...dictionaries.transcoders import Predictor
from ...recovery import REFINEMENTS, Refinement
from .. import arguments
from ..settings import Count, above, at_least, at_most
from ..spliced import loss_recovered
from ..study import Progress
from .learners import LEARNERS, complete, listing, settings
from .stream import FromStream, Stream, length
from .trackers import Name, open_tracker

_CHECKPOINT, _SHARDS, _CURVE = "checkpoint.safetensors", "checkpoint", "curve.json"
_WHITENING = "whitening.safetensors"
_DESCENT = ("steps", "batch", "recipe", "lr", "k_from", "penalty_from", "ramp", "whiten", "precision", "clip")
_DESCENT += ("resample_every", "dead_after", "checkpoint_every", "groups", "tracker")
"""Settings that say something of descent alone, not of classical learners."""
_AXES_ROWS, _WHITENING_ROWS = 16_384, 65_536
"""Rows that axes and variances are taken from."""
_SHOWN = 20
_SPLICED_WINDOWS = 128
_REFINED = ("fraction_variance_unexplained", "l0", "cross_entropy_recovered", "cross_entropy_added")
_REFINED += ("support_precision", "support_recall", "support_f1", "feature_value_r2")
"""What is measured once more of refined codes; the rest speaks of the dictionary."""
_EVALUATION = 4.0
"""What measuring a row costs, in rows of training (timed)."""


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
    to: tuple[str, ...] = ()
    """Further sites (of a file, tensors) read in step with the first: the one that a transcoder predicts from it, those
    that a crosscoder learns of beside it."""
    architecture: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(sorted(LEARNERS))}}}")] = "topk"
    """Who learns: a sparse autoencoder, a transcoder, a crosscoder or a classical learner."""
    k: Count | None = None
    """Latents active in a row, where the architecture has a k. Default: 32, or n/4 if that is less."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE: a setting of the architecture's own; `--set help` says what they mean. May be repeated."""
    k_from: Annotated[float, at_least(0, finite=True)] | None = None
    """Begin with so many times k, and go to k over the first `ramp` of the steps."""
    penalty_from: Annotated[float, at_least(0, finite=True)] | None = None
    """Begin with so many times the penalty's coefficient, and go to it over the first `ramp` of the steps."""
    ramp: Annotated[float, at_least(0), at_most(1)] = 0.2
    """Share of the steps."""
    whiten: Literal["auto", "none", "axes", "zca", "pca", "scale"] = "auto"
    """Learn from rows turned to their principal axes (axes), of equal variance in every direction (zca, pca) or of unit
    mean square (scale); the weights that are saved take x itself. auto is axes with the short recipe, else none."""
    precision: Literal["auto", "full", "bfloat16", "int8"] = "auto"
    """What the encoder's product is made in: bfloat16 where the device multiplies it faster, or as said. "int8" looks
    for what is active by whole numbers (topk, abstopk, batchtopk, matryoshka; CPUs with VNNI)."""
    clip: Annotated[float, above(0, finite=True)] | None = None
    """Largest norm of the gradient."""
    resample_every: Annotated[int, at_least(0)] = 0
    """Steps between replacements of dead latents; 0 never."""
    dead_after: Count | None = None
    """Rows of silence that make a latent dead. Default: a twentieth of all rows, at most 50 000."""
    checkpoint_every: Count = 200
    """Steps between checkpoints: a kill loses no more than these."""
    refine: Annotated[str, tyro.conf.arg(metavar=f"{{none,{','.join(each.name for each in REFINEMENTS)}}}")] = "none"
    """Also measure with codes that are refined: "refit" gives each row's active latents their best values, "pursuit"
    trades them for others that fit better. The dictionary that is saved stays as it is."""
    groups: Count = 1
    """Groups of processes that see different rows, where torchrun starts several; in a group each has other latents."""
    patience: Annotated[float, above(0, finite=True)] = 10.0
    """Minutes to wait for another process before calling it lost."""
    tracker: Name = "none"
    """Also write the curve to a tracker, which must be installed."""

    def check(self) -> None:
        kind = self.learner
        settings(self.architecture, self.set, self.k)
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        if issubclass(kind, Learner) and (set_ := [name for name in _DESCENT if getattr(self, name) != usual[name]]):
            raise ValueError(
                f"{self.architecture} is not learned by descent, so --{set_[0].replace('_', '-')} says nothing to it. "
                "`--set help` lists what does."
            )
        if self.refine != "none":
            Refinement.of(self.refine)
        if self.refine != "none" and issubclass(kind, Learner):
            raise ValueError(f"{self.architecture} has no encoder whose codes --refine could refine. Leave it out.")
        if self.refine != "none" and issubclass(kind, Predictor):
            raise ValueError(
                f"the codes of {self.architecture} add up to another activation than the one they are read from, so "
                "there is nothing to refine them by. Leave out --refine."
            )

    @classmethod
    def about(cls) -> str:
        return f"{super().about()}\n\nArchitectures, and what `--set NAME=VALUE` sets of each:\n\n{listing()}"

    @property
    def learner(self) -> type[SAE] | type[Learner]:
        """The class of what is learned."""
        return arguments.pick(self.architecture, LEARNERS, "architecture")

    def settings_for(self, source: ActivationSource) -> dict[str, Any]:
        """What the settings say of it, for rows of a source.

        Raises:
            ValueError: if something is missing that has no default.
        """
        return complete(self.learner, settings(self.architecture, self.set, self.k), source, self.n, self.seed)

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        where = mesh(self.groups, minutes=self.patience) if launched() else None
        if where is not None:
            first = Path(broadcast_text(str(run.path))) if run.path is not None else None
            if not where.leads:
                run.follow(first)
        run.require_space(64 * 2**20)
        yield Progress(f"Opening {self.source}", 0, 1)
        kind = self.learner
        stream = self.open_stream(self.to, kind.join)
        if issubclass(kind, Learner):
            return (yield from self._fitted(kind, stream, run))
        # Arguments out of range are errors of the architecture's own.
        sae = kind(**self.settings_for(stream.train)).to(self.device)
        white, rows = self._whitened(sae, stream.train, run)
        options: dict[str, Any] = self.descent(kind) | {
            "steps": self.steps,
            "batch": self._batch(stream.train),
            "seed": self.seed,
            "clip": self.clip,
            "resample_every": self.resample_every,
            "dead_after": self.dead_after,
            "precision": self.precision,
            "k_ramp": None if self.k_from is None else Ramp(self.k_from, self.ramp),
            "penalty_ramp": None if self.penalty_from is None else Ramp(self.penalty_from, self.ramp),
        }
        training = train(sae, rows, **options)
        yield Progress(f"Opening {self.source}", 1, 1, ". ".join(filter(None, (f"d = {stream.train.d}", stream.note))))
        if where is not None:
            training = ParallelTraining(sae, rows, where, **options)
            if run.path is not None:
                training.resume(run / _SHARDS, alone=run / _CHECKPOINT)
        elif run.is_kept:
            state = newest(run / _SHARDS, run / _CHECKPOINT, 0, sae.n)
            if state is not None:
                training.restore(state)
        taken = "taken up from the last checkpoint" if training.done else ""
        yield Progress("Learning", training.done, self.steps, taken, resumed=bool(taken), ahead=self._ahead(stream))
        run.open()
        if run.is_kept and white is not None and not (run / _WHITENING).is_file():
            white.save(run / _WHITENING)
        curve = yield from self._learn(training, run)
        if isinstance(training, ParallelTraining):
            sae = training.gathered()
            end_group()
        if white is not None:
            white.fold(sae)
        if where is not None and not where.leads:
            return Answer(title="The first process has the report", findings=Findings())
        run.drop(_CHECKPOINT, _CURVE, _WHITENING, _SHARDS)
        return (yield from self._answered(sae, stream, run, {"training": curve} if curve["step"] else {}))

    def _fitted(self, kind: type[Learner], stream: Stream, run: Run) -> Generator[Progress, None, Answer]:
        """Learned from rows held all at once."""
        if launched():
            raise ValueError(f"{self.architecture} is learned in one process; start it without torchrun.")
        yield Progress(f"Opening {self.source}", 1, 1, ". ".join(filter(None, (f"d = {stream.train.d}", stream.note))))
        yield Progress("Learning", 0, 1)
        coder = kind.fit(stream.train, **self.settings_for(stream.train))
        yield Progress("Learning", 1, 1)
        return (yield from self._answered(coder, stream, run, {}))

    def _answered(
        self, coder: SAE | Learner, stream: Stream, run: Run, tables: dict[str, Any]
    ) -> Generator[Progress, None, Answer]:
        measurements = yield from self._measure(coder, stream)
        notes = {"source": self.source, "site": str(stream.site or ""), "steps": self.steps}
        if stream.beside:
            notes["to"] = list(stream.beside)
        # A folder of its own name, since `dictionaries.load` reads SAEs alone.
        name = "sae" if isinstance(coder, SAE) else "dictionary"
        run.keep(name, lambda path: coder.save(path, notes=notes), SAVED)
        found = Findings(measurements, tables)
        fvu, l0 = found["fraction_variance_unexplained"].value, found["l0"].value
        what = f"{type(coder).__name__} with {coder.dictionary.n:,} {'latents' if name == 'sae' else 'atoms'}"
        sentences = [
            f"{what} leaves {fvu:.1%} of the variance of held-out rows unexplained, with {l0:.1f} "
            f"{'latents' if name == 'sae' else 'atoms'} active in a row."
        ]
        if self.refine != "none":
            better = found["fraction_variance_unexplained", self.refine].value
            sentences.append(f"With codes refined by {self.refine} it leaves {better:.1%}.")
        if stream.truth is not None:
            sentences.append(
                f"The true atoms have a learned one at cosine {found['feature_nearest_cosine'].value:.3f} on average; "
                f"{stream.l0:.1f} features are truly active in a row."
            )
        places = ("" if stream.site is None else str(stream.site), *stream.beside)
        at = (" to " if len(places) == 2 else ", ").join(places)
        return Answer(
            title=f"{type(coder).__name__} of {stream.name}{f' at {at}' if at else ''}",
            findings=found,
            sentences=tuple(sentences),
        )

    def _ahead(self, stream: Stream) -> dict[str, float]:
        """Rows to learn from, and the held-out rows, whose measures take as long as several steps on them."""
        spliced = 0 if stream.loaded is None else _SPLICED_WINDOWS * self.context
        return {"Learning": float(self.steps * self.batch), "Measuring": _EVALUATION * (self.held_out + spliced)}

    def _whitened(self, sae: SAE, source: ActivationSource, run: Run) -> tuple[Whitening | None, ActivationSource]:
        """The whitening, that of an interrupted run where there is one, and the rows to learn from."""
        how = self.whiten
        if how == "auto":
            how = "axes" if sae.whitens and self.descent(type(sae)).get("start") == "residuals" else "none"
        if how == "none":
            return None, source
        Whitening.check(sae)
        if run.path is not None and (run / _WHITENING).is_file():
            white = Whitening.load(run / _WHITENING)
        else:
            # Axes need no exact variances.
            rows = _AXES_ROWS if how == "axes" else _WHITENING_ROWS
            white = Whitening.of(source, kind=how, rows=rows, batch=self._batch(source), seed=self.seed)
        return white, white.source(source)

    def _batch(self, source: ActivationSource) -> int:
        rows = length(source)
        return self.batch if rows is None else min(self.batch, max(rows, 2))

    def meant(self) -> Train:
        """The training whose run folder SOURCE is, with the settings changed that were given beside it; else this one.

        Raises:
            FormatError: if SOURCE is the run folder of another study, or its settings are none of ours.
        """
        folder = Path(self.source)
        if not (folder / "about.json").is_file() or (folder / "store").exists():
            return self
        about = RunFolder.open(folder).about
        if about["kind"] != self.kind:
            raise FormatError(f"{folder} is a run of `superscope {about['kind']}`, which has no rows to learn from.")
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        given.pop("source", None)
        return self.read(about["settings"] | given, where=f"{folder}/about.json")

    def _learn(self, training: Training, run: Run) -> Generator[Progress, None, dict[str, list[Any]]]:
        # Of several processes all keep their part of a checkpoint in the folder, and one has the run.
        together = isinstance(training, ParallelTraining)
        tracker = open_tracker(
            self.tracker if run.is_kept or not together else "none",
            run,
            dataclasses.asdict(self),
            done=training.done,
        )
        curve: dict[str, list[Any]] = {"step": [], "loss": [], "fraction_variance_unexplained": []}
        curve |= {"l0": [], "dead": [], "rows_per_second": []}
        if run.is_kept and training.done and (run / _CURVE).is_file():
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
                if index % self.checkpoint_every == 0:
                    _keep(run, training, curve)
                whole = False
        except (KeyboardInterrupt, GeneratorExit):
            # Between two steps everything is whole; within one it is the last checkpoint that counts.
            if whole and not together:
                _keep(run, training, curve)
            raise
        finally:
            tracker.close()
        return curve

    def _measure(self, sae: SAE | Learner, stream: Stream) -> Generator[Progress, None, list[Measurement]]:
        yield Progress("Measuring", 0, 1)
        size = min(4096, self.held_out)
        if (rows := length(stream.held_out)) is not None:
            size = min(size, rows)
        batches = max(self.held_out // size, 1)
        # A world or store has no rows set apart: an order that no training draws.
        options: dict[str, Any] = {"batches": batches, "size": size, "seed": self.seed + 1_000_003}
        documents = None if stream.corpus is None else stream.corpus.document
        found = self._scores(sae, stream, documents, options)
        if stream.truth is not None:
            found += list(measure.atom_scores(sae.dictionary, stream.truth, seed=options["seed"]))
        if self.refine != "none" and isinstance(sae, SAE):
            refined = self._scores(Refined(sae, self.refine), stream, documents, options)
            found += [m.at_site(code=self.refine) for m in refined if m.name in _REFINED]
        yield Progress("Measuring", 1, 1)
        return [
            measurement.at_site(site=str(stream.site)) if stream.site is not None else measurement
            for measurement in found
        ]

    def _scores(
        self, coder: SparseCoder, stream: Stream, documents: Tensor | None, options: Mapping[str, Any]
    ) -> list[Measurement]:
        """What depends on the codes."""
        found = list(measure.evaluate(coder, stream.held_out, documents=documents, **options))
        if stream.truth is not None:
            found += list(measure.code_scores(coder, stream.held_out, stream.truth, **options))
        # What stands for one site can be put in its place; a transcoder or crosscoder stands for none alone.
        if stream.loaded is not None and stream.corpus is not None and stream.site is not None and not stream.beside:
            found += loss_recovered(
                stream.loaded,
                stream.site,
                stream.corpus,
                min(_SPLICED_WINDOWS, len(stream.corpus)),
                coder,
                next(stream.train.batches(256, seed=0)).x.mean(0),
                left_out=getattr(stream.held_out, "left_out", None),
                seed=self.seed,
            )
        return found


def _keep(run: Run, training: Training, curve: dict[str, list[Any]]) -> None:
    if run.is_kept:
        files.write_json(run / _CURVE, curve)
    if run.path is None:
        return
    if isinstance(training, ParallelTraining):
        training.save(run / _SHARDS)
    else:
        save_state(run / _CHECKPOINT, training.state())
