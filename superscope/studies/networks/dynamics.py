"""When are features born, and do they split, merge and die? A model's checkpoints, each compared with the next."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro
from scipy.stats import spearmanr

from ... import capture, intervene, measure
from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run
from ...dictionaries import BatchTopK
from ...measure.agreement.transfer import used
from ..settings import at_least
from ..study import Progress
from .comparing import Codes, Kept, aligned, held_out_losses, stable
from .layers import Explained, Recurring
from .readings import Activation, Interference, Neurons, Reading
from .survey import Survey
from .together import SideBySide, Sides, lives, taught

HISTORY = "pocket"
_AGAINST = (
    "recurring_features",
    "interference_energy_ratio",
    "false_alarm_power",
    "polysemanticity",
    "activation_gini",
)


@dataclass(frozen=True)
class Dynamics(Survey):
    """When are features born, and do they split, merge and die?

    Reads one text with every checkpoint of a model, learns dictionaries of one site of each with several seeds, and
    follows features from each checkpoint to the next by what they fire on. Beside it: what two dictionaries of one and
    the same checkpoint seem to lose and gain, and how much is kept between checkpoints in a wrong order. Then how the
    number of features, their interference and the polysemanticity of neurons go with the loss, and with what the models
    know by heart: their loss on text they were not trained on, less that on text they were.

    Then, unless --no-crosscoder, one dictionary of all checkpoints together (k latents a row on average), whose latents
    each have a part at every one of them: a latent lives where its part is at least half as long as its longest.
    """

    kind: ClassVar[str] = "dynamics"

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional] = (HISTORY,)
    """Folders of one model at several moments, in order, as save_pretrained writes them. `pocket` is the pocket model's
    narrow twin at eight moments of its training, which comes with the package."""
    site: str = "resid_post.2"
    """Where to read, in each of them."""
    every: Annotated[int, at_least(1)] = 1
    """Of so many checkpoints take one; the last is always taken."""
    seeds: Annotated[
        int, at_least(3, why="Two say what is a feature, and a third what two dictionaries of one moment differ by.")
    ] = 3
    """Dictionaries learned at each checkpoint, from different random starts."""
    crosscoder: bool = True
    """Learn one dictionary of all checkpoints together as well."""
    seen: str | None = None
    """Text that the checkpoints were trained on, given as --text is; with --unseen the loss on both says how much is
    learned by heart. The pocket model's twin has both by itself."""
    unseen: str | None = None
    """Text that they were not trained on."""

    def check(self) -> None:
        if (self.seen is None) != (self.unseen is None):
            raise ValueError("--seen and --unseen go together: text that was trained on, and text that was not.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Loading checkpoints", 0, 1)
        subjects = self._subjects()
        labels = tuple(subjects)
        first = subjects[labels[0]]
        for label, subject in subjects.items():
            if subject.tokenizer is None or subject.tokenizer.get_vocab() != first.tokenizer.get_vocab():
                raise ValueError(
                    f"{label} reads other tokens than {labels[0]}, so no text is the same to both. "
                    "Give checkpoints of one model."
                )
            if subject.d != first.d:
                raise ValueError(
                    f"{label} is {subject.d} wide and {labels[0]} {first.d}. Give checkpoints of one model."
                )
        (site, *more) = capture.sites(first.model, [self.site])
        if more:
            raise ValueError(f"{self.site!r} names {1 + len(more)} sites. Name one, as resid_post.2.")
        yield Progress("Loading checkpoints", 1, 1, f"{len(labels)} checkpoints")
        yield Progress("Reading the text", 0, 1)
        corpus, held_out = self.corpora(first)
        yield Progress("Reading the text", 1, 1, ahead=self.ahead(subjects, [site], corpus, held_out))
        codes, sides = Codes(), Sides(places=len(labels))
        readings: tuple[Reading, ...] = (Activation(), Explained(), Recurring(), Interference(), Neurons(), codes)
        readings += (sides,) if self.crosscoder else ()
        findings = yield from self.survey(run, subjects, [site], corpus, held_out, readings)
        kept = [codes.kept[label, str(site)] for label in labels]
        losses = held_out_losses(subjects, held_out, findings, str(site))
        yield Progress("Comparing checkpoints", 0, 1)
        _compare(kept, labels, findings, self.seed)
        yield Progress("Comparing checkpoints", 1, 1)
        if self.crosscoder:
            yield from self._together(sides, [(label, str(site)) for label in labels], run, findings)
        _against(findings, labels, losses, "trend_with_loss")
        if losses and (both := self._seen_and_unseen(first)):
            gaps = []
            for done, (label, subject) in enumerate(subjects.items()):
                yield Progress("Comparing seen text with unseen", done, len(subjects), label)
                gaps.append(generalisation_gap(subject, *both))
                findings.add(gaps[-1], at={"site": str(site), "model": label})
            yield Progress("Comparing seen text with unseen", len(subjects), len(subjects))
            _against(findings, labels, [gap.value or 0.0 for gap in gaps], "trend_with_gap")
        return Answer(
            title=f"{len(labels)} checkpoints at {site}: what became of features",
            findings=findings,
            sentences=_sentences(findings),
        )

    def _seen_and_unseen(self, first: Subject) -> tuple[Corpus, Corpus] | None:
        """Text that was trained on and text that was not, as many tokens of each as are held out, if both are known."""
        if self.seen is not None and self.unseen is not None:
            both = (capture.documents(text) for text in (self.seen, self.unseen))
        elif self.checkpoints == (HISTORY,):
            both = ([document.text for document in part] for part in capture.pocket.split())
        else:
            return None
        seen, unseen = (
            capture.tokens(first.tokenizer, text, context=self.context, limit=self.held_out, seed=self.seed)
            for text in both
        )
        return seen, unseen

    def _together(
        self, sides: Sides, places: Sequence[tuple[str, str]], run: Run, findings: Findings
    ) -> Generator[Progress, None, None]:
        """A crosscoder of all checkpoints, whose batches keep k latents a row on average."""
        rows = SideBySide.of([sides.learned[at] for at in places], [sides.held[at] for at in places])
        n = self.n or 8 * rows.widths[0]
        made = BatchTopK(sum(rows.widths), n, self.k, seed=self.seed)
        sae = yield from taught(
            made, rows.learned, run, "saes/together", steps=self.steps, batch=self.batch,
            stage="Learning one dictionary of all checkpoints", seed=self.seed,
        )  # fmt: skip
        with torch.no_grad():
            code = sae.encode(rows.held)
            rebuilt = sae.decode(code).split(rows.widths, dim=1)
        alive = lives(sae.atoms, rows.widths)[used(measure.active([code]))]
        for place, (label, _) in enumerate(places):
            x = rows.part(place)
            left = float((x - rebuilt[place]).square().sum() / (x - x.mean(0)).square().sum())
            findings.row("crosscoder", checkpoint=label, latents=int(alive[:, place].sum()), unexplained=left)
        findings.add(from_moment_to_moment(alive, [label for label, _ in places]))

    def _subjects(self) -> dict[str, Subject]:
        """Each checkpoint by its name."""
        found: dict[str, Subject] = {}
        if self.checkpoints == (HISTORY,):
            from ...capture import pocket

            _, tokenizer = pocket.load()
            for moment in _thinned(pocket.history(), self.every):
                found[f"step {moment.step}"] = Subject(moment.load().to(self.device), tokenizer, "twin", "causal")
        else:
            for folder in _thinned(self.checkpoints, self.every):
                label = Path(folder).name or folder
                if label in found:
                    raise ValueError(f"two checkpoints are called {label!r}. Give each folder a name of its own.")
                found[label] = capture.load(folder, device=self.device)
        if len(found) < 2:
            raise ValueError("one checkpoint has no history. Give two or more, in order, or 'pocket'.")
        return found


def _thinned(things: Sequence, every: int) -> list:
    """Every so manieth, and the last."""
    chosen = list(things[::every])
    return chosen if not things or chosen[-1] is things[-1] else [*chosen, things[-1]]


def _compare(kept: Sequence[Kept], labels: Sequence[str], findings: Findings, seed: int) -> None:
    """Lineages of neighbours; the same of two dictionaries of one checkpoint; and shares kept in wrong orders."""
    features = [stable(each.codes, seed=seed) for each in kept]
    # What two dictionaries of one moment differ by, each reduced to what a third one has.
    noise = []
    for each in kept:
        a, b, third = each.codes[0], each.codes[1], each.codes[-1]
        found = measure.lineage(a, b, stable((a, third), seed=seed), stable((b, third), seed=seed)).counts
        noise.append((found, len(stable((a, third), seed=seed)), len(stable((b, third), seed=seed))))
    apart = [
        _share_kept(kept[i], kept[j], features[i]) for i, j in itertools.permutations(range(len(kept)), 2) if j != i + 1
    ]
    for i, (before, after) in enumerate(itertools.pairwise(labels)):
        (a, *_), (b, *_) = aligned(kept[i], kept[i + 1])
        found = measure.lineage(a, b, features[i], features[i + 1]).counts
        sizes = {"kept": len(features[i]), "split": len(features[i]), "died": len(features[i])}
        sizes |= {"merged": len(features[i + 1]), "born": len(features[i + 1])}
        row: dict[str, int] = {"features_before": len(features[i]), "features_after": len(features[i + 1])}
        at = {"from": before, "to": after}
        for name, size in sizes.items():
            index = 1 if name in ("kept", "split", "died") else 2
            same = [counts[0][name] / counts[index] for counts in (noise[i], noise[i + 1]) if counts[index]]
            row[name] = found[name]
            findings.add(
                Measurement(
                    name=f"features_{name}",
                    value=found[name] / size if size else None,
                    unit="share of features",
                    n=size,
                    of="features before" if index == 1 else "features after",
                    chance=sum(same) / len(same) if same else None,
                    chance_is="two dictionaries of one checkpoint" if same else "",
                    caution="" if size else "no latent is shared by two seeds, so there is no feature to follow",
                    at=at,
                    **measure.wilson(found[name], size, of="features, as if independent").fields,
                )
            )
        findings.row("lineage", **at, **row)
    neighbours = [m.value for m in findings if m.name == "features_kept" and m.value is not None]
    if neighbours:
        wrong = [share for share in apart if share is not None]
        findings.add(
            Measurement(
                name="features_kept_in_order",
                value=sum(neighbours) / len(neighbours),
                unit="share of features",
                n=len(neighbours),
                of="steps from one checkpoint to the next",
                chance=sum(wrong) / len(wrong) if wrong else None,
                chance_is=f"checkpoints in other orders, {len(wrong)} pairs ({min(wrong):.3f} to {max(wrong):.3f})"
                if wrong
                else "",
                **measure.over_seeds(neighbours, of="steps").fields,
            )
        )


def from_moment_to_moment(alive: np.ndarray, labels: Sequence[str]) -> list[Measurement]:
    """Shares of a crosscoder's latents that are born and that die between neighbours, beside all other orders.

    Args:
        alive: (latents, moments), where each one lives.
        labels: of the moments.
    """
    others = [pair for pair in itertools.permutations(range(len(labels)), 2) if pair[1] != pair[0] + 1]
    found = []
    for before, after in itertools.pairwise(range(len(labels))):
        for name, counted, gone in (("born", after, before), ("died", before, after)):
            hits, size = _lost(alive, counted, gone)
            null = [_lost(alive, *(pair[::-1] if name == "born" else pair)) for pair in others]
            shares = [one / all_ for one, all_ in null if all_]
            found.append(
                Measurement(
                    name=f"crosscoder_{name}",
                    value=hits / size if size else None,
                    unit="share of latents",
                    n=size,
                    of=f"latents alive {'after' if name == 'born' else 'before'}",
                    chance=sum(shares) / len(shares) if shares else None,
                    chance_is=f"checkpoints in other orders, {len(shares)} pairs" if shares else "",
                    caution="" if size else "no latent lives there",
                    at={"from": labels[before], "to": labels[after]},
                    **measure.wilson(hits, size, of="latents, as if independent").fields,
                )
            )
    return found


def _lost(alive: np.ndarray, at: int, other: int) -> tuple[int, int]:
    """Of the latents alive at a moment how many are not at another, and how many there are."""
    return int((alive[:, at] & ~alive[:, other]).sum()), int(alive[:, at].sum())


def _share_kept(before: Kept, after: Kept, features: np.ndarray) -> float | None:
    (a, *_), (b, *_) = aligned(before, after)
    nothing: list[int] = []
    return len(measure.lineage(a, b, features, nothing).kept) / len(features) if len(features) else None


def generalisation_gap(subject: Subject, seen: Corpus, unseen: Corpus) -> Measurement:
    """Next-token loss on text that was not trained on, less that on text that was, nats per token.

    The interval resamples documents of both. Texts differ in difficulty, too: an untrained model's gap says how much.

    Args:
        subject: a causal model.
        seen, unseen: what it was trained on, and what not.

    Raises:
        TypeError: if the subject is an encoder.
    """
    sums, means = [], []
    for side, corpus in enumerate((unseen, seen)):
        with torch.no_grad():
            loss = intervene.next_token_loss(subject, corpus)
        document, means = corpus.document.numpy(), [*means, loss.mean]
        columns = np.zeros((int(document.max()) + 1, 4))
        for column, values in enumerate((loss.nats, loss.counts)):
            columns[:, 2 * side + column] = np.bincount(document, values.double().numpy())
        sums.append(columns[columns[:, 2 * side + 1] > 0])
    interval = measure.bootstrap(lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3], np.concatenate(sums))
    return Measurement(
        name="generalisation_gap",
        value=means[0] - means[1],
        unit="nats per token",
        n=int(sum(part[:, [1, 3]].sum() for part in sums)),
        of="tokens",
        **interval.fields,
    )


def _against(findings: Findings, labels: Sequence[str], losses: Sequence[float], trend: str) -> None:
    """Rank correlation over checkpoints of each quantity with a loss, beside all orders of the checkpoints."""
    for name in _AGAINST if losses else ():
        found = [findings.get(name, label) for label in labels]
        values = [each.value for each in found if each is not None and each.value is not None]
        if len(values) < len(labels):
            continue
        enough = len(labels) >= 4 and len(set(values)) > 1
        random = np.random.default_rng(0)
        null = [float(spearmanr(losses, random.permutation(values)).statistic) for _ in range(200)] if enough else []
        findings.add(
            Measurement(
                name=trend,
                value=float(spearmanr(losses, values).statistic) if enough else None,
                unit="rank correlation",
                n=len(labels),
                of="checkpoints",
                how="no interval: checkpoints of one training are no independent draws",
                chance=float(np.mean(null)) if null else None,
                chance_is=f"checkpoints in other orders, 95 % within ±{np.quantile(np.abs(null), 0.95):.2f}"
                if null
                else "",
                caution="" if enough else "fewer than four checkpoints, or one value at all of them",
                at={"quantity": name},
            )
        )


def _sentences(findings: Findings) -> list[str]:
    said = []
    for name, what in (("born", "are new"), ("died", "are gone"), ("split", "have split"), ("merged", "have merged")):
        found = [m for m in findings if m.name == f"features_{name}" and m.value is not None]
        if not found:
            continue
        most = max(found, key=lambda m: m.value or 0)
        beside = (
            "" if most.chance is None else f", where two dictionaries of one checkpoint would say {most.chance:.0%}"
        )
        said.append(
            f"At most {most.value:.0%} [{most.low:.0%}, {most.high:.0%}] of {most.n} features {what}, from "
            f"{most.at['from']} to {most.at['to']}{beside}."
        )
    kept = findings.get("features_kept_in_order")
    if kept is not None and kept.chance is not None:
        said.append(
            f"From one checkpoint to the next {kept.value:.0%} of features are kept; between checkpoints in other "
            f"orders {kept.chance:.0%}."
        )
    for name, what in (("born", "are new"), ("died", "are gone")):
        found = [m for m in findings if m.name == f"crosscoder_{name}" and m.value is not None]
        if found:
            most = max(found, key=lambda m: m.value or 0)
            beside = "" if most.chance is None else f", between checkpoints in other orders {most.chance:.0%}"
            said.append(
                f"By one dictionary of all checkpoints at most {most.value:.0%} [{most.low:.0%}, {most.high:.0%}] of "
                f"{most.n} latents {what}, from {most.at['from']} to {most.at['to']}{beside}."
            )
    for trend, what in (("trend_with_loss", "loss"), ("trend_with_gap", "the gap between unseen and seen text")):
        for m in findings:
            if m.name == trend and m.value is not None:
                said.append(
                    f"{measure.word_for(str(m.at['quantity'])).label} against {what}: rank correlation "
                    f"{m.value:+.2f} over {m.n} checkpoints ({m.chance_is})."
                )
    return said
