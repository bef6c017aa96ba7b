"""Vision models: rows of patches, one for each place of each picture, the same as a plain hook reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from superscope import capture
from superscope.capture import HookSource, Images, Policy, StoreSource, fitted_images, harvest, load, sites, tokens
from superscope.core import ShapeError
from superscope.dictionaries import TopK, train
from superscope.studies import Harvest
from superscope.studies.networks.sites import Sites

from ..architectures import make


def pictures(n: int = 7) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_rows_are_those_of_a_plain_hook_without_the_class_token(name: str) -> None:
    model = make(name)
    images = fitted_images(model, pictures())
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
    source = HookSource(make("vit"), "resid_post.1", fitted_images(make("vit"), pictures(64)))
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
        fitted_images(model, torch.zeros(2, 3, 4, 8))
    with pytest.raises(ValueError, match="Linear is no vision model"):
        fitted_images(nn.Linear(2, 2), pictures())
    with pytest.raises(ShapeError, match="1 names for 7 pictures"):
        Images(pictures(), 5, names=("one",))
    with pytest.raises(ValueError, match="leaves no patch"):
        Images(pictures(), context=5, skip=5)
    with pytest.raises(ValueError, match="cannot be packed"):
        harvest(model, ["resid_post.0"], fitted_images(model, pictures()), packed=True)
    broken = pictures()
    broken[3, 0, 2, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="document 'picture 3'"):
        list(harvest(model, ["resid_post.0"], fitted_images(model, broken)))


# --- a store of pictures ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    make("vit").save_pretrained(folder)
    size = {"height": 8, "width": 8}
    transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for i in range(11):
        colours = np.random.default_rng(i).integers(0, 256, (9 + i, 13, 3), dtype=np.uint8)
        name = f"more/{i:02d}.png" if i % 2 else f"{i:02d}.bmp"
        Image.fromarray(colours).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_are_kept_as_text_is(vision_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    options = {"images": str(picture_folder), "sites": ("resid_post.1", "mlp_act.0"), "dtype": "float32"}
    study = Harvest(str(vision_folder), per_unit=3, compute="float32", batch_tokens=10, **options)
    report = study.run(tmp_path / "run")
    assert report["rows"][0].value == 11 * 4
    store = capture.Store(tmp_path / "run" / "store")
    assert store.manifest.n_units == 4
    assert store.missing(verify=True) == []
    loaded = capture.load(str(vision_folder))
    (images,) = capture.pictures(loaded.model, loaded.name, picture_folder)
    assert images.names[0] == "00.bmp"
    assert images.names[-1] == "more/09.png"
    site = capture.sites(loaded.model, ["resid_post.1"])[0]
    (whole,) = capture.harvest(loaded.model, [site], images, batch_tokens=1000)
    rows = {tuple(place): x for x, place in zip(whole[site].x, whole[site].places.tolist(), strict=True)}
    source = StoreSource(store, site="resid_post.1")
    seen = 0
    for batch, origin in zip(source.batches(4, seed=0), source.origins(4, seed=0), strict=True):
        for x, (token, picture, patch, window, position) in zip(batch.x, origin.tolist(), strict=True):
            assert (token, picture, patch) == (-1, window, position - 1)
            # Batches of other sizes end in other last bits.
            assert torch.allclose(x, rows[window, position], atol=1e-5)
            seen += 1
    assert seen == 44
    # The same command finds all of it there; others are refused by name.
    before = {record.file for record in store.records()}
    again = Harvest(str(vision_folder), per_unit=3, batch_tokens=10, store=str(store.place), **options)
    again.run()
    assert {record.file for record in store.records()} == before
    few = Harvest(str(vision_folder), images=str(picture_folder), tokens=6, store=str(tmp_path / "few")).run()
    assert few["rows"][0].value == 8
    assert any("a batch took" in finding for finding in few.findings)
    with pytest.raises(ValueError, match="already holds the windows of another text: source"):
        Harvest(str(vision_folder), images=str(picture_folder / "more"), store=str(store.place)).run()


def test_pictures_are_cut_at_the_patches_asked_for(vision_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    loaded = capture.load(str(vision_folder))
    read = capture.pictures(loaded.model, loaded.name, picture_folder, batch=4)
    counts = list(capture.write_images(capture.place(tmp_path), read, Policy(), source="pictures", limit=21))
    assert counts == [16, 24, 24]
    windows = capture.Windows(capture.place(tmp_path))
    assert (len(windows), windows.n_tokens, windows.policy.context) == (6, 24, 5)
    some, number = windows.take(torch.tensor([5, 0, 4]))
    assert number.tolist() == [5, 0, 4]
    (images,) = capture.pictures(loaded.model, loaded.name, picture_folder)
    assert torch.equal(some.pixels, images.take(number).pixels)
    assert some.names == tuple(images.names[i] for i in (5, 0, 4))


def test_pictures_that_cannot_be_read(vision_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads pictures and no text; give a folder of them with --images"):
        Harvest(str(vision_folder)).run(tmp_path / "run")
    with pytest.raises(ValueError, match="give one of --text and --images"):
        Harvest(str(vision_folder), images="a", text="b")
    model = make("vit")
    with pytest.raises(FileNotFoundError, match="pictures: there are none in"):
        list(capture.pictures(model, str(vision_folder), tmp_path / "nothing"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png' cannot be read as a picture"):
        list(capture.pictures(model, str(vision_folder), tmp_path))
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"comes without preprocessor_config\.json"):
        list(capture.pictures(model, str(tmp_path / "model"), tmp_path))
    with pytest.raises(ValueError, match="there are no pictures"):
        list(capture.write_images(capture.place(tmp_path / "empty"), [], Policy(), source="none"))
