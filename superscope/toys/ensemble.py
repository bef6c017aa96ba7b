"""Many toy models at once: one instance axis over whatever differs between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import safetensors
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import Dictionary, FormatError
from ..core.files import read_tensors, write_tensors
from ..features import FeatureDistribution, Uniform
from .exact import MOST_FEATURES, exact_loss, linear_exact_loss
from .family import Family, mix


class Ensemble:
    """E toy models of one family, each with its own law of features, importance and seed, and its optimiser's state.

    Model e is the same number for number whether it is trained alone or beside a thousand others: its start depends
    on its seed alone, its batches on its seed and the step alone (models with one seed share uniforms, so that a
    sweep over densities compares on common random numbers), no arithmetic crosses the instance axis, and no order of
    sums depends on it (`product`).

    Args:
        family: the kind of model.
        laws: the law of features of each model, or one for all.
        importance: I of each model's outputs, shape (outputs,) or (E, outputs); None is ones.
        seeds: one per model, or one for all.
        scale: factor on the standard deviation of the first weights.
        dtype: of the parameters.

    Raises:
        ValueError: if lengths disagree, a law has another n than the family, or an importance is negative.

    Example:
        >>> from superscope.features import Independent
        >>> from superscope.toys import Tied
        >>> Ensemble(Tied(5, 2), [Independent(5, p) for p in (1.0, 0.1)], seeds=0).parameters["W"].shape
        torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        family: Family,
        laws: FeatureDistribution | Sequence[FeatureDistribution],
        importance: Tensor | Sequence[float] | None = None,
        seeds: int | Sequence[int] = 0,
        *,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        several = [laws] if isinstance(laws, FeatureDistribution) else list(laws)
        numbers = [seeds] if isinstance(seeds, int) else [int(seed) for seed in seeds]
        count = max(len(several), len(numbers))
        for name, given in (("laws", several), ("seeds", numbers)):
            if len(given) not in (1, count):
                raise ValueError(
                    f"Ensemble: {len(given)} {name} for {count} models. Give one for all, or one for each."
                )
        self.family = family
        self.laws = tuple(several * (count if len(several) == 1 else 1))
        self.seeds = tuple(numbers * (count if len(numbers) == 1 else 1))
        if wrong := next((law for law in self.laws if law.n != family.n), None):
            raise ValueError(f"Ensemble: a law of {wrong.n} features for models of n = {family.n}. Make both of one n.")
        self.importance = _importance(importance, count, family.outputs).to(dtype)
        starts = {seed: family.start(seed, scale) for seed in dict.fromkeys(self.seeds)}
        self.parameters = {
            name: torch.stack([starts[seed][name] for seed in self.seeds]).to(dtype) for name in family.shapes()
        }
        self.moments = {
            f"{which} {name}": torch.zeros_like(value)
            for name, value in self.parameters.items()
            for which in ("first", "second")
        }
        self.step = 0

    def __len__(self) -> int:
        return len(self.laws)

    def __repr__(self) -> str:
        return f"Ensemble({len(self)} x {self.family}, step {self.step})"

    @property
    def atoms(self) -> Float[Tensor, "e n d"]:
        """W of every model, one atom per row."""
        return self.family.atoms(self.parameters)

    @property
    def diverged(self) -> Bool[Tensor, "e"]:
        """Models with a parameter that is NaN or infinite: data, not an error, and no harm to the others."""
        return ~torch.stack([torch.isfinite(value).flatten(1).all(1) for value in self.parameters.values()]).all(0)

    def dictionary(self, model: int) -> Dictionary:
        """W of one model.

        Raises:
            ValueError: if it diverged.
        """
        return Dictionary(self.atoms[model].detach().clone())

    def select(self, models: Iterable[int]) -> Ensemble:
        """The ensemble of some of the models, with their optimiser's state."""
        rows = torch.as_tensor(list(models), dtype=torch.long)
        chosen = object.__new__(Ensemble)
        chosen.family, chosen.step = self.family, self.step
        chosen.laws = tuple(self.laws[row] for row in rows.tolist())
        chosen.seeds = tuple(self.seeds[row] for row in rows.tolist())
        chosen.importance = self.importance[rows]
        chosen.parameters = {name: value[rows] for name, value in self.parameters.items()}
        chosen.moments = {name: value[rows] for name, value in self.moments.items()}
        return chosen

    def fingerprint(self) -> str:
        """A hash of what the models are (not of where their training stands)."""
        facts = (repr(self.family), [repr(law) for law in self.laws], self.seeds, self.importance.tolist())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Writes parameters, optimiser state and step: all that training needs to go on as if never interrupted."""
        tensors = {f"parameter {name}": value for name, value in self.parameters.items()} | self.moments
        write_tensors(Path(path), tensors | {"step": torch.tensor(self.step)}, {"fingerprint": self.fingerprint()})

    def restore(self, path: Path | str) -> None:
        """Takes up the state that `save` wrote for the same ensemble.

        Raises:
            FileNotFoundError: if there is no such file.
            FormatError: if it is damaged, or belongs to other models.
        """
        tensors = read_tensors(Path(path))
        with safetensors.safe_open(str(path), "pt") as file:
            fingerprint = (file.metadata() or {}).get("fingerprint")
        if fingerprint != self.fingerprint():
            raise FormatError(
                f"{path} is the state of other models. Repeat the settings it was made with, or begin anew."
            )
        self.parameters = {name: tensors[f"parameter {name}"] for name in self.parameters}
        self.moments = {name: tensors[name] for name in self.moments}
        self.step = int(tensors["step"])

    def has_exact_loss(self) -> bool:
        """Whether the expected loss of these models is a closed form: see `expected_loss`."""
        if not self.family.reads_linearly():
            return False
        if not self.family.activation_is_relu():
            return True
        return self.family.n <= MOST_FEATURES and all(law.magnitude == Uniform() for law in self.laws)

    def expected_loss(self, *, rows: int = 65_536, seed: int = 1) -> tuple[Float[Tensor, "e"], Float[Tensor, "e"]]:
        """The expected loss of each model and its standard error: 0 where the closed form serves, else by sampling.

        Samples use one stream for all models, so that differences between models are surer than each value.

        Args:
            rows: sampled rows.
            seed: of the sample; training uses other streams whatever its seeds.
        """
        if self.has_exact_loss():
            with torch.no_grad():
                return closed_form(self, self.parameters, slice(None)), torch.zeros(len(self), dtype=torch.float64)
        total = torch.zeros(2, len(self), dtype=torch.float64)
        block = max(1, min(rows, 2**19 // max(self.family.n, self.family.outputs)))
        importance = self.importance.double()
        for number, start in enumerate(range(0, rows, block)):
            size = min(block, rows - start)
            generator = torch.Generator().manual_seed(mix(seed, -1 - number))
            u = torch.rand(size, max(law.noise for law in self.laws), generator=generator)
            for model, law in enumerate(self.laws):
                f = law.draw(u[:, : law.noise]).to(self.importance)[None]
                parameters = {name: value[model : model + 1].clone() for name, value in self.parameters.items()}
                with torch.no_grad():
                    error = (self.family.forward(parameters, f) - self.family.target(f))[0].double() ** 2 @ importance[
                        model
                    ]
                total[0, model] += error.sum()
                total[1, model] += (error**2).sum()
        mean = total[0] / rows
        return mean, ((total[1] / rows - mean**2).clamp(min=0) / rows).sqrt()


def closed_form(ensemble: Ensemble, parameters: dict[str, Tensor], models: slice) -> Float[Tensor, "e"]:
    """The differentiable expected loss of some models, at given parameters of these."""
    family = ensemble.family
    (_, G), *_ = family.responses(parameters)
    b = parameters.get("b", G.new_zeros(G.shape[:2]))
    laws, importance = ensemble.laws[models], ensemble.importance[models]
    if not family.activation_is_relu():
        mean = torch.stack([law.mean for law in laws])
        return linear_exact_loss(G, b, mean, torch.stack([law.covariance for law in laws]), importance)
    known = {law: law.supports() for law in dict.fromkeys(laws)}
    return exact_loss(G, b, torch.stack([known[law] for law in laws]), importance)


def best_of(loss: Float[Tensor, "e"], groups: Sequence[Hashable]) -> dict[Hashable, int]:
    """In each group the model of least loss; a model without a finite loss is never chosen unless all are such.

    Example:
        >>> best_of(torch.tensor([3.0, 1.0, 2.0]), ["a", "a", "b"])
        {'a': 1, 'b': 2}
    """
    if len(groups) != len(loss):
        raise ValueError(f"best_of: {len(groups)} groups for {len(loss)} losses. Name the group of each model.")
    values = torch.nan_to_num(loss.double(), nan=torch.inf).tolist()
    chosen: dict[Hashable, int] = {}
    for model, group in enumerate(groups):
        if group not in chosen or values[model] < values[chosen[group]]:
            chosen[group] = model
    return chosen


def _importance(given: Tensor | Sequence[float] | None, count: int, outputs: int) -> Float[Tensor, "e outputs"]:
    if given is None:
        return torch.ones(count, outputs)
    importance = torch.as_tensor(given, dtype=torch.float64)
    if importance.shape not in ((outputs,), (count, outputs)):
        raise ValueError(
            f"Ensemble: importance must have shape ({outputs},) or ({count}, {outputs}), one number per output; "
            f"got {tuple(importance.shape)}."
        )
    if not bool((torch.isfinite(importance) & (importance >= 0)).all()):
        raise ValueError(f"Ensemble: importance must be finite and >= 0; the smallest is {float(importance.min())}.")
    return importance.expand(count, outputs).clone()
