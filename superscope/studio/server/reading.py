"""Which features answer to a text of one's own? The run's model reads it, and the run's dictionary.

One model and a few dictionaries stay in memory. What is read is short, one text at a time; nothing is fetched from
anywhere: a run that names a model which is not on this machine is told so.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch

from ... import capture
from ...capture import Subject
from ...core import FormatError, RunFolder, Site
from ...core.source import Activations
from ...dictionaries import SAE, load
from . import shapes

CHARACTERS = 2_000
"""Of a text, at most; what follows is not read."""
TOKENS = 256
LATENTS = 8
"""Strongest latents of each token."""
_KEPT = 4
"""Dictionaries in memory."""
_INSIDE = ("pocket", "sycophant")
"""Models that travel in the package."""


class Reader:
    """Reads texts with a run's model and dictionaries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subject: tuple[Any, Subject] | None = None
        self._saes: dict[Path, SAE] = {}

    def read(self, folder: RunFolder, asked: shapes.AskText) -> shapes.TextReading:
        """The latents that answer to each token, strongest first.

        Raises:
            FormatError: if the run kept no dictionary of this site, or its model is not on this machine.
            ValueError: if the text is blank.
        """
        text = asked.text[:CHARACTERS]
        if not text.strip():
            raise ValueError("Give a text of at least one word.")
        began = time.monotonic()
        with self._lock:
            sae = self._dictionary(folder, asked.site, asked.model)
            subject = self._model(folder, asked.model)
            rows, ids, cut = _rows(subject, asked.site, text)
            with torch.no_grad():
                code = sae.encode(rows)
        values, order = code.values.float().sort(dim=1, descending=True)
        latents = code.indices.gather(1, order)
        most = min(LATENTS, values.shape[1])
        return shapes.TextReading(
            tokens=capture.pieces(subject.tokenizer, ids),
            latents=[[i for i, v in zip(*row, strict=True) if v > 0] for row in _pairs(latents, values, most)],
            values=[[v for v in row if v > 0] for row in values[:, :most].tolist()],
            active=(values > 0).sum(1).tolist(),
            cut=cut or len(asked.text) > CHARACTERS,
            seconds=time.monotonic() - began,
        )

    def _dictionary(self, folder: RunFolder, site: str, model: str) -> SAE:
        place = _dictionary_at(folder.path, site, model)
        if place is None:
            raise FormatError(
                f"This run kept no dictionary of {site[:80]}, which reading a text needs. "
                "Scan again into a folder: superscope scan --out FOLDER keeps them."
            )
        if place not in self._saes:
            while len(self._saes) >= _KEPT:
                self._saes.pop(next(iter(self._saes)))
            self._saes[place] = load(place).eval()
        return self._saes[place]

    def _model(self, folder: RunFolder, label: str) -> Subject:
        settings = folder.about["settings"]
        name, seed = str(settings.get("model", "")), int(settings.get("seed", 0) or 0)
        key = (name, label, seed)
        if self._subject is not None and self._subject[0] == key:
            return self._subject[1]
        if not is_here(name):
            raise FormatError(
                f"The model {name[:80]!r} of this run is not on this machine, and a page fetches none. "
                "Scan a local folder of it, or load it once with superscope."
            )
        # The old one first: two models may not fit.
        self._subject = None
        subject = capture.load(name)
        if label == "control":
            subject = capture.control(subject, seed)
        self._subject = (key, subject)
        return subject


def can_read(folder: RunFolder, site: str, model: str) -> bool:
    """Whether a text can be read at a site of this run."""
    name = str(folder.about["settings"].get("model", ""))
    return is_here(name) and _dictionary_at(folder.path, site, model) is not None


def is_here(model: str) -> bool:
    """Whether a model can be loaded without asking the network."""
    if model in _INSIDE:
        return True
    if not model.strip() or "\x00" in model:
        return False
    if Path(model).expanduser().is_dir():
        return True
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except (ImportError, ValueError, OSError):
        return False


def _dictionary_at(run: Path, site: str, model: str) -> Path | None:
    """The first seed's dictionary of a site; the folders are those that are there, never what was asked for."""
    for label in _folders(run / "saes"):
        for place in _folders(label):
            if label.name == model and place.name == site.replace(":", "-"):
                seeds = [seed for seed in _folders(place) if seed.name.removeprefix("seed").isdigit()]
                return min(seeds, key=lambda seed: int(seed.name.removeprefix("seed")), default=None)
    return None


def _folders(place: Path) -> list[Path]:
    """Folders in a folder, none of them a link."""
    if not place.is_dir() or place.is_symlink():
        return []
    return [each for each in place.iterdir() if each.is_dir() and not each.is_symlink()]


def _rows(subject: Subject, site: str, text: str) -> tuple[torch.Tensor, list[int], bool]:
    """Activations of a text's first tokens, in order, with their ids, and whether there were more."""
    limit = int(getattr(subject.model.config, "max_position_embeddings", TOKENS) or TOKENS)
    corpus = capture.as_corpus([text], tokenizer=subject.tokenizer, context=min(TOKENS, limit))
    first = corpus.take(torch.tensor([0]))
    recording = capture.record(subject, [Site.read(site)], first)
    while True:
        try:
            next(recording)
        except StopIteration as end:
            source = next(iter(end.value.values()))
            break
    batches: list[Activations] = list(source.rows())
    places = torch.cat([batch.places for batch in batches if batch.places is not None])
    order = places[:, 1].argsort()
    ids = torch.cat([batch.tokens for batch in batches if batch.tokens is not None])[order]
    return torch.cat([batch.x for batch in batches])[order], ids.tolist(), len(corpus.ids) > 1


def _pairs(latents: torch.Tensor, values: torch.Tensor, most: int) -> list[tuple[list[int], list[float]]]:
    return list(zip(latents[:, :most].tolist(), values[:, :most].tolist(), strict=True))
