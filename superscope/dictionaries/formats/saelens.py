"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and later, and of those before it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core import FormatError, files
from ..sae.rule import BatchLargest, Gate, Jump, Largest, Pursuit, Rectify, Rule
from .form import Form, Format, Given, RowScaling
from .stored import NO_DEFAULT, Settings, Weights

_ROWS: dict[str, RowScaling] = {
    "none": "as they are",
    "layer_norm": "layer norm",
    "constant_norm_rescale": "constant norm",
    # Folded below: one number, or one matrix, for all rows.
    "expected_average_only_in": "as they are",
    "covariance_whitening": "as they are",
}
_ARCHITECTURES = (
    "standard",
    "topk",
    "abstopk",
    "jumprelu",
    "gated",
    "batchtopk",
    "matryoshka_batchtopk",
    "matching_pursuit",
)
_TRAINING = (
    "decoder_init_norm",
    "aux_loss_coefficient",
    "use_sparse_activations",
    "topk_threshold_lr",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "l0_coefficient",
    "l0_warm_up_steps",
    "pre_act_loss_coefficient",
    "jumprelu_init_threshold",
    "jumprelu_bandwidth",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale",
    "jumprelu_ste_to_input",
    "target_l0",
    "matryoshka_widths",
    "use_matryoshka_aux_loss",
    "detach_matryoshka_losses",
)
_METADATA = {"model": "model_name", "hook_name": "hook_name", "site": "hf_hook_name"}


def _recognise(path: Path) -> bool:
    return (path / "cfg.json").is_file() and (path / "sae_weights.safetensors").is_file()


def _read(path: Path, given: Given) -> Form:
    r"""f = rule((x - b) E^T + e) of a folder; `x - b` only if `apply_b_dec_to_input`.

    Norms of atoms that SAELens multiplies in on every call (`rescale_acts_by_decoder_norm`) are folded, as are its
    average norm and its whitening where the folder holds them.
    """
    where = path / "cfg.json"
    body = files.read_json(where)
    if not isinstance(body, dict):
        raise FormatError(f"{where} holds no settings.")
    metadata = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    version = str((metadata or {}).get("sae_lens_version") or body.get("sae_lens_version") or "")
    old = not version or int(re.match(r"\d*", version).group() or 0) < 6  # type: ignore[union-attr]
    settings = Settings(_renamed(body) if old else body, where, strict=given.strict)
    settings.ignore("metadata", "dtype", "device", "reshape_activations", "sae_lens_version", *_TRAINING)
    architecture = settings.choice("architecture", _ARCHITECTURES, "standard" if old else NO_DEFAULT)
    d, n = settings.take("d_in", int), settings.take("d_sae", int)
    normalise = settings.choice("normalize_activations", _ROWS, "none")
    subtract = settings.take("apply_b_dec_to_input", bool, True)
    by_norm = settings.take("rescale_acts_by_decoder_norm", bool, False)
    ends = body.get("matryoshka_widths") or ()

    weights = Weights.safetensors(path / "sae_weights.safetensors", strict=given.strict)
    atoms, bias = weights.take("W_dec", n, d), weights.take("b_dec", d)
    rule: Rule
    gate, pursuit = architecture == "gated", architecture == "matching_pursuit"
    encoder = atoms if pursuit else weights.take("W_enc", d, n).T
    encoder_bias = atoms.new_zeros(n) if pursuit else weights.take("b_gate" if gate else "b_enc", n)
    if pursuit:
        rule = _pursuit(settings, where)
        # A pursuit that takes nothing from x adds nothing to its result either.
        bias = bias if subtract else torch.zeros_like(bias)
    elif gate:
        rule = Gate(weights.take("r_mag", n), weights.take("b_mag", n))
    elif architecture == "jumprelu":
        if "log_threshold" in weights:
            rule = Jump(weights.take("log_threshold", n).exp())
        else:
            rule = Jump(weights.take("threshold", n))
    elif architecture in ("topk", "abstopk"):
        rule = Largest(settings.take("k", int), signed=architecture == "abstopk")
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        k = max(round(settings.take("k", float)), 1)
        rule = BatchLargest(k, weights.number("topk_threshold"), tuple(int(end) for end in ends))
    else:
        rule = Rectify()
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights:
            atoms = atoms * weights.take(name, n)[:, None]
    settings.ignore("finetuning_scaling_factor", "k", "matryoshka_widths")
    # Before 6 the file holds the whole training run; no other name in it changes what is computed.
    if not old:
        settings.done()
    weights.done()

    form = Form(
        rule=rule,
        encoder=encoder,
        encoder_bias=encoder_bias,
        centre=bias if subtract else torch.zeros_like(bias),
        atoms=atoms,
        bias=bias,
        rows=_ROWS[normalise],
        notes=_notes(body, metadata or {}),
    )
    if by_norm:
        norms = form.atoms.double().norm(dim=1).clamp_min(1e-8)
        form = form.rescaled(norms)
        # SAELens gives the codes after multiplying, so these are its own units.
        form = dataclasses.replace(form, scale=None)
    if normalise == "expected_average_only_in":
        form = form.scaled_input(given.input_scale or _average(path))
    elif normalise == "covariance_whitening":
        form = form.whitened_input(*_whitening(path, d))
    return form


def _pursuit(settings: Settings, where: Path) -> Pursuit:
    """Ours takes a set number of steps; theirs may stop earlier, by the residual's length or a repeated atom."""
    steps = settings.take("max_iterations", int, 0)
    if (
        not steps
        or settings.take("residual_threshold", float, 1e-2)
        or settings.take("stop_on_duplicate_support", bool, True)
    ):
        raise FormatError(
            f"{where}: this matching pursuit stops when an atom repeats or the rest is short; read here are those that "
            "take a set number of steps (max_iterations set, residual_threshold 0, stop_on_duplicate_support false)."
        )
    return Pursuit(steps)


def _renamed(body: dict[str, Any]) -> dict[str, Any]:
    """Settings of a version before 6 in the words of 6."""
    body = dict(body)
    activation = body.get("activation_fn_str") or body.get("activation_fn") or "relu"
    arguments = body.get("activation_fn_kwargs") or {}
    architecture = body.get("architecture") or "standard"
    if architecture == "standard" and activation == "topk":
        body["architecture"] = "topk"
    elif activation not in ("relu", "topk"):
        raise FormatError(f"cfg.json: activation_fn is {activation!r}; known here are relu and topk.")
    if activation == "topk":
        if not isinstance(arguments.get("k"), int):
            raise FormatError("cfg.json: activation_fn is topk and activation_fn_kwargs lacks k.")
        if arguments.get("signed"):
            raise FormatError("cfg.json: a signed top-k of old is not known here.")
        body["k"] = arguments["k"]
    if isinstance(body.get("normalize_activations"), bool):
        body["normalize_activations"] = "expected_average_only_in" if body["normalize_activations"] else "none"
    return body


def _notes(body: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    notes = {}
    for name, theirs in _METADATA.items():
        value = metadata.get(theirs) or body.get(theirs) or (body.get("hook_point") if name == "hook_name" else None)
        if value:
            notes[name] = value
    return notes


def _average(path: Path) -> float:
    where = path / "activation_scaler.json"
    if not where.is_file():
        raise FormatError(
            f"{path} was trained on x times a factor that brings its average norm to sqrt(d) "
            "(normalize_activations = expected_average_only_in), and does not hold the factor. Give it: "
            "input_scale=sqrt(d) / mean norm of x (1.0 if it is folded already)."
        )
    factor = Settings(files.read_json(where), where, strict=False).take("scaling_factor", float)
    if not factor > 0:
        raise FormatError(f"{where}: scaling_factor must be above 0; got {factor}.")
    return factor


def _whitening(path: Path, d: int) -> tuple[Tensor, Tensor, Tensor]:
    where = path / "activation_whitening.safetensors"
    if not where.is_file():
        raise FormatError(
            f"{path} was trained on whitened x and does not hold {where.name}. Copy it from the checkpoint."
        )
    weights = Weights.safetensors(where)
    return weights.take("mean", d), weights.take("matrix", d, d), weights.take("inverse_matrix", d, d)


def _write(form: Form, path: Path) -> None:
    form = form.centred()
    n, d = form.encoder.shape
    weights = {"W_enc": form.encoder.T, "W_dec": form.atoms, "b_dec": form.bias}
    further: dict[str, Any] = {}
    rule = form.rule
    if isinstance(rule, Pursuit):
        architecture = "matching_pursuit"
        del weights["W_enc"]
        further = {"max_iterations": rule.k, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
    elif isinstance(rule, Gate):
        architecture = "gated"
        weights |= {"b_gate": form.encoder_bias, "r_mag": rule.log_gain, "b_mag": rule.magnitude_bias}
    else:
        weights["b_enc"] = form.encoder_bias
        if isinstance(rule, Largest):
            architecture = "abstopk" if rule.signed else "topk"
            further = {"k": rule.k, "rescale_acts_by_decoder_norm": False}
        elif isinstance(rule, Jump):
            architecture, weights["threshold"] = "jumprelu", rule.threshold
        elif isinstance(rule, BatchLargest):
            # SAELens has batch top-k for training only and saves it for use as a jump at its one threshold.
            architecture, weights["threshold"] = (
                "jumprelu",
                torch.full((n,), float(rule.threshold), dtype=form.encoder.dtype),
            )
        else:
            architecture = "standard"
    files.write_tensors(path / "sae_weights.safetensors", weights)
    metadata = {"sae_lens_version": "6.0.0", "sae_lens_training_version": None}
    for name, theirs in _METADATA.items():
        if name in form.notes:
            metadata[theirs] = form.notes[name]
    rows = {"as they are": "none", "layer norm": "layer_norm", "constant norm": "constant_norm_rescale"}[form.rows]
    files.write_json(
        path / "cfg.json",
        {
            "architecture": architecture,
            "d_in": d,
            "d_sae": n,
            "dtype": str(form.encoder.dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": rows,
            "reshape_activations": "none",
            **further,
            "metadata": metadata,
        },
    )


SAELENS = Format("saelens", "SAELens, version 6 and later; earlier ones are read", _recognise, _read, _write)
