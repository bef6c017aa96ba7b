"""What holds of every counter of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ..capture import MemorySource
from ..core import Activations, Dictionary
from ..dictionaries import SHORT, TopK, train
from ..features import ExactlyK
from ..measure import Evidence, Wanted
from ..measure.counts import Counter
from .law import LawBroken, require

_SEEDS = (0, 1, 2)


def check_counter(
    counter: Counter, *, d: int = 32, n: int = 64, k: int = 2, steps: int = 300, seed: int = 0
) -> tuple[str, ...]:
    """Holds an estimator of the number of features to what makes its number mean something.

    It answers first by its own name, with a number or an abstention and its reason; the same again on the same
    evidence, which it leaves as it was. What it counts beyond its chance level on white Gaussian rows is at most 2 % of
    the latents. A rotation of rows and dictionaries changes its count by at most 2 %. Where it gives an interval, this
    holds n on an easy world. Dictionaries of 2n latents are learned for it on both.

    Args:
        counter: the estimator.
        d, n, k: of the easy world: n random directions in d dimensions, k active in a row.
        steps: of each training.
        seed: of the world, the rows and the rotation.

    Returns:
        The names of the laws it was held to.

    Raises:
        LawBroken: with the counter's name, the law, and what differed.
    """
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    code = ExactlyK(n=n, k=k).sample(20_000, generator=generator)
    world = Dictionary(atoms).compose(code)
    noise_rows = torch.randn(20_000, d, generator=generator) * world.std()
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    try:
        wanted = counter.wants(2 * n, k, _SEEDS)
        require(len(set(wanted)) == len(wanted), "it wants one dictionary twice.")
        easy = _evidence(world, wanted, steps, seed)
        first = _count(counter, easy, wanted)
        require(_count(counter, easy, wanted) == first, "it counts one thing now and another then.")
        noise = _count(counter, _evidence(noise_rows, wanted, steps, seed), wanted)
        surplus = (noise[0] or 0.0) - noise[1]
        require(surplus <= 0.02 * 2 * n, f"it counts {surplus:g} features beyond chance in white noise.")
        rotated = _count(counter, _turned(easy, turn), wanted)
        require((first[0] is None) == (rotated[0] is None), "a rotation makes it abstain, or answer.")
        change = abs((first[0] or 0.0) - (rotated[0] or 0.0))
        require(change <= max(1.0, 0.02 * (first[0] or 0.0)), f"a rotation changes its count by {change:g}.")
        laws = ("answers by its name", "repeatable", "nothing in white noise", "blind to rotation")
        if first[2] is None:
            return laws
        low, high = first[2]
        require(low <= n <= high, f"its interval, {low:g} to {high:g}, does not hold the {n} features there are.")
        return (*laws, "its interval holds n")
    except LawBroken as broken:
        raise LawBroken(f"{type(counter).__name__}: {broken}") from broken


def _count(
    counter: Counter, seen: Evidence, wanted: tuple[Wanted, ...]
) -> tuple[float | None, float, tuple[float, float] | None]:
    """The count, its chance level and its interval."""
    answers = list(counter.count(seen, wanted))
    require(bool(answers), "it gives no measurement.")
    answer = answers[0]
    require(answer.name == counter.name, f"its first measurement is {answer.name!r}, not {counter.name!r}.")
    interval = None if answer.low is None or answer.high is None else (answer.low, answer.high)
    return answer.value, answer.chance or 0.0, interval


def _evidence(x: Tensor, wanted: tuple[Wanted, ...], steps: int, seed: int) -> Evidence:
    kept = len(x) * 9 // 10
    source, learned = MemorySource(x[:kept]), {}
    for each in wanted:
        sae = TopK(d=x.shape[1], n=each.n, k=each.k, seed=each.seed)
        for _ in train(sae, source, steps=steps, **{**SHORT, "batch": 512, "seed": each.seed}):
            pass
        learned[each] = sae
    return Evidence(rows=list(source.rows()), held=[Activations(x[kept:])], learned=learned, seed=seed)


def _turned(seen: Evidence, turn: Tensor) -> Evidence:
    """The same in other coordinates."""
    learned = {}
    for wanted, sae in seen.learned.items():
        assert isinstance(sae, TopK)
        other = TopK(d=sae.d, n=sae.n, k=sae.k, seed=wanted.seed)
        state = sae.state_dict()
        turned = {name: t @ turn if t.ndim and t.shape[-1] == sae.d else t for name, t in state.items()}
        other.load_state_dict(turned)
        learned[wanted] = other
    rows, held = ([Activations(batch.x @ turn) for batch in part] for part in (seen.rows, seen.held))
    return Evidence(rows=rows, held=held, learned=learned, seed=seen.seed)
