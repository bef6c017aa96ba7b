"""Models of TransformerLens and nnsight as sources: the rows and losses that transformers gives.

Not in the default suite, since they live in an environment of their own: `scripts/peers` makes it and runs this.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import superscope
from superscope import capture, intervene
from superscope.capture.models.hook_names import BRIDGE
from superscope.core import SiteNotFound

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-4
FOLDER = str(Path(superscope.__file__).parent / "capture" / "pocket" / "model")


@pytest.fixture(scope="module")
def plain():
    return capture.load("pocket")


@pytest.fixture(scope="module")
def bridge():
    return capture.load(f"transformer_lens:{FOLDER}")


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4096, (3, 40), generator=torch.Generator().manual_seed(0))


def _rows(subject, role, ids):
    (site,) = capture.sites(subject.model, [role])
    return torch.cat([batch[site].x for batch in capture.harvest(subject.model, [site], ids)])


def _close(a, b):
    return float((a - b).abs().max() / b.abs().max()) < TOLERANCE


@pytest.mark.parametrize("role", [role for role in BRIDGE if role not in ("pattern", "q", "k", "v")])
def test_a_bridge_gives_the_rows_of_transformers(role, plain, bridge, ids):
    assert _close(_rows(bridge, f"{role}.1", ids), _rows(plain, f"{role}.1", ids))


def test_a_bridge_loses_what_transformers_loses(plain, bridge, ids):
    own, theirs = (intervene.next_token_loss(each, ids).mean for each in (plain, bridge))
    assert abs(own - theirs) < TOLERANCE
    (site,), (hook,) = (capture.sites(each.model, ["resid_post.2"]) for each in (plain, bridge))
    own, theirs = (
        intervene.next_token_loss(each, ids, splice={at: torch.zeros_like}).mean
        for each, at in ((plain, site), (bridge, hook))
    )
    assert abs(own - theirs) < TOLERANCE


def test_its_hooks_are_named_as_we_name_them(plain, bridge):
    for role in BRIDGE:
        (site,), (hook,) = (capture.sites(each.model, [f"{role}.2"]) for each in (plain, bridge))
        assert capture.sites(plain.model, [str(hook)]) == (site,)
        # TransformerLens itself takes the older name for the same hook.
        name = capture.hook_name(plain.model, site)
        assert name is None or name in bridge.model.whole[0].hook_dict


def test_a_hooked_transformer_gives_its_own_cache(ids):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = {"n_layers": 2, "d_model": 16, "n_ctx": 64, "d_head": 4, "n_heads": 4, "d_mlp": 32, "d_vocab": 50}
    theirs = HookedTransformer(HookedTransformerConfig(**shape, act_fn="gelu_new", seed=0))
    subject, ids = capture.from_transformer_lens(theirs, name="random"), ids % 50
    _, cache = theirs.run_with_cache(ids)
    for role in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_act", "mlp_out"):
        (site,) = capture.sites(subject.model, [f"{role}.1"])
        assert _close(_rows(subject, f"{role}.1", ids), cache[str(site)].flatten(0, 1))
    with pytest.raises(SiteNotFound, match="has no z"):
        capture.sites(subject.model, ["z.1"])
    with pytest.raises(ValueError, match="another package"):
        capture.control(subject, 0)


def test_nnsight_reads_where_our_site_says(plain, ids):
    from nnsight import LanguageModel

    theirs = LanguageModel(FOLDER, dispatch=True, torch_dtype=torch.float32)
    subject = capture.from_nnsight(theirs)
    for role in ("resid_pre.1", "resid_post.2", "mlp_act.1", "mlp_out.3"):
        (site,) = capture.sites(subject.model, [role])
        path, _, side = capture.envoy(site).rpartition(".")
        with theirs.trace(ids):
            at = theirs
            for part in path.split("."):
                at = at[int(part)] if part.isdigit() else getattr(at, part)
            seen = getattr(at, side).save()
        seen = getattr(seen, "value", seen)
        seen = seen[0] if isinstance(seen, tuple) else seen
        assert _close(_rows(subject, role, ids), seen.flatten(0, 1))
        assert _close(_rows(subject, role, ids), _rows(plain, role, ids))


def test_nnsight_without_its_weights_is_refused():
    from nnsight import LanguageModel

    with pytest.raises(ValueError, match="dispatch=True"):
        capture.from_nnsight(LanguageModel(FOLDER))
