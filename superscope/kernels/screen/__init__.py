r"""Which pre-activations are large, found by a product of whole numbers and computed in float32 only where they may be.

Rows of x and of the encoder become multiples of their largest entry over 127, $x = s_x u_x$, $u_x = c_x + r_x$. Then

$$\langle x, w\rangle = s_x s_w\,(\langle c_x, c_w\rangle + \langle r_x, u_w\rangle + \langle c_x, r_w\rangle),$$

of which the first is a product of int8 numbers, four times as fast as one of float32 where the CPU has instructions
for it, and the others are at most $|r_x||u_w| + |c_x||r_w|$ (Cauchy-Schwarz): some 1.4 % of $|x||w|$ at d = 512.
What this bound excludes is not computed; the rest is, in float32. So the choice and its values are those of the float32
product, but for rounding.

With `sure` off the bound is $z/\sqrt d$ of that, z = 6, for rows whose remainders are noise: at most an eighth of their
energy is that of entries smaller than two units, whose remainders resemble them. Remainders of rounding have a
direction of their own, so each of the two products is normal with standard deviation $|r||u|/\sqrt d$, and their sum
has at most the bound over 6. A latent that belongs among the chosen is missed with probability at most
$Q(6) = 10^{-9}$, and only if it is that close to the last one chosen.

Where a CPU has no such instructions the same whole numbers are multiplied by a compiled loop: exact, and no faster than
the float32 product, so that nothing is screened there unless it is asked for.

There is no version of torch's own pieces: converting, bounding and searching the products in passes of their own takes
longer than the float32 product did (d = 512, n = 8 192, k = 32, 2 048 rows: 257 CPU-ms against 209).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ..above import above as over
from ..choice import compiles, installed
from ..topk import topk as largest

# Standard deviations of what rounding leaves that are allowed for where the bound need not be sure.
DEVIATIONS = 6.0
# Bytes of a block of products, and rows of the first one.
_BYTES, _FIRST = 2**23, 64
# As many float32 products of one row with one latent as cost what the row's dense product costs.
_WORTH = 32
# Units between which products of two stay far from the ends of float32, and remainders of float32's own rounding.
_LEAST, _GREATEST, _FLOAT = 1e-15, 1e15, 1e-5
# Entries of a row from which sums of products of two bytes might not fit 32 bits.
_LONGEST = 2**16
_int_mm = torch.ops.aten._int_mm
# Sizes from which rounding the encoder and looking through bounds is repaid.
_ROWS, _D, _N = 256, 256, 2048


def can_screen(device: str) -> bool:
    """Whether a device ("cpu") multiplies int8 matrices exactly and fast, and loops can be compiled for it."""
    return device == "cpu" and torch.cpu._is_vnni_supported() and exact_products() and installed("numba")


@cache
def exact_products() -> bool:
    """Whether torch's product of int8 matrices is exact here, which is tried.

    Without VNNI instructions oneDNN adds two products in 16 bits, which the largest overflow, and says nothing.
    """
    large = torch.full((32, 256), 127, dtype=torch.int8)
    found = _int_mm(large, large.T)
    return bool((found == 256 * 127**2).all())


class Screen:
    """An encoder and its whole numbers. Make it with `of`, while the encoder does not change.

    Args:
        encoder: E, float32, a row per latent.
        shift: e, added to every pre-activation.
        sure: whether what is excluded is excluded by proof.
        room: gives memory for so many rows and columns of numbers like those of a tensor.
        whole, scales, norms, rests: as rounded.
    """

    def __init__(
        self,
        encoder: Tensor,
        shift: Tensor,
        sure: bool,
        room: Callable[[int, int, Tensor], Tensor],
        whole: Tensor,
        scales: Tensor,
        norms: Tensor,
        rests: Tensor,
    ) -> None:
        self.encoder, self.shift, self.sure, self._whole = encoder, shift, sure, whole
        self._bounds = tuple(tensor.numpy() for tensor in (encoder, shift, scales, norms, rests))
        # Each block's products take the memory of the last one's.
        self._products = room(self._size, len(encoder), torch.empty(0, dtype=torch.int32))
        from . import compiled

        self._loops = compiled

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        encoder: Float[Tensor, "n d"],
        shift: Float[Tensor, "n"],
        *,
        sure: bool = True,
        room: Callable[[int, int, Tensor], Tensor] | None = None,
    ) -> Screen | None:
        """None where whole numbers would say nothing: something not finite, or rows beyond float32's middle range.

        Args:
            encoder: E.
            shift: e.
            sure: False excludes what is very likely not wanted; see the module.
            room: gives memory for so many rows and columns of numbers like those of a tensor; None is torch.empty.
        """
        encoder, shift = encoder.detach().contiguous(), shift.detach().contiguous()
        found = _rounded(encoder, sure) if encoder.shape[1] <= _LONGEST else None
        if found is None or not math.isfinite(float(shift.sum())):
            return None
        return cls(encoder, shift, sure, room or _new, *found)

    @torch.no_grad()
    def topk(
        self, x: Float[Tensor, "b d"], k: int, *, signed: bool = False
    ) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
        """The k largest of E x + e for each row and where they stand, or those furthest from zero. No gradients.

        Rows of which too many latents would have to be computed are given the float32 product, and all rows that are
        left once a quarter of a block were such.

        Args:
            x: the batch, the SAE's bias already taken off.
            k: in 1..n.
            signed: whether it is absolute values that are compared.

        Raises:
            ValueError: if k is not in 1..n.
        """
        n = len(self.encoder)
        if not 1 <= k <= n:
            raise ValueError(f"Screen.topk: k must be in 1..n = {n}; got {k}.")
        x = x.detach().contiguous()
        values, indices = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.long)
        done = torch.zeros(len(x), dtype=torch.bool)
        found = _rounded(x, self.sure) if _WORTH * k <= n else None
        # Few rows at first, which show whether bounds exclude enough.
        first = min(_FIRST, self._size, len(x))
        for part in [*_blocks(0, first, first), *_blocks(first, len(x), self._size)] if found is not None else ():
            assert found is not None
            whole, of_x = found[0][part], tuple(tensor[part] for tensor in found[1:])
            given = (self._multiplied(whole), self._bounds, x[part], of_x, k)
            done[part] = self._loops.topk(
                *given, signed=signed, most=n // _WORTH, values=values[part], indices=indices[part]
            )
            if 4 * int(done[part].sum()) < 3 * len(whole):
                break
        left = (~done).nonzero().squeeze(1)
        for some in left.split(self._size):
            pre = torch.addmm(self.shift, x[some], self.encoder.T)
            at = largest(pre.abs() if signed else pre, k)[1]
            values[some], indices[some] = pre.gather(1, at), at
        return values, indices

    @torch.no_grad()
    def above(
        self, x: Float[Tensor, "b d"], floor: float | Float[Tensor, "n"]
    ) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
        """Row, column and value of every entry of E x + e greater than the floor, in order of row. No gradients.

        From the block on of which too many latents would have to be computed, by the float32 product.

        Args:
            x: the batch, the SAE's bias already taken off.
            floor: one for all, or one for each column.
        """
        n, x = len(self.encoder), x.detach().contiguous()
        floors = torch.as_tensor(floor, dtype=x.dtype).expand(n).contiguous()
        found = _rounded(x, self.sure)
        parts = [(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), x.new_empty(0))]
        for part in _blocks(0, len(x), self._size):
            some = None
            if found is not None:
                whole, of_x = found[0][part], tuple(tensor[part] for tensor in found[1:])
                some = self._loops.above(self._multiplied(whole), self._bounds, x[part], of_x, floors, most=n // _WORTH)
            if some is None:
                found = None
                rows, columns, pre = over(torch.mm(x[part], self.encoder.T), floors - self.shift)
                some = rows, columns, pre + self.shift[columns]
            parts.append((some[0] + part.start, *some[1:]))
        rows, columns, values = (torch.cat(given) for given in zip(*parts, strict=True))
        return rows, columns, values

    @property
    def _size(self) -> int:
        """Rows of a block."""
        return max(_BYTES // (4 * len(self.encoder)), 1)

    def _multiplied(self, whole: Int8[Tensor, "b d"]) -> Int[Tensor, "b n"]:
        out = self._products[: len(whole)]
        if exact_products():
            return _int_mm(whole, self._whole.T, out=out)
        return self._loops.multiplied(whole, self._whole, out)


def _new(rows: int, columns: int, like: Tensor) -> Tensor:
    return torch.empty(rows, columns, dtype=like.dtype)


def _blocks(start: int, stop: int, size: int) -> list[slice]:
    return [slice(low, min(low + size, stop)) for low in range(start, stop, max(size, 1))]


def screens(x: Tensor, encoder: Tensor) -> bool:
    """Whether bounds repay their making: many long float32 rows on both sides, loops compiled, int8 fast."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and len(x) >= _ROWS
        and encoder.shape[1] >= _D
        and len(encoder) >= _N
        and compiles(encoder)
        and can_screen("cpu")
    )


def _rounded(rows: Float[Tensor, "m d"], sure: bool) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Whole numbers; each row's unit, its norm in that unit, and that of what rounding left."""
    from . import compiled

    share = 1.0 if sure else min(DEVIATIONS / math.sqrt(rows.shape[1]), 1.0)
    whole, scale, norm, rest = compiled.rounded(rows, share)
    sized = not len(rows) or (float(scale.min()) >= _LEAST and float(scale.max()) <= _GREATEST)
    if not sized or not math.isfinite(float(norm.sum())):
        return None
    # Sums of float32 numbers are themselves off by less than this.
    return whole, scale, norm, rest + _FLOAT * norm


__all__ = ["DEVIATIONS", "Screen", "can_screen", "exact_products", "screens"]
