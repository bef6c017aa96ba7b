"""What does a model keep of its predictions when it runs on the reconstruction of one site?"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import capture, intervene, measure
from ..capture import Corpus, Subject
from ..core import Activations, Measurement, Site, SparseCoder


def loss_recovered(
    subject: Subject,
    site: Site,
    corpus: Corpus,
    windows: int,
    coder: SparseCoder,
    mean: Tensor,
    *,
    left_out: Activations | None = None,
    own: intervene.Loss | None = None,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    """`measure.cross_entropy_recovered` on the first windows of a text; nothing where no token in them is predicted.

    Args:
        subject: a causal model.
        site: where the reconstruction takes the place of x.
        corpus: the text.
        windows: of it that are read.
        coder: reconstructs.
        mean: takes the place of x to see what the site is worth.
        left_out: outliers of the text, on which no dictionary was trained: they stay as they are.
        own: the model's own loss on these windows, where it is known.
        seed: of the bootstrap.
    """
    where = capture.ordinary_places(corpus, left_out)[:windows]
    corpus = corpus.take(torch.arange(windows))
    with torch.no_grad():
        clean = own or intervene.next_token_loss(subject, corpus)
        if not int(clean.counts.sum()):
            return ()
        spliced, ablated = (
            intervene.next_token_loss(subject, corpus, splice={site: change}, where=where)
            for change in (coder.reconstruct, lambda x: mean.expand_as(x))
        )
    return measure.cross_entropy_recovered(
        clean.nats, spliced.nats, ablated.nats, clean.counts, documents=corpus.document, seed=seed
    )
