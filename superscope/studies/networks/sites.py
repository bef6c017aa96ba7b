"""Where can this model be read? Every role it has, the module that plays it, and the shape found there."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from ... import capture
from ...capture.models.facts import device_of, text_config
from ...core import Answer, Findings, Measurement, Run
from ..study import Progress, Study

_PROBE = 8
"""Tokens of the pass that finds the shapes."""


@dataclass(frozen=True)
class Sites(Study):
    """Where can this model be read?

    Runs the model once and lists every role it has (resid_post.6, z.6, mlp_act.6 ...), the module that plays it in this
    model, and how many numbers it holds for each token. Any of these names, and any module path, is a site for the
    other commands.
    """

    kind: ClassVar[str] = "sites"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file; "pocket" travels inside the package."""
    roles: tuple[str, ...] = ()
    """Roles to list; all of them without."""
    device: str = "cpu"
    """Where to run: cpu, cuda, mps."""

    def check(self) -> None:
        for role in self.roles:
            if role not in capture.ROLES:
                raise ValueError(f"there is no role {role!r}. Roles are {', '.join(capture.ROLES)}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        loaded = capture.load(self.model, device=self.device)
        yield Progress(f"Loading {self.model}", 1, 1)
        found = capture.describe(loaded.model, probe(loaded.model), self.roles or capture.ROLES)
        layers = len(capture.blocks(loaded.model)) if found else 0
        by_role: dict[str, list[capture.RoleSite]] = {}
        for each in found:
            by_role.setdefault(each.role.partition(".")[0], []).append(each)
        measurements = [
            Measurement(
                name="dimensions",
                value=float(group[0].d),
                unit="dimensions",
                n=len(group),
                of="layers" if "." in group[0].role else "places",
                how="no interval: a property of the model",
                at={"site": f"{role}.*" if "." in group[0].role else role},
                caution="" if len({each.d for each in group}) == 1 else "layers differ; this is the first one's",
            )
            # A pattern's width is that of the probe.
            for role, group in by_role.items()
            if role != "pattern"
        ]
        return Answer(
            title=f"{loaded.name}: {len(found)} sites in {layers} layers",
            findings=Findings(
                measurements,
                {
                    "roles": {
                        "name": [each.role for each in found],
                        "site": [str(each.site) for each in found],
                        "d": [each.d for each in found],
                        "shape": [list(each.shape) for each in found],
                        "kind": [loaded.kind_of(each.site) for each in found],
                    }
                },
            ),
            sentences=_findings(by_role, self.roles or capture.ROLES),
        )


def probe(model: Any) -> dict[str, Any]:
    """Keywords of one small forward pass, for text or images."""
    import torch

    device = device_of(model)
    if getattr(model, "main_input_name", "input_ids") == "pixel_values":
        config = model.config
        size = getattr(config, "image_size", 224)
        shape = (size, size) if isinstance(size, int) else tuple(size)
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), *shape, device=device)}
    longest = getattr(text_config(model), "max_position_embeddings", None) or _PROBE
    n = min(_PROBE, int(longest), int(getattr(text_config(model), "vocab_size", _PROBE)))
    return {"input_ids": torch.arange(n, device=device)[None]}


def _findings(by_role: dict[str, list[capture.RoleSite]], asked: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for group in by_role.values():
        middle = group[len(group) // 2]
        shape = " x ".join(map(str, middle.shape[1:]))
        every = f" (and {len(group) - 1} more layers)" if len(group) > 1 else ""
        found.append(f"{middle.role} is {middle.site}, {shape}{every}.")
    if found:
        found.append(f"Shapes are those of one pass over {_PROBE} tokens, or one picture.")
    missing = [role for role in asked if role not in by_role]
    if missing:
        found.append(f"Not in this model, or not known: {', '.join(missing)}.")
    return tuple(found)
