"""What is learned from whitened rows is folded into weights that read x itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from superscope.core import FormatError, ShapeError
from superscope.dictionaries import SAE, TopK, load, train
from superscope.dictionaries.whitening import Whitening
from superscope.testing import EVERY, example

# Directions of very different variance about a mean far from the origin.
SPREADS = torch.tensor([10.0, 5.0, 3.0, 1.0, 0.5, 0.3])
KINDS = ("zca", "pca", "scale", "axes")
NOT_FOLDED = ("Archetypal", "Crosscoder", "MatchingPursuit", "SkipTranscoder", "Transcoder")
FOLDED = [kind for kind in EVERY if kind.__name__ not in NOT_FOLDED]


def rows(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    return torch.randn(count, 6, generator=generator) * SPREADS @ turn + 3


@pytest.mark.parametrize("kind", KINDS)
def test_whitened_rows_have_the_covariance_asked_for(held, kind):
    x = rows()
    white = Whitening.of(held(x), kind=kind, rows=len(x), batch=500, floor=1e-6)
    y = white(x.double())
    covariance = y.T @ y / len(y)
    assert float(y.mean(0).abs().max()) < 1e-9
    if kind == "scale":
        assert float(covariance.trace()) / 6 == pytest.approx(1)
        torch.testing.assert_close(y, (x.double() - white.mean) * float(white.T[0, 0]))
    elif kind == "axes":
        assert white.turns
        level = covariance.diagonal()
        torch.testing.assert_close(covariance, level.diag(), atol=1e-6 * float(level.max()), rtol=0)
        torch.testing.assert_close(y.norm(dim=1), (x.double() - white.mean).norm(dim=1))
    else:
        torch.testing.assert_close(covariance, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
    if kind == "zca":
        torch.testing.assert_close(white.T, white.T.T)
    torch.testing.assert_close(white.T @ white.back, torch.eye(6, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", FOLDED, ids=lambda architecture: architecture.__name__)
def test_saved_weights_take_raw_rows_and_give_the_same_codes(held, tmp_path: Path, architecture, kind):
    source, x = held(rows()), rows(200)
    white = Whitening.of(source, kind=kind, rows=4000, batch=500)
    sae = example(architecture)
    for _ in train(sae, white.source(source), steps=20, batch=64, lr=0.01):
        pass
    y = white(x)
    codes, y_hat = sae.encode(y).dense().detach(), sae(y).detach()
    assert white.fold(sae) is sae
    sae.save(tmp_path / "sae")
    raw = load(tmp_path / "sae")
    assert isinstance(raw, SAE)
    # A row whose k-th and next latents are equal to rounding may choose either: none of these 200 does.
    torch.testing.assert_close(raw.encode(x).dense(), codes, atol=1e-5 * float(codes.abs().max()), rtol=0)
    torch.testing.assert_close(white(raw(x).detach()), y_hat, atol=1e-5 * float(y_hat.abs().max()), rtol=0)


def test_turning_to_the_axes_changes_no_error_and_no_norm(held):
    """The fold of a rotation leaves atoms of norm 1, and what is unexplained of x is what was of y."""
    source, x = held(rows()), rows(200)
    white = Whitening.of(source, kind="axes", rows=4000, batch=500)
    sae = TopK(6, 20, 2)
    for _ in train(sae, white.source(source), steps=20, batch=64, lr=0.01):
        pass
    y = white(x)
    left = (y - sae(y).detach()).norm(dim=1)
    white.fold(sae)
    torch.testing.assert_close((x - sae(x).detach()).norm(dim=1), left, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sae.atoms.detach().norm(dim=1), torch.ones(20), atol=1e-5, rtol=0)


def test_in_float64_the_codes_are_equal_to_rounding(held):
    source, x = held(rows().double()), rows(200).double()
    white = Whitening.of(source, rows=4000, batch=500)
    sae = TopK(6, 20, 2).double()
    for _ in train(sae, white.source(source), steps=20, batch=64):
        pass
    codes = sae.encode(white(x)).dense()
    torch.testing.assert_close(white.fold(sae).encode(x).dense(), codes, atol=1e-9, rtol=0)


def test_directions_without_variance_are_not_blown_up(held):
    x = rows()
    x[:, 3] = 7.0
    white = Whitening.of(held(x), rows=len(x), batch=500, floor=1e-2)
    assert float(torch.linalg.cond(white.T)) <= (6 / 1e-2) ** 0.5 * 1.001
    assert torch.isfinite(white(x)).all()


def test_a_training_on_whitened_rows_goes_on_to_the_bit(held):
    source = held(rows())
    white = Whitening.of(source, rows=4000, batch=500)
    whole, cut = TopK(6, 20, 2), TopK(6, 20, 2)
    list(train(whole, white.source(source), steps=12, batch=640))
    first = train(cut, white.source(source), steps=12, batch=640)
    for _ in range(8):
        next(first)
    again = TopK(6, 20, 2)
    list(train(again, white.source(source), steps=12, batch=640).restore(first.state()))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_saved_and_loaded_it_is_the_same(held, tmp_path: Path):
    white = Whitening.of(held(rows()), kind="pca", rows=1000, batch=500)
    white.save(tmp_path / "white.safetensors")
    again = Whitening.load(tmp_path / "white.safetensors")
    assert torch.equal(white(rows(5)), again(rows(5)))
    TopK(6, 8, 1).save(tmp_path / "sae")
    with pytest.raises(FormatError, match="no whitening"):
        Whitening.load(tmp_path / "sae" / "weights.safetensors")


@pytest.mark.parametrize("architecture", [kind for kind in EVERY if kind not in FOLDED], ids=lambda a: a.__name__)
def test_what_cannot_be_folded_is_refused(held, architecture):
    with pytest.raises(TypeError, match=f"{architecture.__name__} reads x otherwise"):
        Whitening.of(held(rows()), rows=1000, batch=500).fold(example(architecture))


def test_bad_input_is_told_in_sentences(held):
    source = held(rows())
    for arguments, says in (
        ({"rows": 1}, "rows and batch must be at least 2"),
        ({"floor": 0.0}, "floor must be a share"),
        ({"batch": 5000}, "no batch of 5000 rows"),
    ):
        with pytest.raises(ValueError, match=says):
            Whitening.of(source, **arguments)
    with pytest.raises(ValueError, match="constant"):
        Whitening.of(held(torch.full((600, 3), 5.0)), batch=100)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        Whitening.of(held(torch.full((600, 3), torch.nan)), batch=100)
    white = Whitening.of(source, rows=1000, batch=500)
    with pytest.raises(ShapeError, match="d = 6, and the source has d = 3"):
        white.source(held(torch.zeros(9, 3)))
    with pytest.raises(ShapeError, match="d = 6, and the SAE has d = 5"):
        white.fold(TopK(5, 8, 1))
