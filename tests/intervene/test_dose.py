from __future__ import annotations

import math

import pytest
import torch

from superscope.capture import Subject
from superscope.intervene import dose, fisher
from superscope.intervene.collateral import interference, minimal, rho, second_moment


class Head(torch.nn.Module):
    """Next-token logits of the present token alone: its Fisher matrix is known."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = torch.nn.Embedding(6, 4)
        self.head = torch.nn.Linear(4, 6, bias=False)
        with torch.no_grad():
            self.embed.weight.copy_(torch.randn(6, 4, generator=generator))
            self.head.weight.copy_(torch.randn(6, 4, generator=generator))

    def forward(self, input_ids):
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.head(self.embed(input_ids)))


IDS = torch.randint(0, 6, (400, 10), generator=torch.Generator().manual_seed(1))


def exact(model):
    p = model.head(model.embed(IDS.flatten())).double().softmax(-1)
    W = model.head.weight.double()
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("vi,tvw,wj->ij", W, middle, W) / len(p)


@pytest.mark.parametrize("at", ["every", "one"])
def test_the_fisher_matrix_of_a_softmax_is_known(at):
    model = Head()
    found = fisher.pullback_fisher(Subject(model, None, "head", "causal"), "embed", IDS, at=at, draws=8)
    truth = exact(model).detach()
    assert float((found.matrix - truth).norm() / truth.norm()) < 0.05
    assert found.tokens == 8 * IDS.numel()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_nats_are_those_of_the_kl():
    model = Head()
    F = exact(model).detach()
    delta = 0.05 * dose.in_nats(torch.tensor([1.0, -1.0, 0.5, 2.0]), F)
    before, after = ((model.head(model.embed(IDS) + d)).double().log_softmax(-1) for d in (0, delta))
    kl = float((before.exp() * (before - after)).sum(-1).mean().detach())
    assert kl == pytest.approx(0.05**2, rel=0.1)


def test_the_labels_are_drawn_and_not_those_of_the_text(monkeypatch):
    # The empirical matrix of a text that always says 0 has rank 1 for each token; the model's own has more.
    model = Head()
    with torch.no_grad():
        model.embed.weight.copy_(model.embed.weight[:1].expand(6, 4))
    found = fisher.pullback_fisher(Subject(model, None, "head", "causal"), "embed", IDS * 0, at="one")
    assert int((torch.linalg.eigvalsh(found.matrix) > 1e-3).sum()) > 1


def test_mean_norms_and_bisection():
    assert dose.matched(math.tanh, 0.5, most=4.0, tolerance=1e-9, steps=60).strength == pytest.approx(math.atanh(0.5))
    down = dose.matched(lambda s: 3 - s, 1.0, most=8.0, tolerance=1e-9, steps=60)
    assert down.strength == pytest.approx(2.0)
    assert down.reached
    short = dose.matched(math.tanh, 2.0, most=4.0)
    assert (short.reached, short.strength, short.steps) == (False, 4.0, 2)
    with pytest.raises(ValueError, match="must be finite"):
        dose.matched(math.tanh, float("nan"), most=4.0)
    with pytest.raises(ValueError, match="mean norm of 0"):
        dose.in_mean_norms(torch.ones(2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="no length of it is one"):
        dose.in_nats(torch.ones(2), torch.zeros(2, 2).double())


def test_rho_is_the_cost_over_the_least():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(40, 8, generator=generator).double()
    K, g = interference(A, torch.rand(40, generator=generator), leave_out=3), A[3]
    best = minimal(g, K, effect=2.0)
    assert rho(best, g, K) == pytest.approx(1.0, abs=1e-9)
    v = torch.randn(8, generator=generator).double()
    v = v * 2.0 / float(v @ g)
    assert rho(v, g, K) == pytest.approx(float((v @ K @ v) / (best @ K @ best)))
    assert rho(g - g @ g / (g @ v) * v, g, K) > 1e6
    # Uncorrelated features: the second moment is what their atoms make as read-outs.
    f = torch.randn(200_000, 5, generator=generator).double()
    moment = second_moment(f @ A[:5])
    assert torch.allclose(moment, interference(A[:5], torch.ones(5)), atol=0.05 * float(moment.diagonal().max()))


def test_what_is_no_metric():
    g = torch.ones(3)
    with pytest.raises(ValueError, match="not symmetric"):
        minimal(g, torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]]))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        minimal(g, torch.diag(torch.tensor([5.0, 5, -1])))
    with pytest.raises(ValueError, match="fewer|cannot tell"):
        second_moment(torch.ones(2, 3))
    with pytest.raises(ValueError, match="negative"):
        interference(torch.eye(3), -torch.ones(3))


def test_the_radius_of_validity_is_where_the_second_order_ends():
    predicted = [0.01, 0.1, 1.0, 10.0]
    radius = dose.validity_radius(predicted, [0.01, 0.1, 1.5, 100.0])
    assert radius == pytest.approx(10**-0.5)
    assert dose.validity_radius(predicted, predicted) == 10.0
    assert dose.validity_radius(predicted, [0.02, 0.1, 1.0, 10.0]) is None
    # What comes back beyond the first that failed does not count.
    assert dose.validity_radius(predicted, [0.01, math.inf, 1.0, 10.0]) == 0.01
    assert dose.validity_radius(predicted, [0.01, 0.05, 1.0, 10.0], tolerance=0.6) == 10.0
    for wrong in (([], []), ([0.0, 1.0], [0.0, 1.0]), ([1.0, 1.0], [1.0, 1.0]), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="costs were measured"):
            dose.validity_radius(*wrong)


def test_the_fisher_of_parts_counts_each_token_alike() -> None:
    parts = [fisher.Fisher(torch.eye(2, dtype=torch.float64) * c, c, tokens) for c, tokens in ((1, 30), (5, 10))]
    whole = fisher.Fisher.mean(parts)
    assert (whole.samples, whole.tokens) == (6, 40)
    assert whole.nats(torch.tensor([1.0, 1.0])) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no parts"):
        fisher.Fisher.mean([])
