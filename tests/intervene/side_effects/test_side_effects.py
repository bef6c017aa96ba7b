from __future__ import annotations

import pytest
import torch

import superscope as ss
from superscope.capture import Subject
from superscope.core import ShapeError, SiteNotFound
from superscope.intervene.concepts import Direction
from superscope.intervene.edits import Add
from superscope.intervene.side_effects import (
    answer_faults,
    control_band,
    divergence_of,
    divergences,
    side_effects,
)


@pytest.fixture
def subject(model_of, tokenizer) -> Subject:
    return Subject(model_of("gpt2"), tokenizer, "gpt2", "causal")


@pytest.mark.parametrize("batch_tokens", [64, 4000])
def test_divergence_is_that_of_each_sequence_alone_in_float64(subject, corpus, batch_tokens):
    v = torch.randn(16, generator=torch.Generator().manual_seed(0))
    edit = {"resid_post.1": Add(v)}
    (moved,) = divergences(subject, corpus, [edit], batch_tokens=batch_tokens)
    for i, (ids, keep, length) in enumerate(zip(corpus.ids, corpus.keep, corpus.length)):
        whole = ids[None, :length]
        with torch.no_grad():
            p = subject.model(whole).logits[0].double().log_softmax(-1)
            with ss.intervene.edited(subject, edit, positions=keep[None, :length]):
                q = subject.model(whole).logits[0].double().log_softmax(-1)
        kl = (p.exp() * (p - q)).sum(-1)[keep[:length]]
        assert float(moved.kl[i]) == pytest.approx(float(kl.sum()), rel=1e-4)
        assert int(moved.positions[i]) == int(keep.sum())
        target = ids[1:length]
        gain = (p[:-1].gather(1, target[:, None]) - q[:-1].gather(1, target[:, None])).sum()
        assert float(moved.edited_loss[i] - moved.loss[i]) == pytest.approx(float(gain), rel=1e-3, abs=1e-4)
    loss = ss.intervene.next_token_loss(subject, corpus)
    torch.testing.assert_close(moved.loss, loss.nats, rtol=1e-5, atol=1e-5)
    sums = moved.by_document()
    assert float(sums[:, 0].sum() / sums[:, 1].sum()) == pytest.approx(moved.mean)
    assert float(sums[:, 2].sum() / sums[:, 3].sum()) == pytest.approx(moved.delta_loss)


def test_no_edit_moves_nothing_and_leaves_nothing(subject, corpus):
    def hooks():
        return [(*module._forward_hooks, *module._forward_pre_hooks) for module in subject.model.modules()]

    # Not that there are none: transformers leaves its own in a model, which tests share, once asked for hidden states.
    before = hooks()
    (nothing,) = divergences(subject, corpus, [{"resid_post.1": Add(torch.ones(16), strength=0.0)}])
    assert float(nothing.kl.abs().max()) == 0
    assert nothing.delta_loss == 0
    assert hooks() == before


def test_an_edit_acts_where_it_is_asked_to(subject, corpus):
    # No constant: a layer norm takes that out again.
    edit = {"resid_post.1": Add(torch.randn(16, generator=torch.Generator().manual_seed(0)))}
    first = torch.zeros_like(corpus.keep)
    first[0] = True
    (nowhere,) = divergences(subject, corpus, [edit], where=torch.zeros_like(first))
    (there,) = divergences(subject, corpus, [edit], where=first, batch_tokens=64)
    (everywhere,) = divergences(subject, corpus, [edit], batch_tokens=64)
    assert float(nowhere.kl.abs().max()) == 0
    assert float(there.kl[1:].abs().max()) == 0
    assert float(there.kl[0]) == pytest.approx(float(everywhere.kl[0]), rel=1e-6)
    assert float(there.kl[0]) > 1e-3
    assert torch.equal(there.positions, everywhere.positions)


def test_what_is_excluded_is_neither_nan_nor_clamped():
    never = -float("inf")
    p = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [0.5, 0.25, 0.25]], dtype=torch.float64).log()
    q = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.5, 0.5, 0.0]], dtype=torch.float64).log()
    assert p[0, 2] == never
    kl = divergence_of(p, q)
    assert float(kl[0]) == pytest.approx(0.25 * -0.6931471805599453 + 0.75 * 0.4054651081081644)
    assert float(kl[1]) == pytest.approx(0.6931471805599453)
    assert float(kl[2]) == float("inf")


def test_an_infinite_divergence_is_counted(subject, corpus):
    banned = {"on": False}

    def ban(module, args, output):
        return output.masked_fill(torch.arange(output.shape[-1]) == 7, -float("inf")) if banned["on"] else output

    def edit(x):
        banned["on"] = True
        return x

    handles = [
        subject.model.lm_head.register_forward_hook(ban),
        subject.model.register_forward_hook(lambda *_: banned.update(on=False)),
    ]
    try:
        (moved,) = divergences(subject, corpus, [{"resid_post.1": edit}])
    finally:
        for handle in handles:
            handle.remove()
    assert moved.infinite == int(moved.positions.sum())
    assert moved.mean == float("inf")


def test_bad_input_is_refused(subject, corpus):
    with pytest.raises(TypeError, match="encoder"):
        divergences(Subject(subject.model, subject.tokenizer, "x", "encoder"), corpus, [])
    with pytest.raises(SiteNotFound):
        divergences(subject, corpus, [{"no.such.site": Add(torch.ones(16))}])
    with pytest.raises(ShapeError, match="d = 5"):
        divergences(subject, corpus, [{"resid_post.1": Add(torch.ones(5))}])
    with pytest.raises(ValueError, match="strength is nan"):
        Add(torch.ones(16), strength=float("nan"))


def test_the_meter_reads_norms_probes_and_latents_at_the_edited_site(subject, corpus):
    W = ss.frames.random_unit(n=40, d=16, seed=0)
    coder = ss.recovery.NNOMP(W, k=4)
    v = 3.0 * W.atoms[5]
    probe = Direction(W.atoms[5].double(), 0.0, "planted")
    edits = [{"resid_post.1": Add(v)}, {"resid_post.1": Add(v, strength=0.0)}]
    moved, still = side_effects(
        subject, corpus, edits, watch="resid_post.1", probes={"it": probe}, coder=coder, targets=[5], worst=3
    )
    ((x),) = next(ss.capture.harvest(subject.model, ["resid_post.1"], corpus, batch_tokens=10**6)).values()
    ratio = ((x.x + v).norm(dim=1) / x.x.norm(dim=1)).mean()
    assert moved.norm_ratio == pytest.approx(float(ratio), rel=1e-5)
    assert moved.probes["it"] == pytest.approx(3.0 / float((x.x @ W.atoms[5]).std()), rel=1e-3)
    assert still.norm_ratio == 1.0
    assert still.probes["it"] == 0.0
    assert moved.latents is not None
    assert still.latents is not None
    assert still.latents.off_target == 0.0
    assert 0 < moved.latents.off_target < 1
    assert 5 not in moved.latents.worst.tolist()
    assert len(moved.latents.worst) == 3
    downstream, _ = side_effects(subject, corpus, edits, watch="resid_post.2")
    assert downstream.norm_ratio != 1.0


def test_control_vectors_are_as_long_and_what_they_say():
    v = torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0])
    W = ss.core.Dictionary(torch.tensor([[0.0, 1, 0, 0, 0], [-1.0, -1.2, 0.1, 0, 0], [0.0, 0, 0, 0, 2]]))
    band = control_band(v, dictionary=W, random=3, orthogonal=4, seed=1)
    assert [one.kind for one in band] == ["opposite", *["random"] * 3, *["orthogonal"] * 4, "nearest atom"]
    for one in band:
        assert float(one.vector.norm()) == pytest.approx(5.0)
        if one.kind == "orthogonal":
            assert float(one.vector @ v.double()) == pytest.approx(0.0, abs=1e-9)
    assert band[-1].label == "1"
    assert float(band[-1].vector @ v.double()) > 0
    best = control_band(v, random=0, orthogonal=4, best=lambda u: float(u[2]), seed=1)
    assert len(best) == 2
    all_of_them = control_band(v, random=0, orthogonal=4, seed=1)[1:]
    assert float(best[1].vector[2]) == max(float(one.vector[2]) for one in all_of_them)
    with pytest.raises(ShapeError, match="atoms have 3 numbers"):
        control_band(v, dictionary=ss.core.Dictionary(torch.eye(3)))
    with pytest.raises(ValueError, match="the direction is zero"):
        control_band(torch.zeros(5))
    with pytest.raises(ValueError, match="nothing is orthogonal"):
        control_band(torch.ones(1))


def test_faults_of_answers_are_counted():
    answers = [[1, 2, 3, 4, 5, 6, 7, 8], [5, 5, 5, 5], [], [1, 2, 3, 1, 2, 3, 1, 2, 3]]
    texts = ["The answer is 4.", "ha ha ha ha", " ", "I'm sorry, but I cannot help with that."]
    faults = answer_faults(answers, texts)
    assert (faults.loops, faults.empty, faults.refused) == (0.5, 0.25, 0.25)
    assert faults.repetition == pytest.approx((0 + 0 + 0 + 3 / 6) / 4)
    assert faults.length == pytest.approx(21 / 4)
    with pytest.raises(ValueError, match="no answer"):
        answer_faults([])
    with pytest.raises(ValueError, match="1 texts for 4 answers"):
        answer_faults(answers, ["a"])
