"""How superposed are the layers of this model? From a model's name and a text to a report."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ... import capture
from ...capture import Subject
from ...core import Answer, Run, Site
from ..study import Progress
from .readings import CONTROL, READINGS, TRAINED
from .survey import Survey, sentences

_BLOCKS = 6
"""Blocks read by default: each site of a large model costs minutes; --sites takes any number."""


@dataclass(frozen=True)
class Scan(Survey):
    """How superposed are this model's layers?

    Reads a text with the model, records the activations at each site, learns a sparse dictionary of each with several
    seeds, and measures: sparsity, what the dictionary explains, how many directions recur over seeds against the
    dimensions there are, how much they interfere, which neurons mix which features. Writes one run folder.
    """

    kind: ClassVar[str] = "scan"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal or encoder model; "pocket" travels inside the package."""
    sites: tuple[str, ...] = ()
    """Module paths to read, globs allowed (`transformer.h.*`); `path:in` reads a module's input. Default: the outputs
    of the blocks, six where there are more, and the hidden layer of the middle block's MLP, where neurons are."""
    control: bool = False
    """Also scan a copy of the model with random weights, to see what training put there."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        run.require_space(64 * 2**20)
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
        corpus, held_out = self.corpora(loaded)
        subjects = {TRAINED: loaded} | ({CONTROL: capture.control(loaded, self.seed)} if self.control else {})
        said = f"{corpus.n_tokens:,} tokens to learn from, {held_out.n_tokens:,} held out"
        yield Progress("Reading the text", 1, 1, said, ahead=self.ahead(subjects, sites, corpus, held_out))
        findings = yield from self.survey(run, subjects, sites, corpus, held_out)
        run.note(text=f"{len(set(corpus.document.tolist()))} documents", window=str(corpus.policy))
        return Answer(
            title=f"{loaded.name}: superposition at {len(sites)} site{'s' if len(sites) > 1 else ''}",
            findings=findings,
            sentences=sentences(READINGS, findings, sites),
        )


def _default_sites(loaded: Subject) -> tuple[Site, ...]:
    """Block outputs, at most six of them evenly spaced to the last, and the middle block's MLP where it has neurons."""
    outputs = capture.default_sites(loaded.model)
    count = min(_BLOCKS, len(outputs))
    chosen = tuple(outputs[round((i + 1) * len(outputs) / count) - 1] for i in range(count))
    hidden = capture.mlp_hidden(loaded.model, outputs[len(outputs) // 2].path)
    return chosen + (capture.sites(loaded.model, [hidden]) if hidden else ())
