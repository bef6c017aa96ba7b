"""OpenAI's sparse_autoencoder: one `.pt` file, a pickle of tensors and a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...core import FormatError, files
from ..sae.rule import Largest, Rectify, Rule
from .form import Form, Format, Given, cannot_hold
from .stored import Weights, read_pickle


def _recognise(path: Path) -> bool:
    return path.is_file() and path.suffix == ".pt" and not path.name.startswith("ae")


def _read(path: Path, given: Given) -> Form:
    """f = activation(E (z - b) + e), where z is x itself for ReLU, and x under layer norm for top-k.

    Source:
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024, and their code, which ties layer norm to top-k.
    """
    weights = Weights(read_pickle(path), path, strict=given.strict)
    weights.ignore("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
    activation = weights.left.pop("activation", "ReLU")
    further = weights.left.pop("activation_state_dict", {})
    rule: Rule
    if activation == "TopK":
        k, after = further.get("k"), further.get("postact_fn", "ReLU")
        if isinstance(k, torch.Tensor) and k.numel() == 1:
            k = int(k)
        if not isinstance(k, int) or after != "ReLU":
            raise FormatError(
                f"{path}: top-k with k = {k!r} followed by {after!r} is not known; k must be whole, and ReLU follow."
            )
        rule = Largest(k)
    elif activation == "ReLU":
        rule = Rectify()
    else:
        raise FormatError(f"{path}: activation is {activation!r}. Known here: ReLU, TopK.")
    encoder = weights.take("encoder.weight", None, None)
    n, d = encoder.shape
    bias = weights.take("pre_bias", d)
    if "decoder.linear.weight" in weights:
        # Tied: the decoder holds the encoder's own matrix and turns it on use.
        atoms = weights.take("decoder.linear.weight", n, d)
    else:
        atoms = weights.take("decoder.weight", d, n).T
    form = Form(
        rule=rule,
        encoder=encoder,
        encoder_bias=weights.take("latent_bias", n),
        centre=bias,
        atoms=atoms,
        bias=bias,
        rows="layer norm" if isinstance(rule, Largest) else "as they are",
    )
    weights.done()
    return form


def _write(form: Form, path: Path) -> None:
    largest = isinstance(form.rule, Largest) and not form.rule.signed and form.rows == "layer norm"
    if not largest and not (isinstance(form.rule, Rectify) and form.rows == "as they are"):
        raise cannot_hold(
            "openai", form, "ReLU dictionaries of rows as they are, and top-k ones of rows under layer norm"
        )
    form = form.centred()
    n = form.n
    weights = {
        "pre_bias": form.bias,
        "latent_bias": form.encoder_bias,
        "encoder.weight": form.encoder,
        "decoder.weight": form.atoms.T,
    }
    stored: dict[str, Any] = {name: w.detach().contiguous().cpu() for name, w in weights.items()}
    stored |= {
        "stats_last_nonzero": torch.zeros(n, dtype=torch.long),
        "latents_activation_frequency": torch.ones(n),
        "latents_mean_square": torch.zeros(n),
        "activation": "ReLU",
        "activation_state_dict": {},
    }
    if isinstance(form.rule, Largest):
        stored |= {"activation": "TopK", "activation_state_dict": {"k": form.rule.k, "postact_fn": "ReLU"}}
    with files.atomic(path) as temporary:
        torch.save(stored, temporary)


OPENAI = Format("openai", "openai/sparse_autoencoder (a pickle)", _recognise, _read, _write, suffix=".pt")
