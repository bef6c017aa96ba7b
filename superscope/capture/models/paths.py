"""What are a model's modules called? Paths, globs, the part without the head, and what a misspelling meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import nn

from ...core.errors import nearest


def names_of(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by path, without lists of modules, which never run and so hold no activation."""
    lists = (nn.ModuleList, nn.ModuleDict)
    return {name: module for name, module in model.named_modules() if name and not isinstance(module, lists)}


def base_of(model: nn.Module) -> tuple[str, nn.Module]:
    """(path, module) of the part of `model` that computes activations, without the head: ("", model) if it is all."""
    base = getattr(model, "base_model", None)
    if isinstance(base, nn.Module) and base is not model:
        for name, module in model.named_modules():
            if module is base:
                return name, base
    return "", model


def aliases(model: nn.Module, path: str) -> Iterator[str]:
    """The path itself, then with the base model's prefix added, then with it taken off."""
    yield path
    prefix, _ = base_of(model)
    if prefix:
        yield f"{prefix}.{path}"
    own = getattr(model, "base_model_prefix", "")
    if isinstance(own, str) and own and path.startswith(f"{own}."):
        yield path.removeprefix(f"{own}.")


def matches(model: nn.Module, pattern: str, names: Iterable[str]) -> list[str]:
    for alias in aliases(model, pattern):
        if not re.search(r"[*?\[]", alias):
            matched = [alias] if alias in names else []
        else:
            expression = re.compile(_expression(alias))
            matched = [name for name in names if expression.fullmatch(name)]
        if matched:
            return matched
    return []


def _expression(pattern: str) -> str:
    pieces = re.split(r"(\*\*|\*|\?|\[!?[^\]]+\])", pattern)
    signs = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    made = []
    for piece in pieces:
        if piece in signs:
            made.append(signs[piece])
        elif piece.startswith("[") and piece.endswith("]"):
            negated = piece.startswith("[!")
            body = re.sub(r"([\\^\[&~|])", r"\\\1", piece[2 if negated else 1 : -1])
            made.append(f"[{'^.' if negated else ''}{body}]")
        else:
            made.append(re.escape(piece))
    return "".join(made)


def suggestion(model: nn.Module, path: str, names: Iterable[str]) -> str:
    prefix, _ = base_of(model)
    inner = tuple(name for name in names if prefix and name.startswith(f"{prefix}."))
    # The base model's own names too, for who left out the prefix: 'h.9' should find 'h.2'.
    names = (*names, *(name.removeprefix(f"{prefix}.") for name in inner))
    if any(sign in path for sign in "*?["):
        # Compared with names whose numbers are stars: 'model.layer.*' should find 'model.layers.*'.
        known = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names))
    else:
        known = list(names)
    clause = nearest(path, known)
    if clause:
        return clause
    lists = [(len(module), name) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if lists:
        n, name = max(lists, key=lambda found: found[0])
        return f" Its blocks are {name}.0 to {name}.{n - 1}."
    return f" Its outermost modules are {', '.join(name for name, _ in model.named_children()) or 'none'}."
