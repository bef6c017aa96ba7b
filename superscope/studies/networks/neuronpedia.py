"""How do others look through these features? A scan's feature pages as Neuronpedia imports them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from torch import Tensor

from ... import capture
from ...core import Answer, Findings, FormatError, Measurement, Report, Run, SiteNotFound, files
from ...dictionaries import SAE, load
from ..settings import Count
from ..study import Progress, Study
from .readings import TRAINED

_PROMOTED = 10


@dataclass(frozen=True)
class Neuronpedia(Study):
    """Write the features of a scan as files that Neuronpedia imports.

    One folder, MODEL/LAYER-SET, with the model, the release, the set and the source, features and activations in
    batches of compressed lines of JSON, and labels as explanations. What a scan has not kept (a latent's histogram of
    activations, correlated neurons) is left empty. Nothing is sent anywhere.
    """

    kind: ClassVar[str] = "neuronpedia"

    scan: Annotated[str, tyro.conf.Positional]
    """Run folder of `superscope scan` or `superscope survey`."""
    target: Annotated[str, tyro.conf.Positional]
    """New folder to write."""
    site: str | None = None
    """Which site of it. Default: its only one."""
    model_id: str = ""
    """The model's name there. Default: the last part of the name that was scanned."""
    source_set: str = "superscope"
    """Name of the set of sources."""
    creator: str = ""
    """Your id there; an import asks for one."""
    labels: str | None = None
    """JSON file of labels by the latent's number, `{"12": "names of months"}`. Default: what its contexts agree in."""
    batch: Count = 256
    """Features in a file."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the scan", 0, 1)
        folder = Path(self.scan).expanduser()
        report = Report.load(folder)
        site, latents, contexts = self._tables(report)
        given = self._labels(latents["latent"])
        sae, subject = self._sae(folder, site), capture.load(str(report.settings["model"]))
        place = capture.sites(subject.model, [site])[0]
        hook = capture.hook_name(subject.model, place) or site
        layer = re.search(r"\d+", hook)
        model_id = self.model_id or Path(str(report.settings["model"])).name
        source = f"{layer.group() if layer else 0}-{self.source_set}"
        target = Path(self.target).expanduser() / model_id / source
        if target.exists():
            raise FileExistsError(f"{target} is there already. Give another --target, --model-id or --source-set.")
        promoted = _promoted(subject, place, sae)
        vocabulary = capture.spelling(subject.tokenizer) if promoted else []
        common = {"modelId": model_id, "layer": source, "creatorId": self.creator}
        yield Progress("Reading the scan", 1, 1, f"{len(latents['latent']):,} features")
        head = {
            "model": {"id": model_id, "displayName": model_id, "layers": len(capture.blocks(subject.model)),
                      "dimension": subject.d, "creatorId": self.creator},
            "release": {"name": self.source_set, "description": report.title, "creatorName": self.creator},
            "sourceset": {"modelId": model_id, "name": self.source_set, "releaseName": self.source_set,
                          "description": report.title, "creatorId": self.creator},
            "source": {"id": source, "modelId": model_id, "setName": self.source_set, "hookName": hook,
                       "creatorId": self.creator},
        }  # fmt: skip
        # Whole or absent, whenever it is stopped.
        part = target.with_name(f".{target.name}.part")
        files.remove(part)
        for name, body in head.items():
            files.write_text(part / f"{name}.jsonl", json.dumps(body) + "\n")
        nearest = _nearest(sae)
        count = len(latents["latent"])
        by_latent: dict[int, list[int]] = {}
        for row, latent in enumerate(contexts["latent"]):
            by_latent.setdefault(int(latent), []).append(row)
        written = {"features": 0, "activations": 0, "explanations": 0}
        for number, first in enumerate(range(0, count, self.batch)):
            rows = range(first, min(first + self.batch, count))
            lines = {
                "features": [
                    _feature(latents, row, common, hook, sae, nearest, promoted, vocabulary) for row in rows
                ],
                "activations": [
                    _activation(contexts, row, common)
                    for at in rows
                    for row in by_latent.get(int(latents["latent"][at]), [])
                ],
                "explanations": [
                    {"id": f"{source}-{index}", **common, "index": index, "description": label,
                     "authorId": self.creator, "typeName": "superscope-contexts" if index not in given else "given",
                     "explanationModelName": None}
                    for row in rows
                    if (label := given.get(index := int(latents["latent"][row]), _said(latents, row)))
                ],
            }  # fmt: skip
            for name, several in lines.items():
                _write_lines(part / name / f"batch-{number}.jsonl.gz", several)
                written[name] += len(several)
            yield Progress("Writing features", rows.stop, count)
        part.rename(target)
        findings = Findings()
        for name, number in written.items():
            findings.add(
                Measurement(
                    name=f"exported_{name}", value=float(number), unit=name, n=count, of="features",
                    how="no interval: a count of lines",
                )
            )  # fmt: skip
        return Answer(
            title=f"{count:,} features of {model_id} at {site}, for Neuronpedia",
            findings=findings,
            sentences=(
                f"{target} holds {written['features']:,} features, {written['activations']:,} contexts and "
                f"{written['explanations']:,} labels.",
                *(() if self.creator else ("An import asks for a creator's id; none was given with --creator.",)),
            ),
        )

    def _tables(self, report: Report) -> tuple[str, Mapping[str, list], Mapping[str, list]]:
        """The site, and what is known of its latents and of their contexts."""
        if "latents" not in report.tables or "model" not in report.settings:
            raise FormatError(f"{self.scan} holds no features. Give the run folder of a scan of a language model.")
        sites = list(dict.fromkeys(report.tables["latents"]["site"]))
        if self.site is None and len(sites) > 1:
            raise ValueError(f"{self.scan} has {len(sites)} sites; give one with --site: {', '.join(sites)}.")
        site = sites[0] if self.site is None else self.site
        if site not in sites:
            raise SiteNotFound(f"{self.scan} has no site {site}. It has {', '.join(sites)}.")
        latents, contexts = (_rows(report.tables[name], site) for name in ("latents", "contexts"))
        return site, latents, contexts

    def _labels(self, latents: Sequence[int]) -> dict[int, str]:
        if self.labels is None:
            return {}
        read = files.read_json(Path(self.labels).expanduser())
        if not isinstance(read, dict) or not all(isinstance(label, str) for label in read.values()):
            raise FormatError(f'{self.labels} is no object of labels by number, as {{"12": "names of months"}}.')
        known = {str(latent) for latent in latents}
        if unknown := sorted(set(read) - known):
            raise FormatError(f"{self.labels} labels {unknown[0]!r}, and the site has no such latent.")
        return {int(number): label for number, label in read.items()}

    def _sae(self, folder: Path, site: str) -> SAE:
        """The dictionary that the scan's tables speak of, the one of the first seed."""
        place = folder / "saes" / TRAINED / site.replace(":", "-") / "seed0"
        sae = load(place)
        assert isinstance(sae, SAE)
        return sae


def _rows(table: Mapping[str, Sequence[Any]], site: str) -> dict[str, list]:
    """The rows of the trained model at one site."""
    chosen = [i for i, at in enumerate(table["site"]) if at == site and table["model"][i] == TRAINED]
    return {name: [column[i] for i in chosen] for name, column in table.items()}


def _nearest(sae: SAE, most: int = 10) -> tuple[Tensor, Tensor]:
    """(cosines, numbers) of each atom's nearest others."""
    unit = sae.dictionary.unit().atoms.detach()
    parts = []
    for start in range(0, len(unit), 512):
        cosines = unit[start : start + 512] @ unit.T
        cosines.diagonal(start).fill_(-2.0)
        parts.append(cosines.topk(min(most, len(unit) - 1)))
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


@torch.no_grad()
def _promoted(subject: capture.Subject, site: Any, sae: SAE) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each atom the tokens whose logits it raises most and lowers most by the direct path, with by how much."""
    head = getattr(subject.model, "get_output_embeddings", lambda: None)()
    if head is None or subject.kind_of(site) != "residual":
        return []
    weight = head.weight.float() - head.weight.float().mean(0)
    found = []
    for block in sae.dictionary.atoms.split(512):
        logits = block @ weight.T
        up, down = logits.topk(_PROMOTED), logits.topk(_PROMOTED, largest=False)
        found += zip(up.indices, up.values, down.indices, down.values, strict=True)
    return found


def _feature(
    latents: Mapping[str, list],
    row: int,
    common: Mapping[str, str],
    hook: str,
    sae: SAE,
    nearest: tuple[Tensor, Tensor],
    promoted: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    vocabulary: Sequence[str],
) -> dict[str, Any]:
    index = int(latents["latent"][row])
    up, gains, down, losses = promoted[index] if promoted else (torch.zeros(0),) * 4
    strongest = float(latents["max_active"][row] or 0.0)
    return {
        **common,
        "index": index,
        "maxActApprox": strongest,
        "frac_nonzero": float(latents["density"][row]),
        "pos_str": [vocabulary[int(token)] for token in up],
        "pos_values": gains.tolist(),
        "neg_str": [vocabulary[int(token)] for token in down],
        "neg_values": losses.tolist(),
        "topkCosSimIndices": nearest[1][index].tolist(),
        "topkCosSimValues": nearest[0][index].tolist(),
        "freq_hist_data_bar_heights": [],
        "freq_hist_data_bar_values": [],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "decoder_weights_dist": [],
        "hasVector": True,
        "vector": sae.dictionary.atoms[index].tolist(),
        "hookName": hook,
        "vectorDefaultSteerStrength": strongest,
    }


def _activation(contexts: Mapping[str, list], row: int, common: Mapping[str, str]) -> dict[str, Any]:
    values = [float(value) for value in contexts["activations"][row]]
    peak = max(range(len(values)), key=values.__getitem__)
    index = int(contexts["latent"][row])
    return {
        "id": f"{common['layer']}-{index}-{contexts['rank'][row]}",
        **common,
        "index": index,
        "tokens": list(contexts["tokens"][row]),
        "values": values,
        "maxValue": values[peak],
        "maxValueTokenIndex": peak,
        "minValue": min(values),
        "qualifyingTokenIndex": peak,
        "binMin": None,
        "binMax": None,
        "binContains": None,
        "dataSource": contexts["document"][row],
    }


def _said(latents: Mapping[str, list], row: int) -> str:
    """What a latent's contexts agree in, with its tokens; nothing of one that was never active."""
    tokens = [token for token in latents["top_tokens"][row][:3] if token.strip()]
    if not tokens or not latents["clarity"][row]:
        return ""
    return f"{latents['clear_by'][row]}: {', '.join(repr(token) for token in tokens)}"


def _write_lines(path: Path, lines: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with files.atomic(path) as temporary:
        # No time of making in it, so that the same features are the same bytes.
        temporary.write_bytes(gzip.compress(body.encode(), mtime=0))
