"""Does what a dictionary knows order the side effects of steering its latents in a real network? Measured, either way.

    superscope train pocket --site resid_post.2 --n 768 --k 16 --out runs/sae
    python scripts/collateral_of_latents.py runs/sae/sae [--model pocket] [--site resid_post.2]

Latents are drawn from all whose density is between 0.001 and 0.2. Each is added at every token of unrelated text,
once as strong as it is where it is on ("natural"), once all at one norm ("equal"), and the KL of predictions is
measured; the prediction sees atoms, encoder, densities and co-activations, and no network. docs/concepts.md has its
figures.
"""

from __future__ import annotations

import argparse

import torch

from superscope import capture, intervene
from superscope.dictionaries import load
from superscope.intervene.edits import Add
from superscope.intervene.side_effects import Features, divergences, predicted_collateral, rank_agreement


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("sae")
    options.add_argument("--model", default="pocket")
    options.add_argument("--site", default="resid_post.2")
    options.add_argument("--latents", type=int, default=64)
    options.add_argument("--tokens", type=int, default=1500)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    subject, sae = capture.load(given.model), load(given.sae)
    documents = capture.documents()
    corpora = [
        capture.tokens(subject.tokenizer, documents, context=128, limit=limit, seed=given.seed + shift)
        for limit, shift in ((20_000, 0), (given.tokens, 1))
    ]
    with torch.no_grad():
        rows = [next(iter(batch.values())).x for batch in capture.harvest(subject.model, [given.site], corpora[0])]
        f = torch.cat([sae.encode(x).dense() for x in rows])
    x = torch.cat(rows)
    W = sae.dictionary
    features = Features.of(W, f, reads=sae.encoder.detach())
    density = features.density
    level = features.total / density.clamp_min(1e-12)
    eligible = ((density > 1e-3) & (density < 0.2)).nonzero().flatten()
    order = torch.randperm(len(eligible), generator=torch.Generator().manual_seed(given.seed))
    chosen = eligible[order[: given.latents]]
    atoms = W.atoms.detach().double()[chosen]
    natural = atoms * level[chosen, None]
    equal = atoms / atoms.norm(dim=1, keepdim=True) * natural.norm(dim=1).median()
    explained = 1 - float((x - W.compose(f)).square().sum() / (x - x.mean(0)).square().sum())
    print(
        f"{given.site}: n = {W.n}, explains {explained:.3f} of the variance; {len(chosen)} of {len(eligible)} latents"
    )
    fisher = intervene.pullback_fisher(subject, given.site, corpora[0], draws=2, seed=given.seed)
    for name, vectors in (("natural", natural), ("equal", equal)):
        moved = divergences(subject, corpora[1], [{given.site: Add(v.float())} for v in vectors])
        kl = torch.tensor([one.mean for one in moved], dtype=torch.float64)
        shift = vectors @ features.reads.T
        overlaps = (shift.square() * density).sum(1)
        predictions = {
            "read-outs behind a ReLU": predicted_collateral(features, vectors, targets=chosen),
            "squared overlaps by density": overlaps,
            "Fisher (of the network)": torch.tensor([fisher.nats(v) for v in vectors], dtype=torch.float64),
        }
        controls = {"density": density[chosen], "norm": vectors.norm(dim=1)}
        print(f"{name}: KL {float(kl.min()):.4f} to {float(kl.max()):.4f} nats")
        for which, predicted in predictions.items():
            found = rank_agreement(predicted, kl, controls)
            gains = ", ".join(
                f"over {k} {v:+.2f} [{low:+.2f}, {high:+.2f}]" for k, (v, low, high) in found.gain.items()
            )
            print(
                f"  {which}: {found.correlation:.2f} [{found.low:.2f}, {found.high:.2f}], partial {found.partial:.2f} "
                f"[{found.partial_low:.2f}, {found.partial_high:.2f}], {gains}",
                flush=True,
            )


if __name__ == "__main__":
    main()
