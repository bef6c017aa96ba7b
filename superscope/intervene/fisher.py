"""How much does the output notice of a change to x? The pullback Fisher of a site, from gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..capture.inputs.as_corpus import Readable, as_corpus
from ..capture.inputs.images import Images
from ..capture.models.facts import device_of, evaluating, keywords_of
from ..capture.models.load import Subject
from ..capture.reading.harvest import batch, inputs
from ..capture.reading.hooks import fitted, visiting
from ..core import Site


def pullback_fisher(
    loaded: Subject, site: Site | str, corpus: Readable, *, draws: int = 1, batch_sequences: int = 16, seed: int = 0
) -> Float64[Tensor, "d d"]:
    r"""$F = \mathbb E[s s^\top]$, $s = \nabla_x \sum_{t' \ge t} \ln p(y_{t'})$, y drawn from the model itself.

    To second order the KL of all later predictions moves by $\tfrac12 \delta^\top F \delta$ nats when x at one token
    moves by delta: a token's x acts on its own prediction and, through attention, on those behind it. y is drawn, not
    read from the text: the text's own tokens would give the empirical Fisher, which is another matrix. Scores of
    different y are uncorrelated and their mean is 0, so summing them before the outer product costs nothing but noise.

    Args:
        loaded: a causal language model.
        site: whose x.
        corpus: text to average over.
        draws: of y for each window: passes backward. More make F smoother.
        batch_sequences: windows in one pass.
        seed: of y.

    Raises:
        TypeError: if the model predicts no next token, or corpus is pictures.
        SiteNotFound: if the site is not in the model.
        ValueError: if the text has no token, or the output does not depend on x.

    Source:
        Amari, "Natural gradient works efficiently in learning", 1998; as a metric of activations in FishBack,
        arXiv 2605.17231, 2026.
    """
    if loaded.kind != "causal":
        raise TypeError(f"pullback_fisher: '{loaded.name}' is an encoder and predicts no next token; give a causal model.")
    corpus = as_corpus(corpus, tokenizer=loaded.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("pullback_fisher: pictures have no next token; give text.")
    model = loaded.model
    generator = torch.Generator().manual_seed(seed)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    total: Tensor | None = None
    rows = 0
    for at in range(0, len(corpus), batch_sequences):
        ids, keep, mask = batch(corpus, slice(at, at + batch_sequences))
        held: list[Tensor] = []

        def take(place: Site, x: Tensor, held: list[Tensor] = held) -> Tensor:
            held.append(x.detach().requires_grad_())
            return held[-1]

        with torch.enable_grad(), evaluating(model), visiting(model, site, take):
            output = model(**inputs(model, model, ids, mask), **options)
            log = getattr(output, "logits", output).float().log_softmax(-1)
            x = held[0]
            rest = keep.to(device_of(model))
            for draw in range(draws):
                y = torch.multinomial(log.detach().exp().flatten(0, 1).cpu(), 1, generator=generator)
                score = (log.gather(-1, y.reshape(*ids.shape, 1).to(log.device))[..., 0] * rest).sum()
                (s,) = torch.autograd.grad(score, x, retain_graph=draw + 1 < draws)
                s = s[fitted(rest, s, Site.read(str(site)))].double()
                total = s.T @ s if total is None else total + s.T @ s
                rows += len(s)
    if total is None or not rows:
        raise ValueError("pullback_fisher: the text has no token to read; give more.")
    if not float(total.diagonal().sum()) > 0:
        raise ValueError(f"pullback_fisher: the output does not depend on x at {site}; choose a site that it reads.")
    return total.cpu() / rows


def pullback_metric(
    network: Callable[[Tensor], Tensor], x: Float[Tensor, "rows d"], *, draws: int = 8, seed: int = 0
) -> Float64[Tensor, "d d"]:
    r"""$F = \mathbb E[J^\top J]$, J the Jacobian of the network's outputs: the Fisher where outputs are means of Gaussians.

    $\delta^\top F \delta$ is the squared change of the outputs, to first order. Made of $J^\top \epsilon$ with
    $\epsilon$ normal, each draw one pass backward.

    Args:
        network: from rows of x to rows of outputs.
        x: rows to average over.
        draws: of epsilon.
        seed: of epsilon.

    Raises:
        ValueError: if there is no row, or the outputs do not depend on x.
    """
    if not len(x):
        raise ValueError("pullback_metric: there are no rows; give at least one.")
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = network(x)
        for draw in range(draws):
            noise = torch.randn(out.shape, generator=generator).to(out)
            (s,) = torch.autograd.grad((out * noise).sum(), x, retain_graph=draw + 1 < draws, allow_unused=True)
            if s is not None:
                total += (s.double().T @ s.double()).cpu()
    if not float(total.diagonal().sum()) > 0:
        raise ValueError("pullback_metric: the outputs do not depend on x; give another network or other rows.")
    return total / (len(x) * draws)
