"""Who makes W by rule: random, regular, equiangular and optimised directions, as dictionaries of unit atoms."""

from __future__ import annotations

from .bases import basis_beside_hadamard, gold, mutually_unbiased
from .equiangular import complement, equiangular, lines_276, paley, steiner
from .lattices import e8, leech, roots
from .packed import packed
from .polytopes import (
    POLYTOPES,
    basis,
    cross_polytope,
    cube,
    dodecahedron,
    icosahedron,
    polygon,
    polytope,
    simplex,
    square_antiprism,
)
from .random import random_unit, spectrum_matched

__all__ = [
    "POLYTOPES",
    "basis",
    "basis_beside_hadamard",
    "complement",
    "cross_polytope",
    "cube",
    "dodecahedron",
    "e8",
    "equiangular",
    "gold",
    "icosahedron",
    "leech",
    "lines_276",
    "mutually_unbiased",
    "packed",
    "paley",
    "polygon",
    "polytope",
    "random_unit",
    "roots",
    "simplex",
    "spectrum_matched",
    "square_antiprism",
    "steiner",
]
