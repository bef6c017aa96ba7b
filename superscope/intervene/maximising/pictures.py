"""Which picture makes a unit largest? Gradient ascent on the spectrum of a picture, within a range or a ball."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...capture.models.facts import device_of, evaluating
from ...capture.reading.hooks import narrowed, visiting
from ...core import Site
from ..fisher import frozen
from .target import Target, require_rows

_FAINT = 0.1
"""Contrast of the pictures that ascent begins at, in those of noise pictures."""
_EVERY = 10
_TOGETHER = 64


class Constraint(Protocol):
    """What pictures there are: any numbers in, such a picture out."""

    def __call__(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]: ...


@dataclass(frozen=True, eq=False)
class Range:
    r"""$\mathrm{low} + (\mathrm{high} - \mathrm{low})\,\sigma(z)$: every pixel between two bounds.

    Args:
        low, high: of each channel, as the model is given pixels.
    """

    low: Float[Tensor, "c"]
    high: Float[Tensor, "c"]

    def __call__(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        low, high = self.low.to(z)[:, None, None], self.high.to(z)[:, None, None]
        return low + (high - low) * z.sigmoid()


@dataclass(frozen=True)
class Ball:
    r"""$r z / \|z\|$: pictures of one length.

    Args:
        radius: r.
    """

    radius: float

    def __call__(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.radius * z / z.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""Pictures by their coefficients, $z = C\, F^{-1}(c_\nu / \max(\nu, \nu_1)^{\mathrm{decay}})$.

    White coefficients give noise with the spectrum of photographs and, by C, with colours as correlated as theirs: a
    step of ascent then goes along what varies in pictures, where a step in pixels goes to the highest frequencies.
    Coefficients of variance 1 give pixels of variance 1.

    Args:
        channels, height, width: of the pictures.
        decay: 1 for 1/f amplitudes, 0 for white noise.
        colours: C, the root of the channels' correlation; none are correlated without it.

    Source:
        Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017: preconditioning.
    """

    channels: int
    height: int
    width: int
    decay: float = 1.0
    colours: Float[Tensor, "c c"] | None = None
    weights: Float[Tensor, "h v"] = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = torch.fft.fftfreq(self.height)[:, None], torch.fft.rfftfreq(self.width)[None]
        lowest = 1 / max(self.height, self.width)
        weights = (rows.square() + columns.square()).sqrt().clamp(min=lowest) ** -self.decay
        # Columns stand for their mirror images too, but for the first and the last of an even width: of those only the
        # real part of what they say reaches the picture, half their power.
        counted = torch.full((weights.shape[1],), 2.0)
        counted[0] = 0.5
        if self.width % 2 == 0:
            counted[-1] = 0.5
        power = float((weights.square() * counted).sum()) / (self.height * self.width)
        object.__setattr__(self, "weights", weights / power**0.5)

    def drawn(self, count: int, generator: torch.Generator) -> Float[Tensor, "b c h v 2"]:
        """White coefficients."""
        shape = (count, self.channels, *self.weights.shape, 2)
        return torch.randn(shape, generator=generator) / 2**0.5

    def picture(self, coefficients: Float[Tensor, "b c h v 2"]) -> Float[Tensor, "b c h w"]:
        """z of coefficients."""
        spectrum = torch.view_as_complex(coefficients.contiguous()) * self.weights.to(coefficients)
        z = torch.fft.irfft2(spectrum, s=(self.height, self.width), norm="ortho")
        return z if self.colours is None else torch.einsum("ij,bjhw->bihw", self.colours.to(z), z)

    @staticmethod
    def correlated(pixels: Float[Tensor, "s c h w"]) -> Float[Tensor, "c c"]:
        """The root of the correlation of channels in some pictures, of variance 1 in each."""
        rows = pixels.double().transpose(0, 1).flatten(1)
        deviation = rows.std(1).clamp(min=1e-12)
        covariance = torch.atleast_2d(torch.cov(rows)) / deviation[:, None] / deviation[None]
        values, vectors = torch.linalg.eigh(covariance)
        return (vectors * values.clamp(min=0).sqrt() @ vectors.T).float()


@dataclass(frozen=True, eq=False)
class ReadPictures:
    """What was read of pictures.

    Args:
        value: of the target, at the best patch or in the mean of all; NaN where every patch is an outlier.
        score: the same of what is climbed, minus infinity there.
        patch: the best one.
    """

    value: Float[Tensor, "b"]
    score: Float[Tensor, "b"]
    patch: Int[Tensor, "b"]


@dataclass(frozen=True, eq=False)
class PictureReader:
    """A target at a site of a vision model, read of pictures.

    Args:
        model: takes `pixel_values`.
        site: where x is read.
        target: what is read of x.
        patches: that a picture has; positions before them (a class token, registers) are not read.
        best: read the best patch; the mean of all otherwise.
        limit: the norm above which a patch is an outlier, and not read.
    """

    model: nn.Module
    site: Site
    target: Target
    patches: int
    best: bool = False
    limit: float = float("inf")

    @torch.no_grad()
    def read(self, pixels: Float[Tensor, "b c h w"]) -> ReadPictures:
        """The target on pictures as they are."""
        parts = [self._read(some) for some in pixels.split(_TOGETHER)]
        return ReadPictures(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def climbed(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
        """What ascent climbs, with gradients to the pixels."""
        rows, outlying = self._rows(pixels)
        slope = self.target.slope(rows)
        if self.best:
            return slope.masked_fill(outlying, -torch.inf).amax(1)
        return _mean(slope, outlying)

    def _read(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, outlying = self._rows(pixels)
        value = self.target.value(rows)
        score = self.target.score(rows)
        at = score.masked_fill(outlying, -torch.inf).argmax(1)
        each = torch.arange(len(rows), device=at.device)
        lost = outlying.all(1)
        if self.best:
            value, score = value[each, at], score[each, at]
        else:
            value, score = _mean(value, outlying), _mean(score, outlying)
        value, score = value.masked_fill(lost, torch.nan), score.masked_fill(lost, -torch.inf)
        return value.double().cpu(), score.double().cpu(), at.cpu()

    def _rows(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """x at the patches, and which are outliers."""
        seen: list[Tensor] = []
        model: Any = self.model
        parameter = next(model.parameters())

        def look(site: Site, x: Tensor) -> None:
            seen.append(narrowed(x, site))

        with evaluating(model), visiting(model, self.site, look):
            model(pixel_values=pixels.to(device=device_of(model), dtype=parameter.dtype))
        rows = require_rows(seen[0], self.site, len(pixels)).float()
        if rows.shape[1] < self.patches:
            raise ValueError(
                f"{self.site} holds {rows.shape[1]} positions of a picture of {self.patches} patches, so its positions "
                "are no patches; choose another site."
            )
        rows = rows[:, rows.shape[1] - self.patches :]
        return rows, rows.detach().norm(dim=-1) > self.limit


def _mean(values: Float[Tensor, "b p"], outlying: Bool[Tensor, "b p"]) -> Float[Tensor, "b"]:
    """The mean of the patches that are no outliers; 0 where all are."""
    return values.masked_fill(outlying, 0).sum(1) / (~outlying).sum(1).clamp(min=1)


@dataclass(frozen=True, eq=False)
class MaximisedPictures:
    """The best picture of each start.

    Args:
        pixels: as the model is given them.
        read: what was read of them, unmoved.
        steps: at which ascent was looked at.
        climb: the value then, of each start.
        evaluations: passes of the model over one picture: two more for each slope.
    """

    pixels: Float[Tensor, "s c h w"]
    read: ReadPictures
    steps: tuple[int, ...]
    climb: Float[Tensor, "checks s"]
    evaluations: int


def maximise_pictures(
    reader: PictureReader,
    spectrum: Spectrum,
    constraint: Constraint,
    *,
    starts: int = 4,
    steps: int = 200,
    rate: float = 0.05,
    jitter: int = 1,
    seed: int = 0,
) -> Generator[int, None, MaximisedPictures]:
    r"""The picture that maximises the target, climbed to from several faint noise pictures; yields steps done.

    Adam on Fourier coefficients (see `Spectrum`), the picture moved by up to `jitter` pixels at random in each step, so
    that what is found does not hang on where its pixels fall. Every tenth step the pictures are read unmoved, and each
    start keeps its best. What is climbed is the target's slope; what is kept is judged by its value.

    Args:
        reader: model, site and target.
        spectrum: of the pictures' size.
        constraint: `Range` or `Ball`.
        starts: pictures climbed side by side.
        steps, rate: of Adam.
        jitter: in pixels; 0 for none.
        seed: of starts and moves.

    Raises:
        ValueError: if starts or steps is below 1, or jitter below 0 or as large as the picture.

    Source:
        Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017. Erhan et al., "Visualizing higher-layer
        features of a deep network", 2009: ascent under a bound on the norm.
    """
    most = min(spectrum.height, spectrum.width) - 1
    if starts < 1 or steps < 1 or not 0 <= jitter <= most:
        raise ValueError(
            f"maximise_pictures: starts and steps must be at least 1, jitter in 0..{most}; got {starts}, {steps} and "
            f"{jitter}."
        )
    generator = torch.Generator().manual_seed(seed)
    device = device_of(reader.model)
    coefficients = (_FAINT * spectrum.drawn(starts, generator)).to(device).requires_grad_()
    adam = torch.optim.Adam([coefficients], lr=rate)
    best, kept, looked, climb = _Kept(starts), None, list[int](), list[Tensor]()
    for step in range(steps + 1):
        with torch.enable_grad(), frozen(reader.model):
            pixels = constraint(spectrum.picture(coefficients))
            if step % _EVERY == 0 or step == steps:
                read = reader.read(pixels.detach())
                kept = best.take(read, pixels.detach())
                looked.append(step)
                climb.append(read.value)
            if step == steps:
                break
            (slope,) = torch.autograd.grad(-reader.climbed(_moved(pixels, jitter, generator)).sum(), coefficients)
        coefficients.grad = slope
        adam.step()
        yield step + 1
    assert kept is not None
    evaluations = starts * (3 * steps + len(looked))
    return MaximisedPictures(*kept, tuple(looked), torch.stack(climb), evaluations)


class _Kept:
    """Of each start the best picture so far."""

    def __init__(self, starts: int) -> None:
        self.score = torch.full((starts,), -torch.inf, dtype=torch.float64)
        self.pixels: Tensor | None = None
        self.value, self.patch = torch.full_like(self.score, torch.nan), torch.zeros(starts, dtype=torch.int64)

    def take(self, read: ReadPictures, pixels: Tensor) -> tuple[Tensor, ReadPictures]:
        pixels = pixels.cpu()
        better = read.score > self.score
        self.pixels = pixels if self.pixels is None else torch.where(better[:, None, None, None], pixels, self.pixels)
        self.score, self.value = (
            torch.where(better, read.score, self.score),
            torch.where(better, read.value, self.value),
        )
        self.patch = torch.where(better, read.patch, self.patch)
        return self.pixels, ReadPictures(self.value, self.score, self.patch)


def _moved(pixels: Tensor, jitter: int, generator: torch.Generator) -> Tensor:
    """The pictures moved by up to so many pixels, edges repeated."""
    if not jitter:
        return pixels
    down, right = (int(one) for one in torch.randint(2 * jitter + 1, (2,), generator=generator))
    padded = torch.nn.functional.pad(pixels, (jitter,) * 4, mode="replicate")
    return padded[..., down : down + pixels.shape[-2], right : right + pixels.shape[-1]]
