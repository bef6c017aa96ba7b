"""Serving shuffled batches of stored rows, beside SAELens's mixing buffer and dictionary_learning's; and what it costs.

    python benchmarks/store_serving.py [--small] [--short] [--quality]

262 144 rows of 256 numbers, batches of 4 096, CPU seconds of one thread; a peer that is not installed is left out.
`--quality` trains on the pocket model's middle block from the store and from a full permutation of the same rows, and
gives the unexplained variance of held-out rows for both.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from results import available, claim
from timing import Contest, environment
from torch import Tensor

from superscope import capture
from superscope.capture import Manifest, MemorySource, Policy, Store, StoreSource, Windows
from superscope.capture.store.places import preferred_hash
from superscope.core import ActivationSource
from superscope.dictionaries import TopK, train

_BATCH = 4096


def stored(folder: Path, x: Tensor, units: int) -> StoreSource:
    """The rows as a harvest leaves them."""
    manifest = Manifest(
        model="none",
        weights="",
        tokenizer="",
        attention="",
        sites={"x": {"site": "x", "d": x.shape[1]}},
        dtype="float32",
        computed="float32",
        policy={},
        text="",
        seed=0,
        sequences=units,
        per_unit=1,
        batch_tokens=1,
        hashed=preferred_hash(),
    )
    store = Store.create(folder, manifest)
    for unit, rows in enumerate(x.chunk(units)):
        store.write(unit, {"x": rows, "origin": torch.zeros(len(rows), 5, dtype=torch.int32)})
    source = StoreSource(store)
    for index in range(units):
        source.opened(index)  # hashes are checked once, not once an epoch
    return source


def mixing_buffer(x: Tensor) -> Callable[[], float]:
    """SAELens's buffer, fed with the same rows."""
    from sae_lens.training.mixing_buffer import mixing_buffer as mix  # pyright: ignore[reportMissingImports]

    def work() -> float:
        pieces: Iterator[Tensor] = iter(x.split(_BATCH))
        return float(
            sum(batch[0, 0] for batch in mix(buffer_size=65_536, batch_size=_BATCH, activations_loader=pieces))
        )

    return work


def dictionary_learning(x: Tensor) -> Callable[[], float]:
    """dictionary_learning's way to draw a batch from its buffer: the unread rows by `nonzero`, then `randperm`.

    Its buffer cannot be had without a model; these are the four lines of its `__next__`.
    """

    def work() -> float:
        read, total = torch.zeros(len(x), dtype=torch.bool), 0.0
        for _ in range(len(x) // _BATCH):
            unread = (~read).nonzero().squeeze()
            idxs = unread[torch.randperm(len(unread))[:_BATCH]]
            read[idxs] = True
            total += float(x[idxs][0, 0])
        return total

    return work


def quality(folder: Path, tokens: int, steps: int) -> list[str]:
    """Held-out unexplained variance, from the store and from a full permutation of the same rows."""
    loaded = capture.load("pocket")
    where, policy = capture.place(folder), Policy()
    said: dict[str, Any] = {"source": "python", "tokenizer_hash": capture.tokenizer_hash(loaded.tokenizer)}
    for _ in capture.write_windows(where, loaded.tokenizer, capture.stream(None, seed=0), policy, limit=tokens, **said):
        pass
    windows = Windows(where)
    store = capture.prepare(
        where, loaded, ["resid_post.2"], windows, policy, dtype=torch.float32, per_unit=max(len(windows) // 24, 1)
    )
    for _ in capture.fill(store, loaded, windows):
        pass
    source = StoreSource(store, ring=8)
    records = source.records
    held = MemorySource(store.read(records[-1], verify=True)["resid_post.2"].clone())
    source.records = records[:-1]
    rows = torch.cat([store.read(record, verify=True)["resid_post.2"] for record in records[:-1]])
    lines = []
    results = []
    contestants: dict[str, ActivationSource] = {"store": source, "full permutation": MemorySource(rows)}
    for name, given in contestants.items():
        found = []
        for seed in range(2):
            sae = TopK(d=192, n=2048, k=16, seed=seed)
            for _ in train(sae, given, steps=steps, batch=1024, seed=seed):
                pass
            with torch.no_grad():
                error = (held.x - sae.reconstruct(held.x)).double().square().sum()
            found.append(float(error / (held.x - held.x.mean(0)).double().square().sum()))
        results.append(sum(found) / len(found))
        lines.append(f"{name:28s} held-out unexplained {results[-1]:.5f} ({', '.join(f'{f:.5f}' for f in found)})")
    lines.append(f"{'store / full permutation':28s} {results[0] / results[1]:.4f}")
    return lines


def main() -> None:
    """Prints the tables and writes them beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer rounds of half the rows; printed only")
    parser.add_argument("--quality", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = 16_384 if options.small else 131_072 if options.short else 262_144
    x = torch.randn(rows, 256)
    folder = Path(tempfile.mkdtemp())
    source = stored(folder / "rows", x, 16)
    trial = Contest(3 if options.small or options.short else 9)

    def ours() -> float:
        return float(sum(batch.x[0, 0] for batch in source.batches(_BATCH, seed=0)))

    def copied() -> float:
        # The physical limit: each row is read and written once, in order.
        return float(sum(batch.clone()[0, 0] for batch in x.split(_BATCH)))

    trial.add("superscope", rows, ours, lambda _: 0.0)
    trial.add("copying alone", rows, copied, lambda _: 0.0)
    trial.add("dictionary_learning", rows, dictionary_learning(x), lambda _: 0.0)
    if available("SAELens's mixing buffer", "sae_lens", "sae-lens"):
        trial.add("SAELens mixing buffer", rows, mixing_buffer(x), lambda _: 0.0)
    text = [f"{environment()}, {rows} x 256, batches of {_BATCH}"]
    text += [trial.run().table(("superscope", "copying alone"))]
    if options.quality:
        text += quality(folder / "pocket", 30_000 if options.small else 400_000, 40 if options.small else 360)
    shutil.rmtree(folder)
    print("\n".join(text))
    for peer, package in (("SAELens mixing buffer", "sae-lens"), ("dictionary_learning", "")):
        if peer in trial.names:
            claim("serving shuffled rows from a store", peer, trial.ratio("superscope", peer), "the same rows", package)
    if not (options.small or options.short):
        with Path(__file__).with_name("capture_results.md").open("a") as file:
            file.write("\n```\n" + "\n".join(text) + "\n```\n")


if __name__ == "__main__":
    main()
