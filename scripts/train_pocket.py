"""Train the pocket model and its narrow twin on the running interpreter's own text, and write them with their figures.

    python scripts/train_pocket.py                  # all of it; a second call goes on where the first was stopped
    python scripts/train_pocket.py --minutes 38     # end the pocket model's schedule by the clock on a busy machine
    python scripts/train_pocket.py --text my_texts/ --build build/mine --out elsewhere/

Tokenizer, pocket model and twin are not made again when they are there for the same text and recipe; figures and
folders are. Work in progress lies under `--build`, written to a temporary name and renamed, so a kill loses a minute.
Every number on the model card is read from `results.json`, which this script measures and writes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Threads each take a share of a step's windows and meet once a step. OpenMP's would meet at every operation, and lose
# most of their time there on a machine that does anything else.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import tokenizers
import torch
import transformers
import tyro
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from superscope.capture.pocket import text as pocket_text
from superscope.capture.pocket import training
from superscope.capture.pocket.scoring import document_bits, ratio
from superscope.capture.pocket.text import Document
from superscope.capture.pocket.weights import without_progress_bars

REPOSITORY = Path(__file__).resolve().parent.parent
SEPARATOR = "<|endoftext|>"
VOCABULARY = 4096
WINDOW = 256


@dataclass(frozen=True)
class Recipe:
    """One model and how it is trained; `progress` below runs from 0 to 1 over `token_budget`."""

    name: str
    n_embd: int
    n_layer: int
    n_head: int
    token_budget: int
    rows: int = 16
    """windows a step"""
    topic_rows: int = 2
    """of which from the topics alone: prose is a twentieth of the text"""
    muon_lr: float = training.MUON_LR
    adamw_lr: float = training.ADAMW_LR
    weight_decay: float = training.WEIGHT_DECAY
    """of the matrices inside the blocks"""
    warmup_steps: int = training.WARMUP_STEPS
    decay_from: float = training.DECAY_FROM
    """progress at which the learning rate starts its straight line to zero"""
    clip: float = training.CLIP
    snapshots: int = 0
    seed: int = 0

    def steps(self) -> int:
        """Steps the token budget allows."""
        return self.token_budget // (self.rows * WINDOW)

    def config(self) -> GPT2Config:
        """The architecture."""
        return training.architecture(
            vocabulary=VOCABULARY, context=WINDOW, d=self.n_embd, layers=self.n_layer, heads=self.n_head
        )

    def model(self) -> GPT2LMHeadModel:
        """Fresh weights, the architecture's own, from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return GPT2LMHeadModel(self.config())


POCKET = Recipe("pocket", n_embd=192, n_layer=4, n_head=6, token_budget=8_000_000)
TWIN = Recipe("twin", n_embd=64, n_layer=4, n_head=4, token_budget=1_600_000, rows=8, topic_rows=1, snapshots=8)


# The tokenizer ----------------------------------------------------------------------------------------------------


def train_tokenizer(train: Sequence[Document]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any string is encodable and comes back exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in train), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        pad_token=SEPARATOR,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def stream(tokenizer: PreTrainedTokenizerFast, found: Sequence[Document]) -> Tensor:
    """Separator, document, separator, document, ..., separator."""
    encoded = tokenizer.backend_tokenizer.encode_batch([document.text for document in found])
    parts = [np.array([0, *one.ids], dtype=np.int64) for one in encoded]
    return torch.from_numpy(np.concatenate([*parts, np.zeros(1, dtype=np.int64)]))


# Training ---------------------------------------------------------------------------------------------------------


class Windows:
    """Rows of `WINDOW` + 1 tokens; each pass cuts the stream at a new offset and visits every piece once.

    Row i is a function of (seed, i) alone, so training resumes by counting.
    """

    def __init__(self, tokens: Tensor, seed: int) -> None:
        self.tokens, self.seed = tokens, seed
        self.n_pieces = (len(tokens) - 1 - WINDOW) // WINDOW
        self.epoch = -1

    def row(self, index: int) -> Tensor:
        epoch, inside = divmod(index, self.n_pieces)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self.offset = int(torch.randint(WINDOW, (), generator=generator))
            self.order = torch.randperm(self.n_pieces, generator=generator)
            self.epoch = epoch
        start = self.offset + int(self.order[inside]) * WINDOW
        return self.tokens[start : start + WINDOW + 1]


@dataclass
class Progress:
    """Where a training stands; saved with the weights."""

    recipe: dict[str, object]
    text_sha256: str
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    minutes: float | None = None
    finished: bool = False
    trace: list[dict[str, float]] = field(default_factory=list)

    def fraction(self, recipe: Recipe) -> float:
        """Progress in [0, 1]: by tokens, or by the clock where that is further and minutes were given."""
        by_tokens = self.step / recipe.steps()
        by_clock = 0.0 if self.minutes is None else self.seconds / (60 * self.minutes)
        return min(1.0, max(by_tokens, by_clock))


def train(
    recipe: Recipe,
    folder: Path,
    tokens: Tensor,
    topics: Tensor,
    held_out: Tensor,
    text_sha256: str,
    minutes: float | None = None,
    threads: int = 1,
) -> Progress:
    """Train to the end of the schedule, or go on doing so; the weights end in `folder/state.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "state.safetensors"
    model = recipe.model().train()
    pool = ThreadPoolExecutor(threads)
    optimizers = training.optimizers(
        model, pool, muon_lr=recipe.muon_lr, adamw_lr=recipe.adamw_lr, weight_decay=recipe.weight_decay
    )
    progress = Progress(asdict(recipe), text_sha256, minutes=minutes)
    if file.exists():
        found = load_state(file, model, optimizers)
        if (found.recipe, found.text_sha256) == (progress.recipe, text_sha256):
            progress = found
            progress.minutes = progress.minutes if progress.finished else minutes
            say(f"{recipe.name}: going on from step {progress.step}")
        else:
            raise ValueError(f"'{file}' belongs to another recipe or text: remove it, or give another --build.")
    if progress.finished:
        return progress

    everything, prose = Windows(tokens, recipe.seed + 1), Windows(topics, recipe.seed + 2)
    marks = snapshot_steps(recipe)
    started, started_cpu = time.monotonic() - progress.seconds, time.process_time() - progress.cpu_seconds
    saved = time.monotonic()
    losses: list[float] = []
    while True:
        if progress.step in marks:
            save_half(model, folder / f"step-{progress.step:06d}.safetensors")
        fraction = progress.fraction(recipe)
        if fraction >= 1:
            break
        scale = training.rate(progress.step, fraction, warmup_steps=recipe.warmup_steps, decay_from=recipe.decay_from)
        for optimizer, lr in zip(optimizers, (recipe.muon_lr, recipe.adamw_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
        mixed = recipe.rows - recipe.topic_rows
        batch = torch.stack(
            [everything.row(progress.step * mixed + i) for i in range(mixed)]
            + [prose.row(progress.step * recipe.topic_rows + i) for i in range(recipe.topic_rows)]
        )
        loss = backward(model, batch, pool, threads)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += recipe.rows * WINDOW
        progress.seconds = time.monotonic() - started
        progress.cpu_seconds = time.process_time() - started_cpu
        losses.append(loss)
        if progress.step % 50 == 0:
            row = {
                "step": progress.step,
                "seconds": round(progress.seconds, 1),
                "rate": round(scale, 4),
                "train_nats_per_token": round(float(np.mean(losses)), 4),
            }
            if progress.step % 250 == 0:
                row["held_out_nats_per_token"] = round(peek(model, held_out), 4)
            progress.trace.append(row)
            losses.clear()
            speed = progress.tokens / progress.seconds
            say(f"{recipe.name}: {progress.fraction(recipe):.0%} {row} {speed:,.0f} tokens/s")
        if time.monotonic() - saved > 60:
            save_state(file, model, optimizers, progress)
            saved = time.monotonic()
    pool.shutdown()
    progress.finished = True
    save_state(file, model, optimizers, progress)
    return progress


def backward(model: GPT2LMHeadModel, batch: Tensor, pool: ThreadPoolExecutor, threads: int) -> float:
    """Sets the gradient of the batch's mean loss, each thread working on its own rows, and returns the loss in nats."""
    parameters = list(model.parameters())

    def share(rows: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        hidden = model.transformer(rows[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden).flatten(0, 1)
        loss = functional.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum") / (len(batch) * WINDOW)
        # Not loss.backward(), which would add into the one .grad from all threads at once.
        return loss.item(), torch.autograd.grad(loss, parameters)

    shares = list(pool.map(share, batch.chunk(threads)))
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in shares), strict=True):
        parameter.grad = torch.stack(gradients).sum(0) if len(gradients) > 1 else gradients[0]
    return sum(loss for loss, _ in shares)


def snapshot_steps(recipe: Recipe) -> tuple[int, ...]:
    """Step 0, then steps evenly spaced in their logarithm from 10 to the last."""
    if not recipe.snapshots:
        return ()
    return (0, *(int(np.rint(step)) for step in np.geomspace(10, recipe.steps(), recipe.snapshots - 1)))


@torch.no_grad()
def peek(model: GPT2LMHeadModel, tokens: Tensor, n_windows: int = 64) -> float:
    """Nats per token on windows spread evenly over the held-out stream: for watching, not for the card."""
    starts = torch.linspace(0, len(tokens) - WINDOW - 1, n_windows).long()
    total = 0.0
    for chunk in starts.split(16):
        batch = torch.stack([tokens[start : start + WINDOW + 1] for start in chunk])
        logits = model(batch[:, :-1], use_cache=False).logits
        total += functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    return total / (n_windows * WINDOW)


# Files ------------------------------------------------------------------------------------------------------------


def write(file: Path, save: Callable[[Path], object]) -> None:
    """Write under a temporary name, then rename: the file is whole or absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    save(temporary)
    temporary.chmod(0o644)  # safetensors writes for its owner alone, and a package is read by all
    os.replace(temporary, file)


def weights(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """Every parameter once: the unembedding is the embedding."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def save_half(model: GPT2LMHeadModel, file: Path) -> None:
    """Weights as shipped: float16, with the mark by which transformers knows a torch file."""
    halves = {name: weight.half() for name, weight in weights(model).items()}
    write(file, lambda target: save_file(halves, target, metadata={"format": "pt"}))


def save_state(
    file: Path, model: GPT2LMHeadModel, optimizers: Sequence[torch.optim.Optimizer], progress: Progress
) -> None:
    """Weights, optimizer state and progress in one file, so that they cannot disagree."""
    tensors = {f"model/{name}": weight for name, weight in weights(model).items()}
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{j}/{key}": value.clone() for key, value in state.items()}
    metadata = {"progress": json.dumps(asdict(progress))}
    write(file, lambda target: save_file(tensors, target, metadata=metadata))


def load_state(file: Path, model: GPT2LMHeadModel, optimizers: Sequence[torch.optim.Optimizer] = ()) -> Progress:
    """What `save_state` wrote."""
    with safe_open(file, "pt") as opened:
        progress = Progress(**json.loads(opened.metadata()["progress"]))
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"model/{name}"])
    for i, optimizer in enumerate(optimizers):
        packed = optimizer.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimizer/{i}/"):
                _, _, j, key = name.split("/")
                states.setdefault(int(j), {})[key] = value
        optimizer.load_state_dict({"state": states, "param_groups": packed["param_groups"]})
    return progress


def recipe_of(progress: Progress) -> Recipe:
    """The recipe a progress was made by."""
    return Recipe(**progress.recipe)  # pyright: ignore[reportArgumentType]


def say(line: str) -> None:
    """One line of progress."""
    print(line, flush=True)


# Figures ----------------------------------------------------------------------------------------------------------


def compressed(train_bytes: bytes, held_bytes: bytes) -> dict[str, dict[str, float]]:
    """Bits per held-out byte by xz and gzip at their best: alone, and as what the bytes add to the training text."""
    result: dict[str, dict[str, float]] = {}
    for name, size in (
        ("xz -9", lambda data: len(lzma.compress(data, preset=9))),
        ("gzip -9", lambda data: len(gzip.compress(data, compresslevel=9, mtime=0))),
    ):
        result[name] = {
            "alone": 8 * size(held_bytes) / len(held_bytes),
            "conditional": 8 * (size(train_bytes + held_bytes) - size(train_bytes)) / len(held_bytes),
        }
    return result


class ByteModel:
    r"""Byte n-grams with interpolated Kneser-Ney smoothing, one discount an order.

    p_m(b | h) = max(c(hb) - D_m, 0) / c(h) + D_m N(h) / c(h) p_{m-1}(b | h'), where N(h) counts the bytes seen after h,
    h' is h without its first byte, lower orders count the distinct bytes before hb instead of hb, D_m = n_1 / (n_1 +
    2 n_2) from how many counts are one and two, and p_0 is uniform. A context never seen gives way to the next shorter.

    Source: Kneser and Ney, "Improved backing-off for m-gram language modeling", 1995; interpolated form and discounts
    as in Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1999.
    """

    def __init__(self, train: Sequence[bytes], order: int) -> None:
        if not 1 <= order <= 8:
            raise ValueError(
                f"ByteModel: order is {order}; give one from 1 to 8, as many bytes as a 64-bit number holds."
            )
        self.order = order
        self.tables: dict[int, tuple[Any, ...]] = {}
        keys, counts = np.unique(self._grams(train), return_counts=True)
        for m in range(order, 0, -1):
            contexts, starts = np.unique(keys >> np.uint64(8), return_index=True)
            totals = np.add.reduceat(counts, starts)
            kinds = np.diff(np.append(starts, len(keys)))
            ones, twos = (counts == 1).sum(), (counts == 2).sum()
            discount = np.float64(ones / (ones + 2 * twos) if ones else 0.5)
            self.tables[m] = (keys, counts, contexts, totals, kinds, discount)
            keys, counts = np.unique(keys & np.uint64(2 ** (8 * (m - 1)) - 1), return_counts=True)

    def bits(self, document: bytes) -> float:
        """Bits to write the document down, byte by byte from its first."""
        return float(-np.log2(self.probabilities(self._grams([document]))).sum())

    def probabilities(self, grams: np.ndarray) -> np.ndarray:
        """p(last byte | the bytes before it), for n-grams packed into 64-bit numbers."""
        p = np.full(len(grams), 1 / 256)
        for m in range(1, self.order + 1):
            keys, counts, contexts, totals, kinds, discount = self.tables[m]
            short = grams & np.uint64(2 ** (8 * m) - 1)
            at = np.searchsorted(keys, short).clip(max=len(keys) - 1)
            seen = np.where(keys[at] == short, counts[at], 0)
            place = np.searchsorted(contexts, short >> np.uint64(8)).clip(max=len(contexts) - 1)
            known = contexts[place] == short >> np.uint64(8)
            direct = np.maximum(seen - discount, 0) / totals[place]
            p = np.where(known, direct + discount * kinds[place] / totals[place] * p, p)
        return p

    def _grams(self, found: Sequence[bytes]) -> np.ndarray:
        # NUL, which no document holds, pads the start of each, so that its first byte has a context too.
        padding = b"\0" * (self.order - 1)
        data = np.frombuffer(b"".join(padding + document for document in found), dtype=np.uint8)
        size = len(data) - self.order + 1
        packed = np.zeros(size, dtype=np.uint64)
        for i in range(self.order):
            packed = (packed << np.uint64(8)) | data[i : i + size]
        return packed[data[self.order - 1 :] != 0]


@torch.no_grad()
def residual_norms(model: GPT2LMHeadModel, tokens: Tensor, n_windows: int = 64) -> list[dict[str, float]]:
    """Length of the residual stream before the first block and after each, over windows of held-out text."""
    starts = torch.linspace(0, len(tokens) - WINDOW, n_windows).long()
    batch = torch.stack([tokens[start : start + WINDOW] for start in starts])
    streams: list[list[Tensor]] = [[] for _ in range(len(model.transformer.h) + 1)]
    # hidden_states would give the last block's output after the final LayerNorm, so what enters each is taken instead.

    def keep(at: int) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: streams[at].append(inputs[0])

    hooks = [
        module.register_forward_pre_hook(keep(at))
        for at, module in enumerate([*model.transformer.h, model.transformer.ln_f])
    ]
    try:
        for chunk in batch.split(16):
            model.transformer(chunk, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    rows: list[dict[str, float]] = []
    for at, parts in enumerate(streams):
        x = torch.cat(parts).double()
        norms = x.norm(dim=-1)
        flat = x.flatten(0, 1)
        spectrum = torch.linalg.eigvalsh((flat - flat.mean(0)).T @ (flat - flat.mean(0)))
        rows.append(
            {
                "after_block": at,
                "at_position_0": norms[:, 0].mean().item(),
                "at_position_128": norms[:, WINDOW // 2].mean().item(),
                "median": norms.median().item(),
                "largest_over_median": (norms.max() / norms.median()).item(),
                "participation_ratio": (spectrum.sum() ** 2 / (spectrum**2).sum()).item(),
                "n_tokens": float(norms.numel()),
            }
        )
    return rows


def samples(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> list[dict[str, str]]:
    """Continuations at temperature 0.7, the first drawn and not the best."""
    rows: list[dict[str, str]] = []
    generator = torch.Generator().manual_seed(seed)
    for prompt in ('The "try" statement', "class Request(", "def read("):
        ids = torch.tensor([[0, *tokenizer.encode(prompt)]])
        start = ids.shape[1]
        with torch.no_grad():
            for _ in range(48):
                p = (model(ids, use_cache=False).logits[0, -1] / 0.7).softmax(-1)
                ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)[None]], dim=1)
        rows.append({"prompt": prompt, "continuation": str(tokenizer.decode(ids[0, start:].tolist()))})
    return rows


def scored(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, found: Sequence[Document], stride: int
) -> dict[str, object]:
    """Bits per byte over whole documents, in all and by kind."""
    bits = document_bits(model, tokenizer, found, stride=stride)
    sizes = np.array([len(document.text.encode()) for document in found], dtype=np.float64)
    whole = ratio(bits, sizes, stride=stride)
    result: dict[str, object] = {
        "value": whole.value,
        "low": whole.low,
        "high": whole.high,
        "how": whole.how,
        "n_bytes": whole.n,
        "n_documents": len(found),
        "stride": stride,
        "window": WINDOW,
    }
    for kind in sorted({document.kind for document in found}):
        chosen = np.array([document.kind == kind for document in found])
        result[f"{kind}s"] = float(bits[chosen].sum() / sizes[chosen].sum())
    return result


def training_figures(progress: Progress, n_train_tokens: int) -> dict[str, Any]:
    """How one of the two was trained."""
    recipe = recipe_of(progress)
    return {
        "parameters": recipe.model().num_parameters(),
        "recipe": progress.recipe,
        "steps": progress.step,
        "planned_steps": recipe.steps(),
        "tokens": progress.tokens,
        "passes": progress.tokens / n_train_tokens,
        "minutes_limit": progress.minutes,
        "seconds": round(progress.seconds, 1),
        "cpu_seconds": round(progress.cpu_seconds, 1),
        "trace": progress.trace,
    }


def measure(
    task: TrainPocket,
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    found: Sequence[Document],
    trained: tuple[Progress, Progress],
    n_tokens: tuple[int, int],
) -> dict[str, object]:
    """Every number of the card. `model` is the one loaded from the folder, so its weights are those shipped."""
    train_documents, held_documents = pocket_text.split(found)
    train_bytes, held_bytes = (
        [document.text.encode() for document in side] for side in (train_documents, held_documents)
    )
    n_held = sum(map(len, held_bytes))
    pocket, twin = trained
    say("scoring")
    held_stream = stream(tokenizer, held_documents)
    figures: dict[str, Any] = {
        "made_with": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
            "threads": task.threads,
            "machine": platform.machine(),
        },
        "text": {
            "sha256": pocket_text.text_hash(found),
            "from": (
                f"the text that CPython {platform.python_version()} carries: the topics of `pydoc_data` and the source "
                "files of the standard library, without tests, encodings, idlelib, lib2to3, turtledemo, bundled wheels "
                "and installed packages"
                if task.text is None
                else "a text given with `--text`"
            ),
            "copyright": sys.copyright.splitlines()[0],
            "train_documents": len(train_documents),
            "train_bytes": sum(map(len, train_bytes)),
            "train_tokens": n_tokens[0],
            "held_out_documents": len(held_documents),
            "held_out_bytes": n_held,
            "held_out_tokens": n_tokens[1],
            "held_out_names": [document.name for document in held_documents],
        },
        "pocket": training_figures(pocket, n_tokens[0]),
        "twin": training_figures(twin, n_tokens[0]),
        "bits_per_byte": scored(model, tokenizer, held_documents, stride=WINDOW // 2),
        "bits_per_byte_without_overlap": scored(model, tokenizer, held_documents, stride=WINDOW)["value"],
        "bits_per_byte_train_sample": scored(
            model, tokenizer, train_documents[:: max(1, len(train_documents) // 25)], WINDOW // 2
        ),
        "bits_per_byte_untrained": scored(recipe_of(pocket).model().eval(), tokenizer, held_documents, stride=WINDOW)[
            "value"
        ],
        "residual": residual_norms(model, held_stream),
        "samples": samples(model, tokenizer),
    }
    say("comparing")
    figures["compressors"] = compressed(b"".join(train_bytes), b"".join(held_bytes))
    figures["byte_models"] = {
        str(order): sum(map(ByteModel(train_bytes, order).bits, held_bytes)) / n_held for order in (5, 8)
    }
    return figures


# The folders ------------------------------------------------------------------------------------------------------


def write_model(folder: Path, state: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The standard transformers folder."""
    with safe_open(state, "pt") as opened:
        recipe = recipe_of(Progress(**json.loads(opened.metadata()["progress"])))
    model = recipe.model()
    load_state(state, model)
    folder.mkdir(parents=True, exist_ok=True)
    with without_progress_bars():
        model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_tokenizer(folder, tokenizer)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """tokenizer.json and tokenizer_config.json, the latter with the class name that every reader knows."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # How it was last read is no property of a tokenizer.
    config = {key: value for key, value in config.items() if key not in {"is_local", "local_files_only", "backend"}}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_history(
    folder: Path, work: Path, progress: Progress, tokenizer: PreTrainedTokenizerFast, held_out: Sequence[Document]
) -> None:
    """The twin's weights at its marked steps, one config, and an index with the score of each."""
    recipe = recipe_of(progress)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("step-*.safetensors"):
        old.unlink()
    config = recipe.config()
    config.architectures = ["GPT2LMHeadModel"]
    config.dtype = torch.float16
    config.save_pretrained(folder)
    rows: list[dict[str, object]] = []
    for step in snapshot_steps(recipe):
        file = f"step-{step:06d}.safetensors"
        shutil.copyfile(work / file, folder / file)
        model = recipe.model().eval()
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / file).items()}, strict=False)
        score = scored(model, tokenizer, held_out, stride=WINDOW)
        say(f"twin, step {step}: {score['value']:.4f} bits per byte")
        rows.append(
            {
                "step": step,
                "tokens": step * recipe.rows * WINDOW,
                "held_out_bits_per_byte": score["value"],
                "file": file,
            }
        )
    index = {
        "recipe": progress.recipe,
        "text_sha256": progress.text_sha256,
        "stride": WINDOW,
        "checkpoints": rows,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def write_hashes(folder: Path) -> None:
    """SHA256, as `sha256sum --check` reads it."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != "SHA256")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256").write_text("".join(lines), encoding="utf-8")


def card(figures: dict[str, Any]) -> str:
    """MODEL_CARD.md from the figures; no number in it is typed."""
    text, made, score, pocket, twin = (figures[key] for key in ("text", "made_with", "bits_per_byte", "pocket", "twin"))
    recipe = pocket["recipe"]
    rows = [
        ("**pocket model**, float16 as shipped", score["value"]),
        (f"the same, windows without overlap (stride {score['window']})", figures["bits_per_byte_without_overlap"]),
        ("the same on documents it was trained on", figures["bits_per_byte_train_sample"]["value"]),
        ("the same architecture untrained", figures["bits_per_byte_untrained"]),
    ]
    rows += [(f"byte {order}-gram model, same training text", value) for order, value in figures["byte_models"].items()]
    for name, sizes in figures["compressors"].items():
        rows.append((f"{name}, given the training text first", sizes["conditional"]))
        rows.append((f"{name}, held-out bytes alone", sizes["alone"]))
    table = "\n".join(f"| {name} | {value:.3f} |" for name, value in rows)
    residual = "\n".join(
        f"| {row['after_block']} | {row['at_position_0']:.1f} | {row['at_position_128']:.1f} | {row['median']:.1f} "
        f"| {row['largest_over_median']:.2f} | {row['participation_ratio']:.0f} |"
        for row in figures["residual"]
    )
    written = "\n\n".join(
        f"```text\n{sample['prompt']} ⟶{sample['continuation']}\n```" for sample in figures["samples"]
    )
    by_kind = ", ".join(f"{kind} {score[kind]:.3f}" for kind in ("topics", "sources", "givens") if kind in score)
    topic_rows = f", {recipe['topic_rows']} of them from the language reference alone" if "topics" in score else ""
    clock = (
        "The schedule ran by tokens alone."
        if pocket["minutes_limit"] is None
        else f"The schedule was bounded by a clock of {pocket['minutes_limit']:g} minutes: {pocket['steps']:,} of "
        f"{pocket['planned_steps']:,} planned steps were done."
    )
    return f"""---
license: mit
library_name: transformers
pipeline_tag: text-generation
---

# The pocket model

A GPT-2 of {pocket["parameters"]:,} parameters (blocks: {recipe["n_layer"]}, width: {recipe["n_embd"]}, heads: {recipe["n_head"]}, window:
{score["window"]}, embeddings tied, byte-level BPE of {VOCABULARY:,} tokens), trained from scratch by `scripts/train_pocket.py` on
{text["from"]}. It is the default subject of Superscope's studies: a real trained language model that
needs no network. Every number below is written by that script from `results.json`.

    from superscope.capture import pocket
    model, tokenizer = pocket.load()

## Held-out bits per byte

{score["value"]:.4f} [{score["low"]:.3f}, {score["high"]:.3f}] ({score["how"]}; n = {score["n_bytes"]:,} bytes; {by_kind}). Windows of
{score["window"]} tokens start {score["stride"]} apart; every held-out byte is counted once, each document's first token included, the end
of a document not. Documents are held out whole, by the SHA-1 of their name.

| on the same {score["n_bytes"]:,} bytes | bits per byte |
|---|--:|
{table}

The byte models are interpolated Kneser-Ney. "Given the training text first" is compress(training + held out) -
compress(training), the files of each side joined in order of name; gzip looks back over 32 kB only. The training-text row is a sample of
{figures["bits_per_byte_train_sample"]["n_documents"]} documents, {figures["bits_per_byte_train_sample"]["n_bytes"]:,} bytes.

## Training

| | pocket model | twin (`history/`) |
|---|--:|--:|
| parameters | {pocket["parameters"]:,} | {twin["parameters"]:,} |
| windows a step | {recipe["rows"]} | {twin["recipe"]["rows"]} |
| steps | {pocket["steps"]:,} | {twin["steps"]:,} |
| tokens | {pocket["tokens"]:,} | {twin["tokens"]:,} |
| passes over the text | {pocket["passes"]:.2f} | {twin["passes"]:.2f} |
| seconds | {pocket["seconds"]:,.0f} | {twin["seconds"]:,.0f} |
| CPU-seconds | {pocket["cpu_seconds"]:,.0f} | {twin["cpu_seconds"]:,.0f} |
| seed | {pocket["recipe"]["seed"]} | {twin["recipe"]["seed"]} |

The pocket model's step has {recipe["rows"]} windows{topic_rows}. Muon (learning rate {recipe["muon_lr"]:g}, weight decay
{recipe["weight_decay"]:g}) on the matrices inside the blocks, AdamW ({recipe["adamw_lr"]:g}) on the rest, {recipe["warmup_steps"]} steps of warm-up, constant, then
linear to zero from {recipe["decay_from"]:.0%} of the schedule, gradients clipped at {recipe["clip"]:g}, no dropout, float32. {clock}
The loss and rate through training are in `results.json`.

Python {made["python"]}, torch {made["torch"]}, transformers {made["transformers"]}, tokenizers {made["tokenizers"]}, {made["machine"]}; threads: {made["threads"]}.
Floating-point sums depend on threads and machine, and a clock on the load, so another run is not equal bit for bit.

## Text

{text["train_documents"]} documents to train on ({text["train_bytes"]:,} bytes, {text["train_tokens"]:,} tokens) and {text["held_out_documents"]} held out
({text["held_out_bytes"]:,} bytes, {text["held_out_tokens"]:,} tokens). The text is read where the script runs and is not stored here; other versions of
Python carry other text, so a figure measured under one differs.

SHA-256 of the text: `{text["sha256"]}`

## Residual stream

Lengths over {figures["residual"][0]["n_tokens"]:,.0f} held-out tokens; 0 is the embedding; windows start anywhere in a document.

| after block | at position 0 | at position 128 | median | largest / median | participation ratio |
|--:|--:|--:|--:|--:|--:|
{residual}

The last column is (sum of eigenvalues)² / (sum of their squares) of the covariance, in dimensions out of {recipe["n_embd"]}.

## What it writes

At temperature 0.7, the first draw from seed 0:

{written}

## Use and limits

For studying how a network stores features: capturing activations, training sparse dictionaries, steering, ablating,
and testing such tools. It knows the look of Python source and of its reference: indentation, docstrings, idioms. It
does not know what the code means, knows no other language, follows no instruction, and what it writes is not to be
relied on. It is far too small to stand for large models: findings here are about this model. Text beyond {score["window"]}
tokens must be cut. The licence headers and names of authors in the library's files were part of its training text.

## Licence

Weights, tokenizer and card: MIT, as Superscope. They were trained on text that is distributed under the Python
Software Foundation License Version 2 (<https://docs.python.org/3/license.html>), none of which is contained here in
its original form: {text["copyright"].rstrip(".")}; All Rights Reserved.
"""  # noqa: E501 - lines are as long as their braces, not as what the card holds


# The command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainPocket:
    """Train the pocket model and its twin, measure them, and write their folders.

    Args:
        text: a file or folder to train on; the running interpreter's own text unless given.
        build: where work in progress lies; kept out of version control.
        out: the folder that gets `model/` and `history/`.
        pocket: the pocket model's recipe.
        twin: its narrow twin's.
        minutes: end the pocket model's schedule by the clock: the decay then starts, and ends, at whichever of the
            token budget and the clock is further.
        threads: threads that share a step.
    """

    text: Path | None = None
    build: Path = REPOSITORY / "build" / "pocket"
    out: Path = REPOSITORY / "superscope" / "capture" / "pocket"
    pocket: Recipe = POCKET
    twin: Recipe = TWIN
    minutes: float | None = None
    threads: int = 2

    def run(self) -> None:
        torch.set_num_threads(1)
        found = pocket_text.documents() if self.text is None else pocket_text.read(self.text)
        train_documents, held_documents = pocket_text.split(found)
        text_sha256 = pocket_text.text_hash(found)
        say(f"text {text_sha256[:12]}: {len(train_documents)} documents to train on, {len(held_documents)} held out")

        folder = self.build / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            train_tokenizer(train_documents).save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        tokens, held_out = stream(tokenizer, train_documents), stream(tokenizer, held_documents)
        # A text of one's own has no topics; then every row comes from all of it.
        topics = stream(tokenizer, [document for document in train_documents if document.kind == "topic"])
        topics = topics if len(topics) > 2 * WINDOW else tokens
        say(f"{len(tokens):,} tokens to train on, {len(held_out):,} held out")

        trained = (
            train(
                self.pocket, self.build / "pocket", tokens, topics, held_out, text_sha256, self.minutes, self.threads
            ),
            train(self.twin, self.build / "twin", tokens, topics, held_out, text_sha256, None, self.threads),
        )

        home = self.out / "model"
        write_model(home, self.build / "pocket" / "state.safetensors", tokenizer)
        with without_progress_bars():
            model = GPT2LMHeadModel.from_pretrained(home, dtype=torch.float32).eval()
        figures = measure(self, model, tokenizer, found, trained, (len(tokens), len(held_out)))
        (home / "results.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (home / "MODEL_CARD.md").write_text(card(figures), encoding="utf-8")
        write_hashes(home)
        write_history(self.out / "history", self.build / "twin", trained[1], tokenizer, held_documents)
        write_hashes(self.out / "history")
        say(f"{figures['bits_per_byte']} in {home}")


if __name__ == "__main__":
    tyro.cli(TrainPocket).run()
    sys.exit(0)
