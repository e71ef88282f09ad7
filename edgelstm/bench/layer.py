"""The layer that is timed: random weights, as TFLite files of every precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, MARKER_CODE, lower_markers
from edgelstm.converters.quantize.dynamic import quantize_dynamic
from edgelstm.converters.quantize.float16 import quantize_float16
from edgelstm.converters.quantize.integer.parameters import IntegerLstm, Stored
from edgelstm.converters.quantize.integer_op import make_integer
from edgelstm.converters.quantize.ranges import LayerRanges, Range
from edgelstm.converters.spec import Gates, LstmSpec, Precision, StatePolicy
from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.profiles.peers.int8 import Int8Layer, Scale

PRECISIONS = ("float32", "float16", "dynamic", "int8")
# States of such a layer stay far within.
_LARGEST_CELL = 3.9


def make_layer(features: int, units: int, *, batch: int, steps: int) -> PeerLayer:
    """One layer as PyTorch would initialise it, and normal inputs."""
    rng = np.random.default_rng(features * units)
    limit = 1 / np.sqrt(units)

    def drawn(*shape: int) -> Array:
        return rng.uniform(-limit, limit, shape).astype(np.float32)

    kernel, recurrent = drawn(4, units, features), drawn(4, units, units)
    bias = drawn(4, units)
    x = rng.standard_normal((batch, steps, features)).astype(np.float32)
    spec = LstmSpec(
        name="lstm", kernel=Gates(*kernel), recurrent=Gates(*recurrent), bias=Gates(*bias)
    )
    files = {p: _tflite(spec, p, x) for p in PRECISIONS}
    return PeerLayer(kernel, recurrent, bias, x, files, _int8(files["int8"]))


def equations(layer: PeerLayer) -> Array:
    """[B, T, U], what the layer gives from states of zero, computed in float64."""

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.tanh(0.5 * z)

    batch, steps, features = layer.x.shape
    units = layer.units
    wide = layer.kernel.reshape(-1, features).T.astype(np.float64)
    recurrent = layer.recurrent.reshape(-1, units).T.astype(np.float64)
    projected = layer.x @ wide + layer.bias.reshape(-1)
    h, c = np.zeros((2, batch, units))
    outputs = np.empty((batch, steps, units), np.float32)
    for step in range(steps):
        i, f, g, o = np.split(projected[:, step] + h @ recurrent, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs[:, step] = h
    return outputs


def _tflite(spec: LstmSpec, precision: str, x: Array) -> bytes:
    """One fused op whose state persists from call to call."""
    from flatbuffers import flexbuffers

    batch, steps, features = x.shape
    model = Model()
    main = model.add_subgraph("main")
    given = main.add_tensor("x", (batch, steps, features))
    sequence = main.add_tensor("sequence", (batch, steps, spec.units))
    options = bytes(flexbuffers.Dumps({"id": 0}))
    main.add_op(MARKER_CODE, [given], [sequence], custom_options=options)
    main.inputs, main.outputs = [given], [sequence]
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    if precision == "float16":
        quantize_float16(model)
    elif precision == "dynamic":
        quantize_dynamic(model)
    elif precision == "int8":
        unit = Range(-1.0, 1.0)
        seen = LayerRanges(Range(float(x.min()), float(x.max())), unit, unit, _LARGEST_CELL)
        make_integer(model.main.find(FUSED_OP)[0], seen, Precision.INT8)
    return model.to_bytes()


def _int8(file: bytes) -> Int8Layer:
    """What the only fused op of a file holds."""
    (op,) = Model.read(file).main.find(FUSED_OP)
    lstm = IntegerLstm.of(op)

    def parts(gates: Sequence[Stored | None]) -> tuple[np.ndarray, tuple[float, ...]]:
        there = [gate for gate in gates if gate is not None]
        return np.stack([gate.values for gate in there]), tuple(gate.scale for gate in there)

    (kernel, kernel_scales), (recurrent, recurrent_scales) = (
        parts(lstm.kernel),
        parts(lstm.recurrent),
    )
    return Int8Layer(
        kernel,
        recurrent,
        parts(lstm.bias)[0],
        kernel_scales,
        recurrent_scales,
        x=Scale(lstm.x.scale, lstm.x.zero_point),
        h=Scale(lstm.h.scale, lstm.h.zero_point),
        cell_scale=2.0**lstm.cell_exponent,
    )
