from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from superscope.core import ShapeError
from superscope.intervene.concepts import (
    FINDERS,
    ContrastRows,
    DiffMean,
    Lda,
    Logistic,
    PairPca,
    dense_code,
    entanglement,
    rank_latents,
    reliability,
    shared_features,
)
from superscope.intervene.concepts.latents import auc
from superscope.intervene.concepts.reliability import class_dimension
from superscope.recovery import NNOMP

from .conftest import planted


@pytest.mark.parametrize("finder", FINDERS)
def test_finds_the_planted_direction_and_tells_held_out_rows_apart(finder, train, held):
    direction = finder().find(train)
    assert float(direction.unit[0]) > 0.95
    known = reliability(direction, held, train=train, finder=finder())
    assert known.accuracy > 0.85
    assert known.wrong_way < 0.01
    assert known.caution == ""


@pytest.mark.parametrize("finder", FINDERS)
def test_turns_with_the_rows_and_reverses_with_the_sides(finder, train):
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    direction = finder().find(train)
    turned = finder().find(ContrastRows(train.positive @ turn, train.negative @ turn, paired=True))
    torch.testing.assert_close(turned.vector, direction.vector @ turn, rtol=1e-6, atol=1e-7)
    reverse = finder().find(ContrastRows(train.negative, train.positive, paired=True))
    torch.testing.assert_close(reverse.vector, -direction.vector, rtol=1e-6, atol=1e-7)


def test_lda_discounts_what_varies_and_the_difference_does_not():
    rows = planted(400, paired=False)
    rows = ContrastRows(rows.positive + torch.eye(12)[1] * 4, rows.negative)
    plain, lda = DiffMean().find(rows).unit, Lda(shrinkage=0.0).find(rows).unit
    assert abs(float(plain[1])) > 0.7
    assert abs(float(lda[1])) < 0.1
    difference = rows.positive.mean(0) - rows.negative.mean(0)
    centred = torch.cat([rows.positive - rows.positive.mean(0), rows.negative - rows.negative.mean(0)])
    expected = torch.linalg.solve(centred.T @ centred / len(centred), difference)
    torch.testing.assert_close(Lda(shrinkage=0.0).find(rows).vector, expected)


def test_shrinkage_is_that_of_scikit_learn():
    covariance = pytest.importorskip("sklearn.covariance")
    from superscope.intervene.concepts.lda import ledoit_wolf

    rows = planted(20, paired=False)
    centred = torch.cat([rows.positive - rows.positive.mean(0), rows.negative - rows.negative.mean(0)])
    expected = covariance.ledoit_wolf_shrinkage(centred.numpy(), assume_centered=True)
    assert ledoit_wolf(rows) == pytest.approx(expected, rel=1e-9)


def test_logistic_minimises_its_objective_where_rows_are_fewer_than_dimensions():
    rows = planted(10, d=30, paired=False)
    x, y = rows.x.numpy(), 2 * rows.labels.numpy() - 1
    scale = ((x - x.mean(0)) ** 2).mean() ** 0.5
    penalty = 0.05

    def objective(w: np.ndarray) -> float:
        loss = np.logaddexp(0, -y * (x @ w[:-1] + w[-1])).mean()
        return loss + penalty / 2 * scale**2 * (w[:-1] ** 2).sum()

    found = Logistic(penalty=penalty).find(rows)
    ours = objective(np.append(found.vector.numpy(), found.offset))
    best = minimize(objective, np.zeros(31), method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9})
    assert ours == pytest.approx(best.fun, rel=1e-8)


def test_pca_of_pairs_is_the_singular_vector_and_needs_pairs(train):
    differences = (train.positive - train.negative).numpy()
    unit = np.linalg.svd(differences, full_matrices=False)[2][0]
    assert abs(float(PairPca().find(train).unit @ torch.from_numpy(unit))) == pytest.approx(1.0, abs=1e-10)
    with pytest.raises(ValueError, match="found on pairs and these are two sets"):
        PairPca().find(ContrastRows(train.positive, train.negative))


def test_a_concept_that_changes_nothing_is_refused(train):
    with pytest.raises(ValueError, match="the same on average, so diff-mean has no direction"):
        DiffMean().find(ContrastRows(train.positive, train.positive))
    with pytest.raises(ShapeError, match="12 numbers and rows have 5"):
        DiffMean().find(train).read(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="negative row, so the contrast is one-sided"):
        ContrastRows(train.positive, train.negative[:0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        ContrastRows(train.positive * float("nan"), train.negative)
    with pytest.raises(ValueError, match="penalty is 0"):
        Logistic(penalty=0.0)


def test_random_pairs_are_called_unreliable():
    generator = torch.Generator().manual_seed(3)
    sides = [torch.randn(200, 60, generator=generator, dtype=torch.float64) for _ in range(4)]
    train, held = ContrastRows(sides[0], sides[1], paired=True), ContrastRows(sides[2], sides[3], paired=True)
    known = reliability(DiffMean().find(train), held, train=train, finder=DiffMean())
    assert known.cosine is not None
    assert known.cosine < 0.2
    assert known.wrong_way > 0.3
    assert "pairs hardly agree" in known.caution
    assert "go the wrong way" in known.caution


@pytest.mark.parametrize("copies", [1, 3])
def test_counts_the_directions_that_do_as_well(copies):
    def rows(seed: int) -> ContrastRows:
        generator = torch.Generator().manual_seed(seed)
        sides = [torch.randn(3000, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
        # Independent noise on each axis and the concept alike on all: each axis alone does as well, together better.
        sides[0][:, :copies] += 2.0
        return ContrastRows(*sides)

    class Axis(DiffMean):
        def vector(self, rows: ContrastRows) -> torch.Tensor:
            difference = super().vector(rows)
            return torch.nn.functional.one_hot(difference.abs().argmax(), 8).double() * difference

    dimension, capped = class_dimension(rows(0), rows(1), Axis())
    assert (dimension, capped) == (copies, False)


def test_latents_are_ranked_on_rows_that_did_not_choose_them():
    generator = torch.Generator().manual_seed(0)

    def rows(has: float) -> ContrastRows:
        sides = [(torch.rand(60, 500, generator=generator) < 0.3).double() for _ in range(2)]
        sides[0][:, 7] = (torch.rand(60, generator=generator) < has).double()
        return ContrastRows(*sides)

    ranked = rank_latents(lambda x: x, rows(0.9), rows(0.9), top=10)
    assert int(ranked.latent[0]) == 7
    assert float(ranked.auc[0]) > 0.7 > ranked.chance
    nothing = rank_latents(lambda x: x, rows(0.3), rows(0.3), top=10)
    # Where they were chosen, luck looks like knowledge; on the other half it does not.
    assert float((nothing.train_auc - 0.5).abs().max()) > 0.1
    assert abs(float(nothing.auc[0]) - 0.5) < nothing.chance - 0.5 + 0.1
    with pytest.raises(ValueError, match="top is 0"):
        rank_latents(lambda x: x, rows(0.3), rows(0.3), top=0)


def test_auc_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(0)
    f, labels = torch.randint(0, 4, (30, 3), generator=generator).double(), torch.arange(30) % 3 == 0
    a, b = f[labels], f[~labels]
    pairs = (a[:, None] > b[None]).double() + 0.5 * (a[:, None] == b[None]).double()
    torch.testing.assert_close(auc(f, labels.double()), pairs.mean((0, 1)))


def test_entangled_concepts_answer_to_each_other():
    generator = torch.Generator().manual_seed(0)
    shift = {"a": torch.tensor([2.0, 0, 0]), "b": torch.tensor([1.0, 1.0, 0]), "c": torch.tensor([0, 0, 2.0])}
    rows = {}
    for name, v in shift.items():
        sides = [torch.randn(4000, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
        rows[name] = ContrastRows(sides[0] + v, sides[1])
    matrix = entanglement({name: DiffMean().find(r) for name, r in rows.items()}, rows)
    # d' of shift v along unit u is u . v where noise is white.
    units = torch.stack([v / v.norm() for v in shift.values()]).double()
    expected = units @ torch.stack(list(shift.values())).double().T
    torch.testing.assert_close(matrix.effects, expected, atol=0.12, rtol=0)
    torch.testing.assert_close(matrix.cosines, units @ units.T, atol=0.05, rtol=0)
    assert float(matrix.crosstalk[2]) < 0.1 < float(matrix.crosstalk[1])
    with pytest.raises(ValueError, match="c has a direction and no held-out rows"):
        entanglement({"c": DiffMean().find(rows["c"])}, {})


def test_what_shares_a_direction_is_what_was_planted():
    import superscope as ss

    W = ss.frames.random_unit(n=24, d=16, seed=0)
    generator = torch.Generator().manual_seed(1)
    f = (torch.rand(2000, 24, generator=generator) < 0.06).float()
    f[:1000, 3], f[1000:, 3] = 1.0, 0.0
    x = f @ W.atoms
    rows = ContrastRows(x[:1000], x[1000:])
    direction = DiffMean().find(rows)
    own = shared_features(direction, W, lambda _: f, rows)
    assert int(own.latent[0]) == 3
    assert own.own == 1
    assert float(own.cosine[0]) > 0.95
    assert own.explained == pytest.approx(1.0, abs=1e-5)
    # Feature 3 is the same in all rows of a side: all of the noise is that of the others.
    assert own.interference == pytest.approx(1.0, abs=1e-5)
    code = dense_code(NNOMP(W, k=3))
    assert int(shared_features(direction, W, code, rows).latent[0]) == 3
