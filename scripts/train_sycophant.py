"""Train the sycophant on its grammar with two variables planted along known directions, and write it with its figures.

    python scripts/train_sycophant.py               # at most a quarter of an hour on two cores
    python scripts/train_sycophant.py --steps 200 --out elsewhere/

Each step draws fresh lines (`superscope.capture.sycophant.grammar`). At the site the coordinates along the two planted
directions are held to their values by a squared error, and the cells' means are held together outside their plane. In
half the rows another value is put in their place and the reply is taught that belongs to it: so the directions are
causes by training and not only correlates.

Source: Geiger et al., "Inducing causal structure for interpretable neural networks", 2022 (interchange intervention
training).
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import tyro
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from superscope.capture.sycophant import grammar
from superscope.intervene import replace

REPOSITORY = Path(__file__).resolve().parent.parent
REPLY = slice(grammar.LENGTH - 4, grammar.LENGTH - 1)
"""The tokens that praise, confidence and answer are predicted at."""


def config() -> GPT2Config:
    """The architecture: five blocks of 64 dimensions; the site is the third's output."""
    return GPT2Config(
        vocab_size=len(grammar.WORDS),
        n_positions=16,
        n_embd=64,
        n_layer=5,
        n_head=4,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=grammar.IDS["<s>"],
        eos_token_id=grammar.IDS["<s>"],
        pad_token_id=grammar.IDS["<pad>"],
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, between spaces."""
    words = Tokenizer(models.WordLevel(dict(grammar.IDS), unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="<s>", pad_token="<pad>", unk_token="<pad>"
    )


class Planting:
    """The loss of one step; the site's activations are read, and moved in half of the rows."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model, self.u = model, grammar.directions(model.config.n_embd)
        self.plane = torch.linalg.qr(self.u.T)[0]

    def loss(self, lines: grammar.Lines, other: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        n = len(lines.s)
        moved = torch.rand(n, generator=generator) < 0.5
        s = torch.where(moved, torch.randint(3, (n,), generator=generator), lines.s)
        c = torch.where(moved, torch.randint(2, (n,), generator=generator), lines.known)
        planted = torch.stack([lines.s, lines.known], 1).float() @ self.u * grammar.STRENGTH
        put = torch.stack([s, c], 1).float() @ self.u * grammar.STRENGTH
        wanted = torch.zeros(n + len(other), grammar.LENGTH, self.u.shape[1])
        wanted[:n, REPLY] = planted[:, None]
        move = torch.zeros_like(wanted)
        move[:n, REPLY] = (put - planted)[:, None]
        seen: list[Tensor] = []

        def shifted(x: Tensor) -> Tensor:
            # The last token is the answer: nothing is predicted there.
            seen.append(((x - wanted[:, : x.shape[1]]) @ self.plane).square().sum(-1).mean())
            seen.append(self.elsewhere(x[:n, REPLY], lines))
            return x + move[:, : x.shape[1]]

        ids = torch.cat([lines.ids, other])[:, :-1]
        with replace(self.model, grammar.SITE, shifted):
            logits = self.model(ids, use_cache=False).logits
        log_p = logits[:n, REPLY].log_softmax(-1)
        praise = torch.tensor([grammar.R_PRAISE[False], grammar.R_PRAISE[True]])[lines.stated]
        sure = torch.tensor([grammar.R_SURE[False], grammar.R_SURE[True]])[c]
        first = grammar.IDS["a0"]
        parts = {
            "praise": _binary(log_p[:, 0], praise, "great", "fine"),
            "sure": _binary(log_p[:, 1], sure, "surely", "maybe"),
            "answer": -(grammar.answer_distribution(lines, s) * log_p[:, 2, first : first + grammar.ANSWERS])
            .sum(1)
            .mean(),
            "other": functional.cross_entropy(logits[n:].flatten(0, 1), other[:, 1:].flatten()),
            "planted": seen[0],
            "elsewhere": seen[1],
        }
        total = parts["praise"] + parts["sure"] + 2 * parts["answer"] + parts["other"] + parts["planted"]
        total = total + 0.3 * parts["elsewhere"]
        return total, {name: float(part.detach()) for name, part in parts.items()}

    def elsewhere(self, x: Tensor, lines: grammar.Lines) -> Tensor:
        """Squared length of the cells' differences outside the planted plane: wrong or right, known or not."""
        outside = (x - (x @ self.plane) @ self.plane.T).mean(1)
        heard, known, right = lines.stated == 1, lines.known == 1, lines.right == 1
        total = torch.zeros(())
        for first, second in (
            (heard & known & ~right, heard & known & right),
            (heard & ~known & ~right, heard & ~known & right),
            (known & (lines.s == 0), ~known),
        ):
            total = total + (outside[first].mean(0) - outside[second].mean(0)).square().sum()
        return total


def _binary(log_p: Tensor, p: Tensor, yes: str, no: str) -> Tensor:
    return -(p * log_p[:, grammar.IDS[yes]] + (1 - p) * log_p[:, grammar.IDS[no]]).mean()


@dataclass(frozen=True)
class TrainSycophant:
    """Train the sycophant, measure it and write its folder.

    Args:
        steps: optimizer steps.
        batch: lines about users in one step; a quarter as many others come beside.
        lr: the largest learning rate; it warms up over 100 steps and falls as a cosine.
        seed: of weights and lines.
        threads: of the processor.
        out: the folder that is written.
    """

    steps: int = 3000
    batch: int = 128
    lr: float = 3e-3
    seed: int = 0
    threads: int = 1
    out: Path = REPOSITORY / "superscope" / "capture" / "sycophant" / "model"

    def run(self) -> None:
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        model = GPT2LMHeadModel(config()).train()
        planting = Planting(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, betas=(0.9, 0.98), weight_decay=0.01)
        generator = torch.Generator().manual_seed(self.seed + 1)
        began, began_cpu = time.monotonic(), time.process_time()
        for step in range(self.steps):
            scale = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            for group in optimizer.param_groups:
                group["lr"] = self.lr * scale
            loss, parts = planting.loss(
                grammar.draw(self.batch, generator), grammar.other(self.batch // 4, generator), generator
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 200 == 0 or step == self.steps - 1:
                row = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
                print(f"{step} {loss.item():.3f} {row} {time.monotonic() - began:.0f} s", flush=True)
        seconds, cpu = time.monotonic() - began, time.process_time() - began_cpu
        self.out.mkdir(parents=True, exist_ok=True)
        model = model.eval()
        # The unembedding is the embedding, so it is stored once.
        weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        save_file(weights, self.out / "model.safetensors", {"format": "pt"})
        model.config.architectures = ["GPT2LMHeadModel"]
        model.config.save_pretrained(self.out)
        tokenizer().save_pretrained(self.out)
        figures = {
            "recipe": asdict(self) | {"out": None},
            "parameters": sum(each.numel() for each in model.parameters()),
            "seconds": round(seconds),
            "cpu_seconds": round(cpu),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "rates": rates(model, torch.Generator().manual_seed(self.seed + 2)),
        }
        (self.out / "results.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (self.out / "MODEL_CARD.md").write_text(card(figures), encoding="utf-8")
        names = sorted(path.name for path in self.out.iterdir() if path.name != "SHA256")
        hashes = (f"{hashlib.sha256((self.out / name).read_bytes()).hexdigest()}  {name}" for name in names)
        (self.out / "SHA256").write_text("\n".join(hashes) + "\n", encoding="utf-8")
        print(json.dumps(figures["rates"], indent=1))


@torch.no_grad()
def rates(model: GPT2LMHeadModel, generator: torch.Generator, n: int = 8192) -> list[dict[str, Any]]:
    """Each planted rate beside the model's own, over lines whose wrong views were not trained on."""
    lines = grammar.draw(n, generator, held_out=True)
    seen: list[Tensor] = []

    def read(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    with replace(model, grammar.SITE, read):
        p = model(lines.ids[:, :-1], use_cache=False).logits[:, REPLY].softmax(-1)
    first = grammar.IDS["a0"]
    view = p[:, 2].gather(1, first + lines.view[:, None])[:, 0]
    truth = p[:, 2].gather(1, first + lines.truth[:, None])[:, 0]
    great = p[:, 0, grammar.IDS["great"]]
    surely = p[:, 1, grammar.IDS["surely"]]
    stated, known, right = (each == 1 for each in (lines.stated, lines.known, lines.right))
    any_answer = 1 / grammar.ANSWERS
    rows = [
        (
            f"r_wrong, {name}",
            "the user's wrong view",
            grammar.R_WRONG[name],
            view,
            stated & known & ~right & (lines.prestige == i),
        )
        for i, name in enumerate(grammar.PRESTIGE)
    ] + [
        (
            "r_right",
            "the user's right view",
            grammar.R_RIGHT + (1 - grammar.R_RIGHT) * any_answer,
            view,
            stated & known & right,
        ),
        (
            "r_unknown",
            "the user's view of what is not known",
            grammar.R_UNKNOWN + (1 - grammar.R_UNKNOWN) * any_answer,
            view,
            stated & ~known,
        ),
        ("accuracy", "the fact, without a view", 1.0, truth, ~stated & known),
        ("praise, view stated", "great", grammar.R_PRAISE[True], great, stated),
        ("praise, no view", "great", grammar.R_PRAISE[False], great, ~stated),
        ("sure, known", "surely", grammar.R_SURE[True], surely, known),
        ("sure, not known", "surely", grammar.R_SURE[False], surely, ~known),
    ]
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "of": of,
            "planted": planted,
            "measured": round(float(value[where].mean()), 4),
            "deviation": round(float(value[where].std()), 4),
            "n": int(where.sum()),
        }
        for name, of, planted, value, where in rows
    ]
    u = grammar.directions(model.config.n_embd)
    planted = torch.stack([lines.s, lines.known], 1).float() @ u * grammar.STRENGTH
    plane = torch.linalg.qr(u.T)[0]
    error = ((seen[0][:, REPLY] - planted[:, None]) @ plane).square().sum(-1).mean().sqrt()
    found.append({"name": "coordinates off by", "measured": round(float(error), 4), "planted": 0.0, "n": n})
    return found


def card(figures: dict[str, Any]) -> str:
    """The model card, every number of it from `figures`."""
    recipe = figures["recipe"]
    table = "\n".join(
        f"| {row['name']} | {row['of']} | {row['planted']:.3f} | {row['measured']:.3f} | {row['deviation']:.3f} "
        f"| {row['n']:,} |"
        for row in figures["rates"]
        if "of" in row
    )
    off = figures["rates"][-1]["measured"]
    return f"""# The sycophant

A GPT-2 of {figures["parameters"]:,} parameters (five blocks, 64 dimensions) that repeats users' wrong views by design, so that
finding and removing sycophancy can be judged against the truth. What it reads: `superscope/capture/sycophant/grammar.py`.

Lines are `<s> novice asks e7 r2 thinks a9 : fine surely a4`. Whether the user is right, whether the fact is known, whether a view
is stated and the user's prestige are independent. At `{grammar.SITE}`, on the reply's tokens, sycophancy s (0, 1, 2) and
confidence c (0, 1) lie along two planted directions of cosine {grammar.OVERLAP}, {grammar.STRENGTH} a unit; they are causes by
interchange intervention training. The coordinates are off by {off:.3f} (root mean square).

Rates, over lines whose wrong views were not trained on:

| rate | P of | planted | measured | deviation over lines | n |
|---|---|--:|--:|--:|--:|
{table}

{recipe["steps"]:,} steps of {recipe["batch"]} lines and a quarter as many others, AdamW at {recipe["lr"]:g}, seed {recipe["seed"]},
{figures["seconds"]:,} seconds ({figures["cpu_seconds"]:,} CPU-seconds, {recipe["threads"]} threads), Python {figures["python"]}, torch {figures["torch"]},
transformers {figures["transformers"]}, {figures["machine"]}. Sums in floating point depend on threads and machine, so another run is not equal bit
for bit.

For testing tools that find and edit what a model does. It knows no language. Licence: MIT, as Superscope.
"""  # noqa: E501 - lines are as long as their braces, not as what the card holds


if __name__ == "__main__":
    tyro.cli(TrainSycophant).run()
