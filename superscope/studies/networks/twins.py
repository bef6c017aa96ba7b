"""Does a mixture of experts superpose less than a dense network of as many active parameters? Twins, trained alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t as t_distribution

from ...capture import Subject
from ...core import Findings, Measurement

MIXTURE, DENSE = "mixture", "dense"
CHOSEN = 2
"""Experts that read a token; the dense twin's MLP is as wide as so many of them."""
ROLES = ("resid_post", "mlp_out")
"""Where twins are compared, in the last block: inside a mixture no hidden layer is read by all tokens."""
_WHOLE = "network"

_QUANTITIES = {
    "held_out_loss": "held-out loss",
    "recurring_per_dimension": "directions that recur, for each dimension",
    "interference_energy_ratio": "interference energy over the random frame's",
    "activation_gini": "Gini index",
    "participation_ratio": "dimensions in use",
}


def label_of(kind: str, number: int) -> str:
    """What tables and folders call a twin."""
    return f"{kind}-{number + 1}"


def fresh(
    kind: str, tokenizer: Any, *, context: int, d: int, layers: int, heads: int, experts: int, seed: int
) -> Subject:
    """A twin with random weights: a Mixtral whose experts are 2 d wide, or a Mistral whose MLP is as wide as two.

    All else is alike: embeddings (tied), attention, norms, depth. The mixture's router is what it has more, experts
    numbers for each dimension and block.
    """
    from transformers import AutoModelForCausalLM, MistralConfig, MixtralConfig

    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": d,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "sliding_window": None,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = (
        MixtralConfig(
            **shared,
            intermediate_size=2 * d,
            num_local_experts=experts,
            num_experts_per_tok=CHOSEN,
            router_aux_loss_coef=0.01,
        )
        if kind == MIXTURE
        else MistralConfig(**shared, intermediate_size=2 * d * CHOSEN)
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return Subject(model.eval(), tokenizer, kind, "causal")


def parameters(subject: Subject) -> tuple[int, int]:
    """Parameters that read a token, and all of them.

    Example:
        >>> size = {"context": 4, "d": 4, "layers": 1, "heads": 1, "experts": 4, "seed": 0}
        >>> both = [parameters(fresh(kind, range(8), **size)) for kind in (MIXTURE, DENSE)]
        >>> (active, everything), (dense, same) = both
        >>> active - dense, dense == same, everything > active  # the router: 4 experts, d = 4
        (16, True, True)
    """
    config: Any = subject.model.config
    everything = sum(weight.numel() for weight in subject.model.parameters())
    stacked = sum(weight.numel() for weight in subject.model.parameters() if weight.ndim == 3)
    experts = getattr(config, "num_local_experts", CHOSEN)
    return everything - stacked * (experts - CHOSEN) // experts, everything


def compared(findings: Findings, sites: Mapping[str, Mapping[str, str]], pairs: int) -> list[Measurement]:
    """The mixture less its dense twin in every quantity, with a 95 % interval by Student's t over pairs.

    Args:
        findings: with the measurements of each twin.
        sites: of each kind of twin the name of each role's site.
        pairs: of twins, each trained from one seed on one order of the text.
    """
    found = []
    for name in _QUANTITIES:
        for role in ROLES if name != "held_out_loss" else (_WHOLE,):
            values = {
                kind: [
                    findings[(name, label_of(kind, i), *([] if role == _WHOLE else [places[role]]))].value
                    for i in range(pairs)
                ]
                for kind, places in sites.items()
            }
            at = {"quantity": name, "role": role}
            about: dict[str, Any] = {
                "name": "mixture_over_dense", "unit": "of the quantity", "n": pairs, "of": "pairs of twins",
            }  # fmt: skip
            if any(value is None for each in values.values() for value in each):
                found.append(Measurement(value=None, caution="not measured at every twin", at=at, **about))
                continue
            mixture, dense = (np.array(values[kind], dtype=float) for kind in (MIXTURE, DENSE))
            apart = mixture - dense
            half = float(t_distribution.ppf(0.975, pairs - 1)) * float(apart.std(ddof=1)) / math.sqrt(pairs)
            found.append(
                Measurement(
                    value=float(apart.mean()),
                    low=float(apart.mean()) - half,
                    high=float(apart.mean()) + half,
                    how=f"95 % by Student's t over {pairs} pairs of twins",
                    chance=0.0,
                    chance_is="no difference",
                    caution=f"mixture {mixture.mean():.4g}, dense {dense.mean():.4g}",
                    at=at,
                    **about,
                )
            )
    return found


def sentences(found: Sequence[Measurement]) -> list[str]:
    """What a mixture has more or less of, and where nothing is shown."""
    said = []
    for m in found:
        if m.value is None or m.low is None or m.high is None:
            continue
        verdict = "more" if m.low > 0 else "less" if m.high < 0 else "no difference shown"
        where = "" if m.at["role"] == _WHOLE else f" in {m.at['role']}"
        said.append(
            f"Mixture of experts less its dense twin, {_QUANTITIES[str(m.at['quantity'])]}{where}: {m.value:+.3g} "
            f"[{m.low:+.3g}, {m.high:+.3g}], {verdict} ({m.caution})."
        )
    return said
