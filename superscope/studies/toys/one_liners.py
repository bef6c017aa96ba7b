"""Two calls for people who have not met the nouns yet."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ...core import Answer, Dictionary, Findings, Measurement, Report, Run, ShapeError, SparseCode
from ...measure import coherence, interference
from ...measure.toy import dimensionalities, feature_dimensionality, features_per_dimension, overlaps, representedness
from .sweep import ToySweep


def analyze_superposition(
    n_features: int = 20,
    n_hidden: int = 5,
    sparsity: float = 0.99,
    *,
    importance: float = 1.0,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 4000,
) -> Report:
    """Trains small toy models and reports what they did with their features.

    `sparsity` is P(feature is *zero*), as the toy paper's readers know it: 0.99 means each feature is active in 1 % of
    inputs. Everywhere else in this package the number is `density` = 1 - sparsity.

    Args:
        n_features: features.
        n_hidden: hidden dimensions.
        sparsity: P(feature is zero), in [0, 1).
        importance: feature i weighs importance^i.
        seeds: starts; the report gives each.
        steps: of training.

    Returns:
        The report of a `ToySweep`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> report = analyze_superposition(n_features=5, n_hidden=2, sparsity=0.9, seeds=(0,), steps=50)
        >>> report["features_per_dimension"][0].unit
        'features per dimension'
    """
    for name, value in (("n_features", n_features), ("n_hidden", n_hidden)):
        if value < 1:
            raise ValueError(f"analyze_superposition: {name} must be at least 1; got {value}.")
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"analyze_superposition: sparsity is P(feature is zero) and must lie in [0, 1); got {sparsity}. "
            "For features that are rarely active give a number near 1."
        )
    # 1 - sparsity in decimal, so that 0.99 is reported as a density of 0.01.
    density = round(1 - sparsity, 12)
    return ToySweep(
        n=n_features,
        d=n_hidden,
        densities=(density,),
        seeds=tuple(seeds),
        importance=importance,
        steps=steps,
        batch=512,
        lr=3e-3,
        schedule="cosine",
        weight_decay=0.0,
    ).run()


def measure_interference(
    W: Dictionary | Float[Tensor, "n d"], features: SparseCode | Float[Tensor, "rows columns"] | None = None
) -> Report:
    """How much features that share a space disturb each other.

    Args:
        W: one direction per row: n features in d dimensions, norms included. A d x n matrix must be transposed first.
        features: rows of feature values, to measure the error of reading them; None measures the geometry alone.

    Returns:
        A report with coherence, features per dimension, dimensionality, and the read-out error if features are given,
        each beside its bound or chance level; and a table with one row per feature.

    Raises:
        ShapeError: if features has another number of columns than W has rows.
        ValueError: if W has fewer than two nonzero rows.

    Example:
        >>> import torch
        >>> measure_interference(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))["coherence"][0].value
        1.0
    """
    dictionary = W if isinstance(W, Dictionary) else Dictionary(W.detach().double())
    rows = 0 if features is None else len(features)
    run = Run.begin("interference", {"n": dictionary.n, "d": dictionary.d, "rows": rows})
    measured: list[Measurement] = [
        coherence(dictionary),
        features_per_dimension(dictionary),
        feature_dimensionality(dictionary),
    ]
    if features is not None:
        columns = features.n if isinstance(features, SparseCode) else features.shape[-1]
        if columns != dictionary.n:
            turned = " W looks transposed: pass one direction per row." if columns == dictionary.d else ""
            raise ShapeError(
                f"measure_interference: features has {columns} columns but W has {dictionary.n} rows.{turned}"
            )
        measured.append(interference(dictionary, features))
    atoms = dictionary.atoms
    table = {
        "feature": list(range(dictionary.n)),
        "norm": representedness(atoms).tolist(),
        "dimensionality": dimensionalities(atoms).tolist(),
        "interference": overlaps(atoms).tolist(),
    }
    title = f"Interference of {dictionary.n} features in {dictionary.d} dimensions"
    return run.finish(
        Answer(title=title, findings=Findings(measured, {"features": table}), sentences=list(map(str, measured)))
    )
