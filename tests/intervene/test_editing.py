"""Nothing is left in a model that was edited, whatever is edited, wherever, and however the block is left."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import lru_cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn

from superscope.capture import Capture, Subject, blocks, describe
from superscope.core import Site, SiteNotFound
from superscope.intervene import (
    EDITS,
    dose_response,
    edited,
    generate,
    log_odds,
    log_odds_gradient,
    log_probabilities,
    token_log_probabilities,
)
from superscope.intervene.edits import Add, Edit, SpliceIn

from ..capture.architectures import ARCHITECTURES, CAUSAL, make
from ..capture.architectures import given as inputs_of
from .edits.examples import coder_of, edits_of


@lru_cache
def model_of(name: str) -> nn.Module:
    return make(name)


@lru_cache
def sites_of(name: str) -> tuple[Site, ...]:
    """Every place with one vector to a token."""
    return tuple(each.site for each in describe(model_of(name), inputs_of(name)) if not each.role.startswith("pattern"))


@lru_cache
def shape_of(name: str, site: Site) -> tuple[int, ...]:
    with Capture(model_of(name), [site]) as capture:
        return tuple(capture(**inputs_of(name))[site].shape)


@lru_cache
def all_edits(d: int, rows: int) -> dict[type[Edit], Edit]:
    return dict(edits_of(d, rows))


def run(name: str) -> torch.Tensor:
    with torch.no_grad():
        output = model_of(name)(**inputs_of(name))
    return (output.logits if hasattr(output, "logits") else output[0]).clone()


def hooks(model: nn.Module) -> list[tuple[int, ...]]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [tuple(getattr(module, kind)) for module in model.modules() for kind in kinds]


def failing(name: str, edits: dict) -> None:
    with edited(model_of(name), edits):
        run(name)
        raise KeyError("inside")


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_nothing_is_left_in_the_model(name, data):
    model, sites = model_of(name), sites_of(name)
    clean, mode = run(name), [module.training for module in model.modules()]
    chosen = data.draw(st.lists(st.sampled_from(sites), min_size=1, max_size=3, unique=True))
    kinds = [data.draw(st.sampled_from(EDITS)) for _ in chosen]
    fails = data.draw(st.booleans())
    leaf = next(module for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d)))
    handles = [
        model.register_forward_hook(lambda *_: None),
        leaf.register_full_backward_hook(lambda *_: None),
    ]
    try:
        before = hooks(model)
        edits = {}
        for site, kind in zip(chosen, kinds):
            shape = shape_of(name, site)
            edits[site] = all_edits(shape[-1], math.prod(shape[:-1]))[kind]
        if fails:
            with pytest.raises(KeyError, match="inside"):
                failing(name, edits)
        else:
            with edited(model, edits):
                loud = run(name)
            assert loud.shape == clean.shape
        assert hooks(model) == before
    finally:
        for handle in handles:
            handle.remove()
    assert torch.equal(run(name), clean)
    assert [module.training for module in model.modules()] == mode


@pytest.mark.parametrize("name", ["gpt2", "opt", "bert"])
def test_an_edit_that_fails_leaves_nothing_either(name):
    model, clean = model_of(name), run(name)
    before = hooks(model)
    wrong = Add(torch.ones(shape_of(name, sites_of(name)[0])[-1] + 1))
    with pytest.raises(ValueError, match="rows of"), edited(model, {sites_of(name)[0]: wrong}):
        run(name)
    assert hooks(model) == before
    assert torch.equal(run(name), clean)
    with pytest.raises(SiteNotFound), edited(model, {sites_of(name)[0]: Add(torch.ones(16)), "no.such": wrong}):
        pass
    assert hooks(model) == before


def test_nested_blocks_leave_each_others_hooks_in_place():
    model = model_of("gpt2")
    site = blocks(model)[1]
    seen = []
    module = model.get_submodule(site)
    backward = module.register_full_backward_hook(lambda *_: seen.append("backward"))
    clean = run("gpt2")
    a, b = Add(torch.ones(16)), Add(torch.arange(16.0))
    with edited(model, {site: a}):
        outer = run("gpt2")
        with edited(model, {site: b}):
            both = run("gpt2")
        assert torch.equal(run("gpt2"), outer)
        with pytest.raises(KeyError), edited(model, {site: b}):
            raise KeyError
        assert torch.equal(run("gpt2"), outer)
    assert torch.equal(run("gpt2"), clean)
    with edited(model, {site: Add(torch.ones(16) + torch.arange(16.0))}):
        torch.testing.assert_close(run("gpt2"), both)
    # Blocks that are left in the order that they were entered in, not the reverse.
    first, second = ExitStack(), ExitStack()
    first.enter_context(edited(model, {site: a}))
    second.enter_context(edited(model, {site: b}))
    first.close()
    with edited(model, {site: b}):
        pass
    alone = run("gpt2")
    second.close()
    with edited(model, {site: b}):
        assert torch.equal(run("gpt2"), alone)
    model(**inputs_of("gpt2")).logits.sum().backward()
    assert seen == ["backward"]
    model.zero_grad()
    backward.remove()


def test_a_dictionary_is_spliced_in_before_or_after_an_edit():
    model, clean = model_of("gpt2"), run("gpt2")
    site, coder = blocks(model)[1], coder_of(16)
    splice, add = SpliceIn(coder), Add(torch.ones(16))
    outcomes = []
    for order in ((splice, add), (add, splice)):
        with edited(model, {site: order[0]}), edited(model, {site: order[1]}):
            outcomes.append(run("gpt2"))
        with edited(model, {site: lambda x, order=order: order[1](order[0](x))}):
            torch.testing.assert_close(run("gpt2"), outcomes[-1])
        assert torch.equal(run("gpt2"), clean)
    assert not torch.allclose(*outcomes)


PROMPTS = ([5, 9, 17], [4, 8], [11, 3, 7])
ANSWERS = ([20, 21], [22], [23, 24, 25])


def subject_of(name):
    return Subject(model_of(name), None, name, "causal")


@pytest.mark.parametrize("name", tuple(CAUSAL))
def test_scores_are_those_of_each_sequence_alone(name):
    subject = subject_of(name)
    edits = {blocks(subject.model)[1]: Add(torch.linspace(-1, 1, 16))}
    for given_edits in (None, edits):
        # Where nothing is edited, where it is edited says nothing.
        for positions in ("all", "last", "after", "answering", 1, -1) if given_edits else ("all",):
            scores = log_probabilities(subject, PROMPTS, ANSWERS, edits=given_edits, positions=positions)
            for prompt, answer, score in zip(PROMPTS, ANSWERS, scores):
                n = len(prompt)
                mask = torch.zeros(1, n + len(answer), dtype=torch.bool)
                start = {"all": 0, "last": n - 1, "after": n, "answering": n - 1, 1: 1, -1: n - 1}[positions]
                mask[:, start : n if positions == "last" else None] = True
                with torch.no_grad(), edited(subject.model, given_edits or {}, positions=mask):
                    logits = subject.model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
                own = logits.log_softmax(-1)
                expected = sum(float(own[n - 1 + t, token]) for t, token in enumerate(answer))
                assert float(score) == pytest.approx(expected, abs=2e-4)
                each = token_log_probabilities(subject, prompt, answer, edits=given_edits, positions=positions)
                assert each.tolist() == pytest.approx(
                    [float(own[n - 1 + t, a]) for t, a in enumerate(answer)], abs=2e-4
                )


@pytest.mark.parametrize("name", tuple(CAUSAL))
def test_what_is_generated_is_the_likeliest_token_by_token(name):
    subject = subject_of(name)
    edits = {blocks(subject.model)[1]: Add(torch.linspace(-1, 1, 16))}
    for positions in ("all", "after"):
        answers = generate(subject, PROMPTS, edits=edits, positions=positions, max_new_tokens=4, stop=False)
        for prompt, answer in zip(PROMPTS, answers):
            whole = list(prompt)
            for token in answer:
                mask = torch.zeros(1, len(whole), dtype=torch.bool)
                mask[:, 0 if positions == "all" else len(prompt) :] = True
                with torch.no_grad(), edited(subject.model, edits, positions=mask):
                    logits = subject.model(input_ids=torch.tensor([whole])).logits[0, -1]
                # Rounding may settle a tie otherwise; what was taken is as likely as the likeliest.
                assert float(logits[token]) >= float(logits.max()) - 1e-3
                whole.append(token)


@pytest.mark.parametrize("name", tuple(CAUSAL))
def test_strengths_that_share_a_pass_score_as_apart(name):
    subject, edit = subject_of(name), Add(torch.linspace(-1, 1, 16))
    clean = run(name)
    for site in (blocks(subject.model)[1], "mlp_out.1" if name not in ("mamba",) else blocks(subject.model)[0]):
        options = {"site": site, "edit": edit, "strengths": (0, -1, 0.5, 4), "positions": "answering"}
        together = dose_response(subject, PROMPTS[0], ANSWERS[0], **options)
        apart = dose_response(subject, PROMPTS[0], ANSWERS[0], share=False, **options)
        torch.testing.assert_close(together, apart, rtol=0, atol=5e-4)
        own = log_probabilities(subject, PROMPTS[:1], ANSWERS[:1])
        torch.testing.assert_close(together[:1], own, rtol=0, atol=5e-4)
    assert torch.equal(run(name), clean)


def test_below_the_site_a_sequence_is_computed_once():
    subject = subject_of("llama")
    first, _, last = blocks(subject.model)
    seen = {first: [], last: []}
    handles = [
        subject.model.get_submodule(name).register_forward_hook(lambda m, a, out, n=name: seen[n].append(len(out)))
        for name in seen
    ]
    edit = Add(torch.ones(16))
    dose_response(subject, PROMPTS[0], ANSWERS[0], site="resid_post.1", edit=edit, strengths=(0, 1, 2, 3))
    for handle in handles:
        handle.remove()
    assert seen == {first: [1], last: [4]}


def test_the_gradient_of_log_odds_is_their_slope():
    subject = subject_of("llama")
    site = blocks(subject.model)[1]
    right, wrong = ANSWERS, ([30], [31, 32], [33])
    g = log_odds_gradient(subject, site, PROMPTS, right, wrong)
    for seed in range(3):
        v = torch.randn(16, generator=torch.Generator().manual_seed(seed))
        odds = [
            float(log_odds(subject, PROMPTS, right, wrong, edits={site: Add(v, strength=s)}).mean())
            for s in (-0.01, 0.01)
        ]
        assert (odds[1] - odds[0]) / 0.02 == pytest.approx(float(g @ v.double()), rel=0.05, abs=0.02)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in subject.model.parameters())


def test_draws_are_those_of_the_seed():
    subject = subject_of("gpt2")
    draw = lambda seed: generate(subject, PROMPTS, max_new_tokens=6, temperature=2.0, seed=seed)  # noqa: E731
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    # What is drawn for one prompt does not hang on those beside it.
    assert generate(subject, PROMPTS[:1], max_new_tokens=6, temperature=2.0, seed=1) == draw(1)[:1]


def test_what_cannot_be():
    encoder = Subject(model_of("bert"), None, "tiny", "encoder")
    with pytest.raises(TypeError, match="'tiny' is an encoder"):
        generate(encoder, PROMPTS)
    with pytest.raises(TypeError, match="'tiny' is an encoder"):
        log_probabilities(encoder, PROMPTS, ANSWERS)
    subject = subject_of("gpt2")
    with pytest.raises(ValueError, match="shorten the prompt"):
        generate(subject, PROMPTS, max_new_tokens=30)
    with pytest.raises(ValueError, match="2 answers to 3 prompts"):
        log_probabilities(subject, PROMPTS, ANSWERS[:2])
    with pytest.raises(ValueError, match="no token"):
        log_probabilities(subject, PROMPTS, ([], [1], [2]))
    with pytest.raises(ValueError, match="counts 3 tokens back and the shortest prompt has 2"):
        log_probabilities(subject, PROMPTS, ANSWERS, edits={"h.1": Add(torch.ones(16))}, positions=-3)
    with pytest.raises(ValueError, match="temperature"):
        generate(subject, PROMPTS, temperature=float("nan"))
    # With shape checks on, jaxtyping is quicker to say it.
    refused = pytest.raises((ValueError, TypeCheckError), match="say all, last|parameter 'positions'")
    with refused, edited(subject.model, {}, positions="after"):
        pass
