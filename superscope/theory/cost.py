r"""What do activations, a dictionary and its training cost: operations, bytes, and hours on stated hardware?

n latents, d dimensions, k active, T tokens. The model's forward pass costs 2 N T, N its parameters up to the site; a
sparse training step costs one encoder product, 2 d n a row, since only k atoms and k encoder rows of n take part in
all else. What remains is the optimiser's traffic: every weight and moment is read and
written at each step, however few tokens the batch has. Rates are those that large products and streaming kernels reach,
not data-sheet peaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .arguments import Number, real, whole

PROVENANCE = 20
"""Bytes kept with every stored row: five whole numbers of 4 (token, document, place there, window, position in it)."""

_BLOCK = 2**22
"""Pre-activations that are made at once."""

_HELD, _USE = 28, 150
"""Bytes that a step takes for each number of a batch, and for each use of a latent in it, where it takes most.

Fitted to trainings of 0.3 to 19 million parameters (benchmarks/cost_model_results.md).
"""

_WORTH = 0.1
"""Share of all work that making activations anew must come to before keeping them pays for its room."""

_FURTHER = 1.1
"""Room that is left for workspace and fragmentation where a layout is said to fit."""


@dataclass(frozen=True)
class Machine:
    """One device, by the rates it reaches.

    Args:
        name: what people call it.
        operations: multiply-adds of large matrix products, counted as two operations, per second, at the precision
            that training uses there.
        bandwidth: bytes per second between the device and its memory.
        memory: bytes.
        link: bytes per second between devices of one machine.
        encoding: operations of a dictionary's encoder per second, counted alike; the choice of the largest included
            where that was timed.
        overhead: seconds that a training step takes however small it is.
        bookkeeping: seconds that it takes to put each use of a latent in order, of rows and of latents.
        source: where the rates come from.
    """

    name: str
    operations: float
    bandwidth: float
    memory: float
    link: float
    encoding: float
    overhead: float
    bookkeeping: float
    source: str

    def __post_init__(self) -> None:
        for name in ("operations", "bandwidth", "memory", "link", "encoding"):
            real("Machine", name, getattr(self, name), 0, math.inf, open_low=True, open_high=True)
        for name in ("overhead", "bookkeeping"):
            real("Machine", name, getattr(self, name), 0, math.inf, open_high=True)


_REACHED = (
    "rates that large bf16 products and streaming kernels are reported to reach, and a millisecond for a step's "
    "launches; not measured by us"
)
_MEASURED = (
    "products of the encoder's shapes (670 to 690), copies and steps on one H200, 2026-11-29 "
    "(benchmarks/sae_gpu_results.md): the last two numbers make the model meet a step at each of two sizes; memory and "
    "link as reported"
)
MACHINES = (
    Machine("a100", 240e12, 1.6e12, 80e9, 250e9, 240e12, 1e-3, 0.0, _REACHED),
    Machine("h100", 690e12, 2.7e12, 80e9, 370e9, 690e12, 1e-3, 0.0, _REACHED),
    Machine("h200", 680e12, 3.9e12, 141e9, 370e9, 480e12, 1.3e-3, 2.6e-8, _MEASURED),
)


@dataclass(frozen=True)
class Mesh:
    """How devices share a dictionary's training: `data` groups of `shards` devices, each group one whole dictionary.

    Args:
        data: groups, each with its own tokens.
        shards: devices that share the atoms of one dictionary.
    """

    data: int
    shards: int

    def __post_init__(self) -> None:
        whole("Mesh", "data", self.data, 1)
        whole("Mesh", "shards", self.shards, 1)

    @property
    def devices(self) -> int:
        """data times shards."""
        return self.data * self.shards

    def __str__(self) -> str:
        return f"{self.data} x {self.shards}"


@dataclass(frozen=True)
class StepCost:
    """What one device does in one training step.

    Args:
        product: operations of the encoder product.
        sparse: operations of everything that touches k of n atoms.
        uses: of latents by rows.
        traffic: bytes between the device and its memory.
        exchange: bytes sent to other devices.
    """

    product: float
    sparse: float
    uses: float
    traffic: float
    exchange: float

    def seconds(self, machine: Machine) -> float:
        """Product, memory, exchange and what every step costs, none hidden behind another."""
        arithmetic = self.product / machine.encoding + self.uses * machine.bookkeeping + machine.overhead
        return arithmetic + self.traffic / machine.bandwidth + self.exchange / machine.link


def forward_operations(parameters: Number, tokens: Number) -> float:
    r"""$2 N T$: a multiply and an add per parameter and token; attention over the context is left out.

    Attention adds 4 T_context d a layer and token, below a tenth of this while the context is shorter than d.

    Args:
        parameters: N, those of the layers up to the site, embeddings left out (they are looked up).
        tokens: T.

    Source:
        Kaplan et al., "Scaling laws for neural language models", 2020 (section 2.1).

    Example:
        >>> forward_operations(7e9, 1)
        14000000000.0
    """
    parameters = real("forward_operations", "parameters", parameters, 0, math.inf, open_high=True)
    return 2.0 * parameters * real("forward_operations", "tokens", tokens, 0, math.inf, open_high=True)


def training_operations(d: int, n: int, k: int, tokens: Number, *, sparse: bool = True) -> float:
    r"""$T (2dn + 8kd)$ where gradients are sparse, $T \cdot 12 dn$ where they are dense.

    Dense are x E^T, f D and the gradients of D, f, E and x, each as large as the encoder's product.

    Args:
        d, n, k: dimension, latents, active latents.
        tokens: T.
        sparse: whether decoding and all gradients touch only active atoms.

    Example:
        >>> training_operations(768, 24576, 32, 1) / training_operations(768, 24576, 32, 1, sparse=False) < 0.18
        True
    """
    _shape("training_operations", d, n, k)
    tokens = real("training_operations", "tokens", tokens, 0, math.inf, open_high=True)
    return tokens * (2.0 * d * n + 8.0 * k * d) if sparse else tokens * 12.0 * d * n


def step_cost(d: int, n: int, k: int, batch: int, *, mesh: Mesh = Mesh(1, 1), mixed: bool = True) -> StepCost:
    r"""What one device of a mesh does in one step of `batch` tokens in all.

    Product $2 \frac{B}{D} d \frac{n}{P}$; traffic $24 \cdot 2 \frac{n}{P} d$ bytes of Adam (weight and two moments read
    and written, float32; 8 more where devices add up a gradient, which a single one sums as it steps) plus the sparse
    rows; exchange of activations, not of gradients, among the P devices of a group, and of gradients among groups only.

    Args:
        d, n, k: dimension, latents, active latents.
        batch: B, tokens per step over all devices.
        mesh: D groups of P devices.
        mixed: products in bfloat16 with float32 weights kept beside: 2 bytes more a parameter to write and read.

    Raises:
        ValueError: if k exceeds n, n has fewer atoms than shards, or the batch fewer rows than groups.

    Example:
        >>> cost = step_cost(768, 24576, 32, 4096)
        >>> round(cost.product / 1e12, 3), cost.exchange
        (0.155, 0.0)
    """
    _shape("step_cost", d, n, k)
    whole("step_cost", "batch", batch, 1)
    if mesh.shards > n or mesh.data > batch:
        raise ValueError(
            f"step_cost: a mesh of {mesh} wants at least {mesh.shards} latents and {mesh.data} rows; "
            f"there are n = {n} and batch = {batch}. Use fewer devices."
        )
    rows, atoms = batch / mesh.data, n / mesh.shards
    parameters = 2.0 * atoms * d
    # Decode and the gradients of values, atoms and encoder each read k/P rows of d numbers a token.
    kept = k / mesh.shards
    adam = 24 + (8 if mesh.devices > 1 else 0) + (4 if mixed else 0)
    traffic = parameters * adam + 4 * rows * kept * d * (2 if mixed else 4) + rows * d * 16
    exchange = 0.0
    if mesh.shards > 1:
        others = mesh.shards - 1
        # Values of the candidates to all others; the partial sums of x_hat around a ring, forward only: its gradient is
        # the same on every device of the group.
        exchange += rows * _candidates(k, mesh) * others * (2 if mixed else 4) + 2 * others / mesh.shards * rows * d * (
            2 if mixed else 4
        )
    if mesh.data > 1:
        exchange += 2 * (mesh.data - 1) / mesh.data * parameters * (2 if mixed else 4)
    return StepCost(2.0 * rows * d * atoms, 8.0 * rows * kept * d, rows * kept, traffic, exchange)


def balanced_batch(d: int, n: int, k: int, machine: Machine, *, mixed: bool = True) -> float:
    r"""The batch whose encoder product takes as long as all else in a step, on one device; inf if none does.

    Below it a step waits for the optimiser, whose traffic does not depend on the batch.

    Args:
        d, n, k, mixed: as in `step_cost`.
        machine: whose rates.

    Example:
        >>> h100 = next(machine for machine in MACHINES if machine.name == "h100")
        >>> round(balanced_batch(4096, 131072, 64, h100), -3)
        16000.0
    """
    one, two = (step_cost(d, n, k, batch, mixed=mixed) for batch in (1, 2))
    a_row = two.seconds(machine) - one.seconds(machine)
    # What the product takes of a row's time less what all else takes of it.
    net = 2 * one.product / machine.encoding - a_row
    return (one.seconds(machine) - a_row) / net if net > 0 else math.inf


def training_memory(d: int, n: int, k: int, batch: int, *, mesh: Mesh = Mesh(1, 1), mixed: bool = True) -> float:
    r"""Bytes a device must hold: $\frac{2nd}{P} \times$ (weight 4, moments 8, bfloat16 copy 2) + batch + block.

    A gradient of 4 bytes more where several devices add theirs up; one alone sums a latent's gradient as it steps it.
    The batch is held some seven times over (x, x_hat, what is left of x, gradients), each use of a latent takes 150
    bytes (its place, value and gradient, in order of rows and of latents), and two blocks of pre-activations are held.

    Args:
        d, n, k, batch, mesh, mixed: as in `step_cost`.

    Example:
        >>> training_memory(8192, 16 * 2**20, 256, 131072, mesh=Mesh(1, 64)) < 141e9
        True
    """
    _shape("training_memory", d, n, k)
    rows, atoms = whole("training_memory", "batch", batch, 1) / mesh.data, n / mesh.shards
    weights = 2.0 * atoms * d * (12 + (4 if mesh.devices > 1 else 0) + (2 if mixed else 0))
    # Blocks of pre-activations, never (rows, n).
    return weights + rows * d * _HELD + rows * _candidates(k, mesh) * _USE + 8 * min(_BLOCK, rows * atoms)


def meshes(d: int, n: int, k: int, batch: int, devices: int, memory: float, *, mixed: bool = True) -> tuple[Mesh, ...]:
    """Every data x shards layout of the devices whose shards fit into `memory` bytes a device, fewest shards first.

    Args:
        d, n, k, batch, mixed: as in `step_cost`.
        devices: how many there are.
        memory: bytes of one.

    Example:
        >>> [str(mesh) for mesh in meshes(4096, 131072, 64, 8192, 4, 80e9)]
        ['4 x 1', '2 x 2', '1 x 4']
    """
    whole("meshes", "devices", devices, 1)
    layouts = (
        Mesh(devices // shards, shards)
        for shards in range(1, devices + 1)
        if devices % shards == 0 and shards <= n and devices // shards <= batch
    )
    room = memory / _FURTHER
    return tuple(mesh for mesh in layouts if training_memory(d, n, k, batch, mesh=mesh, mixed=mixed) <= room)


def storage(d: int, tokens: Number, *, sites: int = 1, number: int = 2) -> float:
    r"""Bytes that T activations of d numbers take on disk at each of some sites, with each row's origin.

    Args:
        d: dimension.
        tokens: T.
        sites: how many are kept of each token; the origin is kept once.
        number: bytes of one number, 2 in bfloat16.

    Example:
        >>> storage(768, 1e9) / 1e12
        1.556
    """
    whole("storage", "d", d, 1)
    whole("storage", "sites", sites, 1)
    return real("storage", "tokens", tokens, 0, math.inf, open_high=True) * (float(d) * sites * number + PROVENANCE)


@dataclass(frozen=True)
class StorageChoice:
    """Whether to keep activations or make them again each time they are asked for, and why, in a sentence.

    Args:
        store: True to keep them.
        why: with the figures that decided.
    """

    store: bool
    why: str


def store_or_recompute(
    *,
    parameters: Number,
    d: int,
    n: int,
    k: int,
    tokens: Number,
    uses: Number,
    room: Number,
    sites: int = 1,
    number: int = 2,
    where: Literal["on disk", "in memory"] = "on disk",
) -> StorageChoice:
    r"""Store where $\frac{(u - 1) M}{u (M + S)} \ge 0.1$ and there is room: making them anew is a tenth of the work.

    M = 2 N T makes the activations once, S = T (2 d n + 8 k d) is one use of them. A dictionary much wider than the
    model is deep costs so much more than the model that making them anew is lost in it; for one use nothing is gained
    by keeping them. The one rule: `superscope plan`, `train`, `frontier` and `harvest` all ask it.

    Args:
        parameters: N, of the model up to the site.
        d, n, k: dimension, latents, active latents.
        tokens: T.
        uses: u, how often they will be read: runs, epochs, seeds, one for each measure that streams them.
        room: bytes there are.
        sites: how many are kept of each token.
        number: bytes of one number.
        where: they would be kept; on disk each row's origin is kept with it.

    Example:
        >>> store_or_recompute(parameters=1e8, d=768, n=6144, k=32, tokens=1e6, uses=1, room=1e12)
        StorageChoice(store=False, why='they are used only once')
    """
    uses = real("store_or_recompute", "uses", uses, 0, math.inf, open_low=True, open_high=True)
    room = real("store_or_recompute", "room", room, 0, math.inf)
    model, training = forward_operations(parameters, tokens), training_operations(d, n, k, tokens)
    stored = storage(d, tokens, sites=sites, number=number)
    if where == "in memory":
        stored -= PROVENANCE * float(tokens)
    if uses <= 1:
        return StorageChoice(False, "they are used only once")
    saved = (uses - 1) * model / (uses * (model + training))
    anew = f"making them anew at each of {uses:.3g} uses would be {saved:.0%} of the whole work"
    if saved < _WORTH:
        return StorageChoice(False, f"{anew}, less than keeping {_gigabytes(stored)} {where} is worth")
    if stored > room:
        return StorageChoice(
            False, f"{anew}, but they take {_gigabytes(stored)} and there are {_gigabytes(room)} {where}"
        )
    return StorageChoice(True, f"{anew}, and they take {_gigabytes(stored)} {where}")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"


def _candidates(k: int, mesh: Mesh) -> int:
    """Latents of a row that a device keeps for the choice among all."""
    return min(math.ceil(2 * k / mesh.shards), k)


def _shape(function: str, d: int, n: int, k: int) -> None:
    for name, number in (("d", d), ("n", n), ("k", k)):
        whole(function, name, number, 1)
    if k > n:
        raise ValueError(f"{function}: k = {k} of n = {n} latents cannot be active. Give k at most n.")
