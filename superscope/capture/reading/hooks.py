"""What does a module compute on its way? Forward hooks that read x, and show it to whoever wants to change it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...core import Site
from ..models.facts import keywords_of
from ..models.paths import base_of
from ..models.sites import module_at, one_site


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
            chosen.update(dict.fromkeys((site,) if isinstance(site, Site) else one_site(model, site, many=True)))
        self.sites = tuple(chosen)
        self.runs = _smallest_runner(model, [module_at(model, site) for site in self.sites])
        self._modules = {site: module_at(model, site) for site in self.sites}
        self._options = {"use_cache": False} if "use_cache" in keywords_of(self.runs) else {}
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
            # No gradients, and none of the bookkeeping that would let them be asked for later.
            with torch.inference_mode(), _attending(self.runs, self.sites):
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
            # A copy, never a view: a view would pin the whole [b, t, d] and follow in-place operations downstream. Made
            # outside of inference mode, whose tensors autograd refuses.
            with torch.inference_mode(False), torch.no_grad():
                copied = x.clone() if self._rows is None else x[fitted(self._rows, x, site)]
                self._read[site] = narrowed(copied, site)
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
def visiting(model: nn.Module, site: Site | str, visit: Callable[[Site, Tensor], Tensor | None]) -> Iterator[None]:
    """While the block runs, `visit` is called with (site, x) whenever x is computed; what it returns takes x's place.

    What else the module returns beside x (the tuples of GPT-Neo, Bloom and T5) is passed on unchanged. On leaving, also
    by an exception, the hook is gone; hooks of others stay.

    Args:
        model: any module; call it, or the module it belongs to, inside the block.
        site: where; `path:in` is what a module is given.
        visit: returns the whole of what stands at the module from then on, or None to leave it.

    Raises:
        SiteNotFound: if the model has no such module.
        ValueError: if the site names several.
    """
    (place,) = (site,) if isinstance(site, Site) else one_site(model, site)
    handle = _install(module_at(model, place), place, visit)
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
        return None if new is None else _with_output(output, new, site.item)

    return module.register_forward_hook(after)


def fitted(rows: Tensor, x: Tensor, site: Site) -> Tensor:
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
        x = next(itertools.islice(output.values(), site.item, None), None)
    elif isinstance(output, (tuple, list)):
        x = output[site.item] if site.item < len(output) else None
    elif site.item:
        x = None
    if x is None and site.item:
        raise TypeError(
            f"Capture: the module at {site} returned no output number {site.item}. Attention patterns exist only in "
            "the implementation 'eager', and not in every model."
        )
    if not isinstance(x, Tensor):
        raise TypeError(
            f"Capture: the module at {site} returned {type(output).__name__}, which does not begin with a tensor; "
            "choose a site inside it."
        )
    return x


def _with_output(output: Any, new: Tensor, item: int) -> Any:
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        # ModelOutput rebuilds itself from keywords; a dict does too.
        return type(output)(**{**output, next(itertools.islice(output, item, None)): new})
    if hasattr(output, "_fields"):
        return type(output)(*output[:item], new, *output[item + 1 :])
    return type(output)((*output[:item], new, *output[item + 1 :]))


def coordinates(site: Site, device: torch.device) -> Tensor:
    """The numbers of the site's coordinates."""
    return torch.cat([torch.arange(first, past, device=device) for first, past in site.columns])


def narrowed(x: Tensor, site: Site) -> Tensor:
    """The site's coordinates, as a copy; x itself where the site is all of them."""
    if not site.columns:
        return x
    past = max(past for _, past in site.columns)
    if past > x.shape[-1]:
        raise ValueError(f"Capture: {site} asks for coordinate {past - 1} where there are {x.shape[-1]}.")
    return torch.cat([x[..., first:past] for first, past in site.columns], -1)


@contextmanager
def _attending(model: nn.Module, sites: Sequence[Site]) -> Iterator[None]:
    """Inside the block attention says its pattern, where a site asks for one; the model's own way comes back after."""
    own = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if not any(site.item for site in sites) or own in (None, "eager"):
        yield
        return
    network: Any = model
    if not network._can_set_attn_implementation():
        raise ValueError(
            f"Capture: {type(model).__name__} computes attention by '{own}', which makes no pattern, and "
            "cannot change; load it with attn_implementation='eager'."
        )
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(own)


def _smallest_runner(model: nn.Module, modules: Sequence[nn.Module]) -> nn.Module:
    _, base = base_of(model)
    inside = set(base.modules())
    return base if all(module in inside for module in modules) else model
