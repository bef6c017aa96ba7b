"""The laws of readings hold for ours, on the pocket model, and catch readings that leave something behind."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Findings, Measurement
from superscope.studies import Scan
from superscope.studies.networks.readings import READINGS, Reading, View
from superscope.testing import LawBroken, check_reading


class Keep(Reading):
    """Keeps what it sees."""

    name = "keeping"

    def __init__(self) -> None:
        self.seen: list[View] = []

    def read(self, seen: View, findings: Findings) -> None:
        self.seen.append(seen)
        findings.add(Measurement(name="tokens", value=1.0, unit="tokens", n=1, of="tokens"), at=seen.at)


@pytest.fixture(scope="module")
def view() -> View:
    """One site of the pocket model, read as a scan reads it."""
    keep = Keep()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("superscope.studies.networks.survey.READINGS", (keep,))
        patch.setattr("superscope.studies.networks.scan.READINGS", (keep,))
        Scan(tokens=3000, held_out=600, sites=("resid_post.1",), n=24, k=3, steps=4, batch=64, seeds=2).run()
    (seen,) = keep.seen
    return seen


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: type(reading).__name__)
def test_every_reading_keeps_the_laws(reading: Reading, view: View) -> None:
    assert check_reading(reading, view) == ("says where", "names its chance", "repeatable", "leaves the model alone")


def one(**fields) -> Measurement:
    return Measurement(**{"name": "tokens", "value": 1.0, "unit": "tokens", "n": 1, "of": "tokens", **fields})


def _hooked(seen: View, findings: Findings) -> None:
    seen.subject.model.register_forward_hook(lambda *_: None)


CALLS = iter(range(100))
BROKEN = {
    "does not say its site": lambda seen, findings: findings.add(one()),
    "chance level without a name": lambda seen, findings: findings.add(one(chance=1.0), at=seen.at),
    "the rows of t do not say site, model": lambda seen, findings: findings.row("t", a=1),
    "one thing now and another then": lambda seen, findings: findings.add(one(value=float(next(CALLS))), at=seen.at),
    "in another state": _hooked,
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_reading_that_breaks_a_law_is_named(law: str, view: View) -> None:
    class Broken(Reading):
        name = "broken"

        def read(self, seen: View, findings: Findings) -> None:
            BROKEN[law](seen, findings)

    try:
        with pytest.raises(LawBroken, match=f"Broken: .*{law}"):
            check_reading(Broken(), view)
    finally:
        view.subject.model._forward_hooks.clear()
        torch.set_grad_enabled(True)


def test_a_place_that_lacks_what_is_needed(view: View) -> None:
    class Neuronal(Keep):
        needs = ("neurons",)

    with pytest.raises(ValueError, match="keeping needs neurons, which this place has not"):
        check_reading(Neuronal(), view)
