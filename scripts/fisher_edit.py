"""What does a Fisher edit spare? Its divergence on unrelated text beside plain addition's, at equal concept log-odds.

    python scripts/fisher_edit.py [--model pocket] [--raise 1.0]

For each concept and site: the difference of means v, the gradient g of the concept's log-odds, and g pulled back
through the Fisher matrix of unrelated text, F^-1 g; each at the strength that raises the log-odds by as much on held-
out texts without the concept; then KL on unrelated text, of other documents than F was made of. docs/concepts.md has
its table.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch

from superscope import capture, intervene
from superscope.capture.inputs.as_corpus import as_corpus
from superscope.capture.pocket.text import documents, split
from superscope.intervene import concepts, dose
from superscope.intervene.collateral import minimal, rho
from superscope.intervene.concepts.log_odds import TokenOdds
from superscope.intervene.edits import Add
from superscope.intervene.side_effects import divergences

RIDGE = 0.01
"""Of F's mean eigenvalue; fixed before anything was measured."""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="pocket")
    options.add_argument("--raise", dest="rise", type=float, default=1.0, help="nats of log-odds")
    options.add_argument("--sites", nargs="+", default=["resid_post.1", "resid_post.2"])
    options.add_argument("--concepts", nargs="+", default=list(concepts.POCKET_CONCEPTS))
    options.add_argument("--texts", type=int, default=200)
    options.add_argument("--fisher-windows", type=int, default=600)
    given = options.parse_args()
    subject = capture.load(given.model)
    _, held_out = split(documents())
    corpora = [
        capture.tokens(subject.tokenizer, [d.text for d in part], context=context, limit=limit, seed=0)
        for part, context, limit in (
            (held_out[::2], 32, 32 * given.fisher_windows),
            (held_out[1::2], 128, 6000),
        )
    ]
    ratios = []
    for site in given.sites:
        fisher = intervene.pullback_fisher(subject, site, corpora[0], draws=4, seed=0)
        F = fisher.matrix
        moments = torch.linalg.eigvalsh(F)
        effective = float(moments.sum() ** 2 / moments.square().sum())
        print(f"{site}: F of {fisher.samples} scores; {effective:.1f} of {len(F)} dimensions count")
        K = F + RIDGE * F.diagonal().mean() * torch.eye(len(F), dtype=F.dtype)
        for name in given.concepts:
            train, held = concepts.pocket_contrast(name, n=given.texts).split(0.5, seed=0)
            (rows,) = concepts.contrast_rows(subject, train, [site]).values()
            v = concepts.DiffMean().find(rows).vector
            odds = TokenOdds.of(subject, train)
            corpus = as_corpus(list(held.negative), tokenizer=subject.tokenizer)
            plain = odds.mean(subject, corpus)
            g = odds.gradient(subject, corpus_of(subject, train.negative), site)
            edits = {"diff-mean": v, "gradient": g, "fisher": minimal(g, K)}
            results = {}
            for kind, vector in edits.items():
                # In units of the first order: at strength 1 the gradient promises what is asked for.
                unit = vector * given.rise / float(g @ vector)
                rise = partial(_rise, odds, subject, corpus, site, unit, plain)
                match = dose.matched(rise, given.rise, most=4.0)
                (moved,) = divergences(subject, corpora[1], [{site: Add(unit.float()).at(match.strength)}])
                results[kind] = (match, moved, rho(vector, g, K))
            base = results["diff-mean"][1].mean
            ratio = results["fisher"][1].mean / base
            ratios.append(ratio)
            print(f"  {name}: log-odds {plain:+.2f}, n = {corpus.n_tokens} tokens")
            for kind, (match, moved, far) in results.items():
                missed = "" if match.reached else ", not reached"
                print(
                    f"    {kind:10s} strength {match.strength:.2f} ({match.effect:+.2f}{missed})  "
                    f"KL {moved.mean:.4f} nats  delta loss {moved.delta_loss:+.4f}  rho {far:.2f}  "
                    f"ratio {moved.mean / base:.2f}",
                    flush=True,
                )
    print(f"median ratio fisher / diff-mean {statistics.median(ratios):.3f} over {len(ratios)} of {sorted(ratios)}")


def _rise(
    odds: TokenOdds,
    subject: capture.Subject,
    corpus: capture.Readable,
    site: str,
    unit: Tensor,
    plain: float,
    strength: float,
) -> float:
    """How far the log-odds rise at a strength."""
    return odds.mean(subject, corpus, {site: Add(unit.float()).at(strength)}) - plain


def corpus_of(subject: capture.Subject, texts: tuple[str, ...]):
    return as_corpus(list(texts), tokenizer=subject.tokenizer)


if __name__ == "__main__":
    main()
