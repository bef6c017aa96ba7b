"""All that a harvest reads, windows of tokens or pictures, on disk: made once, in its order, and read in any order."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...core import FormatError
from ..inputs.images import Images
from ..inputs.policy import Policy
from ..inputs.text import Corpus, Document, frame, framed, room, tokenized, windows_of
from .places import Local, Place, hash_tensors, preferred_hash

_WINDOWS = 8192
"""Windows in one file: 4 MB of ids at a context of 128."""


class Windows:
    """Windows of tokens, or pictures, in a store's folder `text`; any of them can be taken at any time.

    Args:
        place: the store's folder.

    Raises:
        FileNotFoundError: if they have not been made, or not to the end.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.header: dict[str, Any] = place.read_json("text.json")
        counts = [shard["windows"] for shard in self.header["shards"]]
        self._ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        self._open: dict[int, dict[str, Tensor]] = {}
        self._names: dict[int, dict[int, str]] = {}
        self._copies: Path | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of text, or patches, in all windows, those a policy leaves out included."""
        return int(self.header["tokens"])

    @property
    def policy(self) -> Policy:
        """How they were made and what is left out of them."""
        return Policy.read(self.header["policy"])

    @property
    def fingerprint(self) -> str:
        """Hash of all windows in their order."""
        return str(self.header["fingerprint"])

    def take(self, index: Int[Tensor, "s"]) -> tuple[Corpus | Images, Int[Tensor, "s"]]:
        """The windows at `index`, in that order, and the number of each one's document among all documents.

        A picture is a document of its own.
        """
        shard = torch.bucketize(index, torch.tensor(self._ends), right=True)
        columns: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        for number in shard.unique().tolist():
            tensors = self._shard(number)
            where = (shard == number).nonzero()[:, 0]
            inside = index[where] - (self._ends[number - 1] if number else 0)
            for name, tensor in tensors.items():
                if name not in columns:
                    columns[name] = torch.empty((len(index), *tensor.shape[1:]), dtype=tensor.dtype)
                columns[name][where] = tensor[inside]
            names |= self._names[number]
        if "pixels" in columns:
            said = self.header["framed"]
            chosen = tuple(names[i] for i in index.tolist())
            return Images(columns["pixels"], said["context"], said["skip"], chosen), index
        document, local = columns["document"].unique(return_inverse=True)
        corpus = Corpus(
            ids=columns["ids"].long(),
            keep=columns["keep"],
            length=columns["length"].long(),
            document=local,
            start=columns["start"],
            names=tuple(names[int(i)] for i in document),
            policy=self.header["framed"],
        )
        return corpus, columns["document"]

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._open:
            said = self.header["shards"][number]
            file, names = f"text/{number:06d}.safetensors", f"text/{number:06d}.json"
            place = self.place
            if not isinstance(place, Local):
                # Read at random places all over, so it is copied here once and mapped, not held.
                if self._copies is None:
                    self._copies = Path(tempfile.mkdtemp(prefix="superscope-text-"))
                    weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
                local = Local(self._copies)
                local.write(file, self.place.read(file))
                place = local
            tensors = place.tensors(file)
            if hash_tensors(tensors, said["hash"].partition(":")[0]) != said["hash"]:
                raise FormatError(
                    f"{self.place}/{file} has changed since it was written: a damaged disk or copy. Remove the folder "
                    "'text' and text.json there and run the harvest again; finished units are kept."
                )
            self._open[number] = tensors
            self._names[number] = {int(key): name for key, name in self.place.read_json(names).items()}
        return self._open[number]


def write_windows(
    place: Place,
    tokenizer: Any,
    documents: Iterable[Document],
    policy: Policy,
    *,
    source: str,
    tokenizer_hash: str,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Makes the windows of a store, yielding how many tokens there are after each file; none if they are there.

    The file text.json is written last: without it the windows are made again from the start, which gives the same.

    Args:
        source: what the text is, in words; another text in the same folder is refused by it.
        tokenizer_hash: of the tokenizer.
        limit: tokens of text to take; all of it without.
        seed: of the documents' order, for the record.

    Raises:
        ValueError: if the folder holds windows of another text, tokenizer or policy; or the text is shorter than one.
    """
    wanted = _said(policy, tokenizer_hash, source=source, limit=limit, seed=seed)
    if place.size("text.json") is not None:
        yield int(_standing(place, wanted)["tokens"])
        return
    before, after = frame(tokenizer, policy)
    body = room(policy.context, before, after)
    shards: list[dict[str, Any]] = []
    waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    names: dict[int, str] = {}
    n_tokens = n_waiting = n_kept = 0
    said: dict[str, Any] = {}

    def numbered() -> Iterator[tuple[int, Document]]:
        for number, document in enumerate(documents):
            names[number] = document.name
            yield number, document

    def flush() -> None:
        nonlocal waiting, n_waiting, said, n_kept, names
        text, length, document, start = (torch.cat(columns) for columns in zip(*waiting))
        corpus = framed(text, length, document, start, tokenizer, policy, (), {"limit": limit, "seed": seed})
        shards.append(_write_shard(place, len(shards), _columns(corpus), names))
        # The last document may go on in the next file.
        names = {i: name for i, name in names.items() if i >= int(document.max())}
        said, n_kept, waiting, n_waiting = corpus.policy, n_kept + corpus.n_tokens, [], 0

    for batch in tokenized(tokenizer, numbered()):
        for number, ids in batch:
            ids = ids if limit is None else ids[: limit - n_tokens]
            if ids:
                pieces = windows_of(ids, number, body)
                n_tokens += len(ids)
                # A document may be longer than a file.
                for at in range(0, len(pieces[0]), _WINDOWS):
                    waiting.append(tuple(each[at : at + _WINDOWS] for each in pieces))  # type: ignore[arg-type]
                    n_waiting += len(waiting[-1][0])
                    if n_waiting >= _WINDOWS:
                        flush()
                        yield n_tokens
        if limit is not None and n_tokens >= limit:
            break
    if waiting:
        flush()
    if n_tokens < body:
        raise ValueError(
            f"tokens: the text has {n_tokens} tokens, fewer than the {body} of one window (context {policy.context}); "
            "give more text, or a shorter context."
        )
    _finish(place, wanted, said, n_tokens, n_kept, shards)
    yield n_tokens


def write_corpus(place: Place, corpus: Corpus, policy: Policy, *, tokenizer_hash: str) -> Windows:
    """Makes a corpus the windows of a store: window i is its sequence i, a row's document its index into `names`.

    Args:
        policy: by which the corpus was made; a store leaves out outliers and packs by it.

    Raises:
        ValueError: if the folder holds the windows of another text, tokenizer or policy.
    """
    about = hash_tensors(_columns(corpus), "sha256")
    limit, seed = corpus.policy.get("limit"), corpus.policy.get("seed")
    wanted = _said(policy, tokenizer_hash, source=f"a corpus, {about}", limit=limit, seed=seed)
    if place.size("text.json") is not None:
        _standing(place, wanted)
    else:
        shards = []
        for at in range(0, len(corpus), _WINDOWS):
            part = corpus.take(torch.arange(at, min(at + _WINDOWS, len(corpus))))
            shards.append(_write_shard(place, len(shards), _columns(part), dict(enumerate(corpus.names))))
        around = len(corpus.policy["before"]) + len(corpus.policy["after"])
        tokens = int((corpus.length - around).sum())
        _finish(place, wanted, corpus.policy, tokens, corpus.n_tokens, shards)
    return Windows(place)


def write_images(
    place: Place, batches: Iterable[Images], policy: Policy, *, source: str, limit: int | None = None
) -> Iterator[int]:
    """Makes pictures the windows of a store, yielding how many patches there are after each batch, which is a file.

    Args:
        policy: what is left out. Its context is the pictures', and nothing is put before them.
        source: where they are from, in words; others in the same folder are refused by it.
        limit: patches to take; the last picture whole, all of them without.

    Raises:
        ValueError: if the folder holds other windows, or there is no picture.
    """
    coming = iter(batches)
    images = next(coming, None)
    if images is None:
        raise ValueError("harvest: there are no pictures; give at least one.")
    policy = dataclasses.replace(policy, context=images.context, bos=False, packed=False)
    wanted = _said(policy, "", source=source, limit=limit, seed=None)
    if place.size("text.json") is not None:
        yield int(_standing(place, wanted)["tokens"])
        return
    shards: list[dict[str, Any]] = []
    framed = {"context": images.context, "skip": images.skip}
    n = n_patches = 0
    while images is not None and (limit is None or n_patches < limit):
        if limit is not None:
            images = images.take(torch.arange(min(len(images), -(-(limit - n_patches) // images.n_patches))))
        names = dict(enumerate(images.names, start=n))
        shards.append(_write_shard(place, len(shards), {"pixels": images.pixels}, names))
        n, n_patches = n + len(images), n_patches + images.n_tokens
        yield n_patches
        images = next(coming, None)
    _finish(place, wanted, framed, n_patches, n_patches, shards)
    yield n_patches


def _said(policy: Policy, tokenizer_hash: str, **about: Any) -> dict[str, Any]:
    """What text.json says of how windows were made."""
    made = {**dataclasses.asdict(policy), "drop_ids": list(policy.drop_ids)}
    return {**about, "policy": made, "tokenizer": tokenizer_hash}


def _standing(place: Place, wanted: dict[str, Any]) -> dict[str, Any]:
    """What is said of the windows that are there, which must be the wanted ones."""
    there = place.read_json("text.json")
    for name, value in wanted.items():
        if there.get(name) != value:
            raise ValueError(
                f"{place} already holds the windows of another text: {name} is {there.get(name)!r} there and "
                f"{value!r} here. Give the same, or another folder."
            )
    return there


def _columns(corpus: Corpus) -> dict[str, Tensor]:
    return {
        "ids": corpus.ids.to(torch.int32),
        "keep": corpus.keep,
        "length": corpus.length.to(torch.int32),
        "document": corpus.document,
        "start": corpus.start,
    }


def _write_shard(place: Place, number: int, columns: dict[str, Tensor], names: dict[int, str]) -> dict[str, Any]:
    _, found, _ = place.write_tensors(f"text/{number:06d}.safetensors", columns, preferred_hash())
    held = sorted(set(columns["document"].tolist())) if "document" in columns else names
    place.write_json(f"text/{number:06d}.json", {str(i): names[i] for i in held})
    return {"windows": len(next(iter(columns.values()))), "hash": found}


def _finish(
    place: Place, wanted: dict[str, Any], framed: dict[str, Any], tokens: int, kept: int, shards: list[dict[str, Any]]
) -> None:
    """Writes text.json, the mark that all windows are there."""
    # Of contents alone, so that two machines with and without xxhash agree on what the text is.
    digest = hashlib.sha256()
    for number in range(len(shards)):
        digest.update(hash_tensors(place.tensors(f"text/{number:06d}.safetensors"), "sha256").encode())
    said = {"framed": framed, "tokens": tokens, "kept": kept, "shards": shards}
    place.write_json("text.json", {**wanted, **said, "fingerprint": f"sha256:{digest.hexdigest()}"})
