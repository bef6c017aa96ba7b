from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from superscope.capture import Capture, blocks, mlp_hidden, sites
from superscope.core import Site, SiteNotFound
from superscope.intervene import replace

from ..conftest import CAUSAL, FAMILIES, make_model


def paths(found):
    return [str(site) for site in found]


def hooks_on(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Deep(nn.Module):
    """Modules named to tell one level from several; `late` must not run once all sites have fired."""

    def __init__(self):
        super().__init__()
        # Of one start in sixty-four no unit of `inner` is on, and nothing depends on anything.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.h = nn.ModuleList([nn.Linear(4, 4) for _ in range(12)])
            self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
            self.late = nn.Linear(4, 4)
        self.ran_late = 0

    def forward(self, x):
        for layer in self.h:
            x = layer(x)
        x = self.inner(x)
        self.ran_late += 1
        return self.late(x)


# --- sites ----------------------------------------------------------------------------------------------------------


def test_a_star_stays_in_one_level():
    model = Deep()
    assert paths(sites(model, ["h.*"])) == [f"h.{i}" for i in range(12)]  # h.10 after h.9, as the model has them
    assert paths(sites(model, ["*"])) == ["inner", "late"]
    assert paths(sites(model, ["*.0"])) == ["h.0", "inner.0"]
    assert paths(sites(model, ["h.?"])) == [f"h.{i}" for i in range(10)]
    assert paths(sites(model, ["h.[0-2]"])) == ["h.0", "h.1", "h.2"]
    assert paths(sites(model, ["inner.[!01]"])) == ["inner.2"]
    assert len(sites(model, ["**"])) == 17  # 12 in h, inner and its 3, late


def test_suffix_order_and_repetition():
    found = sites(Deep(), ["late:in", "h.1", "h.[01]", "h.1:in"])
    assert paths(found) == ["late:in", "h.1", "h.0", "h.1:in"]
    assert found[0] == Site("late", "in")


def test_dots_are_dots():
    with pytest.raises(SiteNotFound):
        sites(Deep(), ["h_1"])
    with pytest.raises(SiteNotFound):
        sites(Deep(), ["inner.*.x"])
    with pytest.raises(SiteNotFound):
        sites(nn.ModuleDict({"ab": nn.Identity()}), ["a.b*"])


@pytest.mark.parametrize(
    "pattern", ["h.99", "innr.0", "", ".", "h.", "[", "h.[", "(", "h.0:aside", ":in", "***.q", "\x00"]
)
def test_unknown_names_are_one_clear_error(pattern):
    with pytest.raises(SiteNotFound, match="no module named"):
        sites(Deep(), [pattern])


@given(st.text(alphabet="h.*?[]!^\\-&|0123456789in:~", max_size=12))
@settings(max_examples=200, deadline=None)
def test_no_pattern_breaks_the_resolver(pattern):
    model = Deep()
    names = {name for name, _ in model.named_modules() if name}
    try:
        found = sites(model, [pattern])
    except SiteNotFound:
        return
    assert found
    assert {site.path for site in found} <= names


def test_the_nearest_names_are_offered(model_of):
    with pytest.raises(SiteNotFound, match=r"Did you mean transformer\.h\.2\b|Did you mean transformer\.h\.[0-2]"):
        sites(model_of("gpt2"), ["transformer.h.7"])
    with pytest.raises(SiteNotFound, match=r"Did you mean model\.layers\.\*"):
        sites(model_of("llama"), ["model.layer.*"])
    with pytest.raises(SiteNotFound, match=r"Its blocks are transformer\.h\.0 to transformer\.h\.2"):
        sites(model_of("gpt2"), ["zzzzzz"])


def test_a_list_of_modules_is_no_site():
    with pytest.raises(SiteNotFound, match=r"no module named 'h' in this model\."):
        sites(Deep(), ["h"])
    with pytest.raises(SiteNotFound, match="outermost modules are 0, 1"):
        sites(nn.Sequential(nn.Identity(), nn.Identity()), ["zzzzzz"])


def test_names_of_the_base_model_are_offered_too(model_of):
    with pytest.raises(SiteNotFound, match=r"Did you mean h\.[0-2]"):
        sites(model_of("gpt2"), ["h.9"])


def test_one_string_is_not_a_list_of_patterns():
    with pytest.raises(TypeError, match=r"\['h\.0'\]"):
        sites(Deep(), "h.0")


def test_paths_relative_to_the_base_model_and_with_the_wrappers_prefix(model_of):
    model = model_of("gpt2")
    assert paths(sites(model, ["h.2"])) == ["transformer.h.2"]
    assert paths(sites(model, ["h.*:in"])) == [f"transformer.h.{i}:in" for i in range(3)]
    assert paths(sites(model.transformer, ["transformer.h.2"])) == ["h.2"]
    assert paths(sites(model_of("llama").model, ["model.layers.*"])) == ["layers.0", "layers.1", "layers.2"]


# --- Capture --------------------------------------------------------------------------------------------------------


def reference(model, ids, chosen, **options):
    """Plain hooks and the whole model: what any capture has to agree with."""
    read, handles = {}, []
    for site in chosen:
        module = model.get_submodule(site.path)
        if site.io == "in":

            def before(module, args, kwargs, site=site):
                read[site] = (args[0] if args else kwargs["hidden_states"]).clone()

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(module, args, output, site=site):
                read[site] = (output[0] if isinstance(output, tuple) else output).clone()

            handles.append(module.register_forward_hook(after))
    with torch.no_grad():
        model(ids, **options)
    for handle in handles:
        handle.remove()
    return read


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_plain_hooks_on_the_whole_model(family, model_of):
    model = model_of(family)
    ids = torch.randint(1, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    hidden = mlp_hidden(model, blocks(model)[1])
    chosen = sites(model, [*blocks(model), hidden, f"{blocks(model)[0]}:in"])
    expected = reference(model, ids, chosen)
    with Capture(model, chosen) as cap:
        first, second = cap(input_ids=ids), cap(input_ids=ids)
    assert set(first) == set(chosen)
    for site in chosen:
        assert first[site].shape == expected[site].shape
        assert torch.equal(first[site], expected[site]), site
        assert torch.equal(second[site], expected[site]), site
        assert not first[site].requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_agree_with_hidden_states(family, model_of):
    # Independent of our hooks: transformers' own record, of which only the last entry is after the final norm.
    model = model_of(family)
    ids = torch.randint(1, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    with Capture(model, list(blocks(model))) as cap:
        read = list(cap(input_ids=ids).values())
    for i in (0, 1):
        assert torch.allclose(read[i], states[i + 1], rtol=1e-5, atol=1e-6)
        assert read[i].std() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_behind(family, model_of):
    model = model_of(family)
    ids = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(2))

    def output():
        with torch.no_grad():
            return model(ids)[0]

    before, hooks = output(), hooks_on(model)
    with Capture(model, [blocks(model)[0]]) as cap:
        cap(input_ids=ids)
        cap(input_ids=ids)
        assert hooks_on(model) > hooks
    assert hooks_on(model) == hooks
    assert torch.equal(output(), before)
    with pytest.raises(ZeroDivisionError), Capture(model, [blocks(model)[0]]) as cap:  # noqa: PT012
        cap(input_ids=ids)
        1 / 0  # noqa: B018
    assert hooks_on(model) == hooks
    assert torch.equal(output(), before)
    with pytest.raises((IndexError, RuntimeError)), Capture(model, [blocks(model)[0]]) as cap:
        cap(input_ids=ids + 10_000)  # the model itself fails
    assert hooks_on(model) == hooks
    assert torch.equal(output(), before)


def test_stops_after_the_last_site_in_execution_order():
    model = Deep()
    x = torch.ones(2, 4)
    # Given out of order: the last to run is inner.0, not the last named.
    with Capture(model, ["inner.0", "h.3"]) as cap:
        cap(x)
        assert model.ran_late == 1  # the first pass, which learns the order, runs to the end
        for _ in range(3):
            cap(x)
        assert model.ran_late == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_early_exit_in_every_family(family, model_of):
    model = model_of(family)
    ran = []
    handles = [
        model.get_submodule(block).register_forward_pre_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(blocks(model))
    ]
    ids = torch.randint(1, 300, (1, 6), generator=torch.Generator().manual_seed(3))
    with Capture(model, [blocks(model)[1]]) as cap:
        cap(input_ids=ids)
        ran.clear()
        cap(input_ids=ids)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_the_head_never_runs(family, model_of):
    model = model_of(family)
    ran = []
    handle = model.get_output_embeddings().register_forward_hook(lambda *_: ran.append(1))
    with Capture(model, [blocks(model)[-1]]) as cap:
        cap(input_ids=torch.ones(1, 4, dtype=torch.int64))
    handle.remove()
    assert not ran


def test_a_site_in_the_head_runs_the_head(model_of):
    model = model_of("gpt2")
    ids = torch.ones(1, 4, dtype=torch.int64)
    with Capture(model, ["lm_head", "h.0"]) as cap, torch.no_grad():
        assert torch.equal(cap(input_ids=ids)[Site("lm_head")], model(ids).logits)


def test_what_was_read_is_not_changed_by_in_place_operations():
    model = Deep()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    with Capture(model, ["inner.0", "inner.1"]) as cap:
        read = cap(x)
    assert (read[Site("inner.0")] < 0).any()  # the ReLU after it works in place
    assert (read[Site("inner.1")] >= 0).all()


def test_rows_are_copied_not_viewed(model_of):
    ids = torch.randint(1, 300, (4, 10), generator=torch.Generator().manual_seed(3))
    rows = torch.zeros(4, 10, dtype=torch.bool)
    rows[1, 2] = rows[3, 9] = True
    with Capture(model_of("gpt2"), ["h.1"]) as cap:
        everything, some = cap(input_ids=ids)[Site("transformer.h.1")], cap(input_ids=ids, rows=rows)
    x = some[Site("transformer.h.1")]
    assert torch.equal(x, everything[rows])
    assert x.untyped_storage().nbytes() == x.numel() * x.element_size()


def test_a_model_output_gives_its_first_tensor(model_of):
    model = model_of("gpt2")
    ids = torch.ones(1, 4, dtype=torch.int64)
    with Capture(model, ["transformer"]) as cap, torch.no_grad():
        assert torch.equal(cap(input_ids=ids)[Site("transformer")], model.transformer(ids).last_hidden_state)


def test_sites_that_are_not_one_place_are_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.again = nn.Linear(3, 3)
            self.never = nn.Linear(3, 3)
            self.empty = nn.Identity()

        def forward(self, x):
            self.empty(())
            return self.again(self.again(x))

    with Capture(Shared(), ["again"]) as cap, pytest.raises(ValueError, match="ran 2 times in one forward pass"):
        cap(torch.ones(1, 3))
    with Capture(Shared(), ["never"]) as cap, pytest.raises(ValueError, match="never did not run"):
        cap(torch.ones(1, 3))
    with Capture(Shared(), ["empty"]) as cap, pytest.raises(TypeError, match="returned tuple"):
        cap(torch.ones(1, 3))
    with Capture(Shared(), ["empty:in"]) as cap, pytest.raises(TypeError, match="was given no tensor"):
        cap(torch.ones(1, 3))
    with pytest.raises(ValueError, match="sites is empty"):
        Capture(Shared(), [])
    with pytest.raises(SiteNotFound, match="nevr"):
        Capture(Shared(), [Site("nevr")])
    with pytest.raises(ValueError, match="not open"):
        Capture(Shared(), ["again"])(torch.ones(1, 3))


def test_order_that_depends_on_the_input_is_told():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            first, second = (self.a, self.b) if x.sum() > 0 else (self.b, self.a)
            return second(first(x))

    with Capture(Fork(), ["a", "b"]) as cap:
        cap(torch.ones(1, 1))
        with pytest.raises(ValueError, match="a did not run before b"):
            cap(-torch.ones(1, 1))


# --- replace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_replacing_x_by_itself_changes_nothing_and_by_zero_something(family, model_of):
    model = model_of(family)
    ids = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(4))
    hooks = hooks_on(model)

    def output():
        with torch.no_grad():
            return model(ids)[0]

    before = output()
    for site in (blocks(model)[1], mlp_hidden(model, blocks(model)[1]), f"{blocks(model)[1]}:in"):
        with replace(model, site, lambda x: x):
            assert torch.equal(output(), before)
        with replace(model, site, torch.zeros_like):
            assert not torch.allclose(output(), before, atol=1e-3)
        assert torch.equal(output(), before)
        with pytest.raises(ZeroDivisionError), replace(model, site, lambda x: x * (1 / 0)):
            output()
        assert torch.equal(output(), before)
        assert hooks_on(model) == hooks


@pytest.mark.parametrize("family", tuple(CAUSAL))
def test_what_is_put_in_is_what_comes_after(family, model_of):
    model = model_of(family)
    ids = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(5))
    planted = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(6))
    first, second = blocks(model)[:2]
    with replace(model, first, lambda x: planted), Capture(model, [f"{second}:in"]) as cap:
        assert torch.equal(cap(input_ids=ids)[Site(second, "in")], planted)


def test_only_the_rows_asked_for_change(model_of):
    model = model_of("opt")  # whose fc2 runs on flattened tokens
    ids = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(5))
    rows = torch.zeros(2, 9, dtype=torch.bool)
    rows[0, 5] = True
    for site in ("model.decoder.layers.0", "model.decoder.layers.0.fc2:in"):
        seen = []
        with torch.no_grad():
            before = model(ids).logits
            with replace(model, site, lambda x, seen=seen: seen.append(x.shape) or torch.zeros_like(x), rows=rows):
                after = model(ids).logits
        assert seen[0][0] == 1
        assert torch.equal(after[1], before[1])
        assert torch.equal(after[0, :5], before[0, :5])  # causal: what comes before is untouched
        assert not torch.allclose(after[0, 5], before[0, 5])


def test_gradients_flow_through_a_splice():
    model = Deep()
    shift = torch.zeros(4, requires_grad=True)
    with replace(model, "h.3", lambda x: x + shift):
        model(torch.ones(2, 4)).sum().backward()
    assert shift.grad is not None
    assert shift.grad.abs().sum() > 0


def test_a_wrong_replacement_is_told():
    model = Deep()
    with (
        replace(model, "h.0", lambda x: x[:, :2]),
        pytest.raises(ValueError, match=r"made \(2, 2\) out of \(2, 4\) at h.0"),
    ):
        model(torch.ones(2, 4))
    foreign = torch.ones(3, 1, dtype=torch.bool)
    told = pytest.raises(ValueError, match="not one vector for each of the 3 x 1 tokens")
    with told, replace(model, "h.0", lambda x: x, rows=foreign):
        model(torch.ones(2, 4))
    with pytest.raises(ValueError, match="names 12 modules"), replace(model, "h.*", lambda x: x):
        pass
    with pytest.raises(SiteNotFound), replace(model, "h.77", lambda x: x):
        pass


def test_half_precision_stays_half():
    model = make_model("llama").to(torch.bfloat16)
    with replace(model, "model.layers.0", lambda x: x.float()), torch.no_grad():
        assert model(torch.ones(1, 4, dtype=torch.int64)).logits.dtype == torch.bfloat16


def test_what_is_read_can_be_learned_from() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with Capture(model, ["0:in", "1", "1[1:3]"]) as capture:
        every = capture(torch.ones(5, 7, 3))
        some = capture(torch.ones(5, 7, 3), rows=torch.eye(5, 7, dtype=torch.bool))
    for x in (*every.values(), *some.values()):
        assert not x.is_inference()
        weight = torch.ones(x.shape[-1], requires_grad=True)
        (x @ weight).sum().backward()
        assert torch.allclose(weight.grad if weight.grad is not None else torch.empty(0), x.flatten(0, -2).sum(0))
    # The model can be trained on, and nothing it keeps was made while it was read.
    model(torch.ones(5, 3)).sum().backward()
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())
