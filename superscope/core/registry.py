"""Which members has a family? Those that its folder's `__init__` imports: a member is one file and one line there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def members(base: type[T], names: Mapping[str, Any]) -> tuple[type[T], ...]:
    """The classes of a kind that a module imports, in the order of its lines; abstract ones are left out.

    Args:
        base: the kind, itself no member.
        names: of the module, `globals()`.

    Example:
        >>> from collections import Counter, OrderedDict
        >>> members(dict, {"Counter": Counter, "pi": 3.14, "Ordered": OrderedDict, "dict": dict})
        (<class 'collections.Counter'>, <class 'collections.OrderedDict'>)
    """
    classes = (value for value in names.values() if isinstance(value, type) and issubclass(value, base))
    return tuple(dict.fromkeys(kind for kind in classes if kind is not base and not inspect.isabstract(kind)))


def one_of_each(base: type[T], names: Mapping[str, Any]) -> tuple[T, ...]:
    """A member of each kind, of a family whose members are made without arguments."""
    return tuple(kind() for kind in members(base, names))
