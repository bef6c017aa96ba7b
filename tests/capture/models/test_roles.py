"""Roles find the same place in every family: sums of parts, plain hooks and the models' own hidden states agree."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from superscope.capture import ROLES, Capture, RoleSite, blocks, describe, sites
from superscope.capture.models.roles import LAYER_ROLES
from superscope.core import Site, SiteNotFound

from ..architectures import ARCHITECTURES, CAUSAL, EXPERTS, PARALLEL, POST_NORM, given, make

_MODELS: dict[str, nn.Module] = {}


def model_of(name: str) -> Any:
    if name not in _MODELS:
        _MODELS[name] = make(name)
    return _MODELS[name]


@cache
def described(name: str) -> tuple[RoleSite, ...]:
    return tuple(describe(model_of(name), given(name)))


def available(name: str) -> set[str]:
    return {found.role for found in described(name)}


def expected(name: str, layer: int) -> set[str]:
    roles = set(LAYER_ROLES)
    if name == "mamba":
        return {f"resid_pre.{layer}", f"resid_post.{layer}"}
    if name in PARALLEL:
        roles -= {"resid_mid"}
    if name in EXPERTS:
        roles -= {"mlp_act"}
    if name == "falcon":
        # Shared keys in a fused map, and a kind of attention that is chosen once.
        roles -= {"q", "k", "v", "pattern"}
    return {f"{role}.{layer}" for role in roles}


def plainly(model: Any, site: Site, inputs: dict[str, Any]) -> Tensor:
    """x by a hook written out here, on the whole model, to the end."""
    read: list[Tensor] = []

    def first(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return (list(value.values()) if hasattr(value, "values") else list(value))[site.item]

    module = model.get_submodule(site.path)
    if site.io == "in":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read.append((args[0] if args else kwargs["hidden_states"]).clone())

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _m, _a, output: read.append(first(output).clone()))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    assert len(read) == 1
    return torch.cat([read[0][..., a:b] for a, b in site.columns], -1) if site.columns else read[0]


def state(model: nn.Module) -> list[tuple[str, int]]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    own = str(getattr(model.config, "_attn_implementation", None))
    # What a model makes for itself as it runs, such as angles of positions, must be fit to be trained with.
    kept = [t for m in model.modules() for t in (*m.parameters(False), *m.buffers(False), *vars(m).values())]
    assert not any(isinstance(t, torch.Tensor) and t.is_inference() for t in kept)
    return [(f"{name} {own}", sum(len(getattr(m, h)) for h in hooks)) for name, m in model.named_modules()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_the_roles_it_should_have(name: str) -> None:
    found = available(name)
    for layer in range(3):
        assert {role for role in found if role.endswith(f".{layer}")} == expected(name, layer), (name, layer)
    assert ("unembed" in found) == (name in CAUSAL)
    assert "embed" in found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_capture_equals_a_plain_hook_and_leaves_nothing(name: str) -> None:
    model, inputs = model_of(name), given(name)
    before, output = state(model), model(**inputs)[0]
    found = [each for each in described(name) if not each.role.startswith("pattern")]
    with Capture(model, [each.site for each in found]) as capture:
        capture(**inputs)
        read = capture(**inputs)  # the second pass stops early
    for each in found:
        assert torch.equal(read[each.site], plainly(model, each.site, inputs)), each
        assert tuple(read[each.site].shape) == each.shape
    assert state(model) == before
    again = model(**inputs)[0]
    assert torch.equal(again, output)
    again.sum().backward()
    model.zero_grad()


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mamba"])
def test_parts_add_up_to_the_stream(name: str) -> None:
    model, inputs = model_of(name), given(name)
    roles = [
        role
        for role in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        if f"{role}.1" in available(name)
    ]
    with Capture(model, [site for role in roles for site in sites(model, [f"{role}.1"])]) as capture:
        # OPT's MLP runs on flattened tokens.
        read = [value.view(2, -1, 16) for value in capture(**inputs).values()]
    x = dict(zip(roles, read, strict=True))
    if name in POST_NORM:
        inner = model.get_submodule(blocks(model)[1])
        norms = [m for m in inner.modules() if isinstance(m, nn.LayerNorm)]
        assert torch.allclose(norms[0](x["resid_pre"] + x["attn_out"]), x["resid_mid"], atol=1e-5)
        assert torch.allclose(norms[1](x["resid_mid"] + x["mlp_out"]), x["resid_post"], atol=1e-5)
        return
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    middle = x["resid_pre"] + x["attn_out"]
    if name not in PARALLEL:
        assert torch.allclose(middle, x["resid_mid"], **tolerance)
    assert torch.allclose(middle + x["mlp_out"].view_as(middle), x["resid_post"], **tolerance)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mamba"])
def test_hidden_states_are_block_outputs_except_the_last(name: str) -> None:
    model, inputs = model_of(name), given(name)
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    with Capture(model, sites(model, ["resid_post.*"])) as capture:
        read = list(capture(**inputs).values())
    for layer in (0, 1):
        assert torch.equal(hidden[layer + 1], read[layer]), (name, layer)
    # Behind the last block decoders have a norm, so their last hidden state is not the stream.
    assert torch.equal(hidden[3], read[2]) == (name in ("bert", "distilbert", "vit", "clip"))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ("mamba", "falcon")])
def test_heads_are_parts_of_the_whole(name: str) -> None:
    model, inputs = model_of(name), given(name)
    for role in ("z", "q"):
        asked = [*sites(model, [f"{role}.1"]), *sites(model, [f"{role}.1.h0"]), *sites(model, [f"{role}.1.h1"])]
        with Capture(model, asked) as capture:
            whole, *heads = (x.flatten(0, -2) for x in capture(**inputs).values())
        assert torch.equal(torch.cat(heads, -1), whole)
    # What the heads found is attention's weights times values: the pattern belongs to z, and v is v.
    if "pattern.1" not in available(name) or name in EXPERTS:
        return
    asked = [*sites(model, ["pattern.1"]), *sites(model, ["v.1"]), *sites(model, ["z.1"])]
    with Capture(model, asked) as capture:
        pattern, v, z = capture(**inputs).values()
    assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
    v = v.unflatten(-1, (-1, z.shape[-1] // 2))
    v = v.repeat_interleave(2 // v.shape[-2], -2)
    made = torch.einsum("bhts,bshd->bthd", pattern, v).flatten(-2)
    assert torch.allclose(made, z, rtol=1e-3, atol=1e-3)


def test_the_attention_implementation_comes_back() -> None:
    model, inputs = make("llama"), given("llama")
    assert model.config._attn_implementation == "sdpa"
    with Capture(model, sites(model, ["pattern.*"])) as capture:
        patterns = capture(**inputs)
        assert model.config._attn_implementation == "sdpa"
    assert all(x.shape == (2, 2, 7, 7) for x in patterns.values())


def test_slices_ranges_and_stars() -> None:
    model = model_of("gpt2")
    assert [str(site) for site in sites(model, ["resid_post.*"])] == [f"transformer.h.{i}" for i in range(3)]
    assert [str(site) for site in sites(model, ["mlp_act.1-2"])] == [f"transformer.h.{i}.mlp.c_proj:in" for i in (1, 2)]
    (part,) = sites(model, ["resid_post.1[3:7]"])
    assert Site.read(str(part)) == part
    (inside,) = sites(model, ["z.1.h1[2:4]"])
    assert inside.columns == ((10, 12),)
    (both,) = sites(model_of("gpt_neox"), ["q.1[6:10]"])
    assert both.columns == ((6, 8), (24, 26))
    with Capture(model, [part, "transformer.h.1", "transformer.h.1[0:2]"]) as capture:
        narrow, whole, first = capture(**given("gpt2")).values()
    assert torch.equal(narrow, whole[..., 3:7])
    assert torch.equal(first, whole[..., :2])


@pytest.mark.parametrize(
    ("name", "asked", "sentence"),
    [
        ("gpt_neox", "resid_mid.1", "attention and MLP read the same stream"),
        ("qwen3_moe", "mlp_act.0", "experts are one fused tensor"),
        ("mamba", "z.0", "has no z in layer 0"),
        ("mamba", "pattern.0", "keeps no attention weights"),
        ("gpt2", "resid_post", "lacks its layer; write resid_post.0"),
        ("gpt2", "resid_post.3", "this model has 0 to 2"),
        ("gpt2", "z.1.h2", "heads 0 to 1 in this model"),
        ("gpt2", "resid_post.1.h0", "resid_post has none"),
        ("gpt2", "embed.3", "is no part of a block"),
        ("bert", "unembed", "no language-model head"),
        ("gpt2", "q.0[4:99]", "asks for coordinate 98 of 16"),
    ],
)
def test_roles_that_are_not_there_are_refused_with_a_reason(name: str, asked: str, sentence: str) -> None:
    with pytest.raises(SiteNotFound, match=sentence):
        sites(model_of(name), [asked])


def test_coordinates_that_are_not_there() -> None:
    with (
        Capture(model_of("gpt2"), ["transformer.h.1[10:20]"]) as capture,
        pytest.raises(ValueError, match="asks for coordinate 19 where there are 16"),
    ):
        capture(**given("gpt2"))


def test_a_pattern_that_cannot_be_had() -> None:
    model = make("falcon")
    with (
        Capture(model, [Site("transformer.h.1.self_attention", item=1)]) as capture,
        pytest.raises(ValueError, match="load it with attn_implementation='eager'"),
    ):
        capture(**given("falcon"))
    eager = transformers.AutoModelForCausalLM.from_config(CAUSAL["falcon"](), attn_implementation="eager")
    with Capture(eager, sites(eager, ["pattern.1"])) as capture:
        (pattern,) = capture(**given("falcon")).values()
    assert pattern.shape == (2, 2, 7, 7)
    t5 = make("t5")
    with (
        Capture(t5, [Site("block.1.layer.0.SelfAttention", item=3)]) as capture,
        pytest.raises(TypeError, match="returned no output number 3"),
    ):
        capture(**given("t5"))


def test_a_model_of_unknown_blocks_still_has_paths() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert describe(model, {"input": torch.ones(1, 3)}) == []
    with pytest.raises(SiteNotFound, match="blocks of Sequential are not known"):
        sites(model, ["resid_post.0"])


def test_roles_are_what_the_docstring_lists() -> None:
    from superscope.capture.models import roles

    assert all(f"    {role}" in str(roles.__doc__) for role in ("resid_pre.L", "z.L", "unembed", "embed"))
    assert set(LAYER_ROLES) < set(ROLES)


def test_hidden_states_of_mamba_follow_another_convention() -> None:
    model, inputs = model_of("mamba"), given("mamba")
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    with Capture(model, sites(model, ["resid_post.*"])) as capture:
        read = list(capture(**inputs).values())
    assert not any(torch.equal(a, b) for a, b in zip(hidden[1:], read, strict=False) if a.shape == b.shape)


def test_a_tuple_and_a_tensor_are_read_alike() -> None:
    """`output[0]` of a tensor would be its first sequence: the trap of models that changed from one to the other."""
    for name in ("gpt_neo", "bloom", "t5", "llama", "gpt2"):
        with Capture(model_of(name), sites(model_of(name), ["resid_post.1"])) as capture:
            (x,) = capture(**given(name)).values()
        assert x.shape == (2, 7, 16)


def test_a_replacement_keeps_coordinates_and_types_apart() -> None:
    from superscope.intervene import replace

    for name in ("bloom", "gpt2"):
        model, inputs = model_of(name), given(name)
        (site,) = sites(model, ["resid_post.1[2:5]"])
        with replace(model, site, torch.zeros_like), Capture(model, sites(model, ["resid_pre.2"])) as capture:
            (after,) = capture(**inputs).values()
        with Capture(model, sites(model, ["resid_pre.2"])) as capture:
            (before,) = capture(**inputs).values()
        assert bool((after[..., 2:5] == 0).all())
        kept = [i for i in range(16) if not 2 <= i < 5]
        assert torch.equal(after[..., kept], before[..., kept])


def test_transformers_is_the_version_the_map_was_made_for() -> None:
    """The map is verified on what is installed; this only says on what, if it fails."""
    assert int(transformers.__version__.partition(".")[0]) >= 5


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_the_hidden_layer_is_behind_the_gate(name: str) -> None:
    """What the down-projection is given is activation(gate) * up, not either of them."""
    model = make(name)
    with Capture(model, ["mlp_in.0", "mlp_act.0"]) as capture:
        entered, hidden = capture(**given(name)).values()
    mlp = model.model.layers[0].mlp  # pyright: ignore
    with torch.no_grad():
        assert torch.allclose(hidden, mlp.act_fn(mlp.gate_proj(entered)) * mlp.up_proj(entered), atol=1e-5)
