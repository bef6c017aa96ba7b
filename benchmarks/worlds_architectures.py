"""Which architecture finds the truth of a SynthSAEBench replica, with our trainer and with SAELens's own, beside it.

Every learner sees the same rows in the same order: each seed's rows are composed once and kept in a temporary file.
Each trainer has one learning rate, the best of those tried on the first seed of BatchTopK, and as many latents as the
benchmark gives (n / 4); a latent is dead after five batches for both; sparsity is the number of active features among
the n / 4 most frequent, rounded down.
Latents are read as in use (BatchTopK and Matryoshka by their learned threshold), scores are ours for all.

    python benchmarks/worlds_architectures.py                     # ours; SAELens too where it is installed
    python benchmarks/worlds_architectures.py --rows 5000000      # the size the replica is meant for
    python benchmarks/worlds_architectures.py --easy              # n = 256, d = 64: the acceptance table, k = 4, 8, 12

Each finished run is a line of worlds_architectures.jsonl (worlds_easy.jsonl) and is not made again; a line says
by what code it was made, so that older ones can be struck out. The table is rewritten at the end, that of --easy after
each run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import sources
from scipy.stats import t as student
from timing import environment

from superscope.core import Activations, ActivationSource, Dictionary, SparseCode, SparseCoder
from superscope.dictionaries import SHORT, Ramp, own_thresholds, train
from superscope.dictionaries import sae as architectures
from superscope.dictionaries.classical import ICA, KSVD, KMeans, OnlineDictionary
from superscope.frames import random_unit
from superscope.measure import amortisation_gap, atom_scores, code_scores, evaluate
from superscope.recovery import NNOMP
from superscope.worlds import World, exactly_k, synth_sae_bench

HERE = Path(__file__).parent
LINES = HERE / "worlds_architectures.jsonl"
TABLE = HERE / "worlds_architectures_results.md"
EASY_LINES = HERE / "worlds_easy.jsonl"
EASY = HERE / "worlds_easy_results.md"
SCORES = (
    "latent_f1",
    "latent_precision",
    "latent_recall",
    "mean_matched_cosine",
    "distinct_targets",
    "latent_nearest_cosine",
)


class Kept(ActivationSource):
    """Rows in a file, in their order: every learner of one seed sees the same."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.d = rows, rows.shape[1]

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        for start in range(0, len(self.rows) - size + 1, size):
            yield Activations(torch.from_numpy(np.array(self.rows[start : start + size])))


def kept(world: World, rows: int, batch: int, seed: int, folder: Path) -> Kept:
    """The rows of one seed, composed once."""
    path = folder / f"{seed}-{rows}.npy"
    if not path.exists():
        held = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows // batch * batch, world.d))
        for i, part in enumerate(islice(world.batches(batch, seed=seed), rows // batch)):
            held[i * batch : (i + 1) * batch] = part.x.numpy()
        held.flush()
    return Kept(np.load(path, mmap_mode="r"))


def scores(coder: SparseCoder, world: World, rows: int) -> dict[str, float]:
    """On rows that no learner saw."""
    held = list(islice(world.batches(4096, seed=10**6), max(rows // 4096, 1)))
    atoms, codes = atom_scores(coder.dictionary, world.dictionary, draws=0), code_scores(coder, held, world.dictionary)
    found = {name: next(s[name].value for s in (atoms, codes) if name in {m.name for m in s}) for name in SCORES}
    whole = evaluate(coder, held)
    return {
        **found,
        "unexplained": whole["fraction_variance_unexplained"].value,
        "l0": whole["l0"].value,
        "dead": coder.dictionary.n - whole["alive_latents"].value,
    }


SORTED = "Matryoshka, sorted"
"""Latents in order of frequency, prefixes at every octave, each latent with a threshold of its own."""
# What `train` is given beside the rate, where that is not its defaults. SORTED, its prefixes, its emphasis and its
# k, the nearest to the world's L0, were chosen on the worlds of seeds 7, 11, 13, 17 and 19.
RECIPES: dict[str, Mapping[str, Any]] = {
    "Matryoshka, short": SHORT,
    SORTED: {**SHORT, "start": "random", "sort_every": 5, "k_ramp": Ramp(1.5, 0.5)},
}


# Our learners: name -> maker of an untrained SAE of d, n, k and seed, or a penalty's coefficient in place of k.
# Not AbsTopK: these scores take atoms with their signs, and its latents have none.
OURS: dict[str, Callable[..., Any]] = {
    "TopK": architectures.TopK,
    "BatchTopK": architectures.BatchTopK,
    # Prefixes that all weigh the same, as SAELens's do; then as ours come.
    "Matryoshka": lambda d, n, k, seed: architectures.Matryoshka(d, n, k, widths=widths(n), emphasis=0.0, seed=seed),
    # With what `dictionaries.SHORT` says beside the rate.
    "Matryoshka, short": lambda d, n, k, seed: architectures.Matryoshka(
        d, n, k, widths=widths(n), emphasis=0.0, seed=seed
    ),
    SORTED: lambda d, n, k, seed: architectures.Matryoshka(d, n, k, widths=octaves(n), emphasis=-0.2, seed=seed),
    "Matryoshka, emphasis 1/2": lambda d, n, k, seed: architectures.Matryoshka(d, n, k, widths=widths(n), seed=seed),
    "Matryoshka, emphasis 1": lambda d, n, k, seed: architectures.Matryoshka(
        d, n, k, widths=widths(n), emphasis=1.0, seed=seed
    ),
    "JumpReLU": architectures.JumpReLU,
    "MatchingPursuit": architectures.MatchingPursuit,
    "InterferencePenalised": architectures.InterferencePenalised,
    "Archetypal": architectures.Archetypal,
    "ReLU": architectures.ReLU,
    "ReLU, norm-weighted": partial(architectures.ReLU, norm="weighted"),
    "Gated": architectures.Gated,
    "PAnnealed": architectures.PAnnealed,
}


def widths(n: int) -> tuple[int, ...]:
    """The benchmark's 128, 512, 2 048 of 4 096, in proportion."""
    return (n // 32, n // 8, n // 2, n)


def octaves(n: int) -> tuple[int, ...]:
    """n / 64, twice that, and so on up to n."""
    return tuple(n // part for part in (64, 32, 16, 8, 4, 2, 1))


def ours(
    name: str, source: Kept, n: int, k: int, lr: float, batch: int, seed: int, coefficient: float | None = None
) -> tuple[SparseCoder, float]:
    sae = OURS[name](source.d, n, k if coefficient is None else coefficient, seed=seed)
    start = time.process_time()
    steps = len(source.rows) // batch
    for _ in train(
        sae,
        source,
        steps=steps,
        **{**RECIPES.get(name, {}), "lr": lr},
        batch=batch,
        seed=seed,
        dead_after=SILENT * batch,
    ):
        pass
    coder = own_thresholds(sae, source, batch=batch) if name == SORTED else sae
    return coder, time.process_time() - start


class Theirs(SparseCoder):
    """A SAELens SAE in its form for use."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae
        self.dictionary = Dictionary(sae.W_dec.detach(), sae.b_dec.detach())

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> SparseCode:
        return SparseCode.from_dense(self.sae.encode(x))


def saelens(
    name: str, source: Kept, n: int, k: int, lr: float, batch: int, seed: int, coefficient: float = 1.0
) -> tuple[SparseCoder, float]:
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    shape = {"d_in": source.d, "d_sae": n, "device": "cpu"}
    sae = {
        "TopK": lambda: sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(k=k, **shape)),
        "BatchTopK": lambda: sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(k=k, **shape)),
        "Matryoshka": lambda: sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(k=k, matryoshka_widths=list(widths(n)), **shape)
        ),
        # Its quadratic loss steers to an L0, as ours does; the others need a search for a coefficient.
        "JumpReLU": lambda: sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(jumprelu_sparsity_loss_mode="quadratic", target_l0=float(k), **shape)
        ),
        "MatchingPursuit": lambda: sae_lens.MatchingPursuitTrainingSAE(
            sae_lens.MatchingPursuitTrainingSAEConfig(max_iterations=k, **shape)
        ),
        "ReLU": lambda: sae_lens.StandardTrainingSAE(
            sae_lens.StandardTrainingSAEConfig(l1_coefficient=coefficient, **shape)
        ),
        "Gated": lambda: sae_lens.GatedTrainingSAE(
            sae_lens.GatedTrainingSAEConfig(l1_coefficient=coefficient, **shape)
        ),
    }[name]()
    rows = len(source.rows)
    config = SAETrainerConfig(
        total_training_samples=rows,
        train_batch_size_samples=batch,
        lr=lr,
        lr_end=lr / 10,
        lr_warm_up_steps=rows // batch // 20,
        lr_decay_steps=rows // batch // 2,
        dead_feature_window=SILENT,
        logger=LoggingConfig(log_to_wandb=False),
    )
    stream = (part.x for part in source.batches(batch, seed=0))
    start = time.process_time()
    trained = SAETrainer(cfg=config, sae=sae, data_provider=stream).fit()
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        trained.save_inference_model(folder)
        return Theirs(sae_lens.SAE.load_from_disk(folder)), seconds


PEERS = ("TopK", "BatchTopK", "Matryoshka", "JumpReLU", "MatchingPursuit", "ReLU", "Gated")
PENALISED = ("ReLU", "ReLU, norm-weighted", "Gated", "PAnnealed")
"""Architectures whose L0 follows from a coefficient: it is searched on the first seed until L0 is k."""
RATES = {"ours": (3e-3, 1e-2, 3e-2), "SAELens": (3e-3, 1e-2, 3e-2)}
SILENT = 5
"""Batches without firing after which a latent is dead: the rarest of the n / 4 features comes 6 times in one."""
TRAINERS: dict[str, Callable[..., tuple[SparseCoder, float]]] = {"ours": ours, "SAELens": saelens}


# Once, since files may change while this runs, but not what was imported.
SOURCES = sources()


def made_by(trainer: str) -> str:
    """The version of SAELens, or of our sources."""
    return importlib.metadata.version("sae-lens") if trainer == "SAELens" else SOURCES


def done(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []


def run(about: dict[str, Any], work: Callable[[], dict[str, Any]], lines: Path) -> dict[str, Any]:
    """One training with its scores, from the file if it is there."""
    for line in done(lines):
        if all(line.get(key) == value for key, value in about.items()):
            return line
    line = {**about, **work(), "code": made_by(about["trainer"]), "when": environment()}
    with lines.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}), flush=True)
    return line


def replica(arguments: argparse.Namespace) -> None:
    world = synth_sae_bench(arguments.scale)
    law: Any = world.features
    l0 = float(law.density[: world.n // 4].sum())
    k = int(l0)
    trainers = {"ours": tuple(OURS)}
    if importlib.util.find_spec("sae_lens") is not None:
        trainers["SAELens"] = PEERS
        agree(world)
    else:
        print("sae_lens is not installed here, so only our table is made; scripts/peers sets up an environment.")
    chosen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def about(trainer: str, architecture: str, lr: float, seed: int) -> dict[str, Any]:
            return {
                "scale": arguments.scale,
                "rows": arguments.rows,
                "batch": arguments.batch,
                "trainer": trainer,
                "architecture": architecture,
                "k": round(l0) if architecture == SORTED else k,
                "lr": lr,
                "seed": seed,
                "silent": SILENT,
            }

        def trained(this: dict[str, Any]) -> dict[str, Any]:
            def work() -> dict[str, Any]:
                source = kept(world, this["rows"], arguments.batch, this["seed"], folder)
                penalty = {"coefficient": this["coefficient"]} if "coefficient" in this else {}
                settings = (world.n // 4, this["k"], this["lr"], arguments.batch, this["seed"])
                coder, seconds = TRAINERS[this["trainer"]](this["architecture"], source, *settings, **penalty)
                return {"seconds": round(seconds, 1), **scores(coder, world, arguments.evaluate)}

            return run(this, work, LINES)

        for trainer in trainers:
            if "BatchTopK" in trainers[trainer]:
                tried = {lr: trained(about(trainer, "BatchTopK", lr, 0)) for lr in RATES[trainer]}
                chosen[trainer] = max(tried, key=lambda lr: tried[lr]["mean_matched_cosine"])
            else:
                chosen[trainer] = RATES[trainer][1]

        def searched(trainer: str, architecture: str) -> float:
            """By halving ratios: the coefficient of the runs so far whose L0 is nearest to k."""
            low, high = 0.05, 50.0
            tried: dict[float, float] = {}
            for _ in range(7):
                coefficient = round((low * high) ** 0.5, 4)
                this = about(trainer, architecture, chosen[trainer], 0) | {"coefficient": coefficient}
                found = tried[coefficient] = trained(this)["l0"]
                low, high = (coefficient, high) if found > k else (low, coefficient)
            return min(tried, key=lambda c: abs(tried[c] - k))

        coefficients: dict[tuple[str, str], float] = {}
        for seed in range(arguments.seeds):
            for trainer, names in trainers.items():
                for architecture in names:
                    if arguments.only and architecture not in arguments.only:
                        continue
                    this = about(trainer, architecture, chosen[trainer], seed)
                    if architecture in PENALISED:
                        if seed == 0:
                            coefficients[trainer, architecture] = searched(trainer, architecture)
                        this["coefficient"] = coefficients[trainer, architecture]
                    trained(this)
            for old in folder.glob(f"{seed}-*"):
                old.unlink()
    lines = [
        line
        for line in done(LINES)
        if (line["scale"], line["rows"], line["batch"]) == (arguments.scale, arguments.rows, arguments.batch)
        and line.get("silent") == SILENT
        and line["seed"] < arguments.seeds
        and line["lr"] == chosen.get(line["trainer"])
        and line.get("coefficient") == coefficients.get((line["trainer"], line["architecture"]))
    ]
    TABLE.write_text(page(world, k, lines, ceiling(world, k, arguments), arguments))
    print(TABLE.read_text())


def ceiling(world: World, k: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Pursuit on the true atoms of the most frequent features: what perfect atoms would score."""
    W = Dictionary(world.dictionary.atoms[: world.n // 4], world.dictionary.bias)
    return scores(NNOMP(W, k=k), world, arguments.evaluate)


def half_width(values: list[float]) -> float:
    """Of the 95 % interval of the mean, by Student's t over seeds."""
    n = len(values)
    return float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")


def cell(values: list[float], digits: int) -> str:
    """Mean, half of its interval, smallest and largest."""
    numbers = (float(np.mean(values)), half_width(values), min(values), max(values))
    mean, half, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{mean} ± {half} ({low} to {high})"


def difference(one: dict[int, float], other: dict[int, float]) -> tuple[float, float]:
    """Mean of one minus the other on the same rows, and half of its interval."""
    gaps = [one[seed] - other[seed] for seed in sorted(set(one) & set(other))]
    return float(np.mean(gaps)), half_width(gaps)


def surely_above(f1: list[dict[int, float]]) -> list[str]:
    """Of learners in their order: from which place on all are below by more than the interval of the difference."""
    found = []
    for i, one in enumerate(f1):
        clear = [mean > half for mean, half in (difference(one, other) for other in f1[i + 1 :])]
        last = max((j for j, holds in enumerate(clear) if not holds), default=-1)
        found.append(f"from {i + last + 3}" if last + 1 < len(clear) else "")
    return found


def page(
    world: World, k: int, lines: list[dict[str, Any]], best: dict[str, float], arguments: argparse.Namespace
) -> str:
    law: Any = world.features
    columns = (*SCORES, "unexplained", "l0", "dead", "seconds")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["trainer"], line["architecture"]), []).append(line)

    def of(name: tuple[str, str], column: str) -> dict[int, float]:
        return {line["seed"]: line[column] for line in groups[name]}

    order = sorted(groups, key=lambda name: -float(np.mean(list(of(name, "latent_f1").values()))))
    clear = surely_above([of(name, "latent_f1") for name in order])
    rows = []
    for place, (name, above) in enumerate(zip(order, clear, strict=True), 1):
        digits = {"dead": 1, "seconds": 1, "l0": 2}
        cells = [cell([line[column] for line in groups[name]], digits.get(column, 3)) for column in columns]
        rows.append(f"| {place} | {' '.join(name)} | {len(groups[name])} | {above} | " + " | ".join(cells) + " |\n")
    against = []
    for trainer, architecture in order:
        theirs = ("SAELens", architecture.split(",")[0])
        if trainer != "ours" or theirs not in groups:
            continue
        cells = []
        for column in (*SCORES[:1], *SCORES[3:4], "unexplained", "l0"):
            mean, half = difference(of((trainer, architecture), column), of(theirs, column))
            text = f"{mean:+.3f} ± {half:.3f}"
            cells.append(f"**{text}**" if abs(mean) > half else text)
        against.append(f"| {architecture} | " + " | ".join(cells) + " |\n")
    rates = {line["trainer"]: line["lr"] for line in lines}
    codes = {
        trainer: sorted({line.get("code", "?") for line in lines if line["trainer"] == trainer}) for trainer in rates
    }
    random = random_unit(n=world.n // 4, d=world.d, seed=999)
    chance = atom_scores(random, world.dictionary, draws=0)["mean_matched_cosine"].value
    head = (
        f"# Architectures on a SynthSAEBench replica at scale {arguments.scale:g}\n\n"
        f"{environment()}. World: n = {world.n}, d = {world.d}, E[L0] = {law.l0:.2f}, of which "
        f"{float(law.density[: world.n // 4].sum()):.2f} among the {world.n // 4} most frequent features; difficulty "
        f"{world.kappa_cs:.2f}. {world.n // 4} latents, k = {k} (JumpReLU: L0 steered to it; "
        f"{SORTED}: the nearest whole number, {round(float(law.density[: world.n // 4].sum()))}; ReLU, Gated and "
        "PAnnealed: the coefficient that came nearest to it on seed 0), "
        f"{arguments.rows:,} rows, batches of {arguments.batch}, learning rate {rates}, the best tried for "
        f"BatchTopK on seed 0; a latent is dead after {SILENT} batches. Scores on {arguments.evaluate:,} rows not "
        f"trained on; CPU seconds on one thread. Made by {codes} (SAELens's version; a hash of our trainer's sources). "
        "This is a replica: its scores are not those of SynthSAEBench-16k.\n\n"
        f"A random dictionary has mean_matched_cosine {chance:.4f}. Pursuit (k = {k}) on the true atoms of the "
        f"{world.n // 4} most frequent features: latent_f1 {best['latent_f1']:.4f}, unexplained "
        f"{best['unexplained']:.4f}, l0 {best['l0']:.2f}.\n\n"
        "By latent_f1. Cells: mean ± half of its 95 % interval (Student's t over seeds; a seed draws the rows and the "
        "start, the world is one), smallest and largest. *Surely above*: the place from which every learner is below "
        "by more than the 95 % interval of the difference, seed by seed on the same rows; each comparison by itself, "
        "not corrected for their number.\n\n"
    )
    names = " | ".join(("place", "learner", "seeds", "surely above", *columns))
    table = f"| {names} |\n" + "|---" * (4 + len(columns)) + "|\n" + "".join(rows)
    if against:
        table += (
            "\n## Ours minus SAELens's\n\nThe same rows, k and latents; mean difference ± half of its 95 % interval "
            "over seeds, bold where it exceeds it. L0 follows where a trainer's threshold or penalty leaves it, and "
            "latent_f1 follows L0.\n\n| | latent_f1 | mean_matched_cosine | unexplained | l0 |\n|---|---|---|---|---|\n"
        ) + "".join(against)
    return head + table


@torch.no_grad()
def agree(world: World) -> None:
    """Our matched cosine, distinct targets and scores per latent are SAELens's, to 1e-5."""
    from sae_lens.synthetic import evals

    W = Dictionary(world.dictionary.atoms[: world.n // 4] + 0.05)
    batch = next(world.batches(4096, seed=3))
    coder = NNOMP(W, k=4)
    a, c = atom_scores(W, world.dictionary, draws=0), code_scores(coder, [batch], world.dictionary)
    atoms, truth = W.atoms, world.dictionary.atoms
    theirs = evals.compute_classification_metrics(coder.encode(batch.x).dense(), batch.code.dense(), atoms, truth)
    pairs = {
        "mean_matched_cosine": (a["mean_matched_cosine"].value, evals.mean_correlation_coefficient(atoms, truth)),
        "distinct_targets": (a["distinct_targets"].value, evals.feature_uniqueness(atoms, truth)),
        "latent_f1": (c["latent_f1"].value, theirs.f1_score),
        "latent_precision": (c["latent_precision"].value, theirs.precision),
        "latent_recall": (c["latent_recall"].value, theirs.recall),
    }
    for name, (we, they) in pairs.items():
        assert abs(we - they) < 1e-5, (name, we, they)
    print("our scores and SAELens's agree:", {name: round(we, 6) for name, (we, _) in pairs.items()})


WIDE = "TopK, 512 latents"
AGAIN = {f"TopK, 512 latents, {rows} 000 rows again and again": rows * 1000 for rows in (60, 40)}
"""Twice as many latents as features, and rows that run out: as the figures that were given to us had it, it seems."""


def easy(arguments: argparse.Namespace) -> None:
    """The easy world at k = 4, 8, 12: our architectures at the settings below, and the classical learners.

    A seed is of the directions too: each has a world of its own.
    """
    sae = architectures
    descended: dict[str, Callable[..., Any]] = {
        "TopK": sae.TopK,
        WIDE: sae.TopK,
        **dict.fromkeys(AGAIN, sae.TopK),
        "BatchTopK": sae.BatchTopK,
        "JumpReLU": sae.JumpReLU,
        "Matryoshka": sae.Matryoshka,
        "Matryoshka, emphasis 0": partial(sae.Matryoshka, emphasis=0.0),
        "Matryoshka, emphasis 1": partial(sae.Matryoshka, emphasis=1.0),
        "Matryoshka, widths 128, 256, emphasis 0": partial(sae.Matryoshka, widths=(128, 256), emphasis=0.0),
    }
    classical = {
        "KSVD": lambda world, k, seed: KSVD.fit(world, 256, k, seed=seed),
        "KMeans": lambda world, k, seed: KMeans.fit(world, 256, seed=seed),
        "OnlineDictionary": lambda world, k, seed: OnlineDictionary.fit(world, 256, seed=seed),
        "ICA (64 atoms)": lambda world, k, seed: ICA.fit(world, seed=seed),
    }

    def work(name: str, k: int, seed: int, steps: int | None) -> dict[str, Any]:
        world = exactly_k(k=k, seed=seed)
        start = time.process_time()
        if steps is None:
            coder = classical[name](world, k, seed)
        else:
            source = world
            if name in AGAIN:
                parts = islice(world.batches(2_000, seed=seed), AGAIN[name] // 2_000)
                source = Kept(np.concatenate([part.x.numpy() for part in parts]))
            # Half of 512 latents have nothing to find and are left in peace: the default window, not two batches.
            n, silent = (512, None) if name == WIDE or name in AGAIN else (256, 2000)
            coder = descended[name](64, n, k, seed=seed)
            for _ in train(coder, source, steps=steps, batch=1024, lr=1e-2, seed=seed, dead_after=silent):
                pass
        seconds = time.process_time() - start
        held = list(islice(world.batches(4096, seed=10**6), 2))
        return {**easy_scores(coder, world, held, k), "seconds": round(seconds, 1)}

    for k in arguments.ks:
        for name in (*descended, *classical):
            if arguments.only and name not in arguments.only:
                continue
            steps = None
            if name in descended:
                steps = 1000 if k > 4 else 300 if "512" in name else 400 if name == "TopK" else 800
            for seed in range(arguments.seeds):
                about = {"k": k, "learner": name, "seed": seed, "trainer": "ours", "steps": steps}
                run(about, partial(work, name, k, seed, steps), EASY_LINES)
                EASY.write_text(easy_page(done(EASY_LINES)))


def easy_scores(coder: SparseCoder, world: World, held: list[Activations], k: int) -> dict[str, float]:
    atoms = atom_scores(coder.dictionary, world.dictionary, threshold=0.99, draws=0)
    codes = code_scores(coder, held, world.dictionary)
    gap = amortisation_gap(coder, held, k=k)
    nearest = (world.dictionary.unit().atoms @ coder.dictionary.unit().atoms.T).amax(1)
    return {
        "feature_nearest_cosine": atoms["feature_nearest_cosine"].value,
        "missed": int((nearest < 0.9).sum()),
        "atom_recall": atoms["atom_recall"].value,
        "support_f1": codes["support_f1"].value,
        "feature_value_r2": codes["feature_value_r2"].value,
        "own": gap["own_unexplained"].value,
        "pursuit": gap["pursuit_unexplained"].value,
    }


def easy_page(lines: list[dict[str, Any]]) -> str:
    columns = (
        "feature_nearest_cosine",
        "missed",
        "atom_recall",
        "support_f1",
        "feature_value_r2",
        "own",
        "pursuit",
        "seconds",
    )
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for line in lines:
        steps = f", {line['steps']} steps" if line["steps"] else ""
        groups.setdefault((line["k"], line["learner"] + steps), []).append(line)
    rows = "".join(
        f"| {k} | {name} | {len(own)} | "
        + " | ".join(
            cell([line[column] for line in own], {"seconds": 1, "missed": 1}.get(column, 4)) for column in columns
        )
        + " |\n"
        for (k, name), own in sorted(groups.items(), key=lambda group: group[0][0])
    )
    return (
        "# Learners on the easy world (n = 256, d = 64, k active, magnitudes U[0.5, 1.5], no noise)\n\n"
        f"{environment()}. Cells: mean ± half of its 95 % interval (Student's t over seeds, each with directions of "
        "its own), smallest and largest. Autoencoders: 256 latents unless said, batches of 1 024, learning rate 0.01, "
        "latents dead after 2 000 silent rows (of 512: a twentieth of the run, at most 50 000). Missed: features whose "
        "nearest atom has a cosine below 0.9. `own`, `pursuit`: fraction_variance_unexplained of the learner's own "
        "code and of NNOMP with k atoms of its dictionary; their difference is the amortisation gap. CPU seconds of "
        "learning on one thread, beside other work.\n\n"
        "| k | learner | seeds | feature_nearest_cosine (MMCS) | missed | atom_recall at 0.99 | support_f1 "
        "| feature_value_r2 | own | pursuit | CPU s |\n" + "|---" * 11 + "|\n" + rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1 / 16)
    parser.add_argument("--evaluate", type=int, default=49_152)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--easy", action="store_true")
    parser.add_argument("--ks", type=int, nargs="*", default=(4, 8, 12))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (easy if arguments.easy else replica)(arguments)


if __name__ == "__main__":
    sys.exit(main())
