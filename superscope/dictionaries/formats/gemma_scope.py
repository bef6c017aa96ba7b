"""Gemma Scope: `params.npz` of the first release, `config.json` and `params.safetensors` of the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core import FormatError, files
from ..sae.rule import BatchLargest, Jump, Rectify
from .form import Form, Format, Given, cannot_hold
from .stored import Settings, Weights, read_npz


def _npz(path: Path) -> Path:
    return path / "params.npz" if path.is_dir() else path


def _recognise(path: Path) -> bool:
    return (path.is_file() and path.suffix == ".npz") or (path / "params.npz").is_file()


def _recognise_2(path: Path) -> bool:
    return (path / "params.safetensors").is_file()


def _read(path: Path, given: Given) -> Form:
    """f = pre where pre = x E^T + e exceeds the threshold; nothing is taken from x before encoding.

    The dictionaries of the embedding read embeddings divided by sqrt(d): give input_scale = 1 / sqrt(d) for those.

    Source:
        Lieberum et al., "Gemma Scope", 2024.
    """
    weights = Weights(read_npz(_npz(path)), _npz(path), strict=given.strict)
    return _form(weights, path, given, upper=True)


def _read_2(path: Path, given: Given) -> Form:
    """As the first release, with lower-case names; transcoders of it are refused."""
    where = path / "config.json"
    notes = {}
    if where.is_file():
        settings = Settings(files.read_json(where), where, strict=False)
        settings.choice("architecture", ("jump_relu",), "jump_relu")
        inside = settings.take("hf_hook_point_in", str, "")
        outside = settings.take("hf_hook_point_out", str, "") or inside
        if inside != outside:
            raise FormatError(f"{where}: it reads {inside} and predicts {outside}: a transcoder, which no SAE is.")
        model = settings.take("model_name", str, "")
        notes = ({"model": model} if model else {}) | ({"hook_name": inside} if inside else {})
    weights = Weights.safetensors(path / "params.safetensors", strict=given.strict)
    if "affine_skip_connection" in weights:
        raise FormatError(f"{path} adds a linear map of x to its result: a skip transcoder, which no SAE is.")
    return _form(weights, path, given, upper=False, notes=notes)


def _form(weights: Weights, path: Path, given: Given, *, upper: bool, notes: dict[str, str] | None = None) -> Form:
    encoder = weights.take("W_enc" if upper else "w_enc", None, None).T
    n, d = encoder.shape
    bias = weights.take("b_dec", d)
    if "scaling_factor" in weights:
        factor = weights.take("scaling_factor", n)
        if not bool(torch.isclose(factor, torch.ones_like(factor)).all()):
            raise FormatError(f"{path} scales its codes once more (scaling_factor), which is not known here.")
    form = Form(
        rule=Jump(weights.take("threshold", n)),
        encoder=encoder,
        encoder_bias=weights.take("b_enc", n),
        centre=torch.zeros_like(bias),
        atoms=weights.take("W_dec" if upper else "w_dec", n, d),
        bias=bias,
        notes=notes or {},
    )
    weights.done()
    return form if given.input_scale is None else form.scaled_input(given.input_scale)


def _arrays(form: Form, name: str) -> dict[str, torch.Tensor]:
    """The five arrays: a ReLU dictionary jumps at 0, a batch top-k one at its threshold."""
    if not isinstance(form.rule, Jump | Rectify | BatchLargest) or form.rows != "as they are":
        raise cannot_hold(name, form, "dictionaries with a threshold per latent, of rows as they are")
    form = form.uncentred()
    rule = form.rule
    if isinstance(rule, Jump):
        threshold = rule.threshold
    else:
        threshold = torch.full((form.n,), max(rule.threshold, 0.0) if isinstance(rule, BatchLargest) else 0.0)
    arrays = {
        "W_enc": form.encoder.T,
        "W_dec": form.atoms,
        "b_enc": form.encoder_bias,
        "b_dec": form.bias,
        "threshold": threshold,
    }
    return {name: array.detach().contiguous().cpu() for name, array in arrays.items()}


def _write(form: Form, path: Path) -> None:
    # Any, since the checker takes the names for savez's own arguments.
    arrays: dict[str, Any] = {name: array.numpy() for name, array in _arrays(form, "gemma_scope").items()}
    with files.atomic(path / "params.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _write_2(form: Form, path: Path) -> None:
    arrays = _arrays(form, "gemma_scope_2")
    lower = {name.replace("W_", "w_"): array for name, array in arrays.items()}
    files.write_tensors(path / "params.safetensors", lower)
    hook = form.notes.get("hook_name") or form.notes.get("site") or ""
    about = {"architecture": "jump_relu", "model_name": str(form.notes.get("model", "")), "hf_hook_point_in": str(hook)}
    files.write_json(path / "config.json", about)


GEMMA_SCOPE = Format("gemma_scope", "Gemma Scope (npz)", _recognise, _read, _write)
GEMMA_SCOPE_2 = Format("gemma_scope_2", "Gemma Scope 2 (safetensors)", _recognise_2, _read_2, _write_2)
