"""What model does a GGUF file hold? Its network, de-quantised, and its tokenizer; needs the extra `gguf`."""

from __future__ import annotations

import importlib.util
import io
import math
import mmap
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from ...core import FormatError

_ENDING = ".gguf"
_MAGIC = b"GGUF"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Kinds of numbers in a header, as struct spells them."""
_STRING, _LIST = 8, 9
_PACKAGES = ("gguf", "accelerate")
_DAMAGE = (ValueError, LookupError, TypeError, RuntimeError, OSError, ArithmeticError, MemoryError, struct.error)
"""What gguf and transformers raise where lengths, names, types or numbers in a file make no sense."""


def file_at(place: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one in a folder that holds no other weights; None without.

    Raises:
        ValueError: if such a folder holds several.
    """
    if place.is_file():
        return place if place.suffix.lower() == _ENDING else None
    if not place.is_dir() or any(place.glob("*.safetensors")) or any(place.glob("pytorch_model*.bin")):
        return None
    files = sorted(file for file in place.iterdir() if file.is_file() and file.suffix.lower() == _ENDING)
    if len(files) > 1:
        raise ValueError(
            f"load: the folder '{place}' holds {len(files)} GGUF files ({files[0].name}, {files[1].name}"
            f"{', ...' if len(files) > 2 else ''}); give the path of one. Parts of one model are first made one file "
            "by llama.cpp's llama-gguf-split --merge."
        )
    return files[0] if files else None


def config(file: Path) -> Any:
    """The configuration that a GGUF file's header describes.

    Raises:
        FormatError, ModuleNotFoundError: as `read`.
    """
    import transformers

    with _sentences(file):
        return transformers.AutoConfig.from_pretrained(file.parent, **_source(file))


def read(file: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any], Any]:
    """A GGUF file's network, what of it was missing or superfluous, and its tokenizer.

    transformers de-quantises every weight while it is read, so the network is a plain one, as large as its dtype makes
    it, and can be saved, cast and trained. A GGUF file carries no hash: a bit that is flipped among the weights goes
    unnoticed. Nor does it say how weights began: a control is drawn as the architecture's own configuration has it.

    Args:
        file: to read.
        dtype: of the weights.

    Raises:
        FileNotFoundError: if the file carries no tokenizer that transformers reads.
        FormatError: if it is damaged, cut short, no GGUF file, or of an architecture that transformers does not read.
        ModuleNotFoundError: without the packages of the extra `gguf`.
    """
    import transformers

    # Newer versions of transformers leave weights packed, where they find a kernel for them, unless told otherwise.
    packing = getattr(transformers, "GgufConfig", None)
    plain = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    with _sentences(file):
        shape = transformers.AutoConfig.from_pretrained(file.parent, **_source(file))
        auto: Any = transformers.AutoModel if shape.is_encoder_decoder else transformers.AutoModelForCausalLM
        try:
            with _alone(file) as folder:
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_source(file))
        except (ValueError, LookupError) as error:
            raise FileNotFoundError(
                f"load: '{file}' carries no tokenizer that transformers reads ({_reason(error)}). Take the model as a "
                "folder, with its tokenizer beside the weights."
            ) from error
        # Its progress bar listens to none of transformers' switches.
        with redirect_stderr(io.StringIO()):
            network, found = auto.from_pretrained(
                file.parent, config=shape, dtype=dtype, output_loading_info=True, **plain, **_source(file)
            )
    return network, found, tokenizer


@contextmanager
def _alone(file: Path) -> Iterator[str]:
    """A folder that holds the file and nothing else.

    Where a tokenizer's own files lie beside it, transformers takes neither theirs nor the file's special tokens, and
    windows would begin without the beginning-of-sequence token.
    """
    with tempfile.TemporaryDirectory(prefix="superscope-gguf-") as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield folder


def _source(file: Path) -> dict[str, Any]:
    return {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}


@contextmanager
def _sentences(file: Path) -> Iterator[None]:
    """What can be wrong with a file, as sentences."""
    from transformers import __version__

    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"load: '{file}' is read with {' and '.join(_PACKAGES)}, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'superscope[gguf]'."
        )
    with file.open("rb") as opened:
        start = opened.read(len(_MAGIC))
    if start != _MAGIC:
        raise FormatError(
            f"load: '{file}' is no GGUF file: it begins with {start!r} instead of {_MAGIC!r}. Pointers of Git LFS, and "
            "pages that say why nothing was downloaded, begin otherwise; download it again."
        )
    try:
        _walk(file)
        yield
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        reason = _reason(error)
        if "architecture" in str(error):
            raise FormatError(
                f"load: '{file}' holds a model that transformers {__version__} does not read from GGUF ({reason}). "
                "Take a newer transformers, or the model's safetensors."
            ) from error
        raise FormatError(
            f"load: '{file}' is damaged or cut short ({file.stat().st_size:,} bytes; {reason}); copy or download it "
            "again."
        ) from error


def _walk(file: Path) -> None:
    """Goes through a header once: every length in it has to end within the file, and every tensor.

    The reader that transformers uses believes lengths, and counts for hours through a list that a damaged file claims.
    """
    import gguf

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = len(_MAGIC)

        def take(form: str) -> tuple[Any, ...]:
            """The next numbers; struct.error beyond the end."""
            nonlocal at
            values = struct.unpack_from(f"<{form}", data, at)
            at += struct.calcsize(f"<{form}")
            return values

        def value(kind: int) -> Any:
            nonlocal at
            if kind == _STRING:
                (length,) = take("Q")
                at += length
                return data[at - length : at]
            if kind == _LIST:
                inside, count = take("IQ")
                if inside in _NUMBERS:
                    at += count * struct.calcsize(_NUMBERS[inside])
                else:
                    for _ in range(count):
                        value(inside)
                return None
            return take(_NUMBERS[kind])[0]

        _, tensors, settings = take("IQQ")
        described = {}
        for _ in range(settings):
            name = bytes(value(_STRING))
            described[name] = value(*take("I"))
        ends = [0]
        for _ in range(tensors):
            value(_STRING)
            shape = take(f"{take('I')[0]}Q")
            kind, offset = take("IQ")
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
            ends.append(offset + math.prod(shape) // block * size)
        if at + max(ends) > len(data):
            raise ValueError(f"its tensors end {at + max(ends) - len(data):,} bytes behind its own end")
    for name, number in described.items():
        if name.endswith(b".block_count") and number > tensors:
            raise ValueError(f"{number:,} blocks of {tensors:,} tensors")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".")
