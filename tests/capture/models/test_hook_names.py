"""Hook names of TransformerLens and envoys of nnsight: to sites and back, in models of several families."""

from __future__ import annotations

import pytest
from torch import nn

from superscope import capture
from superscope.capture.models.hook_names import BRIDGE, LEGACY, role_of_hook
from superscope.core import Site, SiteNotFound

from ..architectures import make


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_site_gets_the_name_that_names_it(family: str) -> None:
    model = make(family)
    named = 0
    for role in LEGACY:
        try:
            (site,) = capture.sites(model, [f"{role}.1"])
        except SiteNotFound:
            continue  # Pythia's attention and MLP read one stream
        name = capture.hook_name(model, site)
        assert name == f"blocks.1.{LEGACY[role]}"
        assert capture.sites(model, [name]) == (site,)
        assert capture.sites(model, [f"blocks.1.{BRIDGE[role]}"]) == (site,)
        named += 1
    assert named >= 9
    assert capture.hook_name(model, *capture.sites(model, ["embed"])) == "hook_embed"
    assert capture.hook_name(model, *capture.sites(model, ["mlp_in.0"])) is None
    with pytest.raises(SiteNotFound, match="past the last layer"):
        capture.sites(model, ["blocks.99.hook_resid_post"])
    with pytest.raises(SiteNotFound, match="no module named"):
        capture.sites(model, ["blocks.0.hook_nothing"])


def test_every_hook_is_one_role() -> None:
    for names in (LEGACY, BRIDGE):
        assert {role_of_hook(f"blocks.3.{name}") for name in names.values()} == {f"{role}.3" for role in names}


@pytest.mark.parametrize("site", ["transformer.h.2", "model.layers.3.mlp.down_proj:in", "gpt_neox.layers.0:in"])
def test_envoys_come_back(site: str) -> None:
    assert str(capture.site_of_envoy(capture.envoy(Site.read(site)))) == site
    assert str(capture.site_of_envoy(f"model.{capture.envoy(Site.read(site))}")) == site


def test_what_is_no_envoy_is_refused() -> None:
    with pytest.raises(ValueError, match="no envoy for"):
        capture.envoy(Site("transformer.h.0.attn", item=1))
    with pytest.raises(SiteNotFound, match=r"ends in neither"):
        capture.site_of_envoy("transformer.h.2")


def test_models_of_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="no model of TransformerLens"):
        capture.from_transformer_lens(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="no LanguageModel of nnsight"):
        capture.from_nnsight(nn.Linear(2, 2))
