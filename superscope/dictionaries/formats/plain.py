"""One safetensors file of weights: with a header of ours that says what they compute, or as the caller says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ...core import FormatError, files
from ..sae.rule import BatchLargest, Gate, Jump, Largest, Pursuit, Rectify, Rule
from .form import Form, Format, Given, RowScaling
from .stored import Settings, Weights

_RULES = ("relu", "topk", "abstopk", "batchtopk", "jumprelu", "gated")
_ROWS: dict[str, RowScaling] = {name: name for name in ("as they are", "layer norm", "constant norm")}  # type: ignore[misc]
# Names in use for the same four tensors, ours first.
_ENCODER = ("encoder", "encoder.weight", "W_enc", "w_enc", "W_E", "encoder_linear.weight")
_ENCODER_BIAS = ("encoder_bias", "encoder.bias", "b_enc", "b_E", "encoder_linear.bias", "latent_bias")
_ATOMS = ("atoms", "decoder.weight", "W_dec", "w_dec", "W_D", "decoder_linear.weight")
_BIAS = ("bias", "decoder.bias", "b_dec", "b_D", "decoder_linear.bias", "pre_bias")
_THRESHOLD = ("threshold", "thresholds")


def _recognise(path: Path) -> bool:
    return path.is_file() and path.suffix == ".safetensors"


def _read(path: Path, given: Given) -> Form:
    """f = rule(E (x - c) + e). What neither the header nor the caller says is asked for, never guessed.

    Without the header, the tensors go by the names others use, and the way round that n and d allow.
    """
    header = _header(path)
    weights = Weights.safetensors(path, strict=given.strict)
    bias = weights.take(_one(weights, _BIAS), None)
    d = len(bias)
    if header is not None and header.get("rule") == "pursuit":
        # There is no encoder: the atoms are asked again at every step.
        atoms = weights.take("atoms", None, d)
        n = len(atoms)
        encoder, encoder_bias = atoms, atoms.new_zeros(n)
    else:
        encoder_bias = weights.take(_one(weights, _ENCODER_BIAS), None)
        n = len(encoder_bias)
        encoder = _turned(weights, _one(weights, _ENCODER), n, d)
        atoms = _turned(weights, _one(weights, _ATOMS), n, d)
    notes, rows = {}, _ROWS["as they are"]
    if header is None:
        rule_name, k, ends = given.architecture, given.k, ()
        if rule_name is None and any(name in weights for name in _THRESHOLD):
            rule_name = "jumprelu"
        if rule_name is None:
            raise FormatError(
                f"{path} holds weights and does not say what is done with E x. Say it: architecture = one of "
                f"{', '.join(_RULES)} (--architecture)."
            )
        subtract = given.subtract_bias
        if subtract is None and bool(bias.any()):
            raise FormatError(
                f"{path} does not say whether its bias is taken from x before encoding, and codes depend on it. Say "
                "subtract_bias=True or subtract_bias=False (--subtract-bias True or False)."
            )
    else:
        settings = Settings(header, f"the header of {path}", strict=given.strict)
        rule_name, k = settings.choice("rule", (*_RULES, "pursuit")), settings.take("k", int, 0)
        ends, subtract = tuple(settings.take("groups", list, [])), True
        rows = _ROWS[settings.choice("rows", _ROWS)]
        notes = settings.take("notes", dict, {})
        settings.done()
    rule: Rule
    if rule_name in ("topk", "abstopk", "batchtopk", "pursuit") and not k:
        raise FormatError(f"{path} does not say how many latents a row keeps. Say it: k = ... (--k).")
    if rule_name in ("topk", "abstopk"):
        rule = Largest(int(k or 0), signed=rule_name == "abstopk")
    elif rule_name == "batchtopk":
        rule = BatchLargest(int(k or 0), weights.number(_one(weights, _THRESHOLD)), ends)
    elif rule_name == "jumprelu":
        rule = Jump(weights.take(_one(weights, _THRESHOLD), n))
    elif rule_name == "pursuit" and header is not None:
        rule = Pursuit(int(k or 0))
    elif rule_name == "gated":
        rule = Gate(weights.take("log_gain", n), weights.take("magnitude_bias", n))
    elif rule_name == "relu":
        rule = Rectify()
    else:
        raise FormatError(f"architecture {rule_name!r} is not known. Known: {', '.join(_RULES)}.")
    weights.done()
    form = Form(
        rule=rule,
        encoder=encoder,
        encoder_bias=encoder_bias,
        centre=bias if subtract else torch.zeros_like(bias),
        atoms=atoms,
        bias=bias,
        rows=rows,
        notes=notes,
    )
    return form if given.input_scale is None else form.scaled_input(given.input_scale)


def _header(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get("superscope_form")
    except safetensors.SafetensorError as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}). It may be truncated; copy or make it again."
        ) from error
    if stored is None:
        return None
    try:
        header = json.loads(stored)
    except json.JSONDecodeError as error:
        raise FormatError(f"the header of {path} is damaged ({error}). Make the file again.") from error
    if not isinstance(header, dict):
        raise FormatError(f"the header of {path} is no set of settings. Make the file again.")
    return header


def _one(weights: Weights, names: tuple[str, ...]) -> str:
    found = [name for name in names if name in weights]
    if len(found) == 1:
        return found[0]
    if found:
        raise FormatError(f"{weights.where} has {' and '.join(found)}, which name the same thing.")
    raise FormatError(
        f"{weights.where} has none of {', '.join(names)}. It has: {', '.join(sorted(weights.left)[:12]) or 'nothing'}."
    )


def _turned(weights: Weights, name: str, n: int, d: int) -> Tensor:
    """The n x d matrix, whichever way round it is stored."""
    stored = weights.left[name]
    shape = tuple(stored.shape) if isinstance(stored, Tensor) else ()
    if n == d or shape == (n, d):
        if n == d and name not in ("encoder", "encoder.weight", "atoms", "W_dec", "w_dec", "W_D"):
            # Square: only the name tells. W_enc and W_E are applied as x @ W, a linear decoder as its transpose.
            return weights.take(name, d, n).T
        return weights.take(name, n, d)
    if shape == (d, n):
        return weights.take(name, d, n).T
    return weights.take(name, n, d)


def _write(form: Form, path: Path) -> None:
    form = form.centred()
    rule = form.rule
    weights = {
        "encoder": form.encoder,
        "encoder_bias": form.encoder_bias,
        "atoms": form.atoms,
        "bias": form.bias,
    }
    header: dict[str, Any] = {"rows": form.rows, "notes": dict(form.notes)}
    if isinstance(rule, Largest):
        header |= {"rule": "abstopk" if rule.signed else "topk", "k": rule.k}
    elif isinstance(rule, BatchLargest):
        header |= {"rule": "batchtopk", "k": rule.k, "groups": list(rule.groups)}
        weights["threshold"] = torch.tensor(float(rule.threshold))
    elif isinstance(rule, Jump):
        header["rule"], weights["threshold"] = "jumprelu", rule.threshold
    elif isinstance(rule, Pursuit):
        header |= {"rule": "pursuit", "k": rule.k}
        del weights["encoder"], weights["encoder_bias"]
    elif isinstance(rule, Gate):
        header["rule"] = "gated"
        weights |= {"log_gain": rule.log_gain, "magnitude_bias": rule.magnitude_bias}
    else:
        header["rule"] = "relu"
    files.write_tensors(path, weights, {"superscope_form": json.dumps(header)})


PLAIN = Format("plain", "one safetensors file of weights", _recognise, _read, _write, suffix=".safetensors")
