"""Reading a model's activations once, to keep: from a model's name and a text to a store that trainers read."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro

from ... import capture
from ...capture import Policy, Store, StoreSource, Subject, Windows
from ...capture.reading.harvest import passes
from ...capture.store.places import Local, Place
from ...core import Answer, Findings, Measurement, Run, files
from ...core.units import Executor, executor
from ...theory import cost
from ..settings import Count, at_least
from ..study import Progress, Study

_NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_POLICY = Policy()


@dataclass(frozen=True)
class Harvest(Study):
    """Read a model's activations once and keep them.

    Cuts a text into windows, or takes pictures for a vision model, runs the model over them in an order drawn from a
    seed, stops behind the last site, and writes rows in units that are whole or not there. Killed at any moment, the
    same command goes on where it was. `superscope train` and `ss.capture.StoreSource(folder, site=...)` read what it
    wrote. Several at once into one store share the work.
    """

    kind: ClassVar[str] = "harvest"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file of a causal or encoder model; "pocket" travels inside the package."""
    sites: tuple[str, ...] = ()
    """What to read: roles (`resid_post.6`, `mlp_act.*`; `superscope sites` lists them) or module paths. Default: the
    stream behind the middle block. Several are read in one pass and kept aligned."""
    text: str | None = None
    """Text to read: a file, a folder, .jsonl, .parquet, or `datasets:NAME:SPLIT`, which is streamed. Default: the text
    every Python carries."""
    images: str | None = None
    """Pictures to read, in a folder, where the model is a vision model; a row is then a patch."""
    store: str | None = None
    """Where rows go: a folder, or an address such as s3://bucket/run. Default: the folder `store` in the run folder."""
    tokens: Count | None = 1_000_000
    """Tokens of text, or patches, to read; less if there are fewer."""
    policy: Annotated[Policy, tyro.conf.arg(name="")] = _POLICY
    """How text becomes rows."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of rows on disk."""
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the model runs in; "auto" times both and takes the faster."""
    batch_tokens: Count | None = None
    """Tokens in one forward pass. Default: on processors as many as stay in the cache, elsewhere 8192."""
    per_unit: Count | None = None
    """Windows in a unit. Default: as many as make 128 MiB."""
    executor: Literal["inline", "processes", "slurm", "ray"] = "inline"
    """Who makes the units; all but "inline" load the model in each worker."""
    workers: Annotated[int, at_least(0)] = 0
    """Worker processes; 0 means one a core."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of the order of documents and windows."""

    def check(self) -> None:
        if self.images is not None and self.text is not None:
            raise ValueError("a harvest reads a text or pictures; give one of --text and --images.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        worked, out = time.process_time(), run.path
        if out is None and self.store is None:
            raise ValueError("a harvest needs a place to write to: give --store FOLDER, or a run folder with --out.")
        where = capture.place(self.store if self.store is not None else Path(out or ".") / "store")
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        asked = self.sites or (f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}",)
        named = capture.name_sites(loaded.model, asked)
        yield Progress(f"Loading {self.model}", 1, 1, _counted(len(named)))
        run.open()
        stage = "Cutting the text into windows" if self.images is None else "Preparing the pictures"
        yield Progress(stage, 0, self.tokens or 0)
        for done in self._windows(loaded, where):
            yield Progress(stage, done, self.tokens or 0)
        windows = Windows(where)
        loaded, timing = self._in_faster_type(loaded, named, windows, where)
        store = capture.prepare(
            where,
            loaded,
            asked,
            windows,
            windows.policy,
            dtype=_NAMES[self.dtype],
            seed=self.seed,
            batch_tokens=self.batch_tokens,
            per_unit=self.per_unit,
        )
        _require_room(where, store, windows)
        stage, total = "Reading activations", store.manifest.n_units
        what = "windows" if self.images is None else "pictures"
        for done in capture.fill(store, loaded, windows, executor=self._executor(out), device=self.device):
            yield Progress(stage, done, total, f"{len(windows):,} {what} in {total} units")
        missing = store.missing()
        if missing:
            raise RuntimeError(f"units {missing[:5]} were not made; run the same command again.")
        run.note(cpu_seconds=round(time.process_time() - worked, 1), store=str(where))
        return self._report(store, windows, loaded, timing)

    def _windows(self, loaded: Subject, where: Place) -> Iterator[int]:
        """Makes what is read, if it is not there, yielding how many tokens there are."""
        if self.images is not None:
            read = capture.pictures(loaded.model, loaded.name, self.images)
            return capture.write_images(where, read, self.policy, source=self.images, limit=self.tokens)
        if loaded.tokenizer is None:
            raise ValueError(
                f"harvest: '{loaded.name}' reads pictures and no text; give a folder of them with --images."
            )
        return capture.write_windows(
            where,
            loaded.tokenizer,
            capture.stream(self.text, seed=self.seed),
            self.policy,
            source=self.text or "the text that Python carries",
            tokenizer_hash=capture.tokenizer_hash(loaded.tokenizer),
            limit=self.tokens,
            seed=self.seed,
        )

    def _executor(self, out: Path | None) -> Executor | None:
        if self.executor == "inline":
            return None
        return executor(self.executor, workers=self.workers, folder=None if out is None else out / "jobs")

    def _in_faster_type(
        self, loaded: Subject, named: dict[str, Any], windows: Windows, where: Place
    ) -> tuple[Subject, dict[str, float]]:
        """The model in the type to compute in, and what was timed; a harvest that is there has decided already."""
        if where.size("manifest.json") is not None:
            # The manifest of a harvest under way; timing again could tell otherwise.
            computed, timing = Store(where).manifest.computed, {}
            if self.compute != "auto":
                computed = self.compute
        elif self.compute == "auto":
            size = max(1, 2048 // windows.policy.context)
            corpus, _ = windows.take(torch.arange(min(len(windows), size)))
            with capture.Capture(loaded.model, list(named.values())) as reading:
                given = next(passes(reading.runs, loaded.model, corpus, corpus.context * size)).given
            dtype, timing = capture.faster_dtype(loaded.model, list(named.values()), given)
            computed = str(dtype).removeprefix("torch.")
        else:
            computed, timing = self.compute, {}
        if computed != "float32":
            loaded = dataclasses.replace(loaded, model=loaded.model.to(_NAMES[computed]))
        return loaded, timing

    def _report(self, store: Store, windows: Windows, loaded: Subject, timing: dict[str, float]) -> Answer:
        records, manifest = store.records(), store.manifest
        rows = sum(record.rows for record in records)
        size = sum(record.bytes for record in records)
        measurements = [
            Measurement(
                name="rows",
                value=float(rows),
                unit="rows",
                n=len(windows),
                of="windows" if self.images is None else "pictures",
                how="no interval: a count of what was kept",
                reference=float(windows.n_tokens),
                reference_is="tokens of text" if self.images is None else "patches of pictures",
            ),
            Measurement(
                name="bytes_per_row",
                value=size / max(rows, 1),
                unit="bytes",
                n=rows,
                of="rows",
                how="no interval: a count",
                reference=float(sum(s["d"] for s in manifest.sites.values()) * _NAMES[self.dtype].itemsize),
                reference_is="numbers alone",
            ),
        ]
        columns = ("name", "site", "d", "norm", "outliers", "largest", "limit", "outlier_squared_norm")
        table: dict[str, list[Any]] = {name: [] for name in columns}
        for name, said in manifest.sites.items():
            square = sum(record.mean_square[name] * record.rows for record in records) / max(rows, 1)
            dropped = sum(record.dropped.get(name, 0) for record in records)
            largest = max((norm for record in records for norm in record.dropped_norms.get(name, [])), default=0.0)
            apart = StoreSource(store, name, verify=False).left_out if rows else None
            n_apart = 0 if apart is None else len(apart)
            squares = 0.0 if apart is None else float(apart.x.double().square().sum())
            share = squares / (squares + square * rows) if squares else 0.0
            limit = manifest.limits.get(name)
            at = {"site": said["site"]}
            measurements.append(
                Measurement(
                    name="root_mean_square_norm",
                    value=square**0.5,
                    unit="activation",
                    n=rows,
                    of="rows",
                    how="no interval: one measurement",
                    at=at,
                )
            )
            measurements.append(
                Measurement(
                    name="outliers_dropped",
                    value=dropped / max(rows + n_apart, 1),
                    unit="share",
                    n=rows + n_apart,
                    of="tokens",
                    how="no interval: a count",
                    at=at,
                    caution=(
                        f"norms over {limit:.4g}, the largest {largest:.4g}; the {n_apart:,} rows left out, over all "
                        f"sites, hold {share:.0%} of the squared norm here"
                        if dropped
                        else ""
                    ),
                )
            )
            cells = (name, said["site"], said["d"], square**0.5, dropped, largest, limit, share)
            for key, value in zip(table, cells, strict=True):
                table[key].append(value)
        findings = [f"{rows:,} rows of {_counted(len(manifest.sites))} are in {store.place}, {size / 1e6:,.1f} MB."]
        if timing:
            times = ", ".join(f"{seconds * 1e3:.1f} ms in {name}" for name, seconds in timing.items())
            findings.append(f"The model ran in {manifest.computed}: a batch took {times}.")
        findings.append(self._rule(store, loaded, rows))
        return Answer(
            title=f"{loaded.name}: {rows:,} rows of {', '.join(manifest.sites)}",
            findings=Findings(measurements, {"stored": table}),
            sentences=tuple(findings),
        )

    def _rule(self, store: Store, loaded: Subject, rows: int) -> str:
        """When storing pays, told for this model."""
        parameters = capture.parameters_to(loaded.model, list(store.sites.values()))
        d = max(int(said["d"]) for said in store.manifest.sites.values())
        free = shutil.disk_usage(store.place.path.anchor or "/").free if isinstance(store.place, Local) else 2**62
        choice = cost.store_or_recompute(
            parameters=parameters,
            d=d,
            n=8 * d,
            k=min(32, 8 * d),
            tokens=rows,
            uses=3,
            room=free,
            sites=len(store.sites),
        )
        advice = "keep these rows" if choice.store else "rather compute rows as they are needed"
        return f"For three dictionaries of {8 * d:,} latents {advice}: {choice.why}."


def _counted(sites: int) -> str:
    return f"{sites} site{'' if sites == 1 else 's'}"


def _require_room(where: Place, store: Store, windows: Windows) -> None:
    if isinstance(where, Local):
        there = sum(record.bytes for record in store.records())
        row = sum(said["d"] for said in store.manifest.sites.values()) * _NAMES[store.manifest.dtype].itemsize + 20
        files.require_space(where.path, max(row * windows.n_tokens - there, 0))
