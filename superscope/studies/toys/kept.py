"""Training that survives being stopped: the state of an ensemble, kept in the run folder as it goes."""

from __future__ import annotations

from collections.abc import Iterator

from ...core import Run
from ...toys import Ensemble, EnsembleStep, Recipe, train

_SAVES = 5


def kept_training(
    run: Run, name: str, ensemble: Ensemble, recipe: Recipe, *, every: int, last: int | None = None
) -> Iterator[EnsembleStep]:
    """`toys.train`, from where the run folder has this ensemble, and kept there five times on the way.

    The ensemble is taken up at once, before the first step is asked for. One that was trained to its end before is
    taken up as it ended, and nothing is yielded.

    Args:
        run: keeps it.
        name: of the file, without ending; another for each ensemble of a study.
        ensemble: is trained in place.
        recipe: how.
        every: steps between two yields.
        last: stop here instead of at `recipe.steps`; a yielded step.
    """
    run.kept(f"{name}.safetensors", ensemble.restore)
    return _steps(run, name, ensemble, recipe, every, recipe.steps if last is None else last)


def _steps(run: Run, name: str, ensemble: Ensemble, recipe: Recipe, every: int, last: int) -> Iterator[EnsembleStep]:
    saved = ensemble.step
    for step in train(ensemble, recipe, every=every):
        # Not where the caller stops early: what it makes of that step is its own to keep.
        due = step.index < last and (step.index - saved) * _SAVES >= last
        if due or step.index == recipe.steps:
            keep(run, name, ensemble)
            saved = step.index
        yield step
        if step.index >= last:
            return


def keep(run: Run, name: str, ensemble: Ensemble) -> None:
    """Writes where an ensemble stands, for `kept_training` to take up."""
    run.keep(f"{name}.safetensors", ensemble.save)
