"""BatchTopK, Matryoshka, JumpReLU and AbsTopK against their dense definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.dictionaries.sae import SAE, AbsTopK, BatchTopK, JumpReLU, Matryoshka
from superscope.dictionaries.step import sparse

SHAPES = {
    "b": st.integers(1, 17),
    "d": st.integers(1, 9),
    "n": st.integers(1, 20),
    "k": st.integers(1, 6),
    "seed": st.integers(0, 1000),
}


def perturbed(sae: SAE, seed: int) -> SAE:
    """Away from its start, so that no gradient is special."""
    generator = torch.Generator().manual_seed(seed + 1)
    sae.double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).double())
    return sae


def data(b: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed + 2)).double()


def gradients(sae: SAE, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    sae.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}
    return {name: g for name, g in found.items() if bool(g.any())}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in other.items():
        torch.testing.assert_close(one[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def dense_choice(sae: SAE, x: torch.Tensor, k: int) -> torch.Tensor:
    """f with the k b largest positive values of the batch, dense and differentiable."""
    pre = sae.pre_activations(x).relu()
    least = pre.flatten().topk(k * len(x)).values[-1]
    return torch.where(pre >= least, pre, 0.0)


@settings(max_examples=25)
@given(**SHAPES)
def test_batch_choice_and_its_gradients_are_the_dense_ones(b: int, d: int, n: int, k: int, seed: int) -> None:
    sae, x = perturbed(BatchTopK(d, n, min(k, n)), seed), data(b, d, seed)
    f = dense_choice(sae, x, sae.k)
    expected = (f @ sae.atoms + sae.bias - x).square().mean() / 4
    dense = gradients(sae, expected)
    for _ in range(2):  # without and with a last threshold
        fit = sae.fit(x, scale=2.0)
        torch.testing.assert_close(fit.loss, expected)
        torch.testing.assert_close(fit.code.dense(), f)
        same(gradients(sae, fit.loss), dense)


@settings(max_examples=25)
@given(**SHAPES, emphasis=st.sampled_from([0.0, 0.5, 1.0, -1.0]))
def test_nested_loss_is_the_mean_over_prefixes(b: int, d: int, n: int, k: int, seed: int, emphasis: float) -> None:
    widths = sorted({max(n // 3, 1), max(n // 2, 1), n})
    sae, x = perturbed(Matryoshka(d, n, min(k, n), widths, emphasis), seed), data(b, d, seed)
    f = dense_choice(sae, x, sae.k)
    errors = [(f[:, :w] @ sae.atoms[:w] + sae.bias - x).square().mean() for w in widths]
    weights = torch.tensor([w**emphasis for w in widths], dtype=x.dtype)
    expected = (weights * torch.stack(errors)).sum() / weights.sum()
    dense = gradients(sae, expected)
    fit = sae.fit(x)
    torch.testing.assert_close(fit.loss, expected)
    torch.testing.assert_close(fit.x_hat, f @ sae.atoms + sae.bias)
    same(gradients(sae, fit.loss), dense)


@settings(max_examples=25)
@given(**SHAPES)
def test_signed_choice_and_its_gradients_are_the_dense_ones(b: int, d: int, n: int, k: int, seed: int) -> None:
    sae, x = perturbed(AbsTopK(d, n, min(k, n)), seed), data(b, d, seed)
    pre = sae.pre_activations(x)
    kept = pre.abs() >= pre.abs().topk(sae.k, dim=1).values[:, -1:]
    f = torch.where(kept, pre, 0.0)
    expected = (f @ sae.atoms + sae.bias - x).square().mean()
    dense = gradients(sae, expected)
    fit = sae.fit(x)
    torch.testing.assert_close(fit.code.dense(), f)
    same(gradients(sae, fit.loss), dense)
    with torch.no_grad():  # -x about the bias has the opposite code
        sae.encoder_bias.zero_()
        opposite = sae.encode(2 * sae.bias - x).dense()
    torch.testing.assert_close(opposite, -sae.encode(x).dense().detach())


@settings(max_examples=25)
@given(**SHAPES)
def test_jumps_have_the_rectangle_kernels_gradients(b: int, d: int, n: int, k: int, seed: int) -> None:
    """Equations 11 and 12 of Rajamanoharan et al., written out over the dense pre-activations."""
    sae, x = perturbed(JumpReLU(d, n, min(k, n), coefficient=0.7, warmup=0), seed), data(b, d, seed)
    with torch.no_grad():
        sae.threshold.abs_()
        sae.width.fill_(0.8)
    pre = sae.pre_activations(x)
    theta, width = sae.threshold, float(sae.width)
    on, near = (pre > theta).double(), ((pre - theta).abs() < width / 2).double()
    f = pre * on
    error = f @ sae.atoms + sae.bias - x
    l0 = on.sum() / b
    expected = error.square().mean() + 0.7 * (l0 / sae.k - 1) ** 2
    dense = gradients(sae, error.square().mean())
    with torch.no_grad():
        df = 2 * error @ sae.atoms.T / error.numel()
        d_l0 = 0.7 * 2 * (l0 / sae.k - 1) / sae.k / b
        d_theta = (-(theta * df + d_l0) / width * near).sum(0)
    fit = sae.fit(x)
    torch.testing.assert_close(fit.loss, expected)
    torch.testing.assert_close(fit.code.dense(), f)
    found = gradients(sae, fit.loss)
    torch.testing.assert_close(found.pop("threshold", torch.zeros(n).double()), d_theta)
    same(found, dense)


@pytest.mark.parametrize("architecture", [BatchTopK, Matryoshka])
def test_a_row_by_itself_gets_k_latents_on_average(architecture: type[SAE]) -> None:
    """The learned threshold keeps k a row in expectation, and a row's code does not depend on its company."""
    sae = architecture(16, 64, k=5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sae.fit(torch.randn(512, 16, generator=generator))
    x = torch.randn(4096, 16, generator=generator)
    code = sae.encode(x)
    l0 = code.l0.double()
    assert abs(float(l0.mean()) - 5) < 4 * float(l0.std()) / 64 + 0.05
    assert float(l0.std()) > 0.5
    alone = torch.cat([sae.encode(row[None]).dense() for row in x[:20]])
    torch.testing.assert_close(alone, code.dense()[:20])


def test_threshold_is_saved(tmp_path) -> None:
    sae = BatchTopK(6, 12, k=2)
    sae.fit(torch.randn(64, 6, generator=torch.Generator().manual_seed(0)))
    assert float(sae.threshold) > 0
    sae.save(tmp_path / "sae")
    again = BatchTopK.load(tmp_path / "sae")
    assert torch.equal(again.threshold, sae.threshold)


def test_rows_without_a_positive_value_are_empty() -> None:
    sae = BatchTopK(3, 6, k=2)
    with torch.no_grad():
        sae.encoder_bias.fill_(-100)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    fit = sae.fit(x)
    assert not fit.code.dense().any()
    fit.loss.backward()
    assert torch.isfinite(sae.bias.grad).all()
    assert float(sae.threshold) < 0


def test_a_prefix_is_the_narrower_dictionary() -> None:
    sae = Matryoshka(6, 16, k=3)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    sae.fit(x)
    inner = sae.prefix(4)
    assert inner.widths == (1, 2, 4)
    torch.testing.assert_close(inner.encode(x).dense(), sae.encode(x).dense()[:, :4])
    with pytest.raises(ValueError, match="width must be one of"):
        sae.prefix(5)


def test_prefixes_weigh_as_the_root_of_their_width_unless_asked_otherwise() -> None:
    roots = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).sqrt()
    torch.testing.assert_close(torch.tensor(Matryoshka(6, 16, k=3).weights), roots / roots.sum())
    assert Matryoshka(6, 16, k=3, widths=[4, 16], emphasis=0).weights == (0.5, 0.5)
    assert (
        Matryoshka(6, 16, k=3, emphasis=1).prefix(8).weights
        == Matryoshka(6, 8, k=3, widths=[1, 2, 4, 8], emphasis=1).weights
    )
    with pytest.raises(ValueError, match="emphasis must be a finite exponent"):
        Matryoshka(6, 16, k=3, emphasis=float("nan"))


def test_the_window_starts_at_k_values_a_row() -> None:
    x = 7 * torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    sae = JumpReLU(16, 64, k=5)
    sae.start(x)
    assert abs(float(sae.encode(x).l0.double().mean()) - 5) < 0.1
    assert float(sae.width) == pytest.approx(0.5 * float(sae.threshold.detach()[0]))


@pytest.mark.parametrize("wanted", [3, 8])
def test_k_moves_l0_of_jumprelu(wanted: int) -> None:
    """The knob that did nothing for a year elsewhere: from a start with L0 = 5, training goes to the L0 asked for."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 16, generator=generator)
    # Noise has no sparse code: the error pulls L0 up, so the target is given weight.
    sae = JumpReLU(16, 64, k=5, coefficient=5, warmup=0)
    sae.start(x)
    sae.k = wanted
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        sae.fit(torch.randn(256, 16, generator=generator)).loss.backward()
        optimizer.step()
        sae.constrain()
    l0 = float(sae.encode(torch.randn(2048, 16, generator=generator)).l0.double().mean())
    assert abs(l0 - wanted) < 0.15 * wanted


def test_ragged_uses_with_empty_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.tensor([1, 1, 3]), torch.tensor([4, 0, 4])
    values = torch.randn(3, generator=generator).double().requires_grad_()
    atoms = torch.randn(6, 2, generator=generator).double().requires_grad_()
    chosen = sparse.Chosen.ragged(rows, columns, 5, 6)
    assert torch.autograd.gradcheck(lambda v, a: sparse.decode(v, a, chosen), (values, atoms))
    x = sparse.decode(values, atoms, chosen)
    torch.testing.assert_close(x, chosen.code(values).dense() @ atoms)
    assert not x[[0, 2, 4]].any()


@pytest.mark.parametrize("architecture", [BatchTopK, Matryoshka, AbsTopK, JumpReLU])
def test_bad_arguments(architecture: type[SAE]) -> None:
    with pytest.raises(ValueError, match=f"{architecture.__name__}: k must be in 1..n = 8"):
        architecture(4, 8, k=9)
    for options in ({"coefficient": -1.0}, {"bandwidth": 0.0}, {"warmup": 2.0}):
        with pytest.raises(ValueError, match=f"JumpReLU: {next(iter(options))} must be"):
            JumpReLU(4, 8, k=2, **options)
    with pytest.raises(ValueError, match="widths must rise from at least 1 to n = 8"):
        Matryoshka(4, 8, k=2, widths=[2, 2, 8])
