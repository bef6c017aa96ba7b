"""Many autoencoders learn from one stream of activations, the top-k ones among them as one stacked problem."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, ShapeError, Step
from ..kernels import repeated, screens, topk
from .sae.base import SAE
from .sae.topk import TopK
from .step import precision as precisions
from .step import sparse
from .train import Batches, Ramp, Training, root_mean_square, rows_for_dead, train, trapezoid

# Numbers in one block of pre-activations, as in sae/base.
_BLOCK = 2**21
# Numbers in the encoders of one stack. Larger ones fall out of the cache together where one by one they would not, and
# have nothing to gain: their products take the time, not what stands around them.
_STACK = 2**20
_TRUTH_EVERY = 50


def grid(architecture: type[SAE], **settings: Any) -> list[SAE]:
    """One SAE for each combination: a setting given as a list, tuple or range is an axis, the last varies fastest.

    Args:
        architecture: its class.
        settings: arguments of its constructor, or several values of one.

    Raises:
        ValueError: if an axis is empty, or a combination is out of range.

    Example:
        >>> from superscope.dictionaries import JumpReLU
        >>> [sae.about["k"] for sae in grid(JumpReLU, d=8, n=32, k=[2, 4], coefficient=1.0, seed=range(2))]
        [2, 2, 4, 4]
    """
    axes = {
        name: list(value) if isinstance(value, list | tuple | range) else [value] for name, value in settings.items()
    }
    for name, values in axes.items():
        if not values:
            raise ValueError(f"grid: {name} has no value; give at least one.")
    return [architecture(**dict(zip(axes, chosen, strict=True))) for chosen in itertools.product(*axes.values())]


def train_many(
    saes: Sequence[SAE],
    source: ActivationSource,
    *,
    steps: int,
    batch: int = 2048,
    lr: float = 3e-3,
    seed: int = 0,
    warmup: float | int = 0.05,
    decay: float | int = 0.5,
    betas: tuple[float, float] = (0.9, 0.999),
    atoms_lr: float | int = 1.0,
    start: Literal["random", "residuals"] = "random",
    centre: Literal["mean", "median"] = "mean",
    k_ramp: Ramp | None = None,
    penalty_ramp: Ramp | None = None,
    precision: Literal["full", "bfloat16", "int8", "auto"] = "full",
    dead_after: int | None = None,
    auxiliary: float | int = 1 / 32,
    auxiliary_k: int | None = None,
) -> Iterator[tuple[Step, ...]]:
    r"""What `train` does to each SAE with the same seed of the data, in one loop; yields one Step for each SAE.

    Members may differ in seed, k, width, penalty and architecture; `grid` makes all of a grid. What they share:

    - The stream: each batch is read (from a model: computed), moved and looked over once. This is all that members
      with large dictionaries or other architectures than TopK share; they are stepped one after the other on it.
    - TopK members with small dictionaries (together at most 2^20 numbers in the encoders of one stack) are one problem:
      one product $x\,[E_1; E_2; \dots]^\top$ for all widths, one choice for all of one k and width, one sparse decode,
      one plan of who used which atom, one fused optimiser over the stacked weights. Their weights become views of
      the stack, and stay so.

    What they cannot share: the flops of the encoder product. Weights that learn apart are unrelated after one step, and
    a narrower dictionary is no part of a wider one (in one `Matryoshka` it is), so eight members cost eight products;
    from d n of about 10^6 on those are most of a step, and only the stream is saved. Measured for eight members, one
    thread: 0.46 of the time of eight single runs at d = 64, n = 512, k = 8; 0.63 at d = 128, n = 1 024, k = 16; 1.01 at
    d = 512, n = 8 192, k = 32.

    A member's weights are those of `train` alone up to rounding: a stack's product is about its members' mean bias, so
    a pre-activation differs in its last bits. After 30 steps float64 weights agree to 1e-9 and float32 ones to 3 % in
    norm: Adam moves a weight whose gradient is only rounding by its full rate, as between any two machines.

    Args:
        saes: changed in place; all of one d, dtype and device, their own seeds, k, widths and penalties.
        source: where x comes from.
        k_ramp, penalty_ramp: as for `train`, for the members that have a k or a coefficient.
        precision: as for `train`. With "int8" members large enough to be screened are stepped by themselves; the
            others, in a stack or not, have dense float32 products, as alone.
        steps, batch, lr, seed, warmup, decay, betas, atoms_lr, start, centre, dead_after, auxiliary, auxiliary_k: as
            for `train`.

    Raises:
        ShapeError: if source and SAEs differ in d.
        ValueError: if there is no SAE, one occurs twice, they differ in dtype or device, an argument is out of range,
            the source has no batch of this size, or x is constant.
        FloatingPointError: if x or a loss is not finite.

    Example:
        >>> from superscope.dictionaries import TopK
        >>> from superscope.worlds import exactly_k
        >>> saes = [TopK(d=16, n=32, k=k) for k in (1, 2, 4)]
        >>> for found in train_many(saes, exactly_k(n=32, d=16, k=2), steps=5, batch=64):
        ...     pass
        >>> [step.index for step in found]
        [5, 5, 5]
    """
    members = list(saes)
    if not members:
        raise ValueError("train_many: there is no SAE; give at least one.")
    if len({id(sae) for sae in members}) < len(members):
        raise ValueError("train_many: an SAE occurs twice; give each member weights of its own.")
    like = members[0].atoms
    for index, sae in enumerate(members):
        if sae.d != source.d:
            raise ShapeError(
                f"train_many: the source has d = {source.d} and member {index} d = {sae.d}. "
                "Make every SAE with d = source.d."
            )
        if (sae.atoms.dtype, sae.atoms.device) != (like.dtype, like.device):
            raise ValueError(
                f"train_many: member {index} is {sae.atoms.dtype} on {sae.atoms.device}, member 0 {like.dtype} on "
                f"{like.device}. Give all the same."
            )
    settings: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "warmup": warmup,
        "decay": decay,
        "betas": betas,
        "atoms_lr": atoms_lr,
        "start": start,
        "centre": centre,
        "precision": precision,
        "dead_after": dead_after,
        "auxiliary": auxiliary,
        "auxiliary_k": auxiliary_k,
    }
    ramps = {"k_ramp": ("k", k_ramp), "penalty_ramp": ("coefficient", penalty_ramp)}
    for name, (attribute, ramp) in ramps.items():
        if ramp is not None and not any(hasattr(sae, attribute) for sae in members):
            raise ValueError(f"train_many: {name} has nothing to act on: no member has a {attribute}.")

    def own(sae: SAE) -> dict[str, Any]:
        return {name: ramp if hasattr(sae, attribute) else None for name, (attribute, ramp) in ramps.items()}

    # `train` checks the arguments; it reads nothing yet.
    trainings = [train(sae, source, **settings, **own(sae)) for sae in members]
    return _run(members, trainings, source)


def _run(members: list[SAE], trainings: list[Training], source: ActivationSource) -> Iterator[tuple[Step, ...]]:
    settings = trainings[0].settings
    shared = _Shared(Batches(members[0], source, settings["batch"], settings["seed"]))
    streams: list[tuple[list[int], Iterator[Sequence[Step]]]] = []
    for indices in _stacks(members, apart=[_is_screened(sae, settings) for sae in members]):
        streams.append((indices, _Stack([trainings[i] for i in indices], _Follower(shared)).run()))
    stacked = {index for indices, _ in streams for index in indices}
    for index, training in enumerate(trainings):
        if index not in stacked:
            training._batches = _Follower(shared)  # type: ignore[assignment]
            streams.append(([index], ((step,) for step in training)))
    for _ in range(settings["steps"]):
        found: dict[int, Step] = {}
        for indices, stream in streams:
            found.update(zip(indices, next(stream), strict=True))
        yield tuple(found[index] for index in range(len(members)))


def _is_screened(sae: SAE, settings: Mapping[str, Any]) -> bool:
    """Whether `train` would look for this member's latents by products of whole numbers; a stack's product is dense."""
    if settings["precision"] != "int8":
        return False
    with repeated(settings["steps"], settings["batch"] * sae.n):
        return screens(sae.encoder.new_empty(settings["batch"], 0), sae.encoder)


def _stacks(members: Sequence[SAE], apart: Sequence[bool] | None = None) -> list[list[int]]:
    """Which members to step as one: TopK ones, in order, as many at a time as fit into one stack, at least two.

    Args:
        apart: who is to be stepped by itself, whatever it is.
    """
    stacks: list[list[int]] = []
    room = 0
    for index, sae in enumerate(members):
        size = sae.n * sae.d
        if type(sae) is not TopK or size > _STACK // 2:
            continue
        if apart is not None and apart[index]:
            continue
        if size > room:
            stacks.append([])
            room = _STACK
        stacks[-1].append(index)
        room -= size
    return [stack for stack in stacks if len(stack) > 1]


class _Shared:
    """One stream that several read in step: the current batch alone is kept."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.count = batches, 0
        self.current: Activations | None = None

    def get(self, index: int) -> Activations:
        if index == self.count:
            self.current, self.count = next(self.batches), self.count + 1
        assert self.current is not None
        assert index == self.count - 1, "members must be stepped together"
        return self.current


class _Follower(Iterator[Activations]):
    def __init__(self, shared: _Shared) -> None:
        self.shared, self.index = shared, 0

    def __next__(self) -> Activations:
        self.index += 1
        return self.shared.get(self.index - 1)


class _Stack:
    """TopK members whose weights are slices of one set of tensors."""

    def __init__(self, trainings: Sequence[Training], batches: _Follower) -> None:
        members = [training.sae for training in trainings]
        self.trainings, self.members, self.batches = trainings, members, batches
        self.settings = trainings[0].settings
        self.lowered = torch.bfloat16 if self.settings["precision"] == "bfloat16" else None
        self.ks = [int(sae.about["k"]) for sae in members]
        edges = [0, *itertools.accumulate(sae.n for sae in members)]
        self.slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.n, self.m, self.d = edges[-1], len(members), members[0].d
        with torch.no_grad():
            self.atoms = torch.cat([sae.atoms for sae in members]).requires_grad_()
            self.encoder = torch.cat([sae.encoder for sae in members]).requires_grad_()
            self.encoder_bias = torch.cat([sae.encoder_bias for sae in members]).requires_grad_()
            self.bias = torch.stack([sae.bias for sae in members]).requires_grad_()
        for index, (sae, part) in enumerate(zip(members, self.slices, strict=True)):
            sae.atoms.data, sae.encoder.data = self.atoms.data[part], self.encoder.data[part]
            sae.encoder_bias.data, sae.bias.data = self.encoder_bias.data[part], self.bias.data[index]
        self.silent = torch.zeros(self.n, dtype=torch.long, device=self.atoms.device)
        self.runs = self._equal()
        self.truth = trainings[0]._truth
        self.scale = 0.0
        self.zero = torch.zeros(self.d, dtype=self.atoms.dtype, device=self.atoms.device)

    def _equal(self) -> list[tuple[int, int]]:
        """Members of equal width and k that stand beside each other: they are chosen in one call."""
        runs, start = [], 0
        for _, group in itertools.groupby(range(self.m), key=lambda i: (self.members[i].n, self.ks[i])):
            count = len(list(group))
            runs.append((start, start + count))
            start += count
        return runs

    def _schedule(self, index: int) -> None:
        """Each member's k as it should be after so many steps."""
        ramp = self.settings["k_ramp"]
        if ramp is not None:
            factor = Ramp(**ramp)(index / self.settings["steps"])
            self.ks = [min(max(round(factor * int(sae.about["k"])), 1), sae.n) for sae in self.members]
            self.runs = self._equal()

    def run(self) -> Iterator[list[Step]]:
        settings = self.settings
        if not settings["steps"]:
            return
        given: Activations | None = next(self.batches)
        assert given is not None
        _no_target(given)
        self.scale = root_mean_square(given.x)
        self._schedule(0)
        for training, sae, k in zip(self.trainings, self.members, self.ks, strict=True):
            if settings["start"] == "residuals":
                training.begin(given)
            made = sae.k
            sae.k = k  # type: ignore[assignment]
            sae.start(given.x, centre=settings["centre"])
            sae.k = made
        lr = settings["lr"]
        optimizer = torch.optim.Adam(
            [
                {"params": [self.atoms], "lr": lr * settings["atoms_lr"]},
                {"params": [self.encoder], "lr": lr},
                {"params": [self.encoder_bias, self.bias], "lr": lr * self.scale, "eps": 1e-8 / self.scale},
            ],
            betas=tuple(settings["betas"]),
            eps=1e-8,
            fused=True,
        )
        peaks = [group["lr"] for group in optimizer.param_groups]
        factor = trapezoid(settings["steps"], settings["warmup"], settings["decay"])
        began = time.perf_counter()
        for index in range(settings["steps"]):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor(index)
            optimizer.zero_grad(set_to_none=True)
            if given is None:
                given = next(self.batches)
                _no_target(given)
            self._schedule(index)
            with precisions.using(self.lowered):
                losses, numbers = self._gradients(given.x, index)
            given = None
            with torch.no_grad():
                gradient = self.atoms.grad
                assert gradient is not None
                gradient -= (gradient * self.atoms).sum(1, keepdim=True) * self.atoms
                optimizer.step()
                norms = self.atoms.norm(dim=1, keepdim=True)
                self.atoms.div_(torch.where(norms > 0, norms, torch.ones_like(norms)))
            now = time.perf_counter()
            rate = {"rows_per_second": settings["batch"] * self.m / (now - began)}
            began = now
            yield [Step(index + 1, loss, each | rate) for loss, each in zip(losses, numbers, strict=True)]

    @torch.no_grad()
    def _choose(self, x: Float[Tensor, "b d"]) -> tuple[sparse.Chosen, Tensor]:
        """The k largest of each member's pre-activations in each row; row m b + i is row i of member m."""
        # About the mean bias, so that what is left of each member's own is small beside x and costs no digits.
        centre = self.bias.mean(0)
        shift = torch.cat(
            [self.encoder[part] @ (bias - centre) for part, bias in zip(self.slices, self.bias, strict=True)]
        )
        offset, centred = self.encoder_bias - shift, x - centre
        columns: list[list[Tensor]] = [[] for _ in self.runs]
        values: list[list[Tensor]] = [[] for _ in self.runs]
        # The offset as the weight of a number that is always 1: added by the product, without a pass of its own.
        wide = torch.cat([self.encoder, offset[:, None]], 1).T
        rows = torch.cat([centred, centred.new_ones(len(x), 1)], 1)
        size = max(_BLOCK // self.n, 1)
        room = rows.new_empty(min(size, len(x)), self.n)
        for start in range(0, len(x), size):
            if precisions.lowered():
                pre = precisions.product(offset, centred[start : start + size], self.encoder)
            else:
                pre = torch.mm(rows[start : start + size], wide, out=room[: len(rows[start : start + size])])
            for number, (first, past) in enumerate(self.runs):
                k, low, high = self.ks[first], self.slices[first].start, self.slices[past - 1].stop
                width = self.members[first].n
                # (rows, members) of one run are rows of their own.
                kept, at = topk(pre[:, low:high].reshape(-1, width), k)
                step = torch.arange(low, high, width, device=x.device)[None, :, None]
                columns[number].append(at.view(len(pre), past - first, k) + step)
                values[number].append(kept.view(len(pre), past - first, k))
        flat_columns = [torch.cat(parts).transpose(0, 1).reshape(-1) for parts in columns]
        flat_values = torch.cat([torch.cat(parts).transpose(0, 1).reshape(-1) for parts in values]).relu()
        chosen_columns = torch.cat(flat_columns)
        if len(set(self.ks)) == 1:
            k = self.ks[0]
            return sparse.Chosen(chosen_columns.view(-1, k), self.n), flat_values.view(-1, k)
        counts = torch.tensor(self.ks, device=x.device).repeat_interleave(len(x))
        rows = torch.arange(len(counts), device=x.device).repeat_interleave(counts)
        return sparse.Chosen.ragged(rows, chosen_columns, len(counts), self.n), flat_values

    def _gradients(self, x: Float[Tensor, "b d"], index: int) -> tuple[list[float], list[dict[str, float]]]:
        settings, b = self.settings, len(x)
        chosen, values = self._choose(x)
        with torch.no_grad():
            centred = (x[None] - self.bias[:, None]).reshape(-1, self.d)
        with torch.enable_grad():
            pre = sparse.pre_activations(centred, self.encoder, self.encoder_bias, self.zero, values, chosen)
            x_hat = sparse.decode(pre.relu(), self.atoms, chosen).view(self.m, b, self.d) + self.bias[:, None]
            squares = (x_hat - x).square().sum((1, 2))
            losses = squares / (b * self.d * self.scale**2)
            losses.sum().backward()
        leaves = (self.atoms, self.encoder, self.encoder_bias, self.bias)
        d_atoms, d_encoder, d_encoder_bias, d_bias = (leaf.grad for leaf in leaves if leaf.grad is not None)
        with torch.no_grad():
            # What reaches a bias through the encoder: minus its latents' gradients, summed over rows, times E.
            for bias, part in zip(d_bias, self.slices, strict=True):
                bias -= d_encoder_bias[part] @ self.encoder[part]
            error = x - x_hat.detach()
            dead = self.silent >= settings["dead_after"]
            n_dead = torch.stack([dead[part].sum() for part in self.slices])
        total = losses.detach().clone()
        counted = n_dead.tolist()
        if settings["auxiliary"] and any(counted):
            for i, (sae, part) in enumerate(zip(self.members, self.slices, strict=True)):
                if not counted[i]:
                    continue
                # A member's gradients are slices of the stack's too, so its own loss adds to them in place.
                sae.atoms.grad, sae.encoder.grad = d_atoms[part], d_encoder[part]
                sae.encoder_bias.grad, sae.bias.grad = d_encoder_bias[part], d_bias[i]
                with torch.enable_grad():
                    some = rows_for_dead(counted[i], sae.n, b)
                    left = sae.auxiliary(x[some], error[i][some], dead[part], settings["auxiliary_k"])
                    loss = settings["auxiliary"] * left
                    loss.backward()
                total[i] += loss.detach()
                sae.zero_grad(set_to_none=True)
        with torch.no_grad():
            used = (values != 0).reshape(-1)
            fired = torch.zeros_like(dead)
            fired[chosen.columns[used]] = True
            self.silent.add_(b).masked_fill_(fired, 0)
            active = torch.bincount(chosen.columns[used], minlength=self.n)
            l0 = torch.stack([active[part].sum() for part in self.slices]).double() / b
            variance = (x - x.mean(0)).square().sum()
            unexplained = squares.detach().double() / variance.double()
            table = torch.stack([total.double(), unexplained, l0], 1).tolist()
        losses_found = [row[0] for row in table]
        for i, loss in enumerate(losses_found):
            if not torch.isfinite(torch.tensor(loss)):
                raise FloatingPointError(
                    f"loss of member {i} became {loss} at step {index + 1}. "
                    "Lower the learning rate or look at the data."
                )
        names = ("fraction_variance_unexplained", "l0")
        numbers = [
            dict(zip(names, row[1:], strict=True)) | {"dead": float(count)}
            for row, count in zip(table, counted, strict=True)
        ]
        if self.truth is not None and index % _TRUTH_EVERY == 0:
            with torch.no_grad():
                true = self.truth.unit().atoms.to(self.atoms)
                for part, each in zip(self.slices, numbers, strict=True):
                    each["mmcs"] = float((true @ self.atoms[part].T).amax(1).mean())
        return losses_found, numbers


def _no_target(given: Activations) -> None:
    if given.target is not None:
        raise ValueError("train_many: the source gives targets, which autoencoders have no use for; use train.")
