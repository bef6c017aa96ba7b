"""Vision models: rows of patches, one for each place of each picture, the same as a plain hook reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from superscope.capture import HookSource, Images, harvest, load, sites, tokens
from superscope.core import ShapeError
from superscope.dictionaries import TopK, train
from superscope.studies.sites import Sites

from .architectures import make


def pictures(n: int = 7) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_rows_are_those_of_a_plain_hook_without_the_class_token(name: str) -> None:
    model = make(name)
    images = Images.fitted(model, pictures())
    assert (len(images), images.context, images.skip, images.n_tokens) == (7, 5, 1, 28)
    asked = sites(model, ["resid_post.0", "mlp_act.1"])
    read: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(site.path).register_forward_hook(
            lambda _, given, output, site=site: read.update({str(site): given[0] if site.io == "in" else output})
        )
        for site in asked
    ]
    with torch.no_grad():
        model(pixel_values=images.pixels)
    for handle in handles:
        handle.remove()
    found = list(harvest(model, asked, images, batch_tokens=15))
    assert [len(next(iter(batch.values()))) for batch in found] == [12, 12, 4]
    for site in asked:
        x = torch.cat([batch[site].x for batch in found])
        whole = read[str(site)].reshape(7, 5, -1)
        assert torch.allclose(x, whole[:, 1:].reshape(28, -1), atol=1e-5)
        places = torch.cat([batch[site].places for batch in found if batch[site].places is not None])
        assert places.tolist() == [[picture, position] for picture in range(7) for position in range(1, 5)]
        assert all(batch[site].tokens is None for batch in found)


def test_a_dictionary_learns_from_pictures_as_they_are_read() -> None:
    source = HookSource(make("vit"), "resid_post.1", Images.fitted(make("vit"), pictures(64)))
    assert len(source) == 256
    places = [batch.places for batch in source.batches(64, seed=1)]
    assert len(torch.cat([each for each in places if each is not None]).unique(dim=0)) == 256
    steps = list(train(TopK(d=source.d, n=32, k=4, seed=0), source, steps=30, batch=64, seed=0))
    explained = [step.numbers["fraction_variance_unexplained"] for step in steps]
    assert explained[-1] < explained[0]


def test_a_folder_with_a_vision_model_needs_no_tokenizer(tmp_path: Path) -> None:
    make("vit").save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert (loaded.kind, loaded.tokenizer) == ("encoder", None)
    assert "sites in 3 layers" in Sites(str(tmp_path)).run().title
    with pytest.raises(ValueError, match="reads pictures, not text"):
        tokens(loaded.tokenizer, ["some text"], context=8)


def test_pictures_that_do_not_fit() -> None:
    model = make("vit")
    with pytest.raises(ValueError, match="the pictures are 3 x 4 x 8 and ViTModel takes 3 x 8 x 8"):
        Images.fitted(model, torch.zeros(2, 3, 4, 8))
    with pytest.raises(ValueError, match="Linear is no vision model"):
        Images.fitted(nn.Linear(2, 2), pictures())
    with pytest.raises(ShapeError, match="1 names for 7 pictures"):
        Images(pictures(), 5, names=("one",))
    with pytest.raises(ValueError, match="leaves no patch"):
        Images(pictures(), context=5, skip=5)
    with pytest.raises(ValueError, match="cannot be packed"):
        harvest(model, ["resid_post.0"], Images.fitted(model, pictures()), packed=True)
    broken = pictures()
    broken[3, 0, 2, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="document 'picture 3'"):
        list(harvest(model, ["resid_post.0"], Images.fitted(model, broken)))
