"""From one package's dictionary to another's: does the copy compute what the original does?"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from ...core import Answer, Findings, Measurement, Run, files
from ...dictionaries import ARCHITECTURES, formats
from ...dictionaries.formats import OURS, Imported
from ..settings import Count
from ..study import Progress, Study

_ROWS = 256
"""Made-up rows on which original and copy are compared."""


@dataclass(frozen=True)
class Convert(Study):
    """Reads a dictionary in any format known here, writes it in another, and checks the copy by numbers.

    Formats: superscope (our own), saelens, sparsify, dictionary_learning, openai, openmoss, gemma_scope, gemma_scope_2,
    plain. What the new format cannot hold is refused. Nothing in a file is ever run.
    """

    kind: ClassVar[str] = "convert"

    source: Annotated[str, tyro.conf.Positional]
    """File or folder to read, or hub:OWNER/NAME/FOLDER for one on the Hugging Face hub."""
    target: Annotated[str, tyro.conf.Positional]
    """New folder to write (a new file for openai and plain)."""
    to: str = "saelens"
    """Format to write."""
    source_format: str | None = None
    """Format to read. Default: by the names of the files."""
    architecture: str | None = None
    """What is done with the pre-activations, where the file does not say: relu, topk, jumprelu ..."""
    k: Count | None = None
    """Latents kept per row, where the file does not say."""
    subtract_bias: bool | None = None
    """Whether the decoder's bias is taken from x before encoding, where the file does not say."""
    input_scale: float | None = None
    """What x is multiplied by before encoding, where the file does not say; the result is divided by it."""
    allow_unknown: bool = False
    """Leave unknown settings and tensors aside, with a warning, instead of refusing them."""
    model: str = ""
    """Model that the activations are from, to be noted in the copy."""
    site: str = ""
    """Site in that model, to be noted in the copy."""
    seed: int = 0
    """Of the made-up rows."""

    def check(self) -> None:
        names = (OURS, *(format.name for format in formats.FORMATS))
        for name in ("to", "source_format"):
            if (given := getattr(self, name)) is not None and given not in names:
                raise ValueError(f"{name.replace('_', '-')} must be one of {', '.join(names)}; got {given!r}.")
        if not self.source.strip() or not self.target.strip():
            raise ValueError("source and target must be paths; got an empty one.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        target = Path(self.target).expanduser()
        if run.path is not None and target.absolute() == run.path.absolute():
            raise ValueError(f"target and --out are both {target}. The run's record needs a folder of its own.")
        yield Progress("Reading", 0, 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            original = self._read()
        cautions = [*original.cautions, *(str(one.message) for one in caught if one.category is UserWarning)]
        sae = original.sae
        yield Progress("Reading", 1, 1, f"{original.format}: {type(sae).__name__}, n = {sae.n:,}, d = {sae.d:,}")
        yield Progress("Writing", 0, 1)
        told = {name: value for name, value in (("model", self.model), ("site", self.site)) if value}
        written = formats.write(original, target, self.to, notes=told)
        run.open()
        yield Progress("Writing", 1, 1)
        yield Progress("Comparing", 0, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy = formats.read(target, self.to)
        measurements = (*self._compare(original, copy), *_stored(original, written))
        worst = max(m.value or 0.0 for m in measurements if m.name.endswith("_difference"))
        listed = [target] if target.is_file() else sorted(file for file in target.rglob("*") if file.is_file())
        answer = Answer(
            title=f"{Path(self.source).name} from {original.format} to {self.to}",
            findings=Findings(
                measurements,
                {
                    "files": {
                        "file": [str(file.relative_to(target.parent)) for file in listed],
                        "bytes": [file.stat().st_size for file in listed],
                        "sha256": [files.sha256(file) for file in listed],
                    }
                },
            ),
            sentences=tuple(self._findings(original, worst, cautions)),
            arrays={"scale": original.scale},
        )
        yield Progress("Comparing", 1, 1, f"largest difference {worst:.1e}")
        return answer

    def _read(self) -> Imported:
        return imported(
            self.source,
            self.source_format,
            architecture=self.architecture,
            k=self.k,
            subtract_bias=self.subtract_bias,
            input_scale=self.input_scale,
            strict=not self.allow_unknown,
        )

    @torch.no_grad()
    def _compare(self, original: Imported, copy: Imported) -> tuple[Measurement, ...]:
        x = self._rows(original)
        theirs, ours = original.sae.encode(formats.normalise(x, original.rows)[0]), copy.codes(x)
        ours_dense, theirs_dense = ours.dense().double(), theirs.dense().double()
        y, y_hat = original.reconstruct(x).double(), copy.reconstruct(x).double()
        rows = {"n": len(x), "of": "made-up rows"}
        changed = ((ours_dense != 0) != (theirs_dense != 0)).any(1)
        return (
            Measurement(
                name="code_difference",
                value=_largest(ours_dense - theirs_dense, theirs_dense),
                unit="share of the largest entry",
                reference=0.0,
                reference_is="equal",
                **rows,
            ),
            Measurement(
                name="reconstruction_difference",
                value=_largest(y_hat - y, y),
                unit="share of the largest entry",
                reference=0.0,
                reference_is="equal",
                **rows,
            ),
            Measurement(
                name="rows_with_another_support",
                value=float(changed.sum()),
                unit="rows",
                reference=0.0,
                reference_is="equal",
                caution="rounding can exchange latents that are nearly tied" if bool(changed.any()) else "",
                **rows,
            ),
            Measurement(name="l0", value=float(theirs.l0.double().mean()), unit="latents", **rows),
        )

    def _rows(self, original: Imported) -> Float[Tensor, "b d"]:
        """Rows around b as long as atoms with the codes' sizes make them, so that latents are on as they are in use."""
        sae, generator = original.sae, torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(sae.n, (_ROWS, 4), generator=generator)
        weight = 4 * torch.rand(_ROWS, 4, 1, generator=generator).to(sae.encoder)
        noise = torch.randn(_ROWS, sae.d, generator=generator).to(sae.encoder) / sae.d**0.5
        unit = sae.encoder / sae.encoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(sae.encoder.dtype).tiny)
        # The bias of a transcoder belongs to what it predicts.
        centre = sae.bias if type(sae) in ARCHITECTURES else torch.zeros_like(sae.encoder[0])
        return centre + (weight * unit[chosen]).sum(1) + noise

    def _findings(self, original: Imported, worst: float, cautions: list[str]) -> Generator[str, None, None]:
        sae = original.sae
        differ = f"differ by at most {worst:.1e} of their largest entry" if worst else "are equal to the last bit"
        yield (
            f"The copy in {self.to} computes what the original in {original.format} does: codes and reconstructions "
            f"{differ}."
        )
        if original.agreement is not None:
            yield f"The original agrees with the probe stored beside it: {original.agreement}."
        else:
            yield (
                "The original has no probe beside it, so how it was read rests on its settings alone; "
                "the copy has one, for whoever reads it next."
            )
        yield f"It is a {type(sae).__name__} dictionary of n = {sae.n:,} atoms in d = {sae.d:,} dimensions."
        if not bool(torch.isclose(original.scale, torch.ones_like(original.scale)).all()):
            low, high = float(original.scale.min()), float(original.scale.max())
            yield (
                f"Norms of atoms were folded into the encoder, so codes of the copy are {low:.3g} to {high:.3g} times "
                "those of the original file (array `scale`)."
            )
        yield from cautions


def imported(source: str, format: str | None = None, **given: Any) -> Imported:
    """The SAE in a file or folder of any format, or in hub:OWNER/NAME/FOLDER; `given` is what it does not say itself.

    Raises:
        FileNotFoundError: if there is nothing there.
        FormatError: if it is damaged, or says what no SAE of ours computes.
    """
    if source.startswith("hub:"):
        from ...dictionaries.hub import from_pretrained

        owner, _, rest = source.removeprefix("hub:").strip("/").partition("/")
        name, _, inside = rest.partition("/")
        return from_pretrained(f"{owner}/{name}", inside, format=format, **given)
    return formats.read(Path(source).expanduser(), format, **given)


def _largest(difference: Float[Tensor, "b m"], of: Float[Tensor, "b m"]) -> float:
    largest = float(of.abs().max())
    return float(difference.abs().max()) / (largest if largest > 0 else 1.0)


def _stored(original: Imported, written: formats.Agreement) -> Generator[Measurement, None, None]:
    for at, agreement in (("original", original.agreement), ("copy", written)):
        if agreement is None:
            continue
        for name, value in (("code", agreement.codes), ("reconstruction", agreement.reconstruction)):
            yield Measurement(
                name=f"stored_{name}_difference",
                value=value,
                unit="share of the largest entry",
                n=agreement.rows,
                of="stored rows",
                reference=0.0,
                reference_is="equal",
                at={"of": at},
            )
