"""What would a language model call these latents, and do its names foretell where they fire?"""

from __future__ import annotations

import functools
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import tyro

from ... import measure
from ...core import Answer, Findings, FormatError, Measurement, Report, Run, SiteNotFound, files
from ..settings import at_least
from ..study import Progress, Study
from .readings import TRAINED

_SHOWN, _SCORED = 6, 4
"""Contexts that a name is made from, and others, as many of other latents beside them, that it is tried on."""
_CHARACTERS = 3.5
"""Of a token, in the estimate: servers count by tokenizers of their own."""
_ANSWER = 24
"""Tokens of an answer."""
_ATTEMPTS, _PATIENCE = 3, 120
_TOKENS = 4
"""That a latent is described by where no model describes it: those marked most often."""
_MARKED = re.compile(r"<<(.*?)>>", re.DOTALL)
_EXPLAIN = (
    "One unit of a neural network is active on the tokens between << and >> in the texts below. Say in at most twelve "
    "words what these have in common. Answer with the description alone.\n\n{texts}"
)
_SCORE = (
    "One unit of a neural network is described as: {label}\n\nWhich of the texts below is it active on? Answer with "
    "their numbers, separated by commas, or with none.\n\n{texts}"
)


@dataclass(frozen=True)
class Interpret(Study):
    """Let a language model name the latents of a scan, and try its names on contexts that it has not seen.

    Each latent's strongest contexts are sent to a server that speaks OpenAI's protocol (a local one, as llama.cpp or
    vLLM have it), which describes them; then texts on which the latent is active stand among others, and the server
    says by the description which those are. Beside that score: the same texts judged by another latent's description,
    and by the very tokens that the latent fires on, which no model made up: a server that cannot judge by those cannot
    judge at all. **Nothing is sent without --send**: what would be sent, and what it would cost, is said instead.
    Answers are kept as they come, and an interrupted run asks only for those that are missing.
    """

    kind: ClassVar[str] = "interpret"

    scan: Annotated[str, tyro.conf.Positional]
    """Run folder of `superscope scan` or `superscope survey`."""
    endpoint: str = "http://127.0.0.1:8080/v1"
    """Address of the server, up to its version."""
    name: str = "default"
    """The model's name there."""
    send: bool = False
    """Send them: contexts of the scanned text go to the server."""
    site: str | None = None
    """Which site of the scan. Default: its only one."""
    latents: Annotated[int, at_least(2, why="One is scored by another's description, too.")] = 50
    """How many, the most reliable first."""
    price_given: Annotated[float, at_least(0)] = 0.0
    """Price of a million tokens that are sent, for the estimate."""
    price_answered: Annotated[float, at_least(0)] = 0.0
    """Price of a million tokens that are answered."""
    key: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key, where it wants one. The key itself is kept nowhere."""
    seed: int = 0
    """Of the order of texts and the bootstrap."""

    def check(self) -> None:
        address = urlsplit(self.endpoint)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"endpoint is {self.endpoint!r}; write an address as http://127.0.0.1:8080/v1.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the scan", 0, 1)
        report = Report.load(Path(self.scan).expanduser())
        tasks = self._tasks(report)
        asked = [_EXPLAIN.format(texts=_listed(task.shown)) for task in tasks]
        asked += [_SCORE.format(label="x" * 4 * _ANSWER, texts=_listed(task.texts)) for task in tasks for _ in range(3)]
        given, answered = sum(map(len, asked)) / _CHARACTERS, len(asked) * _ANSWER
        findings = Findings(_estimate(len(asked), given, answered, (self.price_given, self.price_answered)))
        price = findings.get("interpret_cost")
        cost = "" if price is None else f", about {price.value:,.2f} at the price given"
        planned = (
            f"{len(tasks)} latents take {len(asked)} requests: about {given:,.0f} tokens given and at most "
            f"{answered:,.0f} answered{cost}."
        )
        yield Progress("Reading the scan", 1, 1, planned)
        if not self.send:
            said = f"Nothing was sent. With --send contexts of the scanned text go to {self.endpoint}."
            return Answer(title="What naming these latents would cost", findings=findings, sentences=(planned, said))
        run.open()
        found: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            yield Progress("Asking for names", number, len(tasks))
            kept = run.kept(f"answers/{task.latent}.json", files.read_json)
            label = kept["label"] if kept else self._ask(_EXPLAIN.format(texts=_listed(task.shown)), len(found))
            if not kept:
                run.keep(f"answers/{task.latent}.json", functools.partial(files.write_json, value={"label": label}))
            found.append({"latent": task.latent, "label": label})
        yield Progress("Asking for names", len(tasks), len(tasks))
        for number, task in enumerate(tasks):
            yield Progress("Trying the names", number, len(tasks))
            # Another's description, of the next latent: it tells what the texts themselves give away.
            other = found[(number + 1) % len(tasks)]["label"]
            own = found[number]["label"]
            for which, label in (("score", own), ("score_by_another", other), ("score_by_tokens", task.tokens)):
                place = f"answers/{task.latent}-{which}.json"
                score = run.kept(place, files.read_json)
                if score is None:
                    answer = self._ask(_SCORE.format(label=label, texts=_listed(task.texts)), number)
                    score = _balanced(answer, task.active)
                    run.keep(place, functools.partial(files.write_json, value=score))
                found[number][which] = score
        yield Progress("Trying the names", len(tasks), len(tasks))
        findings.rows("labels", {column: [each[column] for each in found] for column in found[0]})
        run.keep(
            "labels.json",
            functools.partial(files.write_json, value={str(each["latent"]): each["label"] for each in found}),
        )
        whole = self._accuracy("label_accuracy", "score", found)
        able = self._accuracy("token_accuracy", "score_by_tokens", found)
        findings.add([whole, able])
        verdict = "foretell" if (whole.low or 0) > (whole.chance or 0) else "do not foretell better than others' do"
        judges = (able.low or 0) > (able.chance or 0)
        return Answer(
            title=f"{self.name} on {len(tasks)} latents",
            findings=findings,
            sentences=(
                f"Descriptions {verdict} where latents fire: balanced accuracy {whole.value:.2f} "
                f"[{whole.low:.2f}, {whole.high:.2f}] over {whole.n} latents; by another latent's description "
                f"{whole.chance:.2f}, and 0.50 is guessing.",
                f"Told the tokens themselves the server reaches {able.value:.2f} [{able.low:.2f}, {able.high:.2f}]"
                f"{'.' if judges else ': it cannot judge, so that its scores say nothing of the latents.'}",
                planned,
            ),
        )

    def _tasks(self, report: Report) -> list[_Task]:
        if "contexts" not in report.tables:
            raise FormatError(f"{self.scan} holds no contexts. Give the run folder of a scan of a language model.")
        table = report.tables["contexts"]
        sites = list(dict.fromkeys(table["site"]))
        if self.site is None and len(sites) > 1:
            raise ValueError(f"{self.scan} has {len(sites)} sites; give one with --site: {', '.join(sites)}.")
        site = sites[0] if self.site is None else self.site
        if site not in sites:
            raise SiteNotFound(f"{self.scan} has no site {site}. It has {', '.join(sites)}.")
        texts: dict[int, list[tuple[str, str]]] = {}
        for row, (at, model) in enumerate(zip(table["site"], table["model"], strict=True)):
            if at == site and model == TRAINED:
                both = (_marked(table, row), "".join(table["tokens"][row]))
                texts.setdefault(int(table["latent"][row]), []).append(both)
        whole = {latent: own for latent, own in texts.items() if len(own) >= _SHOWN + _SCORED}
        chosen = list(whole)[: self.latents]
        if len(chosen) < 2:
            raise ValueError(
                f"{len(whole)} latents at {site} have {_SHOWN + _SCORED} contexts, and two are needed. Scan more "
                "--tokens."
            )
        random = np.random.default_rng(self.seed)
        return [_Task.of(latent, whole, random) for latent in chosen]

    def _ask(self, prompt: str, done: int) -> str:
        """The server's answer to one request, after at most three attempts.

        Raises:
            ConnectionError: if it gives none, or none that can be read.
        """
        body = {"model": self.name, "messages": [{"role": "user", "content": prompt}]}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key):
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body | {"max_tokens": _ANSWER, "temperature": 0, "seed": self.seed}).encode()
        request = urllib.request.Request(f"{self.endpoint.rstrip('/')}/chat/completions", data, headers)
        why = ""
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:
                    found = json.loads(reply.read())["choices"][0]["message"]["content"]
                    return " ".join(str(found).split())
            except urllib.error.HTTPError as error:
                why = f"it answered {error.code}"
                if error.code in (400, 401, 403, 404):
                    break
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
            time.sleep(0.5 * 2**attempt if attempt + 1 < _ATTEMPTS else 0)
        raise ConnectionError(
            f"{self.endpoint} gave no answer for {self.name!r} ({why}) after {done} latents. What it has answered "
            "is kept: the same command with the same --out asks for the rest."
        )

    def _accuracy(self, name: str, by: str, found: Sequence[Mapping[str, Any]]) -> Measurement:
        sums = np.array([[each[by], each["score_by_another"], 1.0] for each in found])
        return Measurement(
            name=name,
            value=float(sums[:, 0].mean()),
            unit="balanced accuracy",
            n=len(found),
            of="latents",
            chance=float(sums[:, 1].mean()),
            chance_is="the same texts judged by another latent's description",
            **measure.bootstrap(lambda s: s[:, 0] / s[:, 2], sums, of="latents", seed=self.seed).fields,
        )


@dataclass(frozen=True)
class _Task:
    """One latent: contexts that its name is made from, the tokens marked there, and texts that it is tried on, half of
    which are its own."""

    latent: int
    shown: tuple[str, ...]
    tokens: str
    texts: tuple[str, ...]
    active: tuple[bool, ...]

    @classmethod
    def of(cls, latent: int, whole: Mapping[int, Sequence[tuple[str, str]]], random: np.random.Generator) -> _Task:
        # By turns, so that what a name is tried on is as strong as what it was made from.
        own = whole[latent][: _SHOWN + _SCORED]
        tried = {round((i + 0.5) * len(own) / _SCORED - 0.5) for i in range(_SCORED)}
        shown = tuple(marked for i, (marked, _) in enumerate(own) if i not in tried)
        mine = [plain for i, (_, plain) in enumerate(own) if i in tried]
        others = [other for other in whole if other != latent]
        drawn = random.choice(others, size=len(mine), replace=len(others) < len(mine))
        foreign = [whole[int(other)][int(random.integers(len(whole[int(other)])))][1] for other in drawn]
        order = random.permutation(2 * len(mine))
        both = [*((text, True) for text in mine), *((text, False) for text in foreign)]
        marked = Counter(token.strip() for text in shown for token in _MARKED.findall(text))
        tokens = f"the tokens {', '.join(repr(token) for token, _ in marked.most_common(_TOKENS))}"
        return cls(latent, shown, tokens, tuple(both[i][0] for i in order), tuple(both[i][1] for i in order))


def _marked(table: Mapping[str, Sequence[Any]], row: int) -> str:
    """A context with the tokens marked on which the latent is at half its strength there or more."""
    values = table["activations"][row]
    half = 0.5 * max(values)
    return "".join(
        f"<<{token}>>" if value >= half > 0 else token
        for token, value in zip(table["tokens"][row], values, strict=True)
    )


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {text!r}" for number, text in enumerate(texts, 1))


def _balanced(answer: str, active: Sequence[bool]) -> float:
    """Mean of the shares of active and of silent texts that an answer sorts rightly."""
    named = {int(number) for number in re.findall(r"\d+", answer)}
    right = [(number in named) == is_active for number, is_active in enumerate(active, 1)]
    shares = [np.mean([r for r, a in zip(right, active, strict=True) if a is kind]) for kind in (True, False)]
    return float(np.mean(shares))


def _estimate(requests: int, given: float, answered: float, price: tuple[float, float]) -> list[Measurement]:
    said = {"n": requests, "of": "requests", "how": "no interval: an estimate from the number of characters"}
    found = [
        Measurement(name="interpret_requests", value=float(requests), unit="requests", **said),
        Measurement(name="interpret_tokens", value=given + answered, unit="tokens", **said),
    ]
    if any(price):
        cost = (given * price[0] + answered * price[1]) / 1e6
        found.append(Measurement(name="interpret_cost", value=cost, unit="in the price's currency", **said))
    return found
