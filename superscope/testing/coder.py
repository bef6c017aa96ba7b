"""What holds of every coder, and of every architecture that is trained: one function per law."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ..core import Activations, ActivationSource, SparseCoder
from ..dictionaries import train
from ..dictionaries.sae import SAE
from ..dictionaries.train import Training
from .law import LawBroken, require, same

Build: TypeAlias = Callable[[], SparseCoder]
BuildSAE: TypeAlias = Callable[[], SAE]
Dense: TypeAlias = Callable[[SAE, Tensor, Tensor | None, float, float], Tensor]
"""(sae, x, target, scale, progress) -> the loss that `fit` should have, by dense products and plain autograd."""

_CLOSE = 1e-9


class Rows(ActivationSource):
    """Sums of a few fixed directions with noise and an offset; a target that depends on them, if one is wanted."""

    def __init__(self, d: int, d_out: int | None = None, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(17)
        self.d, self.d_out, self.scale = d, d_out, scale
        self._directions = torch.randn(2 * d + 3, d, generator=generator)
        self._offset = torch.randn(d, generator=generator)
        self._map = torch.randn(d, d_out or 1, generator=generator)

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            active = torch.rand(size, len(self._directions), generator=generator) < 0.2
            values = active * (0.5 + torch.rand(active.shape, generator=generator))
            x = values @ self._directions + self._offset + 0.05 * torch.randn(size, self.d, generator=generator)
            target = None if self.d_out is None else ((x @ self._map).relu() + 1.0) * self.scale
            yield Activations(x * self.scale, target=target)


def rows_for(coder: SparseCoder, count: int, *, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor | None]:
    """Rows that suit a coder, and a target if it predicts another width than x's; in the dtype of its atoms."""
    source = source_for(coder, scale)
    drawn = next(source.batches(count, seed=seed))
    dtype = coder.dictionary.atoms.dtype
    return drawn.x.to(dtype), None if drawn.target is None else drawn.target.to(dtype)


def source_for(coder: SparseCoder, scale: float = 1.0) -> Rows:
    """The source of such rows."""
    return Rows(int(getattr(coder, "d", coder.dictionary.d)), getattr(coder, "d_out", None), scale)


def started(build: BuildSAE, *, dtype: torch.dtype = torch.float64, scale: float = 1.0, stir: bool = True) -> SAE:
    """A coder started on its first batch, its parameters then moved apart, so that no two are equal by construction."""
    sae = build().to(dtype)
    x, target = rows_for(sae, 64, scale=scale)
    sae.start(x, target=target)
    if stir:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in sae.named_parameters():
                size = 0.1 * scale if name in sae.units else 0.05
                parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter)
            sae.constrain()
    return sae


def shapes(build: Build) -> None:
    """Codes and reconstructions have the batch's shape, few slots, indices in range, and no latent twice in a row."""
    coder = build()
    x, _ = rows_for(coder, 6)
    W = coder.dictionary
    for batch in ((6,), (2, 3), (1,), (0,), ()):
        given = x[: math.prod(batch)].reshape(*batch, x.shape[1])
        code = coder.encode(given)
        require(code.values.shape[:-1] == batch, f"encode: a batch {batch} gave values {tuple(code.values.shape)}.")
        require(code.n == W.n, f"encode: n is {code.n} and the dictionary has {W.n} atoms.")
        require(code.values.dtype == x.dtype, f"encode: {x.dtype} gave values in {code.values.dtype}.")
        require(bool(torch.isfinite(code.values).all()), "encode: finite rows gave values that are not finite.")
        dense = code.dense()
        twice = (dense != 0).sum(-1) != code.l0
        require(not bool(twice.any()), "encode: a row names one latent in two slots that are both in use.")
        x_hat = coder.decode(code)
        require(x_hat.shape == (*batch, W.d), f"decode: a batch {batch} gave {tuple(x_hat.shape)}, d is {W.d}.")


def composition(build: Build) -> None:
    """decode(f) is f @ atoms + bias with the coder's own dictionary."""
    coder = build()
    x, _ = rows_for(coder, 9)
    code = coder.encode(x)
    W = coder.dictionary
    wanted = code.dense() @ W.atoms + (0.0 if W.bias is None else W.bias)
    same(coder.decode(code), wanted, "decode(encode(x))", tolerance=1e-5 if x.dtype != torch.float64 else _CLOSE)


def batch_invariance(build: Build) -> None:
    """A row's code does not depend on the rows that come with it, nor on their order."""
    coder = build()
    if isinstance(coder, torch.nn.Module):
        coder.double()
    x, _ = rows_for(coder, 12)
    tolerance = _CLOSE if x.dtype == torch.float64 else 1e-4
    whole = coder.encode(x).dense()
    for row in (0, 5, 11):
        same(coder.encode(x[row : row + 1]).dense()[0], whole[row], f"the code of row {row} alone", tolerance=tolerance)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    same(coder.encode(x[order]).dense(), whole[order], "the code of the rows in another order", tolerance=tolerance)


def seeds(build: Build) -> None:
    """Two builds are equal, and neither building nor encoding touches the global generator."""
    before = torch.random.get_rng_state()
    one, other = build(), build()
    x, _ = rows_for(one, 5)
    first, second = one.encode(x), other.encode(x)
    require(torch.equal(torch.random.get_rng_state(), before), "building or encoding moved the global generator.")
    same(first.dense(), second.dense(), "the code from a second build")


def dense_loss(sae: SAE, x: Tensor, target: Tensor | None, scale: float, progress: float) -> Tensor:
    """|target - D^T sparsify(E (x - b) + e) - b|^2 / (b d scale^2) + penalty, dense throughout.

    What `fit` is where an architecture's rule acts on each row by itself, with gradients as autograd sees them.
    """
    code = sae.sparsify(sae.pre_activations(x))
    x_hat = code.dense() @ sae.atoms + sae.bias
    return ((x if target is None else target) - x_hat).square().mean() / scale**2 + sae.penalty(code, scale=scale)


def gradient(build: BuildSAE, dense: Dense = dense_loss) -> None:
    """fit() has the loss and, for every parameter, the gradient of the dense step, in float64."""
    for progress in (0.0, 0.6):
        sae = started(build)
        x, target = rows_for(sae, 40, seed=8)
        reference = copy.deepcopy(sae)
        loss = sae.fit(x, target=target, scale=1.7, progress=progress).loss
        wanted = dense(reference, x, target, 1.7, progress)
        same(loss, wanted, f"fit: the loss at progress {progress}", tolerance=_CLOSE)
        loss.backward()
        wanted.backward()
        for (name, found), (_, right) in zip(sae.named_parameters(), reference.named_parameters(), strict=True):
            expected = torch.zeros_like(right) if right.grad is None else right.grad
            actual = torch.zeros_like(found) if found.grad is None else found.grad
            same(actual, expected, f"fit: the gradient of {name} at progress {progress}", tolerance=1e-7)


def round_trip(build: BuildSAE) -> None:
    """Saved and loaded again: the same arguments, the same bits, the same codes."""
    sae = build()
    for _ in train(sae, source_for(sae), steps=3, batch=64, lr=1e-3):
        pass
    with tempfile.TemporaryDirectory() as folder:
        sae.save(Path(folder) / "sae")
        again = type(sae).load(Path(folder) / "sae")
    require(dict(again.about) == dict(sae.about), f"load: about was {dict(sae.about)} and is {dict(again.about)}.")
    state = again.state_dict()
    require(set(state) == set(sae.state_dict()), "load: the loaded coder has other weights.")
    for name, tensor in sae.state_dict().items():
        same(state[name], tensor, f"load: {name}")
    x, _ = rows_for(sae, 20, seed=3)
    same(again.encode(x).dense(), sae.encode(x).dense(), "load: the code")
    same(again(x), sae(x), "load: the reconstruction")


def units(build: BuildSAE) -> None:
    """With x in other units: the same loss, and codes and reconstructions in those units, at the start and trained."""
    # A power of two: scaling is then exact, and no choice between latents can fall the other way by rounding.
    factor = 2.0**9
    one, other = (started(build, scale=scale, stir=False) for scale in (1.0, factor))
    x, target = rows_for(one, 40, seed=8)
    far = None if target is None else target * factor
    loss = one.fit(x, target=target, scale=1.25, progress=0.6).loss
    scaled = other.fit(x * factor, target=far, scale=1.25 * factor, progress=0.6).loss
    same(scaled, loss, "fit: the loss with x in other units", tolerance=_CLOSE)
    same(other.encode(x * factor).dense(), one.encode(x).dense() * factor, "encode in other units", tolerance=_CLOSE)
    same(other(x * factor), one(x) * factor, "the reconstruction in other units", tolerance=_CLOSE)
    one, other = build().double(), build().double()
    for sae, scale in ((one, 1.0), (other, factor)):
        for _ in train(sae, source_for(sae, scale), steps=6, batch=64, lr=1e-3, dead_after=100):
            pass
    same(other(x * factor), one(x) * factor, "the reconstruction after training in other units", tolerance=1e-6)


def permutation(build: BuildSAE) -> None:
    """Latents in another order: the same reconstruction, and the code in that order."""
    sae = started(build)
    x, _ = rows_for(sae, 20, seed=3)
    order = torch.randperm(sae.n, generator=torch.Generator().manual_seed(4))
    other = copy.deepcopy(sae)
    state = {
        name: tensor[order] if tensor.ndim and tensor.shape[0] == sae.n else tensor
        for name, tensor in sae.state_dict().items()
    }
    require(sae.n != sae.d, "permutation: build a coder with n other than d, so that latents can be told apart.")
    other.load_state_dict(state)
    same(
        other.encode(x).dense(),
        sae.encode(x).dense()[:, order],
        "the code of latents in another order",
        tolerance=_CLOSE,
    )
    same(other(x), sae(x), "the reconstruction of latents in another order", tolerance=_CLOSE)


def revival(build: BuildSAE) -> None:
    """The dead-latent loss reaches the dead, both halves of them, and them alone; nothing becomes NaN on the way."""
    sae = started(build)
    x, target = rows_for(sae, 40, seed=8)
    error = ((x if target is None else target) - sae(x)).detach()
    dead = torch.arange(sae.n) % 2 == 0
    loss = sae.auxiliary(x, error, dead, 2)
    require(bool(torch.isfinite(loss)), f"auxiliary: the loss is {float(loss.detach())}.")
    loss.backward()
    for name, parameter in sae.named_parameters():
        if parameter.shape[0] != sae.n:
            continue
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        require(bool(torch.isfinite(grad).all()), f"auxiliary: the gradient of {name} is not finite.")
        require(not bool(grad[~dead].any()), f"auxiliary: the living latents' {name} gets a gradient.")
        if name in ("encoder", "atoms"):
            require(bool(grad[dead].any()), f"auxiliary: the dead latents' {name} gets no gradient.")
    # Every latent counts as dead at once, and some are out of reach of any row.
    sae = build()
    x, target = rows_for(sae, 64)
    sae.start(x, target=target)
    if "encoder_bias" in dict(sae.named_parameters()):
        with torch.no_grad():
            sae.encoder_bias[: sae.n // 2] = -1e4
    for step in train(sae, source_for(sae), steps=8, batch=32, lr=1e-2, dead_after=1, initialise=False):
        require(step.loss == step.loss, f"train: the loss is NaN at step {step.index}.")
    for name, tensor in sae.state_dict().items():
        require(bool(torch.isfinite(tensor).all()), f"train: {name} is not finite after latents were revived.")


def resumption(build: BuildSAE) -> None:
    """A training that stops and goes on from its state ends in the same bits as one that never stopped."""

    def training(sae: SAE) -> Training:
        return train(sae, source_for(sae), steps=7, batch=64, lr=1e-2, dead_after=150)

    through, stopped, resumed = build(), build(), build()
    losses = [step.loss for step in training(through)]
    first = training(stopped)
    head = [next(first).loss for _ in range(3)]
    state = first.state()
    next(first)  # what happens after the state was taken must not reach it
    tail = [step.loss for step in training(resumed).restore(state)]
    require(head + tail == losses, f"train: the losses were {losses}, and {head + tail} with a stop after 3.")
    for name, tensor in through.state_dict().items():
        same(resumed.state_dict()[name], tensor, f"train: {name} after a stop and without one")


def nothing_left(build: BuildSAE) -> None:
    """Where the reconstruction is perfect, the dead-latent loss is finite: nothing divided by nothing ends no run."""
    sae = started(build)
    x, target = rows_for(sae, 10)
    error = torch.zeros_like(x if target is None else target)
    dead = torch.arange(sae.n) % 2 == 0
    loss = sae.auxiliary(x, error, dead, 2)
    require(bool(torch.isfinite(loss)), f"auxiliary: where no error is left, the loss is {float(loss.detach())}.")


CODER_LAWS: tuple[Callable[[Build], None], ...] = (shapes, composition, batch_invariance, seeds)
"""What every coder obeys, learned or not."""

SAE_LAWS: tuple[Callable[[BuildSAE], None], ...] = (round_trip, units, permutation, revival, resumption)
"""What every architecture that is trained obeys besides, and `gradient`, which wants to know the dense loss."""


def check_coder(build: Build, *, dense: Dense = dense_loss) -> tuple[str, ...]:
    """Holds a coder to every law that applies to it.

    Args:
        build: makes the coder, the same one each time; small, and with n other than d.
        dense: for an SAE, the loss that its `fit` should have, written with dense products and plain autograd. The
            default is right where the rule acts on each row by itself and `penalty` says the rest.

    Returns:
        The names of the laws it was held to.

    Raises:
        LawBroken: with the coder's class, the law, and what differed.

    Example:
        >>> from superscope.dictionaries import TopK
        >>> check_coder(lambda: TopK(d=5, n=8, k=2))[-1]
        'gradient'
    """
    coder = build()
    laws: list[tuple[str, Callable[[], None]]] = [(law.__name__, lambda law=law: law(build)) for law in CODER_LAWS]
    if isinstance(coder, SAE):
        laws += [(law.__name__, lambda law=law: law(build)) for law in SAE_LAWS]  # type: ignore[misc, arg-type]
        laws.append(("gradient", lambda: gradient(build, dense)))  # type: ignore[arg-type]
    for name, law in laws:
        try:
            law()
        except LawBroken as broken:
            raise LawBroken(f"{type(coder).__name__} breaks the law of {name}: {broken}") from broken
    return tuple(name for name, _ in laws)
