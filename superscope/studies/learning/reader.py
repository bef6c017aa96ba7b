"""Which dictionary is meant? Whatever a path names, of any known format, as a coder without its zero atoms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, FormatError, SparseCode, SparseCoder, files
from ...dictionaries import ARCHITECTURES, SAE, Turned, load_coder
from ...dictionaries.classical.learner import KIND as LEARNED
from ...dictionaries.formats import Imported, normalise
from ...recovery import NNOMP, OMP
from ..geometry.dictionary_file import RowMeaning, read_dictionary
from .convert import imported


@dataclass(eq=False)
class Reader(SparseCoder):
    """What a path names, as a coder of rows, without its zero atoms: those write nothing.

    Args:
        inner: what was read.
        what: it in words.
        kept: for each atom, its number in the file.
        cautions: what the reader of any figure about it must know.
    """

    inner: SparseCoder | Imported
    what: str
    kept: Int[Tensor, "n"]
    cautions: tuple[str, ...] = ()
    dictionary: Dictionary = field(init=False)

    def __post_init__(self) -> None:
        whole = self._coder.dictionary
        # A matrix was read without its zero atoms already.
        if isinstance(self.inner, OMP | NNOMP):
            self.kept, self._place = self.kept, torch.arange(whole.n)
            self.dictionary = whole
        else:
            self._place = torch.full((whole.n,), -1)
            self._place[self.kept] = torch.arange(len(self.kept))
            bias = None if whole.bias is None else whole.bias.detach()
            self.dictionary = Dictionary(whole.atoms.detach()[self.kept], bias)
            if zeros := whole.n - len(self.kept):
                self.cautions += (f"{zeros} zero atoms are left out, since zero has no direction.",)
        if not self.decodes:
            assert isinstance(self.inner, Imported)
            said = f"Its package puts each row under {self.inner.rows} first, so what it reconstructs is not judged."
            self.cautions += (said,)

    @property
    def _coder(self) -> SparseCoder:
        return self.inner.sae if isinstance(self.inner, Imported) else self.inner

    @property
    def decodes(self) -> bool:
        """Whether its dictionary alone makes x of a code."""
        return not isinstance(self.inner, Imported) or self.inner.rows == "as they are"

    @property
    def encodes(self) -> bool:
        """Whether it has an encoder of its own; a matrix of atoms is pursued instead."""
        return not isinstance(self.inner, OMP | NNOMP)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The code in the units of x, its indices counted among the kept atoms."""
        stretch = x.new_ones(())
        x = x.to(self.dictionary.atoms.dtype)
        if isinstance(self.inner, Imported):
            x, _, stretch = normalise(x, self.inner.rows)
        code = self._coder.encode(x)
        indices = self._place[code.indices]
        values = torch.where(indices >= 0, code.values.detach() * stretch, 0)
        return SparseCode(values, indices.clamp(min=0), self.dictionary.n)

    def turned(self, truth: Dictionary, latents: Sequence[int | None]) -> SparseCoder | None:
        """Its encoder on the true atoms; None where it has none that can be turned."""
        sae = self._coder
        if not isinstance(sae, SAE) or not self.decodes:
            return None
        chosen = torch.tensor([-1 if latent is None else int(self.kept[latent]) for latent in latents])
        return Turned(sae, truth, chosen)


def read_coder(
    place: Path,
    path: str,
    *,
    pursued: Callable[[], tuple[int, bool]] = lambda: (1, False),
    tensor: str | None = None,
    rows_are: RowMeaning | None = None,
    format: str | None = None,
    architecture: str | None = None,
    k: int | None = None,
    subtract_bias: bool | None = None,
    input_scale: float | None = None,
) -> Reader:
    """The dictionary at a place: saved by us, in any format that `superscope convert` reads, or a matrix of atoms.

    Args:
        place: where it is, as `in_run` says.
        path: as it was given; `hub:OWNER/NAME/FOLDER` is downloaded.
        pursued: of a matrix of atoms, how many atoms a row is pursued with, and whether codes may be negative.
        tensor, rows_are: of a matrix, as for `read_dictionary`.
        format, architecture, k, subtract_bias, input_scale: what a foreign file does not say.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is a transcoder, or has no atom but zeros.
        FormatError: if it is damaged or of no known format.
    """
    from_hub = path.startswith("hub:")
    if not from_hub and not place.exists():
        raise FileNotFoundError(
            f"there is no file or folder {path}. Give a run folder of `superscope train`, a saved dictionary, or a "
            "matrix of atoms."
        )
    if place.suffix == ".npy" or (place.suffix == ".safetensors" and _is_matrix(place, tensor)):
        read = read_dictionary(str(place), tensor=tensor, rows=rows_are)
        wanted, is_signed = pursued()
        wanted = min(wanted, read.dictionary.n, read.dictionary.d)
        pursuit = OMP(read.dictionary, k=wanted) if is_signed else NNOMP(read.dictionary, k=wanted)
        why = f"It is a matrix without an encoder, so its codes are those of pursuit with {wanted} atoms a row."
        return Reader(pursuit, read.origin, kept=read.kept, cautions=(*read.cautions, why))
    about = place / "about.json"
    if about.is_file() and files.read_json(about).get("kind") == LEARNED:
        learned = load_coder(place)
        return Reader(learned, type(learned).__name__, kept=_nonzero(learned.dictionary, place))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        original = imported(
            path if from_hub else str(place),
            format,
            architecture=architecture,
            k=k,
            subtract_bias=subtract_bias,
            input_scale=input_scale,
        )
    cautions = [*original.cautions, *(str(one.message) for one in caught if one.category is UserWarning)]
    if type(original.sae) not in ARCHITECTURES:
        raise ValueError(
            f"{path} is a {type(original.sae).__name__}, which writes something else than it reads, so that a world's "
            "atoms are not its own. Give an SAE."
        )
    what = f"{type(original.sae).__name__} SAE"
    return Reader(original, what, kept=_nonzero(original.sae.dictionary, place), cautions=tuple(cautions))


def _is_matrix(place: Path, tensor: str | None) -> bool:
    return tensor is not None or sum(value.ndim == 2 for value in files.read_tensors(place).values()) == 1


def _nonzero(W: Dictionary, place: Path) -> Int[Tensor, "n"]:
    kept = (W.atoms.detach() != 0).any(1).nonzero()[:, 0]
    if not len(kept):
        raise ValueError(f"{place} has no atom but zeros, which have no direction. Was it trained?")
    return kept


def in_run(path: str) -> tuple[Path, tuple[str, ...]]:
    """The dictionary inside a training's run folder, and the world it was learned on; else the path itself."""
    place = Path(path).expanduser()
    if path.startswith("hub:") or not (place / "about.json").is_file():
        return place, ()
    about = files.read_json(place / "about.json")
    if about.get("kind") != "train" or not isinstance(about.get("settings"), dict):
        return place, ()
    inside = [place / name for name in ("sae", "dictionary") if (place / name / "about.json").is_file()]
    if not inside:
        raise FormatError(f"{place} is a training that has saved no dictionary yet. Let it finish: `superscope train`.")
    source = str(about["settings"].get("source", ""))
    if not source.startswith("world:"):
        return inside[0], ()
    return inside[0], (source.removeprefix("world:"), *map(str, about["settings"].get("world", ())))
