"""What can be chosen by name, and what can be set of it: read off registries, constructors and their docstrings.

A member of a family (an architecture, a solver, a law) has settings of its own, which no command could list as options:
they are its constructor's arguments, given as NAME=VALUE.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from ..core.errors import nearest
from ..features import MAGNITUDES, Magnitude

T = TypeVar("T")


class Asked(Exception):
    """Not a run but what there is to set was asked for: the text to print."""


def by_name(kinds: Iterable[type[T]]) -> dict[str, type[T]]:
    """Classes by what commands call them: the class's own name in small letters, or its `name` where it has one."""
    return {str(getattr(kind, "name", kind.__name__)).lower(): kind for kind in kinds}


def plain(name: str) -> str:
    """A name without what people spell differently: case, hyphens and underscores."""
    return re.sub("[-_]", "", name).lower()


def pick(name: str, known: Mapping[str, T], what: str) -> T:
    """The one that is called so, whatever its case and hyphens.

    Raises:
        ValueError: if there is none, with the names there are.

    Example:
        >>> pick("Batch-TopK", {"topk": 1, "batchtopk": 2}, "architecture")
        2
    """
    if name in known:
        return known[name]
    for each, value in known.items():
        if plain(each) == plain(name):
            return value
    raise ValueError(
        f"there is no {what} {name!r}.{nearest(name.lower(), list(known))} Known: {', '.join(known) or 'none'}."
    )


def parameters(make: Callable[..., Any], without: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Arguments of a constructor by name, but those that the command settles itself; with resolved annotations."""
    signature = inspect.signature(make)
    function = make.__init__ if isinstance(make, type) else make
    kinds = typing.get_type_hints(inspect.unwrap(getattr(function, "__func__", function)))
    return {
        name: parameter.replace(annotation=kinds.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name not in without and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def read(
    pairs: Sequence[str],
    make: Callable[..., Any],
    *,
    name: str,
    without: Collection[str] = (),
    option: str = "set",
    usual: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """NAME=VALUE pairs as arguments of a constructor.

    Args:
        pairs: as they were given on the command line.
        make: the constructor.
        name: of what is made, for messages.
        without: arguments that the command settles itself.
        option: of the command that the pairs were given with, for messages.
        usual: what the command takes for arguments that have no default of their own, in words.

    Raises:
        Asked: if one of them is "help".
        ValueError: if one is no pair, names no argument or one twice, or has a value of another kind.

    Example:
        >>> def make(d: int, k: int, step: float | int = 0.5): ...
        >>> read(["k=3", "step=0.1"], make, name="it", without=("d",))
        {'k': 3, 'step': 0.1}
    """
    known = parameters(make, without)
    if "help" in pairs:
        raise Asked(f"{name}: what --{option} NAME=VALUE can set\n{describe(make, without, usual) or '  nothing'}")
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not (key and equals and text.strip()):
            raise ValueError(f"--{option} wants NAME=VALUE, or help; got {pair!r}.")
        if key not in known:
            own = ", ".join(known) or "none"
            raise ValueError(f"{name} has no setting {key!r}.{nearest(key, list(known))} Its own are: {own}.")
        if key in values:
            raise ValueError(f"--{option} {key} is given twice; give it once.")
        try:
            values[key] = value(text.strip(), known[key].annotation)
        except ValueError as error:
            raise ValueError(f"--{option} {key}: {error} for {name}.") from error
    return values


def require(
    values: Mapping[str, Any], make: Callable[..., Any], *, name: str, without: Collection[str], option: str
) -> None:
    """Whether everything is there that a constructor cannot do without.

    Raises:
        ValueError: if something is missing, with what it means.
    """
    needed = {
        key: parameter
        for key, parameter in parameters(make, without).items()
        if parameter.default is parameter.empty and key not in values
    }
    if needed:
        options = " ".join(f"--{option} {key}=VALUE" for key in needed)
        raise ValueError(f"{name} needs {', '.join(needed)}: give {options}. `--{option} help` says what they mean.")


def describe(
    make: Callable[..., Any], without: Collection[str] = (), usual: Mapping[str, str] = MappingProxyType({})
) -> str:
    """One line per argument: its name, its default, and what its docstring's *Args* say."""
    meant = meanings(make)
    lines = []
    for name, parameter in parameters(make, without).items():
        own = usual.get(name) if parameter.default is parameter.empty else shown(parameter.default)
        default = "required" if own is None else f"default {own}"
        lines.append(f"  {name}: {meant.get(name, '')} ({default})".replace(":  (", ": ("))
    return "\n".join(lines)


def summary(make: Callable[..., Any], without: Collection[str] = ()) -> str:
    """The arguments in one line, with their defaults."""
    return ", ".join(
        name if parameter.default is parameter.empty else f"{name}={shown(parameter.default)}"
        for name, parameter in parameters(make, without).items()
    )


def shown(default: Any) -> str:
    """A default as it would be given."""
    if isinstance(default, Magnitude):
        fields = (str(each) for each in vars(default).values())
        return ":".join([type(default).__name__.lower(), *fields])
    return ",".join(map(str, default)) if isinstance(default, tuple | list) else str(default)


def value(text: str, kind: Any) -> Any:
    """A word as a value of an annotated kind.

    Raises:
        ValueError: if it is none.

    Example:
        >>> value("0.5", float | int), value("4,8", tuple[int, ...]), value("none", int | None)
        (0.5, (4, 8), None)
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return value(text, part)
            except ValueError:
                continue
        raise ValueError(f"{text!r} is no value")
    if origin is Literal:
        for part in parts:
            if str(part) == text:
                return part
        raise ValueError(f"{text!r} is none of {', '.join(map(str, parts))}")
    if origin is not None and issubclass(origin, Sequence):
        return tuple(value(part, parts[0]) for part in re.split(r"[,:\s]+", text))
    if kind is type(None):
        if text.lower() == "none":
            return None
        raise ValueError(f"{text!r} is not none")
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError(f"{text!r} is neither true nor false")
    if kind is Magnitude:
        return magnitude(text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no {'whole number' if kind is int else 'number'}") from error
    if kind is str:
        return text
    raise ValueError(f"a value of kind {getattr(kind, '__name__', kind)} cannot be given on the command line")


def magnitude(text: str) -> Magnitude:
    """A law of magnitudes by its name, and its numbers after colons.

    Raises:
        ValueError: if there is no such law, or a number is none of it.

    Example:
        >>> magnitude("uniform:0.5:1.5")
        Uniform(low=0.5, high=1.5)
    """
    name, *numbers = text.split(":")
    law = pick(name, by_name(MAGNITUDES), "law of magnitudes")
    own = parameters(law)
    if len(numbers) > len(own):
        raise ValueError(f"{name} has {len(own)} numbers, {', '.join(own)}; got {len(numbers)}")
    kinds = (parameter.annotation for parameter in own.values())
    return law(*(value(number, kind) for number, kind in zip(numbers, kinds, strict=False)))


def meanings(make: Callable[..., Any]) -> dict[str, str]:
    """What *Args* of a docstring say of each argument, on one line."""
    text = inspect.getdoc(make) or ""
    found = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.M | re.S)
    meant: dict[str, str] = {}
    names: list[str] = []
    for line in found.group(1).splitlines() if found else ():
        if head := re.match(r" {4}(\w[\w, ]*): (.*)", line):
            names = [name.strip() for name in head.group(1).split(",")]
            meant |= dict.fromkeys(names, head.group(2).strip())
        elif line.strip():
            meant |= {name: f"{meant[name]} {line.strip()}" for name in names}
    return meant
