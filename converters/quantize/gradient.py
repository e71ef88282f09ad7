"""Gradients of an LSTM's outputs over a sequence, in numpy.

For layers as the integer kernels compute them: logistic gates, tanh, any of peepholes, coupled
gates and a projection, which is a constant here; no layer normalisation.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.spec import FloatArray, LstmSpec

_INPUT, _FORGET, _CELL, _OUTPUT = range(4)


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Rows of equal length, time-major float32.

    Attributes:
        x: [T, B, F]; h0: [B, O] and c0: [B, U], states before the first step.
        outputs: [T, B, O], what the layer is to give.
    """

    x: FloatArray
    h0: FloatArray
    c0: FloatArray
    outputs: FloatArray

    def rows(self, chosen: slice | FloatArray) -> Sequences:
        """Some of the rows."""
        return Sequences(
            self.x[:, chosen], self.h0[chosen], self.c0[chosen], self.outputs[:, chosen]
        )


@dataclasses.dataclass(frozen=True)
class _Pass:
    """What the way back needs: gates [T, B, gates * U] behind their activations, and states."""

    gates: FloatArray
    h: FloatArray  # [T + 1, B, O]
    c: FloatArray  # [T + 1, B, U]
    squashed: FloatArray  # [T, B, U], tanh(c)


class DifferentiableLstm:
    """A layer with weights that change."""

    def __init__(self, spec: LstmSpec) -> None:
        """Takes the structure and the constants of a layer."""
        self.spec = spec
        self.present = [g for g, w in enumerate(spec.kernel.as_tuple()) if w is not None]
        self._place = {gate: number for number, gate in enumerate(self.present)}
        holes = spec.peephole.as_tuple() if spec.peephole is not None else (None,) * 4
        self._holes = {gate: hole for gate, hole in enumerate(holes) if hole is not None}

    def error(self, weights: FloatArray, bias: FloatArray, wanted: Sequences) -> float:
        """Mean squared difference of the outputs from those wanted.

        Args:
            weights: [gates * U, F + O], of the gates that are present, in the order i, f, c, o.
            bias: [gates * U].
        """
        made = self._forward(weights, bias, wanted).h[1:]
        return float(np.mean((made - wanted.outputs) ** 2))

    def gradients(
        self, weights: FloatArray, bias: FloatArray, wanted: Sequences
    ) -> tuple[float, FloatArray, FloatArray]:
        """The error, and its gradients by weights and bias."""
        seen = self._forward(weights, bias, wanted)
        off = seen.h[1:] - wanted.outputs
        back = self._backward(weights, seen, off * np.float32(2.0 / off.size))
        flat = back.reshape(-1, back.shape[-1])
        read = np.concatenate([wanted.x, seen.h[:-1]], axis=2)
        by_weights = flat.T @ read.reshape(len(flat), -1)
        return float(np.mean(off**2)), by_weights, flat.sum(axis=0)

    def _forward(self, weights: FloatArray, bias: FloatArray, wanted: Sequences) -> _Pass:
        spec, units = self.spec, self.spec.units
        steps, batch, features = wanted.x.shape
        recurrent = np.ascontiguousarray(weights[:, features:].T)
        gates = wanted.x.reshape(steps * batch, features) @ weights[:, :features].T + bias
        gates = gates.reshape(steps, batch, -1)
        h = np.empty((steps + 1, batch, spec.output_size), np.float32)
        c = np.empty((steps + 1, batch, units), np.float32)
        squashed = np.empty((steps, batch, units), np.float32)
        h[0], c[0] = wanted.h0, wanted.c0
        for step in range(steps):
            z = gates[step]
            z += h[step] @ recurrent
            parts = self._parts(z)
            for gate in (_INPUT, _FORGET):
                if gate in self._holes and gate in parts:
                    parts[gate] += self._holes[gate] * c[step]
            for gate in (_INPUT, _FORGET):
                if gate in parts:
                    _sigmoid(parts[gate])
            np.tanh(parts[_CELL], out=parts[_CELL])
            forget = parts[_FORGET]
            enters = parts[_INPUT] if _INPUT in parts else 1.0 - forget
            now = forget * c[step] + enters * parts[_CELL]
            if spec.cell_clip > 0:
                now = np.clip(now, -spec.cell_clip, spec.cell_clip)
            c[step + 1] = now
            if _OUTPUT in self._holes:
                parts[_OUTPUT] += self._holes[_OUTPUT] * now
            _sigmoid(parts[_OUTPUT])
            np.tanh(now, out=squashed[step])
            h[step + 1] = self._projected(parts[_OUTPUT] * squashed[step])
        return _Pass(gates, h, c, squashed)

    def _backward(self, weights: FloatArray, seen: _Pass, slope: FloatArray) -> FloatArray:
        """Gradients by gate sums [T, B, gates * U], from those by outputs [T, B, O]."""
        spec = self.spec
        recurrent = weights[:, -spec.output_size :]
        back = np.empty_like(seen.gates)
        by_h = np.zeros_like(seen.h[0])
        by_c = np.zeros_like(seen.c[0])
        for step in reversed(range(len(slope))):
            parts, made = self._parts(seen.gates[step]), self._parts(back[step])
            by_h = self._before_projection(by_h + slope[step], seen.h[step + 1])
            squashed, output, forget = seen.squashed[step], parts[_OUTPUT], parts[_FORGET]
            made[_OUTPUT][:] = by_h * squashed * output * (1.0 - output)
            by_c += by_h * output * (1.0 - squashed * squashed)
            if _OUTPUT in self._holes:
                by_c += made[_OUTPUT] * self._holes[_OUTPUT]
            if spec.cell_clip > 0:
                by_c = by_c * (np.abs(seen.c[step + 1]) < spec.cell_clip)
            value = parts[_CELL]
            by_forget = by_c * seen.c[step]
            if _INPUT in parts:
                enters = parts[_INPUT]
                made[_INPUT][:] = by_c * value * enters * (1.0 - enters)
            else:
                enters = 1.0 - forget
                by_forget = by_forget - by_c * value
            made[_FORGET][:] = by_forget * forget * (1.0 - forget)
            made[_CELL][:] = by_c * enters * (1.0 - value * value)
            by_c = by_c * forget
            for gate in (_INPUT, _FORGET):
                if gate in self._holes and gate in made:
                    by_c += made[gate] * self._holes[gate]
            by_h = back[step] @ recurrent
        return back

    def _parts(self, joined: FloatArray) -> dict[int, FloatArray]:
        """Views of the gates that are present, each [B, U]."""
        units = self.spec.units
        return {g: joined[:, n * units : (n + 1) * units] for g, n in self._place.items()}

    def _projected(self, hidden: FloatArray) -> FloatArray:
        spec = self.spec
        if spec.projection is None:
            return hidden
        made = hidden @ spec.projection.T
        if spec.projection_bias is not None:
            made += spec.projection_bias
        clip = spec.projection_clip
        return np.clip(made, -clip, clip) if clip > 0 else made

    def _before_projection(self, slope: FloatArray, made: FloatArray) -> FloatArray:
        spec = self.spec
        if spec.projection is None:
            return slope
        if spec.projection_clip > 0:
            slope = slope * (np.abs(made) < spec.projection_clip)
        return slope @ spec.projection


def _sigmoid(values: FloatArray) -> None:
    """The logistic function, in place."""
    values *= 0.5
    np.tanh(values, out=values)
    values *= 0.5
    values += 0.5
