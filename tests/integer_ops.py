"""Fused int8 operators of random stored numbers, and the same layers for the native kernels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from edgelstm.converters.flatbuffer import ABSENT, Model, Quantization
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.spec import Array

CELL_EXPONENTS = range(-15, -8)


@dataclasses.dataclass(frozen=True)
class IntegerCase:
    """One layer.

    Attributes:
        gain: standard deviation of the gate sums; above about 4 they saturate.
        outputs: adds a projection.
    """

    seed: int
    units: int = 16
    features: int = 8
    outputs: int | None = None
    projection_bias: bool = True
    coupled: bool = False
    peephole: bool = False
    layer_norm: bool = False
    time_major: bool = False
    cell_exponent: int = -12
    cell_clip: float = 0.0
    projection_clip: float = 0.0
    gain: float = 2.0
    batch: int = 1
    steps: int = 5

    @property
    def output_size(self) -> int:
        return self.units if self.outputs is None else self.outputs

    def shape(self, width: int) -> tuple[int, int, int]:
        sizes = (self.steps, self.batch) if self.time_major else (self.batch, self.steps)
        return (*sizes, width)

    def inputs(self, seed: int) -> Array:
        """Stored inputs; every third draw is nothing but the ends of the range."""
        rng = np.random.default_rng((self.seed, seed))
        if seed % 3 == 2:
            return rng.choice(np.array([-128, 127], np.int8), self.shape(self.features))
        x = np.rint(rng.standard_normal(self.shape(self.features)) * 50)
        return np.clip(x, -128, 127).astype(np.int8)

    def model(self, *, op: str = FUSED_OP) -> Model:
        """The operator alone, with plain variable states."""
        rng = np.random.default_rng(self.seed)
        model = Model()
        main = model.add_subgraph("main")
        per_tensor = Quantization.per_tensor
        units, outputs, features = self.units, self.output_size, self.features
        x_scale, h_scale = 0.03, 1 / 128
        hidden_scale = h_scale if self.outputs is None else 0.9 / 128
        x_zero, h_zero = int(rng.integers(-128, 128)), int(rng.integers(-60, 60))
        hidden_zero = h_zero if self.outputs is None else int(rng.integers(-20, 20))

        def constant(name: str, values: Array, scale: float) -> int:
            return main.add_tensor(
                name, values.shape, data=values, quantization=per_tensor(float(np.float32(scale)))
            )

        def matrix(name: str, rows: int, columns: int, scale: float) -> int:
            return constant(name, rng.integers(-127, 128, (rows, columns)).astype(np.int8), scale)

        def words(name: str, scale: float) -> int:
            return constant(name, rng.integers(-32767, 32768, units).astype(np.int16), scale)

        # A product has a standard deviation of about 73 * 60 in stored units.
        kernel = self.gain / (60 * 73 * x_scale * np.sqrt(features))
        recurrent = self.gain / (60 * 73 * h_scale * np.sqrt(outputs))
        gates = [g for g in "ifco" if not (self.coupled and g == "i")]
        inputs = [ABSENT] * 24
        shape = self.shape(features)
        inputs[0] = main.add_tensor("x", shape, "int8", quantization=per_tensor(x_scale, x_zero))
        norm_scale = 1.5 / 32767
        for place, gate in enumerate("ifco"):
            if gate not in gates:
                continue
            scale = kernel * (0.6 + 0.2 * place)
            inputs[1 + place] = matrix(f"kernel_{gate}", units, features, scale)
            inputs[5 + place] = matrix(f"recurrent_{gate}", units, outputs, recurrent)
            bias_scale = norm_scale / 1024 if self.layer_norm else scale * x_scale
            values = np.rint(rng.standard_normal(units) * 0.5 / bias_scale).astype(np.int32)
            inputs[12 + place] = constant(f"bias_{gate}", values, bias_scale)
            if self.layer_norm:
                inputs[20 + place] = words(f"norm_{gate}", norm_scale * (1 + place))
            if self.peephole and gate != "c":
                inputs[{"i": 9, "f": 10, "o": 11}[gate]] = words(f"peephole_{gate}", 1.0 / 32767)
        if self.outputs is not None:
            scale = 2 / (127 * np.sqrt(units))
            inputs[16] = matrix("projection", outputs, units, scale)
            if self.projection_bias:
                values = np.rint(rng.standard_normal(outputs) * 0.2 / (scale * hidden_scale))
                inputs[17] = constant(
                    "projection_bias", values.astype(np.int32), scale * hidden_scale
                )
        # One dimension: the sizes are what counts.
        inputs[18] = main.add_tensor(
            "h",
            (self.batch, outputs),
            "int8",
            is_variable=True,
            quantization=per_tensor(h_scale, h_zero),
        )
        inputs[19] = main.add_tensor(
            "c",
            (self.batch, units),
            "int16",
            is_variable=True,
            quantization=per_tensor(2.0**self.cell_exponent),
        )
        shape = self.shape(outputs)
        y = main.add_tensor("y", shape, "int8", quantization=per_tensor(h_scale, h_zero))
        made = main.add_op(
            op,
            inputs,
            [y],
            options={
                "fused_activation_function": 4,
                "cell_clip": self.cell_clip,
                "proj_clip": self.projection_clip,
                **({"time_major": self.time_major} if op == FUSED_OP else {}),
            },
        )
        for place in range(4):
            scale = 2.0**-12 * (1 + place / 4)
            made.intermediates.append(
                main.add_tensor(f"sum_{place}", (0,), "int16", quantization=per_tensor(scale))
            )
        made.intermediates.append(
            main.add_tensor(
                "hidden", (0,), "int8", quantization=per_tensor(hidden_scale, hidden_zero)
            )
        )
        main.inputs, main.outputs = [inputs[0]], [y]
        return model


def cases() -> Iterator[IntegerCase]:
    """Every form that the stock kernel computes as it means to, over sizes, scales and clips.

    Not among them: a peephole beside a projection to another width, where the stock kernel takes
    one length for another.
    """
    forms = itertools.product(
        (False, True), (False, True), (None, "same", "other"), (False, True), (False, True)
    )
    number = 0
    for coupled, peephole, projection, norm, time_major in forms:
        if peephole and projection == "other":
            continue
        for _ in range(2):
            units = (1, 5, 16, 17, 31, 48)[number % 6]
            outputs = {None: None, "same": units, "other": 7 + number % 30}[projection]
            yield IntegerCase(
                seed=number,
                units=units,
                features=(1, 3, 4, 8, 21)[number % 5],
                outputs=outputs,
                projection_bias=number % 3 > 0,
                coupled=coupled,
                peephole=peephole,
                layer_norm=norm,
                time_major=time_major,
                cell_exponent=CELL_EXPONENTS[number % 7],
                cell_clip=(0.0, 0.7)[number // 2 % 2],
                projection_clip=(0.0, 0.4)[number // 3 % 2],
                gain=(0.5, 2.0, 9.0)[number % 3],
                batch=1 + number % 4,
                steps=(1, 4, 9)[number // 2 % 3],
            )
            number += 1
