"""A run's life: nothing is left by what fails early, what was made is read on again, and the times reach the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from superscope.core import Answer, Findings, Measurement, Report, Run, RunFolder, files


def measured(name: str = "l0", value: float = 3.0, **at: str | int | float) -> Measurement:
    return Measurement(name=name, value=value, unit="latents", n=9, of="rows", at=at)


def test_a_run_without_a_folder_keeps_nothing_and_answers_all_the_same(tmp_path: Path) -> None:
    run = Run.begin("example", {"k": 1})
    run.keep("a.json", lambda path: pytest.fail("nothing is to be written"))
    assert not run.is_kept
    assert not run.has("a.json")
    assert run.kept("a.json", files.read_json) is None
    report = run.finish(Answer(title="t", findings=Findings([measured()])))
    assert report.environment["created"] <= report.environment["finished"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="keeps nothing, so it has no a.json; give it a folder"):
        run / "a.json"


def test_the_folder_appears_with_the_first_thing_kept(tmp_path: Path) -> None:
    run = Run.begin("example", {}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run.keep("deep/a.json", lambda path: files.write_json(path, [1]))
    assert RunFolder.open(tmp_path / "run").has("deep/a.json")


def test_what_was_made_is_made_once(tmp_path: Path) -> None:
    made = 0

    def make():
        nonlocal made
        made += 1
        yield made
        return {"made": made}

    def answer(run: Run):
        return (
            yield from run.once(
                "a.json", make(), read=files.read_json, write=lambda value, path: files.write_json(path, value)
            )
        )

    def drained(run: Run):
        generator = answer(run)
        while True:
            try:
                next(generator)
            except StopIteration as end:
                return end.value

    for _ in range(2):
        assert drained(Run.begin("example", {"k": 1}, tmp_path / "run")) == {"made": 1}
    (tmp_path / "run" / "a.json").write_text("damaged")
    assert drained(Run.begin("example", {"k": 1}, tmp_path / "run")) == {"made": 2}


def test_times_facts_and_scratch(tmp_path: Path) -> None:
    Run.begin("example", {"k": 1}, tmp_path / "run").keep("scratch.json", lambda path: files.write_json(path, 1))
    folder = RunFolder.open(tmp_path / "run")
    files.write_json(
        tmp_path / "run" / "about.json", files.seal(folder.about | {"created": "2001-01-01T00:00:00+00:00"})
    )
    (tmp_path / "run" / "shards").mkdir()
    run = Run.begin("example", {"k": 1}, tmp_path / "run")
    run.drop("scratch.json", "shards", "never there")
    run.note(machine="here")
    run.finish(Answer(title="done", findings=Findings([measured()]), sentences=["One."]))
    report = Report.load(tmp_path / "run")
    assert report.environment["created"] == "2001-01-01T00:00:00+00:00"
    assert report.environment["resumed"] <= report.environment["finished"]
    assert report.environment["seconds"] >= 0
    assert report.environment["machine"] == "here"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["about.json", "report.json"]


def test_a_follower_writes_nothing(tmp_path: Path) -> None:
    run = Run.begin("example", {})
    run.follow(tmp_path / "run")
    run.keep("a.json", lambda path: pytest.fail("the first process writes"))
    run.finish(Answer(title="t", findings=Findings()))
    assert (run / "shards").parent == tmp_path / "run"
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_part_of_the_first_about_is_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".about.json.x7").write_text("{")
    Run.begin("example", {}, tmp_path / "run").open()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["about.json"]


def test_findings_are_looked_up_by_name_and_place() -> None:
    findings = Findings([measured(site="a", seed=0), measured(value=4.0, site="b", seed=0)])
    assert findings["l0"].value == 3.0
    assert findings["l0", "b"].value == 4.0
    assert findings.get("l0", "c") is None
    with pytest.raises(KeyError, match="no measurement 'l0' at c"):
        findings["l0", "c"]
    with pytest.raises(KeyError, match="no measurement 'l1' here; there are l0"):
        findings["l1"]
    findings.row("t", a=1, b=2)
    with pytest.raises(ValueError, match="table t has the columns a, b; got a"):
        findings.row("t", a=1)
    with pytest.raises(ValueError, match="differ in length"):
        findings.rows("u", {"a": [1], "b": []})
