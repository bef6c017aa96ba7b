"""Who can learn a dictionary? Everything that `superscope train --architecture` names, and what can be set of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...core import ActivationSource, SparseCoder
from ...dictionaries import ARCHITECTURES, CLASSICAL, SAE, TRANSCODERS, Learner
from .. import arguments

LEARNERS: dict[str, type[SAE] | type[Learner]] = arguments.by_name((*ARCHITECTURES, *TRANSCODERS, *CLASSICAL))
"""By the names that commands use."""

_K = 32
"""Latents active in a row, unless there are few to choose from."""


def constructor(kind: type[SAE] | type[Learner]) -> Callable[..., SparseCoder]:
    """What makes one: the class, or its `fit`."""
    return kind.fit if issubclass(kind, Learner) else kind


def settled(kind: type[SAE] | type[Learner]) -> tuple[str, ...]:
    """The arguments that the command settles from its other options and from the rows."""
    return ("source", "n", "seed", *kind.sized_by)


def settings(name: str, pairs: Sequence[str], k: int | None) -> dict[str, Any]:
    """The arguments that were set, k among them if it was.

    Raises:
        Asked: if `--set help` was given.
        ValueError: if there is no such architecture, or it has no such setting.
    """
    kind = arguments.pick(name, LEARNERS, "architecture")
    usual = {"k": f"{_K}, or less where there is little to choose from"}
    own = arguments.read(pairs, constructor(kind), name=name, without=settled(kind), usual=usual)
    if k is None:
        return own
    if "k" not in arguments.parameters(constructor(kind)):
        raise ValueError(f"{name} has no option --k. What can be set of it: {_own(kind) or 'nothing'}.")
    if "k" in own:
        raise ValueError("k is given twice, with --k and with --set; give it once.")
    return own | {"k": k}


def complete(
    kind: type[SAE] | type[Learner], given: dict[str, Any], source: ActivationSource, n: int | None, seed: int
) -> dict[str, Any]:
    """All arguments, for rows of a source: n and k where they were not given, and what the source settles.

    Raises:
        ValueError: if something is missing that has no default.
    """
    has = arguments.parameters(constructor(kind))
    # A learner that can do without n knows better than a rule for all.
    atoms = n if n is not None or has["n"].default is None else 8 * source.d
    whole: dict[str, Any] = {name: getattr(source, name) for name in kind.sized_by} | {"n": atoms, "seed": seed}
    if "k" in has and "k" not in given:
        most = [_K, max((atoms or source.d) // 4, 1)]
        # Pursuit cannot choose more atoms independently than there are dimensions.
        whole["k"] = min(*most, source.d) if issubclass(kind, Learner) else min(most)
    arguments.require({**whole, **given}, constructor(kind), name=kind.__name__, without=("source",), option="set")
    return whole | given


def listing() -> str:
    """Every architecture with what can be set of it, a line each."""
    width = max(map(len, LEARNERS))
    return "\n".join(f"  {name:<{width}}  {_own(kind) or '-'}" for name, kind in sorted(LEARNERS.items()))


def _own(kind: type[SAE] | type[Learner]) -> str:
    return arguments.summary(constructor(kind), settled(kind))
