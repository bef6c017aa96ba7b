"""OpenMOSS: `config.json` and `sae_weights.safetensors` of Llamascopium; Llama Scope's `hyperparams.json` before it."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from ...core import FormatError, files
from ..sae.rule import BatchLargest, Jump, Largest, Rectify, Rule
from .form import Form, Format, Given, RowScaling, cannot_hold
from .stored import Settings, Weights

_NORMS = ("inference", "dataset-wise", "token-wise", "batch-wise")
_AVERAGE = "dataset_average_activation_norm."


def _old_weights(path: Path) -> Path:
    for name in ("pruned", "final"):
        if (path / "checkpoints" / f"{name}.safetensors").is_file():
            return path / "checkpoints" / f"{name}.safetensors"
    return path / "sae_weights.safetensors"


def _recognise(path: Path) -> bool:
    configured = (path / "hyperparams.json").is_file() or (path / "config.json").is_file()
    return configured and not (path / "cfg.json").is_file() and _old_weights(path).is_file()


def _read(path: Path, given: Given) -> Form:
    r"""f = rule(E z + e) where z = sqrt(d) x / (average norm of x); the result is divided by the same for the output.

    With `sparsity_include_decoder_norm` the rule judges each pre-activation times the norm of its atom. Nothing is
    taken from z, but in old dictionaries with `apply_decoder_bias_to_pre_encoder`. The one threshold of
    `hyperparams.json` is in the units of x, as SAELens takes it; the logarithmic ones are in those of z.

    Source:
        He et al., "Llama Scope", 2024; the code of OpenMOSS/Language-Model-SAEs.
    """
    old = (path / "hyperparams.json").is_file()
    where = path / ("hyperparams.json" if old else "config.json")
    settings = Settings(files.read_json(where), where, strict=given.strict)
    weights = Weights.safetensors(_old_weights(path), strict=given.strict)
    linear = "encoder.weight" in weights
    settings.ignore(
        *("device", "dtype", "use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel"),
        *("jumprelu_threshold_window", "expansion_factor", "d_sae"),
    )
    for name, meaning in (("use_glu_encoder", "multiplies two encoders"),):
        if settings.take(name, bool, False):
            raise FormatError(f"{where}: {name} is set: it {meaning}, which no architecture here does.")
    if settings.take("sae_type", str, "sae") != "sae":
        raise FormatError(f"{where}: it is no SAE, and nothing else of this format is read.")
    inside = settings.take("hook_point_in", str, "")
    outside = settings.take("hook_point_out", str, inside)
    if inside != outside:
        raise FormatError(f"{where}: it reads {inside} and predicts {outside}: a transcoder, which no SAE is.")
    d = settings.take("d_model", int)
    if linear:
        encoder = weights.take("encoder.weight", None, d)
        n = len(encoder)
        encoder_bias, atoms = weights.take("encoder.bias", n), weights.take("decoder.weight", d, n).T
        bias_name = "decoder.bias"
    else:
        encoder = weights.take("W_E", d, None).T
        n = len(encoder)
        encoder_bias, atoms = weights.take("b_E", n), weights.take("W_D", n, d)
        bias_name = "b_D"
    biased = settings.take("use_decoder_bias", bool, True)
    bias = weights.take(bias_name, d) if biased else encoder.new_zeros(d)
    subtract = settings.take("apply_decoder_bias_to_pre_encoder", bool, False) if linear else False
    norm = settings.choice("norm_activation", _NORMS, "dataset-wise")
    if norm == "batch-wise":
        raise FormatError(f"{where}: norm_activation is batch-wise, so that codes depend on which rows come together.")
    averages = settings.take("dataset_average_activation_norm", dict, {})
    stored = {name: weights.left.pop(name) for name in list(weights.left) if name.startswith(_AVERAGE)}
    scale, out = 1.0, 1.0
    if norm == "dataset-wise":
        if given.input_scale is not None:
            scale = out = given.input_scale
        else:
            first = averages.get("in", stored.get(_AVERAGE + inside))
            last = averages.get("out", stored.get(_AVERAGE + outside, first))
            if first is None or not float(first) > 0 or not float(last) > 0:
                raise FormatError(
                    f"{path} divides x by its average norm and lacks it. Give input_scale = sqrt(d) / that norm."
                )
            scale, out = math.sqrt(d) / float(first), math.sqrt(d) / float(last)
    activation = settings.choice("act_fn", ("relu", "topk", "jumprelu", "batchtopk"), "relu")
    k = settings.take("top_k", int, 50)
    by_norm = settings.take("sparsity_include_decoder_norm", bool, not old)
    rule: Rule
    if activation == "jumprelu":
        if old:
            # In the units of x, so that it grows with z = scale * x.
            rule = Jump(torch.full((n,), settings.take("jump_relu_threshold", float) * scale))
        else:
            name = "log_jumprelu_threshold" if linear else "activation_function.log_jumprelu_threshold"
            rule = Jump(weights.take(name, n).exp())
    elif activation == "topk":
        rule = Largest(k)
    elif activation == "batchtopk":
        raise FormatError(
            f"{where}: act_fn is batchtopk and the file holds no threshold, so that codes depend on which rows come "
            "together. Turn it into jumprelu with the package that trained it."
        )
    else:
        rule = Rectify()
    # The configurations before Llamascopium hold the whole training run; no name among them changes what is computed.
    if not linear:
        settings.done()
    weights.done()
    rows: RowScaling = "constant norm" if norm == "token-wise" else "as they are"
    notes = {"hook_name": inside} if inside else {}
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
    if by_norm and not isinstance(rule, Rectify):
        norms = atoms.double().norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        if isinstance(rule, Jump):
            # The threshold is compared with pre times norm: what `rescaled` would multiply into it is in it already.
            form = Form(**{**vars(form), "rule": Jump(rule.threshold.double() / norms)})
        form = form.rescaled(norms)
    return form if (scale, out) == (1.0, 1.0) else form.scaled_input(scale, out)


def _write(form: Form, path: Path) -> None:
    rule = form.rule
    if form.rows == "layer norm" or not isinstance(rule, Rectify | Largest | Jump | BatchLargest):
        raise cannot_hold("openmoss", form, "ReLU, top-k and JumpReLU dictionaries, of rows not under layer norm")
    if isinstance(rule, Largest) and rule.signed:
        raise cannot_hold("openmoss", form, "nonnegative codes")
    form = form.uncentred()
    rule = form.rule
    n, d = form.encoder.shape
    if int(d * (n / d)) != n:
        raise FormatError(
            f"the format openmoss stores n = {n} as a multiple of d = {d}, which rounding makes another n."
        )
    weights = {"W_E": form.encoder.T, "b_E": form.encoder_bias, "W_D": form.atoms, "b_D": form.bias}
    if isinstance(rule, Jump | BatchLargest):
        threshold = (
            rule.threshold
            if isinstance(rule, Jump)
            else torch.full((n,), float(rule.threshold), dtype=form.encoder.dtype)
        )
        # Stored as its logarithm: 0, which has none, becomes the smallest number that exp gives back.
        weights["activation_function.log_jumprelu_threshold"] = threshold.clamp_min(
            torch.finfo(form.encoder.dtype).tiny
        ).log()
    files.write_tensors(path / "sae_weights.safetensors", weights)
    hook = str(form.notes.get("hook_name") or form.notes.get("site") or "")
    about = {
        "sae_type": "sae",
        "d_model": d,
        "expansion_factor": n / d,
        "use_decoder_bias": True,
        "act_fn": "topk" if isinstance(rule, Largest) else "relu" if isinstance(rule, Rectify) else "jumprelu",
        "norm_activation": "token-wise" if form.rows == "constant norm" else "inference",
        "sparsity_include_decoder_norm": False,
        "top_k": rule.k if isinstance(rule, Largest) else 50,
        "hook_point_in": hook,
        "hook_point_out": hook,
        "use_glu_encoder": False,
        "device": "cpu",
        "dtype": str(form.encoder.dtype),
    }
    files.write_json(path / "config.json", about)


OPENMOSS = Format("openmoss", "OpenMOSS Llamascopium; Llama Scope is read", _recognise, _read, _write)
