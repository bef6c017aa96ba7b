"""Dictionaries of others, read and written: what a file says becomes an SAE of ours, checked by numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import FormatError, SparseCode
from ...core.errors import nearest
from ...recovery import Refinement
from ..loading import load
from ..sae.base import SAE, read_about
from . import probe as probing
from .dictionary_learning import DICTIONARY_LEARNING
from .form import Form, Format, Given, RowScaling, cannot_hold
from .gemma_scope import GEMMA_SCOPE, GEMMA_SCOPE_2
from .openai import OPENAI
from .openmoss import OPENMOSS
from .ours import form_of, sae_of
from .plain import PLAIN
from .probe import Agreement
from .saebench import AsSAEBench
from .saelens import SAELENS
from .sparsify import SPARSIFY

FORMATS: tuple[Format, ...] = (
    SAELENS,
    SPARSIFY,
    DICTIONARY_LEARNING,
    OPENAI,
    OPENMOSS,
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    PLAIN,
)
"""Every foreign format; tests, commands and docs read this tuple. Our own is `sae.save` and `dictionaries.load`."""

OURS = "superscope"


@dataclass(frozen=True, eq=False)
class Imported:
    """An SAE read from a file, and how it relates to what the file holds.

    Args:
        sae: it, in the units of ours: atoms of norm 1 wherever that leaves the function as it is.
        format: what it was read as.
        scale: codes of `sae` over codes in the file's own units, per latent.
        rows: what the file's package does to each row before encoding and undoes afterwards. `sae` reads rows on which
            that has been done; `codes` and `reconstruct` do it themselves.
        notes: model, site and further origin, where the file says.
        cautions: what a user must know.
        agreement: how it compares with the probe beside the file; None if there is none.
    """

    sae: SAE
    format: str
    scale: Float[Tensor, "n"]
    rows: RowScaling = "as they are"
    notes: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    agreement: Agreement | None = None

    def codes(self, x: Float[Tensor, "*batch d"], *, refine: Refinement | str | None = None) -> SparseCode:
        """f in the file's own units, as the package that wrote it gives them; with `refine`, as `SAE.encode` says."""
        code = self.sae.encode(normalise(x, self.rows)[0], refine=refine)
        return SparseCode(code.values / self.scale.to(code.values)[code.indices], code.indices, code.n)

    def reconstruct(
        self, x: Float[Tensor, "*batch d"], *, refine: Refinement | str | None = None
    ) -> Float[Tensor, "*batch d"]:
        """The reconstruction of x, in the units of x; of a transcoder, its whole prediction."""
        z, shift, stretch = normalise(x, self.rows)
        z_hat = self.sae(z) if refine is None else self.sae.decode(self.sae.encode(z, refine=refine))
        return z_hat * stretch + shift


def normalise(x: Float[Tensor, "*batch d"], rows: RowScaling) -> tuple[Tensor, Tensor, Tensor]:
    r"""z, shift and stretch with which $x = z \cdot stretch + shift$, up to the small number in layer norm's divisor.

    Layer norm here is $(x - \bar x) / (s + 10^{-5})$ with s the unbiased deviation, as OpenAI and SAELens have it;
    constant norm is $\sqrt d\, x / |x|$.
    """
    one, zero = x.new_ones(()), x.new_zeros(())
    if rows == "layer norm":
        shift = x.mean(-1, keepdim=True)
        stretch = (x - shift).std(-1, keepdim=True)
        return (x - shift) / (stretch + 1e-5), shift, stretch
    if rows == "constant norm":
        # A zero row stays zero.
        stretch = (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5).clamp_min(torch.finfo(x.dtype).tiny)
        return x / stretch, zero, stretch
    return x, zero, one


def detect(path: Path | str) -> str:
    """The name of the format that a file or folder is in, by the names of its files.

    Raises:
        FileNotFoundError: if there is nothing there.
        FormatError: if it looks like none, or like several dictionaries.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if (path / "about.json").is_file() and (path / "weights.safetensors").is_file():
        return OURS
    for format in FORMATS:
        if format.recognise(path):
            return format.name
    if path.is_dir():
        inside = [child.name for child in sorted(path.iterdir()) if child.is_dir() and _holds(child)]
        if inside:
            raise FormatError(
                f"{path} holds several dictionaries: {', '.join(inside[:8])}{', ...' if len(inside) > 8 else ''}. "
                "Give the folder of one."
            )
        listed = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        raise FormatError(f"{path} is in no format known here; it holds {listed}. {_known()}")
    raise FormatError(f"{path} is in no format known here. {_known()}")


def _holds(path: Path) -> bool:
    return (path / "about.json").is_file() or any(format.recognise(path) for format in FORMATS)


def _known() -> str:
    return f"Known: {OURS}, {', '.join(format.name for format in FORMATS)}."


def _named(name: str) -> Format:
    for format in FORMATS:
        if format.name == name:
            return format
    names = [format.name for format in FORMATS]
    raise ValueError(f"there is no format {name!r}.{nearest(name, names)} {_known()}")


def read(
    path: Path | str,
    format: str | None = None,
    *,
    architecture: str | None = None,
    k: int | None = None,
    subtract_bias: bool | None = None,
    input_scale: float | int | None = None,
    strict: bool = True,
) -> Imported:
    """The dictionary in a file or folder, as an SAE that computes the same.

    Norms of atoms, scaling and whitening of x are folded into the weights; what cannot be folded (a norm per row) is
    kept as `Imported.rows`. Where a probe lies beside the file, the result is compared with it. Nothing in a file is
    run: pickles are read with weights_only, and warned of.

    Args:
        path: file or folder.
        format: its format; by the names of its files if None.
        architecture, k, subtract_bias, input_scale: what a file does not say (see `Given`); asked for where needed.
        strict: refuse settings and tensors that are not known.

    Raises:
        FileNotFoundError: if there is nothing there.
        FormatError: if it is damaged, says what no SAE of ours computes, or computes other than its probe says.

    Example:
        >>> import tempfile, superscope as ss
        >>> folder = tempfile.mkdtemp() + "/sae"
        >>> sae = ss.dictionaries.TopK(d=8, n=32, k=4)
        >>> agreement = ss.dictionaries.formats.write(sae, folder, "saelens")
        >>> found = ss.dictionaries.formats.read(folder)
        >>> found.format, type(found.sae).__name__, found.agreement.good
        ('saelens', 'TopK', True)
    """
    path = Path(path)
    name = format or detect(path)
    if name == OURS:
        sae, notes = load(path), read_about(path)["notes"]
        found = Imported(
            sae, OURS, torch.ones(sae.n, dtype=torch.float64), notes=notes if isinstance(notes, dict) else {}
        )
    else:
        given = Given(architecture, k, subtract_bias, input_scale, strict)
        try:
            sae, form = sae_of(_named(name).read(path, given))
        except FormatError as error:
            raise error if str(path) in str(error) else FormatError(f"{path}: {error}") from error
        scale = torch.ones(sae.n, dtype=torch.float64) if form.scale is None else form.scale.double()
        found = Imported(sae, name, scale, form.rows, form.notes, form.cautions)
    agreement = check(found, path)
    if agreement is not None and not agreement.good:
        raise FormatError(
            f"{path} does not compute what it did when it was written: {agreement}. It was changed, or is in another "
            f"format than {name}. Copy it again; to use it as it is, remove {probe_path(path).name}."
        )
    return Imported(found.sae, name, found.scale, found.rows, found.notes, found.cautions, agreement)


def check(found: Imported, path: Path | str) -> Agreement | None:
    """How what was read compares with the probe beside the file; None if there is no probe.

    Raises:
        FormatError: if the probe is damaged.
    """
    place = probe_path(Path(path))
    if not place.is_file():
        return None
    probe = probing.Probe.load(place, found.sae.n, Path(path))
    if probe.x.shape[-1] != found.sae.d:
        raise FormatError(f"{place} is the probe of another dictionary: its rows have {probe.x.shape[-1]} numbers.")
    with torch.no_grad():
        return probing.compare(probe, found.codes, found.reconstruct, found.sae.encoder.dtype)


def probe_path(path: Path) -> Path:
    """Where the probe of a file or folder lies."""
    return path / "probe.safetensors" if path.is_dir() else path.with_name(path.name + ".probe.safetensors")


def write(
    sae: SAE | Imported,
    path: Path | str,
    format: str = "saelens",
    *,
    notes: Mapping[str, Any] | None = None,
    x: Float[Tensor, "b d"] | None = None,
) -> Agreement:
    """Writes an SAE in a format of others, with a probe beside it, and reads it back to compare.

    Args:
        sae: it; an `Imported` one keeps its notes and what it does to rows.
        path: new folder, or new file where the format is one file.
        format: one of `FORMATS`, or "superscope".
        notes: model, site, hook_name: written where the format has a place for them.
        x: rows of real data for the probe; made up without it.

    Returns:
        How what was written compares with `sae`.

    Raises:
        FileExistsError: if there is something at `path`.
        FormatError: if the format cannot hold this SAE, or what was written does not compute the same.
        ValueError: if there is no such format.
    """
    path = Path(path)
    rows: RowScaling = "as they are"
    told = dict(notes or {})
    if isinstance(sae, Imported):
        told, rows, sae = {**sae.notes, **told}, sae.rows, sae.sae
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} already exists. Choose a new place, so that nothing is overwritten.")
    if format == OURS:
        if rows != "as they are":
            raise FormatError(
                f"our own format has no place for {rows}, which this dictionary needs on each row. Keep it in the "
                "format it came in and read it from there."
            )
        sae.save(path, notes=told)
    else:
        chosen = _named(format)
        if chosen.write is None:
            raise FormatError(f"the format {format} is read and not written. {_known()}")
        if chosen.suffix and path.suffix != chosen.suffix:
            raise FormatError(f"the format {format} is one file that ends in {chosen.suffix}; got {path}.")
        form = form_of(sae, rows=rows, notes=told)
        if form.predicts and not chosen.predicts:
            able = ", ".join(format.name for format in FORMATS if format.predicts)
            raise cannot_hold(format, form, f"SAEs (transcoders go into {able})")
        chosen.write(form, path)
    exact = sae if sae.encoder.dtype in (torch.float32, torch.float64) else copy.deepcopy(sae).float()
    written = Imported(exact, format, torch.ones(sae.n, dtype=torch.float64), rows)
    probe = probing.make(exact, written.codes, written.reconstruct, x)
    probe.save(probe_path(path), path)
    with warnings.catch_warnings():
        # That it is a pickle is known to who asked for one.
        warnings.simplefilter("ignore")
        found = read(path, format)
    assert found.agreement is not None
    return found.agreement


__all__ = [
    "FORMATS",
    "OURS",
    "Agreement",
    "AsSAEBench",
    "Form",
    "Format",
    "Imported",
    "check",
    "detect",
    "form_of",
    "normalise",
    "probe_path",
    "read",
    "sae_of",
    "write",
]
