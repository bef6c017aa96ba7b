"""How does a store get its rows? Unit by unit, each a function of the manifest and its number, on any worker."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..._version import __version__
from ...core import Site
from ...core.units import Executor, run_units
from ..inputs.permutation import Bijection
from ..inputs.policy import Policy
from ..models.facts import batch_that_fits
from ..models.load import Subject, load
from ..models.sites import sites as resolve
from ..reading.harvest import harvest
from ..reading.outliers import first_look, outlier_limits
from .places import Place, place, preferred_hash
from .store import OUTLIERS, Manifest, Store
from .windows import Windows

_UNIT_BYTES = 128 * 2**20
_SHOWN_NORMS = 16
_NO_TOKEN = -1
"""What is kept as the token of a patch of a picture."""
_PATIENCE = 0.1
"""Seconds between two looks at a unit that another process is making."""


def prepare(
    where: str | Path | Place,
    loaded: Subject,
    sites: Sequence[str],
    windows: Windows,
    policy: Policy,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    batch_tokens: int | None = None,
    per_unit: int | None = None,
    limits: Mapping[Site, float] | None = None,
) -> Store:
    """A store for the rows of `windows` at `sites`: new, or the one that is there with the same settings.

    Args:
        where: a folder or address.
        loaded: the model.
        sites: roles, paths or patterns; the store calls each site by the role it was asked for, where that names one.
        windows: its text.
        policy: what is left out.
        dtype: of rows on disk.
        seed: of the order of windows.
        batch_tokens: ids in one forward pass; without it as many as fit (see `batch_that_fits`).
        per_unit: windows in a unit; without it as many as make 128 MiB.
        limits: the norm above which a row is an outlier, by site, where other text has decided it; without it a first
            look at these windows decides, if the policy leaves any out. Limits of a store that is there stand.

    Raises:
        SiteNotFound: if a site is not in the model.
        ValueError: if the folder holds another harvest, naming the differences, or a site is no vector for each token.
    """
    named = name_sites(loaded.model, sites)
    probe, _ = windows.take(torch.arange(min(len(windows), 1)))
    widths = {}
    for found in harvest(loaded.model, list(named.values()), probe):
        widths = {site: activations.x.shape[1] for site, activations in found.items()}
    if not widths:
        raise ValueError("harvest: the first window of the text keeps no token under this policy; leave out less.")
    said = {name: {"site": str(site), "d": widths[site]} for name, site in named.items()}
    batch_tokens = batch_that_fits(loaded.model) if batch_tokens is None else batch_tokens
    row = sum(widths.values()) * dtype.itemsize + 20
    if per_unit is None:
        # In whole batches, so that no forward pass is a small one.
        size = max(1, batch_tokens // policy.context)
        per_unit = max(1, _UNIT_BYTES // row // policy.context // size) * size
    model = loaded.model
    there = where if isinstance(where, Place) else place(where)
    if policy.outlier is None or there.size("manifest.json") is not None:
        limits = {}
    elif limits is None:
        seen, _ = windows.take(first_look(len(windows), policy.context, seed))
        limits = outlier_limits(
            model, list(named.values()), seen, multiple=policy.outlier, seed=None, batch_tokens=batch_tokens
        )
    return Store.create(
        where,
        Manifest(
            model=loaded.name,
            weights=weights_hash(model),
            tokenizer=windows.header["tokenizer"],
            attention=str(getattr(getattr(model, "config", None), "_attn_implementation", "")),
            sites=said,
            dtype=str(dtype).removeprefix("torch."),
            computed=str(next(model.parameters()).dtype).removeprefix("torch."),
            policy=windows.header["policy"],
            text=windows.fingerprint,
            seed=seed,
            sequences=len(windows),
            per_unit=per_unit,
            batch_tokens=batch_tokens,
            hashed=preferred_hash(),
            versions={name: metadata.version(name) for name in ("torch", "transformers")} | {"superscope": __version__},
            # JSON has no infinity: a site without a limit is not named.
            limits={name: limits[site] for name, site in named.items() if math.isfinite(limits.get(site, math.inf))},
        ),
    )


def name_sites(model: nn.Module, asked: Sequence[str]) -> dict[str, Site]:
    """Sites by the name a store gives them: the role where it names one site, else the path.

    Raises:
        SiteNotFound: if a site is not in the model.
    """
    named: dict[str, Site] = {}
    for each in asked:
        found = resolve(model, [each])
        for site in found:
            if site not in named.values():
                named[each if len(found) == 1 else str(site)] = site
    return named


def make_unit(
    store: Store, loaded: Subject, windows: Windows, unit: int
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """A unit's tensors and the facts of its record. The same whenever, wherever and however often it is made."""
    manifest = store.manifest
    sites = store.sites
    first, past = manifest.windows(unit)
    index = Bijection(manifest.sequences, manifest.seed)(torch.arange(first, past))
    corpus, document = windows.take(index)
    dtype = getattr(torch, manifest.dtype)
    n = corpus.n_tokens
    tensors = {name: torch.empty(n, manifest.sites[name]["d"], dtype=dtype) for name in sites}
    norms = {name: torch.empty(n) for name in sites}
    origin = torch.empty(n, 5, dtype=torch.int32)
    # By the sites themselves: the model's name is the manifest's, not the site's.
    places = {name: Site.read(said["site"]) for name, said in manifest.sites.items()}
    at = 0
    for batch in harvest(
        loaded.model,
        list(places.values()),
        corpus,
        batch_tokens=manifest.batch_tokens,
        packed=bool(manifest.policy["packed"]),
        device="cpu",
        dtype=None,
    ):
        count = 0
        for name, site in places.items():
            activations = batch[site]
            count = len(activations)
            tensors[name][at : at + count] = activations.x
            norms[name][at : at + count] = activations.x.float().norm(dim=1)
            if activations.places is not None:
                sequence, position = activations.places.unbind(1)
                columns = (
                    torch.full_like(position, _NO_TOKEN) if activations.tokens is None else activations.tokens,
                    document[sequence],
                    # Where a beginning-of-sequence token or [CLS] stands before the text, its first token is at 1.
                    corpus.start[sequence] + position - corpus.lead,
                    index[sequence],
                    position,
                )
                origin[at : at + count] = torch.stack(columns, 1).to(torch.int32)
        at += count
    assert at == n
    keep = torch.ones(n, dtype=torch.bool)
    dropped: dict[str, int] = {}
    dropped_norms: dict[str, list[float]] = {}
    for name, limit in manifest.limits.items():
        far = norms[name] > limit
        if bool(far.any()):
            dropped[name] = int(far.sum())
            dropped_norms[name] = norms[name][far].topk(min(_SHOWN_NORMS, dropped[name])).values.tolist()
            keep &= ~far
    apart = {f"{OUTLIERS}{name}": tensor[~keep] for name, tensor in [*tensors.items(), ("origin", origin)]}
    kept = keep.nonzero()[:, 0]
    # Mixed now, in memory, so that readers need not: any stretch of a unit is a sample of its windows.
    seed = int(np.random.SeedSequence((manifest.seed, unit)).generate_state(1)[0])
    order = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    for name in list(tensors):
        tensors[name] = tensors[name][order]
    if dtype == torch.float16:
        _check_range(tensors)
    facts = {
        "dropped": dropped,
        "dropped_norms": dropped_norms,
        "mean_square": {
            name: float(norms[name][order].double().square().mean()) if len(order) else 0.0 for name in sites
        },
    }
    return {**tensors, "origin": origin[order]} | ({} if bool(keep.all()) else apart), facts


def fill(
    store: Store, loaded: Subject, windows: Windows, *, executor: Executor | None = None, device: str = "cpu"
) -> Iterator[int]:
    """Makes the units that are missing or damaged, yielding how many of all there are, before the first and after each.

    Units that are there are read and hashed before they are relied on. Several processes that fill one store at once,
    also on several machines that mount it, share the units: each claims what it makes, and gets a dead one's claims.
    In object stores, which know no claims, they begin at different units and may make the same.

    Args:
        executor: who makes them; this process without it, one unit being written while the next is made. Others load
            the model by its name and read the store by its address, which they must see.
        device: where workers run the model.

    Raises:
        FloatingPointError: if the model computes what is not finite.
        ValueError: if a worker finds another model under the name.
    """
    total = store.manifest.n_units
    missing = _missing(store)
    # Everybody goes through them in an order of their own, so that few ask for the same.
    random.Random(f"{socket.gethostname()} {os.getpid()}").shuffle(missing)
    if executor is not None:
        work = functools.partial(_work, str(store.place), loaded.name, store.manifest.computed, device)
        for done in run_units(work, missing, is_done=lambda unit: store.record(unit) is not None, executor=executor):
            yield total - len(missing) + done
        store.sweep()
        return
    done = total - len(missing)
    yield done
    with _Writer(store) as writer:
        while missing:
            others = []
            for unit in missing:
                release = store.claim(unit)
                if release is None:
                    others.append(unit)
                    continue
                try:
                    if store.record(unit) is None:
                        writer.put(unit, *make_unit(store, loaded, windows, unit), release)
                    else:
                        release()
                except BaseException:
                    release()
                    raise
                done += 1
                yield done
            missing = others
            if missing:
                # Until they are there, or whoever made them is dead.
                time.sleep(_PATIENCE)
    store.sweep()


def _missing(store: Store) -> list[int]:
    """Units to be made. The record of a damaged one is taken away, for a record says that there is nothing to do."""
    missing = []
    for unit in range(store.manifest.n_units):
        record = store.record(unit)
        if record is not None and store.is_whole(record):
            continue
        if record is not None:
            store.place.remove(store.record_file(unit))
        missing.append(unit)
    return missing


class _Writer:
    """One thread that writes units while the next is computed; at most two wait, so memory has a bound."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: queue.Queue[tuple[int, dict[str, Tensor], dict[str, Any], Callable[[], object]] | None]
        self.waiting = queue.Queue(maxsize=1)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def put(self, unit: int, tensors: dict[str, Tensor], facts: dict[str, Any], release: Callable[[], object]) -> None:
        self._raise()
        self.waiting.put((unit, tensors, facts, release))

    def __enter__(self) -> _Writer:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.waiting.put(None)
        self.thread.join()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while (item := self.waiting.get()) is not None:
            try:
                if self.error is None:
                    self.store.write(item[0], item[1], **item[2])
            except BaseException as error:
                # It is raised in the thread that computes, which may wait for room in the queue: that is given on.
                self.error = error
            item[3]()
            del item


@functools.lru_cache(maxsize=1)
def _worker(where: str, model: str, dtype: str, device: str) -> tuple[Store, Subject, Windows]:
    store = Store(where)
    loaded = load(model, device=device, dtype=getattr(torch, dtype))
    if weights_hash(loaded.model) != store.manifest.weights:
        raise ValueError(
            f"harvest: '{model}' has other weights here than where the harvest began; give every worker the same model."
        )
    return store, loaded, Windows(store.place)


def _work(where: str, model: str, dtype: str, device: str, unit: int) -> None:
    """One unit, in a worker's own process."""
    store, loaded, windows = _worker(where, model, dtype, device)
    while (release := store.claim(unit)) is None:
        time.sleep(_PATIENCE)
    try:
        if store.record(unit) is None:
            tensors, facts = make_unit(store, loaded, windows, unit)
            store.write(unit, tensors, **facts)
    finally:
        release()


def weights_hash(model: nn.Module) -> str:
    """Hash of all parameters and buffers, by name; of the numbers, not of how they are stored in files."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of a tokenizer: its rules where it is a fast one, else its vocabulary, and its special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    said = f"{rules}\n{sorted((k, str(v)) for k, v in tokenizer.special_tokens_map.items())}"
    return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def _check_range(tensors: dict[str, Tensor]) -> None:
    for name, x in tensors.items():
        if not bool(torch.isfinite(x.sum(dtype=torch.float32))):
            raise FloatingPointError(
                f"harvest: activations at {name} are too large for float16; store them in bfloat16 or float32."
            )
