"""What does each latent stand for? Its tokens, contexts, neighbours and promises."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .... import measure
from ....core import Findings
from ....measure import TopContexts
from .base import Reading, View
from .stretch import AFTER, BEFORE, stretch

_CONTEXTS = 12
"""Contexts that clarity is judged by."""
_STRONGEST = 8
"""Of them, those that are kept in the run."""
_BANDS = ("lowest", "middle", "highest")
_SHOWN_LATENTS = 400
"""Latents of each site whose contexts are kept in the run, the most reliable ones: 400 are about 2 MB."""
_PARTS = 6
"""Tokens raised, tokens lowered, and axes, of each latent."""


class Latents(Reading):
    """The tables of latents, of their contexts and of what they write, on the text learned from."""

    name: ClassVar[str] = "latents and their contexts"
    needs: ClassVar[tuple[str, ...]] = ("tokens",)

    def read(self, seen: View, findings: Findings) -> None:
        # Tables are made where the corpus is, on the CPU.
        codes = [(seen.sae.encode(batch.x).to("cpu"), batch) for batch in seen.rows]
        corpus, texts, sae = seen.corpus, seen.texts, seen.sae
        places = [(code, batch.places.cpu()) for code, batch in codes if batch.places is not None]
        shares = measure.token_shares((code, batch.tokens.cpu()) for code, batch in codes if batch.tokens is not None)
        top = measure.top_contexts(places, count=_CONTEXTS, documents=corpus.document)
        clear = measure.clarity(
            top,
            corpus.ids,
            kinds=measure.token_kinds(texts),
            words=measure.token_words(texts),
            keep=corpus.keep,
            seed=seen.seed,
        )
        rows = sum(len(code) for code, _ in codes)
        used = [code.values != 0 for code, _ in codes]
        indices = torch.cat([code.indices[mask] for (code, _), mask in zip(codes, used, strict=True)])
        values = torch.cat([code.values[mask] for (code, _), mask in zip(codes, used, strict=True)]).double()
        count = torch.bincount(indices, minlength=sae.n)
        mean = torch.zeros(sae.n, dtype=torch.float64).index_add_(0, indices, values) / count.clamp(min=1)
        promoted = _promoted(seen, texts)
        # What every seed found first, among it the clearest (clarity is at most 1); the silent last.
        recurs = seen.recurrence(seen.wanted).counts.cpu()
        order = (2.0 * recurs + clear.score - 2.0 * (count == 0)).argsort(descending=True, stable=True)
        findings.rows(
            "latents",
            {
                "latent": order.tolist(),
                "density": (count / rows)[order].tolist(),
                "mean_active": mean[order].tolist(),
                "max_active": top.values[:, 0][order].tolist(),
                "recurs": recurs[order].tolist(),
                "nearest": seen.nearest.partner[order].tolist(),
                "nearest_cosine": seen.nearest.cosine[order].tolist(),
                "clarity": clear.score[order].tolist(),
                "clear_by": [clear.readings[reading] for reading in clear.reading[order].tolist()],
                "top_tokens": [[texts[t] for t in row if t >= 0] for row in shares.tokens[order].tolist()],
                "top_token_share": [
                    [share for share, t in zip(row, ids, strict=True) if t >= 0]
                    for row, ids in zip(shares.shares[order].tolist(), shares.tokens[order].tolist(), strict=True)
                ],
                "promotes": [promoted[latent] if promoted else [] for latent in order.tolist()],
            },
            at=seen.at,
        )
        bands = measure.banded_contexts(places, top.values[:, 0], documents=corpus.document, seed=seen.seed)
        shown = order[:_SHOWN_LATENTS]
        columns: dict[str, list[Any]] = {
            name: []
            for name in ("latent", "rank", "band", "activation", "document", "position", "tokens", "activations")
        }
        drawn = _beside(top, bands.places)
        around = measure.activations_around(places, drawn, before=BEFORE, after=AFTER)
        for latent in shown.tolist():
            for rank in range(drawn.values.shape[1]):
                sequence, position = int(drawn.sequences[latent, rank]), int(drawn.positions[latent, rank])
                if sequence < 0:
                    continue
                text, inside = stretch(seen, corpus, sequence, position)
                band = "strongest" if rank < _STRONGEST else _BANDS[bands.band(rank - _STRONGEST)]
                # A draw from a band knows its lot, and its value stands in the middle of its window.
                row = {"latent": latent, "rank": rank, "band": band, "activation": float(around[latent, rank, BEFORE])}
                for name, cell in {**row, **text, "activations": around[latent, rank, inside].tolist()}.items():
                    columns[name].append(cell)
        findings.rows("contexts", columns, at=seen.at)
        findings.rows("writes", _writes(seen, texts, shown, bands.counts), at=seen.at)
        _histogram(seen, count / rows, findings)


def _beside(top: TopContexts, drawn: TopContexts) -> TopContexts:
    """The strongest contexts, then those drawn from bands."""
    names = ("values", "sequences", "positions", "documents")
    return TopContexts(*(torch.cat([getattr(top, n)[:, :_STRONGEST], getattr(drawn, n)], 1) for n in names))


def _read_out(seen: View) -> Tensor | None:
    """What each token's logit reads from the stream, about the mean token: what raises all alike raises none."""
    head = getattr(seen.subject.model, "get_output_embeddings", lambda: None)()
    if head is None or seen.kind != "residual" or head.weight.shape[1] != seen.d:
        return None
    with torch.no_grad():
        return head.weight.float() - head.weight.float().mean(0)


def _promoted(seen: View, texts: list[str]) -> list[list[str]]:
    """The tokens that each atom raises most if it is read out directly: largest entries of W_U w_i."""
    weight = _read_out(seen)
    if weight is None:
        return []
    with torch.no_grad():
        atoms = seen.sae.dictionary.atoms
        found = torch.cat([(block @ weight.T).topk(_PARTS).indices for block in atoms.split(512)])
    return [[texts[token] for token in row] for row in found.tolist()]


def _writes(seen: View, texts: list[str], shown: Tensor, counts: Tensor) -> dict[str, list[Any]]:
    """What some atoms do to logits by the direct path, for an activation of 1, and to which axes; their strengths."""
    atoms, weight = seen.sae.dictionary.atoms.detach().float()[shown], _read_out(seen)
    unit = torch.nn.functional.normalize(atoms, dim=1).cpu()
    axes = unit.abs().topk(min(_PARTS, unit.shape[1])).indices
    columns: dict[str, list[Any]] = {
        "latent": shown.tolist(),
        "strengths": counts[shown].tolist(),
        "axes": axes.tolist(),
        "axis_weights": unit.gather(1, axes).tolist(),
    }
    for name, sign in (("raises", 1.0), ("lowers", -1.0)):
        with torch.no_grad():
            found = None if weight is None else (sign * (atoms @ weight.T)).topk(_PARTS)
        columns[name] = (
            [[] for _ in shown] if found is None else [[texts[t] for t in r] for r in found.indices.tolist()]
        )
        columns[f"{name}_by"] = [[] for _ in shown] if found is None else (sign * found.values).tolist()
    return columns


def _histogram(seen: View, density: Tensor, findings: Findings) -> None:
    logs = density[density > 0].double().log10()
    edges = torch.linspace(-6, 0, 49, dtype=torch.float64)
    counts = torch.histogram(logs.clamp(min=-6 + 1e-9), edges).hist
    findings.rows(
        "histograms",
        {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
        at={**seen.at, "what": "latent density", "series": "latents"},
    )
