"""What can be said of this model's superposition? Every study that applies, over one reading of the text."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
import tyro

from ... import capture
from ...capture import Corpus, Subject
from ...core import Activations, Answer, Findings, Measurement, Run, Site, SparseCode
from ..settings import above, at_least
from ..study import Progress
from . import domains, layers, transfer
from .comparing import Codes, aligned, found_beside_seed, joined
from .concepts import CONCEPTS, positions, prompted
from .domains import ByDomain, Domains, Together
from .dynamics import Dynamics
from .evaluate import probed
from .layers import Depth
from .manifolds import in_order
from .readings import CONTROL, READINGS, TRAINED, Reading, View
from .survey import Survey, sentences

_ROLES = ("resid_post", "mlp_act", "attn_out")
_PROBED = 4000
"""Rows that latents are probed on."""
_POSITIONS = "positions"


@dataclass(frozen=True)
class FullSurvey(Survey):
    """Run every study of networks that applies to a model, and write one report.

    The text is read once: activations of all sites are recorded in one pass of the model, each dictionary is learned
    once, and everything that scan, layers, domains, transfer, manifolds and evaluate ask is read from them, beside a
    copy with random weights. With --checkpoints what dynamics asks, too. Past --minutes no further site and no
    further study is begun, and what was left out is named. An interrupted survey goes on where it was, with the
    dictionaries that it has.
    """

    kind: ClassVar[str] = "survey"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal or encoder model; "pocket" travels inside the package."""
    minutes: Annotated[float, above(0)] = 60.0
    """Past so many no further site, control or study is begun."""
    layers: tuple[Annotated[int, at_least(0)], ...] = ()
    """Which, counted from 0. Default: the first, the middle and the last."""
    roles: tuple[str, ...] = _ROLES
    """Kinds of site, as `superscope sites` lists them, the most wanted first; those a model has not are left out."""
    control: bool = True
    """Read a copy of the model with random weights as well."""
    domains: tuple[str, ...] = ()
    """Folders of the text that are domains; all first folders of its documents without it, where there are two."""
    checkpoints: tuple[str, ...] = ()
    """Folders of one model at several moments, in order; "pocket" for the pocket model's twin. None without it."""

    def check(self) -> None:
        for role in self.roles:
            if role not in capture.ROLES:
                raise ValueError(f"there is no role {role!r}. Roles are {', '.join(capture.ROLES)}.")
        if self.checkpoints and self.seeds < 3:
            raise ValueError(
                "--checkpoints wants --seeds 3: the third says what two dictionaries of one moment differ by."
            )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        end = time.monotonic() + 60 * self.minutes
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        numbers = layers.chosen(loaded, self.layers)
        sites = layers.sites_of(loaded, numbers, self.roles)
        if not sites:
            raise ValueError(
                f"'{loaded.name}' has none of {', '.join(self.roles)} that this study can read. "
                "`superscope sites` lists what there is."
            )
        n = self.n or 8 * loaded.d
        if self.k > n:
            raise ValueError(
                f"k = {self.k} latents cannot be active among n = {n}. Give a smaller --k or a larger --n."
            )
        yield Progress(f"Loading {self.model}", 1, 1, f"{len(sites)} sites")
        yield Progress("Reading the text", 0, 1)
        corpus, held_out, by_domain, why = self._texts(loaded)
        control = {CONTROL: capture.control(loaded, self.seed)} if self.control else {}
        everything = {TRAINED: loaded} | control
        yield Progress(
            "Reading the text",
            1,
            1,
            f"{corpus.n_tokens:,} tokens",
            ahead=self.ahead(everything, list(sites), corpus, held_out),
        )
        parts = _Parts(end)
        depth, codes = Depth(), Codes()
        shared: tuple[Reading, ...] = (*READINGS, depth, codes)
        own = (*shared, *((by_domain, Together()) if by_domain else ()), Probes())
        began = time.monotonic()
        findings = yield from self.survey(run, {TRAINED: loaded}, list(sites), corpus, held_out, own, until=end)
        late = set(findings.tables.get("left_out", {}).get("site", []))
        read = {site: place for site, place in sites.items() if str(site) not in late}
        parts.done("scan", began, *sentences(READINGS, findings, list(read)))
        if control and parts.begins("control", "a copy with random weights"):
            began = time.monotonic()
            also = yield from self.survey(run, control, list(sites), corpus, held_out, shared, until=end)
            _merge(findings, also)
            parts.done("control", began)
        if parts.begins("layers", "attention and depth"):
            began = time.monotonic()
            texts = dict.fromkeys(everything, held_out)
            yield from layers.attention(everything, numbers, texts, findings, self.seed)
            for label in everything:
                findings.add(depth.trends(label, sites, self.seed))
            parts.done("layers", began, *layers.sentences(findings, read, tuple(everything)))
        if by_domain:
            said = domains.sentences(findings, list(read), by_domain.names)
            parts.done("domains", time.monotonic(), *said, *([why] if why else []))
        else:
            parts.leave("domains", why)
        if parts.begins("transfer", "features of one place in another"):
            began = time.monotonic()
            said = yield from self._transfers(codes, sites, tuple(everything), findings)
            parts.done("transfer", began, *said)
        if parts.begins("manifolds", "things in an order"):
            began = time.monotonic()
            said = yield from self._concepts(loaded, sites, held_out, findings)
            parts.done("manifolds", began, *said)
        parts.done("evaluate", time.monotonic(), *_of_probes(findings, list(read)))
        if not self.checkpoints:
            parts.leave("dynamics", "it needs --checkpoints, several moments of one training")
        elif parts.begins("dynamics", "checkpoints"):
            began = time.monotonic()
            other = yield from Dynamics(**self._shared(), checkpoints=self.checkpoints).answer(run)
            _merge(findings, other.findings)
            parts.done("dynamics", began, *other.sentences)
        for site, (role, layer) in sites.items():
            findings.row("places", site=str(site), role=role, layer=layer)
        findings.rows("studies", parts.table)
        run.note(text=f"{len(set(corpus.document.tolist()))} documents", window=str(corpus.policy))
        missed = dict.fromkeys(findings.tables.get("left_out", {}).get("site", []))
        left = [f"{', '.join(missed)}, for want of time"] if missed else []
        left += parts.left
        return Answer(
            title=f"{loaded.name}: {len(sites)} sites, {len(parts.table['study'])} studies",
            findings=findings,
            sentences=(*parts.sentences, *([f"Left out: {'; '.join(left)}."] if left else [])),
        )

    def _shared(self) -> dict[str, Any]:
        """The settings that all studies of networks have, as they are here."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(Survey)}

    def _texts(self, loaded: Subject) -> tuple[Corpus, Corpus, ByDomain | None, str]:
        """Text to learn from and to measure on, its domains, and why there are none, or how they were cut."""
        why = "the text has no two domains"
        try:
            study = Domains(**self._shared(), model=self.model, domains=self.domains)
            corpora, cut = study.texts(loaded)
        except ValueError as error:
            if self.domains:
                raise
            why = str(error).rstrip(".")
            return *self.corpora(loaded), None, why
        learned, held_out = (joined([parts[i] for parts in corpora.values()]) for i in (0, 1))
        return learned, held_out, ByDomain.of(corpora), cut

    def _transfers(
        self, codes: Codes, sites: Mapping[Site, tuple[str, int]], labels: Sequence[str], findings: Findings
    ) -> Generator[Progress, None, list[str]]:
        """Each residual stream in the next one read, and in that of random weights."""
        stream = [str(site) for site, (role, _) in sites.items() if role == "resid_post"]
        pairs = [((TRAINED, one), (TRAINED, other)) for one, other in pairwise(stream)]
        pairs += [((TRAINED, site), (CONTROL, site)) for site in stream if CONTROL in labels]
        pairs = [pair for pair in pairs if all(place in codes.kept for place in pair)]
        said = []
        for done, (first, second) in enumerate(pairs):
            names = [f"{site} ({label})" for label, site in (first, second)]
            yield Progress("Comparing features", done, len(pairs), " and ".join(names))
            try:
                a, b = aligned(codes.kept[first], codes.kept[second])
            except ValueError as error:
                return [f"Features were not compared: {error}"]
            for one, other, of, within in ((*names, a, b), (*names[::-1], b, a)):
                shared, own, _ = found_beside_seed(of, within, seed=self.seed)
                findings.add([shared, own], at={"from": one, "to": other})
                said.append(transfer.sentence(shared, one, other))
        yield Progress("Comparing features", len(pairs), len(pairs))
        return said

    def _concepts(
        self, loaded: Subject, sites: Mapping[Site, tuple[str, int]], held_out: Corpus, findings: Findings
    ) -> Generator[Progress, None, list[str]]:
        """Things in an order, at the middle one of the residual streams read, or of all sites."""
        stream = [site for site, (role, _) in sites.items() if role == "resid_post"] or list(sites)
        site = stream[(len(stream) - 1) // 2]
        said, names = [], (*CONCEPTS, _POSITIONS)
        for done, name in enumerate(names):
            yield Progress("Reading prompts", done, len(names), name)
            try:
                x = positions(loaded, site, held_out) if name == _POSITIONS else prompted(loaded, site, CONCEPTS[name])
                _, sentence = in_order(x, name, site, findings, self.seed)
            except ValueError as error:
                sentence = f"{name.capitalize()} could not be read: {error}"
            said.append(sentence)
        yield Progress("Reading prompts", len(names), len(names))
        return said


class Probes(Reading):
    """What single latents tell of tokens: the part of `superscope evaluate` that asks no model."""

    name: ClassVar[str] = "probes of latents"
    needs: ClassVar[tuple[str, ...]] = ("tokens",)

    def read(self, seen: View, findings: Findings) -> None:
        rows, parts = 0, []
        for batch in seen.held:
            parts.append(batch)
            rows += len(batch.x)
            if rows >= _PROBED:
                break
        x, tokens, places = (
            torch.cat([part for batch in parts if (part := getattr(batch, name)) is not None])
            for name in ("x", "tokens", "places")
        )
        batch = Activations(x, tokens=tokens, places=places)
        codes = [seen.reader.encode(part.x) for part in parts]
        code = SparseCode(torch.cat([c.values for c in codes]), torch.cat([c.indices for c in codes]), codes[0].n)
        for _ in probed(seen.sae, batch, seen.held_out, seen.texts, seen.seed, findings, seen.at, code):
            pass


@dataclass
class _Parts:
    """Which studies ran, for how long and with what answer; which did not, and why."""

    end: float
    sentences: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    table: dict[str, list] = field(default_factory=lambda: {"study": [], "seconds": [], "answer": []})

    def begins(self, study: str, what: str) -> bool:
        """Whether there is time for it; where there is none, it is left out."""
        if time.monotonic() <= self.end:
            return True
        self.leave(study, f"no time was left for {what}")
        return False

    def leave(self, study: str, why: str) -> None:
        self.left.append(f"{study}, since {why}")

    def done(self, study: str, began: float, *said: str) -> None:
        self.sentences += said
        for name, cell in (
            ("study", study), ("seconds", round(time.monotonic() - began, 1)), ("answer", said[0] if said else "")
        ):  # fmt: skip
            self.table[name].append(cell)


def _merge(findings: Findings, also: Findings) -> None:
    findings.add(also)
    for name, table in also.tables.items():
        findings.rows(name, table)


def _of_probes(findings: Findings, sites: Sequence[Site]) -> Iterator[str]:
    for site in sites:
        probes = [m for m in _at(findings, "probe_accuracy", site) if m.at.get("k") == 1]
        if probes:
            mean = [sum(getattr(m, part) or 0.0 for m in probes) / len(probes) for part in ("value", "chance")]
            yield (
                f"At {site} one latent tells {len(probes)} kinds of token with a balanced accuracy of {mean[0]:.2f} on "
                f"average; shuffled labels give {mean[1]:.2f}."
            )


def _at(findings: Findings, name: str, site: Site) -> list[Measurement]:
    return [m for m in findings if m.name == name and m.at.get("site") == str(site) and m.at.get("model") == TRAINED]
