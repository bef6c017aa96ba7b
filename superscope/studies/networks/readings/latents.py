"""What does each latent stand for? Its tokens, contexts, neighbours and promises."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .... import measure
from ....capture import pieces, spelling
from ....core import Findings
from .base import Reading, View

_CONTEXTS = 12
_SHOWN_LATENTS = 400
"""Latents of each site whose contexts are kept in the run, the most reliable ones: 400 are about 2 MB."""


class Latents(Reading):
    """The tables of latents and of their contexts, on the text learned from."""

    name: ClassVar[str] = "latents and their contexts"
    needs: ClassVar[tuple[str, ...]] = ("tokens",)

    def read(self, seen: View, findings: Findings) -> None:
        # Tables are made where the corpus is, on the CPU.
        codes = [(seen.sae.encode(batch.x).to("cpu"), batch) for batch in seen.rows]
        corpus, tokenizer, sae = seen.corpus, seen.subject.tokenizer, seen.sae
        places = [(code, batch.places.cpu()) for code, batch in codes if batch.places is not None]
        shares = measure.token_shares((code, batch.tokens.cpu()) for code, batch in codes if batch.tokens is not None)
        top = measure.top_contexts(places, count=_CONTEXTS, documents=corpus.document)
        texts = spelling(tokenizer)
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
        before, after = 12, 8
        around = measure.activations_around(places, top, before=before, after=after)
        columns: dict[str, list[Any]] = {
            name: [] for name in ("latent", "rank", "activation", "document", "position", "tokens", "activations")
        }
        for latent in order[:_SHOWN_LATENTS].tolist():
            for rank in range(int(top.filled[latent])):
                sequence, position = int(top.sequences[latent, rank]), int(top.positions[latent, rank])
                low, high = max(position - before, 0), min(position + after + 1, int(corpus.length[sequence]))
                shown = corpus.ids[sequence, low:high].tolist()
                first = low - (position - before)
                columns["latent"].append(latent)
                columns["rank"].append(rank)
                columns["activation"].append(float(top.values[latent, rank]))
                columns["document"].append(corpus.names[int(corpus.document[sequence])])
                # Where the token stands in its document: added special tokens at the window's head do not count.
                added = int(corpus.keep[sequence].int().argmax())
                columns["position"].append(int(corpus.start[sequence]) + position - added)
                columns["tokens"].append(pieces(tokenizer, shown))
                columns["activations"].append(around[latent, rank, first : first + len(shown)].tolist())
        findings.rows("contexts", columns, at=seen.at)
        _histogram(seen, count / rows, findings)


def _promoted(seen: View, texts: list[str], most: int = 6) -> list[list[str]]:
    """The tokens that each atom raises most if it is read out directly: largest entries of W_U w_i."""
    head = getattr(seen.subject.model, "get_output_embeddings", lambda: None)()
    atoms = seen.sae.dictionary.atoms
    if head is None or seen.kind != "residual" or head.weight.shape[1] != atoms.shape[1]:
        return []
    with torch.no_grad():
        # About the mean token: what raises all tokens alike raises none.
        weight = head.weight.float() - head.weight.float().mean(0)
        found = torch.cat([(block @ weight.T).topk(most).indices for block in atoms.split(512)])
    return [[texts[token] for token in row] for row in found.tolist()]


def _histogram(seen: View, density: Tensor, findings: Findings) -> None:
    logs = density[density > 0].double().log10()
    edges = torch.linspace(-6, 0, 49, dtype=torch.float64)
    counts = torch.histogram(logs.clamp(min=-6 + 1e-9), edges).hist
    findings.rows(
        "histograms",
        {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
        at={**seen.at, "what": "latent density", "series": "latents"},
    )
