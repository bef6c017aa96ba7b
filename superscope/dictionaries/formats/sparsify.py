"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors` in a folder per hookpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...core import FormatError, files
from ..sae.rule import Largest
from .form import Form, Format, Given, cannot_hold
from .stored import Settings, Weights


def _recognise(path: Path) -> bool:
    return (path / "cfg.json").is_file() and (path / "sae.safetensors").is_file()


def _read(path: Path, given: Given) -> Form:
    """f = the k largest of ReLU(E (x - b) + e); b is taken from x but by transcoders; atoms as stored."""
    where = path / "cfg.json"
    settings = Settings(files.read_json(where), where, strict=given.strict)
    # normalize_decoder says how it was trained; the norms in the file are what is used.
    settings.ignore("normalize_decoder", "multi_topk")
    d, k = settings.take("d_in", int), settings.take("k", int)
    factor, n = settings.take("expansion_factor", int, 32), settings.take("num_latents", int, 0)
    # 0 stands for d * expansion_factor.
    n = n or d * factor
    settings.choice("activation", ("topk",), "topk")
    skips, transcodes = settings.take("skip_connection", bool, False), settings.take("transcode", bool, False)
    if settings.take("signed", bool, False):
        raise FormatError(f"{where}: signed is set: it keeps negative codes, which the package no longer does.")
    settings.done()
    weights = Weights.safetensors(path / "sae.safetensors", strict=given.strict)
    bias = weights.take("b_dec", d)
    form = Form(
        rule=Largest(k),
        encoder=weights.take("encoder.weight", n, d),
        encoder_bias=weights.take("encoder.bias", n),
        centre=torch.zeros_like(bias) if transcodes else bias,
        atoms=weights.take("W_dec", n, d),
        bias=bias,
        skip=weights.take("W_skip", d, d) if skips else None,
        predicts=skips or transcodes,
        notes=_notes(path),
    )
    weights.done()
    return form


def _notes(path: Path) -> dict[str, Any]:
    """The run's config.json, one folder up, names the model; the folder's own name is the hookpoint."""
    run = path.parent / "config.json"
    if not run.is_file():
        return {}
    model = Settings(files.read_json(run), run, strict=False).take("model", str, "")
    return ({"model": model} if model else {}) | {"site": path.name}


def _write(form: Form, path: Path) -> None:
    rule = form.rule
    if not isinstance(rule, Largest) or rule.signed or form.rows != "as they are":
        raise cannot_hold("sparsify", form, "the k largest of a row, of rows as they are")
    form = form.uncentred() if form.predicts else form.centred()
    n, d = form.encoder.shape
    if form.atoms.shape[1] != d:
        raise FormatError(
            f"the format sparsify predicts as many dimensions as it reads; this has {form.atoms.shape[1]} and {d}."
        )
    weights = {
        "encoder.weight": form.encoder,
        "encoder.bias": form.encoder_bias,
        "W_dec": form.atoms,
        "b_dec": form.bias,
    }
    if form.skip is not None:
        weights["W_skip"] = form.skip
    files.write_tensors(path / "sae.safetensors", weights)
    files.write_json(
        path / "cfg.json",
        {
            "activation": "topk",
            "expansion_factor": max(n // d, 1),
            "normalize_decoder": True,
            "num_latents": n,
            "k": rule.k,
            "multi_topk": False,
            "skip_connection": form.skip is not None,
            "transcode": form.predicts,
            "d_in": d,
        },
    )


SPARSIFY = Format("sparsify", "EleutherAI's sparsify (top-k)", _recognise, _read, _write, predicts=True)
