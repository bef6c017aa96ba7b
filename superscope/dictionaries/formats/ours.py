"""From a form to an SAE of ours and back. An architecture says itself by which rule it keeps, and which it takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...core import FormatError
from ..sae import ARCHITECTURES, SAE
from ..sae.rule import BatchLargest, Largest, Pursuit
from ..transcoders import TRANSCODERS, Predictor
from .form import Form, RowScaling


def form_of(sae: SAE, *, rows: RowScaling = "as they are", notes: dict[str, Any] | None = None) -> Form:
    """What an SAE of ours computes.

    Raises:
        FormatError: if it is of an architecture that no other format knows.
    """
    rule = sae.rule()
    if rule is None:
        raise FormatError(
            f"a {type(sae).__name__} SAE computes what no other format holds. Save it with sae.save(folder)."
        )
    if isinstance(sae, Predictor):
        gain, centre = _plain(sae.gain).double(), _plain(sae.centre).double()
        skip = _plain(sae.get_parameter("skip")).double() * gain if sae.skips else None
        bias = _plain(sae.bias)
        return Form(
            rule=rule,
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
    return Form(
        rule=rule,
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
    if isinstance(form.rule, Largest | Pursuit | BatchLargest):
        _check_k(form.rule.k, n)
    for architecture in ARCHITECTURES:
        sae = architecture.keeping(form.rule, d, n)
        if sae is not None:
            weights = {"atoms": form.atoms, "bias": form.bias}
            weights |= {"encoder": form.encoder, "encoder_bias": form.encoder_bias}
            # One that reads x by its atoms has no encoder of its own.
            return _filled(sae, form, {name: weights[name] for name in weights if name in sae.state_dict()})
    raise FormatError(f"no architecture of ours keeps by {type(form.rule).__name__}.")


def _transcoder(form: Form) -> tuple[SAE, Form]:
    form = form.unit()
    rule = form.rule
    (n, d), d_out = form.encoder.shape, form.atoms.shape[1]
    if not isinstance(rule, Largest) or rule.signed:
        raise FormatError("it is a transcoder that does not keep the k largest of a row, and ours do.")
    _check_k(rule.k, n)
    weights = {"atoms": form.atoms, "bias": form.bias, "encoder": form.encoder, "encoder_bias": form.encoder_bias}
    weights["centre"] = form.centre
    if form.skip is not None:
        weights |= {"skip": form.skip, "bias": form.bias.double() + form.skip.double() @ form.centre.double()}
    kinds = (kind for kind in TRANSCODERS if issubclass(kind, Predictor))
    sae = next(kind for kind in kinds if kind.skips == (form.skip is not None))(d, n, d_out, rule.k)
    return _filled(sae, form, weights)


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise FormatError(f"it keeps k = {k} of n = {n} latents; k must lie in 1..n. The file is inconsistent.")


def _filled(sae: SAE, form: Form, weights: dict[str, Tensor]) -> tuple[SAE, Form]:
    """What no weight is given for is the state of training, as a new SAE has it."""
    dtype = form.encoder.dtype
    state = {name: weight.to(dtype).contiguous() for name, weight in weights.items()}
    sae.to(dtype).load_state_dict({**sae.state_dict(), **state})
    return sae, form


def _plain(tensor: Tensor) -> Tensor:
    """Detached, on the CPU, in float32 or float64."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
