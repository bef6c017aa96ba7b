"""How much of a known truth did this dictionary find, and what became of the rest?"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from torch import Tensor

from ... import measure
from ...core import Answer, Findings, Run
from ...theory import regime
from ...worlds import AnswerKey
from ..geometry.dictionary_file import RowMeaning
from ..settings import Count, above
from ..study import Progress, Study
from .reader import Reader, in_run, read_coder
from .stream import open_world

UNSEEN = 1_000_003
"""Added to the seed of rows: no training draws these."""
_GAIN = 0.02
"""Difference of mean F1 below which two places are called alike."""


@dataclass(frozen=True)
class Judge(Study):
    """Score a dictionary against a world whose features are known.

    DICTIONARY is the run folder of `superscope train`, a saved dictionary in any format that `superscope convert` reads
    (hub:OWNER/NAME/FOLDER too), or a matrix of atoms in a .safetensors or .npy file. The world is named by
    --world NAME, its numbers by --world NAME=VALUE (--world zipf --world n=512); or --world is a .safetensors file with
    `atoms`, `x` and `f`. The run folder of a training on a world says itself which it was.
    """

    kind: ClassVar[str] = "judge"

    dictionary: Annotated[str, tyro.conf.Positional]
    """Run folder of a training, saved dictionary in any known format, or matrix of atoms."""
    world: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME of the world or a file with its truth, and NAME=VALUE for its numbers. To be repeated."""
    rows: Count = 40_000
    """Rows of the world to read."""
    threshold: Annotated[float, above(0)] = 0.9
    """Cosine from which two atoms are the same."""
    ceilings: bool = True
    """Also score the dictionary under the best inference, and the encoder on the true atoms."""
    format: str | None = None
    """Format to read. Default: by the names of the files."""
    architecture: str | None = None
    """What is done with the pre-activations, where the file does not say: relu, topk, jumprelu ..."""
    k: Count | None = None
    """Latents kept per row, where the file does not say; of a matrix of atoms, atoms that a row is pursued with.
    Default there: the world's mean number of active features."""
    subtract_bias: bool | None = None
    """Whether the decoder's bias is taken from x before encoding, where the file does not say."""
    input_scale: float | None = None
    """What x is multiplied by before encoding, where the file does not say; the result is divided by it."""
    tensor: str | None = None
    """Which tensor of a .safetensors file holds the atoms, where it has no encoder."""
    rows_are: RowMeaning | None = None
    """What a row of a matrix is. Default: an atom, if there are at least as many rows as columns."""
    seed: int = 0
    """Of the rows, of random dictionaries and of the bootstrap."""

    def check(self) -> None:
        if not self.threshold < 1:
            raise ValueError(f"threshold must be a cosine below 1; got {self.threshold}.")
        if not self.dictionary.strip():
            raise ValueError("dictionary must be a path; got an empty one.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the truth", 0, 1)
        place, known = in_run(self.dictionary)
        name, truth = self._truth(known)
        n, d = truth.dictionary.n, truth.dictionary.d
        l0 = sum(float(b.code.l0.double().sum()) for b in truth.rows if b.code is not None) / sum(map(len, truth.rows))
        yield Progress("Reading the truth", 1, 1, f"{name}: n = {n:,}, d = {d:,}, {l0:.1f} active")
        yield Progress("Reading the dictionary", 0, 1)
        is_signed = any(bool((b.code.values < 0).any()) for b in truth.rows if b.code is not None)
        reader = read_coder(
            place,
            self.dictionary,
            pursued=lambda: (self.k or max(round(l0), 1), is_signed),
            tensor=self.tensor,
            rows_are=self.rows_are,
            format=self.format,
            architecture=self.architecture,
            k=self.k,
            subtract_bias=self.subtract_bias,
            input_scale=self.input_scale,
        )
        W = reader.dictionary
        if W.d != d:
            raise ValueError(
                f"{self.dictionary} reads rows of d = {W.d} and the world {name} makes rows of d = {d}. Give the world "
                f"that it was learned on: --world d={W.d}, if it is this one in another size."
            )
        yield Progress("Reading the dictionary", 1, 1, f"{reader.what}: {W.n:,} latents")
        options: dict[str, Any] = {"threshold": self.threshold, "seed": self.seed}
        work = {"Comparing atoms": 1.0, "Comparing codes": 2.0, "Sorting latents": 1.0}
        work |= {"Trying ceilings": 3.0} if self.ceilings else {}
        yield Progress("Comparing atoms", 0, 1, ahead=work)
        found = Findings(measure.atom_scores(W, truth.dictionary, **options))
        yield Progress("Comparing codes", 0, 1)
        codes = measure.code_scores(reader, truth.rows, truth.dictionary, seed=self.seed)
        found.add(codes)
        if reader.decodes:
            found.add(measure.evaluate(reader, truth.rows, seed=self.seed))
        density = torch.tensor(codes.features["density"], dtype=torch.float64)
        detection = measure.detection(W, truth.dictionary, density, **options)
        found.add(detection)
        yield Progress("Sorting latents", 0, 1)
        kinds = measure.latent_kinds(reader, truth.rows, truth.dictionary, parents=truth.parents, **options)
        found.add(kinds)
        if self.ceilings:
            yield Progress("Trying ceilings", 0, 1)
            turned = reader.turned(truth.dictionary, codes.features["latent"])
            for measurement in measure.oracle_ceilings(
                truth.rows, W, truth.dictionary, turned=turned, nonnegative=not is_signed, seed=self.seed
            ):
                found.add(measurement)
        _tables(found, codes, detection, kinds, truth, reader.kept)
        return Answer(
            title=f"{Path(self.dictionary).name} against {name}",
            findings=found,
            sentences=tuple(self._sentences(found, kinds, reader, truth, l0)),
        )

    def _truth(self, known: tuple[str, ...]) -> tuple[str, AnswerKey]:
        named = self.world if any("=" not in each for each in self.world) else (*known, *self.world)
        names = [each for each in named if "=" not in each and each != "help"]
        if len(names) != 1:
            raise ValueError(
                f"{self.dictionary} does not say which world it was learned on. Say it: --world exactly_k, and its "
                "numbers with --world n=512."
                if not names
                else f"one world is wanted; got {', '.join(names)}."
            )
        (name,) = names
        pairs = [each for each in named if each != name]
        if name.endswith(".safetensors"):
            if pairs:
                raise ValueError(f"{name} is a truth as it is, so {pairs[0]} says nothing to it. Leave it out.")
            return Path(name).stem, AnswerKey.load(Path(name).expanduser())
        world = open_world(name.removeprefix("world:"), pairs)
        return name.removeprefix("world:"), AnswerKey.of(world, rows=self.rows, seed=self.seed + UNSEEN)

    def _sentences(
        self, found: Findings, kinds: measure.LatentKinds, reader: Reader, truth: AnswerKey, l0: float
    ) -> Iterator[str]:
        n, d, rows = truth.dictionary.n, truth.dictionary.d, found["feature_value_r2"].n
        if set(kinds.kind) == {"dead"}:
            yield (
                f"No latent fires on any of {rows:,} rows, so every score of codes is 0. Were the rows it learned from "
                "of this scale, and from this world?"
            )
        recall, total = found["atom_recall"], len(kinds.kind)
        chance = "" if recall.chance is None else f"; as many random directions would have {recall.chance * n:,.0f}"
        yield (
            f"Of {n:,} features the dictionary has {(recall.value or 0) * n:,.0f} ({recall.value or 0:.0%}), each with "
            f"an atom of its own within cosine {self.threshold:g}{chance}."
        )
        if total < n:
            yield f"It has {total:,} latents for them, so {(n - total):,} features cannot have one."
        yield f"Of its {total:,} latents {_listed(kinds, rows)}."
        f1, own = found["feature_f1"], found["latent_f1"]
        if f1.value is not None:
            yield (
                f"Its latents tell whether their feature is active with F1 = {f1.value:.2f}, averaged over features "
                f"with the missed ones at 0 ({f1.chance:.2f} if they knew nothing); over latents alone, where what is "
                f"missed costs nothing, it is {own.value:.2f}."
            )
        yield from _by_density(found)
        if self.ceilings:
            yield from _by_ceiling(found)
        absorbed, rate = found["absorbed_children"], found["absorption_rate"]
        if absorbed.value is None or rate.value is None:
            yield f"Absorption of parents by their children cannot be judged: {absorbed.caution}."
        else:
            yield (
                f"Of {absorbed.n:,} pairs of parent and child the child's latent has taken the parent's place in "
                f"{absorbed.value:.0%}: on {rate.value:.0%} of the rows with both the child's latent fires alone for "
                f"both ({rate.chance or 0:.0%} by chance)."
            )
        hedged = found["hedged_latents"]
        if hedged.low is not None and hedged.low > (hedged.chance or 0):
            yield (
                f"{hedged.value or 0:.0%} of the latents hedge: they lean towards a missed feature that goes along "
                "with their own."
            )
        if truth.shared:
            yield (
                f"{truth.shared:,} of its atoms belong to components of several dimensions, where any basis is as "
                "good as the world's: scores against these atoms are too hard."
            )
        kappa = regime.kappa_cs(n, d, l0) if l0 > 0 else 0.0
        if kappa > 1:
            yield (
                f"With {l0:.1f} of {n:,} features active in {d:,} dimensions this world has kappa_cs = {kappa:.2f}: "
                "above 1 no one can read f back from x, and low scores say little of the dictionary."
            )
        yield from reader.cautions


def _tables(
    found: Findings,
    codes: measure.Scores,
    detection: measure.Detection,
    kinds: measure.LatentKinds,
    truth: AnswerKey,
    kept: Tensor,
) -> None:
    for m in detection:
        if m.name == "detected_share":
            low, high = (float(end) for end in str(m.at["density"]).split(" to "))
            found.row(
                "detection",
                density_from=low,
                density_to=high,
                features=m.n,
                detected=m.value,
                low=m.low,
                high=m.high,
                chance=m.chance,
            )
    number = kept.tolist()
    features = dict(codes.features) | {"detected": detection.detected.tolist()}
    features["latent"] = [None if latent is None else number[latent] for latent in features["latent"]]
    if truth.parents is not None:
        features["parent"] = [None if parent < 0 else parent for parent in truth.parents.tolist()]
    found.rows("features", features)
    halves = [[None if half < 0 else half for half in column] for column in kinds.halves.T.tolist()]
    latents = dict(codes.latents) | {"latent": number, "kind": list(kinds.kind), "hedges": kinds.hedges.tolist()}
    latents |= {"absorbs": kinds.absorbs.tolist(), "first_half": halves[0], "second_half": halves[1]}
    found.rows("latents", latents)


def _listed(kinds: measure.LatentKinds, rows: int) -> str:
    count = {kind: kinds.kind.count(kind) for kind in measure.LATENT_KINDS}
    parts = (
        f"{count['feature']:,} stand for a feature",
        f"{count['duplicate']:,} repeat another" if count["duplicate"] else "",
        f"{count['composite']:,} are mixtures of two features" if count["composite"] else "",
        f"{count['dead']:,} are dead (silent on all {rows:,} rows)" if count["dead"] else "",
        f"{count['other']:,} are none of these" if count["other"] else "",
    )
    *most, last = filter(None, parts)
    return f"{', '.join(most)} and {last}" if most else last


def _by_density(found: Findings) -> Iterator[str]:
    bins = [m for m in found if m.name == "detected_share"]
    auc = found["detection_auc"]
    if len(bins) < 2 or auc.value is None or auc.low is None:
        return
    rare, dense = bins[0], bins[-1]
    if auc.low > 0.5:
        yield (
            f"It misses the rare ones: of the features active in {rare.at['density']} of rows it has "
            f"{rare.value or 0:.0%}, of those active in {dense.at['density']} {dense.value or 0:.0%}."
        )
    elif auc.high is not None and auc.high < 0.5:
        yield (
            f"It misses the frequent ones: of the features active in {dense.at['density']} of rows it has "
            f"{dense.value or 0:.0%}, of those active in {rare.at['density']} {rare.value or 0:.0%}."
        )


def _by_ceiling(found: Findings) -> Iterator[str]:
    own = found["feature_f1"].value
    learned, best = found["feature_f1", "learned", "best"].value, found["feature_f1", "true", "best"].value
    if own is None or learned is None or best is None:
        return
    encoder = found.get("feature_f1", "true", "own")
    turned = None if encoder is None else encoder.value
    aside = "" if turned is None else f" the same encoder turned onto the true atoms {turned:.2f},"
    yield (
        f"With the best inference in place of its encoder the same atoms would have F1 = {learned:.2f},{aside} and the "
        f"best inference on the true atoms {best:.2f}."
    )
    if best - own < _GAIN:
        yield "So there is hardly anything to be won in this world."
    elif turned is not None and max(turned, learned) - own < _GAIN:
        yield "So better atoms or a better encoder alone would win little: it takes both."
    elif turned is not None and abs(turned - learned) < _GAIN:
        yield "So as much is lost in the encoder as in the atoms."
    elif turned is not None:
        more, less = ("atoms", "encoder") if turned > learned else ("encoder", "atoms")
        yield f"So more is lost in the {more} than in the {less}."
