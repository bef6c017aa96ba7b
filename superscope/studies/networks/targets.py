"""Which units are meant? Latents of a dictionary or a scan, coordinates of a site, or directions in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import FormatError, Report, SparseCoder, files
from ...intervene.maximising import AlongTarget, CoordinateTarget, LatentTarget, Target
from ..learning.reader import in_run
from .evaluate import coder_at
from .readings import TRAINED

_OFTEN = 5
"""Rows that a latent fires on, at least, to be drawn as one of a dictionary's."""


@dataclass(frozen=True, eq=False)
class Unit:
    """What is looked at, and what it is called.

    Args:
        label: "latent 12", "coordinate 3".
        target: what is read of x.
    """

    label: str
    target: Target


@dataclass(frozen=True, eq=False)
class Units:
    """How units are found once rows of the site are known.

    Args:
        coder: a dictionary, whose latents are meant.
        directions: rows of a file.
        asked: numbers of latents, coordinates or directions.
        offered: latents, the first of which are taken where none is asked for; those that fire, in an order drawn,
            without.
    """

    coder: SparseCoder | None = None
    directions: Float[Tensor, "m d"] | None = None
    asked: tuple[int, ...] = ()
    offered: tuple[int, ...] = ()

    def of(self, x: Float[Tensor, "rows d"], site: str, count: int, seed: int) -> list[Unit]:
        """The units at a site.

        Args:
            x: rows of it.
            site: it, in words.
            count: of those that are drawn, or taken.
            seed: of the draw.

        Raises:
            ValueError: if the site has no such unit.
        """
        d = x.shape[1]
        if self.directions is not None:
            numbers = self.asked or tuple(range(len(self.directions)))[:count]
            if max(numbers) >= len(self.directions):
                raise ValueError(
                    f"the file has directions 0 to {len(self.directions) - 1}; got {max(numbers)}. Give one of those."
                )
            units = [Unit(f"direction {number}", AlongTarget(self.directions[number])) for number in numbers]
        elif self.coder is not None:
            coder = self.coder
            LatentTarget(coder, 0).require(d, site)
            numbers = self.asked or self.offered[:count] or tuple(_firing(coder, x, count, seed))
            units = [Unit(f"latent {number}", LatentTarget(coder, number)) for number in numbers]
        else:
            drawn = torch.randperm(d, generator=torch.Generator().manual_seed(seed))[:count].tolist()
            units = [Unit(f"coordinate {number}", CoordinateTarget(number)) for number in self.asked or drawn]
        for unit in units:
            unit.target.require(d, site)
        return units


def scanned(path: str, model: str, site: str | None) -> tuple[Path, str, tuple[int, ...]] | None:
    """Of a scan's run folder a dictionary it learned, its site, and its latents, the most reliable first; else None.

    Raises:
        ValueError: if the scan is of another model, has no such site, or has several and none is named.
        FormatError: if it is not finished.
    """
    place = Path(path).expanduser()
    about = place / "about.json"
    if not about.is_file() or not (place / "saes").is_dir():
        return None
    settings = files.read_json(about).get("settings", {})
    if settings.get("model", model) != model:
        raise ValueError(f"the scan at {path} is of '{settings['model']}', and the model here is '{model}'. Name that.")
    report = Report.load(place)
    latents = report.tables["latents"]
    sites = list(dict.fromkeys(report.tables["sites"]["site"]))
    if site is None and len(sites) > 1:
        raise ValueError(f"the scan at {path} has dictionaries of {', '.join(sites)}. Name one with --site.")
    named = site or sites[0]
    if named not in sites:
        raise ValueError(f"the scan at {path} has no dictionary of {named}; it has those of {', '.join(sites)}.")
    columns = (latents[name] for name in ("latent", "site", "model"))
    numbers = tuple(int(i) for i, at, label in zip(*columns, strict=True) if at == named and label == TRAINED)
    return place / "saes" / TRAINED / named.replace(":", "-") / "seed0", named, numbers


def dictionary_of(path: str) -> SparseCoder:
    """The dictionary that a path names: a training's run folder, a saved one in any format, or one of the hub."""
    place, _ = in_run(path)
    return coder_at(path if path.startswith("hub:") else str(place))


def directions_in(path: str) -> Float[Tensor, "m d"]:
    """Directions from a `.npy` file, or the vectors and matrices of a `.safetensors` file, row by row.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it holds no vectors of one length.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"there is no file {path}. Give a .npy or .safetensors file of directions.")
    if place.suffix == ".npy":
        found: Sequence[Tensor] = [torch.from_numpy(files.read_array(place))]
    else:
        found = list(files.read_tensors(place).values())
    rows = [each.float().reshape(-1, each.shape[-1]) for each in found if each.ndim in (1, 2)]
    if not rows or len({row.shape[1] for row in rows}) > 1 or not all(bool(row.isfinite().all()) for row in rows):
        raise FormatError(f"{path} holds no directions of one length, all finite. Give vectors [d] or matrices [m, d].")
    return torch.cat(rows)


@torch.no_grad()
def _firing(coder: SparseCoder, x: Tensor, count: int, seed: int) -> list[int]:
    """Latents that fire on some rows, drawn."""
    fired = torch.zeros(coder.dictionary.n, dtype=torch.int64)
    for part in x.to(coder.dictionary.atoms.dtype).split(4096):
        code = coder.encode(part)
        fired += code.uses.cpu()
    firing = (fired >= _OFTEN).nonzero()[:, 0]
    if not len(firing):
        raise ValueError(
            f"no latent of the dictionary fires on {_OFTEN} of {len(x):,} rows, so none can be drawn. Was it learned "
            "at this site? Name latents with --units to look at them all the same."
        )
    order = torch.randperm(len(firing), generator=torch.Generator().manual_seed(seed))[:count]
    return firing[order].tolist()
