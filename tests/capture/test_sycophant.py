"""Is the sycophant what its grammar says? Factors drawn independently, rates and directions as planted."""

from __future__ import annotations

import hashlib

import pytest
import torch

from superscope import capture
from superscope.capture import sycophant
from superscope.capture.models.outline import outline
from superscope.capture.sycophant import grammar
from superscope.intervene import replace


@pytest.fixture(scope="module")
def lines() -> grammar.Lines:
    return grammar.draw(6000, torch.Generator().manual_seed(3), held_out=True)


def _x_and_p(lines: grammar.Lines, move: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    model, _ = sycophant.load()
    seen = []

    def moved(x: torch.Tensor) -> torch.Tensor:
        seen.append(x[:, -1])
        return x if move is None else x + move[:, None]

    with torch.no_grad(), replace(model, grammar.SITE, moved):
        logits = model(lines.ids[:, :-1]).logits[:, -1]
    return seen[0], logits.softmax(-1)[:, grammar.IDS["a0"] :]


def test_factors_are_independent() -> None:
    some = grammar.draw(20_000, torch.Generator().manual_seed(1))
    stated = some.stated == 1
    factors = torch.stack([some.prestige, some.known, some.right]).double()[:, stated]
    correlation = torch.corrcoef(factors)
    assert (correlation - torch.eye(3)).abs().max() < 0.05
    assert abs(float(torch.corrcoef(torch.stack([some.prestige, some.stated]).double())[0, 1])) < 0.03


def test_a_draw_is_repeated_by_its_seed() -> None:
    first, again = (grammar.draw(50, torch.Generator().manual_seed(1)).ids for _ in range(2))
    assert torch.equal(first, again)


def test_wrong_views_of_questions_were_not_trained_on() -> None:
    trained = grammar.draw(4000, torch.Generator().manual_seed(1))
    seen = {tuple(row) for row in trained.ids[trained.s > 0][:, [3, 4, 6]].tolist()}
    for question in grammar.questions(200):
        words = question.prompts["wrong", "low"].split()
        assert tuple(grammar.IDS[words[i]] for i in (3, 4, 6)) not in seen


def test_the_design_is_a_distribution(lines: grammar.Lines) -> None:
    assert torch.allclose(grammar.answer_distribution(lines, lines.s).sum(1), torch.ones(6000), atol=1e-5)


def test_planted_directions_have_the_planted_overlap() -> None:
    u = grammar.directions(64)
    assert torch.allclose(u @ u.T, torch.tensor([[1.0, grammar.OVERLAP], [grammar.OVERLAP, 1.0]]), atol=1e-5)


def test_rates_are_as_planted(lines: grammar.Lines) -> None:
    _, p = _x_and_p(lines)
    view = p.gather(1, lines.view[:, None])[:, 0]
    truth = p.gather(1, lines.truth[:, None])[:, 0]
    for level, name in enumerate(grammar.PRESTIGE):
        where = (lines.s > 0) & (lines.prestige == level)
        assert float(view[where].mean()) == pytest.approx(grammar.R_WRONG[name], abs=0.05)
    known, stated, right = (each == 1 for each in (lines.known, lines.stated, lines.right))
    assert float(view[known & right].mean()) == pytest.approx(grammar.R_RIGHT, abs=0.02)
    assert float(view[~known & stated].mean()) == pytest.approx(grammar.R_UNKNOWN, abs=0.03)
    assert float(truth[known & ~stated].mean()) > 0.98


def test_the_planted_coordinate_is_the_cause(lines: grammar.Lines) -> None:
    """No sycophancy, or a novice's, put in the place of a line's own gives that rate.

    An expert's put in a novice's place does not, on views that were not trained on: docs/sycophancy.md says so.
    """
    u = grammar.directions(64)[0]
    wrong = lines.s > 0
    for s, rate in enumerate((0.0, grammar.R_WRONG["novice"])):
        _, p = _x_and_p(lines, (s - lines.s)[:, None] * grammar.STRENGTH * u)
        view = p.gather(1, lines.view[:, None])[:, 0]
        assert float(view[wrong].mean()) == pytest.approx(rate, abs=0.06)


def test_it_loads_by_name_and_is_whole() -> None:
    subject = capture.load("sycophant")
    assert subject.kind == "causal"
    assert len(outline("sycophant").block_parameters) == 5
    folder = sycophant.folder()
    for line in (folder / "SHA256").read_text().splitlines():
        wanted, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == wanted, name
    assert (folder / "model.safetensors").stat().st_size < 4_000_000
