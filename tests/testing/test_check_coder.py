"""Every law catches the coder that breaks it."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Dictionary, SparseCode, SparseCoder
from superscope.dictionaries.sae import SAE
from superscope.dictionaries.sae.base import Fit
from superscope.recovery import OMP
from superscope.testing import LawBroken, check_coder, nothing_left


class Honest(SAE):
    """A top-2 SAE from the base's dense parts alone; each test breaks one of them."""

    def __init__(self, d=5, n=8, seed=0):
        super().__init__(d, n, seed=seed)

    def sparsify(self, pre):
        values, indices = pre.topk(2, dim=1)
        return SparseCode(values.relu(), indices, self.n)


def test_an_honest_coder_passes():
    assert "gradient" in check_coder(Honest)
    W = Dictionary(torch.eye(4, dtype=torch.float64))
    assert check_coder(lambda: OMP(W, k=2)) == ("shapes", "composition", "batch_invariance", "seeds")


def broken(law, match):
    """Registers a broken coder with the law that must catch it."""

    def keep(architecture):
        BROKEN.append(pytest.param(architecture, law, match, id=architecture.__name__))
        return architecture

    return keep


BROKEN: list = []


@broken("shapes", "one latent in two slots")
class NamesALatentTwice(Honest):
    def sparsify(self, pre):
        code = super().sparsify(pre.abs() + 1)
        return SparseCode(code.values.repeat(1, 2) / 2, code.indices.repeat(1, 2), self.n)


@broken("shapes", "not finite")
class DividesByZero(Honest):
    def sparsify(self, pre):
        code = super().sparsify(pre)
        return SparseCode(code.values / 0.0 * 1.0, code.indices, self.n)


class Coder(SparseCoder):
    """A coder that is no module; its dictionary is whatever it says at the time."""

    def __init__(self):
        self.asked = 0

    @property
    def dictionary(self):
        self.asked += 1
        return Dictionary(torch.eye(4, 3, dtype=torch.float64) + self.asked)

    def encode(self, x):
        return SparseCode.from_dense((x @ torch.eye(3, 4, dtype=x.dtype)).relu())


class CountsOneTooMany(Coder):
    def encode(self, x):
        code = super().encode(x)
        return SparseCode(code.values, code.indices, 5)


def test_a_code_of_another_length_is_caught():
    with pytest.raises(LawBroken, match="breaks the law of shapes: encode: n is 5 and the dictionary has 4 atoms"):
        check_coder(CountsOneTooMany)


def test_decode_by_another_dictionary_is_caught():
    with pytest.raises(LawBroken, match="Coder breaks the law of composition: decode"):
        check_coder(Coder)


@broken("batch_invariance", "the code of row")
class LooksAtTheBatch(Honest):
    def sparsify(self, pre):
        return super().sparsify(pre - pre.mean(0))


@broken("seeds", "the global generator")
class DrawsGlobally(Honest):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        torch.rand(1)


@broken("seeds", "second build")
class NeverTheSame(Honest):
    built = 0

    def __init__(self, **arguments):
        NeverTheSame.built += 1
        super().__init__(5, 8, seed=NeverTheSame.built)


@broken("round_trip", "load: the code")
class ForgetsItsThreshold(Honest):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.threshold = 0.0

    def constrain(self, *, normalised=False):
        super().constrain(normalised=normalised)
        self.threshold = 2.0

    def sparsify(self, pre):
        return super().sparsify(torch.where(pre > self.threshold, pre, 0.0))


@broken("round_trip", "about was")
class AltersItsArguments(Honest):
    def __init__(self, d=5, n=8, seed=0):
        super().__init__(d, n, seed=seed)
        self.about = {**self.about, "seed": seed + 1}


@broken("units", "the loss with x in other units")
class ForgetsTheScale(Honest):
    def fit(self, x, *, target=None, scale=1.0, progress=0.0):
        return super().fit(x, target=target, scale=1.0, progress=progress)


@broken("units", "encode in other units")
class HasAFixedThreshold(Honest):
    def sparsify(self, pre):
        return super().sparsify(torch.where(pre > 0.7, pre, 0.0))

    def fit(self, x, *, target=None, scale=1.0, progress=0.0):
        code, x_hat = self.reconstruction(x)
        return Fit(code, x_hat, x_hat.sum() * 0)


@broken("permutation", "latents in another order")
class PrefersLowNumbers(Honest):
    def sparsify(self, pre):
        return super().sparsify(pre - 0.3 * torch.arange(self.n).to(pre) * pre.detach().abs().mean(1, keepdim=True))


@broken("revival", "dead latents' encoder gets no gradient")
class LosesTheEncoder(Honest):
    """What a fused encoder does whose backward pass forgets the pre-activations."""

    def auxiliary(self, x, error, dead, k):
        pre = (x - self.bias).detach() @ self.encoder[dead].T.detach()
        return (error - pre.relu() @ self.atoms[dead]).square().sum()


@broken("revival", "living latents' .* gets a gradient")
class MovesTheLiving(Honest):
    def auxiliary(self, x, error, dead, k):
        return (x - self(x)).square().mean() + (error - self.reconstruction(x)[1]).square().sum()


@broken("revival", "the loss is nan")
class DividesByNothing(Honest):
    def auxiliary(self, x, error, dead, k):
        return super().auxiliary(x, error, dead, k) * 0 / 0


@broken("resumption", "the losses were")
class KeepsAStateOfItsOwn(Honest):
    """What it has seen lives outside the saved state, so a resumed training starts without it."""

    seen = 0

    def fit(self, x, *, target=None, scale=1.0, progress=0.0):
        self.seen += 1
        found = super().fit(x, target=target, scale=scale, progress=progress)
        return Fit(found.code, found.x_hat, found.loss * (1 + self.seen))


@broken("gradient", "the gradient of encoder")
class CutsTheEncoder(Honest):
    def reconstruction(self, x):
        code = self.sparsify((x - self.bias) @ self.encoder.detach().T + self.encoder_bias)
        return code, code.dense() @ self.atoms + self.bias


@broken("gradient", "the loss at progress 0.6")
class ChargesLater(Honest):
    def fit(self, x, *, target=None, scale=1.0, progress=0.0):
        found = super().fit(x, target=target, scale=scale, progress=progress)
        return Fit(found.code, found.x_hat, found.loss * (1 + progress))


@broken("gradient", "the gradient of bias")
class CountsTheBiasTwice(Honest):
    def reconstruction(self, x):
        code = self.sparsify(self.pre_activations(x))
        return code, code.dense() @ self.atoms + 2 * self.bias - self.bias.detach()


def test_dividing_by_the_error_is_caught_where_there_is_none():
    class Divides(Honest):
        def auxiliary(self, x, error, dead, k):
            return (error - self.atoms.sum()).square().sum() / error.square().sum()

    with pytest.raises(LawBroken, match="where no error is left, the loss is inf"):
        nothing_left(Divides)


@pytest.mark.parametrize(("architecture", "law", "match"), BROKEN)
def test_the_law_catches_it(architecture, law, match):
    with pytest.raises(LawBroken, match=f"{architecture.__name__} breaks the law of {law}: .*{match}"):
        check_coder(architecture)
