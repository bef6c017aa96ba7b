"""Fourth cumulants count what independent features there are, nothing where there is none, and say when they cannot."""

from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Activations
from superscope.measure import Evidence, cumulant_rank
from superscope.measure.counts import CumulantRank
from superscope.worlds import exactly_k

N, D, K, ROWS = 40, 16, 2, 30_000


def drawn(n: int = N, d: int = D, k: int = K, rows: int = ROWS, seed: int = 0, **more):
    world = exactly_k(n=n, d=d, k=k, seed=seed, **more)
    return world, next(world.batches(rows, seed=seed + 1)).x


@pytest.fixture(scope="module")
def easy():
    world, x = drawn()
    return world, x, cumulant_rank(x)


def normal(rows: int, d: int, seed: int) -> torch.Tensor:
    """Gaussian rows with deviations over a decade."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return (torch.randn(rows, d, generator=generator) * torch.logspace(0, -1, d)) @ turn


def test_all_features_and_their_directions_are_found_without_a_dictionary(easy) -> None:
    world, _, found = easy
    # Exactly k active: norms vary less than those of independent features, which costs a few ranks.
    assert N - 4 <= found["cumulant_rank"].value <= N
    assert N - 4 <= found["cumulant_directions"].value <= N
    assert found["cumulant_components"].value == found["cumulant_directions"].value
    cosines = world.dictionary.unit().atoms @ found.directions.T
    # Signed: activity is positive along them.
    assert int((cosines.amax(1) > 0.95).sum()) >= N - 4
    assert int((cosines.amax(0) > 0.95).sum()) >= len(found.directions) - 1
    assert abs(found["feature_dependence"].value) < 0.1
    assert "Superposition" in found.certificate
    assert str(D) in found.certificate


def test_rotation_scale_and_a_dense_gaussian_change_nothing(easy) -> None:
    _, x, found = easy
    turn, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5)))
    turned = cumulant_rank(1000 * x @ turn + 7)
    # An eigenvalue at the edge may fall on either side of it.
    assert turned["cumulant_rank"].value == pytest.approx(found["cumulant_rank"].value, abs=1)
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    assert N - 4 <= cumulant_rank(noisy)["cumulant_rank"].value <= N
    again = cumulant_rank(x)
    assert torch.equal(again.directions, found.directions)


@pytest.mark.parametrize("kind", ["normal", "elliptical", "autoregressive"])
def test_noise_has_a_rank_in_one_case_of_twenty(kind: str) -> None:
    ranks, certificates = [], []
    for seed in range(40):
        x = normal(2000, 6, seed)
        generator = torch.Generator().manual_seed(100 + seed)
        if kind == "elliptical":
            x = x * torch.randn(len(x), 1, generator=generator).mul(0.4).exp()
        if kind == "autoregressive":
            for row in range(1, len(x)):
                x[row] = 0.8 * x[row - 1] + 0.6 * x[row]
        found = cumulant_rank(x)
        ranks.append(found["cumulant_rank"].value)
        certificates.append(found.certificate)
    # 7 or more of 40 at 5 % each have a probability of 0.3 %.
    assert sum(rank > 0 for rank in ranks) <= 6, ranks
    assert max(ranks) <= 2
    assert not any(certificates)


def test_a_common_factor_of_each_row_is_taken_away(easy) -> None:
    _, x, plain = easy
    # Exactly k active: norms vary less than those of independent features.
    assert plain["norm_variation"].value < -0.05
    x = x - x.mean(0)
    factor = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(3)).mul(0.2).exp()
    found = cumulant_rank(factor * x)
    # E s^4 / (E s^2)^2 of a log-normal factor.
    wanted = math.exp(4 * 0.2**2) * (1 + plain["norm_variation"].value) - 1
    assert found["norm_variation"].value == pytest.approx(wanted, abs=0.04)
    assert found["cumulant_rank"].value == pytest.approx(N, abs=4)
    scaled = cumulant_rank(torch.randn(ROWS, D, generator=torch.Generator().manual_seed(4)) * factor * 2)
    assert scaled["norm_variation"].value == pytest.approx(math.exp(4 * 0.2**2) - 1, abs=0.04)
    assert "norms vary" in scaled["cumulant_rank"].caution


def test_rings_are_components_and_no_certificate() -> None:
    rings, rows = 8, 30_000
    generator = torch.Generator().manual_seed(0)
    planes = torch.nn.functional.normalize(torch.randn(2 * rings, D, generator=generator), dim=1)
    angle = 2 * math.pi * torch.rand(rows, rings, generator=generator)
    on = torch.rand(rows, rings, generator=generator) < 0.1
    f = torch.stack([angle.cos(), angle.sin()], 2) * on[..., None]
    found = cumulant_rank(f.flatten(1) @ planes)
    # m (m + 1) / 2 = 3 of each ring.
    assert found["cumulant_rank"].value == pytest.approx(3 * rings, abs=1)
    assert found["cumulant_components"].value == rings
    assert not found.isolated.any()
    assert found["cumulant_rank"].value > D
    assert found.certificate == ""
    assert "several dimensions" in found["cumulant_rank"].caution


def test_features_that_depend_on_each_other_certify_nothing() -> None:
    """12 features in 16 dimensions whose common strength makes ranks of pairs: above d, without superposition."""
    generator = torch.Generator().manual_seed(0)
    rows, n = 40_000, 12
    common = torch.randn(rows, 1, generator=generator).exp()
    f = torch.randn(rows, n, generator=generator).exp() * common
    atoms = torch.nn.functional.normalize(torch.randn(n, D, generator=generator), dim=1)
    found = cumulant_rank(f @ atoms)
    assert found.certificate == ""
    assert "varies in 12 of 16 directions" in found["cumulant_rank"].caution


def test_as_many_features_as_dimensions_are_no_superposition_in_any_projection() -> None:
    _, x = drawn(n=16, d=16, k=2)
    found = cumulant_rank(x, dimensions=8)
    assert found["cumulant_rank"].value > found.dimensions == 8
    assert found.certificate == ""
    assert "8 random dimensions of 16" in found["cumulant_rank"].caution


def test_a_sink_in_a_thousand_rows_moves_nothing(easy) -> None:
    _, x, found = easy
    x = x.clone()
    x[::1000] = 70 * float(x.norm(dim=1).median()) * torch.eye(D)[0]
    sunk = cumulant_rank(x)
    assert sunk["cumulant_rank"].value == pytest.approx(found["cumulant_rank"].value, abs=1)
    assert "30 rows of huge norm" in sunk["cumulant_rank"].caution


def test_more_features_than_products_are_said_to_be_possible() -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(60, 6, generator=generator), dim=1)
    f = (torch.rand(ROWS, 60, generator=generator) < 0.02) * torch.rand(ROWS, 60, generator=generator)
    found = cumulant_rank(f @ atoms)["cumulant_rank"]
    assert found.value <= 21
    assert "more features than 21" in found.caution


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.randn(5000, 1), "1 dimension"),
        (torch.randn(999, 4), "999 rows are too few"),
        (torch.ones(5000, 4), "only 1 of 5,000 rows differ"),
        (torch.randn(100, 4).repeat(50, 1), "only 100 of 5,000 rows differ"),
        (torch.randn(5000, 1) * torch.ones(1, 4), "along one direction only"),
    ],
)
def test_it_abstains_with_a_reason(x: torch.Tensor, reason: str) -> None:
    found = cumulant_rank(x)["cumulant_rank"]
    assert found.value is None
    assert reason in found.caution


def test_copies_of_rows_are_left_out_and_silence_is_not() -> None:
    world = exactly_k(n=N, d=D, k=K)
    x = next(world.batches(10_000, seed=0)).x
    thrice = cumulant_rank(x.repeat(3, 1))
    assert "20,000 rows are copies" in thrice["cumulant_rank"].caution
    assert thrice["cumulant_rank"].value == cumulant_rank(x)["cumulant_rank"].value
    silent = torch.cat([x, torch.zeros(40_000, D)])[torch.randperm(50_000, generator=torch.Generator().manual_seed(0))]
    assert cumulant_rank(silent)["cumulant_rank"].n == 50_000


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        cumulant_rank(torch.full((2000, 3), math.nan))
    with pytest.raises(ValueError, match="dimensions must be at least 2"):
        cumulant_rank(torch.randn(2000, 3), dimensions=1)
    with pytest.raises(ValueError, match="even number, at least 8"):
        cumulant_rank(torch.randn(2000, 3), groups=9)


def test_the_counter_reads_the_rows_learned_from(easy) -> None:
    _, x, found = easy
    counter = CumulantRank()
    seen = Evidence(rows=[Activations(part) for part in x.split(4096)], held=[Activations(x[:10])], learned={})
    assert counter.wants(8, 2, (0, 1)) == ()
    assert next(iter(counter.count(seen, ()))).value == found["cumulant_rank"].value
    few = CumulantRank(rows=5000).count(seen, ())
    assert next(iter(few)).n == 5000
