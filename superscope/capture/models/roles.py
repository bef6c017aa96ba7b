"""Which module plays which part? Sites by role, `resid_post.6` or `z.6.h3`, on whatever the family calls its modules.

Names move between families and between versions of transformers, so a role is a short list of the names it is known by
inside a block, tried in turn, with what the config and the weights' shapes say. `describe` runs the model once and says
what it found at each.

    resid_pre.L    the stream that block L is given
    resid_mid.L    the stream between attention and MLP; not where both read the same stream (Pythia, Falcon, Phi)
    resid_post.L   the stream that block L gives, of the last block before the final norm
    attn_out.L     what attention adds to the stream
    q.L, k.L, v.L  queries, keys, values as projected, before any norm or rotation
    z.L            what attention's heads found, side by side, before they are mixed
    pattern.L      attention's weights, [batch, head, to, from]; with `Capture` alone, since it is no row per token
    mlp_in.L       what the MLP is given, after the norm where the norm comes first
    mlp_act.L      the MLP's hidden layer after the nonlinearity, and the gate where there is one: the neurons
    mlp_out.L      what the MLP adds to the stream
    embed          the tokens' embeddings; of images, what the embedding module gives
    unembed        what the unembedding is given: the stream after the final norm

`.h3` after q, k, v or z takes one head; `*` for L takes every layer, `2-5` several; `[0:64]` takes coordinates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ...core import Site, SiteNotFound
from .facts import text_config_of
from .hook_names import BRIDGE, LEGACY
from .paths import base_of, names_of

LAYER_ROLES = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "mlp_in",
    "mlp_act",
    "mlp_out",
)
ROLES = (*LAYER_ROLES, "embed", "unembed")
_ASKED = re.compile(
    rf"(?P<role>{'|'.join(ROLES)})(?:\.(?P<layer>\*|\d+(?:-\d+)?))?(?:\.h(?P<head>\d+))?(?P<columns>\[[\d:,]+\])?"
)

# Inside a block, by family. Attention's output projection: GPT-2; NeoX and ViT of transformers 4; Llama, Mistral, Qwen,
# Gemma, Phi-3 and OLMo; OPT and CLIP; Phi; GPT-Neo; GPT-J; Bloom and Falcon; BERT and its kin; ViT; DistilBERT; T5's
# encoder; ModernBERT.
_MIX = (
    "attn.c_proj",
    "attention.dense",
    "self_attn.o_proj",
    "self_attn.out_proj",
    "self_attn.dense",
    "attn.attention.out_proj",
    "attn.out_proj",
    "self_attention.dense",
    "attention.output.dense",
    "attention.o_proj",
    "attention.out_lin",
    "layer.0.SelfAttention.o",
    "attn.Wo",
)
# The MLP's down-projection: GPT-2 and GPT-Neo; NeoX, Bloom and Falcon; Llama, Mistral, Qwen, Gemma, Phi-3 and OLMo; Phi
# and ViT; OPT; GPT-J; T5's encoder; ModernBERT; DistilBERT; BERT and its kin.
_DOWN = (
    "mlp.c_proj",
    "mlp.dense_4h_to_h",
    "mlp.down_proj",
    "mlp.fc2",
    "fc2",
    "mlp.fc_out",
    "layer.1.DenseReluDense.wo",
    "mlp.Wo",
    "ffn.lin2",
    "output.dense",
)
# What reads the MLP's input: the MLP itself, or where a block has none its first map (OPT, BERT).
_MLP_MODULE = ("mlp", "ffn", "block_sparse_moe", "feed_forward", "layer.1.DenseReluDense", "fc1", "intermediate")
# Norms that read the stream between attention and MLP, in the order in which they decide: of Gemma's two after
# attention the second reads the stream, Llama's only one does.
_MIDDLE_NORM = (
    "pre_feedforward_layernorm",
    "ln_2",
    "post_attention_layernorm",
    "layernorm_after",
    "layer_norm2",
    "layer.1.layer_norm",
    "mlp_norm",
    "final_layer_norm",
)
# Norms that give the stream between them, where norms come after the sum (BERT, DistilBERT, OPT-350m).
_MIDDLE_NORM_AFTER = ("attention.output.LayerNorm", "sa_layer_norm", "self_attn_layer_norm")
# Norms between a part and the stream, whose output is what is added (Gemma 2 and 3, OLMo 2, GLM 4).
_ADDED_NORM = {
    "attn_out": ("post_self_attn_layernorm", "post_attention_layernorm"),
    "mlp_out": ("post_mlp_layernorm", "post_feedforward_layernorm"),
}
_SEPARATE = {
    "q": ("q_proj", "query", "q_lin", "q"),
    "k": ("k_proj", "key", "k_lin", "k"),
    "v": ("v_proj", "value", "v_lin", "v"),
}
_SIDE_BY_SIDE = ("c_attn", "qkv_proj", "Wqkv")
"""One map for all three: queries, then keys, then values."""
_BY_HEAD = ("query_key_value",)
"""One map for all three: each head's query, key and value, then the next head's (NeoX, Bloom)."""
_MLP = re.compile(r"\w*(mlp|ffn?|feed_?forward)\w*", re.IGNORECASE)
"""Names of modules that are an MLP; Mamba's mixer has a map of the same shape, and no neurons."""


def blocks(model: nn.Module) -> tuple[str, ...]:
    """Paths of the model's blocks: the first list of modules as long as the config says there are layers.

    Raises:
        ValueError: if the model has no such list.
    """
    config = text_config_of(model)
    n = getattr(config, "num_hidden_layers", None)
    prefix, base = base_of(model)
    for name, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n:
            path = f"{prefix}.{name}" if prefix else name
            return tuple(f"{path}.{i}" for i in range(len(module)))
    raise ValueError(
        f"blocks: {type(model).__name__} has no list of {n if n is not None else 'as many'} modules as its config "
        "counts layers, so its blocks are not known; name the sites by their paths."
    )


def role_sites(model: nn.Module, asked: str) -> Iterator[Site]:
    """The sites that a role names; none if `asked` is not written as a role.

    Raises:
        SiteNotFound: if it is a role, but not one of this model, or its layer or head is not there.

    Example:
        >>> import transformers
        >>> shape = transformers.GPT2Config(
        ...     n_layer=2, n_embd=8, n_head=2, vocab_size=16, bos_token_id=0, eos_token_id=0)
        >>> [str(site) for site in role_sites(transformers.GPT2LMHeadModel(shape), "z.1.h1")]
        ['transformer.h.1.attn.c_proj:in[4:8]']
    """
    match = _ASKED.fullmatch(asked)
    if match is None:
        return
    role, layer, head = match["role"], match["layer"], match["head"]
    columns = Site.read(match["columns"]).columns if match["columns"] else ()
    if role not in LAYER_ROLES:
        if layer is not None or head is not None:
            raise SiteNotFound(f"'{asked}' names a layer or head, and {role} is no part of a block; write '{role}'.")
        site = outside(model, role)
        if site is None:
            raise SiteNotFound(f"{type(model).__name__} has no {role}{_outside_why(role)}")
        yield replace(site, columns=_within(site.columns, columns, asked))
        return
    if layer is None:
        raise SiteNotFound(f"'{asked}' lacks its layer; write {role}.0, or {role}.* for every layer.")
    paths = blocks_or_none(model)
    if not paths:
        raise SiteNotFound(f"the blocks of {type(model).__name__} are not known, so '{asked}' is not; name its module.")
    first, _, last = layer.partition("-")
    layers = range(len(paths)) if layer == "*" else range(int(first), int(last or first) + 1)
    for number in layers:
        if number >= len(paths):
            raise SiteNotFound(f"'{asked}' is past the last layer: this model has 0 to {len(paths) - 1}.")
        site = inside(model, paths[number], role, None if head is None else int(head))
        if site is None:
            # Of every layer, those that have it (models of mixed layers); of one asked for, an error.
            if layer == "*" and number != len(paths) - 1:
                continue
            if layer != "*" or not any(inside(model, path, role, None) for path in paths):
                raise SiteNotFound(f"{type(model).__name__} has no {role} in layer {number}{_why(role)}")
            continue
        yield replace(site, columns=_within(site.columns, columns, asked))


def mlp_hidden(model: nn.Module, block: str) -> str | None:
    """The site, `path:in`, where the MLP of `block` has its hidden layer: what its down-projection is given.

    Found by the path it has in known families, and else by role: the one linear map in the block from the config's
    intermediate size to the model's width. None where neither finds it (mixtures of experts, state-space models).
    """
    try:
        inner = model.get_submodule(block)
    except AttributeError as error:
        raise ValueError(f"mlp_hidden: no module named '{block}' in this model; blocks(model) lists them.") from error
    name = _down(model, dict(inner.named_modules()))
    return None if name is None else f"{block}.{name}:in"


def _down(model: nn.Module, names: dict[str, nn.Module]) -> str | None:
    d = getattr(text_config_of(model), "hidden_size", None)
    for suffix in _DOWN:
        if suffix in names and d in _widths(names[suffix]):
            return suffix
    hidden = getattr(text_config_of(model), "intermediate_size", None)
    # A square map has no role by its shape.
    fits = [
        name
        for name, module in names.items()
        if d != hidden and _in_and_out(module) == (hidden, d) and any(_MLP.fullmatch(part) for part in name.split("."))
    ]
    return fits[0] if len(fits) == 1 else None


def blocks_or_none(model: nn.Module) -> tuple[str, ...]:
    """`blocks`, or none where they are not known."""
    try:
        return blocks(model)
    except ValueError:
        return ()


def inside(model: nn.Module, block: str, role: str, head: int | None) -> Site | None:
    """The site of a role in a block; None where this block has none."""
    names = dict(model.get_submodule(block).named_modules())
    if LEGACY["resid_post"] in names or BRIDGE["resid_post"] in names:
        return _hooked(model, block, role, head)
    mix = next((name for name in _MIX if name in names), None)
    if head is not None and role not in ("q", "k", "v", "z"):
        raise SiteNotFound(f"heads are parts of q, k, v and z; {role} has none. Leave .h{head} out.")
    if role == "resid_pre":
        return Site(block, "in")
    if role == "resid_post":
        return Site(block)
    if role == "resid_mid":
        return _middle(model, block, names)
    if role in ("attn_out", "z", "pattern", "q", "k", "v"):
        return None if mix is None else _attention(model, block, names, mix, role, head)
    part = next((name for name in _MLP_MODULE if name in names), None)
    if role == "mlp_in":
        return None if part is None else Site(f"{block}.{part}", "in")
    down = _down(model, names)
    if role == "mlp_act":
        return None if down is None else Site(f"{block}.{down}", "in")
    norm = _added(names, "mlp_out")
    # A mixture of experts has no one down-projection; what it gives is the sum over its experts.
    name = norm or down or part
    return None if name is None else Site(f"{block}.{name}")


def _hooked(model: nn.Module, block: str, role: str, head: int | None) -> Site | None:
    """The hook of a role in a block of TransformerLens; None for a head, and for what comes head by head."""
    names = names_of(model)
    is_legacy = f"{block}.{LEGACY['resid_post']}" in names
    if role == "mlp_in" and is_legacy:
        return Site(f"{block}.mlp", "in")
    by_head = is_legacy and role in ("q", "k", "v", "z")
    path = f"{block}.{(LEGACY if is_legacy else BRIDGE).get(role)}"
    return None if head is not None or by_head or path not in names else Site(path)


def _attention(
    model: nn.Module, block: str, names: dict[str, nn.Module], mix: str, role: str, head: int | None
) -> Site | None:
    config = text_config_of(model)
    heads = next(int(getattr(config, name)) for name in ("num_attention_heads", "num_heads") if hasattr(config, name))
    inner = _in_and_out(names[mix])
    if inner is None:
        return None
    width = inner[0] // heads
    if role == "attn_out":
        return Site(f"{block}.{_added(names, 'attn_out') or mix}")
    if role == "z":
        return Site(f"{block}.{mix}", "in", columns=_head(head, heads, width, role))
    # The module of the heads: around the projection, or, with BERT, beside it.
    parent = "attention.self" if "attention.self" in names else mix.rpartition(".")[0]
    if role == "pattern":
        # T5's second output is the bias by position, its third the pattern.
        item = 2 if mix == "layer.0.SelfAttention.o" else 1
        return Site(f"{block}.{parent}", item=item) if _can_attend_eagerly(model) else None
    groups = heads if role == "q" else int(getattr(config, "num_key_value_heads", None) or heads)
    for name in _SEPARATE[role]:
        if f"{parent}.{name}" in names:
            return Site(f"{block}.{parent}.{name}", columns=_head(head, groups, width, role))
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    for name in (*_SIDE_BY_SIDE, *_BY_HEAD):
        path = f"{parent}.{name}"
        shape = _in_and_out(names[path]) if path in names else None
        if shape is None:
            continue
        if name in _BY_HEAD:
            # Falcon's sharing of keys among heads mixes the layout.
            if shape[1] != 3 * heads * width:
                return None
            at = "qkv".index(role)
            ranges = tuple(((3 * h + at) * width, (3 * h + at + 1) * width) for h in range(heads))
            _head(head, heads, width, role)
            return Site(f"{block}.{path}", columns=ranges if head is None else (ranges[head],))
        if shape[1] != (heads + 2 * shared) * width:
            return None
        begin = {"q": 0, "k": heads * width, "v": (heads + shared) * width}[role]
        ((first, past),) = _head(head, groups, width, role) or ((0, groups * width),)
        return Site(f"{block}.{path}", columns=((begin + first, begin + past),))
    return None


def _can_attend_eagerly(model: nn.Module) -> bool:
    base: Any = base_of(model)[1]
    own = getattr(text_config_of(model), "_attn_implementation", None)
    # Falcon and a few others choose their attention once, when they are made.
    can_change = getattr(base, "_can_set_attn_implementation", None)
    return own == "eager" or bool(can_change is not None and can_change())


def _middle(model: nn.Module, block: str, names: dict[str, nn.Module]) -> Site | None:
    config = text_config_of(model)
    parallel = ("use_parallel_residual", "parallel_attn", "new_decoder_architecture")
    if any(getattr(config, name, False) is True for name in parallel):
        return None
    part = next((name for name in _MLP_MODULE if name in names), None)
    if part is None:
        return None
    for name in _MIDDLE_NORM_AFTER:
        after = name != "self_attn_layer_norm" or getattr(config, "do_layer_norm_before", True) is False
        if name in names and after:
            return Site(f"{block}.{name}")
    if _added(names, "attn_out") and not any(
        name in names for name in ("pre_feedforward_layernorm", "post_mlp_layernorm")
    ):
        # OLMo 2: norms only behind the parts, so the MLP reads the stream itself.
        return Site(f"{block}.{part}", "in")
    norm = next((name for name in _MIDDLE_NORM if name in names), None)
    return None if norm is None else Site(f"{block}.{norm}", "in")


def _added(names: dict[str, nn.Module], role: str) -> str | None:
    """The norm behind a part. Llama's post_attention_layernorm is one before the MLP: it alone says nothing."""
    if not any(name in names for name in _ADDED_NORM["mlp_out"]):
        return None
    return next((name for name in _ADDED_NORM[role] if name in names), None)


def _head(head: int | None, heads: int, width: int, role: str) -> tuple[tuple[int, int], ...]:
    if head is None:
        return ()
    if head >= heads:
        raise SiteNotFound(f"{role} has heads 0 to {heads - 1} in this model; there is no h{head}.")
    return ((head * width, (head + 1) * width),)


def outside(model: nn.Module, role: str) -> Site | None:
    """The site of a role that is no part of a block; None where the model has none."""
    prefix, base = base_of(model)
    names = names_of(model)
    if "hook_embed" in names or "embed.hook_out" in names:
        return (
            Site("unembed", "in")
            if role == "unembed"
            else Site("hook_embed" if "hook_embed" in names else "embed.hook_out")
        )
    if role == "unembed":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        paths = blocks_or_none(model)
        if not prefix or not paths or not isinstance(head, nn.Linear):
            return None
        # The output of what holds the blocks rather than the head's input: so the head need not run. OPT's head goes
        # past the base model, to the decoder inside it.
        return Site(paths[0].rsplit(".", 2)[0])
    table = getattr(model, "get_input_embeddings", lambda: None)()
    for name, module in names.items():
        if module is table and isinstance(table, nn.Embedding):
            return Site(name)
    inside = dict(base.named_modules())
    if "embeddings" in inside:
        return Site(f"{prefix}.embeddings" if prefix else "embeddings")
    return None


def _outside_why(role: str) -> str:
    return ", since it has no language-model head." if role == "unembed" else "; name the module that embeds."


def _why(role: str) -> str:
    reasons = {
        "resid_mid": ": attention and MLP read the same stream there, or it has only one of them.",
        "mlp_act": ": its experts are one fused tensor, or it has no MLP. mlp_in and mlp_out may be there.",
        "pattern": ": it keeps no attention weights, or only when loaded with attn_implementation='eager'.",
    }
    return reasons.get(
        role, ", as far as is known. `superscope sites` lists what there is; a module path always works."
    )


def _within(ranges: tuple[tuple[int, int], ...], asked: tuple[tuple[int, int], ...], said: str) -> Any:
    """`asked`, counted inside `ranges` as if they stood side by side."""
    if not ranges or not asked:
        return asked or ranges
    index = torch.cat([torch.arange(first, past) for first, past in ranges])
    found = []
    for first, past in asked:
        chosen = index[first:past]
        if past > len(index):
            raise SiteNotFound(f"'{said}' asks for coordinate {past - 1} of {len(index)}.")
        edges = [0, *((chosen[1:] != chosen[:-1] + 1).nonzero()[:, 0] + 1).tolist(), len(chosen)]
        found += [(int(chosen[a]), int(chosen[b - 1]) + 1) for a, b in pairwise(edges)]
    return tuple(found)


def _in_and_out(module: nn.Module) -> tuple[int, int] | None:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or isinstance(module, nn.Embedding):
        return None
    # transformers' Conv1D keeps its weight as (in, out), torch's Linear as (out, in).
    return tuple(weight.shape) if hasattr(module, "nf") else tuple(weight.shape[::-1])  # type: ignore[return-value]


def _widths(module: nn.Module) -> tuple[int, ...]:
    shape = _in_and_out(module)
    return () if shape is None else shape[1:]
