"""From a form to an SAE of ours and back: the one table that knows our architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core import FormatError
from ..sae import (
    SAE,
    AbsTopK,
    Archetypal,
    BatchTopK,
    Gated,
    InterferencePenalised,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    PAnnealed,
    ReLU,
    TopK,
)
from ..transcoders import SkipTranscoder, Transcoder
from .form import BatchLargest, Form, Gate, Jump, Largest, Pursuit, Rectify, Rows, Rule

_L0 = 32

_RULES: dict[type[SAE], Callable[[Any], Rule]] = {
    TopK: lambda sae: Largest(sae.k),
    Archetypal: lambda sae: Largest(sae.k),
    AbsTopK: lambda sae: Largest(sae.k, signed=True),
    ReLU: lambda sae: Rectify(),
    PAnnealed: lambda sae: Rectify(),
    InterferencePenalised: lambda sae: Largest(sae.k),
    JumpReLU: lambda sae: Jump(sae.threshold.detach()),
    BatchTopK: lambda sae: _batch(sae, ()),
    Matryoshka: lambda sae: _batch(sae, tuple(sae.widths)),
    Gated: lambda sae: Gate(sae.log_factor.detach(), sae.magnitude_bias.detach()),
    MatchingPursuit: lambda sae: Pursuit(sae.k),
}


def _batch(sae: Any, groups: tuple[int, ...]) -> Rule:
    """Before its first training batch such an SAE has no threshold, and keeps the k largest of each row."""
    threshold = float(sae.threshold)
    return Largest(sae.k) if threshold < 0 else BatchLargest(sae.k, threshold, groups)


def form_of(sae: SAE, *, rows: Rows = "as they are", notes: dict[str, Any] | None = None) -> Form:
    """What an SAE of ours computes.

    Raises:
        FormatError: if it is of an architecture that no other format knows.
    """
    if isinstance(sae, Transcoder | SkipTranscoder):
        gain, centre = _plain(sae.gain).double(), _plain(sae.centre).double()
        skip = _plain(sae.skip).double() * gain if isinstance(sae, SkipTranscoder) else None
        bias = _plain(sae.bias)
        return Form(
            rule=Largest(sae.k),
            encoder=(_plain(sae.encoder).double() * gain).to(bias.dtype),
            encoder_bias=_plain(sae.encoder_bias),
            centre=centre,
            atoms=_plain(sae.atoms),
            # Ours takes c from x before S, the form does not.
            bias=bias if skip is None else bias.double() - skip @ centre,
            skip=skip,
            predicts=True,
            notes=notes or {},
        )
    if type(sae) not in _RULES:
        raise FormatError(
            f"a {type(sae).__name__} SAE computes what no other format holds. Save it with sae.save(folder)."
        )
    return Form(
        rule=_RULES[type(sae)](sae),
        encoder=_plain(sae.encoder),
        encoder_bias=_plain(sae.encoder_bias),
        centre=_plain(sae.bias),
        atoms=_plain(sae.atoms),
        bias=_plain(sae.bias),
        rows=rows,
        notes=notes or {},
    )


def sae_of(form: Form) -> tuple[SAE, Form]:
    """The SAE that computes a form, and the form with the units of its codes: atoms of norm 1 wherever that is exact.

    Raises:
        FormatError: if no architecture of ours computes it.
    """
    if form.predicts:
        return _transcoder(form)
    form = form.centred().unit()
    n, d = form.encoder.shape
    rule = form.rule
    if isinstance(rule, Largest | Pursuit | BatchLargest) and not 1 <= rule.k <= n:
        raise FormatError(f"it keeps k = {rule.k} of n = {n} latents; k must lie in 1..n. The file is inconsistent.")
    weights = {"atoms": form.atoms, "bias": form.bias, "encoder": form.encoder, "encoder_bias": form.encoder_bias}
    if isinstance(rule, Largest):
        sae = (AbsTopK if rule.signed else TopK)(d=d, n=n, k=rule.k)
    elif isinstance(rule, Pursuit):
        sae = MatchingPursuit(d=d, n=n, k=rule.k)
        del weights["encoder"], weights["encoder_bias"]
    elif isinstance(rule, Jump):
        # k is the L0 that further training would steer to; no foreign file says it, and codes do not depend on it.
        sae = JumpReLU(d=d, n=n, k=min(_L0, n))
        weights["threshold"] = rule.threshold.clamp_min(0)
    elif isinstance(rule, BatchLargest):
        if rule.groups:
            sae = Matryoshka(d=d, n=n, k=rule.k, widths=rule.groups)
        else:
            sae = BatchTopK(d=d, n=n, k=rule.k)
        weights["threshold"] = torch.tensor(max(rule.threshold, 0.0))
    elif isinstance(rule, Gate):
        sae = Gated(d=d, n=n)
        weights |= {"log_factor": rule.log_gain, "magnitude_bias": rule.magnitude_bias}
    else:
        sae = ReLU(d=d, n=n)
    dtype = form.encoder.dtype
    state = {name: weight.to(dtype).contiguous() for name, weight in weights.items()}
    # What is left is the state of training, as a new SAE has it.
    sae.to(dtype).load_state_dict({**sae.state_dict(), **state})
    return sae, form


def _transcoder(form: Form) -> tuple[SAE, Form]:
    form = form.unit()
    rule = form.rule
    (n, d), d_out = form.encoder.shape, form.atoms.shape[1]
    if not isinstance(rule, Largest) or rule.signed:
        raise FormatError("it is a transcoder that does not keep the k largest of a row, and ours do.")
    if not 1 <= rule.k <= n:
        raise FormatError(f"it keeps k = {rule.k} of n = {n} latents; k must lie in 1..n. The file is inconsistent.")
    weights = {
        "atoms": form.atoms,
        "bias": form.bias,
        "encoder": form.encoder,
        "encoder_bias": form.encoder_bias,
        "centre": form.centre,
    }
    if form.skip is None:
        sae = Transcoder(d, n, d_out, rule.k)
    else:
        sae = SkipTranscoder(d, n, d_out, rule.k)
        weights |= {"skip": form.skip, "bias": form.bias.double() + form.skip.double() @ form.centre.double()}
    state = {name: weight.to(form.encoder.dtype).contiguous() for name, weight in weights.items()}
    sae.to(form.encoder.dtype).load_state_dict({**sae.state_dict(), **state})
    return sae, form


def _plain(tensor: Tensor) -> Tensor:
    """Detached, on the CPU, in float32 or float64."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
