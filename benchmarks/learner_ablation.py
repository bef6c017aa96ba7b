"""What does each part of a short training bring? Held-out error, dead and duplicate latents, one change at a time.

    python benchmarks/learner_ablation.py rows ROWS --real FOLDER    # the rows of each target, once, into a folder
    python benchmarks/learner_ablation.py learn ROWS --targets pocket real world --recipes short plain --seeds 0 1
    python benchmarks/learner_ablation.py table                      # of what stands in learner_ablation_results.json

Targets: `pocket`, block 2 of the pocket model (d = 192, n = 1 536); `real`, layer 15 of SmolLM2-135M-Instruct (d = 576,
n = 4 608; FOLDER is what scripts/real-model makes, docs/real-model.md), outlier rows left out; `world`, 1 024 features,
four of them on in each row, noise 0.02 (d = 64, n = 2 048, k = 4). k = 32 in the first two; TopK; batches of 1 024.

Each result is kept as soon as it is there, and not made again. Dead: latents that were silent in the last 20 batches.
Duplicates: latents with another at a cosine above 0.9. Found: true atoms with a latent above 0.9.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import t
from torch import Tensor

from superscope import capture, worlds
from superscope.capture import MemorySource
from superscope.core import Activations, ActivationSource, SparseCode, files
from superscope.dictionaries import SAE, SHORT, AbsTopK, BatchTopK, Matryoshka, Ramp, TopK, Whitening, train
from superscope.dictionaries.sae.base import Fit
from superscope.dictionaries.step import sparse
from superscope.dictionaries.train import Training

trainer = importlib.import_module("superscope.dictionaries.train")

RESULTS = Path(__file__).parent / "learner_ablation_results.json"
BATCH, HELD_OUT = 1024, 4096
# Site, tokens to learn from, tokens held out.
MODELS = {"pocket": ("transformer.h.2", 100_000, 8_000), "real": ("model.layers.15", 60_000, 6_000)}
SIZES = {"pocket": (1536, 32), "real": (4608, 32), "world": (2048, 4)}
PLAIN: Mapping[str, Any] = {"lr": 3e-3, "warmup": 0, "decay": 0}
"""Adam at a constant rate, from random atoms: the baseline."""

ARCHITECTURES: dict[str, type[SAE]] = {kind.__name__: kind for kind in (TopK, AbsTopK, BatchTopK, Matryoshka)}

RECIPES: dict[str, Mapping[str, Any]] = {
    "plain": PLAIN,
    "defaults": {},
    "short": SHORT,
    "short, axes": {**SHORT, "axes": True},
    "short, random atoms": {**SHORT, "start": "random"},
    "short, one rate for all": {**SHORT, "atoms_lr": 1.0},
    "short, betas .9 .999": {**SHORT, "betas": (0.9, 0.999)},
    "short, rate of the defaults": {**SHORT, "lr": 3e-3},
    "short, constant rate": {**SHORT, "warmup": 0, "decay": 0},
    "short, constant rate of the defaults": {**SHORT, "lr": 3e-3, "warmup": 0, "decay": 0},
    "short, the dead on all rows": {**SHORT, "all_rows": True},
    "short, 2 k": {**SHORT, "k_ramp": Ramp(2, 0.3)},
    "short, lr 4e-3": {**SHORT, "lr": 4e-3},
    "short, auxiliary 0": {**SHORT, "auxiliary": 0},
    "short, resample 20": {**SHORT, "resample_every": 20, "auxiliary": 0},
    "short, 2 steps a product": {**SHORT, "times": 2},
    "short, taught": {**SHORT, "taught": 3},
    "short, log": {**SHORT, "logarithm": True},
}
"""Arguments of `train` by name, and of this file: `axes` turns rows to their principal axes, and back after; `times`
steps for each encoder product; `taught` rounds of refitting for the encoder's target; `logarithm` of the loss;
`all_rows` of a batch for its dead latents."""


class Repeated(ActivationSource):
    """Each batch of a source several times."""

    def __init__(self, inner: ActivationSource, times: int) -> None:
        self.inner, self.times, self.d = inner, times, inner.d

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        for given in self.inner.batches(size, seed=seed):
            yield from itertools.repeat(given, self.times)


def held(sae: SAE, times: int) -> None:
    """Chooses latents at every `times`-th step and keeps them for the steps on the same batch: no dense product."""
    calls = itertools.count()
    last: list[sparse.Chosen] = []

    def reconstruction(x: Tensor) -> tuple[SparseCode, Tensor]:
        if not torch.is_grad_enabled():
            return sparse.reconstruction(sae, x)
        with torch.no_grad():
            if next(calls) % times == 0:
                code = sae.encode(x)
                values = code.values
                last[:] = [sparse.Chosen(code.indices, sae.n)]
            else:
                found = last[0].uses.bag_dot(x - sae.bias, sae.encoder) + sae.encoder_bias[last[0].columns]
                values = found.relu().view(len(x), -1)
        chosen = last[0]
        pre = sparse.pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, values, chosen)
        values = pre.relu()
        return chosen.code(values), sparse.decode(values, sae.atoms, chosen).add_(sae.bias)

    sae.reconstruction = reconstruction  # type: ignore[method-assign]


def teach(sae: SAE, rounds: int) -> None:
    """The encoder learns the values that the chosen atoms fit best, after rounds of steepest descent from its own."""

    def fit(x: Tensor, *, target: Tensor | None = None, scale: float = 1.0, progress: float = 0.0) -> Fit:
        with torch.no_grad():
            code = sae.encode(x)
        chosen = sparse.Chosen(code.indices, sae.n)
        values = sparse.pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, code.values, chosen).relu()
        x_hat = sparse.decode(values.detach(), sae.atoms, chosen).add_(sae.bias)
        with torch.no_grad():
            best, rest = values.detach().clone(), x - x_hat
            for _ in range(rounds):
                slope = chosen.uses.bag_dot(rest, sae.atoms).view_as(best)
                slope = torch.where((best > 0) | (slope > 0), slope, 0.0)
                moved = chosen.uses.bag_sum(slope.reshape(-1), sae.atoms)
                size = slope.square().sum(1) / moved.square().sum(1).clamp(min=1e-30)
                following = (best + size[:, None] * slope).relu()
                rest = rest - chosen.uses.bag_sum((following - best).reshape(-1), sae.atoms)
                best = following
        taught = (values - best).square().sum() / (x.numel() * scale**2)
        return Fit(chosen.code(values), x_hat, sae.squared(x_hat, x, scale) + taught)

    sae.fit = fit  # type: ignore[method-assign]


def of_the_logarithm(training: Training) -> None:
    """Descends on the logarithm of the loss."""
    plain = training._objective

    def objective(given: Activations) -> tuple[Tensor, Mapping[str, float]]:
        loss, numbers = plain(given)
        return loss / loss.detach(), numbers

    training._objective = objective  # type: ignore[method-assign]


def source_of(target: str, rows: Path) -> tuple[ActivationSource, Tensor]:
    """What to learn from, and the rows held out."""
    if target == "world":
        world = worlds.exactly_k(n=1024, d=64, k=4, noise=0.02)
        return world, next(world.batches(HELD_OUT, seed=1_000_003)).x
    tensors = files.read_tensors(rows / f"{target}.safetensors")
    return MemorySource(tensors["x"]), tensors["held_out"]


def record(target: str, model: str | None, rows: Path) -> None:
    """Reads a model's rows into a file."""
    loaded = capture.load(model or "pocket")
    name, learn, held = MODELS[target]
    corpus = capture.tokens(loaded.tokenizer, capture.documents(None), context=128, limit=learn + held, seed=0)
    corpus, held_out = corpus.split(learn / (learn + held), seed=0)
    site = capture.sites(loaded.model, [name])[0]
    limits = capture.outlier_limits(loaded.model, [site], corpus)
    found = {}
    for part, text in (("x", corpus), ("held_out", held_out)):
        reading = capture.record(loaded, [site], text, limits=limits)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                found[part] = end.value[site].x
                break
    found["held_out"] = found["held_out"][:HELD_OUT].clone()
    print(target, {part: tuple(x.shape) for part, x in found.items()})
    files.write_tensors(rows / f"{target}.safetensors", found)


def learn(
    target: str, architecture: str, recipe: Mapping[str, Any], steps: int, seed: int, rows: Path
) -> dict[str, float]:
    """One training, and what its dictionary is worth."""
    source, held_out = source_of(target, rows)
    n, k = SIZES[target]
    options = dict(recipe)
    sae = ARCHITECTURES[architecture](d=source.d, n=n, k=k, seed=seed)
    began = time.process_time()
    turned = Whitening.of(source, kind="axes", rows=16_384) if options.pop("axes", False) else None
    stream = source
    if turned is not None:
        # Once for all rows where they are in memory.
        stream = MemorySource(turned(source.x)) if isinstance(source, MemorySource) else turned.source(source)
    times, taught = options.pop("times", 1), options.pop("taught", 0)
    logarithm = options.pop("logarithm", False)
    fewest = trainer._FEWEST
    trainer._FEWEST = 2**30 if options.pop("all_rows", False) else fewest
    if times > 1:
        stream = Repeated(stream, times)
        held(sae, times)
    if taught:
        teach(sae, taught)
    training = train(
        sae,
        stream,
        steps=steps,
        batch=options.pop("batch", BATCH),
        seed=seed,
        **options,
    )
    if logarithm:
        of_the_logarithm(training)
    for _ in training:
        pass
    if times > 1:
        del sae.reconstruction
    if taught:
        del sae.fit
    if turned is not None:
        turned.fold(sae)
    seconds = time.process_time() - began
    trainer._FEWEST = fewest
    with torch.no_grad():
        error = (sae(held_out) - held_out).double().square().sum()
        unexplained = float(error / (held_out.double() - held_out.double().mean(0)).square().sum())
        atoms = sae.dictionary.unit().atoms
        cosines = (atoms @ atoms.T).fill_diagonal_(0)
        found = {
            "unexplained": unexplained,
            "l0": float(sae.encode(held_out).l0.double().mean()),
            "dead": float((training.state().tensors["silent"] >= 20 * BATCH).sum()),
            "duplicates": float((cosines.amax(1) > 0.9).sum()),
            "cpu_seconds": seconds,
        }
        truth = getattr(source, "dictionary", None)
        if truth is not None:
            found["found"] = float(((truth.unit().atoms @ atoms.T).amax(1) > 0.9).sum())
    return found


def kept() -> list[dict[str, Any]]:
    return files.read_json(RESULTS) if RESULTS.is_file() else []


def table() -> None:
    """Means over seeds, with a 95 % interval by Student's t where there are at least three; the last column is how
    much more is left unexplained than by SHORT with the same seed."""
    groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for result in kept():
        key = tuple(str(result[name]) for name in ("target", "steps", "architecture", "recipe"))
        groups.setdefault(key, {})[result["seed"]] = result
    numbers = ("unexplained", "dead", "duplicates", "found", "cpu_seconds")
    columns = ("target", "steps", "architecture", "recipe", "seeds", *numbers, "more than short")
    print("| " + " | ".join(columns) + " |\n|---|--:|---|---|--:|" + "--:|" * (len(numbers) + 1))
    for key, found in sorted(groups.items()):
        cells = [interval([r[name] for r in found.values() if name in r]) for name in numbers]
        short = groups.get((*key[:3], "short"), {})
        both = sorted(short.keys() & found.keys()) if key[3] != "short" else []
        cells.append(interval([found[seed]["unexplained"] - short[seed]["unexplained"] for seed in both]))
        print("| " + " | ".join([*key, str(len(found)), *cells]) + " |")


def interval(values: list[float]) -> str:
    if not values:
        return ""
    digits = 4 if max(map(abs, values)) < 1 else 0
    text = f"{mean(values):.{digits}f}"
    if len(values) < 3:
        return text
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{text} ± {half:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("rows")
    recording.add_argument("rows", type=Path)
    recording.add_argument("--real", help="the real model's folder or GGUF file; without it, the pocket's rows alone")
    learning = commands.add_parser("learn")
    learning.add_argument("rows", type=Path)
    learning.add_argument("--targets", nargs="+", choices=SIZES, default=list(SIZES))
    learning.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    learning.add_argument("--architecture", choices=ARCHITECTURES, default="TopK")
    learning.add_argument("--steps", nargs="+", type=int, default=[200])
    learning.add_argument("--seeds", nargs="+", type=int, default=[0])
    commands.add_parser("table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "table":
        table()
    elif options.command == "rows":
        options.rows.mkdir(parents=True, exist_ok=True)
        for target, model in (("pocket", None), ("real", options.real)):
            if (target == "pocket" or model) and not (options.rows / f"{target}.safetensors").is_file():
                record(target, model, options.rows)
    else:
        for seed, steps, recipe, target in itertools.product(
            options.seeds, options.steps, options.recipes, options.targets
        ):
            key = {"target": target, "architecture": options.architecture, "recipe": recipe}
            key |= {"steps": steps, "seed": seed}
            if any(key.items() <= result.items() for result in kept()):
                continue
            result = key | learn(target, options.architecture, RECIPES[recipe], steps, seed, options.rows)
            files.write_json(RESULTS, [*kept(), result])
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
