"""What do TransformerLens and nnsight call a site of ours, and which site is theirs?"""

from __future__ import annotations

import re
from dataclasses import replace

from torch import nn

from ...core import Site, SiteNotFound
from .hook_names import EMBED, LEGACY
from .roles import blocks_or_none, inside, outside


def hook_name(model: nn.Module, site: Site) -> str | None:
    """TransformerLens's name, in its older form, of a site of `model`; None for a place that it has no hook at.

    Args:
        model: of `transformers`.
        site: of it. Of some coordinates alone it has no hook, but of all of a projection's queries, keys or values.

    Example:
        >>> from superscope.capture import load
        >>> model = load("pocket").model
        >>> hook_name(model, Site("transformer.h.2")), hook_name(model, Site("transformer.h.2.mlp.c_proj", "in"))
        ('blocks.2.hook_resid_post', 'blocks.2.mlp.hook_post')
    """
    asked = replace(site, model="")
    if asked == outside(model, "embed"):
        return EMBED[0]
    for layer, block in enumerate(blocks_or_none(model)):
        if not f"{site.path}.".startswith(f"{block}."):
            continue
        for role, name in LEGACY.items():
            if asked == inside(model, block, role, None):
                return f"blocks.{layer}.{name}"
    return None


def envoy(site: Site) -> str:
    """How nnsight writes a site: the module's path, and `.input` or `.output`.

    Raises:
        ValueError: for one of several outputs or for some coordinates, which are no envoy but parts of its value.

    Example:
        >>> envoy(Site("transformer.h.2")), envoy(Site("transformer.h.2.mlp.c_proj", "in"))
        ('transformer.h.2.output', 'transformer.h.2.mlp.c_proj.input')
    """
    if site.item or site.columns:
        raise ValueError(
            f"nnsight has no envoy for {site}: take `.output` of {site.path}, and the part you want of it."
        )
    return f"{site.path}.{'input' if site.io == 'in' else 'output'}"


def site_of_envoy(written: str) -> Site:
    """The site that nnsight writes as `model.transformer.h[2].output`, with or without `model.`.

    Raises:
        SiteNotFound: if it ends in neither `.input` nor `.output`.

    Example:
        >>> str(site_of_envoy("model.transformer.h[2].mlp.c_proj.input")), str(site_of_envoy("transformer.h.2.output"))
        ('transformer.h.2.mlp.c_proj:in', 'transformer.h.2')
    """
    dotted = re.sub(r"\[(\d+)\]", r".\1", written)
    path, _, side = dotted.rpartition(".")
    if side not in ("input", "output") or not path:
        raise SiteNotFound(f"'{written}' is no envoy of nnsight: it ends in neither .input nor .output.")
    root = path.removeprefix("model.")
    # Llama's own first module is called `model` too; nnsight's variable is dropped only where another name follows it.
    keeps = re.match(r"model\.(layers|embed_tokens|norm|decoder|rotary_emb)\b", path) is not None
    return Site(path if keeps else root, "in" if side == "input" else "out")
