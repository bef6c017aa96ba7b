"""What all formats have in common: f = rule(E (x - c) + e), y = D^T f + b, and how that becomes an SAE of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import FormatError, ShapeError
from ..sae.rule import BatchLargest, Gate, Jump, Largest, Pursuit, Rectify, Rule

RowScaling = Literal["as they are", "layer norm", "constant norm"]
"""What is done to each row before encoding, and undone after decoding."""

_EQUAL = 1e-6
"""Relative spread of atom norms that counts as none: float32 rounding of unit vectors stays below it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Form:
    """f = rule(E (x - c) + e), y = D^T f + b + S x: what a file says, free of its spelling.

    Args:
        rule: how pre-activations become codes.
        encoder: E, one row per latent.
        encoder_bias: e.
        centre: c, taken from x before encoding.
        atoms: D, one row per latent, of any norm.
        bias: b.
        skip: S; None is 0.
        predicts: whether y is another thing than x, so that b says nothing about x: a transcoder.
        scale: codes of this form over codes in the file's own units, per latent.
        rows: what is done to each row first.
        notes: what the file says about where it is from: model, site, hook_name.
        cautions: what a user of it must know.
    """

    rule: Rule
    encoder: Float[Tensor, "n d"]
    encoder_bias: Float[Tensor, "n"]
    centre: Float[Tensor, "d"]
    atoms: Float[Tensor, "n e"]
    bias: Float[Tensor, "e"]
    skip: Float[Tensor, "e d"] | None = None
    predicts: bool = False
    scale: Float[Tensor, "n"] | None = None
    rows: RowScaling = "as they are"
    notes: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, d = self.encoder.shape
        if d < 1 or n < 1:
            raise ShapeError(f"an encoder of {n} latents and {d} dimensions is empty. Give one with at least one each.")
        if self.atoms.shape[0] != n:
            raise ShapeError(f"{self.atoms.shape[0]} atoms for {n} latents. The decoder may be transposed.")
        for name in ("encoder_bias", "centre", "atoms", "bias", "skip", "scale"):
            if (tensor := getattr(self, name)) is not None:
                object.__setattr__(self, name, tensor.to(self.encoder.dtype))
        if isinstance(self.rule, Jump):
            object.__setattr__(self, "rule", Jump(self.rule.threshold.to(self.encoder.dtype)))
        elif isinstance(self.rule, Gate):
            gain, magnitude_bias = (t.to(self.encoder.dtype) for t in (self.rule.log_gain, self.rule.magnitude_bias))
            object.__setattr__(self, "rule", Gate(gain, magnitude_bias))

    @property
    def n(self) -> int:
        return self.encoder.shape[0]

    def _with(self, **changes: Any) -> Form:
        """With these changes, made in float64, back in the dtype it had."""
        encoder = changes.pop("encoder", self.encoder).to(self.encoder.dtype)
        return dataclasses.replace(self, encoder=encoder, **changes)

    def rescaled(self, by: Float[Tensor, "n"]) -> Form:
        """The same function with every code multiplied by a positive number of its own: f' = by f, D' = D / by.

        Right for rules that act on each latent alone; for the largest k it changes which are chosen.
        """
        column = by[:, None]
        rule = self.rule
        if isinstance(rule, Jump):
            rule = Jump(rule.threshold.double() * by)
        elif isinstance(rule, Gate):
            rule = Gate(rule.log_gain, rule.magnitude_bias.double() * by)
        scale = by if self.scale is None else self.scale.double() * by
        return self._with(
            rule=rule,
            encoder=self.encoder.double() * column,
            encoder_bias=self.encoder_bias.double() * by,
            atoms=self.atoms.double() / column,
            scale=scale,
        )

    def unit(self) -> Form:
        """With atoms of norm 1 where that leaves the function as it is; otherwise unchanged, with a caution.

        ReLU, jump and gate act on each latent alone, so a norm moves from the atom into encoder and threshold. The
        largest k of a row, and one threshold for all, compare latents with each other: norms that differ stay.
        """
        norms = self.atoms.double().norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        if bool((norms - 1).abs().max() <= _EQUAL):
            return self
        if isinstance(self.rule, Pursuit):
            said = f"atoms keep their norms, {norms.min():.3g} to {norms.max():.3g}, which weigh in the pursuit"
            return dataclasses.replace(self, cautions=(*self.cautions, said))
        if isinstance(self.rule, Largest | BatchLargest):
            mean = norms.mean()
            if bool((norms - mean).abs().max() > _EQUAL * mean):
                if isinstance(self.rule, BatchLargest):
                    threshold = torch.full_like(norms, max(self.rule.threshold, 0.0))
                    said = "its one threshold, times the norms of its atoms, is now a threshold per latent"
                    return dataclasses.replace(self, rule=Jump(threshold), cautions=(*self.cautions, said)).unit()
                said = (
                    f"atoms have norms from {norms.min():.3g} to {norms.max():.3g} and keep them, since unit norms "
                    "would change which latents are chosen; training on would normalise them"
                )
                return dataclasses.replace(self, cautions=(*self.cautions, said))
            form = self.rescaled(norms)
            if isinstance(self.rule, BatchLargest):
                threshold = self.rule.threshold * float(mean) if self.rule.threshold > 0 else self.rule.threshold
                form = dataclasses.replace(form, rule=dataclasses.replace(self.rule, threshold=threshold))
            return form
        return self.rescaled(norms)

    def centred(self) -> Form:
        """With c = b, as every SAE of ours has it: e' = e + E (b - c).

        Raises:
            FormatError: if x and y have different dimensions, so that there is no common b.
        """
        if self.centre.shape != self.bias.shape:
            raise FormatError(
                f"it reads x of {len(self.centre)} dimensions and writes {len(self.bias)}; an SAE has one dimension."
            )
        return self._around(self.bias)

    def uncentred(self) -> Form:
        """With c = 0, for formats that take nothing from x: e' = e - E c."""
        return self._around(torch.zeros_like(self.centre))

    def _around(self, centre: Float[Tensor, "d"]) -> Form:
        """The same function with another c: e' = e + E (c' - c)."""
        if torch.equal(self.centre, centre):
            return self
        shift = self.encoder.double() @ (centre - self.centre).double()
        rule = self.rule
        if isinstance(rule, Gate):
            rule = Gate(rule.log_gain, rule.magnitude_bias.double() + rule.log_gain.double().exp() * shift)
        return self._with(rule=rule, encoder_bias=self.encoder_bias.double() + shift, centre=centre)

    def scaled_input(self, by: float | int, out: float | int | None = None) -> Form:
        """The function of x that this is of by * x, its result divided by `out` (by `by` without it)."""
        out = by if out is None else out
        return self._with(
            encoder=self.encoder.double() * by,
            centre=self.centre.double() / by,
            atoms=self.atoms.double() / out,
            bias=self.bias.double() / out,
        )

    def whitened_input(
        self, mean: Float[Tensor, "d"], matrix: Float[Tensor, "d d"], inverse: Float[Tensor, "d d"]
    ) -> Form:
        """The function of x that this is of z = (x - mean) @ matrix, its result turned back by z @ inverse + mean."""
        mean, matrix, inverse = mean.double(), matrix.double(), inverse.double()
        return self._with(
            encoder=self.encoder.double() @ matrix.T,
            centre=self.centre.double() @ inverse + mean,
            atoms=self.atoms.double() @ inverse,
            bias=self.bias.double() @ inverse + mean,
        )


@dataclass(frozen=True)
class Given:
    """What the caller knows and the file does not say.

    Args:
        architecture: the rule, for files that hold weights alone.
        k: latents kept per row.
        subtract_bias: whether the decoder's bias is taken from x before encoding.
        input_scale: what x is multiplied by before encoding; the result is divided by it.
        strict: refuse unknown keys.
    """

    architecture: str | None = None
    k: int | None = None
    subtract_bias: bool | None = None
    input_scale: float | int | None = None
    strict: bool = True


@dataclass(frozen=True)
class Format:
    """One way in which others store dictionaries.

    Args:
        name: as in `superscope convert --to NAME`.
        says: whose format it is, in a line.
        recognise: whether a path looks like it, by names of files.
        read: the form in it.
        write: puts a form there; None where the format is only read.
        suffix: of the one file that it writes; "" if it writes a folder.
        predicts: whether it has a place for transcoders.
    """

    name: str
    says: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, Given], Form]
    write: Callable[[Form, Path], None] | None = None
    suffix: str = ""
    predicts: bool = False


def cannot_hold(format: str, form: Form, held: str) -> FormatError:
    """The refusal to write what a format has no place for."""
    what = {
        Rectify: "a ReLU dictionary",
        Jump: "a JumpReLU dictionary",
        Largest: "a dictionary that keeps the k largest",
        BatchLargest: "a batch top-k dictionary",
        Gate: "a gated dictionary",
        Pursuit: "a matching pursuit dictionary",
    }[type(form.rule)]
    if form.predicts:
        what = "a transcoder"
    if isinstance(form.rule, Largest) and form.rule.signed:
        what += " in size"
    if form.rows != "as they are":
        what += f" of rows under {form.rows}"
    return FormatError(f"the format {format} cannot hold {what}: it holds {held}. Choose another with --to.")
