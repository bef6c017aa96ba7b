"""What can be started, with which settings? Forms made of the studies' own fields, and the commands they stand for."""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import nearest
from ...studies import STUDIES, Entry
from ...studies import settings as of_study
from ...studies.arguments import Asked
from . import shapes

_KINDS = {int: "whole", float: "number", str: "text", bool: "flag"}


_MAKING = threading.Lock()


def forms() -> tuple[shapes.StudyForm, ...]:
    """One form for each study; made once, whoever else asks meanwhile waits."""
    with _MAKING:
        return _forms()


@functools.cache
def _forms() -> tuple[shapes.StudyForm, ...]:
    return tuple(_form(entry) for entry in STUDIES)


def entry_of(study: str) -> Entry:
    """The study of a command.

    Raises:
        LookupError: if there is none.
    """
    for entry in STUDIES:
        if entry.command == study:
            return entry
    raise LookupError(f"there is no study {study[:80]!r}.{nearest(study[:80], [e.command for e in STUDIES])}")


def options(study: str, values: Mapping[str, Any]) -> list[str]:
    """The arguments of the command that starts a study with these settings; those that are as by default are left out.

    Raises:
        LookupError: if there is no such study or setting.
        ValueError: if a value is of another kind, out of its limits, or would be taken for an option.
    """
    kind = entry_of(study).load()
    known = dict(_flat(kind))
    read: dict[str, Any] = {}
    first, named = [], []
    for name, value in values.items():
        if name not in known:
            raise LookupError(f"{study} has no setting {name[:80]!r}.{nearest(name[:80], list(known))}")
        setting = known[name]
        taken = _value(setting, value)
        outer, _, inner = name.partition(".")
        if inner:
            read.setdefault(outer, {})[inner] = taken
        else:
            read[name] = taken
        if taken != setting.default or setting.required:
            (first if setting.positional else named).extend(_words(setting, taken))
    for name, setting in known.items():
        if setting.required and name not in values:
            raise ValueError(f"{study} needs {name}: {setting.help}")
    try:
        # The study says itself what it does not take, before it waits in a queue.
        of_study.read(kind, read)
    except Asked as asked:
        raise ValueError(str(asked)) from asked
    return first + named


def _form(entry: Entry) -> shapes.StudyForm:
    kind = entry.load()
    return shapes.StudyForm(
        command=entry.command,
        summary=entry.summary,
        about=inspect.cleandoc(kind.__doc__ or ""),
        settings=[_shape(name, setting) for name, setting in _flat(kind)],
    )


def _flat(kind: type) -> list[tuple[str, of_study.Setting]]:
    """The settings of a study by name; those inside a setting of its own kind as outer.inner."""
    return [
        (f"{setting.name}.{part.name}" if setting.parts else setting.name, part)
        for setting in of_study.fields(kind)
        for part in setting.parts or (setting,)
    ]


def _shape(name: str, setting: of_study.Setting) -> shapes.Setting:
    low = max((limit.low for limit in setting.limits), default=-math.inf)
    high = min((limit.high for limit in setting.limits), default=math.inf)
    default = setting.default
    return shapes.Setting.model_validate(
        {
            "name": name,
            "kind": _KINDS[setting.kind],
            "many": setting.many,
            "optional": setting.optional,
            "required": setting.required,
            "default": list(default) if isinstance(default, tuple) else default,
            "choices": list(setting.choices),
            "limits": [limit.words for limit in setting.limits],
            "low": low if math.isfinite(low) else None,
            "high": high if math.isfinite(high) and high < 1e300 else None,
            "help": setting.help,
        }
    )


def _value(setting: of_study.Setting, value: Any) -> Any:
    """A value of JSON as the study has it.

    Raises:
        ValueError: if it is of another kind.
    """
    if value is None:
        if not setting.optional:
            raise ValueError(f"{setting.name} needs a value.")
        return None
    if setting.many:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{setting.name} needs a list of values.")
        return tuple(_one(setting, each) for each in value)
    return _one(setting, value)


def _one(setting: of_study.Setting, value: Any) -> Any:
    kind = setting.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        what = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
        raise ValueError(f"{setting.name} needs {what}; got {str(value)[:80]!r}.")
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{setting.name} is one of {', '.join(map(str, setting.choices))}; got {str(value)[:80]!r}.")
    if isinstance(value, str) and (value.startswith("-") or not value.isprintable()):
        # A process is given words: one with a hyphen before it would be taken for an option.
        raise ValueError(f"{setting.name} may not begin with a hyphen or hold control characters.")
    return value


def _words(setting: of_study.Setting, value: Any) -> list[str]:
    """A setting as words of a command."""
    option = f"--{setting.name.replace('_', '-')}"
    if setting.kind is bool and not setting.optional:
        # A flag is named where it is not as by default, and only then are there words for it.
        return [option if value else f"--no-{option.removeprefix('--')}"]
    if setting.positional:
        return [*map(str, value)] if setting.many else [str(value)]
    if setting.repeated:
        return [word for each in value for word in (option, str(each))]
    return [option, *map(str, value)] if setting.many else [option, str(value)]
