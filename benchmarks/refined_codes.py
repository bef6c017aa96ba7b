"""What do refined codes gain over the encoder's, and what do they cost? On worlds, whose supports are known, and on two
sites of the pocket model, which then runs on the reconstruction. `docs/refined-codes.md` has the tables.

python benchmarks/refined_codes.py [worlds SEED ...] [pocket SITE ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch

import superscope as ss
from superscope import measure
from superscope.core import SparseCoder
from superscope.dictionaries import SAE, SHORT, BatchTopK, JumpReLU, Refined, TopK, train
from superscope.features import Uniform, Zipf
from superscope.recovery import SubspacePursuit
from superscope.studies.learning.train import Train
from superscope.studies.spliced import loss_recovered
from superscope.worlds import World, exactly_k, on_random_directions, synth_sae_bench

CODES: dict[str, Callable[[SAE], SparseCoder]] = {
    "plain": lambda sae: sae,
    "refit": lambda sae: Refined(sae, "refit"),
    "pursuit, 1 round": lambda sae: Refined(sae, SubspacePursuit(rounds=1)),
    "pursuit": lambda sae: Refined(sae, "pursuit"),
    "pursuit, 5 rounds": lambda sae: Refined(sae, SubspacePursuit(rounds=5)),
}


def worlds(seed: int) -> Iterator[tuple[str, World, list[SAE], int]]:
    """Name, world, autoencoders and steps."""
    easy = exactly_k(seed=seed)
    yield "easy", easy, [TopK(64, 256, 4, seed=seed)], 1000
    noisy = exactly_k(noise=0.05, seed=seed)
    yield "easy, noise .05", noisy, [TopK(64, 256, 4, seed=seed), BatchTopK(64, 256, 4, seed=seed)], 1000
    law = Zipf(n=512, active=4.0, magnitude=Uniform(0.5, 1.5))
    zipf = on_random_directions(law, 64, noise=0.02, seed=seed)
    yield (
        "Zipf",
        zipf,
        [TopK(64, 512, 4, seed=seed), BatchTopK(64, 512, 4, seed=seed), JumpReLU(64, 512, 4, seed=seed)],
        1200,
    )
    replica = synth_sae_bench(1 / 16)
    k = round(replica.features.l0)
    yield "replica 1/16", replica, [TopK(192, 256, k, seed=seed)], 1200


def microseconds(coder: SparseCoder, x: torch.Tensor) -> float:
    """CPU time of encoding a row, the least of three tries."""
    tries = []
    for _ in range(3):
        began = time.process_time()
        coder.encode(x)
        tries.append(time.process_time() - began)
    return min(tries) / len(x) * 1e6


def row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def on_worlds(seeds: Sequence[int], only: str = "") -> None:
    wanted = ("fraction_variance_unexplained", "l0", "support_precision", "support_recall", "support_f1")
    wanted += ("feature_value_r2",)
    row(["seed", "world", "architecture", "code", *wanted, "CPU time, encoder = 1"])
    for seed in seeds:
        for name, world, saes, steps in worlds(seed):
            if only not in name:
                continue
            held = list(next_batches(world, 6, seed=10_000 + seed))
            for sae in saes:
                for _ in train(sae, world, steps=steps, batch=1024, seed=seed):
                    pass
                base = microseconds(sae, held[0].x)
                for code, refined in CODES.items():
                    coder = refined(sae)
                    found = [*measure.evaluate(coder, held), *measure.code_scores(coder, held, world.dictionary)]
                    value = {m.name: m.value or 0.0 for m in found}
                    cost = microseconds(coder, held[0].x) / base
                    shown = [*(value[each] for each in wanted), cost]
                    row([str(seed), name, type(sae).__name__, code, *(f"{v:.3f}" for v in shown)])


def next_batches(world: World, count: int, *, seed: int) -> Iterator[ss.core.Activations]:
    batches = world.batches(1024, seed=seed)
    return (next(batches) for _ in range(count))


def on_pocket(sites: Sequence[str]) -> None:
    row(["site", "architecture", "code", "unexplained", "L0", "CE recovered", "nats added", "CPU time, encoder = 1"])
    for site in sites:
        stream = Train(source="pocket", site=site, tokens=60_000, held_out=8192).open_stream()
        sae = TopK(stream.train.d, 1536, 16)
        for _ in train(sae, stream.train, steps=250, batch=1024, **SHORT):
            pass
        held = list(stream.held_out.batches(2048, seed=1))[:3]
        base = microseconds(sae, held[0].x)
        assert stream.loaded is not None
        assert stream.site is not None
        assert stream.corpus is not None
        for code, refined in CODES.items():
            coder = refined(sae)
            found = [*measure.evaluate(coder, held, documents=stream.corpus.document)]
            mean = next(stream.train.batches(4096, seed=0)).x.mean(0)
            found += loss_recovered(stream.loaded, stream.site, stream.corpus, 32, coder, mean)
            value = {m.name: m for m in found}
            cells = [value[n] for n in ("fraction_variance_unexplained", "l0", "cross_entropy_recovered")]
            cells.append(value["cross_entropy_added"])
            shown = [f"{m.value:.4f}" if m.low is None else f"{m.value:.4f} [{m.low:.4f}, {m.high:.4f}]" for m in cells]
            row([site, type(sae).__name__, code, *shown, f"{microseconds(coder, held[0].x) / base:.1f}"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = sys.argv[1:2] or ["worlds", "pocket"]
    if "worlds" in parts:
        on_worlds([int(seed) for seed in sys.argv[2:]] or [0])
    if "pocket" in parts:
        on_pocket(sys.argv[2:] if sys.argv[1:2] == ["pocket"] else ["resid_post.2"])
