"""Which pictures does a vision model read? Those of a folder, as its own processor prepares them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..inputs.images import Images
from ..models.facts import device_of, evaluating
from ..models.load import quiet
from ..models.roles import blocks
from .hooks import Capture

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def fitted_images(model: nn.Module, pixels: Float[Tensor, "S c h w"], names: Sequence[str] = ()) -> Images:
    """Pictures for `model`, whose config says how large they and their patches are.

    A class token, and registers where there are some, are what the model's stream holds beyond the patches.

    Raises:
        ValueError: if the model reads no pictures, or others than these.

    Example:
        >>> import torch, transformers
        >>> shape = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, image_size=8, patch_size=4)
        >>> images = fitted_images(transformers.ViTModel(shape), torch.zeros(3, 3, 8, 8))
        >>> len(images), images.context, images.skip
        (3, 5, 1)
    """
    config: Any = getattr(model, "config", None)
    if getattr(model, "main_input_name", "") != "pixel_values" or getattr(config, "patch_size", None) is None:
        raise ValueError(f"Images: {type(model).__name__} is no vision model that reads pictures by patches.")
    size, patch = _pair(getattr(config, "image_size", 0)), _pair(config.patch_size)
    wanted = (int(getattr(config, "num_channels", 3)), *size)
    if tuple(pixels.shape[1:]) != wanted:
        raise ValueError(
            f"Images: the pictures are {' x '.join(map(str, pixels.shape[1:]))} and {type(model).__name__} takes "
            f"{' x '.join(map(str, wanted))} (channels, height, width); prepare them with the model's processor."
        )
    patches = (size[0] // patch[0]) * (size[1] // patch[1])
    context = _positions(model, pixels[:1])
    if context < patches:
        raise ValueError(
            f"Images: {type(model).__name__} makes {context} positions of {patches} patches, so its positions are "
            "no patches; give Images(pixels, context, skip) yourself."
        )
    return Images(pixels, context, context - patches, tuple(names))


def pictures(model: nn.Module, name: str, folder: str | Path, *, batch: int = 64) -> Iterator[Images]:
    """The pictures in a folder and its folders, in the order of their paths, as a model's own processor prepares them.

    Args:
        model: a vision model.
        name: of the model, a folder or the hub's name, where its processor is.
        folder: of PNG, JPEG and what else Pillow reads by these endings: .bmp, .gif, .ppm, .tif, .webp.
        batch: pictures that are held at a time.

    Raises:
        FileNotFoundError: if there is no such folder, no picture in it, or no processor with the model.
        ValueError: if a picture is damaged.
        ModuleNotFoundError: if Pillow is not installed.
    """
    root = Path(folder).expanduser()
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in _ENDINGS) if root.is_dir() else []
    if not files:
        raise FileNotFoundError(f"pictures: there are none in '{folder}'. Give a folder with {', '.join(_ENDINGS)}.")
    if importlib.util.find_spec("PIL") is None:
        raise ModuleNotFoundError("pictures are read by Pillow, which is not installed: pip install pillow.")
    process = _processor(name)
    first: Images | None = None
    for at in range(0, len(files), batch):
        some = files[at : at + batch]
        pixels = process(images=[_read(path) for path in some], return_tensors="pt")["pixel_values"]
        names = tuple(str(path.relative_to(root)) for path in some)
        first = replace(first, pixels=pixels, names=names) if first else fitted_images(model, pixels, names)
        yield first


def _read(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise ValueError(
            f"pictures: '{path}' cannot be read as a picture: {error}. Take it out, or mend it."
        ) from error


def _processor(name: str) -> Any:
    import transformers

    try:
        with quiet():
            return transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(
            f"pictures: '{name}' comes without preprocessor_config.json, which says how its pictures are prepared; "
            "copy it there, or prepare them yourself and give them as Images."
        ) from error


def _positions(model: nn.Module, pixels: Tensor) -> int:
    parameter = next(model.parameters())
    with evaluating(model), Capture(model, [f"{blocks(model)[0]}:in"]) as capture:
        (x,) = capture(pixel_values=pixels.to(device=device_of(model), dtype=parameter.dtype)).values()
    return int(x.shape[1])


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
