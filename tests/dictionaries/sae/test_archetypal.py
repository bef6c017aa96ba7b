from __future__ import annotations

import pytest
import torch

from superscope.dictionaries import Archetypal, TopK, train


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slack", [0.0, 0.2])
def test_atoms_stay_mixtures_of_the_data_within_the_slack(sparse_world, slack):
    world = sparse_world(24, 10, 2, offset=3.0)
    sae = Archetypal(10, 40, 2, candidates=50, slack=slack)
    for _ in train(sae, world, steps=60, batch=64, lr=0.01):
        pass
    assert float(sae.mixture.detach().min()) >= 0
    torch.testing.assert_close(sae.mixture.detach().sum(1), torch.ones(40))
    assert float(sae.relaxation.detach().norm(dim=1).max()) <= slack * (1 + 1e-5)
    assert float(sae.mixture.detach().std()) > 0
    made = sae.mixture.detach() @ sae.rows + sae.relaxation.detach()
    torch.testing.assert_close(sae.atoms, made / made.norm(dim=1, keepdim=True))
    torch.testing.assert_close(sae.dictionary.norms, torch.ones(40))


def test_candidates_are_rows_of_the_first_batch():
    x = rows(30, 6) + 2
    sae = Archetypal(6, 9, 2, candidates=30)
    sae.start(x)
    away = x - x.mean(0)
    away /= away.square().sum(1).mean().sqrt()
    cosines = torch.nn.functional.normalize(sae.rows, dim=1) @ torch.nn.functional.normalize(away, dim=1).T
    torch.testing.assert_close(cosines.amax(1), torch.ones(30))
    assert float(sae.rows.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-5)


def test_candidates_that_were_set_stay():
    sae = Archetypal(6, 9, 2, candidates=12)
    sae.set_candidates(rows(12, 6))
    kept = sae.rows.clone()
    sae.start(rows(40, 6, seed=1))
    assert torch.equal(sae.rows, kept)


def test_two_seeds_agree_more_than_free_dictionaries(sparse_world):
    # Too few rows and steps to find the truth; what two seeds share is then what the method gives them.
    world = sparse_world(64, 16, 4)
    shared = torch.cat([next(world.batches(64, seed=1)).x])

    def learned(build, seed):
        sae = build(seed)
        if isinstance(sae, Archetypal):
            sae.set_candidates(shared)
        for _ in train(sae, world, steps=40, batch=64, lr=0.02, seed=seed):
            pass
        return sae.dictionary.atoms

    def agreement(build):
        one, other = learned(build, 0), learned(build, 1)
        return float((one @ other.T).amax(1).mean())

    assert agreement(lambda seed: Archetypal(16, 64, 3, 64, 0.0, seed)) > agreement(lambda s: TopK(16, 64, 3, s)) + 0.02


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: Archetypal(4, 8, 9), "k must be in 1..n = 8"),
        (lambda: Archetypal(4, 8, 2, candidates=0), "candidates must be at least 1"),
        (lambda: Archetypal(4, 8, 2, slack=-1.0), "slack must be at least 0"),
        (lambda: Archetypal(4, 8, 2, candidates=9).start(rows(8, 4)), "first batch has 8 rows and candidates = 9"),
        (lambda: Archetypal(4, 8, 2, candidates=9).set_candidates(rows(8, 4)), "candidates = 9 and got 8 rows"),
        (lambda: Archetypal(4, 8, 2, candidates=9).set_candidates(torch.ones(9, 4)), "all rows are equal"),
    ],
)
def test_impossible_arguments_are_refused(work, says):
    with pytest.raises(ValueError, match=says):
        work()


def test_a_mixture_that_lost_every_candidate_starts_over():
    sae = Archetypal(4, 8, 2, candidates=5)
    with torch.no_grad():
        sae.mixture[3] = -1.0
    sae.constrain()
    torch.testing.assert_close(sae.mixture[3].detach(), torch.full((5,), 0.2))
