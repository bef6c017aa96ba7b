"""One dictionary on many devices: atoms in shards, rows in groups, the same mathematics.

A mesh of `groups` x `shards` processes. The shards of a group hold each their part of the atoms, with their moments,
and see the same rows; groups see different rows. Among the shards of a group only candidates for the choice of latents
and one partial sum of d numbers a row are exchanged, among groups gradients. What an architecture computes is in its
own file; here is only who holds what, and the answers to the questions that `sae.exchange` names.
"""

from __future__ import annotations

import copy
import datetime
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core import Activations, ActivationSource, FormatError, Step, files
from .checkpoint import load_state
from .sae import ARCHITECTURES, SAE
from .step import exchange
from .train import State, Training, rows_for_dead, train


@dataclass(frozen=True)
class Mesh:
    """This process's place among groups x shards, and whom it talks to.

    Args:
        groups, shards: how many.
        group, shard: which ones this process is in.
        same_rows: the processes that hold the other shards for the same rows.
        same_atoms: the processes that hold the same shard for other rows.
    """

    groups: int
    shards: int
    group: int
    shard: int
    same_rows: Any
    same_atoms: Any

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone keeps the run folder and speaks to the user."""
        return self.group == 0 and self.shard == 0


def launched() -> bool:
    """Whether this process is one of several that `torchrun` started, or another launcher that sets RANK likewise."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def mesh(groups: int = 1, *, minutes: float = 10.0) -> Mesh:
    """The mesh of all processes that `torchrun` started: `groups` of them by as many shards as are left.

    Starts torch.distributed (gloo for what is on processors, nccl for what is on GPUs) if the caller has not, with each
    process of a machine on a GPU of its own: "cuda" means that one.

    Args:
        groups: groups that see different rows; must divide the number of processes.
        minutes: how long to wait for another process before calling it lost.

    Raises:
        ValueError: if groups does not divide the number of processes, minutes are not positive, or nothing started
            them.
        ConnectionError: if the others do not come.
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"mesh: minutes must be positive and finite; got {minutes}.")
    patience = datetime.timedelta(minutes=minutes)
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise ValueError(
                "mesh: this process was not started by torchrun. Start it with "
                "`python -m torch.distributed.run --nproc-per-node 2 your_script.py`."
            )
        backend = "gloo"
        if torch.cuda.is_available():
            # "cuda" is then each process's own GPU.
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        with _as_connection_error("Meeting the others"):
            dist.init_process_group(backend, timeout=patience)
    world, rank = dist.get_world_size(), dist.get_rank()
    if groups < 1 or world % groups:
        raise ValueError(f"mesh: groups must divide the {world} processes; got {groups}.")
    shards = world // groups
    with _as_connection_error("Meeting the others"):
        rows = [dist.new_group(list(range(g * shards, (g + 1) * shards)), timeout=patience) for g in range(groups)]
        atoms = [dist.new_group(list(range(s, world, shards)), timeout=patience) for s in range(shards)]
    return Mesh(groups, shards, rank // shards, rank % shards, rows[rank // shards], atoms[rank % shards])


def end_group() -> None:
    """Ends what `mesh` began: a process that exits with its connections open may abort."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_text(text: str) -> str:
    """The first process's text, on every process: what each would otherwise make up for itself, such as a path."""
    with _as_connection_error("Agreeing on a path"):
        sent = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(sent))
        dist.broadcast(length, 0)
        if dist.get_rank():
            sent = torch.zeros(int(length), dtype=torch.uint8)
        dist.broadcast(sent, 0)
    return bytes(sent.tolist()).decode()


@contextmanager
def _as_connection_error(doing: str) -> Iterator[None]:
    """Turns what a backend says of a process that does not answer into a sentence."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not any(sign in said.lower() for sign in _LOST):
            raise
        raise ConnectionError(
            f"{doing}: another process of the mesh was lost or is too slow ({said}). "
            "Start all of them again; they go on from the last checkpoint."
        ) from error


_LOST = ("connect", "timeout", "timed out", "closed by peer", "broken pipe", "clients joined", "wait timeout")


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # What comes after the sum is the same on every shard, and so is its gradient.
        return gradients[0], None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].clone()
        dist.all_reduce(whole, group=ctx.group)
        return whole, None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, groups: int) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole / groups

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Gradients are averaged over groups after the backward pass, so a group's part gets the whole of it here.
        return gradients[0], None


class MeshExchange(exchange.Exchange):
    """The answers of all shards and groups of a mesh.

    Args:
        where: this process's place.
        first: the place of this shard's first latent among all.
    """

    def __init__(self, where: Mesh, first: int) -> None:
        self.where, self._first = where, first

    def total(self, part: Tensor) -> Tensor:
        return _Total.apply(part, self.where.same_rows)  # type: ignore[no-any-return]

    def spread(self, shared: Tensor) -> Tensor:
        return _Spread.apply(shared, self.where.same_rows)  # type: ignore[no-any-return]

    def average(self, part: Tensor) -> Tensor:
        return _Average.apply(part, self.where.groups)  # type: ignore[no-any-return]

    def row_mean(self, number: Tensor) -> Tensor:
        whole = number.detach().clone()
        dist.all_reduce(whole, group=self.where.same_atoms)
        return whole / self.where.groups

    def largest(self, sizes: Tensor, k: int) -> Tensor:
        """Exact. Each shard sends its 2k/P largest; rows in which that could have left one out are asked for again."""
        sizes = sizes.detach()
        P = self.where.shards
        some = min(k, max(math.ceil(2 * k / P), 1))
        cut, least = self._cut(sizes, some, k)
        if some < k:
            # A shard whose smallest sent candidate is above the cut may hold back others that are, too.
            short = (least >= cut).to(torch.int32)
            dist.all_reduce(short, op=dist.ReduceOp.MAX, group=self.where.same_rows)
            again = short.nonzero().squeeze(1)
            if len(again):
                cut[again] = self._cut(sizes[again], k, k)[0]
        return sizes >= cut[:, None]

    def _cut(self, sizes: Tensor, some: int, k: int) -> tuple[Tensor, Tensor]:
        """The k-th largest of what the shards send, `some` values a row each; and the least of what this one sent."""
        mine = torch.full((len(sizes), some), -torch.inf, dtype=sizes.dtype, device=sizes.device)
        have = min(some, sizes.shape[1])
        if have:
            mine[:, :have] = sizes.topk(have, dim=1).values
        everyone = [torch.empty_like(mine) for _ in range(self.where.shards)]
        dist.all_gather(everyone, mine, group=self.where.same_rows)
        candidates = torch.cat(everyone, dim=1)
        cut = candidates.topk(min(k, candidates.shape[1]), dim=1).values[:, -1]
        return cut, mine[:, -1]

    def threshold(self, values: Tensor, k: int) -> float:
        """Exact, by a radix search: eight sums of 256 counts, whatever the number of candidates."""
        wanted = k * self.where.groups
        # The bits of a double, turned so that they are ordered as signed whole numbers are.
        bits = values.detach().double().view(torch.int64)
        keys = torch.where(bits < 0, bits ^ torch.iinfo(torch.int64).max, bits)
        found = 0
        for shift in range(56, -8, -8):
            digit = (keys >> shift) + 128 if shift == 56 else (keys >> shift) & 255
            counts = torch.bincount(digit, minlength=256)
            dist.all_reduce(counts)
            if shift == 56 and int(counts.sum()) < wanted:
                return float("-inf")
            # How many candidates have this digit or a larger one.
            above = counts.flip(0).cumsum(0).flip(0)
            chosen = int((above >= wanted).nonzero()[-1])
            wanted -= int(above[chosen + 1]) if chosen < 255 else 0
            keys = keys[digit == chosen]
            found = (chosen - 128) << 56 if shift == 56 else found | chosen << shift
        key = torch.tensor(found, dtype=torch.int64)
        bits = torch.where(key < 0, key ^ torch.iinfo(torch.int64).max, key)
        return float(bits.view(torch.float64))

    def least(self, value: float) -> float:
        smallest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        return float(smallest)

    def first(self) -> int:
        return self._first


def _is_shared(name: str, tensor: Tensor) -> bool:
    """Whether every shard holds the same: b, and single numbers. All else has a row for each latent."""
    return tensor.ndim == 0 or name == "bias"


def _part(n: int, where: Mesh) -> tuple[int, int]:
    """The first latent of this shard, and the one past its last."""
    return n * where.shard // where.shards, n * (where.shard + 1) // where.shards


def shard(sae: SAE, where: Mesh) -> SAE:
    """This process's share of the latents of `sae`, which stays as it is.

    It encodes to its own latents only and is an autoencoder only together with the others, under their exchange.

    Raises:
        TypeError: if the architecture does not shard.
        ValueError: if there are fewer latents than shards.
    """
    if not sae.shards:
        raise TypeError(
            f"{type(sae).__name__} cannot be shared among devices: its latents meet in more than sums and choices. "
            f"These can: {', '.join(kind.__name__ for kind in ARCHITECTURES if kind.shards)}."
        )
    if sae.n < where.shards:
        raise ValueError(f"shard: {sae.n} latents are fewer than {where.shards} shards. Use more groups.")
    first, past = _part(sae.n, where)
    part = copy.deepcopy(sae)
    part.n = past - first
    for name, parameter in list(part.named_parameters()):
        if not _is_shared(name, parameter):
            setattr(part, name, nn.Parameter(parameter.detach()[first:past].clone()))
    return part


class ParallelTraining(Training):
    """The training of one SAE by all processes of a mesh: each steps its shard on its group's rows.

    A step's numbers are those of the whole batch and the whole dictionary, the same on every process.

    Args:
        sae: the whole autoencoder, the same on every process; unchanged. `gathered` gives it trained.
        source: the same on every process; each group takes its rows of each batch.
        where: this process's place.
        settings: those of `train`; `batch` counts the rows of all groups.

    Raises:
        ValueError: if the groups do not divide the batch, or a setting is out of range.
        ConnectionError: from a step, if another process was lost.
    """

    def __init__(self, sae: SAE, source: ActivationSource, where: Mesh, **settings: Any) -> None:
        checked = train(sae, source, **settings).settings
        if checked["batch"] % where.groups:
            raise ValueError(
                f"ParallelTraining: batch = {checked['batch']} rows do not divide into {where.groups} groups."
            )
        if checked["resample_every"]:
            raise ValueError(
                "ParallelTraining: dead latents are fitted to the residual here, not resampled. "
                "Leave resample_every out."
            )
        if checked["sort_every"]:
            raise ValueError(
                "ParallelTraining: a latent stays on the device that holds it, so latents are not put in order. "
                "Leave sort_every out."
            )
        self.whole, self.where = sae, where
        self.exchange = MeshExchange(where, _part(sae.n, where)[0])
        super().__init__(shard(sae, where), source, checked)

    def __next__(self) -> Step:
        with _as_connection_error(f"Step {self.done + 1}"), exchange.using(self.exchange):
            return super().__next__()

    def _objective(self, given: Activations) -> tuple[Tensor, Mapping[str, float]]:
        size = self.settings["batch"] // self.where.groups
        rows = slice(self.where.group * size, (self.where.group + 1) * size)
        x = given.x[rows]
        target = x if given.target is None else given.target[rows]
        fit = self.sae.fit(x, scale=self._scale, progress=self.done / self.settings["steps"])
        error = target - fit.x_hat.detach()
        loss = fit.loss
        dead = self._silent >= self.settings["dead_after"]
        n_dead = dead.sum()
        dist.all_reduce(n_dead, group=self.where.same_rows)
        if int(n_dead) and self.settings["auxiliary"]:
            # Shards without a dead latent take part all the same: the others wait for their candidates.
            some = rows_for_dead(int(n_dead), int(self.sae.about["n"]), len(given.x), first=rows.start)
            left = self.sae.auxiliary(x[some], error[some], dead, self.settings["auxiliary_k"])
            loss = loss + self.settings["auxiliary"] * left
        with torch.no_grad():
            fired = torch.zeros(self.sae.n, dtype=torch.int32, device=x.device)
            fired[fit.code.indices[fit.code.values != 0]] = 1
            dist.all_reduce(fired, op=dist.ReduceOp.MAX, group=self.where.same_atoms)
            self._silent.add_(len(given.x)).masked_fill_(fired.bool(), 0)
            whole = given.x if given.target is None else given.target
            variance = float((whole - whole.mean(0)).square().sum())
            squared = float(self.exchange.row_mean(error.square().sum())) * self.where.groups
            l0 = self.exchange.average(fit.code.l0.double().mean())
            # Its value is that of all rows; its gradient this group's, to be averaged with the others'.
            correction = self.exchange.row_mean(loss.detach()) - loss.detach()
        return loss + correction, {
            "fraction_variance_unexplained": squared / variance if variance > 0 else math.nan,
            "l0": float(l0),
            "dead": float(n_dead),
        }

    def _before(self) -> None:
        if self.where.groups > 1:
            for parameter in self.sae.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad, group=self.where.same_atoms)
                parameter.grad /= self.where.groups
        super()._before()

    def _whole(self) -> SAE:
        return self.whole

    def _begin_with(self, atoms: Tensor) -> None:
        # The first process's, should the others' have rounded otherwise.
        dist.broadcast(atoms, 0)
        first, past = _part(self.whole.n, self.where)
        super()._begin_with(atoms[first:past])

    def _norm(self) -> Tensor:
        own, shared = (torch.zeros((), device=self.sae.atoms.device) for _ in range(2))
        for name, parameter in self.sae.named_parameters():
            if parameter.grad is not None:
                squared = parameter.grad.square().sum()
                if _is_shared(name, parameter):
                    shared += squared
                else:
                    own += squared
        dist.all_reduce(own, group=self.where.same_rows)
        return (own + shared).sqrt()

    def save(self, folder: Path | str) -> None:
        """Writes the state: a file a shard, then the list of them, which is the mark that all are whole.

        The files of the step before are kept until that list is there, so a kill at any moment leaves a checkpoint.

        Raises:
            ConnectionError: if another process was lost; the checkpoint before stays.
        """
        folder = Path(folder)
        state = self.state()
        name = self._file(self.where.shard)
        if self.where.group == 0:
            files.write_tensors(folder / name, state.tensors)
        digest = bytes.fromhex(files.sha256(folder / name)) if self.where.group == 0 else bytes(32)
        mine = torch.tensor(list(digest), dtype=torch.uint8)
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        with _as_connection_error(f"The checkpoint of step {self.done}"):
            dist.all_gather(everyone, mine)
            if dist.get_rank() == 0:
                self._list(folder, state.facts, [bytes(part.tolist()).hex() for part in everyone])
            dist.barrier()

    def _list(self, folder: Path, facts: Mapping[str, Any], hashes: list[str]) -> None:
        listed = {self._file(shard): hashes[shard] for shard in range(self.where.shards)}
        files.write_json(
            folder / "checkpoint.json",
            {"kind": _KIND, "facts": dict(facts), "n": self.whole.n, "files": listed},
        )
        # Nobody writes now: the others wait. What a killed process left half written begins with a dot.
        for pattern in ("step-*.safetensors", ".step-*", ".checkpoint.json.*"):
            for old in folder.glob(pattern):
                if old.name not in listed:
                    old.unlink()

    def _file(self, shard: int) -> str:
        return f"step-{self.done:08d}-shard-{shard:04d}-of-{self.where.shards:04d}.safetensors"

    def resume(self, folder: Path | str, *, alone: Path | str | None = None) -> ParallelTraining:
        """Goes on from the checkpoint in a folder, if there is one; any number of shards may have written it.

        Args:
            folder: that `save` wrote into; every process must see it.
            alone: where a training in one process may have left its state (`save_state`); the later one counts.

        Raises:
            FormatError: if a file is missing or has changed.
            ValueError: if it is the checkpoint of another training, or not every process sees it.
        """
        state = newest(folder, alone, *_part(self.whole.n, self.where))
        if state is not None:
            self.restore(state)
        least, most = torch.tensor(self.done), torch.tensor(self.done)
        with _as_connection_error("Taking up a checkpoint"):
            dist.all_reduce(least, op=dist.ReduceOp.MIN)
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
        if int(least) != int(most):
            raise ValueError(
                f"ParallelTraining.resume: some processes found step {int(most)} in {folder} and others "
                f"step {int(least)}. Keep it on a disk that every process sees."
            )
        return self

    def gathered(self) -> SAE:
        """The whole autoencoder as it is now, on every process."""
        whole, n, P = copy.deepcopy(self.whole), self.whole.n, self.where.shards
        state = self.sae.state_dict()
        collected: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if _is_shared(name, tensor):
                collected[name] = tensor
                continue
            # Shards differ by a row at most; all send as many as the largest has.
            sizes = [n * (i + 1) // P - n * i // P for i in range(P)]
            mine = tensor.new_zeros(max(sizes), *tensor.shape[1:])
            mine[: len(tensor)] = tensor
            parts = [torch.empty_like(mine) for _ in range(P)]
            with _as_connection_error("Gathering the shards"):
                dist.all_gather(parts, mine, group=self.where.same_rows)
            collected[name] = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
        whole.load_state_dict(collected)
        return whole


def newest(folder: Path | str, alone: Path | str | None, first: int, past: int) -> State | None:
    """Latents `first` to `past` of the later of two states that a run may have left; None if it left neither.

    Args:
        folder: of a sharded checkpoint.
        alone: file of a training in one process.

    Raises:
        FormatError: if one of them is damaged.
    """
    found: list[State] = []
    if (Path(folder) / "checkpoint.json").exists():
        found.append(read_sharded(folder, first, past))
    if alone is not None and Path(alone).is_file():
        state = load_state(alone)
        rows = {
            key: t if not t.ndim or _parameter(key) == "bias" else t[first:past] for key, t in state.tensors.items()
        }
        found.append(State(rows, state.facts))
    return max(found, key=lambda state: state.facts["done"], default=None)


_KIND = "superscope sharded training"


def read_sharded(folder: Path | str, first: int, past: int) -> State:
    """The state of latents `first` to `past` out of a sharded checkpoint, whatever shards it was written in.

    Reads only those rows. Every file is checked against the list's hash first.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        FormatError: if it is damaged, or a file is missing or has changed.
    """
    folder = Path(folder)
    about = files.read_json(folder / "checkpoint.json")
    if not isinstance(about, dict) or about.get("kind") != _KIND:
        raise FormatError(f"{folder / 'checkpoint.json'} is no list of a sharded checkpoint.")
    n, names = int(about["n"]), sorted(about["files"])
    parts: dict[str, list[Tensor]] = {}
    for index, name in enumerate(names):
        path = folder / name
        if not path.is_file() or files.sha256(path) != about["files"][name]:
            raise FormatError(
                f"{path} is missing or has changed since it was written. Go on from an earlier checkpoint."
            )
        begin, end = n * index // len(names), n * (index + 1) // len(names)
        low, high = max(first, begin) - begin, min(past, end) - begin
        with safetensors.safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                whole = file.get_slice(key)
                shape = whole.get_shape()
                if not shape or _parameter(key) == "bias":
                    if index == 0:
                        parts[key] = [file.get_tensor(key)]
                elif low < high:
                    parts.setdefault(key, []).append(whole[low:high])
    return State({key: torch.cat(found) if found[0].ndim else found[0] for key, found in parts.items()}, about["facts"])


def _parameter(key: str) -> str:
    """The parameter that a key of a state belongs to."""
    return key.split(".")[1] if "." in key else key
