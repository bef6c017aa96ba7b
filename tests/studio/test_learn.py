"""The lessons, as a beginner meets them: every answer they accept, and every number they draw, is the library's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from superscope import frames, measure, theory
from superscope.measure.toy import components, dimensionalities, overlaps
from superscope.toys import Tied

ANSWERS: dict[str, list[float]] = {
    "what": [float(frames.polygon(5).atoms[0] @ frames.polygon(5).atoms[1])],
    "sparsity": [2, 0.01**2],
    "geometry": [float(dimensionalities(frames.simplex(3).atoms)[0])],
    "interference": [theory.pair_interference(-1, 0.1, 1 / 2, 1 / 3).square],
    "polysemanticity": [2, 1],
    "bases": [0, 0],
    "recovery": [round(theory.weak_count(60, 24), 1)],
    "packing": [theory.direction_count(10, 0.1).upper, theory.direction_count(64, 0.1).upper],
    "dictionaries": [1],
    "wrong": [0.8, 1],
    "measuring": [theory.welch(20, 8), 2],
    "steering": [2 * 0.3, 1],
    "sycophancy": [1 - 0.5**2, 1],
    "reflections": [1],
}
"""What each question of each lesson accepts: computed where it is a number, the place of the option where it is one."""


@pytest.fixture(scope="module")
def learn(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    context.set_default_timeout(20_000)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else complaints.append(r.url))
    with resources.as_file(resources.files("superscope.studio") / "static" / "learn.html") as file:
        page.goto(file.as_uri())
        page.locator('[data-view="learn"]').wait_for()
        yield page, complaints
    context.close()


def visit(page: Page, lesson: str, **sliders: float) -> None:
    query = "&".join(f"{name}={value}" for name, value in sliders.items())
    page.evaluate("address => { location.hash = address }", f"/{lesson}{'?' + query if query else ''}")
    page.wait_for_function(
        "id => document.querySelector(`nav.lessons a[href='#/${id}'][aria-current=page]`)"
        " && document.querySelector('main').dataset.state === 'loaded'",
        arg=lesson,
    )
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def outcome(page: Page) -> dict[str, float]:
    run = page.get_by_role("button", name="Run it")
    if run.count():
        run.click()
        page.wait_for_function("() => document.querySelector('main').dataset.state === 'training'")
        page.wait_for_function("() => document.querySelector('main').dataset.state === 'loaded'")
    found = page.eval_on_selector_all(".values data", "all => all.map(e => [e.dataset.name, Number(e.value)])")
    return dict(found)


def test_every_answer_is_the_library_s(learn: tuple[Page, list[str]]) -> None:
    page, complaints = learn
    assert page.evaluate("() => superscope.lessons.map(each => each.id)") == list(ANSWERS)
    for lesson, answers in ANSWERS.items():
        visit(page, lesson)
        questions = page.locator("form.question")
        assert questions.count() == len(answers), lesson
        for number, answer in enumerate(answers):
            question = questions.nth(number)
            options = question.get_by_role("radio")
            for said, right in ((answer + 1, False), (answer, True)):
                if options.count():
                    options.nth(int(said) % options.count()).check()
                else:
                    question.get_by_role("textbox").fill(repr(said))
                question.get_by_role("button", name="Check").click()
                status = question.locator("[data-right]")
                assert status.get_attribute("data-right") == str(right).lower(), (lesson, number, said)
    assert complaints == []


def test_experiments_give_what_the_library_gives(learn: tuple[Page, list[str]]) -> None:
    page, complaints = learn

    visit(page, "what", n=7)
    W = frames.polygon(7).atoms
    assert outcome(page)["cosine"] == pytest.approx(float(W[0] @ W[1]), abs=1e-6)
    visit(page, "geometry", n=4, long=0.5)
    W = frames.polygon(4).atoms.double()
    W[0] *= 0.5
    assert outcome(page)["D"] == pytest.approx(float(dimensionalities(W)[0]), abs=1e-6)
    visit(page, "interference", S=0.7, c=-0.5)
    found, known = outcome(page), theory.pair_interference(-0.5, 0.3, 1 / 2, 1 / 3).square
    assert found["expected"] == pytest.approx(known)
    assert found["measured"] == pytest.approx(known, rel=0.05)
    visit(page, "interference", S=0.7, c=-1)
    assert outcome(page)["relu"] == pytest.approx(theory.opposite_relu_error(-1, 0.3, theory.uniform()), rel=0.05)
    visit(page, "polysemanticity", turn=45)
    assert outcome(page) == pytest.approx({"mixed": 2.0, "overlap": 0.0}, abs=1e-9)
    visit(page, "bases", turn=30)
    found = outcome(page)
    assert found["linear"] == pytest.approx(0, abs=1e-20)
    assert found["relu"] > 0.1
    visit(page, "recovery")
    assert outcome(page)["weak"] == pytest.approx(theory.weak_count(60, 24), rel=1e-6)
    visit(page, "packing", d=4, eps=0.5)
    assert 4 < outcome(page)["packed"] <= theory.direction_count(4, 0.5).upper
    visit(page, "packing", d=6, eps=0.35)
    found = outcome(page)
    assert found["worst"] <= 0.35 + 1e-6
    assert 6 < found["packed"] <= theory.direction_count(6, 0.35).upper <= found["bound"]
    visit(page, "dictionaries")
    assert outcome(page)["score"] > 0.99
    visit(page, "measuring", n=60, d=12)
    found = outcome(page)
    assert found["welch"] == pytest.approx(theory.welch(60, 12))
    assert theory.random_coherence(60, 12, 0.001) < found["coherence"] < theory.random_coherence(60, 12, 0.999)
    visit(page, "steering", n=60, d=32)
    found = outcome(page)
    assert found["target"] == pytest.approx(2.0)
    assert found["side"] == pytest.approx(found["expected"], rel=0.35)
    visit(page, "reflections", n=700, p=-2)
    assert outcome(page)["floor"] == pytest.approx(theory.interference_floor(700, 100, 0.01, 1 / 2, 1 / 3))
    assert complaints == []


@pytest.mark.parametrize(("exponent", "stored"), [(0, 2), (-1.3, 5)])
def test_a_model_trained_in_the_page_is_near_the_best(
    learn: tuple[Page, list[str]], exponent: float, stored: int
) -> None:
    page, _ = learn
    visit(page, "sparsity", p=exponent)
    found = outcome(page)
    assert found["stored"] == stored
    W = np.array([found[f"W{i}"] for i in range(10)]).reshape(5, 2)
    b = np.array([found[f"b{i}"] for i in range(5)])
    importance, density = 0.9 ** np.arange(5), found["density"]
    loss = theory.toy_loss.expected_loss(W @ W.T, b, density, importance)
    best_without = theory.toy_loss.linear_loss(importance, density, 2)
    assert loss < 1.05 * best_without
    if stored == 5:
        assert loss < best_without / 2


def test_the_model_in_the_page_is_tied(learn: tuple[Page, list[str]]) -> None:
    page, _ = learn
    generator = torch.Generator().manual_seed(3)
    n, d, rows = 7, 3, 16
    W = torch.randn(n, d, generator=generator, dtype=torch.float64)
    b = 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    f = torch.rand(rows, n, generator=generator, dtype=torch.float64)
    f = f * (torch.rand(rows, n, generator=generator) < 0.4)
    importance = 0.8 ** torch.arange(n, dtype=torch.float64)
    loss, slopes = Tied(n, d).loss_gradient({"W": W[None], "b": b[None]}, f[None], importance[None])
    found = page.evaluate(
        """([n, d, W, b, f, importance]) => {
            const weights = { n, d, W: Float64Array.from(W), b: Float64Array.from(b) };
            const { loss, dW, db } = superscope.lossGradient(weights, Float64Array.from(f), importance);
            return { loss, dW: [...dW], db: [...db] };
        }""",
        [n, d, W.flatten().tolist(), b.tolist(), f.flatten().tolist(), importance.tolist()],
    )
    assert found["loss"] == pytest.approx(float(loss[0]), rel=1e-12)
    assert found["dW"] == pytest.approx(slopes["W"][0].flatten().tolist(), rel=1e-9, abs=1e-12)
    assert found["db"] == pytest.approx(slopes["b"][0].tolist(), rel=1e-9, abs=1e-12)


def test_geometry_in_the_page_is_that_of_the_library(learn: tuple[Page, list[str]]) -> None:
    page, _ = learn
    W = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found: dict[str, Any] = page.evaluate(
        """W => ({ D: superscope.dimensionalities(W), share: superscope.interference(W),
            groups: superscope.components(W, 0.9), flat: superscope.principal(W, 3) })""",
        W.tolist(),
    )
    assert found["D"] == pytest.approx(dimensionalities(W).tolist())
    assert found["share"] == pytest.approx(overlaps(W).tolist())
    assert sorted(map(tuple, found["groups"])) == sorted(c.features for c in components(W, threshold=0.9))
    squares = torch.linalg.svdvals(W).square()
    assert found["flat"]["share"] == pytest.approx(float(squares[:3].sum() / squares.sum()))
    kept = torch.tensor(found["flat"]["points"], dtype=torch.float64)
    assert torch.linalg.svdvals(kept).square().tolist() == pytest.approx(squares[:3].tolist())
    for solid, faces in ((frames.icosahedron(), 20), (frames.cross_polytope(3), 8), (frames.simplex(3), 4)):
        assert len(page.evaluate("W => superscope.hull(W)", solid.atoms.tolist())) == faces


def test_every_filling_that_a_gap_accepts_runs(learn: tuple[Page, list[str]]) -> None:
    page, _ = learn
    cells = page.evaluate("() => superscope.lessons.flatMap(each => each.cells ?? [])")
    assert [cell["task"].split(":")[0] for cell in cells] == ["analyze_superposition", "measure_interference"]
    W = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    W[:, 3] += 0.4
    unit = W / W.norm(dim=1, keepdim=True)
    G = unit @ unit.T
    moments = [
        theory.frame_interference(float(row.sum() - 1), float(row.square().sum() - 1), 0.2, 1 / 2, 1 / 3) for row in G
    ]
    for cell in cells:
        names = list(cell["gaps"])
        first = {name: cell["gaps"][name]["accept"][0] for name in names}
        fillings = [first | {name: one} for name in names for one in cell["gaps"][name]["accept"]]
        for filling in fillings:
            code = re.sub("⟦(\\w+)⟧", lambda gap, filling=filling: filling[gap[1]], cell["code"])
            space: dict[str, Any] = {"torch": torch}
            exec(code, space)
            if "analyze_superposition" in space:
                got = space["analyze_superposition"](W)
                assert got["features_per_dimension"] == pytest.approx(float(W.square().sum() / 4)), filling
                assert got["dimensionality"].tolist() == pytest.approx(dimensionalities(W).tolist()), filling
            else:
                mean, variance = space["measure_interference"](unit, 0.2)
                assert mean.tolist() == pytest.approx([m.mean for m in moments]), filling
                assert variance.tolist() == pytest.approx([m.variance for m in moments]), filling
    visit(page, "geometry")
    gaps = page.locator("form.gaps")
    gaps.get_by_role("button", name="Check").click()
    assert "Not yet" in gaps.get_by_role("status").inner_text()
    for name in cells[0]["gaps"]:
        gaps.get_by_label(f"{name}:").fill(cells[0]["gaps"][name]["accept"][-1].replace(" ", "  "))
    gaps.get_by_role("button", name="Check").click()
    assert "Right" in gaps.get_by_role("status").inner_text()


def test_counts_of_directions_in_the_text_are_the_library_s(learn: tuple[Page, list[str]]) -> None:
    page, _ = learn
    visit(page, "packing")
    text = page.locator(".prose").inner_text()
    small, middle, large = (theory.direction_count(d, 0.1) for d in (64, 256, 768))
    for count in (theory.direction_count(10, 0.1).upper, small.lower, small.upper, middle.lower, large.lower):
        assert re.search(rf"\b{count:,.0f}\b".replace(",", " "), text), count
    assert round(math.log10(large.upper)) == 11
    assert "10¹¹" in text
    assert theory.covering_count(1095, 0.1) < math.log(1095)
    assert theory.covering_count(1096, 0.1) >= math.log(1096)
    assert "1 096" in text


def test_an_address_restores_a_lesson_and_nothing_is_amiss(learn: tuple[Page, list[str]], violations: Callable) -> None:
    page, complaints = learn
    page.set_viewport_size({"width": 400, "height": 900})
    for lesson in ANSWERS:
        visit(page, lesson)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, lesson
    # Lessons are drawn by one component: these four hold everything that it can draw.
    looks = (("light", 1280), ("dark", 400), ("dark", 1280), ("light", 400))
    for lesson, (scheme, width) in zip(("interference", "packing", "geometry", "dictionaries"), looks, strict=True):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        visit(page, lesson)
        outcome(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, lesson
        assert [(v["id"], [node["target"] for node in v["nodes"]]) for v in violations(page)] == [], lesson
    page.set_viewport_size({"width": 1280, "height": 900})

    visit(page, "measuring", n=30, later="kept")  # type: ignore[arg-type]
    slider = page.get_by_label("directions n")
    assert slider.input_value() == "30"
    slider.press("ArrowRight")
    assert page.evaluate("location.hash") == "#/measuring?later=kept&n=32"
    page.reload()
    assert page.get_by_label("directions n").input_value() == "32"
    page.evaluate("() => { location.hash = '/nowhere' }")
    page.get_by_text("There is no lesson “nowhere”").wait_for()
    assert complaints == []
    assert measure.coherence(frames.simplex(10)).value == pytest.approx(0.1, abs=1e-6)
