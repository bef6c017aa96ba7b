"""Choosing by bounds of whole numbers: the same latents and values as by the float32 product."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from superscope.kernels import Screen, can_screen, choice, screen, screens
from superscope.kernels.screen import reference

compiled = pytest.importorskip(
    "superscope.kernels.screen.compiled",
    reason="would have compared choices by whole numbers with those by float32: install superscope[fast]",
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unlike(b: int, d: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, an encoder whose rows differ in length tenfold, and a shift."""
    x, encoder = drawn(b, d, seed=seed), drawn(n, d, seed=seed + 1) / math.sqrt(d)
    return x, encoder * torch.linspace(0.3, 3, n)[:, None], 0.3 * drawn(n, seed=seed + 2)


def hold(x: Tensor, encoder: Tensor, shift: Tensor, k: int, *, sure: bool = True, signed: bool = False) -> None:
    """Asserts that the sizes of those chosen are the reference's, and that each value is its latent's."""
    found = Screen.of(encoder, shift, sure=sure)
    assert found is not None
    values, indices = found.topk(x, k, signed=signed)
    wanted = reference.topk(x, encoder, shift, k, signed=signed)[0]
    exact = (x.double() @ encoder.double().T + shift.double()).gather(1, indices)
    sizes = values.abs() if signed else values
    wanted = (wanted.abs() if signed else wanted).sort(1).values
    # Float32's own rounding, on each row's scale.
    unit = (x.double().norm(dim=1) * encoder.double().norm(dim=1).max() + shift.abs().max()).clamp(min=1e-30)[:, None]
    for one, other in ((values, exact), (sizes.sort(1).values, wanted)):
        torch.testing.assert_close(one / unit, other.double() / unit, rtol=0, atol=1e-6)
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize(("b", "d", "n"), [(3, 37, 70), (64, 512, 65), (1, 2**16, 2), (5, 1, 3), (0, 8, 4)])
def test_whole_numbers_are_multiplied_exactly_without_instructions_of_their_own(b: int, d: int, n: int) -> None:
    generator = torch.Generator().manual_seed(b)
    one, other = (torch.randint(-127, 128, (m, d), generator=generator, dtype=torch.int8) for m in (b, n))
    # Sums at the ends of what a row's numbers can make.
    one[: b // 2], other[: n // 2] = 127, -127
    out = torch.empty(b, n, dtype=torch.int32)
    assert compiled.multiplied(one, other, out) is out
    assert torch.equal(out.double(), one.double() @ other.double().T)


@pytest.mark.skipif(not screen.exact_products(), reason="would have compared a CPU's VNNI products with the loop's")
def test_whole_numbers_are_multiplied_exactly_by_the_instructions_that_are_chosen() -> None:
    one, other = (torch.full((70, 1000), sign * 127, dtype=torch.int8) for sign in (1, -1))
    other[::3] = 127
    found = Screen.of(drawn(70, 1000), torch.zeros(70))
    assert found is not None
    found._whole = other
    assert torch.equal(found._multiplied(one), compiled.multiplied(one, other, torch.empty(70, 70, dtype=torch.int32)))


def test_products_that_overflow_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # What oneDNN does on a CPU without VNNI: one side moved to 1..255, the sums of two products kept within 16 bits.
    def wrong(one: Tensor, other: Tensor) -> Tensor:
        products = (one.int() + 128)[:, None] * other.T.int()
        return products.unflatten(2, (-1, 2)).sum(3).clamp(-(2**15), 2**15 - 1).sum(2) - 128 * other.int().sum(0)

    monkeypatch.setattr(screen, "_int_mm", wrong)
    screen.exact_products.cache_clear()
    try:
        assert not screen.exact_products()
        assert not can_screen("cpu")
        # Choices are right all the same, by the loop.
        hold(*unlike(9, 64, 300), 4)
    finally:
        screen.exact_products.cache_clear()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize(
    ("b", "d", "n", "k"), [(70, 64, 2048, 8), (65, 37, 1500, 1), (3, 130, 1030, 32), (9, 7, 64, 64)]
)
def test_the_largest_are_those_of_the_float32_product(
    b: int, d: int, n: int, k: int, sure: bool, signed: bool, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        hold(*unlike(b, d, n), k, sure=sure, signed=signed)
    finally:
        torch.set_num_threads(before)


def spiked(factor: float) -> Tensor:
    """Rows of which one entry is so large that the others round to little or nothing."""
    return drawn(80, 64).index_fill(1, torch.tensor([5]), 100 * factor)


HOSTILE = {
    "no rows": torch.zeros(0, 64),
    "zeros": torch.zeros(5, 64),
    "ties": drawn(70, 64).round(),
    "huge and tiny rows": drawn(70, 64) * torch.logspace(-12, 12, 70)[:, None],
    "beyond the middle range": drawn(70, 64) * 1e-20,
    "a large entry": spiked(1),
    "a huge entry": spiked(100),
    "some rows with one": torch.where(torch.arange(80)[:, None] % 5 == 0, spiked(100), drawn(80, 64)),
    "few entries": torch.nn.functional.one_hot(torch.arange(70) % 64, 64).float(),
}


@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_rows_are_chosen_for_correctly(name: str, sure: bool) -> None:
    x = HOSTILE[name]
    # What the encoder has along the large entry must not decide.
    encoder = (drawn(2048, 64, seed=1) / 8).index_fill(1, torch.tensor([5]), 0.01)
    for k in (1, 8):
        hold(x, encoder, torch.zeros(2048), k, sure=sure)
    hold(x, encoder.round(decimals=1), torch.full((2048,), -0.5), 8, sure=sure)


def test_rows_that_bounds_do_not_thin_out_are_left_to_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    dense: list[int] = []
    whole = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *given, **more: dense.append(len(given[1])) or whole(*given, **more))
    encoder = (drawn(2048, 64, seed=1) / 8).index_fill(1, torch.tensor([5]), 0.01)
    found = Screen.of(encoder, torch.zeros(2048))
    assert found is not None
    found.topk(drawn(80, 64), 8)
    assert sum(dense) == 0
    found.topk(HOSTILE["some rows with one"], 8)
    assert sum(dense) == 16
    # All of the first 64 rows are such, and the others are not tried.
    found.topk(HOSTILE["a huge entry"], 8)
    assert sum(dense) == 16 + 80


def test_what_is_not_finite_is_not_screened() -> None:
    encoder, shift = drawn(1024, 16), torch.zeros(1024)
    for broken in (math.nan, math.inf, -math.inf):
        assert Screen.of(encoder.index_fill(1, torch.tensor([3]), broken), shift) is None
        assert Screen.of(encoder, shift.index_fill(0, torch.tensor([3]), broken)) is None
        found = Screen.of(encoder, shift)
        assert found is not None
        x = drawn(6, 16)
        x[4, 2] = broken
        # As the product has it: NaN is larger than any number.
        values, _ = found.topk(x, 4)
        assert torch.equal(values.isfinite().all(1), torch.arange(6) != 4)
        assert not (found.above(x, 3.0)[0] == 4).any() or broken != math.nan
    with pytest.raises(ValueError, match="k must be in 1..n = 1024; got 0"):
        Screen.of(encoder, shift).topk(drawn(2, 16), 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("each", [False, True])
def test_what_is_above_is_that_of_the_float32_product(each: bool, sure: bool, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for x, encoder, shift in (unlike(70, 64, 2048), unlike(5, 37, 1500), unlike(0, 8, 64)):
            floor = 3 + drawn(len(encoder), seed=9).abs() if each else 4.0
            found = Screen.of(encoder, shift, sure=sure)
            assert found is not None
            rows, columns, values = found.above(x, floor)
            wanted = reference.above(x, encoder, shift, torch.as_tensor(floor))
            assert torch.equal(rows, rows.sort().values)
            at, wanted_at = rows * len(encoder) + columns, wanted[0] * len(encoder) + wanted[1]
            assert torch.equal(at.sort().values, wanted_at)
            torch.testing.assert_close(values[at.argsort()], wanted[2], rtol=1e-5, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_a_crowd_above_is_left_to_the_product() -> None:
    x, encoder, shift = unlike(70, 64, 2048)
    found = Screen.of(encoder, shift)
    assert found is not None
    rows, columns, values = found.above(x, 0.0)
    wanted = reference.above(x, encoder, shift, torch.tensor(0.0))
    assert torch.equal(rows, wanted[0])
    assert torch.equal(columns, wanted[1])
    torch.testing.assert_close(values, wanted[2], rtol=1e-5, atol=1e-5)


def test_misses_are_as_rare_as_the_normal_law_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # With one standard deviation allowed, a wanted latent goes missing only if its remainders say more than that, and
    # it would then have to be that near to the last one chosen.
    x, encoder = drawn(2000, 256), drawn(2048, 256, seed=1) / 16
    shift = torch.zeros(2048)
    wanted = reference.topk(x, encoder, shift, 16, signed=False)[1].sort(1).values

    def missed(deviations: float) -> int:
        monkeypatch.setattr(screen, "DEVIATIONS", deviations)
        found = Screen.of(encoder, shift, sure=False)
        assert found is not None
        chosen = found.topk(x, 16)[1]
        return int((wanted[:, :, None] != chosen[:, None, :]).all(2).sum())

    at_most = 2000 * 16 * 0.5 * math.erfc(1 / math.sqrt(2))
    assert 0 < missed(0.2)
    assert missed(1.0) < at_most
    assert missed(6.0) == 0


def test_screening_is_for_large_float32_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_WORTH_COMPILING", 1)
    # As on a CPU with VNNI instructions.
    monkeypatch.setattr(screen, "exact_products", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    x, encoder = torch.zeros(256, 256), torch.zeros(2048, 256)
    assert screens(x, encoder)
    assert not screens(x[:255], encoder)
    assert not screens(x, encoder[:2047])
    assert not screens(x[:, :255], encoder[:, :255])
    assert not screens(x.double(), encoder.double())
    assert not can_screen("cuda")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert not screens(x, encoder)
