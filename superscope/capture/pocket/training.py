"""How are models of the pocket model's architecture made and trained, at its own width and at others?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

MUON_LR, ADAMW_LR, WEIGHT_DECAY, CLIP = 4e-3, 3e-3, 0.1, 1.0
"""Of the matrices inside the blocks, of all else, of those matrices again; and the longest gradient."""
WARMUP_STEPS, DECAY_FROM = 50, 0.5
"""Steps to the full rate, and the progress at which its straight line to zero begins."""


def architecture(*, vocabulary: int, context: int, d: int, layers: int, heads: int) -> transformers.GPT2Config:
    """A GPT-2 of one's own size. No dropout: three passes over the text, fewer parameters than tokens."""
    return transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=d,
        n_layer=layers,
        n_head=heads,
        # The same function as gelu_new, up to rounding, in one kernel.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal: W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) U V^T.

    As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but in float32: that one computes in bfloat16, which
    was 4 times slower on a CPU without bfloat16 instructions.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; scale from Liu et al., "Muon
    is scalable for LLM training", 2025.
    """

    def __init__(
        self, params: Sequence[Tensor], lr: float, weight_decay: float, pool: ThreadPoolExecutor, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.pool = pool

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for _ in self.pool.map(lambda weight, group=group: self._move(weight, group), group["params"]):
                pass

    @torch.no_grad()
    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        towards = weight.grad.lerp(buffer, group["momentum"])
        # The experts of a mixture lie stacked, a matrix each.
        update = torch.stack([orthogonal(one) for one in towards]) if towards.ndim == 3 else orthogonal(towards)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape[-2:])))


def orthogonal(matrix: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
    """Roughly U V^T of the matrix's singular value decomposition, by five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's: steepest at zero; singular values end in about [0.7, 1.2]
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def optimizers(
    model: transformers.PreTrainedModel,
    pool: ThreadPoolExecutor,
    *,
    muon_lr: float = MUON_LR,
    adamw_lr: float = ADAMW_LR,
    weight_decay: float = WEIGHT_DECAY,
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    depth = model.config.num_hidden_layers
    blocks = next(each for each in model.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == depth)
    inside = [weight for weight in blocks.parameters() if weight.ndim > 1]
    known = {id(weight) for weight in inside}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    return (
        Muon(inside, lr=muon_lr, weight_decay=weight_decay, pool=pool),
        torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    )


def rate(step: int, progress: float, *, warmup_steps: int = WARMUP_STEPS, decay_from: float = DECAY_FROM) -> float:
    """The share of the full learning rate at a step: a straight warm-up, a plateau, a straight line to zero.

    Args:
        step: counted from 0.
        progress: in [0, 1].
        warmup_steps: steps to the full rate.
        decay_from: progress at which the line to zero begins.
    """
    return min(1.0, (step + 1) / warmup_steps) * min(1.0, (1 - progress) / (1 - decay_from))


def train(
    model: transformers.PreTrainedModel,
    ids: Int[Tensor, "windows context"],
    targets: Bool[Tensor, "windows context"],
    *,
    passes: int = 1,
    rows: int = 16,
    seed: int = 0,
) -> Iterator[tuple[int, int, float]]:
    """Trains a model in place as the pocket model was trained, and yields step, steps and the loss of each batch.

    The pocket model's optimizers, rates and schedule, its warm-up at most a quarter of all steps; a pass visits every
    window once, in an order of its own. The model ends in evaluation mode.

    Args:
        model: causal, fresh or not; what balances the experts of a mixture is added to its loss.
        ids: windows of tokens.
        targets: which of them are to be predicted; the first of a window never is.
        passes: over the windows.
        rows: windows in a step; the last step of a pass may have fewer.
        seed: of the orders.

    Raises:
        ValueError: if there is no window.
    """
    if not len(ids):
        raise ValueError("train: there is no window of text; give some.")
    each = -(-len(ids) // rows)
    steps = passes * each
    warmup = max(1, min(WARMUP_STEPS, steps // 4))
    device = model.device
    balanced = {"output_router_logits": True} if hasattr(model.config, "router_aux_loss_coef") else {}
    with ThreadPoolExecutor(1) as pool:
        both = optimizers(model.train(), pool)
        full = [[group["lr"] for group in optimizer.param_groups] for optimizer in both]
        for step in range(steps):
            if step % each == 0:
                order = torch.randperm(
                    len(ids), generator=torch.Generator().manual_seed(seed * 1_000_003 + step // each)
                )
            batch = order[step % each * rows : (step % each + 1) * rows]
            scale = rate(step, step / steps, warmup_steps=warmup)
            for optimizer, rates in zip(both, full, strict=True):
                for group, lr in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = lr * scale
            tokens = ids[batch].to(device)
            wanted = torch.where(targets[batch].to(device), tokens, -100)[:, 1:]
            said = model(tokens[:, :-1], use_cache=False, **balanced)
            loss = functional.cross_entropy(said.logits.flatten(0, 1), wanted.flatten())
            balance = getattr(said, "aux_loss", None)
            (loss if balance is None else loss + model.config.router_aux_loss_coef * balance).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            for optimizer in both:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            yield step + 1, steps, loss.item()
    model.eval()
