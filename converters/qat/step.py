"""The arithmetic of the integer fused operator in float64 numbers that hold integers.

What the forward pass computes is the kernel's result (`quantize/integer/`): integers below 2^53 are
exact in float64, 8-bit products below 2^24 in float32. Gradients are those of the float layer, as
if nothing were rounded (straight-through), and zero where a value saturates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from edgelstm.converters.qat import tables
from edgelstm.converters.qat.operations import Operations, Tensor
from edgelstm.converters.quantize.ranges import CELL_EXPONENTS
from edgelstm.converters.spec import Array, Precision

T = TypeVar("T")

_UNIT = 2.0**15  # gates and cell candidate are Q0.15
_GATE = 2.0**12  # gate sums are Q3.12
_INT8 = (-128.0, 127.0)
_INT16 = (-32768.0, 32767.0)
_TINY = float(np.finfo(np.float32).tiny)
_POWERS = 2.0 ** np.arange(-96, 64)
_SMALLEST_POWER = 2.0**-31  # the kernels take smaller factors for zero
# The longest row whose sum of products of 9-bit and 8-bit integers stays below 2^24.
_SINGLE_UP_TO = 512


@dataclasses.dataclass(frozen=True)
class Ranges(Generic[T]):
    """Smallest and largest input and output, and largest |c|: scalars."""

    x_low: T
    x_high: T
    h_low: T
    h_high: T
    cell: T


@dataclasses.dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero); float64 scalars that pass no gradient."""

    scale: Tensor
    zero: Tensor


@dataclasses.dataclass(frozen=True)
class Factor:
    """A positive real number, and the same as the kernels hold it: fraction * power."""

    real: Tensor
    fraction: Tensor
    power: Tensor


@dataclasses.dataclass(frozen=True)
class Step:
    """h [B, U] and c [B, U] as float32 real numbers, and both before they were saturated."""

    h: Tensor
    c: Tensor
    raw_h: Tensor
    raw_c: Tensor


class IntegerStep:
    """One layer's weights and ranges in integers, ready to compute steps.

    Args:
        kernel: float32 [F, 4U]; recurrent: [U, 4U]; bias: [4U] or None; gate order i, f, c, o.
        ranges: float32 scalars.
        precision: INT8 as TensorFlow Lite computes, INT16 as TensorFlow Lite Micro does.
    """

    def __init__(
        self,
        ops: Operations,
        kernel: Tensor,
        recurrent: Tensor,
        bias: Tensor | None,
        ranges: Ranges[Tensor],
        precision: Precision,
    ) -> None:
        self._ops = ops
        self._wide = precision is Precision.INT16
        self._limits = _INT16 if self._wide else _INT8
        self._units = int(recurrent.shape[0])
        self._x = self._affine(ranges.x_low, ranges.x_high)
        self._h = self._affine(ranges.h_low, ranges.h_high)
        self._sigmoids = ops.constant(tables.sigmoid(precision))
        self._tanhs = ops.constant(tables.tanh(precision))
        scales = 2.0 ** np.array(CELL_EXPONENTS)
        place = ops.fixed(self._count_below(32767.0 * scales[:-1], ops.exact(ranges.cell)))
        self._cell = ops.take(ops.constant(scales), place)
        self._cell_zero = place * float(tables.COUNT) + tables.COUNT / 2
        self._kernel, kernel_scale = self._weights(kernel)
        self._recurrent, recurrent_scale = self._weights(recurrent)
        self._by_x = self._gate_factor(kernel_scale, self._x.scale)
        self._by_h = self._gate_factor(recurrent_scale, self._h.scale)
        self._bias = None if bias is None else self._biases(bias, kernel_scale)
        if self._wide:
            self._keep = self._factor(ops.constant(1 / _UNIT))
            self._add = self._factor(1 / (_UNIT * _UNIT * self._cell))
            self._out = self._factor(1 / (_UNIT * _UNIT * self._h.scale))
        else:
            self._out = self._factor(self._as_single(1 / _UNIT / self._h.scale / _UNIT))

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the inputs [..., F] of all steps add to the gate sums: float32 [..., 4U], Q3.12.

        Args:
            mask: dropout, of the shape of x or one that it broadcasts to.
        """
        centred = self._centred(x, self._x)
        if mask is not None:
            centred = centred * self._ops.exact(mask)
        total = self._product(centred, self._kernel)
        if self._bias is not None:
            total = total + self._bias
        return self._ops.single(self._saturated(self._times(total, self._by_x)))

    def step(self, projected: Tensor, h: Tensor, c: Tensor) -> Step:
        """One step from what `project` gave for it, [B, 4U], and the states [B, U]."""
        ops = self._ops
        held = self._times(self._product(self._centred(h, self._h), self._recurrent), self._by_h)
        if self._wide:  # this kernel saturates each summand
            held = self._saturated(held)
        i, f, g, o = ops.split(self._saturated(ops.exact(projected) + held), 4)
        i, f, o = self._sigmoid(i), self._sigmoid(f), self._sigmoid(o)
        gate_zero = ops.constant(float(tables.offset(-12)))
        g = self._table(g, 1 / _GATE, self._tanhs, gate_zero, ops.tanh)
        c = ops.clipped(self._near(ops.exact(c) / self._cell), *_INT16)
        if self._wide:
            kept = self._saturated(self._scaled(f * c, self._keep))
            added = self._saturated(self._scaled(i * g, self._add))
        else:
            kept = self._away(f * c / _UNIT)
            added = self._away(i * g / (_UNIT * _UNIT * self._cell))
        c = self._saturated(kept + added)
        u = self._table(c, self._cell, self._tanhs, self._cell_zero, ops.tanh)
        stored = self._scaled(o * u, self._out) + self._h.zero
        h = (ops.clipped(stored, *self._limits) - self._h.zero) * self._h.scale
        return Step(
            ops.single(h),
            ops.single(c * self._cell),
            ops.single(o * u / (_UNIT * _UNIT)),
            ops.single((kept + added) * self._cell),
        )

    # Scales, as `quantize/ranges.py` and `quantize/integer_op.py` make them of the same ranges.

    def _affine(self, low: Tensor, high: Tensor) -> Affine:
        ops = self._ops
        zero = ops.constant(0.0)
        low, high = ops.smaller(ops.exact(low), zero), ops.larger(ops.exact(high), zero)
        if self._wide:
            return Affine(self._scale(ops.larger(-low, high) / 32767.0), zero)
        scale = self._scale((high - low) / 255.0)
        point = ops.clipped(ops.rounded(-128.0 - low / scale), *self._limits)
        empty = self._as_single((high - low) / 255.0) < _TINY
        return Affine(scale, ops.fixed(ops.where(empty, zero, point)))

    def _scale(self, values: Tensor) -> Tensor:
        """As a float32 number; 1 for what is too small to be one."""
        ops = self._ops
        values = ops.fixed(self._as_single(values))
        return ops.where(values >= _TINY, values, values * 0 + 1.0)

    def _as_single(self, values: Tensor) -> Tensor:
        return self._ops.exact(self._ops.single(values))

    def _weights(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """int8 values [K, 4U], and the scale of each column [4U]: one per gate."""
        ops = self._ops
        exact = ops.exact(weights)
        parts = ops.reshape(ops.absolute(exact), (int(weights.shape[0]), 4, self._units))
        scale = self._scale(ops.largest(parts, (0, 2)) / 127.0)
        scale = ops.repeated(scale, self._units)
        return ops.clipped(self._near(exact / scale), -127.0, 127.0), scale

    def _biases(self, bias: Tensor, kernel_scale: Tensor) -> Tensor:
        scale = self._as_single(self._x.scale * kernel_scale)
        limit = 2.0**62 if self._wide else 2.0**31 - 1
        return self._ops.clipped(self._near(self._ops.exact(bias) / scale), -limit, limit)

    def _gate_factor(self, weights: Tensor, inputs: Tensor) -> Factor:
        if self._wide:
            return self._factor(weights * inputs * _GATE)
        return self._factor(self._as_single(weights * inputs) * _GATE)

    def _factor(self, real: Tensor) -> Factor:
        """As fraction * power, fraction in [1/2, 1) with 31 bits, power one of 2."""
        ops = self._ops
        power = ops.take(ops.constant(_POWERS), self._count_below(_POWERS, real, equal=True))
        fraction = ops.floor(real / power * 2.0**31 + 0.5) / 2.0**31
        fraction = ops.where(power < _SMALLEST_POWER, fraction * 0, fraction)
        return Factor(ops.fixed(real), ops.fixed(fraction), ops.fixed(power))

    def _count_below(self, limits: Array, value: Tensor, *, equal: bool = False) -> Tensor:
        """How many ascending limits are below `value`, or at it where `equal`."""
        shape = (*(int(size) for size in value.shape), 1)
        wide = self._ops.reshape(value, shape)
        bounds = self._ops.constant(limits)
        passed = wide >= bounds if equal else wide > bounds
        return self._ops.total(self._ops.exact(passed), -1)

    # Rounding: the kernel's result, with the gradient of the real number.

    def _near(self, real: Tensor) -> Tensor:
        return self._hard(real, self._ops.rounded(real))

    def _away(self, real: Tensor) -> Tensor:
        return self._hard(real, self._half_away(real))

    def _half_away(self, real: Tensor) -> Tensor:
        return self._ops.sign(real) * self._ops.floor(self._ops.absolute(real) + 0.5)

    def _hard(self, soft: Tensor, value: Tensor) -> Tensor:
        # Exact: the two are so near that their difference has no rounding error.
        return soft + self._ops.fixed(value - soft)

    def _scaled(self, values: Tensor, by: Factor) -> Tensor:
        """Rounded twice: in the high product, and in the shift behind it."""
        ops = self._ops
        one = by.power * 0 + 1.0
        high = ops.floor(values * (by.fraction * ops.larger(by.power, one)) + 0.5)
        return self._hard(values * by.real, self._half_away(high * ops.smaller(by.power, one)))

    def _times(self, values: Tensor, by: Factor) -> Tensor:
        """Gate sums from accumulators; 64-bit ones are multiplied by 15 bits of the factor."""
        if not self._wide:
            return self._scaled(values, by)
        ops = self._ops
        significand = ops.clipped(ops.floor(by.fraction * 2.0**15 + 0.5), 0.0, 32767.0)
        factor = significand * (by.power / 2.0**15)
        return self._hard(values * by.real, ops.floor(values * factor + 0.5))

    def _saturated(self, values: Tensor) -> Tensor:
        return self._ops.clipped(values, *_INT16)

    def _centred(self, real: Tensor, by: Affine) -> Tensor:
        stored = self._near(self._ops.exact(real) / by.scale) + by.zero
        return self._ops.clipped(stored, *self._limits) - by.zero

    def _product(self, rows: Tensor, weights: Tensor) -> Tensor:
        ops = self._ops
        if self._wide or int(weights.shape[0]) > _SINGLE_UP_TO:
            return ops.matmul(rows, weights)
        return ops.exact(ops.matmul(ops.single(rows), ops.single(weights)))

    def _sigmoid(self, gate: Tensor) -> Tensor:
        zero = self._ops.constant(tables.COUNT / 2)
        return self._table(gate, 1 / _GATE, self._sigmoids, zero, self._ops.sigmoid)

    def _table(
        self,
        at: Tensor,
        scale: Tensor,
        table: Tensor,
        zero: Tensor,
        smooth: Callable[[Tensor], Tensor],
    ) -> Tensor:
        soft = smooth(at * scale) * _UNIT
        return self._hard(soft, self._ops.take(table, self._ops.fixed(at) + zero))
