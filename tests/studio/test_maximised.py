"""The section of what moves a unit most: pictures pixel by pixel, prompts with their colours, whatever is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from superscope.core import Measurement, Report
from superscope.studio import write_html

ONE = Measurement(name="maximised_ratio", value=2.0, unit="times", n=2, of="units", chance=1.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    what = ("maximised", "strongest real", "best noise")
    rows = [(unit, index) for unit in range(2) for index in range(3)]
    table = {
        "site": ["h"] * 6,
        "model": ["trained"] * 6,
        "target": [f"coordinate {unit}" for unit, _ in rows],
        "array": [f"pictures.trained.{unit}" for unit, _ in rows],
        "index": [index for _, index in rows],
        "what": [what[index] for _, index in rows],
        "value": [2.0, 1.0, 0.5] * 2,
        "patch": [0] * 6,
        "name": ["", "seven.png", ""] * 2,
        "above": [2.0, 1.0, 0.5] * 2,
        "low": [[-1.0] * 3] * 6,
        "high": [[1.0] * 3] * 6,
    }
    climbs = {
        "site": ["h"] * 4,
        "model": ["trained"] * 4,
        "target": ["coordinate 0"] * 4,
        "start": [0, 0, 1, 1],
        "step": [0, 10, 0, 10],
        "value": [0.1, 2.0, 0.2, 1.5],
    }
    # The first picture is red, and black at its first pixel.
    array = torch.full((3, 3, 4, 6), -1.0)
    array[0, 0] = 1.0
    array[0, :, 0, 0] = -1.0
    Report(
        title="Pictures",
        kind="maximise",
        measurements=(ONE,),
        tables={"pictures": table, "climbs": climbs},
        arrays={f"pictures.trained.{unit}": array.clone() for unit in range(2)},
    ).save(tmp_path / "run")
    return write_html(tmp_path / "run")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_pictures_are_drawn_as_they_are(
    open_page: Callable, serious: Callable, pictures: Path, scheme: str, width: int
) -> None:
    opened = open_page("#/maximised", file=pictures, scheme=scheme, width=width)
    page = opened.page
    section = page.locator("#maximised")
    expect(section.locator("canvas")).to_have_count(3)
    pixels = (
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].slice(0, 8).concat(c.width, c.height)"
    )
    assert section.locator("canvas").first.evaluate(pixels) == [0, 0, 0, 255, 255, 0, 0, 255, 6, 4]
    assert section.locator("canvas").first.evaluate("c => getComputedStyle(c).imageRendering") == "pixelated"
    expect(section).to_contain_text("strongest real picture, seven.png")
    section.get_by_label("Unit").select_option("coordinate 1")
    assert "unit=coordinate+1" in page.url
    expect(section.get_by_role("img", name="coordinate 1: climbed to")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    assert opened.complaints == []
