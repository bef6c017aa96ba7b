"""One dictionary of several places: which latents they share, where each lives, and which rows count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superscope import measure
from superscope.core import Run, result_of
from superscope.dictionaries import BatchTopK, Crosscoder
from superscope.studies.networks.dynamics import from_moment_to_moment
from superscope.studies.networks.together import Side, SideBySide, lives, taught, unexplained

D, ROWS = 10, 4000
HISTORY = [[1, 1, 1]] * 4 + [[0, 1, 1]] * 4 + [[1, 1, 0]] * 4
"""At which of three moments each feature is there: 4 stay, 4 are born at the second, 4 die after it."""


def unit(n: int, seed: int) -> torch.Tensor:
    atoms = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return atoms / atoms.norm(dim=1, keepdim=True)


def sides(has: torch.Tensor) -> list[Side]:
    """Places that show 12 features, one on in each row, each in directions of its own; `has` says which are there."""
    random = torch.Generator().manual_seed(0)
    which, size = torch.randint(12, (ROWS,), generator=random), 0.5 + torch.rand(ROWS, 1, generator=random)
    return [
        Side(np.arange(ROWS), 7 * place + (1 + 3 * place) * size * (unit(12, place) * there[:, None])[which])
        for place, there in enumerate(has.float().T)
    ]


def split(has: torch.Tensor) -> SideBySide:
    whole = sides(has)
    return SideBySide.of(
        *([Side(s.numbers[part], s.x[part]) for s in whole] for part in (slice(3000), slice(3000, None)))
    )


@pytest.mark.parametrize(
    ("shared", "least", "most", "latents"), [(12, 0, 0.2, 0.4), (6, 0.15, 0.4, 0.2), (0, 0.9, 1.1, 0)]
)
def test_a_code_of_one_place_rebuilds_as_much_of_another_as_is_in_both(
    shared: int, least: float, most: float, latents: float
) -> None:
    number = torch.arange(12)
    own = (12 - shared) // 2
    rows = split(torch.stack([number < shared + own, (number < shared) | (number >= shared + own)], 1))
    made = Crosscoder(2 * D, 12, 1, rows.widths, one_site=True)
    sae = result_of(taught(made, rows.learned, Run.begin("x", {}), "x", steps=150, batch=256, stage="Learning"))
    codes = [sae.from_site(rows.part(place), place) for place in (0, 1)]
    rebuilt = sae.decode(codes[0]).detach().split(rows.widths, dim=1)
    across = unexplained(rows.part(1), rebuilt[1], np.arange(len(rows.held)) // 50)
    assert across.value is not None
    assert least <= across.value <= most
    assert across.chance is not None
    assert across.chance > 0.9
    # Latents of both are at least so many; a feature of both may have a latent for each place (docs/transfer.md).
    found = measure.latents_shared(*(measure.active([code]) for code in codes))
    assert found.value is not None
    assert latents <= found.value <= shared / 12 + 0.2
    assert found.chance is not None
    assert found.chance < 0.1


def test_a_crosscoder_over_moments_says_where_each_feature_lives() -> None:
    has = torch.tensor(HISTORY)
    rows = split(has)
    made = BatchTopK(3 * D, 32, 1)
    sae = result_of(taught(made, rows.learned, Run.begin("x", {}), "x", steps=150, batch=256, stage="Learning"))
    truth = torch.cat([unit(12, place) * there[:, None] for place, there in enumerate(has.float().T)], 1)
    cosines, latent = (truth / truth.norm(dim=1, keepdim=True) @ sae.atoms.detach().T).max(1)
    assert float(cosines.mean()) > 0.9
    right = (lives(sae.atoms, rows.widths)[latent] == has.bool().numpy()).all(1)
    assert right.sum() >= 11, right


def test_births_and_deaths_between_moments_stand_beside_those_between_moments_in_other_orders() -> None:
    found = {(m.name, m.at["to"]): m for m in from_moment_to_moment(np.array(HISTORY, dtype=bool), ("0", "1", "2"))}
    assert {place: m.value for place, m in found.items()} == {
        ("crosscoder_born", "1"): pytest.approx(1 / 3),
        ("crosscoder_died", "1"): 0,
        ("crosscoder_born", "2"): 0,
        ("crosscoder_died", "2"): pytest.approx(1 / 3),
    }
    # From 0 to 2, 1 to 0, 2 to 0, 2 to 1: born 4 of 8, 0 of 8, 4 of 8, 4 of 12; died 4 of 8, 4 of 12, 4 of 8, 0 of 8.
    assert found["crosscoder_born", "1"].chance == pytest.approx((1 / 2 + 0 + 1 / 2 + 1 / 3) / 4)
    assert found["crosscoder_died", "1"].chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 0) / 4)
    assert [m.value for m in from_moment_to_moment(np.zeros((0, 2), dtype=bool), ("0", "1"))] == [None, None]


def test_only_rows_that_all_places_have_are_put_side_by_side() -> None:
    one, other = Side(np.array([1, 2, 4]), torch.randn(3, 2)), Side(np.array([0, 2, 4, 5]), torch.randn(4, 3))
    rows = SideBySide.of([one, other], [one, other])
    assert rows.numbers.tolist() == [2, 4]
    assert rows.widths == (2, 3)
    torch.testing.assert_close(rows.learned.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="no row of text is at all places"):
        SideBySide.of([one, Side(np.array([7]), torch.randn(1, 3))], [one, other])
    with pytest.raises(ValueError, match="place 2 are all equal"):
        SideBySide.of([one, Side(one.numbers, torch.ones(3, 3))], [one, other])
