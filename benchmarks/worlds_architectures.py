"""Which architecture finds the truth of a SynthSAEBench replica, with our trainer and with SAELens's own, beside it.

Every learner sees the same rows in the same order: each seed's rows are composed once and kept in a temporary file.
Each trainer has one learning rate, the best of those tried on the first seed of BatchTopK, and as many latents as the
benchmark gives (n / 4); a latent is dead after five batches for both; sparsity is the number of active features among
the n / 4 most frequent, rounded down.
Latents are read as in use (BatchTopK and Matryoshka by their learned threshold), scores are ours for all.

    python benchmarks/worlds_architectures.py                     # ours; SAELens too where it is installed
    python benchmarks/worlds_architectures.py --rows 5000000      # the size the replica is meant for
    python benchmarks/worlds_architectures.py --easy              # n = 256, d = 64: the acceptance table, k = 4, 8, 12

Each finished run is a line of worlds_architectures.jsonl and is not made again; the table is rewritten after each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import environment

from superscope.core import Activations, ActivationSource, Dictionary, SparseCode, SparseCoder
from superscope.dictionaries import sae as architectures
from superscope.dictionaries import train
from superscope.dictionaries.classical import ICA, KSVD, KMeans, OnlineDictionary
from superscope.frames import random_unit
from superscope.measure import amortisation_gap, atom_scores, code_scores, evaluate
from superscope.recovery import NNOMP
from superscope.worlds import World, exactly_k, synth_sae_bench

HERE = Path(__file__).parent
LINES = HERE / "worlds_architectures.jsonl"
TABLE = HERE / "worlds_architectures_results.md"
EASY = HERE / "worlds_easy_results.md"
SCORES = ("latent_f1", "latent_precision", "latent_recall", "mean_matched_cosine", "distinct_targets", "found_in_truth")


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


# Our learners: name -> maker of an untrained SAE of d, n, k and seed; an L1 coefficient where there is one to choose.
OURS: dict[str, Callable[..., Any]] = {}


def _offer(name: str, make: Callable[..., Any]) -> None:
    if hasattr(architectures, name):
        OURS[name] = make


_offer("TopK", lambda d, n, k, seed: architectures.TopK(d, n, k, seed=seed))
_offer("BatchTopK", lambda d, n, k, seed: architectures.BatchTopK(d, n, k, seed=seed))
# Prefixes that all weigh the same, as SAELens's do.
_offer("Matryoshka", lambda d, n, k, seed: architectures.Matryoshka(d, n, k, widths=widths(n), emphasis=0.0, seed=seed))
_offer("JumpReLU", lambda d, n, k, seed: architectures.JumpReLU(d, n, k, seed=seed))
_offer("MatchingPursuit", lambda d, n, k, seed: architectures.MatchingPursuit(d, n, k, seed=seed))
# Not AbsTopK: these scores take atoms with their signs, and its latents have none.
_offer("InterferencePenalised", lambda d, n, k, seed: architectures.InterferencePenalised(d, n, k, seed=seed))
_offer("Archetypal", lambda d, n, k, seed: architectures.Archetypal(d, n, k, seed=seed))
_offer("ReLU", lambda d, n, k, seed, coefficient: architectures.ReLU(d, n, coefficient, seed=seed))
_offer("Gated", lambda d, n, k, seed, coefficient: architectures.Gated(d, n, coefficient, seed=seed))
_offer("PAnnealed", lambda d, n, k, seed, coefficient: architectures.PAnnealed(d, n, coefficient, seed=seed))


def widths(n: int) -> tuple[int, ...]:
    """The benchmark's 128, 512, 2 048 of 4 096, in proportion."""
    return (n // 32, n // 8, n // 2, n)


def ours(
    name: str, source: Kept, n: int, k: int, lr: float, batch: int, seed: int, **penalty: float
) -> tuple[SparseCoder, float]:
    sae = OURS[name](source.d, n, k, seed, **penalty)
    start = time.process_time()
    steps = len(source.rows) // batch
    for _ in train(sae, source, steps=steps, batch=batch, lr=lr, seed=seed, dead_after=SILENT * batch):
        pass
    return sae, time.process_time() - start


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
PENALISED = ("ReLU", "Gated", "PAnnealed")
"""Architectures whose L0 follows from a coefficient: it is searched on the first seed until L0 is k."""
RATES = {"ours": (3e-3, 1e-2), "SAELens": (1e-3, 3e-3, 1e-2)}
SILENT = 5
"""Batches without firing after which a latent is dead: the rarest of the n / 4 features comes 6 times in one."""
TRAINERS: dict[str, Callable[..., tuple[SparseCoder, float]]] = {"ours": ours, "SAELens": saelens}


def done() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def run(about: dict[str, Any], world: World, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One training with its scores, from the file if it is there."""
    for line in done():
        if all(line.get(key) == value for key, value in about.items()):
            return line
    source = kept(world, about["rows"], arguments.batch, about["seed"], folder)
    coder, seconds = TRAINERS[about["trainer"]](
        about["architecture"],
        source,
        world.n // 4,
        about["k"],
        about["lr"],
        arguments.batch,
        about["seed"],
        **({"coefficient": about["coefficient"]} if "coefficient" in about else {}),
    )
    line = {**about, "seconds": round(seconds, 1), **scores(coder, world, arguments.evaluate), "when": environment()}
    with LINES.open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}), flush=True)
    return line


def replica(arguments: argparse.Namespace) -> None:
    world = synth_sae_bench(arguments.scale)
    law: Any = world.features
    k = int(law.density[: world.n // 4].sum())
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
                "k": k,
                "lr": lr,
                "seed": seed,
                "silent": SILENT,
            }

        for trainer in trainers:
            if "BatchTopK" in trainers[trainer]:
                tried = {lr: run(about(trainer, "BatchTopK", lr, 0), world, arguments, folder) for lr in RATES[trainer]}
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
                l0 = tried[coefficient] = run(this, world, arguments, folder)["l0"]
                low, high = (coefficient, high) if l0 > k else (low, coefficient)
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
                    run(this, world, arguments, folder)
            for old in folder.glob(f"{seed}-*"):
                old.unlink()
    lines = [
        line
        for line in done()
        if (line["scale"], line["rows"], line["batch"]) == (arguments.scale, arguments.rows, arguments.batch)
        and line.get("silent") == SILENT
        and line["lr"] == chosen.get(line["trainer"])
        and line.get("coefficient") == coefficients.get((line["trainer"], line["architecture"]))
    ]
    TABLE.write_text(page(world, k, lines, ceiling(world, k, arguments), arguments))
    print(TABLE.read_text())


def ceiling(world: World, k: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Pursuit on the true atoms of the most frequent features: what perfect atoms would score."""
    W = Dictionary(world.dictionary.atoms[: world.n // 4], world.dictionary.bias)
    return scores(NNOMP(W, k=k), world, arguments.evaluate)


def page(
    world: World, k: int, lines: list[dict[str, Any]], best: dict[str, float], arguments: argparse.Namespace
) -> str:
    law: Any = world.features
    columns = (*SCORES, "unexplained", "l0", "dead", "seconds")
    rows = []
    for trainer, architecture in sorted({(line["trainer"], line["architecture"]) for line in lines}):
        own = [line for line in lines if (line["trainer"], line["architecture"]) == (trainer, architecture)]
        cells = []
        for column in columns:
            values = [line[column] for line in own]
            mean = sum(values) / len(values)
            digits = 1 if column in ("dead", "seconds") else 2 if column == "l0" else 4
            cells.append(f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]")
        f1 = sum(line["latent_f1"] for line in own) / len(own)
        rows.append((f1, f"| {trainer} {architecture} | {len(own)} | " + " | ".join(cells) + " |"))
    rates = {line["trainer"]: line["lr"] for line in lines}
    random = random_unit(n=world.n // 4, d=world.d, seed=999)
    chance = atom_scores(random, world.dictionary, draws=0)["mean_matched_cosine"].value
    head = (
        f"# Architectures on a SynthSAEBench replica at scale {arguments.scale:g}\n\n"
        f"{environment()}. World: n = {world.n}, d = {world.d}, E[L0] = {law.l0:.2f}, of which "
        f"{float(law.density[: world.n // 4].sum()):.2f} among the {world.n // 4} most frequent features; difficulty "
        f"{world.difficulty:.2f}. {world.n // 4} latents, k = {k} (JumpReLU: L0 steered to it; ReLU, Gated and "
        "PAnnealed: the coefficient that came nearest to it on seed 0), "
        f"{arguments.rows:,} rows, batches of {arguments.batch}, learning rate {rates}, the best tried for "
        f"BatchTopK on seed 0; a latent is dead after {SILENT} batches. Means over "
        f"seeds with their smallest and largest; scores on {arguments.evaluate:,} rows not trained on; CPU seconds on "
        "one thread. This is a replica: its scores are not those of SynthSAEBench-16k.\n\n"
        f"A random dictionary has mean_matched_cosine {chance:.4f}. Pursuit (k = {k}) on the true atoms of the "
        f"{world.n // 4} most frequent features: latent_f1 {best['latent_f1']:.4f}, unexplained "
        f"{best['unexplained']:.4f}, l0 {best['l0']:.2f}.\n\n"
    )
    table = "| learner | seeds | " + " | ".join(columns) + " |\n|---|---|" + "---|" * len(columns) + "\n"
    return head + table + "\n".join(row for _, row in sorted(rows, reverse=True)) + "\n"


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


def easy(arguments: argparse.Namespace) -> None:
    """The easy world at k = 4, 8, 12: our architectures at the settings below, and the classical learners."""
    rows = []
    makers = {
        "TopK": (400, lambda k, seed: architectures.TopK(64, 256, k, seed=seed)),
        "BatchTopK": (800, lambda k, seed: architectures.BatchTopK(64, 256, k, seed=seed)),
        "JumpReLU": (800, lambda k, seed: architectures.JumpReLU(64, 256, k, seed=seed)),
        "Matryoshka, widths 128, 256": (
            800,
            lambda k, seed: architectures.Matryoshka(64, 256, k, widths=(128, 256), emphasis=0.0, seed=seed),
        ),
        "Matryoshka, widths 16 ... 256": (
            800,
            lambda k, seed: architectures.Matryoshka(64, 256, k, emphasis=0.0, seed=seed),
        ),
        "Matryoshka, as it comes": (800, lambda k, seed: architectures.Matryoshka(64, 256, k, seed=seed)),
    }
    for k in arguments.ks:
        world = exactly_k(k=k)
        held = list(islice(world.batches(4096, seed=10**6), 2))
        learners: dict[str, Callable[[int], SparseCoder]] = {}
        for name, (steps, make) in makers.items():
            if hasattr(architectures, name.split(",")[0]):
                learners[f"{name}, {steps if k == 4 else 1000} steps"] = lambda seed, s=steps, m=make, k=k, w=world: (
                    fit(m(k, seed), w, s if k == 4 else 1000, seed)
                )
        learners["KSVD"] = lambda seed, k=k, w=world: KSVD.fit(w, 256, k, seed=seed)
        if k == 4:
            learners["KMeans"] = lambda seed, w=world: KMeans.fit(w, 256, seed=seed)
            learners["OnlineDictionary"] = lambda seed, w=world: OnlineDictionary.fit(w, 256, seed=seed)
            learners["ICA (64 atoms)"] = lambda seed, w=world: ICA.fit(w, seed=seed)
        for name, learn in learners.items():
            found = []
            for seed in range(arguments.seeds):
                start = time.process_time()
                coder = learn(seed)
                seconds = time.process_time() - start
                atoms = atom_scores(coder.dictionary, world.dictionary, threshold=0.99, draws=0)
                codes = code_scores(coder, held, world.dictionary)
                gap = amortisation_gap(coder, held, k=k)
                found.append(
                    [
                        atoms["truth_in_found"].value,
                        atoms["atom_recall"].value,
                        codes["support_f1"].value,
                        codes["feature_value_r2"].value,
                        gap["own_unexplained"].value,
                        gap["pursuit_unexplained"].value,
                        seconds,
                    ]
                )
            spread = " | ".join(
                f"{sum(column) / len(column):.4f} [{min(column):.4f}, {max(column):.4f}]"
                if i < 6
                else f"{sum(column) / len(column):.1f}"
                for i, column in enumerate(zip(*found, strict=True))
            )
            rows.append(f"| {k} | {name} | {spread} |")
            print(rows[-1], flush=True)
            EASY.write_text(easy_page(rows, arguments.seeds))


def easy_page(rows: list[str], seeds: int) -> str:
    return (
        "# Learners on the easy world (n = 256, d = 64, k active, magnitudes U[0.5, 1.5], no noise)\n\n"
        f"{environment()}. Means over {seeds} seeds with their smallest and largest. Autoencoders: batches of 1 024, "
        "learning rate 0.01, latents dead after 2 000 silent rows. `own` and `pursuit`: "
        "fraction_variance_unexplained of the learner's own code and of NNOMP with k atoms of its dictionary; their "
        "difference is the amortisation gap. CPU seconds of learning on one thread.\n\n"
        "| k | learner | truth_in_found (MMCS) | atom_recall at 0.99 | support_f1 | feature_value_r2 | own | pursuit | "
        "CPU s |\n|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def fit(sae: Any, world: World, steps: int, seed: int) -> SparseCoder:
    for _ in train(sae, world, steps=steps, batch=1024, lr=1e-2, seed=seed, dead_after=2000):
        pass
    return sae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=3)
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
