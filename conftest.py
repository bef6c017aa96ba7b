"""What holds for every test of the package, its examples included."""

import gc
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, wraps
from types import FunctionType
from typing import Any, get_args

import jaxtyping
import torch

# Triton reads this when it is first imported, and other packages import it: so before anything else does.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Modules that begin by importing an extra cannot be looked into without it.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["superscope/kernels/*/triton.py"]


def _has_shapes(annotation: object, names: Mapping[str, object]) -> bool:
    """Whether an annotation, perhaps a string that uses `names`, speaks of an array's shape."""
    if isinstance(annotation, str):
        words = re.findall(r"[A-Za-z_]\w*", annotation)
        return any(_has_shapes(names.get(word, vars(jaxtyping).get(word)), {}) for word in words)
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray | jaxtyping.AbstractDtype):
        return True
    return any(_has_shapes(part, names) for part in get_args(annotation))


def _where_shapes_are(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """`jaxtyped`, for functions and dataclasses in whose signatures shapes stand.

    The types of others are pyright's to check: to check them at every call again takes a third of the suite's time.
    """

    def of_type_checker(*, typechecker: Any) -> Callable[[Any], Any]:
        def decorate(member: Any) -> Any:
            if isinstance(member, type):
                of = member.__mro__[:-1]
            else:
                of = [member.fget if isinstance(member, property) else getattr(member, "__func__", member)]
            shapes = any(
                _has_shapes(annotation, vars(sys.modules[each.__module__]))
                for each in of
                for annotation in getattr(each, "__annotations__", {}).values()
            )
            if not shapes:
                return member
            checked = jaxtyped(typechecker=typechecker)
            return _at_first(member, checked) if isinstance(member, FunctionType) else checked(member)

        return decorate

    return of_type_checker


_calls: Counter[Callable[..., Any]] = Counter()


def _at_first(function: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked at a test's first 20 calls and at one in 20 of the others.

    The check is written at the first call: to write those of all functions takes every worker two seconds, and it
    calls half of them.
    """
    check = cache(lambda: checked(function))

    @wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        _calls[function] += 1
        return (check() if _calls[function] <= 20 or _calls[function] % 20 == 0 else function)(*args, **kwargs)

    return either


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look through it for garbage at each collection took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_runtest_setup() -> None:
    _calls.clear()


# The import hook of `pytest --jaxtyping-packages` decorates by this name, and superscope is not imported yet.
jaxtyping.jaxtyped = _where_shapes_are(jaxtyping.jaxtyped)
