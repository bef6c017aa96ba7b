"""What does a module compute on its way? Sites by path or pattern, and the forward hooks that read and replace x."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core import Site, SiteNotFound
from ..core.errors import nearest

_INPUT_SUFFIX = ":in"


def sites(model: nn.Module, patterns: Sequence[str]) -> tuple[Site, ...]:
    """The sites of `model` that `patterns` name, in the order of the patterns and, within one, of the model.

    A pattern is a module path as in `model.named_modules()` (lists of modules, which never run, left out), with `*`,
    `?` and `[...]` inside one level (`*` crosses no dot) and `**` over any number of levels; `:in` at its end asks for
    the module's input instead of its output. A path
    that fits nowhere is tried with the prefix of the base model put before it (`h.3` for `transformer.h.3`) and taken
    off it (`transformer.h.3` where the base model itself was given); the sites returned carry the model's own path.

    Args:
        model: any module.
        patterns: paths or globs; a site named twice comes once.

    Raises:
        SiteNotFound: if a pattern fits no module; the nearest names are offered.
        TypeError: if `patterns` is one string.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))
        >>> [str(site) for site in sites(model, ["*"])]
        ['0', '1', '2']
        >>> [str(site) for site in sites(model, ["2.0:in", "**.0"])]
        ['2.0:in', '2.0']
    """
    if isinstance(patterns, str):
        raise TypeError(f"sites: patterns is the single string {patterns!r}; put it in a list: [{patterns!r}].")
    names = _names(model)
    found: dict[Site, None] = {}
    for pattern in patterns:
        path, io = (pattern.removesuffix(_INPUT_SUFFIX), "in") if pattern.endswith(_INPUT_SUFFIX) else (pattern, "out")
        matched = _matches(model, path, names)
        if not matched:
            raise SiteNotFound(
                f"no module named '{path}' in this model.{_suggestion(model, path, names)} "
                "Paths are those of model.named_modules(); * stands for one level, ** for several."
            )
        found.update(dict.fromkeys(Site(name, io) for name in matched))
    return tuple(found)


def module_at(model: nn.Module, site: Site | str) -> nn.Module:
    """The module a site names, by the same rules as `sites`, patterns excepted.

    Raises:
        SiteNotFound: if the model has no such module; the nearest names are offered.

    Example:
        >>> module_at(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), Site("1"))
        ReLU()
    """
    (site,) = (site,) if isinstance(site, Site) else _one(model, site)
    names = _names(model)
    for name in _aliases(model, site.path):
        if name in names:
            return model.get_submodule(name)
    raise SiteNotFound(f"no module named '{site.path}' in this model.{_suggestion(model, site.path, names)}")


class Capture:
    """Read x at `sites` while `model` runs: `with Capture(model, sites) as cap: x = cap(input_ids=ids)[site]`.

    Runs the base model, without the head, wherever every site lies inside it, asks for no cache, records no gradients
    and stops as soon as the last site has fired. Which site is last is learned on the first call, which runs to the
    end. What is returned are copies: nothing the model does later, and no in-place operation, changes them. Run by
    anyone else while the capture is open, the model runs as ever.

    The model is used as it is: a model in training mode drops out (`harvest` turns that off).

    Args:
        model: any module.
        sites: sites, or paths and patterns as for `sites`.

    Raises:
        SiteNotFound: if a site is not in the model.
        ValueError: if there is no site; and when called, if a site did not run, or ran more than once in one pass
            (shared weights: such a module is not one place).
        TypeError: when called, if a module gives or takes no tensor.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with Capture(model, ["1"]) as cap:
        ...     (x,) = cap(torch.ones(5, 3)).values()
        >>> x.shape, bool((x >= 0).all())
        (torch.Size([5, 4]), True)
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site | str]) -> None:
        if not sites:
            raise ValueError("Capture: sites is empty; name at least one, as in ['transformer.h.*'].")
        chosen: dict[Site, None] = {}
        for site in sites:
            chosen.update(dict.fromkeys((site,) if isinstance(site, Site) else _one(model, site, many=True)))
        self.sites = tuple(chosen)
        self.runs = _smallest_runner(model, [module_at(model, site) for site in self.sites])
        self._modules = {site: module_at(model, site) for site in self.sites}
        self._options = {"use_cache": False} if "use_cache" in _parameters(self.runs) else {}
        self._handles: list[RemovableHandle] = []
        self._last: Site | None = None
        self._fired: list[Site] = []
        self._read: dict[Site, Tensor] = {}
        self._rows: Tensor | None = None
        self._reading = False

    def __enter__(self) -> Capture:
        for site, module in self._modules.items():
            self._handles.append(_install(module, site, self._take))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def __call__(self, *args: Any, rows: Bool[Tensor, "b t"] | None = None, **inputs: Any) -> dict[Site, Tensor]:
        """Run the model on `args` and `inputs` and return x at each site.

        Args:
            args: handed to the model's forward.
            rows: which (sequence, position) pairs to copy; the result is then [rows, d] instead of [b, t, d].
            inputs: handed to the model's forward.
        """
        if not self._handles:
            raise ValueError("Capture: it is not open; call it inside 'with Capture(model, sites) as cap:'.")
        self._forget()
        self._rows = rows
        self._reading = True
        try:
            with torch.no_grad():
                self.runs(*args, **self._options, **inputs)
        except _Enough:
            pass
        else:
            self._learn_order()
        finally:
            self._reading = False
        missing = [str(site) for site in self.sites if site not in self._read]
        if missing:
            raise ValueError(
                f"Capture: {', '.join(missing)} did not run before {self._last}, unlike in the first pass; this model "
                "orders its modules by its input, so read these sites in captures of their own."
            )
        result = {site: self._read[site] for site in self.sites}
        self._forget()
        return result

    def _take(self, site: Site, x: Tensor) -> Tensor | None:
        # Between two calls the model is the caller's: it must neither be recorded nor stopped.
        if not self._reading:
            return None
        self._fired.append(site)
        if site not in self._read:
            # A copy, never a view: a view would pin the whole [b, t, d] and follow in-place operations downstream.
            x = x.detach()
            self._read[site] = x.clone() if self._rows is None else x[_fitted(self._rows, x, site)]
        if site == self._last:
            raise _Enough
        return None

    def _learn_order(self) -> None:
        times = Counter(self._fired)
        for site in self.sites:
            if times[site] == 0:
                raise ValueError(
                    f"Capture: {site} did not run when the model did, so it has no activation. "
                    "Choose a module that takes part in the forward pass."
                )
            if times[site] > 1:
                raise ValueError(
                    f"Capture: {site} ran {times[site]} times in one forward pass (its weights are shared), so it is "
                    "not one place. Choose a module that runs once."
                )
        self._last = self._fired[-1]

    def _forget(self) -> None:
        self._fired, self._read, self._rows = [], {}, None


@contextmanager
def replace(
    model: nn.Module, site: Site | str, function: Callable[[Tensor], Tensor], *, rows: Bool[Tensor, "b t"] | None = None
) -> Iterator[None]:
    r"""Splice: while the block runs, the model computes on with $x \leftarrow \mathrm{function}(x)$ at `site`.

    What else the module returns beside x (the tuples of GPT-Neo, Bloom and T5) is passed on unchanged. On leaving, also
    by an exception, the hook is gone and the model computes what it did before.

    Args:
        model: any module; call it, or the module it belongs to, inside the block.
        site: where; `path:in` replaces what the module is given.
        function: x to its replacement, of the same shape; the dtype is brought back to x's.
        rows: which (sequence, position) pairs to replace; the function then sees [rows, d]. Without it, all of x.

    Raises:
        SiteNotFound: if the model has no such module.
        ValueError: inside the block, if the function changes the shape, or `rows` does not fit.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
        >>> with replace(model, "0", torch.zeros_like):
        ...     model(torch.ones(1, 3)).tolist()
        [[0.0, 0.0]]
    """
    (place,) = (site,) if isinstance(site, Site) else _one(model, site)

    def splice(place: Site, x: Tensor) -> Tensor:
        mask = None if rows is None else _fitted(rows, x, place)
        given = x if mask is None else x[mask]
        new = function(given)
        if new.shape != given.shape:
            raise ValueError(
                f"replace: the function made {tuple(new.shape)} out of {tuple(given.shape)} at {place}; "
                "a replacement keeps the shape."
            )
        new = new.to(x.dtype)
        if mask is None:
            return new
        # index_put on a copy: the original may be a leaf, or be shared with another branch of the network.
        return x.index_put((mask,), new)

    handle = _install(module_at(model, place), place, splice)
    try:
        yield
    finally:
        handle.remove()


class _Enough(Exception):
    """The last site has fired; nothing after it is needed."""


def _install(module: nn.Module, site: Site, visit: Callable[[Site, Tensor], Tensor | None]) -> RemovableHandle:
    """Call `visit` with x each time the module runs; a tensor it returns takes the place of x."""
    if site.io == "in":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            key, x = _input_of(site, args, kwargs)
            new = visit(site, x)
            if new is None:
                return None
            if isinstance(key, int):
                return (*args[:key], new, *args[key + 1 :]), kwargs
            return args, {**kwargs, key: new}

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        new = visit(site, _output_of(site, output))
        return None if new is None else _with_output(output, new)

    return module.register_forward_hook(after)


def _fitted(rows: Tensor, x: Tensor, site: Site) -> Tensor:
    """The mask `rows` in the shape that picks rows of `x`: some modules (OPT's MLP) run on [b t, d]."""
    if x.shape[: rows.ndim] == rows.shape:
        return rows
    if x.ndim == 2 and len(x) == rows.numel():
        return rows.reshape(-1)
    raise ValueError(
        f"the activation at {site} has shape {tuple(x.shape)}, which is not one vector for each of the "
        f"{' x '.join(map(str, rows.shape))} tokens of the batch; choose another site, or give the mask of this batch."
    )


def _input_of(site: Site, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int | str, Tensor]:
    # Positional first; transformers names the running activation hidden_states where it passes it by keyword.
    candidates: list[tuple[int | str, Any]] = [*enumerate(args)]
    candidates += sorted(kwargs.items(), key=lambda item: item[0] != "hidden_states")
    for key, value in candidates:
        if isinstance(value, Tensor):
            return key, value
    raise TypeError(f"Capture: the module at {site} was given no tensor; choose another site.")


def _output_of(site: Site, output: Any) -> Tensor:
    x = output
    if isinstance(output, Mapping):
        x = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        x = output[0] if output else None
    if not isinstance(x, Tensor):
        raise TypeError(
            f"Capture: the module at {site} returned {type(output).__name__}, which does not begin with a tensor; "
            "choose a site inside it."
        )
    return x


def _with_output(output: Any, new: Tensor) -> Any:
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        # ModelOutput rebuilds itself from keywords; a dict does too.
        return type(output)(**{**output, next(iter(output)): new})
    if hasattr(output, "_fields"):
        return type(output)(new, *output[1:])
    return type(output)((new, *output[1:]))


def _names(model: nn.Module) -> dict[str, nn.Module]:
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


def _aliases(model: nn.Module, path: str) -> Iterator[str]:
    """The path itself, then with the base model's prefix added, then with it taken off."""
    yield path
    prefix, _ = base_of(model)
    if prefix:
        yield f"{prefix}.{path}"
    own = getattr(model, "base_model_prefix", "")
    if isinstance(own, str) and own and path.startswith(f"{own}."):
        yield path.removeprefix(f"{own}.")


def _matches(model: nn.Module, pattern: str, names: Iterable[str]) -> list[str]:
    for alias in _aliases(model, pattern):
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


def _suggestion(model: nn.Module, path: str, names: Iterable[str]) -> str:
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


def _one(model: nn.Module, path: str, *, many: bool = False) -> tuple[Site, ...]:
    found = sites(model, [path])
    if len(found) > 1 and not many:
        raise ValueError(
            f"'{path}' names {len(found)} modules where one site is wanted; give the path of one, as {found[0]}."
        )
    return found


def _smallest_runner(model: nn.Module, modules: Sequence[nn.Module]) -> nn.Module:
    _, base = base_of(model)
    inside = set(base.modules())
    return base if all(module in inside for module in modules) else model


def _parameters(module: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(module.forward).parameters)
