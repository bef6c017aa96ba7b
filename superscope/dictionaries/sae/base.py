"""What every sparse autoencoder is: an encoder, a unit-norm dictionary, and a rule that keeps few latents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..._version import __version__
from ...core import ActivationSource, Dictionary, FormatError, ShapeError, SparseCode, SparseCoder, files
from ...core.source import only
from ...recovery import Refinement
from ..step import exchange, precision
from .rule import Rule

_ABOUT = ("kind", "architecture", "arguments", "superscope", "notes")
# Bytes of one block of pre-activations: read several times, it should stay in the last cache beside the encoder, and
# its rows should be many, since the product arranges the encoder anew for each block. A GPU reads the whole encoder for
# each: on an H200, d = 4 096 and n = 131 072, a step took 141, 83 and 75 ms with 2^26, 2^28 and 2^30 bytes.
_CPU_BYTES, _GPU_BYTES = 2**24, 2**29
# Pre-activations that are looked at to guess a level.
_SOME = 2**19

SAVED = ("weights.safetensors", "about.json")
"""The files of a saved SAE."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What one batch gave, and what training descends on.

    Args:
        code: f of each row.
        x_hat: its reconstruction, with gradients.
        loss: mean squared error in units of scale^2, plus the architecture's penalty.
    """

    code: SparseCode
    x_hat: Float[Tensor, "b e"]
    loss: Float[Tensor, ""]

    @property
    def fired(self) -> Bool[Tensor, "n"]:
        """Which latents were on in some row."""
        fired = torch.zeros(self.code.n, dtype=torch.bool, device=self.code.indices.device)
        fired[self.code.indices[self.code.values != 0]] = True
        return fired

    @property
    def l0(self) -> float:
        """Mean number of latents on per row."""
        return float(self.code.l0.double().mean())


class SAE(nn.Module, SparseCoder):
    r"""f = sparsify(E (x - b) + e),  x ~ D^T f + b, with the rows of D of norm 1.

    Abstract: an architecture says `sparsify` and, if it has one, `penalty`. The encoder starts as the dictionary;
    `train` rescales it to the data. Rows of D have norm 1, so that a latent's value is a length in the units of x.

    Args:
        d: dimension of x.
        n: number of latents.
        seed: of the random start.
        further: the architecture's own arguments, kept with these as `about`.

    Attributes:
        about: the arguments of the constructor, verbatim.
        atoms: the dictionary D, one unit-norm row per latent.
        encoder: E, one row per latent.
        encoder_bias: e.
        bias: b, taken from x before encoding and added after decoding.

    Raises:
        ValueError: if d or n is smaller than 1.
    """

    units: ClassVar[tuple[str, ...]] = ("encoder_bias", "bias")
    """Parameters in the units of x: training gives them their learning rate in those units."""
    shards: ClassVar[bool] = False
    """Whether latents meet only in sums and in the choice of the largest, so that devices can each hold a part."""
    whitens: ClassVar[bool] = True
    """Whether x is read by E (x - b) + e alone and atoms are free, so that a linear map of x can be folded in."""

    def __init__(self, d: int, n: int, *, seed: int = 0, **further: Any) -> None:
        super().__init__()
        for name, number in (("d", d), ("n", n)):
            if number < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1; got {number}.")
        self.about: Mapping[str, Any] = {"d": d, "n": n, **further, "seed": seed}
        self.d, self.n = d, n
        atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
        atoms /= atoms.norm(dim=1, keepdim=True)
        self.atoms = nn.Parameter(atoms)
        self.encoder = nn.Parameter(atoms.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(d))

    signed: ClassVar[bool] = False
    """Whether latents may be negative."""
    sized_by: ClassVar[tuple[str, ...]] = ("d",)
    """Arguments of the constructor that the source of rows settles: what it calls so."""

    @classmethod
    def join(cls, sources: Sequence[ActivationSource]) -> ActivationSource:
        """What to train on, of a source for each site, in order; here there must be but one.

        Raises:
            ValueError: if there are more or fewer than the architecture learns of.
        """
        return only(cls.__name__, sources)

    @property
    def unit(self) -> bool:
        """Whether training steps atoms along the sphere, so that they are of norm 1 after each step."""
        return True

    @property
    def block(self) -> int:
        """Rows whose dense pre-activations are held at once."""
        most = _GPU_BYTES if self.encoder.is_cuda else _CPU_BYTES
        # Of the whole dictionary: its shards talk about the same rows, block by block.
        return max(most // (int(self.about["n"]) * self.encoder.element_size()), 1)

    @abstractmethod
    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        """The code that the architecture keeps of dense pre-activations."""

    def rule(self) -> Rule | None:
        """How pre-activations become codes in use, as data; None where no other format has a place for it."""
        return None

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        """An SAE that keeps by a rule which a file says, with the rule's own numbers; None if it is not for this class.

        Where several architectures keep alike one of them takes the rule; the others differ in how they are trained.
        """
        return None

    def rectify(self, pre: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        """The value of a latent that is kept; its positive part unless the architecture says otherwise."""
        return pre.relu()

    def penalty(self, code: SparseCode, *, scale: float = 1.0) -> Float[Tensor, ""]:
        """What is added to the squared error while training; zero unless the architecture says otherwise.

        Args:
            code: of a batch, with gradients.
            scale: root mean square deviation of x per dimension; values / scale has no units.
        """
        return code.values.new_zeros(())

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b e"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        r"""$|t - \hat x|^2 / (B d\,\mathrm{scale}^2)$ + penalty on one batch: what training descends on.

        Args:
            x: the batch.
            target: t, what is to be predicted; x itself if None.
            scale: root mean square deviation of the target per dimension.
            progress: share of training done, in [0, 1]: what annealing and warm-ups go by.
        """
        code, x_hat = self.reconstruction(x)
        return Fit(
            code, x_hat, self.squared(x_hat, x if target is None else target, scale) + self.penalty(code, scale=scale)
        )

    @staticmethod
    def squared(x_hat: Float[Tensor, "b e"], target: Float[Tensor, "b e"], scale: float) -> Float[Tensor, ""]:
        """Mean squared error per number, in units of scale^2.

        Over the stream's scale, not the batch's variance: a ratio of two random sums would weigh batches unequally.
        """
        return F.mse_loss(x_hat, target) / scale**2

    @torch.no_grad()
    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b e"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        """Sets b to the centre of x, and the encoder to c times the dictionary, c the least-squares scale on x."""
        self.bias.copy_(geometric_median(x) if centre == "median" else x.double().mean(0).to(x.dtype))
        self.encoder_bias.zero_()
        self.encoder.copy_(self.atoms)
        energy = along = 0.0
        # Few rows at a time, since an architecture that keeps many latents at the start may hold them dense.
        for part in x.split(max(self.block // 8, 1)):
            r, t = (self.reconstruction(part)[1] - self.bias).double(), (part - self.bias).double()
            energy += float(r.square().sum())
            along += float((r * t).sum())
        # r = 0 only where no latent is positive on any row, which leaves nothing to scale.
        c = along / energy if energy > 0 else 1.0
        # A negative or vanishing scale would start every latent on the wrong side of its rectifier.
        if c > 0:
            self.encoder.mul_(c)

    @torch.no_grad()
    def project(self) -> None:
        """Before an optimiser's step: takes out of each atom's gradient the part along the atom."""
        gradient = self.atoms.grad
        if gradient is not None and self.unit:
            gradient -= (gradient * self.atoms).sum(1, keepdim=True) * self.atoms

    def constrain(self, *, normalised: bool = False) -> None:
        """After an optimiser's step: atoms of norm 1, and whatever else an architecture holds to.

        Args:
            normalised: whether the optimiser has divided the atoms by their norms already.
        """
        if self.unit and not normalised:
            self.normalise()

    def auxiliary(
        self, x: Float[Tensor, "b d"], error: Float[Tensor, "b e"], dead: Bool[Tensor, "n"], k: int
    ) -> Float[Tensor, ""]:
        r"""$\sum_b |e_b - \hat e_b|^2 / \sum_b |e_b|^2$, $\hat e$ the dead latents' own reconstruction of the residual.

        The dead latents with the k largest pre-activations of each row take part, through the same weights as ever; the
        living get no gradient, since e is detached and their latents do not occur.

        Args:
            x: the batch.
            error: what is to be predicted minus its reconstruction, detached.
            dead: which latents are dead; at least one.
            k: latents per row, at most the number of dead ones.

        Source:
            Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (appendix A.2). They divide by the batch
            variance of e about its mean, which is nearly the same; this is the energy that 0 would leave.
        """
        rows = dead.nonzero().squeeze(1)
        encoder, atoms, encoder_bias = self.encoder[rows], self.atoms[rows], self.encoder_bias[rows]
        pre = torch.addmm(encoder_bias, x - self.bias.detach(), encoder.T)
        values = self.rectify(pre)
        values = torch.where(exchange.current().largest(values.detach().abs(), k), values, 0.0)
        e_hat = exchange.current().total(values @ atoms)
        energy = exchange.current().row_mean(error.square().sum())
        left, tiny = (error - e_hat).square().sum(), torch.finfo(error.dtype).tiny
        # Where there is no error there is nothing to fit, and a share of nothing would be infinite.
        return torch.where(energy > tiny, left, 0.0) / energy.clamp(min=tiny)

    def pre_activations(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """E (x - b) + e, dense."""
        return precision.product(self.encoder_bias, x - exchange.current().spread(self.bias), self.encoder)

    def some_rows(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "c d"]:
        """As many of the first rows of x as have half a million pre-activations: enough to guess a level by."""
        # Of the whole dictionary: its shards must take the same rows.
        return x[: max(_SOME // int(self.about["n"]), 1)]

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        """The code and D^T f + b, with gradients to every parameter: what training descends on.

        Here by autograd through the dense pre-activations, right for every architecture. One whose values depend on
        the chosen pre-activations alone overrides it with the sparse products.
        """
        code = self.sparsify(self.pre_activations(x))
        return code, exchange.current().total(code.dense() @ self.atoms) + self.bias

    @final
    def encode(self, x: Float[Tensor, "*batch d"], *, refine: Refinement | str | None = None) -> SparseCode:
        """The code of each row of x. Memory O(block), never (rows, n).

        Args:
            x: activations.
            refine: what to make of the encoder's code, without gradients: "refit" gives the active latents their best
                values, "pursuit" also trades them for others (`recovery.REFINEMENTS`, or one of them with settings of
                your own). The error never grows, nor the number of active latents.

        Raises:
            ShapeError: if the rows of x have another length than d.
            TypeError: if x has another dtype than the weights; if it is to be refined and the code is not one of x.
            ValueError: if there is no such refinement, or another device holds a part of the latents.
        """
        if x.shape[-1] != self.d:
            raise ShapeError(
                f"{type(self).__name__}.encode: x has rows of {x.shape[-1]} numbers, this SAE wants d = {self.d}. "
                "Give one activation per row, from the site it was trained on."
            )
        if x.dtype != self.encoder.dtype:
            raise TypeError(
                f"{type(self).__name__}.encode: x is {x.dtype} and the weights are {self.encoder.dtype}. "
                "Convert one: x.to(sae.encoder.dtype)."
            )
        rows = x.reshape(-1, self.d)
        codes = self.codes(rows)
        if not codes:
            codes = [self.sparsify(rows.new_zeros(1, self.n))[:0]]
        k = max(code.k for code in codes)
        codes = [_widen(code, k) for code in codes]
        values, indices = torch.cat([c.values for c in codes]), torch.cat([c.indices for c in codes])
        if refine is not None:
            refined = self._refined(rows, SparseCode(values, indices, self.n), Refinement.of(refine))
            values, indices = refined.values, refined.indices
        return SparseCode(values.reshape(*x.shape[:-1], k), indices.reshape(*x.shape[:-1], k), self.n)

    def _refined(self, x: Float[Tensor, "b d"], code: SparseCode, refine: Refinement) -> SparseCode:
        if not exchange.current().alone:
            raise ValueError(
                f"{type(self).__name__}.encode: refining needs every latent, and other devices hold some. "
                "Gather the dictionary on one first."
            )
        W, rows = self.combination(x)
        return refine.improve(W, rows, code, nonnegative=not self.signed)

    def combination(self, x: Float[Tensor, "b d"]) -> tuple[Dictionary, Float[Tensor, "b d"]]:
        """The atoms, and the rows that a code is to add up to with them: what refining fits.

        Raises:
            TypeError: if the code of x is not meant to add up to anything that x alone says.
        """
        return self.dictionary, x

    def codes(self, x: Float[Tensor, "b d"]) -> list[SparseCode]:
        """The codes of rows, a block at a time."""
        return [self.sparsify(self.pre_activations(block)) for block in x.split(self.block)]

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """D and b, without gradients. They share memory with the weights, so training goes on to change them."""
        return Dictionary(self.atoms.detach(), self.bias.detach())

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch e"]:
        """The reconstruction of x."""
        return self.reconstruct(x)

    @torch.no_grad()
    def normalise(self) -> None:
        """Divides every atom by its norm; a zero atom is left as it is."""
        norms = self.atoms.norm(dim=1, keepdim=True)
        self.atoms.div_(torch.where(norms > 0, norms, torch.ones_like(norms)))

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.about.items())

    def save(self, folder: Path | str, *, notes: Mapping[str, Any] | None = None) -> None:
        """Writes weights.safetensors and about.json, each atomically.

        Args:
            folder: made if it is not there.
            notes: anything JSON can hold: the site, the data, the figures reached.
        """
        folder = Path(folder)
        files.write_tensors(folder / "weights.safetensors", dict(self.state_dict()))
        about = {
            "kind": "sae",
            "architecture": type(self).__name__,
            "arguments": dict(self.about),
            "superscope": __version__,
            "notes": dict(notes or {}),
        }
        files.write_json(folder / "about.json", about)

    @classmethod
    def load(cls, folder: Path | str) -> SAE:
        """The SAE saved in a folder, which must be of this architecture (`dictionaries.load` takes any).

        Raises:
            FileNotFoundError: if a file is missing.
            FormatError: if a file is damaged, of another architecture, has unknown keys or weights that do not fit.
        """
        about = read_about(folder)
        where = Path(folder) / "about.json"
        if about["architecture"] != cls.__name__:
            raise FormatError(
                f"{where} describes a {about['architecture']}, not a {cls.__name__}. "
                "Load it with dictionaries.load(folder)."
            )
        try:
            sae = cls(**about["arguments"])
        except (TypeError, ValueError) as error:
            raise FormatError(f"{where} has arguments that {cls.__name__} does not take: {error}") from error
        weights = files.read_tensors(Path(folder) / "weights.safetensors")
        expected = sae.state_dict()
        files.refuse_unknown(weights, tuple(expected), str(Path(folder) / "weights.safetensors"))
        for name, tensor in expected.items():
            if name not in weights:
                raise FormatError(f"{folder}/weights.safetensors lacks {name!r}. Save the SAE again.")
            if weights[name].shape != tensor.shape:
                raise FormatError(
                    f"{folder}/weights.safetensors: {name} has shape {tuple(weights[name].shape)}, "
                    f"about.json says {tuple(tensor.shape)}."
                )
            if not bool(torch.isfinite(weights[name]).all()):
                raise FormatError(
                    f"{folder}/weights.safetensors: {name} holds NaN or infinite numbers. Train it again."
                )
        sae.to(weights["atoms"].dtype).load_state_dict(weights)
        return sae


def geometric_median(x: Float[Tensor, "b d"], *, steps: int = 100, tolerance: float = 1e-6) -> Float[Tensor, "d"]:
    r"""argmin_m sum_b |x_b - m|: a centre that a few huge rows cannot drag away, as they drag the mean.

    Weiszfeld's iteration from the mean, in float64; rows on the current point are given the smallest distance seen
    above rounding, so that the iteration does not stop on them.

    Args:
        x: one point per row.
        steps: at most this many iterations.
        tolerance: it stops when a step is shorter than this share of the mean distance.

    Source:
        Vardi and Zhang, "The multivariate L1-median and associated data depth", 2000, for its fixed points.

    Example:
        >>> geometric_median(torch.tensor([[0.0], [0.0], [0.0], [100.0]])).abs().item() < 1e-3
        True
    """
    points = x.double()
    median = points.mean(0)
    for _ in range(steps):
        distances = (points - median).norm(dim=1)
        mean_distance = distances.mean()
        if float(mean_distance) == 0:
            break
        weights = 1 / distances.clamp(min=1e-9 * float(mean_distance))
        following = (weights[:, None] * points).sum(0) / weights.sum()
        moved = float((following - median).norm())
        median = following
        if moved <= tolerance * float(mean_distance):
            break
    return median.to(x.dtype)


def _widen(code: SparseCode, k: int) -> SparseCode:
    """The same code with k slots; the new ones are unused."""
    if code.k == k:
        return code
    room = (0, k - code.k)
    return SparseCode(nn.functional.pad(code.values, room), nn.functional.pad(code.indices, room), code.n)


def read_about(folder: Path | str) -> dict[str, Any]:
    """The about.json of a saved SAE, checked.

    Raises:
        FileNotFoundError: if there is none.
        FormatError: if it is damaged, no SAE's, or has unknown or missing keys.
    """
    where = Path(folder) / "about.json"
    if not where.is_file():
        raise FileNotFoundError(f"{folder} holds no SAE: there is no about.json. Save one there with sae.save(folder).")
    about = files.read_json(where)
    if not isinstance(about, dict) or about.get("kind") not in ("sae", "learner"):
        raise FormatError(f"{where} does not describe an SAE.")
    files.refuse_unknown(about, _ABOUT, str(where))
    missing = [key for key in _ABOUT if key not in about]
    if missing or not isinstance(about["arguments"], dict):
        raise FormatError(f"{where} lacks {', '.join(missing) or 'its arguments'}. Save the SAE again.")
    return about
