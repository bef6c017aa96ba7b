"""Which places of a model do paths, patterns and roles name?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...core import Site, SiteNotFound
from .hook_names import role_of_hook
from .paths import aliases, matches, names_of, suggestion
from .roles import role_sites


def sites(model: nn.Module, patterns: Sequence[str]) -> tuple[Site, ...]:
    """The sites of `model` that `patterns` name, in the order of the patterns and, within one, of the model.

    A pattern is a role with its layer, as `resid_post.6` or `z.*` (listed in `roles`), TransformerLens's name of one
    (`blocks.6.hook_resid_post`), or a module path as in
    `model.named_modules()` (lists of modules, which never run, left out), with `*`, `?` and `[...]` inside one level
    (`*` crosses no dot) and `**` over any number of levels. Behind a path `:in` asks for the module's input instead of
    its output; behind either, `[16:24]` for some of the coordinates. A path that fits nowhere is tried with the prefix
    of the base model put before it (`h.3` for `transformer.h.3`) and taken off it (`transformer.h.3` where the base
    model itself was given); the sites returned carry the model's own path.

    Args:
        model: any module.
        patterns: paths or globs; a site named twice comes once.

    Raises:
        SiteNotFound: if a pattern fits no module, the nearest names being offered, or this model has no such role.
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
    names = names_of(model)
    found: dict[Site, None] = {}
    for pattern in patterns:
        asked = Site.read(pattern)
        matched = [
            Site(name, asked.io, columns=asked.columns, item=asked.item) for name in matches(model, asked.path, names)
        ]
        # A path comes before a role: a module that is called `embed` is what is meant by it.
        matched = matched or list(role_sites(model, role_of_hook(pattern) or pattern))
        if not matched:
            raise SiteNotFound(
                f"no module named '{asked.path}' in this model.{suggestion(model, asked.path, names)} "
                "Paths are those of model.named_modules(); * stands for one level, ** for several."
            )
        found.update(dict.fromkeys(matched))
    return tuple(found)


def module_at(model: nn.Module, site: Site | str) -> nn.Module:
    """The module a site names, by the same rules as `sites`, patterns excepted.

    Raises:
        SiteNotFound: if the model has no such module; the nearest names are offered.

    Example:
        >>> module_at(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), Site("1"))
        ReLU()
    """
    (site,) = (site,) if isinstance(site, Site) else one_site(model, site)
    names = names_of(model)
    for name in aliases(model, site.path):
        if name in names:
            return model.get_submodule(name)
    raise SiteNotFound(f"no module named '{site.path}' in this model.{suggestion(model, site.path, names)}")


def one_site(model: nn.Module, path: str, *, many: bool = False) -> tuple[Site, ...]:
    """What a path names, in a tuple; more than one place only where many are allowed.

    Raises:
        SiteNotFound: if it names none.
        ValueError: if it names several and one is wanted.
    """
    found = sites(model, [path])
    if len(found) > 1 and not many:
        raise ValueError(
            f"'{path}' names {len(found)} modules where one site is wanted; give the path of one, as {found[0]}."
        )
    return found
