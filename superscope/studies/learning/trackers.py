"""The curve of a run, written as it grows to a package that draws such curves."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...core import Run

Name: TypeAlias = Literal["none", "tensorboard", "wandb", "trackio"]


class Tracker:
    """Takes the curve nowhere; the others take it to a package of their own."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of one step."""

    def close(self) -> None:
        """Whatever is still held back is written."""


class _Tensorboard(Tracker):
    """Event files in the folder `tensorboard` of the run, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed run wrote beyond its last checkpoint is made again, so the reader is told to drop it.
        self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Hosted(Tracker):
    """wandb, and trackio, which has the same functions: one project, a run for each run folder, taken up again."""

    def __init__(self, package: str, run: Run, settings: Mapping[str, Any]) -> None:
        self.package: Any = importlib.import_module(package)
        about: dict[str, Any] = {"project": "superscope", "config": dict(settings)}
        if run.path is not None:
            # A folder's name may be used twice, and so may its place; not with the time it was begun.
            begun = f"{run.path.resolve()} {run.created}"
            identity = hashlib.sha256(begun.encode()).hexdigest()[:12]
            about |= {"name": f"{run.path.name}-{identity}", "resume": "allow"}
            if package == "wandb":
                about |= {"id": identity, "dir": str(run.path)}
        self.package.init(**about)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.package.log(dict(numbers), step=step)

    def close(self) -> None:
        self.package.finish()


def open_tracker(name: Name, run: Run, settings: Mapping[str, Any], *, done: int = 0) -> Tracker:
    """The tracker of that name, "none" for one that does nothing.

    Args:
        name: of the tracker; its package is an extra of the same name.
        run: whose folder, if it has one, is where a tracker writes.
        settings: what the run is, shown beside its curve.
        done: steps already made, where a run goes on.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    if name == "none":
        return Tracker()
    try:
        if name == "tensorboard":
            return _Tensorboard((run.path or Path("runs")) / "tensorboard", done)
        return _Hosted(name, run, settings)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"--tracker {name} needs the package {name}: pip install {name}.") from error
