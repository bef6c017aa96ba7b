"""What networks make: hidden activations of trained toys, and circuits compressed into fewer dimensions."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...features import Circuit, FeatureDistribution, Independent
from ...toys import Ensemble, Recipe, Tied, train
from ..presets import on_random_directions
from ..world import World
from .dependent import solved
from .independent import share_active

_REPRESENTED = 0.5
"""Length from which an atom of a trained toy is represented: near 0 or near 1 where features are sparse, and no clear
cut where they are dense."""


def toy_networks(n: int = 64, d: int = 16, l0: float | int = 1.0, *, steps: int = 2000, seed: int = 0) -> World:
    r"""Hidden activations x = W f of a network trained on $f' = \mathrm{ReLU}(W^\top W f + b)$; magnitudes U[0, 1].

    Where they lie is the network's choice: in polygons and opposite pairs, and features it does not represent (an atom
    shorter than 1/2) are not to be found, though what is left of them is in x. `world.network` is what the network
    makes of x.

    Args:
        n: features of the network's inputs.
        d: hidden dimensions.
        l0: active features in a row on average.
        steps: of training.
        seed: of the network's start and its data.

    Raises:
        ValueError: if a number is out of its range.

    Source:
        Elhage et al., "Toy models of superposition", 2022.
    """
    return _of_network(Independent(n, share_active("toy_networks", n, l0)), d, steps, seed)


def circuits(
    n: int = 128,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    depth: int = 2,
    compression: Literal["random", "learned"] = "random",
    steps: int = 2000,
    seed: int = 0,
) -> World:
    """Sparse booleans, as many gates over them as there are inputs, and all of these in fewer dimensions.

    A gate is never active without some of its arguments. The number of features is what can be known: an *or* and its
    arguments may be told otherwise in fewer active features, so directions need not come out as they are here.

    Args:
        n: variables: inputs, and as many gates.
        d: dimensions.
        l0: true variables in a row on average.
        depth: layers of gates, 1 to 3.
        compression: random directions, or those of a toy network trained to reconstruct all variables.
        steps: of that training.
        seed: of gates, directions and training.

    Raises:
        ValueError: if a number is out of its range, or n is too small for gates that can be told apart.
    """
    share_active("circuits", n, l0)
    inputs = max(2, (n + 1) // 2)
    wires = Circuit(max(n, inputs), inputs, 0.5, depth, seed)
    p = solved(lambda p: float(wires.density_at(p).sum()), l0, "circuits", 1.0)
    law = replace(wires, p=p)
    return _of_network(law, d, steps, seed) if compression == "learned" else on_random_directions(law, d, seed=seed)


def _of_network(law: FeatureDistribution, d: int, steps: int, seed: int) -> World:
    """What a network trained to reconstruct the law's features holds of them."""
    ensemble = _trained(law, d, steps, seed)
    dictionary = ensemble.dictionary(0)
    component = torch.where(dictionary.norms >= _REPRESENTED, torch.arange(law.n), -1)

    def network(x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows n"]:
        return ensemble.family.output(ensemble.parameters, x[None])[0]

    return World(law, dictionary, component=component, network=network)


@lru_cache(maxsize=32)
def _trained(law: FeatureDistribution, d: int, steps: int, seed: int) -> Ensemble:
    """One tied toy; kept, for a family is asked for one world again and again."""
    ensemble = Ensemble(Tied(law.n, d), law, seeds=seed)
    recipe = Recipe(steps=steps, batch=512, lr=3e-3, schedule="cosine", weight_decay=0.0)
    for _ in train(ensemble, recipe, every=steps):
        pass
    return ensemble
