"""What will it cost to capture, store and train, before any of it is begun?"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch

from ...capture import MemorySource
from ...capture.models.outline import outline
from ...core import Answer, Findings, Measurement, Run
from ...dictionaries import TopK, train
from ...theory import cost
from ..settings import Count, at_least
from ..study import Progress, Study

_BFLOAT16 = 2
_TIMED = 2e10
"""Operations of the codes that are timed: a fifth of a second of a processor's core."""


@dataclass(frozen=True)
class Plan(Study):
    """What will it cost to capture activations, keep them and train a dictionary on them?

    Operations, memory by layout of devices, disk and hours, from a cost model (docs/plan.md) and stated rates. Nothing
    is downloaded but a model's configuration, and nothing is trained; `--machine here` times this machine for a second.
    """

    kind: ClassVar[str] = "plan"

    latents: Count
    """Width n of the dictionary."""
    tokens: Annotated[float, at_least(1, finite=True)]
    """Activations to train on, such as 1e9."""
    model: str | None = None
    """"pocket", a folder with config.json or a hub name; gives d and the model's own cost."""
    layer: Annotated[int, at_least(0)] | None = None
    """Block whose output is read; counted from 0. Default: the middle one."""
    d: Count | None = None
    """Dimension of x; only where no model is given."""
    parameters: Annotated[float, at_least(0, finite=True)] = 0.0
    """Model parameters up to the site; only where no model is given. 0 leaves the model's cost out."""
    k: Count = 64
    """Active latents per token."""
    batch: Count = 8192
    """Tokens per training step, over all devices."""
    uses: Count = 1
    """How often the same activations will be read: runs, seeds, epochs."""
    sites: Count = 1
    """Sites captured at once."""
    room: Annotated[float, at_least(0, finite=True)] = 4e12
    """Bytes of disk that may be used for activations."""
    machine: Literal["a100", "h100", "h200", "here"] = "h100"
    """Hardware: stated rates, or this machine's processor, timed now."""
    devices: Count = 1
    """How many of them."""

    def check(self) -> None:
        if self.k > self.latents:
            raise ValueError(f"k = {self.k} of {self.latents} latents cannot be active. Give k at most latents.")
        if (self.model is None) == (self.d is None):
            raise ValueError("Give either --model, which says d and what a forward pass costs, or --d.")
        if self.model is None and self.layer is not None:
            raise ValueError("layer counts the blocks of a model; give --model as well.")
        if self.model is not None and self.parameters:
            raise ValueError("parameters are counted from the model's configuration; leave --parameters out.")
        if self.machine == "here" and self.devices > 1:
            raise ValueError("machine here is this machine's processor, of which there is one; leave --devices out.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        d, parameters, subject = self._model()
        yield Progress("Rating the machine", 0, 1)
        machine = (
            timed(d, self.latents, self.k, self.batch)
            if self.machine == "here"
            else next(m for m in cost.MACHINES if m.name == self.machine)
        )
        hardware = "this machine" if self.machine == "here" else f"{self.devices} {machine.name.upper()}"
        run.note(machine=dataclasses.asdict(machine))
        yield Progress("Rating the machine", 1, 1, f"{machine.operations / 1e12:,.3g} TFLOP/s")
        mixed = self.machine != "here"
        layouts = [
            cost.Mesh(self.devices // shards, shards)
            for shards in range(1, self.devices + 1)
            if self.devices % shards == 0 and shards <= self.latents and self.devices // shards <= self.batch
        ]
        fitting = cost.meshes(d, self.latents, self.k, self.batch, self.devices, machine.memory, mixed=mixed)
        costs = {mesh: cost.step_cost(d, self.latents, self.k, self.batch, mesh=mesh, mixed=mixed) for mesh in layouts}
        memory = {
            mesh: cost.training_memory(d, self.latents, self.k, self.batch, mesh=mesh, mixed=mixed) for mesh in layouts
        }
        chosen = min(fitting, key=lambda mesh: costs[mesh].seconds(machine), default=None)
        steps = -(-self.tokens // self.batch)
        model = cost.forward_operations(parameters, self.tokens)
        training = cost.training_operations(d, self.latents, self.k, self.tokens)
        dense = cost.training_operations(d, self.latents, self.k, self.tokens, sparse=False)
        stored = cost.storage(d, self.tokens, sites=self.sites, number=_BFLOAT16)
        choice = cost.store_or_recompute(
            parameters=parameters,
            d=d,
            n=self.latents,
            k=self.k,
            tokens=self.tokens,
            uses=self.uses,
            room=self.room,
            sites=self.sites,
            number=_BFLOAT16,
        )
        passes = 1 if choice.store else self.uses
        capture_hours = passes * model / (machine.operations * self.devices) / 3600
        train_hours = None
        if chosen is not None:
            train_hours = self.uses * steps * costs[chosen].seconds(machine) / 3600

        def figure(name: str, value: float | None, unit: str, how: str, caution: str = "") -> Measurement:
            return Measurement(
                name=name, value=value, unit=unit, n=int(self.tokens), of="tokens", how=how, caution=caution
            )

        formula = "arithmetic, no interval: docs/plan.md has the formula"
        rates = f"the cost model at {machine.operations / 1e12:,.3g} TFLOP/s and {machine.bandwidth / 1e12:,.3g} TB/s"
        too_big = (
            f"a dictionary of {self.latents:,} latents does not fit on {hardware}; "
            f"at least {self._devices_needed(d, machine, mixed)} are needed"
        )
        measurements = (
            figure("model_operations", model / 1e12, "TFLOP", formula, "" if parameters else "no model was given"),
            figure("training_operations", training / 1e12, "TFLOP", formula),
            figure("training_operations_dense", dense / 1e12, "TFLOP", formula),
            figure("dictionary_parameters", 2e-6 * self.latents * d, "million", formula),
            figure("storage", stored / 1e9, "GB", formula),
            figure("capture_hours", capture_hours, "hours", rates, "attention over the context is left out"),
            figure("training_hours", train_hours, "hours", rates, too_big if train_hours is None else ""),
            *(
                figure("memory_per_device", memory[mesh] / 1e9, "GB", formula).at_site(mesh=str(mesh))
                for mesh in layouts
            ),
            *(
                figure("step_seconds", costs[mesh].seconds(machine), "seconds", rates).at_site(mesh=str(mesh))
                for mesh in layouts
            ),
        )
        return Answer(
            title=f"{self.latents:,} latents on {self.tokens:,.0f} activations of {subject}",
            findings=Findings(
                measurements,
                {
                    "layouts": {
                        "mesh": [str(mesh) for mesh in layouts],
                        "memory_gb": [memory[mesh] / 1e9 for mesh in layouts],
                        "fits": [mesh in fitting for mesh in layouts],
                        "exchange_gb_per_step": [costs[mesh].exchange / 1e9 for mesh in layouts],
                        "step_ms": [costs[mesh].seconds(machine) * 1e3 for mesh in layouts],
                        "tokens_per_second": [self.batch / costs[mesh].seconds(machine) for mesh in layouts],
                        "chosen": [mesh == chosen for mesh in layouts],
                    }
                },
            ),
            sentences=tuple(
                self._findings(
                    d,
                    machine,
                    hardware,
                    chosen,
                    costs,
                    capture_hours,
                    train_hours,
                    stored,
                    choice,
                    too_big,
                    parameters,
                )
            ),
        )

    def _model(self) -> tuple[int, float, str]:
        """d, parameters up to the site, and words for both."""
        if self.model is None:
            assert self.d is not None
            return self.d, self.parameters, f"{self.d:,} dimensions"
        size = outline(self.model)
        layer = (len(size.block_parameters) - 1) // 2 if self.layer is None else self.layer
        return size.d, float(size.up_to(layer)), f"{self.model} after block {layer} ({size.d:,} dimensions)"

    def _devices_needed(self, d: int, machine: cost.Machine, mixed: bool) -> int:
        """The fewest devices, in powers of two, that hold one dictionary in shards."""
        devices = 1
        while devices < self.latents and not cost.meshes(
            d, self.latents, self.k, max(self.batch, devices), devices, machine.memory, mixed=mixed
        ):
            devices *= 2
        return devices

    def _findings(
        self,
        d: int,
        machine: cost.Machine,
        hardware: str,
        chosen: cost.Mesh | None,
        costs: dict[cost.Mesh, cost.StepCost],
        capture_hours: float,
        train_hours: float | None,
        stored: float,
        choice: cost.StorageChoice,
        too_big: str,
        parameters: float,
    ) -> Iterator[str]:
        times = f"{self.uses} times " if self.uses > 1 else ""
        if chosen is None or train_hours is None:
            yield f"This does not fit: {too_big}."
        else:
            step = costs[chosen]
            seconds = step.seconds(machine)
            layout = f", laid out {chosen} (data x dictionary)" if self.devices > 1 else ""
            share = step.product / machine.encoding / seconds
            yield (
                f"Training {times}takes about {_duration(train_hours)} on {hardware}{layout}: "
                f"{self.batch / seconds:,.0f} tokens/s, "
                f"{share:.0%} of a step in the encoder product."
            )
            if share < 0.5:
                balance = cost.balanced_batch(d, self.latents, self.k, machine, mixed=self.machine != "here")
                yield "Memory traffic rules the step: " + (
                    f"only from a batch of {balance:,.0f} tokens does the product take half of it."
                    if balance < float("inf")
                    else f"reading {self.k} atoms a token takes longer than the product; no batch changes that."
                )
        if parameters:
            yield (
                f"Making the activations takes about {_duration(capture_hours)} there"
                f"{'' if choice.store or self.uses == 1 else f', all {self.uses} times together'}."
            )
        yield f"{'Store' if choice.store else 'Stream'} the activations ({_bytes(stored)}): {choice.why}."


def timed(d: int, n: int, k: int, batch: int) -> cost.Machine:
    """This machine's processor, for a dictionary of n latents of d numbers, each rate the best of five.

    One float32 product, one pass over memory, a batch's codes and steps of two small trainings are timed; of large
    dictionaries a part. Its memory is what is free now; a processor has no link.
    """
    n = min(n, 16384)
    rows = max(min(batch, 4096, round(_TIMED / (2 * d * n))), 1)
    left, right = torch.randn(1024, d), torch.randn(4096, d)
    product = _best(lambda: left @ right.T)
    sae, x = TopK(d, n, k=min(k, n)), torch.randn(rows, d)
    with torch.no_grad():
        codes = _best(lambda: sae.encode(x))
    # An array larger than any cache: 128 MB read, 128 MB written.
    source = torch.ones(2**25)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source))
    overhead = _best(_steps(16, 32, 2, 32).__next__)
    many = TopK(16, 512, k=32)
    with torch.no_grad():
        chosen = _best(lambda: many.encode(torch.ones(1024, 16)))
    bookkeeping = max(_best(_steps(16, 512, 32, 1024).__next__) - overhead - chosen, 0.0) / (32 * 1024)
    return cost.Machine(
        name="here",
        operations=2.0 * left.numel() * len(right) / product,
        bandwidth=2 * source.numel() * source.element_size() / copy,
        memory=_free_memory(),
        link=1.0,
        encoding=2.0 * rows * d * n / codes,
        overhead=overhead,
        bookkeeping=bookkeeping,
        source=f"timed just now in float32 with {torch.get_num_threads()} threads, best of 5",
    )


def _steps(d: int, n: int, k: int, batch: int) -> Iterator[object]:
    """A training whose products take no time."""
    rows = torch.randn(4 * batch, d, generator=torch.Generator().manual_seed(0))
    return train(TopK(d, n, k=k), MemorySource(rows), steps=20, batch=batch)


def _best(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        # Not every system says; 8 GB is a laptop's.
        return 8e9


def _duration(hours: float) -> str:
    for unit, size in (("years", 8766.0), ("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:,.3g} {unit}"
    return f"{hours * 3600:,.3g} seconds"


def _bytes(number: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.3g} {unit}"
    return f"{number / 1e3:,.3g} kB"
