"""Do texts of different kinds, and harder ones, use other features or more? And do features that never meet overlap?"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, ClassVar, cast

import numpy as np
import torch
import tyro
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from ... import capture, intervene, measure
from ...capture import Corpus, Subject
from ...core import Activations, Answer, Findings, Measurement, Run, Site, SparseCode, SparseCoder
from ...measure.codes.co_occurrence import active
from ...measure.stream import Groups
from ..settings import at_least
from ..study import Progress
from .comparing import joined
from .layers import Explained
from .readings import TRAINED, Activation, Reading, View
from .survey import Survey

_FEWEST_DOCUMENTS = 2
_OWN = 0.9
"""Share of a latent's firings that makes it one domain's own."""
_FEWEST_FIRINGS = 20
_DRAWS = 200


@dataclass(frozen=True)
class Domains(Survey):
    """Which features belong to one kind of text, and do features that rarely meet share directions?

    Reads as many tokens of each domain, learns one dictionary of all of them together, and measures by domain: how
    sparse activations and codes are, what the dictionary explains, which latents are the domain's own. Whether text
    that the model finds harder activates more of them. And co-occurrence: whether pairs of features overlap more the
    more rarely, or the more often, they fire together.
    """

    kind: ClassVar[str] = "domains"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file; "pocket" travels inside the package."""
    sites: tuple[str, ...] = ()
    """Where to read. Default: the middle block's output and its MLP's hidden layer."""
    domains: tuple[str, ...] = ()
    """Folders of the text that are domains; all first folders of its documents without it. The text that every Python
    carries has two: `stdlib`, code, and `topics`, its reference in prose."""
    seeds: Annotated[int, at_least(2, why="A direction can only recur over at least two.")] = 2
    """Dictionaries learned at each site: latents that both have are paired in co-occurrence."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        sites = capture.sites(loaded.model, self.sites) if self.sites else _default_sites(loaded)
        yield Progress(f"Loading {self.model}", 1, 1)
        yield Progress("Reading the text", 0, 1)
        corpora, cut = self.texts(loaded)
        corpus, held_out = (joined([parts[i] for parts in corpora.values()]) for i in (0, 1))
        subjects = {TRAINED: loaded}
        said = ", ".join(corpora)
        yield Progress("Reading the text", 1, 1, said, ahead=self.ahead(subjects, sites, corpus, held_out))
        readings = (Activation(), Explained(), ByDomain.of(corpora), Together())
        findings = yield from self.survey(run, subjects, sites, corpus, held_out, readings)
        run.note(text=f"{len(corpora)} domains: {said}", window=str(corpus.policy))
        return Answer(
            title=f"{loaded.name}: {len(corpora)} domains at {len(sites)} site{'s' if len(sites) > 1 else ''}",
            findings=findings,
            sentences=[*sentences(findings, sites, tuple(corpora)), *([cut] if cut else [])],
        )

    def texts(self, loaded: Subject) -> tuple[dict[str, tuple[Corpus, Corpus]], str]:
        """Text to learn from and to measure on, as much of each domain; and a sentence where some had to be cut."""
        groups: dict[str, list[capture.Document]] = {}
        for document in capture.documents(self.text):
            first, slash, _ = document.name.partition("/")
            groups.setdefault(first if slash else "", []).append(document)
        names = self.domains or tuple(sorted(name for name in groups if name))
        for name in names:
            if name not in groups:
                raise ValueError(
                    f"the text has no domain {name!r}. It has {', '.join(filter(None, groups)) or 'none'}."
                )
        if len(set(names)) < 2:
            raise ValueError(
                f"{len(set(names))} domain of text cannot be compared. Give --text a folder whose sub-folders are "
                "domains, two or more."
            )
        for name in names:
            if len(groups[name]) < 2 * _FEWEST_DOCUMENTS:
                raise ValueError(
                    f"the domain {name!r} has {len(groups[name])} document{'s' if len(groups[name]) > 1 else ''}, and "
                    f"{2 * _FEWEST_DOCUMENTS} are needed: {_FEWEST_DOCUMENTS} to learn from, and as many others for an "
                    "interval. Give more, or leave the domain out with --domains."
                )
        asked = (self.tokens + self.held_out) // len(names)
        share = self.tokens / (self.tokens + self.held_out)
        whole = {
            name: capture.tokens(loaded.tokenizer, groups[name], context=self.context, limit=asked, seed=self.seed)
            for name in names
        }
        split = {name: corpus.split(share, seed=self.seed) for name, corpus in whole.items()}
        # As many tokens of each: what is counted over tokens would else be the larger one's.
        least = [min(parts[i].n_tokens for parts in split.values()) for i in (0, 1)]
        equal = {name: (_cut(parts[0], least[0]), _cut(parts[1], least[1])) for name, parts in split.items()}
        if len(names) * least[0] < self.batch or least[1] < 2:
            raise ValueError(
                f"the smallest domain gives {least[0]:,} tokens to learn from and {least[1]:,} to measure on, too few "
                f"for batches of {self.batch:,}. Give more text, or a smaller --batch."
            )
        smallest = min(whole, key=lambda name: whole[name].n_tokens)
        cut = (
            f"Domains differ in size: of each as much was read as {smallest!r} has, {sum(least):,} tokens."
            if whole[smallest].n_tokens < 0.9 * asked
            else ""
        )
        return equal, cut


def _cut(corpus: Corpus, tokens: int) -> Corpus:
    """The first windows, as far as they hold so many tokens, one at least."""
    so_far = corpus.keep.sum(1).cumsum(0)
    return corpus.take(torch.arange(max(int((so_far <= tokens).sum()), 1)))


def _default_sites(loaded: Subject) -> tuple[Site, ...]:
    outputs = capture.default_sites(loaded.model)
    middle = outputs[len(outputs) // 2]
    hidden = capture.mlp_hidden(loaded.model, middle.path)
    return (middle, *(capture.sites(loaded.model, [hidden]) if hidden else ()))


@dataclass(frozen=True, eq=False)
class ByDomain(Reading):
    """Sparsity, error and own latents of each domain, and whether harder windows activate more.

    Args:
        names: of the domains.
        domain_of: the domain of each document measured on.
    """

    name: ClassVar[str] = "domains"

    names: tuple[str, ...]
    domain_of: np.ndarray
    losses: list[intervene.Loss] = field(default_factory=list)

    @classmethod
    def of(cls, corpora: Mapping[str, tuple[Corpus, Corpus]]) -> ByDomain:
        """Of domains whose held-out texts are read joined, in this order."""
        own = [np.full(len(held_out.names), i) for i, (_, held_out) in enumerate(corpora.values())]
        return cls(tuple(corpora), np.concatenate(own))

    def read(self, seen: View, findings: Findings) -> None:
        documents, windows, rows = [], [], []
        groups = Groups(seen.documents)
        mean = seen.moments.mean.float()
        for batch in seen.held:
            assert batch.places is not None
            documents.append(groups(batch))
            windows.append(batch.places[:, 0].cpu().numpy())
            code = seen.reader.encode(batch.x)
            x = batch.x.float()
            error = (x - seen.reader.decode(code)).square().sum(1)
            rows.append(
                torch.stack(
                    [
                        measure.gini(x),
                        measure.effective_number(code.values).nan_to_num(0.0),
                        error.double(),
                        (x - mean.to(x)).square().sum(1).double(),
                        torch.ones(len(x), dtype=torch.float64, device=x.device),
                    ],
                    1,
                ).cpu()
            )
        document, window, table = np.concatenate(documents), np.concatenate(windows), torch.cat(rows).numpy()
        domain = self.domain_of[document]
        codes = active(seen.reader.encode(batch.x) for batch in seen.held)
        for index, name in enumerate(self.names):
            here = domain == index
            sums = _by_group(document[here], table[here])
            for what, unit, top, under in (
                ("activation_gini", "Gini index", 0, 4),
                ("effective_latents_per_token", "latents", 1, 4),
                ("domain_error", "share", 2, 3),
            ):
                findings.add(_ratio(what, unit, sums, top, under, seen.seed), at={**seen.at, "domain": name})
        findings.add(self._own(codes, document, seen), at=seen.at)
        if seen.has("causal"):
            findings.add(self._difficulty(seen, window, document, table[:, [1, 4]]), at=seen.at)

    def _own(self, codes: csr_matrix, document: np.ndarray, seen: View) -> list[Measurement]:
        """Share of latents that fire in one domain alone or nearly, beside domains dealt anew to documents."""
        numbers, inverse = np.unique(document, return_inverse=True)
        of = csr_matrix((np.ones(len(inverse)), (inverse, np.arange(len(inverse)))))
        fired = (of @ (codes != 0).astype(np.float64)).toarray()
        length = np.asarray(of.sum(1)).ravel()
        fired, labels = fired[:, fired.sum(0) >= _FEWEST_FIRINGS], self.domain_of[numbers]
        if not fired.shape[1]:
            why = f"no latent fires {_FEWEST_FIRINGS} times on what was held out"
            return [Measurement(name="domain_latents", value=None, unit="share", n=0, of="latents", caution=why)]

        def shares(labels: np.ndarray) -> np.ndarray:
            # Rates, not counts: held-out tokens of the domains are only nearly equal.
            rates = np.stack(
                [fired[labels == i].sum(0) / max(length[labels == i].sum(), 1) for i in range(len(self.names))]
            )
            return (
                np.bincount(rates.argmax(0)[rates.max(0) >= _OWN * rates.sum(0)], minlength=len(self.names))
                / fired.shape[1]
            )

        random = np.random.default_rng(seen.seed)
        null = np.array([shares(random.permutation(labels)) for _ in range(_DRAWS)])
        found, n = shares(labels), fired.shape[1]
        return [
            Measurement(
                name="domain_latents",
                value=float(found[i]),
                unit=f"share with {_OWN:.0%} of firings here",
                n=n,
                of="latents",
                chance=float(null[:, i].mean()),
                chance_is=f"domains dealt anew to documents, {_span(null[:, i])}",
                at={"domain": name},
                **measure.wilson(round(float(found[i]) * n), n, of="latents, as if independent").fields,
            )
            for i, name in enumerate(self.names)
        ]

    def _difficulty(self, seen: View, window: np.ndarray, document: np.ndarray, table: np.ndarray) -> list[Measurement]:
        """Rank correlation over windows of the model's loss with the latents at work, in all and within domains."""
        if not self.losses:
            with torch.no_grad():
                self.losses.append(intervene.next_token_loss(seen.subject, seen.held_out))
        loss = self.losses[0]
        used = np.unique(window)
        used = used[loss.counts.numpy()[used] >= 8]
        per = np.zeros((len(seen.held_out), 2))
        np.add.at(per, window, table)
        hard = (loss.nats / loss.counts.clamp(min=1)).numpy()[used]
        latents = per[used, 0] / per[used, 1]
        of = seen.held_out.document.numpy()[used]
        domain = self.domain_of[of]
        found = []
        for name, within in (("difficulty_trend", np.zeros(len(used), dtype=int)), ("difficulty_trend_within", domain)):
            x, y = np.zeros(len(used)), np.zeros(len(used))
            for each in np.unique(within):
                here = within == each
                x[here], y[here] = (rankdata(v[here]) / here.sum() - 0.5 - 0.5 / here.sum() for v in (hard, latents))
            sums = _by_group(of, np.stack([np.ones(len(x)), x, y, x * y, x * x, y * y], 1))
            if len(used) < 20 or min(np.ptp(x), np.ptp(y)) < 1e-9:
                why = f"{len(used)} windows are too few for a trend" if len(used) < 20 else "all windows are alike"
                found.append(
                    Measurement(name=name, value=None, unit="rank correlation", n=len(used), of="windows", caution=why)
                )
                continue
            random = np.random.default_rng(seen.seed)
            null = []
            for _ in range(_DRAWS):
                dealt = y.copy()
                for each in np.unique(within):
                    dealt[within == each] = random.permutation(y[within == each])
                null.append(float(np.corrcoef(x, dealt)[0, 1]))
            found.append(
                Measurement(
                    name=name,
                    value=float(_correlation(sums.sum(0)[None])[0]),
                    unit="rank correlation",
                    n=len(used),
                    of="windows",
                    chance=float(np.mean(null)),
                    chance_is=f"windows dealt anew, {_span(np.array(null))}",
                    **measure.bootstrap(_correlation, sums, seed=seen.seed).fields,
                )
            )
        return found


@dataclass(frozen=True)
class Together(Reading):
    """Co-occurrence of the latents that every seed has, beside independent features read by the same encoder.

    An encoder takes part of one feature for another that points its way, so that latents with aligned atoms fire
    together whatever their features do. Chance is therefore not that of atoms dealt anew: each latent's activations are
    dealt over rows by themselves, rows are composed of them and of residuals dealt likewise, and encoded.
    """

    name: ClassVar[str] = "co-occurrence"

    def read(self, seen: View, findings: Findings) -> None:
        among = (seen.recurrence(seen.wanted).counts == len(seen.wanted)).nonzero()[:, 0].numpy()
        codes, W = [seen.reader.encode(batch.x) for batch in seen.held], seen.sae.dictionary
        try:
            found = measure.co_occurrence(W, codes, among=among, seed=seen.seed)
            null = measure.co_occurrence(W, independent(seen.reader, seen.held, seen.seed), among=among, seed=seen.seed)
        except ValueError as error:
            seen.notes.append(f"Co-occurrence was not measured: {error}")
            return
        for m in found:
            if m.name == "co_occurrence_neurons" and not seen.has("neurons"):
                continue
            beside = null[m.name]
            low, high = (value or 0.0 for value in (beside.low, beside.high))
            # Rows made again leak more than the text's did, so that less than this is no evidence, more is.
            apart = (m.low or 0.0) > max(high, 0.0) or (m.high or 0.0) < min(low, 0.0)
            findings.add(
                replace(
                    m,
                    chance=beside.value,
                    chance_is="independent features on the same atoms, read by the same encoder "
                    f"({low:.3f} to {high:.3f})",
                    caution="" if apart else "no more than independent features show, read by the same encoder",
                ),
                at=seen.at,
            )
        for series, each in (("text", found), ("independent features", null)):
            findings.rows("co_occurrence", each.bins, at={**seen.at, "series": series})


@torch.no_grad()
def independent(sae: SparseCoder, rows: Sequence[Activations], seed: int) -> list[SparseCode]:
    """Codes of rows made of the same latents' activations, each latent's dealt over rows by itself."""
    random = np.random.default_rng(seed)
    codes = [sae.encode(batch.x) for batch in rows]
    x = torch.cat([batch.x for batch in rows])
    residual = x - torch.cat([sae.decode(code) for code in codes])
    f = active(codes).tocsc()
    count, n = cast("tuple[int, int]", f.shape)
    dealt = np.concatenate(
        [random.choice(count, size=end - start, replace=False) for start, end in pairwise(f.indptr)] or [f.indices]
    )
    columns = np.repeat(np.arange(n), np.diff(f.indptr))
    places, latents = (torch.from_numpy(each).long().to(x.device) for each in (dealt, columns))
    made = SparseCode.from_entries(places, latents, torch.from_numpy(f.data).to(x), (count, n))
    made = sae.decode(made) + residual[torch.from_numpy(random.permutation(count)).to(x.device)]
    return [sae.encode(part) for part in made.split(4096)]


def _by_group(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows summed by group."""
    numbers, inverse = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, inverse, rows)
    return sums


def _span(null: np.ndarray) -> str:
    return f"{len(null)} draws ({null.min():.3f} to {null.max():.3f})"


def _ratio(name: str, unit: str, sums: np.ndarray, top: int, under: int, seed: int) -> Measurement:
    def ratio(s: np.ndarray) -> np.ndarray:
        return s[:, top] / s[:, under]

    return Measurement(
        name=name,
        value=float(ratio(sums.sum(0)[None])[0]),
        unit=unit,
        n=int(sums[:, -1].sum()),
        of="tokens",
        **measure.bootstrap(ratio, sums, seed=seed).fields,
    )


def _correlation(s: np.ndarray) -> np.ndarray:
    n, x, y, xy, xx, yy = s.T
    return (xy / n - x * y / n**2) / np.sqrt(np.maximum((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2), 1e-300))


def sentences(findings: Findings, sites: Sequence[Site], names: Sequence[str]) -> Iterator[str]:
    """What was found at each site, of domains, difficulty and co-occurrence."""
    for site in sites:
        latents = [
            m for m in findings if m.name == "domain_latents" and m.at["site"] == str(site) and m.value is not None
        ]
        if latents:
            listed = ", ".join(f"{m.at['domain']} {m.value:.1%} (by chance {m.chance:.1%})" for m in latents)
            yield f"At {site}, of {latents[0].n} latents so many are one domain's own: {listed}."
    for site in sites:
        trend = findings.get("difficulty_trend_within", site)
        if trend is not None and trend.low is not None:
            said = _moves(
                trend, "activates more latents", "activates fewer latents", "has as many latents at work as other text"
            )
            yield f"At {site} text that the model finds harder {said}."
        for name, more, fewer, none in (
            (
                "co_occurrence_overlap",
                "overlap more in either sense the more often they fire together",
                "overlap more in either sense the more rarely they fire together",
                "overlap alike whether or not they fire together",
            ),
            (
                "co_occurrence_cosine",
                "point the same way the more often they fire together",
                "point the same way the more rarely they fire together",
                "point the same way as much whether or not they fire together",
            ),
            (
                "co_occurrence_neurons",
                "share neurons more the more often they fire together",
                "share neurons more the more rarely they fire together",
                "share neurons alike whether or not they fire together",
            ),
        ):
            found = findings.get(name, site)
            if found is not None:
                yield f"At {site} features {_moves(found, more, fewer, none)}."


def _moves(found: Measurement, more: str, fewer: str, none: str) -> str:
    """Which of three it is, with the number; of co-occurrence, beside its chance level and not beside 0."""
    beside = found.chance if found.name.startswith("co_occurrence") and found.chance is not None else 0.0
    assert found.value is not None
    unclear = bool(found.caution) or found.low is None or found.low <= beside <= (found.high or 0)
    said = none if unclear else more if found.value > beside else fewer
    chance = f" where independent features give {beside:+.3f}" if beside else ""
    interval = "" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{said} (rank correlation {found.value:+.3f}{interval}{chance}, {found.n:,} {found.of})"
