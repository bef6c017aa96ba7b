"""How long a run will take, judged on a study whose durations are known and a clock that is turned by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from superscope.cli.course import Course
from superscope.studies.study import Progress


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


SITES, STEPS = 4, 20
LEARNING, MEASURING = 60.0, 20.0
AHEAD = {name: work for site in range(SITES) for name, work in ((f"Learning {site}", 1.0), (f"Measuring {site}", 1.0))}
"""What the study says: measuring costs as much as learning. That is three times too much, as the clock will show."""


def study(clock: Clock, *, noise: float = 0.0, there: int = 0) -> Iterator[tuple[Progress, float]]:
    """Each Progress with the seconds that are truly left; `there` of the first steps are from an interrupted run."""
    chance = random.Random(0)

    def takes(seconds: float) -> None:
        clock.now += seconds * chance.uniform(1 - noise, 1 + noise)

    yield Progress("Loading", 0, 1), 0.0
    takes(7.0)
    yield Progress("Loading", 1, 1, ahead=AHEAD), SITES * (LEARNING + MEASURING)
    for site in range(SITES):
        after = (SITES - site - 1) * (LEARNING + MEASURING)
        taken = min(max(there - site * STEPS, 0), STEPS)
        for step in range(taken, STEPS + 1):
            if step > taken:
                takes(LEARNING / STEPS)
            left = LEARNING * (1 - step / STEPS) + MEASURING + after
            yield Progress(f"Learning {site}", step, STEPS, resumed=0 < taken == step), left
        yield Progress(f"Measuring {site}", 0, 1), MEASURING + after
        takes(MEASURING)
        yield Progress(f"Measuring {site}", 1, 1), after


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_time_left_converges_though_the_study_weighed_its_stages_wrongly(noise: float) -> None:
    clock = Clock()
    course = Course(clock)
    shares, guesses = [], []
    for step, left in study(clock, noise=noise):
        course.take(step)
        shares.append(course.share)
        if course.left is not None and left > 0:
            guesses.append((step.stage, course.left / left))
    # Half wrong while measuring has never been seen, right once it has.
    first = [ratio for stage, ratio in guesses if stage == "Learning 0"]
    later = [ratio for stage, ratio in guesses if stage[-1] in "123"]
    assert len(first) >= STEPS - 1
    assert 1.2 < first[-1] < 2.5
    assert all(ratio == pytest.approx(1, abs=0.02 + 0.8 * noise) for ratio in later)
    assert len(later) > 2.5 * STEPS
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert known[0] == 0
    assert known[-1] == 1


def test_a_stage_that_says_nothing_is_expected_to_take_what_its_kind_took() -> None:
    clock = Clock()
    course = Course(clock)
    for step, _ in study(clock):
        course.take(step)
        if step.stage == "Measuring 1" and step.done == 0:
            break
    assert course.stage_left == pytest.approx(MEASURING)
    clock.now += 5
    assert course.stage_left == pytest.approx(MEASURING - 5)
    clock.now += MEASURING
    # It is overdue; how long it still takes nobody knows, nor does anybody of the whole.
    assert course.stage_left is None
    assert course.left is None


@pytest.mark.parametrize("there", [10, STEPS, 50])
def test_what_an_interrupted_run_had_done_is_not_taken_for_speed(there: int) -> None:
    clock = Clock()
    course = Course(clock)
    worked: dict[str, int] = {"Learning": 0, "Measuring": 0}
    seen = 0
    for step, left in study(clock, there=there):
        course.take(step)
        kind = step.stage.split()[0]
        if kind in worked and step.done and not step.resumed:
            worked[kind] += 1
        if course.left is None or left == 0:
            continue
        # The study's weights are three times off, in one direction or the other, until both kinds have been seen.
        known = all(worked.values()) and not step.stage.endswith(str(there // STEPS))
        low, high = (0.98, 1.02) if known else (0.3, 3.1)
        assert low < course.left / left < high
        seen += 1
    assert seen > STEPS


def test_stages_that_were_whole_already_cost_nothing() -> None:
    clock = Clock()
    course = Course(clock)
    ahead = {f"Training {i}": 1.0 for i in range(10)}
    course.take(Progress("Training 8", 0, 10, ahead=ahead))
    assert course.share == pytest.approx(0.8)
    assert course.left is None
    clock.now += 5
    course.take(Progress("Training 8", 5, 10))
    assert course.stage_left == pytest.approx(5)
    assert course.left == pytest.approx(15)


def test_work_that_was_taken_over_in_the_midst_of_a_stage() -> None:
    clock = Clock()
    course = Course(clock)
    course.take(Progress("Learning", 0, 100))
    clock.now += 2
    for done in (20, 40, 60):
        course.take(Progress("Learning", done, 100, "taken from the interrupted run", resumed=True))
    assert course.stage_left is None
    clock.now += 10
    course.take(Progress("Learning", 70, 100))
    assert course.stage_left == pytest.approx(30)


def test_nothing_is_said_of_the_whole_where_the_study_cannot() -> None:
    clock = Clock()
    course = Course(clock)
    for done in range(5):
        course.take(Progress("Running", done, 10))
        clock.now += 3
    assert course.share is None
    assert course.left is None
    # Three seconds have gone by since the last word.
    assert course.stage_left == pytest.approx(6 * 3 - 3)


def test_a_moment_is_no_evidence() -> None:
    clock = Clock()
    course = Course(clock)
    course.take(Progress("Learning", 0, 1000, ahead={"Learning": 1.0, "Measuring": 1.0}))
    clock.now += 0.01
    course.take(Progress("Learning", 10, 1000))
    assert course.stage_left is None
    assert course.left is None


def test_a_stage_between_that_was_not_announced_leaves_the_share_and_says_no_time() -> None:
    clock = Clock()
    course = Course(clock)
    course.take(Progress("Learning", 0, 10, ahead={"Learning": 1.0, "Measuring": 1.0}))
    clock.now += 10
    course.take(Progress("Learning", 10, 10))
    course.take(Progress("Writing", 0, 1))
    assert course.share == pytest.approx(0.5)
    assert course.left is None
    clock.now += 1
    course.take(Progress("Measuring", 0, 1))
    assert course.left == pytest.approx(10)
