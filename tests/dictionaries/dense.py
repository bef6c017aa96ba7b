"""The loss of every architecture, straight from its formula: dense products, plain autograd, no shared code."""

from __future__ import annotations

import torch
from torch import Tensor

from superscope import dictionaries as learners
from superscope.testing import Dense, dense_loss


def pre_activations(sae, x):
    return (x - sae.bias) @ sae.encoder.T + sae.encoder_bias


def largest(pre: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(pre).scatter(1, pre.topk(k, dim=1).indices, 1.0)
    return kept * pre.relu()


def error(t_hat: Tensor, target: Tensor, scale: float) -> Tensor:
    return ((target - t_hat) / scale).square().mean()


def relu(sae, x, target, scale, progress):
    f = pre_activations(sae, x).relu()
    length = sae.atoms.norm(dim=1) if sae.about["norm"] == "weighted" else 1.0
    paid = (f * length).sum(1).mean() / sae.d / scale
    return error(f @ sae.atoms + sae.bias, x, scale) + sae.about["coefficient"] * min(progress / 0.05, 1.0) * paid


def gated(sae, x, target, scale, progress):
    gate = pre_activations(sae, x)
    linear = (x - sae.bias) @ (sae.encoder * sae.log_factor.exp()[:, None]).T
    f = (gate > 0) * (linear + sae.magnitude_bias).relu()
    by_gate = gate.relu() @ sae.atoms.detach() + sae.bias.detach()
    paid = gate.relu().sum(1).mean() / sae.d / scale
    whole = error(f @ sae.atoms + sae.bias, x, scale) + error(by_gate, x, scale)
    return whole + sae.about["coefficient"] * min(progress / 0.05, 1.0) * paid


def p_annealed(sae, x, target, scale, progress):
    f = pre_activations(sae, x).relu()
    p = 1 - 0.8 * max(progress - 0.15, 0) / 0.85

    def powers(exponent):
        return torch.where(f > 0, (f / scale + 1e-3) ** exponent, 0.0).sum()

    # From p = 1 in one step: what the batch paid then, it pays now.
    strength = sae.about["coefficient"] * (powers(1.0) / powers(p)).detach()
    paid = strength * powers(p) / len(x) / sae.d
    return error(f @ sae.atoms + sae.bias, x, scale) + min(progress / 0.05, 1.0) * paid


def interference_penalised(sae, x, target, scale, progress):
    f = largest(pre_activations(sae, x), sae.k)
    together = (f > 0).to(f).T @ (f > 0).to(f)
    squares = (sae.atoms @ sae.atoms.T).square() * (1 - torch.eye(sae.n).to(f))
    paid = (together * squares).sum() / len(x) / sae.k
    return error(f @ sae.atoms + sae.bias, x, scale) + sae.about["coefficient"] * paid


def archetypal(sae, x, target, scale, progress):
    atoms = torch.nn.functional.normalize(sae.mixture @ sae.rows + sae.relaxation, dim=1)
    return error(largest(pre_activations(sae, x), sae.k) @ atoms + sae.bias, x, scale)


def over_the_batch(sae, x):
    pre = pre_activations(sae, x)
    cut = pre.flatten().topk(sae.k * len(x)).values[-1]
    return torch.where(pre >= cut, pre, 0.0).relu()


def batch_topk(sae, x, target, scale, progress):
    return error(over_the_batch(sae, x) @ sae.atoms + sae.bias, x, scale)


def matryoshka(sae, x, target, scale, progress):
    f = over_the_batch(sae, x)
    weights = [m ** sae.about["emphasis"] for m in sae.widths]
    losses = [
        w * error(f[:, :m] @ sae.atoms[:m] + sae.bias, x, scale) for w, m in zip(weights, sae.widths, strict=True)
    ]
    return sum(losses) / sum(weights)


def jumprelu(sae, x, target, scale, progress):
    pre = pre_activations(sae, x)
    theta, width = sae.threshold, sae.width
    on = (pre > theta).to(pre)
    near = ((pre - theta).abs() < width / 2).to(pre)
    # Zero in value; its derivative is the kernel's.
    moved = theta - theta.detach()
    f = on * pre - near * theta.detach() / width * moved
    l0 = (on - near / width * moved).sum(1).mean()
    paid = min(progress / sae.about["warmup"], 1.0) * sae.about["coefficient"] * (l0 / sae.k - 1).square()
    return error(f @ sae.atoms + sae.bias, x, scale) + paid


def transcoder(sae, x, target, scale, progress):
    seen = (x - sae.centre) * sae.gain
    t_hat = largest(seen @ sae.encoder.T + sae.encoder_bias, sae.k) @ sae.atoms + sae.bias
    if hasattr(sae, "skip"):
        t_hat = t_hat + seen @ sae.skip.T
    return error(t_hat, target, scale)


def crosscoder(sae, x, target, scale, progress):
    z = (x - sae.centre) * sae.gain
    return error(largest(pre_activations(sae, z), sae.k) @ sae.atoms + sae.bias, z, scale)


DENSE: dict[type, Dense] = {
    learners.Archetypal: archetypal,
    learners.Crosscoder: crosscoder,
    learners.Gated: gated,
    learners.InterferencePenalised: interference_penalised,
    learners.PAnnealed: p_annealed,
    learners.ReLU: relu,
    learners.SkipTranscoder: transcoder,
    learners.Transcoder: transcoder,
}
BY_NAME: dict[str, Dense] = {"BatchTopK": batch_topk, "JumpReLU": jumprelu, "Matryoshka": matryoshka}


def dense(architecture: type) -> Dense:
    """The architecture's own, or that of all whose rule acts on each row alone, without a penalty."""
    return DENSE.get(architecture) or BY_NAME.get(architecture.__name__) or dense_loss
