"""How easily is a layer disturbed? Equal moves along features, between them and through their interference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..capture.inputs.text import Corpus
from ..capture.models.facts import device_of, evaluating, keywords_of
from ..capture.models.load import Subject
from ..capture.reading.harvest import batch, inputs
from ..core import Site
from .rewriting import replace

_COHERENT = 0.1


def along(atoms: Float[Tensor, "n d"], features: Int[Tensor, "m"]) -> Float[Tensor, "m d"]:
    """Unit moves along features."""
    return normalize(atoms[features], dim=1)


def between(atoms: Float[Tensor, "n d"], features: Int[Tensor, "m"], *, seed: int = 0) -> Float[Tensor, "m d"]:
    r"""Unit moves halfway between each feature and another of the given ones, nearly orthogonal to it.

    $(a_i + a_j) / \|a_i + a_j\|$, j drawn from those with $|\cos| < 0.1$; where there are none, the one nearest to a
    right angle.

    Raises:
        ValueError: if there are fewer than two features.
    """
    if len(features) < 2:
        raise ValueError(f"between: {len(features)} feature; a move between two wants at least 2.")
    a = along(atoms, features)
    overlap = (a @ a.T).abs().fill_diagonal_(2.0)
    # Of equal chance below the limit, and past it only the least.
    chance = (
        (overlap < _COHERENT)
        .double()
        .scatter_add_(
            1, overlap.argmin(1, keepdim=True), torch.full((len(a), 1), 1e-9, dtype=torch.float64, device=a.device)
        )
    )
    partner = torch.multinomial(chance.cpu(), 1, generator=torch.Generator().manual_seed(seed))[:, 0].to(a.device)
    return normalize(a + a[partner], dim=1)


def through_interference(atoms: Float[Tensor, "n d"], features: Int[Tensor, "m"]) -> Float[Tensor, "m d"]:
    r"""Unit moves that reach a feature's read-out by other features alone: $\sum_{j \ne i} (a_i \cdot a_j)\, a_j$.

    Of all changes $\delta f$ of the other features of one length, the one along $G_{i \cdot}$ moves the read-out
    $a_i \cdot x$ most, by $\sqrt{\sum_{j \ne i} G_{ij}^2}$ a unit of it (`interference_gain`); this is what it does to
    x. Where no two atoms overlap there is none, and the row is zero.
    """
    a = normalize(atoms, dim=1)
    chosen = a[features]
    return normalize(chosen @ a.T @ a - chosen, dim=1)


def interference_gain(atoms: Float[Tensor, "n d"], features: Int[Tensor, "m"]) -> Float[Tensor, "m"]:
    r"""$\sqrt{\sum_{j \ne i} G_{ij}^2}$: how far others of length 1 move a read-out; its own would move it by 1.

    At least $\sqrt{n/d - 1}$ in root mean square over all features of a dictionary of unit atoms (Welch).
    """
    a = normalize(atoms, dim=1)
    return ((a[features] @ a.T).square().sum(1) - 1).clamp(min=0).sqrt()


def at_random(count: int, d: int, *, seed: int = 0) -> Float[Tensor, "count d"]:
    """Unit moves of random direction."""
    return normalize(torch.randn(count, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@torch.no_grad()
def damage(
    loaded: Subject,
    site: Site | str,
    corpus: Corpus,
    positions: Int[Tensor, "S"],
    moves: Float[Tensor, "m d"],
    *,
    batch_sequences: int = 32,
) -> Float64[Tensor, "m S"]:
    r"""$\sum_{t' \ge t} \mathrm{KL}(p_{t'} \,\|\, p'_{t'})$ in nats, x at one token t of each window moved by $\delta$.

    Over the predictions that the token can reach: its own and those behind it in the window. In float64.

    Args:
        loaded: a causal language model.
        site: whose x is moved.
        corpus: windows.
        positions: of the token in each window; one that the corpus keeps.
        moves: in units of x, each tried on every window.
        batch_sequences: windows in one pass.

    Raises:
        ValueError: if there is not one position for each window, inside it.
    """
    if positions.shape != (len(corpus),) or bool((positions < 0).any() | (positions >= corpus.length).any()):
        raise ValueError(f"damage: give one position inside each of the {len(corpus)} windows.")
    model = loaded.model
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    found = torch.zeros(len(moves), len(corpus), dtype=torch.float64)
    for at in range(0, len(corpus), batch_sequences):
        part = slice(at, at + batch_sequences)
        ids, keep, mask = batch(corpus, part)
        times = torch.arange(ids.shape[1])
        place = positions[part, None]
        rows = (times == place).to(device_of(model))
        counted = (keep & (times >= place)).to(device_of(model))

        def log_probabilities(ids: Tensor = ids, mask: Tensor = mask, counted: Tensor = counted) -> Tensor:
            output = model(**inputs(model, model, ids, mask), **options)
            return getattr(output, "logits", output)[counted].double().log_softmax(-1)

        owner = torch.arange(len(ids), device=counted.device)[:, None].expand_as(counted)[counted]
        with evaluating(model):
            clean = log_probabilities()
            for number, move in enumerate(moves):

                def moved(x: Tensor, move: Tensor = move) -> Tensor:
                    return x + move.to(x)

                with replace(model, site, moved, rows=rows):
                    changed = log_probabilities()
                kl = (clean.exp() * (clean - changed)).sum(-1)
                found[number, part] = torch.zeros(len(ids)).double().index_add_(0, owner.cpu(), kl.cpu())
    return found


def last_logits(loaded: Subject, site: Site | str, ids: Int[Tensor, "t"]) -> Callable[[Tensor], Tensor]:
    """The network behind a site, as a function of x at the last token: rows [b, d] to logits [b, vocabulary].

    For `measure.lp_exponent`, which moves rows of x and asks what becomes of the output.
    """
    model = loaded.model
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    last = torch.arange(len(ids)) == len(ids) - 1

    @torch.no_grad()
    def network(x: Tensor) -> Tensor:
        found = []
        for part in x.split(256):
            several = ids.expand(len(part), -1)
            rows = last.expand(len(part), -1).to(device_of(model))
            with evaluating(model), replace(model, site, lambda old, part=part: part.to(old), rows=rows):
                output = model(**inputs(model, model, several, torch.ones_like(several, dtype=torch.bool)), **options)
            found.append(getattr(output, "logits", output)[:, -1].float())
        return torch.cat(found)

    return network
