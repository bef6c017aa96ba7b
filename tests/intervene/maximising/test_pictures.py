"""Pictures climbed to, where the best one is known: a linear unit's weights, and nothing of a unit that is constant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from superscope.capture import sites
from superscope.core import Site, result_of
from superscope.intervene.maximising import (
    AlongTarget,
    Ball,
    CoordinateTarget,
    PictureReader,
    Range,
    Spectrum,
    maximise_pictures,
)


def vit(channels: int = 1, size: int = 8, patch: int = 8) -> Any:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=size,
        patch_size=patch, num_channels=channels,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.ViTModel(config, add_pooling_layer=False).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_linear_unit_is_its_weights(channels: int) -> None:
    # w.x + b within a ball of radius r: at most |w| r + b, at x = r w / |w|.
    model = vit(channels)
    weight: Tensor = model.embeddings.patch_embeddings.projection.weight.detach()[5]
    bias = float(model.embeddings.patch_embeddings.projection.bias.detach()[5])
    reader = PictureReader(model, Site("embeddings.patch_embeddings"), CoordinateTarget(5), patches=1)
    made = result_of(maximise_pictures(reader, Spectrum(channels, 8, 8), Ball(3.0), jitter=0, steps=200))
    most = 3.0 * float(weight.norm())
    assert bool((made.read.value - bias >= 0.99 * most).all())
    assert bool((made.read.value - bias <= most * (1 + 1e-4)).all())
    cosines = torch.nn.functional.cosine_similarity(made.pixels.flatten(1), weight.flatten()[None])
    assert bool((cosines >= 0.99).all())
    assert made.climb[0].mean() < made.climb[-1].mean()


def test_pixels_keep_their_range_and_ascent_beats_noise() -> None:
    model = vit(3, 16, 4)
    (site,) = sites(model, ["mlp_act.1"])
    reader = PictureReader(model, site, CoordinateTarget(7), patches=16)
    low, high = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 0.5, 3.0])
    spectrum, constraint = Spectrum(3, 16, 16), Range(low, high)
    made = result_of(maximise_pictures(reader, spectrum, constraint, steps=100))
    for channel in range(3):
        assert float(made.pixels[:, channel].min()) >= float(low[channel])
        assert float(made.pixels[:, channel].max()) <= float(high[channel])
    noise = constraint(spectrum.picture(spectrum.drawn(made.evaluations, torch.Generator().manual_seed(1))))
    assert float(made.read.value.min()) > float(reader.read(noise).value.max())
    assert torch.allclose(reader.read(made.pixels).value, made.read.value)
    again = result_of(maximise_pictures(reader, spectrum, constraint, steps=100))
    assert torch.equal(again.pixels, made.pixels)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_constant_is_not_raised() -> None:
    model = vit(1, 8, 4)
    reader = PictureReader(model, Site("layers.1"), AlongTarget(torch.zeros(16)), patches=4)
    made = result_of(maximise_pictures(reader, Spectrum(1, 8, 8), Ball(1.0), steps=10))
    assert not made.read.value.any()


def test_the_best_patch_and_outliers() -> None:
    model = vit(1, 8, 4)
    (site,) = sites(model, ["resid_post.1"])
    pixels = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    mean, best = (PictureReader(model, site, CoordinateTarget(0), 4, best=best).read(pixels) for best in (False, True))
    assert bool((best.value >= mean.value).all())
    assert set(best.patch.tolist()) <= {0, 1, 2, 3}
    lost = PictureReader(model, site, CoordinateTarget(0), 4, limit=0.0).read(pixels)
    assert bool(lost.value.isnan().all())
    with pytest.raises(ValueError, match="its positions are no patches"):
        PictureReader(model, site, CoordinateTarget(0), 9).read(pixels)


def test_white_coefficients_give_pixels_of_variance_one_with_the_spectrum_and_colours_asked_for() -> None:
    g = torch.Generator().manual_seed(0)
    mixed = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    photographs = torch.einsum("ij,sjhw->sihw", mixed, torch.randn(400, 2, 8, 8, generator=g))
    colours = Spectrum.correlated(photographs)
    for spectrum in (Spectrum(2, 8, 8, colours=colours), Spectrum(2, 7, 9, decay=0.0, colours=colours)):
        z = spectrum.picture(spectrum.drawn(4000, g))
        assert float(z.var()) == pytest.approx(1.0, abs=0.05)
        rows = z.transpose(0, 1).flatten(1)
        assert float(torch.corrcoef(rows)[0, 1]) == pytest.approx(0.8, abs=0.05)
    power = torch.fft.rfft2(Spectrum(1, 16, 16).picture(Spectrum(1, 16, 16).drawn(2000, g))).abs().square().mean(0)[0]
    assert float(power[0, 1] / power[0, 4]) == pytest.approx(16.0, rel=0.15)


def test_what_cannot_be_climbed() -> None:
    reader = PictureReader(vit(), Site("layers.1"), CoordinateTarget(0), 1)
    for settings in ({"starts": 0}, {"steps": 0}, {"jitter": 8}):
        with pytest.raises(ValueError, match=r"jitter in 0\.\.7"):
            result_of(maximise_pictures(reader, Spectrum(1, 8, 8), Ball(1.0), **settings))


def test_a_model_of_ones_own() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(4, 3)

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.read(pixel_values.flatten(2).transpose(1, 2).flatten(1)[:, None])

    reader = PictureReader(Own(), Site("read"), CoordinateTarget(1), patches=1)
    made = result_of(maximise_pictures(reader, Spectrum(1, 2, 2), Ball(1.0), jitter=0, starts=2))
    own: Any = reader.model
    assert float(made.read.value[0] - own.read.bias.detach()[1]) == pytest.approx(
        float(own.read.weight.detach()[1].norm()), rel=0.01
    )
