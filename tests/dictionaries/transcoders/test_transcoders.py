from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, ActivationSource, ShapeError
from superscope.dictionaries import (
    TRANSCODERS,
    Beside,
    Crosscoder,
    Paired,
    SkipTranscoder,
    TopK,
    Transcoder,
    load,
    train,
)
from superscope.testing import check_source, example


def unit(n, d, seed):
    atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return atoms / atoms.norm(dim=1, keepdim=True)


class Map(ActivationSource):
    """x = f U + 1, t = f V + A x, two of n features on: a module that acts on features, beside a linear one."""

    def __init__(self, linear=0.0, d=12, n=20, d_out=9, x_scale=1.0, t_scale=1.0):
        self.d, self.d_out = d, d_out
        self.U, self.V = unit(n, d, 1), unit(n, d_out, 2)
        self.A = linear * unit(d, d_out, 3)
        self.x_scale, self.t_scale = x_scale, t_scale

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            scores = torch.rand(size, len(self.U), generator=generator)
            f = (scores >= scores.topk(2, dim=1).values[:, 1:]) * (0.5 + torch.rand(scores.shape, generator=generator))
            x = f @ self.U + 1
            yield Activations(x * self.x_scale, target=(f @ self.V + x @ self.A) * self.t_scale)


def unexplained(sae, source):
    given = next(source.batches(512, seed=99))
    t, t_hat = given.target, sae(given.x).detach()
    return float((t - t_hat).square().sum() / (t - t.mean(0)).square().sum())


def test_a_transcoder_finds_what_the_module_does():
    source = Map(x_scale=100.0, t_scale=0.01)
    sae = Transcoder(12, 40, 9, 2)
    for _ in train(sae, source, steps=250, batch=128, lr=0.02, dead_after=2000):
        pass
    assert unexplained(sae, source) < 0.12
    assert float((source.V @ sae.dictionary.atoms.T).amax(1).mean()) > 0.9


def test_the_skip_takes_what_is_linear():
    source = Map(linear=3.0)
    left = {}
    for architecture in (Transcoder, SkipTranscoder):
        sae = architecture(12, 40, 9, 2)
        for _ in train(sae, source, steps=100, batch=128, lr=0.02):
            pass
        left[architecture] = unexplained(sae, source)
    assert left[SkipTranscoder] < 0.6 * left[Transcoder]


def test_the_start_is_a_step_of_regression():
    source = Map()
    given = next(source.batches(512, seed=0))
    sae = Transcoder(12, 40, 9, 2)
    sae.start(given.x, target=given.target)
    torch.testing.assert_close(sae.bias.detach(), given.target.mean(0))
    torch.testing.assert_close(sae.centre, given.x.mean(0))
    blind = float((given.target - given.target.mean(0)).square().sum())
    assert float((given.target - sae(given.x)).detach().square().sum()) < 0.95 * blind


def test_decode_is_the_sparse_part_and_the_call_is_all_of_it():
    sae = SkipTranscoder(4, 8, 3, 2)
    with torch.no_grad():
        sae.skip.fill_(0.5)
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    sparse = sae.decode(sae.encode(x))
    torch.testing.assert_close(sae(x), sparse + 0.5 * x.sum(-1, keepdim=True))
    assert sae(x[:0]).shape == (0, 5, 3)


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_any_is_loaded_by_the_folder_alone(architecture, tmp_path):
    sae = example(architecture)
    sae.save(tmp_path)
    again = load(tmp_path)
    assert type(again) is architecture
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), sae(x))


def test_what_cannot_be_is_refused():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    sae = Transcoder(6, 8, 3, 2)
    with pytest.raises(ShapeError, match=r"wants a target with rows of d_out = 3 numbers, and got none.*Paired"):
        sae.fit(x)
    with pytest.raises(ShapeError, match="got rows of 4 numbers"):
        sae.start(x, target=x[:, :4])
    with pytest.raises(ValueError, match="all rows of x are equal"):
        sae.start(torch.ones(4, 6), target=x[:, :3])
    with pytest.raises(ValueError, match="Transcoder: k must be in 1..n = 8"):
        Transcoder(6, 8, 3, 9)
    with pytest.raises(ValueError, match="Transcoder: d_out must be at least 1"):
        Transcoder(6, 8, 0, 2)
    with pytest.raises(ValueError, match=r"widths must be positive and sum to d = 6; got \(4, 3\)"):
        Crosscoder(6, 8, 2, (4, 3))
    with pytest.raises(ValueError, match="Crosscoder: k must be in 1..n = 8"):
        Crosscoder(6, 8, 9, (4, 2))
    with pytest.raises(ShapeError, match="predicts all of x"):
        Crosscoder(6, 8, 2, (4, 2)).fit(x, target=x[:, :2])
    x[:, 4:] = 1.0
    with pytest.raises(ValueError, match="site 1 is constant"):
        Crosscoder(6, 8, 2, (4, 2)).start(x)


class Sites(ActivationSource):
    """Two sites of 12 numbers: features 0-7 at the first only, 8-15 at both, 16-23 at the second only."""

    def __init__(self, loud=1.0):
        self.d, self.loud = 24, loud
        first, second = unit(24, 12, 1), unit(24, 12, 2)
        first[16:] = 0
        second[:8] = 0
        self.W = torch.cat([first, second], 1)

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            scores = torch.rand(size, 24, generator=generator)
            f = (scores >= scores.topk(2, dim=1).values[:, 1:]) * (0.5 + torch.rand(scores.shape, generator=generator))
            x = f @ self.W
            x[:, 12:] *= self.loud
            yield Activations(x)


@pytest.fixture(scope="module", params=[1.0, 1000.0], ids=["alike", "second louder"])
def crosscoder(request):
    source = Sites(request.param)
    sae = Crosscoder(24, 64, 2, (12, 12))
    for _ in train(sae, source, steps=250, batch=128, lr=0.02, dead_after=2000):
        pass
    return source, sae


def test_a_crosscoder_says_where_each_feature_lives(crosscoder):
    source, sae = crosscoder
    W = source.W / source.W.norm(dim=1, keepdim=True)
    cosines, latent = (W @ sae.atoms.detach().T).max(1)
    assert float(cosines.mean()) > 0.95
    shares = sae.shares()[latent]
    torch.testing.assert_close(shares.sum(1), torch.ones(24))
    assert float(shares[:8, 1].mean()) < 0.1
    assert float(shares[16:, 0].mean()) < 0.1
    assert float((shares[8:16] - 0.5).abs().mean()) < 0.15
    relative = sae.relative_norm(0, 1)[latent]
    assert float(relative[:8].mean()) < 0.3 < float(relative[8:16].mean()) < 0.7 < float(relative[16:].mean())


def test_its_dictionary_is_in_the_units_of_x(crosscoder):
    source, sae = crosscoder
    x = next(source.batches(256, seed=5)).x
    torch.testing.assert_close(sae(x).detach(), sae.reconstruction(x)[1].detach(), rtol=1e-3, atol=1e-3)
    for site in (slice(0, 12), slice(12, 24)):
        part, found = x[:, site], sae(x).detach()[:, site]
        assert float((part - found).square().sum() / (part - part.mean(0)).square().sum()) < 0.2


def test_a_crosscoder_of_one_site_is_a_topk():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)) + 3
    one, other = Crosscoder(6, 11, 3, (6,)).double(), TopK(6, 11, 3).double()
    x = x.double()
    one.start(x)
    other.start(x)
    torch.testing.assert_close(one(x), other(x))
    torch.testing.assert_close(one.fit(x, scale=2.0).loss, other.fit(x, scale=2.0).loss)
    with torch.no_grad():
        one.start(x, centre="median")
    assert not torch.equal(one.centre, x.mean(0))


class Text(ActivationSource):
    """Rows with places, in an order drawn from the seed; `read` counts from where."""

    def __init__(self, d, batches=4, shift=0, known=True):
        self.d, self.n, self.shift, self.known = d, batches, shift, known

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.n):
            places = torch.randint(100, (size, 2), generator=generator) + self.shift
            x = torch.randn(size, 1, generator=generator) * torch.arange(1.0, self.d + 1)
            yield Activations(x, places=places if self.known else None)


def test_sources_in_step():
    paired, beside = Paired(Text(3), Text(2)), Beside([Text(3), Text(2, known=False), Text(4)])
    check_source(paired, batches=2)
    check_source(beside, batches=2)
    batch = next(paired.batches(5, seed=0))
    assert (batch.x.shape, batch.target.shape, paired.d_out) == ((5, 3), (5, 2), 2)
    assert torch.equal(batch.target[:, 0], batch.x[:, 0])
    assert (beside.d, beside.widths) == (9, (3, 2, 4))
    assert torch.equal(next(beside.batches_from(1, 5, seed=0)).x[:, 5], list(Text(3).batches(5, seed=0))[1].x[:, 0])


def test_sources_out_of_step_are_refused():
    with pytest.raises(ValueError, match="Paired: the places of batch 0 differ between sources"):
        next(Paired(Text(3), Text(3, shift=1)).batches(4, seed=0))
    with pytest.raises(ValueError, match="Beside: a source ended after 3 batches"):
        list(Beside([Text(3), Text(3, batches=3)]).batches(4, seed=0))
    with pytest.raises(ValueError, match="give at least one source"):
        Beside([])

    class Odd(Text):
        def batches(self, size, *, seed):
            return super().batches(size - 1, seed=seed)

    with pytest.raises(ValueError, match="has 4 rows in one source and 3 in another"):
        next(Beside([Text(3, known=False), Odd(3, known=False)]).batches(4, seed=0))


@pytest.fixture(scope="module")
def universal():
    source = Sites()
    sae = Crosscoder(24, 64, 1, (12, 12), one_site=True)
    for _ in train(sae, source, steps=200, batch=128, lr=0.02, dead_after=2000):
        pass
    return source, sae


def test_a_code_of_one_site_rebuilds_the_other_where_features_are_shared_and_only_there(universal):
    source, sae = universal
    generator = torch.Generator().manual_seed(5)
    left = {}
    for name, features in (("shared", range(8, 16)), ("first's own", range(8))):
        which = torch.tensor(features)[torch.randint(8, (512,), generator=generator)]
        x = source.W[which] * (0.5 + torch.rand(512, 1, generator=generator))
        rebuilt = sae.decode(sae.from_site(x[:, :12], 0)).detach()
        away = x - x.mean(0)
        left[name] = [
            float((x - rebuilt)[:, part].square().sum() / (away[:, part].square().sum() + 1e-9 * len(x)))
            for part in (slice(0, 12), slice(12, 24))
        ]
    assert max(left["shared"]) < 0.3
    assert left["first's own"][0] < 0.3
    # What only the first site has says nothing of the second, so that no part of a latent is there.
    W = source.W / source.W.norm(dim=1, keepdim=True)
    latent = (W @ sae.atoms.detach().T).argmax(1)
    assert float(sae.shares()[latent[:8], 1].mean()) < 0.1
    assert float((sae.shares()[latent[8:16]] - 0.5).abs().mean()) < 0.15


def test_it_hears_one_site_of_a_row_in_training_and_the_mean_of_them_in_use(universal):
    source, sae = universal
    x = next(source.batches(6, seed=5)).x
    turns = sae._by_turns(sae.levelled(x))
    assert (turns[::2, 12:] == 0).all()
    assert (turns[1::2, :12] == 0).all()
    assert (turns[::2, :12] == sae.levelled(x)[::2, :12]).all()
    apart = []
    for site, part in enumerate((slice(0, 12), slice(12, 24))):
        whole = sae.centre.repeat(6, 1)
        whole[:, part] = x[:, part]
        one = Crosscoder(24, 64, 1, (12, 12))
        one.load_state_dict(sae.state_dict())
        apart.append(one.pre_activations(whole))
        assert torch.equal(one.from_site(x[:, part], site).values, sae.from_site(x[:, part], site).values)
    torch.testing.assert_close(sae.pre_activations(x), (apart[0] + apart[1]) / 2, rtol=1e-4, atol=1e-4)
    with pytest.raises(ShapeError, match="site 1 has rows of 12 numbers; got 24"):
        sae.from_site(x, 1)
