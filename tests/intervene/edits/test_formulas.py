"""Each edit does what its formula says, and the closed forms equal those of the package they come from."""

from __future__ import annotations

import warnings

import pytest
import torch

from superscope.intervene.edits import (
    Add,
    AlphaSteer,
    Clamp,
    Latent,
    Leace,
    Least,
    MeanAblate,
    MidSteer,
    NormKept,
    OracleLeace,
    ProjectOut,
    Protected,
    SaeTargeted,
    Scale,
    SpliceIn,
    Splince,
)
from superscope.intervene.edits.erasure import covariance

from .examples import coder_of, labels_of, rows_of

with warnings.catch_warnings():
    # It uses torch.jit.script, of which torch warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    from concept_erasure import LeaceFitter

X = rows_of(9, 500)
Z, Y = labels_of(X), labels_of(X, seed=1)
CLASSES = torch.nn.functional.one_hot((X[:, 0] > 0).long() + (X[:, 1] > 1).long(), 3).double()


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("z", [Z, torch.stack([Z, Y], 1), CLASSES], ids=["label", "two labels", "classes"])
def test_leace_equals_concept_erasure(z):
    theirs = LeaceFitter.fit(X, z, shrinkage=False, svd_tol=1e-9, constrain_cov_trace=False).eraser
    ours = Leace.fit(X, z)
    close(ours.projector, theirs.P, 1e-6)
    close(ours(X), theirs(X), 1e-6)
    close(covariance(ours(X), z.reshape(len(z), -1)), torch.zeros(9, z.reshape(len(z), -1).shape[1]).double(), 1e-9)


def test_leace_changes_less_than_the_orthogonal_projection_and_more_than_the_oracle():
    cost = lambda edit: float((edit(X) - X).square().sum())  # noqa: E731
    s = covariance(X, Z[:, None])[:, 0]
    orthogonal = MeanAblate(X.mean(0), s)
    assert cost(OracleLeace.fit(X, Z)) < cost(Leace.fit(X, Z)) < cost(orthogonal)
    for edit in (OracleLeace.fit(X, Z), Leace.fit(X, Z), orthogonal):
        close(covariance(edit(X), Z[:, None]), torch.zeros(9, 1).double(), 1e-9)
    # Damage of rank one is known in closed form.
    sigma = covariance(X, X)
    expected = float(s @ s) / float(s @ torch.linalg.solve(sigma, s)) * (len(X) - 1)
    assert cost(Leace.fit(X, Z)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("z", [Z, CLASSES], ids=["label", "classes"])
def test_splince_keeps_one_covariance_and_kills_the_other(z):
    edit = Splince.fit(X, z, Y)
    moved, z = edit(X), z.reshape(len(z), -1)
    close(covariance(moved, z), torch.zeros(9, z.shape[1]).double(), 1e-6)
    close(covariance(moved, Y[:, None]), covariance(X, Y[:, None]), 1e-6)
    close(edit.projector @ edit.projector, edit.projector, 1e-9)
    # Leace does not keep it.
    assert float((covariance(Leace.fit(X, z)(X), Y[:, None]) - covariance(X, Y[:, None])).norm()) > 1e-3


def test_splince_changes_least_of_all_that_keep_and_kill():
    edit, sigma = Splince.fit(X, Z, Y), covariance(X, X)
    cost = lambda p: float(torch.trace((p - torch.eye(9)) @ sigma @ (p - torch.eye(9)).T))  # noqa: E731
    least = cost(edit.projector)
    a, b = covariance(X, Z[:, None]), covariance(X, Y[:, None])
    # Rows of anything that reads neither covariance may be added to P without breaking either law.
    free = torch.linalg.svd(torch.cat([a, b], 1).T)[2][2:]
    for seed in range(20):
        more = torch.randn(9, len(free), generator=torch.Generator().manual_seed(seed)).double() @ free
        assert cost(edit.projector + 0.1 * more) > least


def test_splince_refuses_what_cannot_be_separated():
    with pytest.raises(ValueError, match=r"lie 0\.\d\d degrees apart"):
        Splince.fit(X, Z, 2 * Z + 1)


def test_add_scale_clamp():
    v, g = X[0], X[1]
    close(Add(v, strength=2)(X), X + 2 * v)
    close(Clamp(v, g, offset=0.5, to=3)(X) @ g + 0.5, torch.full((500,), 3.0).double(), 1e-8)
    close(Clamp(v, to=3)(X) @ v / (v @ v), torch.full((500,), 3.0).double(), 1e-8)
    close(Scale(v, g, factor=-2)(X) @ g, -2 * X @ g, 1e-8)
    close(Scale(v)(X), ProjectOut(v)(X), 1e-9)
    half = Clamp(v, g, to=3, strength=0.5)(X) @ g
    close(half, (X @ g + 3) / 2, 1e-8)
    with pytest.raises(ValueError, match="orthogonal to the direction"):
        Scale(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))


def test_projections():
    q = X[:2]
    close(ProjectOut(q)(X) @ q.T, torch.zeros(500, 2).double(), 1e-8)
    close(ProjectOut(torch.cat([q, q]))(X), ProjectOut(q)(X), 1e-9)
    mean = X.mean(0)
    close(MeanAblate(mean, q)(X) @ q.T, (mean @ q.T).expand(500, 2), 1e-8)
    close(MeanAblate(mean)(X), mean.expand(500, 9), 1e-9)


def test_least_is_least():
    g, metric = X[0], X.T @ X / len(X)
    edit = Least(g, metric, effect=2.0)
    assert float(edit.direction @ g) == pytest.approx(2.0)
    cost = lambda v: float(v @ metric @ v)  # noqa: E731
    for seed in range(20):
        v = torch.randn(9, generator=torch.Generator().manual_seed(seed)).double()
        aside = v - (v @ g) / (g @ g) * g
        assert cost(edit.direction + 0.01 * aside) > cost(edit.direction)


def test_protected_read_outs_do_not_move_and_it_is_the_limit_of_least():
    g, G = X[0], X[1:4]
    edit = Protected(g, G)
    close(G @ edit.direction, torch.zeros(3).double(), 1e-9)
    assert float(g @ edit.direction) == pytest.approx(1.0)
    stiff = torch.eye(9).double() + 1e7 * G.T @ G
    close(Least(g, stiff).direction, edit.direction, 1e-4)
    near = G[0] + 1e-3 * g
    with pytest.raises(ValueError, match=r"lies 0\.0\d degrees from the span of what is protected"):
        Protected(near, G)


def test_latents_are_edited_by_their_difference():
    coder, x = coder_of(9), rows_of(9, 30).float()
    code = coder.encode(x).dense()
    atoms = coder.dictionary.atoms
    expected = x + (1.5 - code[:, 4:5]) * atoms[4] + (0 - code[:, 7:8]) * atoms[7]
    close(Latent(coder, {4: 1.5, 7: 0})(x), expected, 1e-5)
    close(Latent(coder, {4: 0}, factor=3)(x), x + 2 * code[:, 4:5] * atoms[4], 1e-5)
    close(SpliceIn(coder)(x), coder.reconstruct(x), 1e-5)
    close(SpliceIn(coder, {4: 1.5, 7: 0}, keep_error=True)(x), expected, 1e-5)
    assert torch.equal(SpliceIn(coder, keep_error=True)(x), x)
    dropped = code.clone()
    dropped[:, 4] = 1.5
    close(SpliceIn(coder, {4: 1.5})(x), coder.dictionary.compose(dropped), 1e-5)
    with pytest.raises(ValueError, match="no latent 18 in a dictionary of 18"):
        Latent(coder, {18: 0})


def test_midsteer_turns_the_source_into_the_target():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2000, 4, generator=generator).double()
    source, target, rest = shared[:600] + torch.eye(4)[0] * 3, shared[600:1200] + torch.eye(4)[1] * 3, shared[1200:]
    everything = torch.cat([source, target, rest])
    edit = MidSteer.fit(everything, source, target, clip=False)
    close(edit(source).mean(0), target.mean(0), 1e-9)
    clipped = MidSteer.fit(everything, source, target)
    moved = (clipped(rest) - rest).norm(dim=1)
    assert 0.1 < float((moved == 0).double().mean()) < 0.9
    switch = MidSteer.fit(everything, source, target, clip=False, switch=True)
    close(switch.read @ switch.write, torch.tensor(1.0).double(), 1e-9)


def test_alphasteer_leaves_the_benign_alone():
    generator = torch.Generator().manual_seed(0)
    benign = torch.cat([torch.randn(300, 5, generator=generator), torch.zeros(300, 4)], 1).double()
    harmful = torch.cat([torch.randn(300, 5, generator=generator), 2 + torch.rand(300, 4, generator=generator)], 1)
    r = torch.ones(9).double()
    edit = AlphaSteer.fit(benign, harmful.double(), r, ridge=1e-6)
    close(edit(benign), benign, 1e-9)
    moved = (edit(harmful.double()) - harmful).mean(0)
    assert float(moved @ r / (moved.norm() * r.norm())) > 0.99
    assert float(moved @ r / (r @ r)) == pytest.approx(1.0, abs=0.1)


def test_sae_targeted_finds_the_direction_that_moves_one_latent_alone():
    generator = torch.Generator().manual_seed(0)
    encoder = torch.randn(6, 9, generator=generator).double()
    tried = torch.randn(400, 9, generator=generator).double()
    effects = tried @ encoder.T
    edit = SaeTargeted.fit(tried, effects, 2, ridge=1e-9)
    close(edit.direction, encoder[2] / encoder[2].norm(), 1e-6)
    # With a latent that every direction raises, the edit turns away from what raises it.
    common = torch.zeros(6).double()
    common[4] = 5.0
    away = SaeTargeted.fit(tried, effects + common, 2, ridge=1e-9)
    assert float(away.direction @ encoder[4]) < float(edit.direction @ encoder[4])


def test_norm_kept():
    v = X[0]
    moved = NormKept(Add(v), strength=3)(X)
    close(moved.norm(dim=1), X.norm(dim=1), 1e-9)
    close(torch.nn.functional.normalize(moved, dim=1), torch.nn.functional.normalize(X + 3 * v, dim=1), 1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_directions_that_are_none(bad):
    v = torch.tensor([1.0, bad])
    for make in (Add, Scale, Clamp, ProjectOut, SaeTargeted):
        with pytest.raises(ValueError, match="NaN or infinite"):
            make(v)
        with pytest.raises(ValueError, match="zero"):
            make(torch.zeros(3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        Leace.fit(torch.full((4, 2), bad), torch.tensor([0, 1, 0, 1]))
