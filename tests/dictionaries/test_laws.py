"""Every law over every architecture."""

from __future__ import annotations

import pytest

from superscope import dictionaries as learners
from superscope.testing import CODER_LAWS, EVERY, SAE_LAWS, check_coder, example, gradient, nothing_left

from .dense import dense

VARIANTS = {architecture.__name__: (lambda architecture=architecture: example(architecture)) for architecture in EVERY}
VARIANTS["ReLU, norm-weighted"] = lambda: learners.ReLU(d=6, n=11, coefficient=0.5, norm="weighted", seed=3)


@pytest.mark.parametrize("law", [*CODER_LAWS, *SAE_LAWS], ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_law_over_every_architecture(name, law):
    law(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_of_fit_is_that_of_the_dense_step(name):
    gradient(VARIANTS[name], dense(type(VARIANTS[name]())))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_perfect_reconstruction_ends_no_run(name):
    nothing_left(VARIANTS[name])


def test_check_coder_holds_an_architecture_to_all_of_them():
    named = check_coder(VARIANTS["TopK"])
    assert named == (*(law.__name__ for law in (*CODER_LAWS, *SAE_LAWS)), "gradient")
