"""What do TransformerLens and nnsight call the roles? The table of their names, and roles by hook names.

    role           TransformerLens               its bridge                  nnsight, of GPT-2
    resid_pre.L    blocks.L.hook_resid_pre       blocks.L.hook_in            transformer.h.L.input
    resid_mid.L    blocks.L.hook_resid_mid       blocks.L.ln2.hook_in        transformer.h.L.ln_2.input
    resid_post.L   blocks.L.hook_resid_post      blocks.L.hook_out           transformer.h.L.output
    attn_out.L     blocks.L.hook_attn_out        blocks.L.attn.hook_out      transformer.h.L.attn.c_proj.output
    q.L, k.L, v.L  blocks.L.attn.hook_q ...      blocks.L.attn.q.hook_out    transformer.h.L.attn.c_attn.output
    z.L            blocks.L.attn.hook_z          blocks.L.attn.o.hook_in     transformer.h.L.attn.c_proj.input
    pattern.L      blocks.L.attn.hook_pattern    the same                    none: it is one of several outputs
    mlp_in.L       none                          blocks.L.mlp.hook_in        transformer.h.L.mlp.input
    mlp_act.L      blocks.L.mlp.hook_post        blocks.L.mlp.out.hook_in    transformer.h.L.mlp.c_proj.input
    mlp_out.L      blocks.L.hook_mlp_out         blocks.L.mlp.hook_out       transformer.h.L.mlp.c_proj.output
    embed          hook_embed                    embed.hook_out              transformer.wte.output

Dictionaries are published under the names of the first column, whatever model they were trained on.
"""

from __future__ import annotations

import re

LEGACY = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "mlp_act": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
}
"""Inside `blocks.L`, by role, as HookedTransformer has them."""
BRIDGE = {
    "resid_pre": "hook_in",
    "resid_mid": "ln2.hook_in",
    "resid_post": "hook_out",
    "attn_out": "attn.hook_out",
    "q": "attn.q.hook_out",
    "k": "attn.k.hook_out",
    "v": "attn.v.hook_out",
    "z": "attn.o.hook_in",
    "pattern": "attn.hook_pattern",
    "mlp_in": "mlp.hook_in",
    "mlp_act": "mlp.out.hook_in",
    "mlp_out": "mlp.hook_out",
}
"""The same as TransformerBridge has them."""
EMBED = ("hook_embed", "embed.hook_out")
"""What both call the embedding."""
_HOOK = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<name>\w[\w.]*)")


def role_of_hook(name: str) -> str | None:
    """The role that a hook name of TransformerLens stands for, `resid_post.2`; None where it is none.

    Example:
        >>> role_of_hook("blocks.2.hook_resid_post"), role_of_hook("blocks.2.mlp.out.hook_in"), role_of_hook("h.2")
        ('resid_post.2', 'mlp_act.2', None)
    """
    if name in EMBED:
        return "embed"
    match = _HOOK.fullmatch(name)
    if match is None:
        return None
    roles = [role for names in (LEGACY, BRIDGE) for role, own in names.items() if own == match["name"]]
    return f"{roles[0]}.{match['layer']}" if roles else None
