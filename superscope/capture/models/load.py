"""Which model, and which places in it? Loading from the package, a folder or the hub; blocks and neurons by role."""

from __future__ import annotations

import copy
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import nn

from ...core import FormatError, Site
from . import gguf
from .facts import text_config_of
from .roles import blocks, mlp_hidden

Kind = Literal["residual", "neurons", "other"]

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its tokenizer and what they are called.

    Args:
        model: in evaluation mode.
        tokenizer: its own; None for a vision model, which reads `Images`.
        name: "pocket", the folder, the GGUF file or the hub's name; a control says that it is one.
        kind: "causal" predicts next tokens; "encoder" looks both ways.
    """

    model: Any
    tokenizer: Any
    name: str
    kind: Literal["causal", "encoder"]

    @property
    def d(self) -> int:
        """Dimensions of the residual stream."""
        return int(text_config_of(self.model).hidden_size)

    def kind_of(self, site: Site | str) -> Kind:
        """What is read at `site`: the stream between blocks, an MLP's hidden layer, or something else.

        "residual": a block's input or output. "neurons": what the MLP's down-projection is given, the hidden layer
        after its nonlinearity (and the gate, where there is one); only there do axes mean anything by themselves.
        """
        name = str(site)
        for block in blocks(self.model):
            if name in (block, f"{block}:in"):
                return "residual"
            if name == mlp_hidden(self.model, block):
                return "neurons"
        return "other"


def load(model: str = "pocket", *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Subject:
    """A model and its tokenizer, ready to read: evaluation mode, on `device`.

    Causal language models come with their head, everything else as an encoder without one (of an encoder-decoder, the
    encoder). A model of the hub that is in the local cache is taken from there without asking the network. No code that
    comes with a model is run.

    Args:
        model: "pocket" or "sycophant" for the models inside this package, a folder with config.json, weights and
            tokenizer, a GGUF file or a folder that holds one (extra `gguf`; its weights are de-quantised), or a name on
            the hub such as "EleutherAI/pythia-70m"; after "transformer_lens:", a folder or name that TransformerLens
            loads.
        device: as in torch.
        dtype: of the weights; float32 without it.

    Raises:
        FileNotFoundError: if a folder, its config.json, its weights or its tokenizer is missing.
        FormatError: if weights or config are damaged or do not fit each other.
        ValueError: if the hub has no such model or cannot be reached, the device does not exist, or a folder holds
            several GGUF files and no other weights.
        ModuleNotFoundError: for a GGUF file, without the extra `gguf`.
    """
    dtype = torch.float32 if dtype is None else dtype
    place = _device(device)
    if model == "pocket":
        from ..pocket import load as load_pocket

        network: Any
        network, tokenizer = load_pocket()
        return Subject(network.to(device=place, dtype=dtype).eval(), tokenizer, "pocket", "causal")
    if model.startswith("transformer_lens:"):
        from .hooked import boot

        hooked = boot(model.removeprefix("transformer_lens:"), place, dtype)
        return Subject(hooked, hooked.whole[0].tokenizer, model, "causal")
    if model == "sycophant":
        from ..sycophant import load as load_sycophant

        network, tokenizer = load_sycophant()
        return Subject(network.to(device=place, dtype=dtype).eval(), tokenizer, "sycophant", "causal")
    folder = Path(model).expanduser()
    if model.strip() and (file := gguf.file_at(folder)) is not None:
        with quiet():
            network, found, tokenizer = gguf.read(file, dtype)
        return _ready(network, found, tokenizer, place, name=model, is_causal=not network.config.is_encoder_decoder)
    if model.strip() and folder.is_dir():
        return _load(str(folder), folder, place, dtype, name=model)
    if folder.is_file():
        raise FileNotFoundError(
            f"load: '{model}' is a file; give the folder that holds config.json, weights and tokenizer, or a GGUF file."
        )
    if _looks_like_path(model):
        raise FileNotFoundError(
            f"load: there is no {'file' if model.endswith('.gguf') else 'folder'} '{model}'. Give a folder with "
            "config.json, model.safetensors and tokenizer.json, a GGUF file, "
            "a name on the hub such as EleutherAI/pythia-70m, or 'pocket' for the model that comes with Superscope."
        )
    return _load(model, None, place, dtype, name=model)


def default_sites(model: nn.Module) -> tuple[Site, ...]:
    """The output of every block: the residual stream, from the first to the last."""
    return tuple(Site(block) for block in blocks(model))


def control(loaded: Subject, seed: int) -> Subject:
    """The same architecture with the random weights it would start training from, drawn from `seed`.

    The tokenizer, dtype and device are kept. What a figure says of training is its distance from this.

    Example:
        >>> import transformers
        >>> shape = transformers.GPT2Config(
        ...     n_layer=1, n_embd=8, n_head=2, vocab_size=16, bos_token_id=0, eos_token_id=0)
        >>> trained = Subject(transformers.GPT2LMHeadModel(shape), None, "tiny", "causal")
        >>> control(trained, seed=0).name
        'tiny, random weights (seed 0)'
    """
    model = loaded.model
    if not hasattr(model.config, "to_dict"):
        raise ValueError(
            f"control: '{loaded.name}' is a model of another package, which makes none with random weights; load the "
            "same model by its name or folder."
        )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        network = type(model)(copy.deepcopy(model.config))
    network = network.to(device=model.device, dtype=model.dtype).eval()
    return replace(loaded, model=network, name=f"{loaded.name}, random weights (seed {seed})")


def _load(source: str, folder: Path | None, device: torch.device, dtype: torch.dtype, *, name: str) -> Subject:
    import transformers

    config = read_config(source, folder)
    architectures = tuple(getattr(config, "architectures", None) or ())
    is_causal = any(architecture.endswith(_CAUSAL) for architecture in architectures) and not config.is_encoder_decoder
    if folder is not None:
        _check_weights(folder)
    # The tokenizer first: it is small, and a folder without one should not cost the loading of its weights. What reads
    # pictures alone has none.
    sees = hasattr(config, "image_size") and not hasattr(config, "vocab_size") and not hasattr(config, "text_config")
    tokenizer = None if sees else _tokenizer(source, folder)
    auto = transformers.AutoModelForCausalLM if is_causal else transformers.AutoModel
    network, found = _fetched(
        lambda **options: auto.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        ),
        source,
        folder,
    )
    return _ready(network, found, tokenizer, device, name=name, is_causal=is_causal)


def _ready(
    network: Any, found: dict[str, Any], tokenizer: Any, device: torch.device, *, name: str, is_causal: bool
) -> Subject:
    """A network that was read whole, on its device; of an encoder-decoder, the encoder."""
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    _check_complete(network, found, name)
    # BERT and its kin have a "causal" class too, which looks ahead unless its config makes it a decoder.
    looks_ahead = any(getattr(module, "is_causal", None) is False for module in network.modules())
    return Subject(network.to(device).eval(), tokenizer, name, "causal" if is_causal and not looks_ahead else "encoder")


def read_config(source: str, folder: Path | None) -> Any:
    """The configuration of a model, in a folder or on the hub."""
    import transformers

    if folder is not None and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"load: the folder '{folder}' has no config.json, so it is no saved model; give the folder that "
            "save_pretrained wrote."
        )
    return _fetched(lambda **options: transformers.AutoConfig.from_pretrained(source, **options), source, folder)


def _tokenizer(source: str, folder: Path | None) -> Any:
    import transformers

    if folder is not None and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise FileNotFoundError(
            f"load: the folder '{folder}' has no tokenizer (tokenizer.json, vocab.json, vocab.txt or tokenizer.model); "
            "save it there with tokenizer.save_pretrained(folder)."
        )
    tokenizer = _fetched(
        lambda **options: transformers.AutoTokenizer.from_pretrained(source, **options), source, folder
    )
    # Without its files transformers makes an empty tokenizer rather than none.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise FileNotFoundError(f"load: '{source}' comes without a tokenizer, so no text can be read with it.")
    return tokenizer


def _fetched(get: Any, source: str, folder: Path | None) -> Any:
    """What `get` loads: from disk, else, for a name on the hub, from the network; errors as sentences."""
    import json

    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import __version__

    attempts: tuple[dict[str, Any], ...] = ({"local_files_only": True, "trust_remote_code": False},)
    if folder is None and not _is_offline():
        attempts += ({"trust_remote_code": False},)
    for options in attempts:
        try:
            with quiet():
                return get(**options)
        except SafetensorError as error:
            raise FormatError(
                f"load: a weight file of '{source}' is damaged ({error}); copy or download it again."
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FormatError(
                f"load: a JSON file of '{source}' is damaged ({error}); copy or download it again."
            ) from error
        except OSError as error:
            if options is not attempts[-1]:
                continue
            if folder is not None:
                raise FormatError(
                    f"load: the folder '{folder}' cannot be read as a model: {_first_line(error)}"
                ) from error
            raise ValueError(
                f"load: no model named '{source}' in the local cache, and the hub gave none: "
                f"{'there is no network here.' if _is_offline() else _first_line(error)} Check the name, or give a "
                "folder: download the model where there is a network (hf download NAME --local-dir FOLDER) and pass "
                "FOLDER. 'pocket' is the model that comes with Superscope."
            ) from error
        except (ValueError, TypeError, RuntimeError, KeyError, ImportError, StrictDataclassError) as error:
            # transformers raises each of these: unknown model_type, code of its own, fields of a wrong type, a missing
            # library.
            raise FormatError(
                f"load: '{source}' cannot be loaded ({type(error).__name__}: {_first_line(error)}) Its files are "
                f"damaged, or it needs more than transformers {__version__}: a newer one, another library, or code of "
                "its own, which Superscope does not run."
            ) from error
    raise AssertionError("every attempt returns or raises")


def _check_weights(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files and not list(folder.glob("pytorch_model*.bin")):
        raise FileNotFoundError(
            f"load: the folder '{folder}' has no weights (model.safetensors); copy them there, or save the model again."
        )
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            size = file.stat().st_size
            raise FormatError(
                f"load: '{file}' is damaged or cut short ({size:,} bytes: {error}); copy or download it again."
            ) from error


def _check_complete(network: nn.Module, found: dict[str, Any], source: str) -> None:
    """Weights missing in blocks or embeddings would be read as random numbers; a missing pooler is never read."""
    # Let through at loading, where the refusal is a table and not a sentence.
    if found["mismatched_keys"]:
        key, *shapes = sorted(found["mismatched_keys"])[0]
        raise FormatError(
            f"load: {len(found['mismatched_keys'])} weights of '{source}' have other shapes than its config.json says, "
            f"as {key} with {' instead of '.join(str(tuple(shape)) for shape in shapes)}. Copy both from one model."
        )
    try:
        inside = "|".join(re.escape(block) for block in blocks(network))
    except ValueError:  # a model without a list of blocks, such as ALBERT with its one shared block
        return
    missing = sorted(key for key in found["missing_keys"] if re.search(rf"(^|\.)({inside})\.|embed|wte|wpe", key))
    if missing:
        raise FormatError(
            f"load: the weights of '{source}' lack {len(missing)} tensors that it computes with, as {missing[0]}; they "
            "do not belong to its config.json. Copy both from one model."
        )


def _looks_like_path(model: str) -> bool:
    has_form = model.startswith((".", "~", os.sep)) or model.count("/") > 1 or "\\" in model or not model.strip()
    return has_form or model.endswith(".gguf")


def _device(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"load: there is no device '{device}'; write cpu, cuda, cuda:1 or mps.") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(place.type, True):
        raise ValueError(f"load: this machine's torch has no {place.type}; leave the device out to run on the cpu.")
    return place


def _is_offline() -> bool:
    """Whether the hub's name cannot be resolved: asked first, because the hub's client retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' progress bars and notes off inside the block: what matters of them is said in our own words."""
    from transformers.utils import logging as notes

    verbosity, had_bar = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(level)
        notes.set_verbosity(verbosity)
        if had_bar:
            notes.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    return said if said.endswith((".", "!", "?")) else f"{said}."
