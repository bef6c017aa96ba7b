"""What does a vision model read? Pictures as it wants them, each a row of patches, as a text is a row of tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core import ShapeError

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Images:
    """S pictures, of each of which a model makes `context` positions: `skip` of its own, then one for each patch.

    `harvest`, `HookSource` and everything after them take it where they take a corpus of text; a row's place is then
    (picture, position).

    Args:
        pixels: as the model wants them, scaled and of its size; a processor of `transformers` makes them.
        context: positions the model makes of one picture.
        skip: positions at the beginning that are no patches: the class token, and registers. They are never rows.
        names: of the pictures; their numbers without.

    Raises:
        ShapeError: if there are names for another number of pictures.
        ValueError: if no position is left.
    """

    pixels: Float[Tensor, "S c h w"]
    context: int
    skip: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"picture {i}" for i in range(len(self.pixels))))
        if len(self.names) != len(self.pixels):
            raise ShapeError(f"Images: there are {len(self.names)} names for {len(self.pixels)} pictures.")
        if not 0 <= self.skip < self.context:
            raise ValueError(
                f"Images: skip is {self.skip} of {self.context} positions, which leaves no patch; skip less."
            )

    @classmethod
    def fitted(cls, model: nn.Module, pixels: Float[Tensor, "S c h w"], names: Sequence[str] = ()) -> Images:
        """Pictures for `model`, whose config says how large they and their patches are.

        A class token, and registers where there are some, are what the model's stream holds beyond the patches.

        Raises:
            ValueError: if the model reads no pictures, or others than these.

        Example:
            >>> import transformers
            >>> shape = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            ...     intermediate_size=8, image_size=8, patch_size=4)
            >>> images = Images.fitted(transformers.ViTModel(shape), torch.zeros(3, 3, 8, 8))
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
        return cls(pixels, context, context - patches, tuple(names))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def n_patches(self) -> int:
        """Patches of a picture."""
        return self.context - self.skip

    @property
    def n_tokens(self) -> int:
        """Patches of all pictures."""
        return len(self) * self.n_patches

    @property
    def lead(self) -> int:
        """Positions before the first patch, as a corpus has them before its text."""
        return self.skip

    @cached_property
    def start(self) -> Int[Tensor, "S"]:
        """Where each picture's first patch stands among its patches, as a window's first token does in its document."""
        return torch.zeros(len(self), dtype=torch.int64)

    @cached_property
    def keep(self) -> Bool[Tensor, "S t"]:
        """Which positions are patches."""
        return (torch.arange(self.context) >= self.skip).expand(len(self), self.context)

    @cached_property
    def document(self) -> Int[Tensor, "S"]:
        """The number of each picture, an index into `names`."""
        return torch.arange(len(self))

    def take(self, index: Int[Tensor, "s"]) -> Images:
        """The pictures at `index`, in that order."""
        return replace(self, pixels=self.pixels[index], names=tuple(self.names[i] for i in index.tolist()))


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
        first = replace(first, pixels=pixels, names=names) if first else Images.fitted(model, pixels, names)
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

    from .huggingface import quiet

    try:
        with quiet():
            return transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(
            f"pictures: '{name}' comes without preprocessor_config.json, which says how its pictures are prepared; "
            "copy it there, or prepare them yourself and give them as Images."
        ) from error


def _positions(model: nn.Module, pixels: Tensor) -> int:
    from .harvesting import device_of, evaluating
    from .hooks import Capture
    from .roles import blocks

    parameter = next(model.parameters())
    with evaluating(model), Capture(model, [f"{blocks(model)[0]}:in"]) as capture:
        (x,) = capture(pixel_values=pixels.to(device=device_of(model), dtype=parameter.dtype)).values()
    return int(x.shape[1])


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
