"""Fused operators with integer activations, written by the quantizer from made-up ranges."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from fused_models import Way, job, marker_model, random_spec

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.graph_io import GraphIo, to_integer_io
from edgelstm.converters.quantize.integer import IntegerLstm
from edgelstm.converters.quantize.integer_op import make_integer
from edgelstm.converters.quantize.ranges import LayerRanges, Range
from edgelstm.converters.spec import Array, Layout, LstmSpec, Precision, StatePolicy

CELL_RANGES = (0.9, 1.9, 3.5, 7.0, 15.0, 30.0, 60.0)
CALLS = 2


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A layer, the ranges it is written for, and how it is called."""

    name: str
    spec: LstmSpec
    seen: LayerRanges
    policy: StatePolicy
    batch: int
    steps: int

    def model(self, precision: Precision) -> bytes:
        """The file, its inputs and outputs integers; batch and time are dynamic under `reset`."""
        free = self.policy is StatePolicy.RESET
        model = marker_model(
            self.spec, batch=-1 if free else self.batch, time=-1 if free else self.steps
        )
        lower_markers(model, {0: self.spec}, policy=self.policy)
        (op,) = model.main.find(FUSED_OP)
        make_integer(op, self.seen, precision)
        io = GraphIo.INT16 if precision is Precision.INT16 else GraphIo.INT8
        assert to_integer_io(model, io) == []
        return model.to_bytes()

    def calls(self, dtype: str) -> list[Array]:
        """Stored inputs that reach beyond the range."""
        rng = np.random.default_rng(self.batch * 100 + self.steps)
        limits = np.iinfo(dtype)
        sizes = (self.batch, self.steps)
        if self.spec.layout is Layout.TIME_MAJOR:
            sizes = (self.steps, self.batch)
        shape = (*sizes, self.spec.input_size)
        spread = limits.max / 2.0
        drawn = [rng.standard_normal(shape) * spread for _ in range(CALLS)]
        return [np.clip(np.rint(x), limits.min, limits.max).astype(dtype) for x in drawn]

    def job(self, model: bytes, way: Way) -> dict[str, Array]:
        return job(model, [[x] for x in self.calls("int8")], way)


def integer_lstm(model: bytes) -> IntegerLstm:
    """The one fused operator of a file."""
    (op,) = Model.read(model).main.find(FUSED_OP)
    return IntegerLstm.of(op)


def configurations() -> Iterator[Configuration]:
    """Every form that the integer kernel runs right, over layouts, clips, shapes, cell scales.

    Peepholes beside a projection to another width are not among them: the interpreters then
    multiply the peephole by so many cells as there are outputs.
    """
    forms = [
        form
        for form in itertools.product((False, True), (False, True), (None, "square", "narrow"))
        if not (form[1] and form[2] == "narrow")
    ]
    every = itertools.product(
        forms, (False, True), (Layout.BATCH_MAJOR, Layout.TIME_MAJOR), (False, True)
    )
    for number, ((coupled, peephole, projection), norm, layout, clipped) in enumerate(every):
        units = (3, 5, 8, 16, 21)[number % 5]
        outputs = {None: None, "square": units, "narrow": max(1, units // 2)}[projection]
        spec = random_spec(
            number,
            units=units,
            features=(1, 4, 9)[number % 3],
            outputs=outputs,
            projection_bias=number % 4 < 2,
            coupled=coupled,
            peephole=peephole,
            layer_norm=norm,
            layout=layout,
            cell_clip=0.6 if clipped else 0.0,
            projection_clip=0.4 if clipped and outputs else 0.0,
        )
        h = Range(-0.8, 1.1)
        yield Configuration(
            name=f"{number}: coupled={coupled} peephole={peephole} projection={projection} "
            f"norm={norm} {layout.value} clipped={clipped}",
            spec=spec,
            seen=LayerRanges(
                x=Range(-2.0, 3.0),
                h=h,
                hidden=Range(-0.9, 0.95) if outputs else h,
                cell=CELL_RANGES[number % len(CELL_RANGES)],
                gate_sums=(5.0, 4.0, 6.0, 7.0) if norm else (),
            ),
            policy=(StatePolicy.CARRY, StatePolicy.RESET)[number // 2 % 2],
            batch=1 + number % 3,
            steps=(1, 6, 13, 30)[number % 4],
        )


def micro_configurations() -> Iterator[Configuration]:
    """Those that TensorFlow Lite Micro's kernel takes: nothing but clips, states carried."""
    for number, (layout, clipped, cell) in enumerate(
        itertools.product((Layout.BATCH_MAJOR, Layout.TIME_MAJOR), (False, True), CELL_RANGES)
    ):
        h = Range(-0.8, 1.1)
        yield Configuration(
            name=f"{number}: {layout.value} clipped={clipped} cell={cell}",
            spec=random_spec(
                number,
                units=(4, 7, 16)[number % 3],
                features=(1, 5)[number % 2],
                layout=layout,
                cell_clip=0.7 if clipped else 0.0,
            ),
            seen=LayerRanges(Range(-2.0, 3.0), h, h, cell),
            policy=StatePolicy.CARRY,
            batch=1 + number % 3,
            steps=(1, 10, 40)[number % 3],
        )


def data_of(samples: list[dict[str, Array]]) -> CalibrationData:
    return CalibrationData("the test", lambda: iter(samples))
