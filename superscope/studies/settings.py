"""What can be set of a study, and within which limits? Read off its fields, for constructor, command and saved run.

A limit stands in the type of its field, `steps: Annotated[int, at_least(1)]`, and is checked once, in `Study`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import textwrap
import threading
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import tyro

from .arguments import meanings

T = TypeVar("T")


@dataclass(frozen=True)
class Limit:
    """What a number must keep to. NaN keeps to nothing.

    Args:
        words: as they follow "must be".
        low, high: it must not be below the one or above the other.
        is_open: low itself is refused too.
        why: a sentence that ends the refusal.
    """

    words: str
    low: float | int = -math.inf
    high: float | int = math.inf
    is_open: bool = False
    why: str = ""

    def admits(self, number: float | int) -> bool:
        """Whether a number keeps to it."""
        return (self.low < number if self.is_open else self.low <= number) and number <= self.high

    def refusal(self, name: str, number: float | int) -> str:
        """What is said of one that does not."""
        return f"{name} must be {self.words}; got {number}.{f' {self.why}' if self.why else ''}"


def at_least(least: float | int, *, finite: bool = False, why: str = "") -> Limit:
    """`least` or more.

    Example:
        >>> at_least(1).refusal("steps", 0)
        'steps must be at least 1; got 0.'
    """
    words = f"at least {least}{' and finite' if finite else ''}"
    return Limit(words, low=least, high=_LARGEST if finite else math.inf, why=why)


def above(low: float | int, *, finite: bool = False, because: str = "") -> Limit:
    """More than `low`.

    Example:
        >>> above(0, because="its sign is the regime's").refusal("decay", -1.0)
        "decay must be above 0, its sign is the regime's; got -1.0."
    """
    words = f"above {low}{' and finite' if finite else ''}{f', {because}' if because else ''}"
    return Limit(words, low=low, high=_LARGEST if finite else math.inf, is_open=True)


def at_most(most: float | int, *, because: str = "") -> Limit:
    """`most` or less."""
    return Limit(f"at most {most}{f', {because}' if because else ''}", high=most)


_LARGEST = float(2**1023) * (2 - 2**-52)

Count = Annotated[int, at_least(1)]
"""How many of something there must be."""


@dataclass(frozen=True)
class Setting:
    """One field of a study.

    Args:
        name: of the field.
        kind: int, float, str, bool or a dataclass; of each value where there are several.
        many: it holds several values.
        optional: it may be None.
        limits: of its number.
        choices: the values there are, where they are listed.
        required: it must be given.
        default: what it is if it is not given.
        positional: a command takes it without its name.
        repeated: a command takes each value with the name before it.
        parts: the fields of a dataclass.
        help: what it means.
    """

    name: str
    kind: type
    many: bool = False
    optional: bool = False
    limits: tuple[Limit, ...] = ()
    choices: tuple[Any, ...] = ()
    required: bool = False
    default: Any = None
    positional: bool = False
    repeated: bool = False
    parts: tuple[Setting, ...] = ()
    help: str = field(default="", repr=False)

    def of_saved(self, value: Any) -> Any:
        """A value as it was, of what JSON made of it."""
        if isinstance(value, Mapping) and self.parts:
            return read(self.kind, value)
        return tuple(value) if isinstance(value, list) else value


# CPython 3.11 keeps one count of depth for all threads that make syntax trees, and fails where two of them do.
_READING = threading.Lock()


@functools.cache
def _typed(study: type) -> tuple[Setting, ...]:
    """What types and defaults say of the fields of a dataclass."""
    hints = typing.get_type_hints(study, include_extras=True)
    return tuple(_setting(each, hints[each.name]) for each in dataclasses.fields(study))


@functools.cache
def fields(study: type) -> tuple[Setting, ...]:
    """What can be set of a study, or of any dataclass, in the order of its fields; for commands, sweeps and forms.

    What a field means is the string below it, or what *Args* of the class say of it.
    """
    said = _docstrings(study)
    return tuple(
        dataclasses.replace(each, help=said.get(each.name, ""), parts=fields(each.kind) if each.parts else ())
        for each in _typed(study)
    )


def read(study: type[T], saved: Mapping[str, Any]) -> T:
    """A study, or any dataclass, of its fields as JSON has them; what is not there is as it is by default."""
    return study(**{each.name: each.of_saved(saved[each.name]) for each in _typed(study) if each.name in saved})


def check(study: Any) -> None:
    """Whether every number keeps to its limits.

    Raises:
        ValueError: if one does not, with its name and the limit.
    """
    for each in _typed(type(study)):
        given = getattr(study, each.name)
        if given is None:
            continue
        for number in given if each.many else (given,):
            for limit in each.limits:
                if not limit.admits(number):
                    raise ValueError(limit.refusal(each.name, number))


def _setting(of: dataclasses.Field[Any], kind: Any) -> Setting:
    about: dict[str, Any] = {"limits": ()}
    while True:
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            kind, *notes = parts
            about["limits"] += tuple(note for note in notes if isinstance(note, Limit))
            about["positional"] = about.get("positional", False) or tyro.conf.Positional in notes
            about["repeated"] = about.get("repeated", False) or tyro.conf.UseAppendAction in notes
        elif origin in (typing.Union, types.UnionType):
            kind = next(part for part in parts if part is not type(None))
            about["optional"] = True
        elif origin is Literal:
            about["choices"], kind = parts, type(parts[0])
        elif origin is not None and issubclass(origin, Sequence):
            about["many"], kind = True, parts[0]
        else:
            break
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        about["parts"] = _typed(kind)
    if of.default_factory is not dataclasses.MISSING:
        about["default"] = of.default_factory()
    elif of.default is not dataclasses.MISSING:
        about["default"] = of.default
    return Setting(of.name, kind, required="default" not in about, **about)


def _docstrings(study: type) -> dict[str, str]:
    """The strings that stand below the fields of a class and of those it is made of."""
    said: dict[str, str] = {}
    for kind in reversed(study.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        said |= meanings(kind)
        with _READING:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:]):
            match line, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    said[name] = " ".join(text.split())
    return said
