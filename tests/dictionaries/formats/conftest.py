from __future__ import annotations

import pytest
import torch

from superscope.dictionaries import ARCHITECTURES
from superscope.dictionaries.formats import form as forms

D, N, K = 10, 36, 4


def arguments(architecture):
    wants_k = "k" in architecture.__init__.__annotations__
    return {"d": D, "n": N, "seed": 1} | ({"k": K} if wants_k else {})


@torch.no_grad()
def shaken(architecture, dtype=torch.float32):
    """An SAE with random weights everywhere, its atoms of norm 1, and thresholds that some latents exceed."""
    sae = architecture(**arguments(architecture))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in sae.named_parameters():
        if name not in ("atoms", "mixture", "relaxation"):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if hasattr(sae, "threshold"):
        value = 0.3 + 0.3 * torch.rand(sae.threshold.shape, generator=generator)
        sae.threshold.copy_(value)
    return sae.to(dtype)


@torch.no_grad()
def by_definition(form, x):
    """Codes and reconstructions of a form, dense and in float64, straight from its formula: the judge of readers."""
    double = {name: getattr(form, name).double() for name in ("encoder", "encoder_bias", "centre", "atoms", "bias")}
    centred = x.double() - double["centre"]
    pre = centred @ double["encoder"].T + double["encoder_bias"]
    rule = form.rule
    if isinstance(rule, forms.Rectify):
        f = pre.relu()
    elif isinstance(rule, forms.Jump):
        f = pre * (pre > rule.threshold.double().clamp_min(0))
    elif isinstance(rule, forms.BatchLargest):
        f = pre * (pre > max(rule.threshold, 0.0))
    elif isinstance(rule, forms.Largest):
        size = pre.abs() if rule.signed else pre
        at = size.topk(rule.k, dim=1).indices
        f = torch.zeros_like(pre).scatter(1, at, pre.gather(1, at) if rule.signed else pre.gather(1, at).relu())
    elif isinstance(rule, forms.Gate):
        gain = rule.log_gain.double().exp()
        f = (gain * (centred @ double["encoder"].T) + rule.magnitude_bias.double()).relu() * (pre > 0)
    else:
        f, rest = torch.zeros_like(pre), centred.clone()
        for _ in range(rule.k):
            best, at = (rest @ double["atoms"].T).relu().max(1)
            f[torch.arange(len(f)), at] += best
            rest = rest - best[:, None] * double["atoms"][at]
    return f, f @ double["atoms"] + double["bias"]


def close(a, b, tolerance=1e-5):
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-12)


def inputs(rows=64, d=D, seed=3):
    return 1.5 * torch.randn(rows, d, generator=torch.Generator().manual_seed(seed)) + 0.2


@pytest.fixture(params=ARCHITECTURES, ids=lambda architecture: architecture.__name__)
def sae(request):
    return shaken(request.param)
