"""The packer against the best line packings known in 3 to 8 dimensions, and against bounds everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.frames import packed
from superscope.theory import best_lower_bound, rankin

# d: {n: smallest coherence found before, with other tools}
TABLE = {
    3: "5 .44721360 6 .44721360 7 .57735027 8 .64758950 9 .66936232 10 .68614066 11 .71443450 12 .74452084 "
    "13 .76813738 16 .79465447 20 .84144277 24 .86460162 28 .88421761 36 .90942216 50 .93453915",
    4: "6 .33333333 7 .39038821 8 .41421356 9 .43425855 10 .43425855 11 .5 12 .5 13 .56691527 14 .59007652 "
    "16 .61803399 "
    "20 .65414057 24 .69417041 28 .73175397 36 .75922405 50 .80841390",
    5: "7 .28620826 8 .32880251 9 .33333333 10 .33333333 11 .38664120 12 .39038820 13 .41100668 "
    "14 .41113055 15 .41421356 "
    "16 .44721360 20 .5 24 .57450619 28 .60173953 36 .61803399 50 .69637490",
    6: "8 .24094311 9 .27825805 10 .28077641 11 .31622777 12 .31622777 13 .33333333 15 .33333333 16 .33333333 "
    "20 .38912968 24 .44444445 28 .49625839 36 .5 40 .56900491",
    7: "9 .2 10 .23606798 11 .25851694 12 .27272727 13 .27735010 14 .27735010 15 .31618315 16 .32583695 17 .33247457 "
    "20 .33333333 24 .33333333 28 .33333333 36 .42857143 40 .48227558 63 .5",
    8: "10 .18274400 11 .21013726 12 .23166248 13 .23906640 14 .25822993 15 .26996519 16 .27612289 17 .29003864 "
    "18 .29660227 20 .31833811 24 .33296880 28 .33333230 36 .35714286 40 .40478132 120 .5",
}
ENTRIES = [
    (n, d, float(mu))
    for d, row in TABLE.items()
    for n, mu in ((int(a), b) for a, b in zip(row.split()[::2], row.split()[1::2]))
]
# Small enough for every run: a few seconds together.
QUICK = [
    (5, 3),
    (6, 3),
    (7, 3),
    (8, 3),
    (9, 3),
    (12, 3),
    (6, 4),
    (8, 4),
    (12, 4),
    (16, 5),
    (9, 6),
    (36, 6),
    (16, 6),
    (9, 7),
    (63, 7),
    (120, 8),
]


def coherence(frame):
    atoms = frame.atoms.double().numpy()
    gram = atoms @ atoms.T
    np.fill_diagonal(gram, 0)
    return float(np.abs(gram).max())


@pytest.mark.parametrize(("n", "d", "mu"), [entry for entry in ENTRIES if entry[:2] in QUICK])
def test_best_known_line_packings(n, d, mu):
    found = coherence(packed(n, d, restarts=6, kicks=0))
    assert found <= mu + 2e-8
    assert found >= best_lower_bound(n, d).value - 1e-13


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "mu"), ENTRIES)
def test_whole_table(n, d, mu):
    found = 1.0
    # Most entries need few starts; the rest get more before they count as missed.
    for restarts, kicks in ((16, 12), (40, 60), (100, 150)):
        found = min(found, coherence(packed(n, d, restarts=restarts, kicks=kicks, seed=restarts)))
        if found <= mu + 2e-8:
            break
    assert found <= mu + 2e-8
    assert found >= best_lower_bound(n, d).value - 1e-13


@pytest.mark.parametrize(
    ("n", "d", "mu"),
    [
        (6, 3, 1 / math.sqrt(5)),
        (7, 3, 1 / math.sqrt(3)),
        (6, 4, 1 / 3),
        (8, 4, math.sqrt(2) - 1),
        (10, 5, 1 / 3),
        (9, 7, 1 / 5),
        (12, 7, 3 / 11),
    ],
)
def test_optimiser_alone_reaches_machine_precision(n, d, mu):
    assert coherence(packed(n, d, restarts=6, kicks=0, known=False)) == pytest.approx(mu, abs=3e-14)


def test_optimiser_alone_finds_equiangular_lines():
    assert coherence(packed(16, 6, restarts=20, kicks=0, known=False)) == pytest.approx(1 / 3, abs=1e-12)


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_plane(n):
    assert coherence(packed(n, 2)) == pytest.approx(math.cos(math.pi / n), abs=1e-14)
    assert coherence(packed(n, 2, known=False, restarts=4, kicks=0)) == pytest.approx(math.cos(math.pi / n), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "d", "cosine"),
    [
        (2, 3, -1.0),
        (4, 3, -1 / 3),
        (6, 3, 0.0),
        (12, 3, 1 / math.sqrt(5)),
        (9, 3, 1 / 3),
        (8, 3, 0.26120387),
        (10, 4, 1 / 6),
        (24, 4, 1 / 2),
    ],
)
def test_signed_codes(n, d, cosine):
    frame = packed(n, d, signed=True, restarts=10, kicks=4)
    atoms = frame.atoms.numpy()
    largest = (atoms @ atoms.T - 3 * np.eye(n)).max()
    assert largest == pytest.approx(cosine, abs=2e-8)
    assert largest >= best_lower_bound(n, d, signed=True).value - 1e-12


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 14), st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_never_below_a_bound(n, d, signed, seed):
    frame = packed(n, d, restarts=2, kicks=1, seed=seed, signed=signed, known=False)
    atoms = frame.atoms.numpy()
    gram = atoms @ atoms.T - 3 * np.eye(n)
    if signed:
        assert gram.max() >= max(rankin(n, d), best_lower_bound(n, d, signed=True).value) - 1e-12
    else:
        assert coherence(frame) >= best_lower_bound(n, d).value - 1e-12
    assert (frame.norms - 1).abs().max() < 1e-14
    assert (frame.n, frame.d) == (n, d)


def test_better_than_random_where_nothing_is_known():
    frame = packed(60, 20, restarts=1, kicks=0, seed=1)
    assert best_lower_bound(60, 20).value < coherence(frame) < 0.28  # random: 0.71; Welch: 0.184


def test_seed_fixes_the_result():
    one, same = (packed(11, 4, restarts=2, kicks=2, seed=5) for _ in range(2))
    assert torch.equal(one.atoms, same.atoms)


def test_kicks_only_help_and_find_what_starts_miss():
    start, kicked = (coherence(packed(14, 3, restarts=1, kicks=kicks)) for kicks in (0, 12))
    assert kicked < start - 1e-4
    assert kicked >= best_lower_bound(14, 3).value


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="kicks must be at least 0"):
        packed(5, 3, kicks=-1)
    with pytest.raises(ValueError, match="nothing to start from"):
        packed(5, 3, restarts=-1)


def test_known_frames_help_only():
    assert coherence(packed(34, 6, restarts=1, kicks=0)) <= 0.5 + 1e-12
