"""Partners, bands and mixtures against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode, SparseCoder
from superscope.measure import QUANTILES, banded_contexts, company, mixtures, signed_interference


class Known(SparseCoder):
    """Codes that are known beforehand, looked up by the row's first number."""

    def __init__(self, W: Dictionary, codes: torch.Tensor) -> None:
        self.dictionary, self.codes = W, codes

    def encode(self, x: torch.Tensor) -> SparseCode:
        return SparseCode.from_dense(self.codes[x[:, 0].long()])


@pytest.fixture(scope="module")
def drawn() -> tuple[Dictionary, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    atoms = torch.randn(12, 5, generator=generator)
    f = torch.rand(300, 12, generator=generator) * (torch.rand(300, 12, generator=generator) < 0.25)
    f[:, 11] = 0.0
    return Dictionary(atoms), f


def test_partners_are_ranked_by_what_they_cost(drawn: tuple[Dictionary, torch.Tensor]) -> None:
    W, f = drawn
    found = company(W, [SparseCode.from_dense(part) for part in f.split(70)], torch.tensor([4, 0, 11]), most=3)
    z = (f * W.norms).double()
    cosine = (W.unit().atoms @ W.unit().atoms.T).double()
    energy = cosine[4].square() * z.square().mean(0) / z[:, 4].square().mean()
    energy[4] = 0
    best = energy.argsort(descending=True)[:3]
    assert found.disturbers.others[0].tolist() == best.tolist()
    assert found.disturbers.energy[0].tolist() == pytest.approx(energy[best].tolist(), rel=1e-5)
    assert float(found.energy[0]) == pytest.approx(float(energy.sum()), rel=1e-5)
    while_on = cosine[4] * (z[:, [4]] * z).mean(0) / z[:, 4].square().mean()
    assert found.disturbers.while_on[0].tolist() == pytest.approx(while_on[best].tolist(), rel=1e-5)
    both = ((f[:, [0]] != 0) & (f != 0)).sum(0)
    either = ((f[:, [0]] != 0) | (f != 0)).sum(0)
    jaccard = both / either
    jaccard[0] = 0
    assert found.companions.others[1].tolist() == jaccard.argsort(descending=True)[:3].tolist()
    assert found.companions.both[1].tolist() == both[found.companions.others[1]].tolist()
    assert (found.on.tolist(), found.rows) == ((f != 0).sum(0).tolist(), 300)
    # A feature that never fires has no company, and disturbs nobody.
    assert found.disturbers.others[2].tolist() == found.companions.others[2].tolist() == [-1, -1, -1]
    assert 11 not in found.disturbers.others[:2]


def test_their_parts_sum_to_the_interference_of_the_feature(drawn: tuple[Dictionary, torch.Tensor]) -> None:
    W, f = drawn
    rows = [Activations(torch.arange(300.0)[:, None].expand(300, 5))]
    whole = signed_interference(Known(W, f), rows, least=5)
    found = company(W, [SparseCode.from_dense(f)], whole.features, most=11)
    assert found.energy.tolist() == pytest.approx(whole.each.energy.tolist(), rel=1e-4)
    assert found.disturbers.while_on.sum(1).tolist() == pytest.approx(whole.each.while_on.tolist(), rel=1e-3, abs=1e-6)


def test_codes_of_another_dictionary_are_refused(drawn: tuple[Dictionary, torch.Tensor]) -> None:
    W, f = drawn
    with pytest.raises(ShapeError, match="5 features for 12 atoms"):
        company(W, [SparseCode.from_dense(f[:, :5])], torch.tensor([0]))


def test_a_band_is_drawn_from_its_own_rows_whatever_their_order() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(4000, 1, generator=generator).clamp(min=1e-3)
    places = torch.stack([torch.arange(4000) // 8, torch.arange(4000) % 8], 1)
    code = SparseCode(values, torch.zeros(4000, 1, dtype=torch.long), 1)
    peak = values.max()[None]
    found = banded_contexts([(code, places)], peak, count=4)
    drawn = values.reshape(500, 8)[found.places.sequences[0], found.places.positions[0]]
    assert [int(v / peak * 3 * 0.999999) for v in drawn] == [found.band(slot) for slot in range(12)]
    expected = np.histogram((values / peak).numpy(), np.linspace(0, 1, 13))[0]
    assert np.abs(found.counts[0].numpy() - expected).max() <= 1
    order = torch.randperm(4000, generator=generator)
    turned = SparseCode(values[order], code.indices, 1)
    again = banded_contexts([(turned, places[order])], peak, count=4)
    assert again.places.positions.tolist() == found.places.positions.tolist()
    # As likely anywhere in its band: the mean of many draws is the middle.
    means = []
    for seed in range(60):
        slots = banded_contexts([(code, places)], peak, count=4, seed=seed).places
        means.append(float(values.reshape(500, 8)[slots.sequences[0, 4:8], slots.positions[0, 4:8]].mean() / peak))
    assert np.mean(means) == pytest.approx(0.5, abs=4 * 0.096 / np.sqrt(240))


def test_a_neuron_is_taken_apart_into_what_it_was_made_of(drawn: tuple[Dictionary, torch.Tensor]) -> None:
    W, f = drawn
    W = Dictionary(W.atoms, bias=torch.full((5,), 0.5))
    noise = 0.01 * torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    x = W.compose(SparseCode.from_dense(f)) + noise
    places = torch.stack([torch.arange(300) // 10, torch.arange(300) % 10], 1)
    # The row's number stands in a coordinate of its own, by which the coder looks its code up.
    numbered = Dictionary(torch.cat([torch.zeros(12, 1), W.atoms], 1), bias=torch.cat([torch.zeros(1), W.bias]))
    rows = torch.cat([torch.arange(300.0)[:, None], x], 1)
    parts = [Activations(a, places=b) for a, b in zip(rows.split(64), places.split(64), strict=True)]
    found = mixtures(Known(numbered, f), parts, torch.tensor([1, 3]), before=1, after=1)
    own = x[:, 2].double() - 0.5
    edges = np.quantile(own.numpy(), QUANTILES)
    inside = (own >= edges[1]) & (own < edges[2])
    assert int(found.rows[1, 1]) == int(inside.sum())
    contribution = (f[inside] * W.atoms[:, 2]).double().mean(0)
    best = contribution.abs().argsort(descending=True)[:6]
    assert found.features[1, 1].tolist() == best.tolist()
    assert found.parts[1, 1].tolist() == pytest.approx(contribution[best].tolist(), rel=1e-4)
    assert float(found.value[1, 1]) == pytest.approx(float(own[inside].mean()), rel=1e-4)
    left = found.value[1] - found.explained[1]
    assert float(left.abs().max()) < 0.03
    # At most one example of a sequence, the highest first.
    examples = found.examples[1]
    assert own[examples].tolist() == sorted(own[examples].tolist(), reverse=True)
    assert len(set((examples // 10).tolist())) == 12
    assert int(examples[0]) == int(own.argmax())
    first = (f[examples[0]] * W.atoms[:, 2]).double()
    assert int(found.example_features[1, 0, 0]) == int(first.argmax())
    middle = int(examples[0])
    window = [
        float(own[r]) if 0 <= r < 300 and r // 10 == middle // 10 else None for r in range(middle - 1, middle + 2)
    ]
    for shown, wanted in zip(found.around[1, 0].tolist(), window, strict=True):
        assert (shown != shown) if wanted is None else shown == pytest.approx(wanted, rel=1e-4)
