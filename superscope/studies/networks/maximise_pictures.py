"""One unit of a vision model: its strongest real picture, the pictures climbed to, and the best of noise."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ... import capture
from ...capture import Images, Subject
from ...capture.reading.harvest import harvest
from ...core import FormatError, Site, files
from ...intervene.maximising import PictureReader, Range, Spectrum, maximise_pictures
from .maximise_prompts import cell, moves
from .targets import Unit

_TOGETHER = 256
SHOWN = ("maximised", "strongest real", "best noise")
"""What stands in an array of pictures, in this order."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """A site of a vision model, with what real pictures give there.

    Args:
        subject, site: where.
        images: real ones; None where none were given.
        x: rows at the site, of real pictures or of noise.
        spectrum, bounds: what pictures are made of and held to.
        patches: of a picture.
        limit: the norm above which a patch is an outlier.
        best: whether the best patch is read, or the mean of all.
    """

    subject: Subject
    site: Site
    images: Images | None
    x: Float[Tensor, "rows d"]
    spectrum: Spectrum
    bounds: Range
    patches: int
    limit: float
    best: bool

    @classmethod
    def of(cls, subject: Subject, site: Site, images: Images | None, *, best: bool, seed: int) -> Pictures:
        """Reads real pictures, or noise where there are none, at the site.

        Raises:
            ValueError: if the model does not say how large its pictures and patches are.
        """
        channels, height, width, patches = shape_of(subject)
        if images is None:
            spectrum = Spectrum(channels, height, width)
            bounds = Range(torch.full((channels,), -1.0), torch.full((channels,), 1.0))
            noise = bounds(spectrum.picture(spectrum.drawn(64, torch.Generator().manual_seed(seed))))
            read, limit = capture.fitted_images(subject.model, noise), float("inf")
        else:
            pixels = images.pixels
            spectrum = Spectrum(channels, height, width, colours=Spectrum.correlated(pixels))
            bounds = Range(pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3)))
            read = images
            limit = capture.outlier_limits(subject.model, (site,), images)[site]
        x = torch.cat([batch[site].x.cpu() for batch in harvest(subject.model, [site], read)])
        x = x[x.norm(dim=1) <= limit]
        return cls(subject, site, images, x, spectrum, bounds, patches, limit, best)


def shape_of(subject: Subject) -> tuple[int, int, int, int]:
    """(channels, height, width, patches) of the pictures a model reads.

    Raises:
        ValueError: if it does not say.
    """
    config: Any = subject.model.config
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    sides: list[Any] = [
        one for each in (size, patch) for one in (each if isinstance(each, (list, tuple)) else (each, each))
    ]
    if not all(isinstance(one, int) and one > 0 for one in sides):
        raise ValueError(
            f"'{subject.name}' does not say how large its pictures and patches are (image_size {size}, patch_size "
            f"{patch}), so none can be made. Write both into its config.json."
        )
    height, width, rows, columns = (int(side) for side in sides)
    return int(getattr(config, "num_channels", 3)), height, width, (height // rows) * (width // columns)


def real_pictures(subject: Subject, path: str) -> Images:
    """Pictures of a folder, as the model's own processor prepares them, or of a `.npy` file as the model wants them.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        FormatError: if the file holds no pictures.
        ValueError: if they are of another size than the model reads.
    """
    place = Path(path).expanduser()
    if place.suffix == ".npy":
        if not place.is_file():
            raise FileNotFoundError(f"there is no file {path}. Give a .npy file of pictures, or a folder of them.")
        pixels = torch.from_numpy(files.read_array(place)).float()
        if pixels.ndim != 4 or not len(pixels):
            raise FormatError(
                f"{path} holds {tuple(pixels.shape)} where pictures are (count, channels, height, width)."
            )
        return capture.fitted_images(subject.model, pixels)
    parts = list(capture.pictures(subject.model, subject.name, path))
    names = tuple(name for part in parts for name in part.names)
    return Images(torch.cat([part.pixels for part in parts]), parts[0].context, parts[0].skip, names)


@dataclass(frozen=True)
class Ascent:
    """How pictures are climbed to: see `maximise_pictures`."""

    starts: int
    steps: int
    rate: float
    jitter: int
    seed: int


def climbed(unit: Unit, given: Pictures, how: Ascent) -> Generator[int, None, tuple[dict[str, Any], Tensor]]:
    """All that is found of one unit, as JSON has it, and its pictures in the order of SHOWN; yields steps done."""
    reader = PictureReader(given.subject.model, given.site, unit.target, given.patches, given.best, given.limit)
    generator = torch.Generator().manual_seed(how.seed + 1)
    noise = given.bounds(given.spectrum.picture(given.spectrum.drawn(_TOGETHER, generator)))
    probe = reader.read(noise)
    real = None if given.images is None else reader.read(given.images.pixels)
    seen = probe if real is None else real
    nothing = torch.zeros(len(SHOWN), *noise.shape[1:])
    found: dict[str, Any] = {
        "label": unit.label,
        "mean": float(seen.value.nanmean()),
        "strongest": None if real is None else float(real.value.nan_to_num(-torch.inf).max()),
        "rows": 0 if given.images is None else len(given.images),
        "moves": moves(probe.value, probe.score) or moves(seen.value, seen.score),
        "evaluations": 0,
        "shown": [],
        "climb": {},
        "starts": [],
    }
    if not found["moves"]:
        return found, nothing
    made = yield from maximise_pictures(
        reader,
        given.spectrum,
        given.bounds,
        starts=how.starts,
        steps=how.steps,
        rate=how.rate,
        jitter=how.jitter,
        seed=how.seed,
    )
    best = int(made.read.score.argmax())
    top = int(probe.score.argmax())
    noisiest, read, score = noise[[top]], (probe.value[top], int(probe.patch[top])), float(probe.score[top])
    for _ in range(_TOGETHER, made.evaluations, _TOGETHER):
        some = given.bounds(given.spectrum.picture(given.spectrum.drawn(_TOGETHER, generator)))
        more = reader.read(some)
        at = int(more.score.argmax())
        if float(more.score[at]) > score:
            noisiest, read, score = some[[at]], (more.value[at], int(more.patch[at])), float(more.score[at])
    found["evaluations"] = made.evaluations
    found["starts"] = [value for value in map(cell, made.read.value) if value is not None]
    found["climb"] = {"step": list(made.steps), "value": [list(map(cell, values)) for values in made.climb]}
    found["shown"].append(
        {"what": SHOWN[0], "value": cell(made.read.value[best]), "patch": int(made.read.patch[best]), "name": ""}
    )
    pictures = [made.pixels[best], torch.zeros_like(made.pixels[best]), noisiest[0]]
    if real is not None and given.images is not None:
        at = int(real.score.argmax())
        pictures[1] = given.images.pixels[at]
        found["shown"].append(
            {"what": SHOWN[1], "value": cell(real.value[at]), "patch": int(real.patch[at])}
            | {"name": given.images.names[at]}
        )
    found["shown"].append({"what": SHOWN[2], "value": cell(read[0]), "patch": read[1], "name": ""})
    return found, torch.stack([one.float() for one in pictures])
