"""How long does a survey take, and how long the same readings with SAELens and SAEBench as they ship?

    python benchmarks/survey.py survey [SETTINGS OF superscope survey]   # `superscope survey`, by its parts
    scripts/peers --only dictionaries                                    # once: an environment with theirs and ours
    PYTHONPATH=. .venv-peers/bin/python benchmarks/survey.py peers       # the same readings, two rounds

The second asks of the streams behind the first, third and last block of the pocket model what both know: a TopK
dictionary for each of two seeds (n = 8 d, k = 32), and of each dictionary the L0, the variance explained, cross-entropy
and divergence recovered beside zero ablation, and probes of 1, 2 and 5 latents, and of all of x, for kinds of token.
The same model, the same tokens to learn from and to measure on, the same rows to probe, one thread.

Theirs: for each site and seed `LanguageModelSAETrainingRunner` with its own store of activations, then `run_evals` of
SAELens, then `train_probe_on_activations` of SAEBench on rows that are read once for each site; a HookedTransformer
made from the same weights. Adam's rate is the best of four for such dictionaries (time_to_quality_results.md), x is
scaled to its mean norm from 20 batches where the default reads 1 000, and what both would only log is off. Ours: the
survey's own engine over the same sites with one reading that makes these measurements, with fewer steps of as many
rows: so many that from other starts no dictionary left more variance unexplained than theirs, nor kept less of the
cross-entropy in the mean of the sites.

Left out, since it is not defined alike: absorption, which SAEBench reads off prompts that ask for a first letter and
which needs a model that spells. Ours fits each probe in five folds and thrice (labels shuffled twice), theirs once.
Imports, loading the model and cutting the text are outside the clock of both.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("WANDB_MODE", "disabled")
# SAEBench 0.6.0 refuses its own shapes where its checks are on.
os.environ.setdefault("JAXTYPING_DISABLE", "1")

import torch
from hooked import hooked
from results import commit, numbers, report
from torch import Tensor

from superscope import capture, measure
from superscope.capture import Corpus, Subject
from superscope.core import Findings, Run, Site, SparseCode
from superscope.intervene.side_effects import divergences
from superscope.measure.evaluations.probing import sparse_probing
from superscope.measure.evaluations.recovered import divergence_recovered
from superscope.studies import FullSurvey
from superscope.studies.networks.readings import Reading, View
from superscope.studies.networks.survey import Survey

MODEL = Path(__file__).resolve().parents[1] / "superscope" / "capture" / "pocket" / "model"
PAGE = "survey_results.md"
BLOCKS, SEEDS, K, BATCH = (0, 2, 3), (0, 1), 32, 1024
RATE, STEPS, OUR_STEPS = 0.006, 120, 60
CONTEXT, HELD, KINDS, ROWS, TESTED = 128, 64, 6, 160, 40
KS = (1, 2, 5)


# ---- a whole survey


def survey(arguments: Sequence[str]) -> None:
    """`superscope survey` with the settings given, timed by the clock and by the processor, and its parts."""
    import tyro

    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    study = tyro.cli(FullSurvey, args=list(arguments), config=config)
    clock, work = time.monotonic(), time.process_time()
    by_stage: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        stages = study.stages(Path(folder) / "run")
        begun = time.process_time()
        while True:
            try:
                step = next(stages)
            except StopIteration as end:
                found = end.value
                break
            name = step.stage.split(" transformer.")[0].split(" model.")[0]
            by_stage[name] = by_stage.get(name, 0.0) + time.process_time() - begun
            begun = time.process_time()
    clock, work = time.monotonic() - clock, time.process_time() - work
    table = found.tables["studies"]
    lines = [f"{clock / 60:.1f} min by the clock, {work / 60:.1f} min of a processor, commit {commit()}", ""]
    lines += [
        f"{name:12s}{seconds:8.0f} s by the clock"
        for name, seconds in zip(table["study"], table["seconds"], strict=True)
    ]
    lines += ["", *(f"{name:45s}{seconds:8.1f} processor s" for name, seconds in by_stage.items() if seconds >= 1)]
    lines += ["", f"{len(list(found))} measurements; {found.findings[-1]}"]
    report("\n".join(lines), PAGE)


# ---- the same readings by both


@dataclass(frozen=True, eq=False)
class Text:
    """What both read.

    Args:
        learn, held: windows to learn from and to measure on.
        labels: of tokens, by number; -1 for tokens of other kinds.
        chosen: of each kind its rows among the held-out ones, a training part and then a tested one.
    """

    learn: Corpus
    held: Corpus
    names: tuple[str, ...]
    chosen: dict[str, Tensor]


def text(subject: Subject) -> Text:
    asked = (STEPS * BATCH // CONTEXT + HELD) * CONTEXT
    corpus = capture.tokens(subject.tokenizer, capture.documents(None), context=CONTEXT, limit=2 * asked)
    # Whole windows, of which every position counts for both.
    whole = (corpus.length == CONTEXT).nonzero().flatten()
    corpus = dataclasses.replace(corpus, keep=torch.ones_like(corpus.keep))
    held, learn = corpus.take(whole[:HELD]), corpus.take(whole[HELD : HELD + STEPS * BATCH // CONTEXT])
    kind = measure.token_kinds(capture.spelling(subject.tokenizer))[held.ids.flatten()]
    most = kind.bincount(minlength=len(measure.KINDS)).topk(KINDS).indices.tolist()
    random = torch.Generator().manual_seed(0)
    chosen = {}
    for number in most:
        rows = (kind == number).nonzero().flatten()
        if len(rows) >= ROWS + TESTED:
            chosen[measure.KINDS[number]] = rows[torch.randperm(len(rows), generator=random)[: ROWS + TESTED]]
    return Text(learn, held, tuple(chosen), chosen)


@dataclass
class Figures:
    """What a contestant reached, of each site and seed."""

    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    at: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)


class Shared(Reading):
    """What both packages know of a dictionary."""

    name: ClassVar[str] = "what is defined alike"

    def __init__(self, given: Text, figures: Figures) -> None:
        self.given, self.figures = given, figures
        # By block and seed; None is the site's zero ablation.
        self.edits: dict[tuple[int, int | None], dict[Site, Callable[[Tensor], Tensor]]] = {}

    def read(self, seen: View, findings: Findings) -> None:
        chosen = torch.cat(list(self.given.chosen.values()))
        x = torch.cat([batch.x for batch in seen.held])
        places = torch.cat([batch.places for batch in seen.held if batch.places is not None]).cpu()
        order = (places[:, 0] * CONTEXT + places[:, 1]).argsort()
        rows = x[order[chosen]]
        block = int(str(seen.site).rpartition(".")[2])
        self.edits[block, None] = {seen.site: torch.zeros_like}
        for wanted in seen.wanted:
            self.edits[block, wanted.seed] = {seen.site: seen.learned[wanted].reconstruct}
            with torch.no_grad():
                code = seen.learned[wanted].encode(rows)
            found = seen.evaluations[wanted]
            self.figures.at[block, wanted.seed] = {
                "unexplained": found["fraction_variance_unexplained"].value or 0.0,
                "l0": found["l0"].value or 0.0,
                **self._probes(code, rows),
            }

    def splice(self, subject: Subject) -> None:
        """What the model loses on each reconstruction, beside one plain pass."""
        moved = dict(zip(self.edits, divergences(subject, self.given.held, list(self.edits.values())), strict=True))
        for (block, seed), kept in moved.items():
            if seed is None:
                continue
            zero = moved[block, None]
            divergence, _ = divergence_recovered(kept.kl, zero.kl, kept.positions, ablation="zero")
            self.figures.at[block, seed] |= {
                "cross-entropy": 1 - kept.delta_loss / zero.delta_loss,
                "divergence": divergence.value or 0.0,
            }

    def _probes(self, code: SparseCode, rows: Tensor) -> dict[str, float]:
        each = len(rows) // len(self.given.names)
        kinds = torch.arange(len(self.given.names)).repeat_interleave(each)
        found: dict[str, list[float]] = {}
        for number, name in enumerate(self.given.names):
            # As SAEBench balances them: as many rows of other kinds, evenly.
            others = (kinds != number).nonzero().flatten()
            part = torch.cat([(kinds == number).nonzero().flatten(), others[:: len(self.given.names) - 1]])
            picked = SparseCode(code.values[part], code.indices[part], code.n)
            for m in sparse_probing(picked, rows[part], kinds[part] == number, ks=KS, folds=5, shuffles=2, name=name):
                found.setdefault(f"probe of {m.at['k']}", []).append(m.value or 0.0)
                found.setdefault("probe of x", []).append(m.reference or 0.0)
        return {name: statistics.mean(values) for name, values in found.items()}


@dataclass(frozen=True)
class Alone(Survey):
    """The engine without a question of its own."""

    kind: ClassVar[str] = "benchmark"

    def answer(self, run: Run) -> Any:
        raise NotImplementedError


def ours(subject: Subject, given: Text) -> Figures:
    """The survey's engine over the sites with the one reading."""
    figures = Figures()
    sites = list(capture.sites(subject.model, [f"resid_post.{block}" for block in BLOCKS]))
    study = Alone(
        n=8 * subject.d, k=K, seeds=len(SEEDS), steps=OUR_STEPS, batch=BATCH, context=CONTEXT, outliers="keep"
    )
    work = time.process_time()
    begun = work
    run = Run.begin(study.kind, {})
    shared = Shared(given, figures)
    for step in study.survey(run, {"trained": subject}, sites, given.learn, given.held, (shared,)):
        stage = step.stage.split()[0]
        figures.parts[stage] = figures.parts.get(stage, 0.0) + time.process_time() - begun
        begun = time.process_time()
    shared.splice(subject)
    figures.parts["Splicing"] = time.process_time() - begun
    figures.seconds = time.process_time() - work
    return figures


def theirs(subject: Subject, given: Text) -> Figures:
    """SAELens's runner and evaluations and SAEBench's probes, a dictionary after the other."""
    from datasets import Dataset
    from sae_bench.evals.sparse_probing.probe_training import train_probe_on_activations
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler
    from sae_lens.training.activations_store import ActivationsStore
    from transformer_lens import HookedTransformer

    figures, model = Figures(), hooked(subject.model, subject.tokenizer, HookedTransformer)
    learn, held = (Dataset.from_dict({"tokens": part.ids.tolist()}) for part in (given.learn, given.held))

    def timed(part: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        done = work()
        figures.parts[part] = figures.parts.get(part, 0.0) + time.process_time() - begun
        return done

    def read(block: int, hook: str) -> Tensor:
        with torch.no_grad():
            _, cache = model.run_with_cache(given.held.ids, names_filter=[hook], stop_at_layer=block + 1)
        return cache[hook].flatten(0, 1)

    for block in BLOCKS:
        hook = f"blocks.{block}.hook_resid_post"
        x = timed("reading rows to probe", lambda block=block, hook=hook: read(block, hook))
        whole = None
        for seed in SEEDS:
            config = LanguageModelSAERunnerConfig(
                sae=TopKTrainingSAEConfig(
                    d_in=subject.d, d_sae=8 * subject.d, k=K, normalize_activations="expected_average_only_in"
                ),
                model_name="pocket",
                hook_name=hook,
                dataset_path="given",
                streaming=False,
                context_size=CONTEXT,
                training_tokens=STEPS * BATCH,
                train_batch_size_tokens=BATCH,
                lr=RATE,
                lr_end=RATE,
                seed=seed,
                prepend_bos=False,
                n_batches_for_norm_estimate=20,
                logger=LoggingConfig(log_to_wandb=False),
                checkpoint_path=None,
                output_path=None,
                verbose=False,
            )
            torch.manual_seed(seed)
            runner = LanguageModelSAETrainingRunner(config, override_dataset=learn, override_model=model)
            sae = timed("learning", runner.run)
            store = ActivationsStore.from_config(model, config, override_dataset=held)
            store.store_batch_size_prompts = HELD // 4
            asked = EvalConfig(
                batch_size_prompts=HELD // 4,
                n_eval_reconstruction_batches=4,
                n_eval_sparsity_variance_batches=4,
                compute_kl=True,
                compute_ce_loss=True,
                compute_sparsity_metrics=True,
                compute_variance_metrics=True,
            )
            said, _ = timed(
                "evaluating",
                lambda sae=sae, store=store, asked=asked: run_evals(
                    sae, store, model, ActivationScaler(), asked, exclude_special_tokens=False
                ),
            )

            def probed(sae: Any = sae, whole: Any = whole, x: Tensor = x) -> tuple[dict[str, float], float]:
                parts: dict[str, list[dict[str, Tensor]]] = {"x": [{}, {}], "f": [{}, {}]}
                for name, rows in given.chosen.items():
                    for number, part in enumerate((rows[:ROWS], rows[ROWS:])):
                        parts["x"][number][name] = x[part]
                        with torch.no_grad():
                            parts["f"][number][name] = sae.encode(x[part])
                if whole is None:
                    _, kept = train_probe_on_activations(
                        *parts["x"], use_sklearn=False, batch_size=250, epochs=100, lr=1e-2
                    )
                    whole = statistics.mean(kept.values())
                found = {}
                for k in KS:
                    _, kept = train_probe_on_activations(*parts["f"], select_top_k=k)
                    found[f"probe of {k}"] = statistics.mean(kept.values())
                return found, whole

            probes, whole = timed("probing", probed)
            figures.at[block, seed] = {
                "unexplained": 1 - said["reconstruction_quality"]["explained_variance"],
                "l0": said["sparsity"]["l0"],
                "cross-entropy": said["model_performance_preservation"]["ce_loss_score"],
                "divergence": said["model_behavior_preservation"]["kl_div_score"],
                **probes,
                "probe of x": whole,
            }
    figures.seconds = sum(figures.parts.values())
    return figures


def peers(rounds: int) -> None:
    """Both in turn, so that other load falls on both alike."""
    import importlib.metadata

    assert numbers(importlib.metadata.version("sae-lens")) >= (6,)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    subject = capture.load("pocket")
    given = text(subject)
    runs: dict[str, list[Figures]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for name in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                runs[name].append((ours if name == "ours" else theirs)(subject, given))
            sys.stderr.write(f"round {number + 1}, {name}: {runs[name][-1].seconds:.1f} processor s\n")
    ratios = [b.seconds / a.seconds for a, b in zip(runs["ours"], runs["theirs"], strict=True)]
    versions = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in ("sae-lens", "sae-bench"))
    lines = [
        f"{versions}; commit {commit()}; {len(BLOCKS)} sites, {len(SEEDS)} dictionaries of {8 * subject.d} latents,",
        f"k = {K}, {STEPS * BATCH:,} tokens to learn from ({STEPS} steps of {BATCH} theirs, {OUR_STEPS} ours),",
        f"{HELD * CONTEXT:,} to measure on, {len(given.names)} kinds of {ROWS + TESTED} rows to probe",
        "",
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} rounds)",
        "",
    ]
    for name, found in runs.items():
        seconds = [each.seconds for each in found]
        lines.append(
            f"{name:8s}{statistics.median(seconds):8.1f} processor s ({min(seconds):.1f} to {max(seconds):.1f})"
        )
        for part in found[-1].parts:
            lines.append(f"    {part:24s}{statistics.median(each.parts[part] for each in found):8.1f}")
    quantities = list(runs["ours"][-1].at[BLOCKS[0], SEEDS[0]])
    lines += ["", "mean over seeds" + "".join(f"{'block ' + str(block):>22s}" for block in BLOCKS)]
    lines.append(f"{'':15s}" + f"{'ours':>14s}{'theirs':>8s}" * len(BLOCKS))
    for quantity in quantities:
        line = f"{quantity:15s}"
        for block in BLOCKS:
            for name, wide in (("ours", 14), ("theirs", 8)):
                values = [runs[name][-1].at[block, seed][quantity] for seed in SEEDS]
                line += f"{statistics.mean(values):>{wide}.3f}"
        lines.append(line)
    report("\n".join(lines), PAGE)


if __name__ == "__main__":
    if sys.argv[1:2] == ["survey"]:
        survey(sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("what", choices=["peers"])
        parser.add_argument("--rounds", type=int, default=2)
        peers(parser.parse_args().rounds)
