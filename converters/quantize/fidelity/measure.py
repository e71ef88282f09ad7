"""Runs a model and its quantized form side by side and measures where they part."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.fidelity.figures import Drift, Series
from edgelstm.converters.quantize.fidelity.follow import LayerSums, States, follow
from edgelstm.converters.quantize.fidelity.report import (
    LayerReport,
    OutputReport,
    QuantizationReport,
)
from edgelstm.converters.quantize.fidelity.sequences import LongRun, Sequences, sequences
from edgelstm.converters.quantize.fidelity.warn import warnings
from edgelstm.converters.quantize.fidelity.watch import (
    Seen,
    Watched,
    WatchedLayer,
    carrying,
    starts_from_zero,
)
from edgelstm.converters.spec import Array, Layout, Precision
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.converters.verify.compare import Scale
from edgelstm.converters.verify.prefix import cut
from edgelstm.errors import EdgeLstmError, UnsupportedModelError

Progress = Callable[[str], None]

_SECONDS_BETWEEN_LINES = 2.0
_BAR = 20


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model before and after quantization, both with float32 inputs and outputs.

    Attributes:
        states: explicit ones that conversion added, input to output by name.
        own_states: those that the source itself has among its inputs and outputs.
        output_times: time axis by output name; outputs without one are absent.
    """

    plain: Model
    quantized: Model
    precision: Precision
    axes: ModelAxes
    states: Mapping[str, str]
    output_times: Mapping[str, int]
    own_states: Mapping[str, str] = dataclasses.field(default_factory=dict)


def measure(
    pair: Pair, data: CalibrationData, progress: Progress, least_steps: int = 0
) -> QuantizationReport:
    """Error of every layer, gate and output, by time step, and what saturates.

    Memory follows from the length of the sequences, not from the amount of data: the first rows
    are taken, and layers are followed some steps at a time.

    Args:
        least_steps: the usual length, where data have longer sequences than the first ones.

    Raises:
        DataError: the data do not fit.
        UnsupportedModelError: the two are not the same model.
    """
    return _Measurement(pair, sequences(data, pair.axes, least_steps), progress).run(data.where)


@dataclasses.dataclass
class _Phase:
    """Sums over sequences of one kind."""

    layers: list[LayerSums]
    outputs: dict[str, Series] = dataclasses.field(default_factory=dict)
    steps: dict[str, int] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(layers: Sequence[WatchedLayer]) -> _Phase:
        return _Phase([LayerSums() for _ in layers])


class _Measurement:
    def __init__(self, pair: Pair, taken: Sequences, progress: Progress) -> None:
        self.pair, self.taken, self.progress = pair, taken, progress
        self.started = self.last_line = time.perf_counter()
        self.done, self.total = 0.0, float(len(taken.usual) + len(taken.long))
        self.plain = Watched(pair.plain, pair.states)
        self.quantized = Watched(pair.quantized, pair.states)
        self._check()
        self.usual = _Phase.of(self.plain.layers)
        self.long = _Phase.of(self.plain.layers)
        self.ranges: dict[str, Scale] = {}
        self.batches: list[float] = []
        self.notes: list[str] = []

    def run(self, where: str) -> QuantizationReport:
        states = States.of(self.plain.layers)
        for call in self.taken.usual:
            if call.fresh:
                self._reset(states)
                self.usual.steps.clear()
            self._call(self.usual, states, call.inputs)
        measured = self._long()
        layers = tuple(self._layer(number) for number in range(len(self.plain.layers)))
        unseen = [layer.name for layer in layers if not layer.parts]
        if unseen:
            self.notes.append(f"Not followed inside: {', '.join(unseen)}.")
        outputs = tuple(self._output(name) for name in self.usual.outputs)
        return QuantizationReport(
            precision=self.pair.precision,
            data=where,
            rows=sum(call.rows for call in self.taken.usual),
            steps=self.taken.steps,
            long_steps=self.taken.long_steps if measured else 0,
            times=self.taken.times if measured else 0,
            long_rows=self.taken.long_rows if measured else 0,
            long_run=self.taken.long_run if measured else LongRun.NONE,
            layers=layers,
            outputs=outputs,
            warnings=tuple(warnings(layers, self._sums(), outputs)),
            notes=tuple(self.notes),
            seconds=time.perf_counter() - self.started,
        )

    def _check(self) -> None:
        sizes = [[(layer.units) for layer in one.layers] for one in (self.plain, self.quantized)]
        if sizes[0] != sizes[1]:
            raise UnsupportedModelError(
                f"the quantized model has fused layers of {sizes[1]} units, its float32 form of "
                f"{sizes[0]}",
                cure="compare a file with the source that it was converted from",
            )

    def _reset(self, states: States) -> None:
        self.plain.reset()
        self.quantized.reset()
        states.reset()

    def _call(
        self, phase: _Phase, states: States, inputs: Mapping[str, Array], offset: int = 0
    ) -> None:
        """One call of both; `offset` steps went before it in the sequence."""
        rows = self._rows(inputs)
        fed = self.pair.own_states if phase is self.long else None
        expected = self.plain.run(inputs, rows, fed)
        actual = self.quantized.run(inputs, rows, fed)
        self._see_outputs(phase, expected, actual, offset)
        if not self.batches:
            self.batches = [
                call.x.shape[_batch_axis(layer)] / rows
                for call, layer in zip(expected.layers, self.plain.layers, strict=True)
            ]
        parts = len(self.plain.layers)
        for number, sums in enumerate(phase.layers):
            for share in follow(
                sums,
                (self.plain.layers[number], self.quantized.layers[number]),
                (expected.layers[number], actual.layers[number]),
                states.of_layer(number),
            ):
                self._tell(self.done + (number + share) / parts)
        self.done += 1.0

    def _rows(self, inputs: Mapping[str, Array]) -> int:
        axes = [i for i in self.pair.axes.inputs if i.batch is not None]
        return inputs[axes[0].spec.name].shape[axes[0].batch or 0] if axes else 1

    def _see_outputs(self, phase: _Phase, expected: Seen, actual: Seen, offset: int) -> None:
        for name, wanted in expected.outputs.items():
            got = actual.outputs[name]
            if wanted.shape != got.shape or wanted.dtype.kind not in "fiub":
                continue
            axis = self.pair.output_times.get(name)
            if axis is not None:
                wanted, got = np.moveaxis(wanted, axis, 0), np.moveaxis(got, axis, 0)
            else:
                wanted, got = wanted[None], got[None]
            first = max(0, offset - 1) if axis is None else phase.steps.get(name, 0)
            phase.outputs.setdefault(name, Series()).add(wanted, got, first)
            phase.steps[name] = first + len(wanted)
            if phase is self.usual and wanted.dtype.kind == "f":
                seen, now = self.ranges.get(name, Scale()), Scale.of([wanted])
                self.ranges[name] = Scale(min(seen.low, now.low), max(seen.high, now.high))

    def _long(self) -> bool:
        """The long sequence; False where there is none."""
        taken = self.taken
        if taken.long_run is LongRun.NONE or taken.steps is None:
            self.notes.append("No input has a time axis: there is no drift to measure.")
            return False
        try:
            if taken.long_run is LongRun.CALLS:
                self._carry(taken.steps)
            states = States.of(self.plain.layers)
            self._reset(states)
            for number, call in enumerate(taken.long):
                steps = taken.long_steps if len(taken.long) == 1 else (number + 1) * taken.steps
                self._call(self.long, states, call, steps)
            if taken.long_run is LongRun.ONE_CALL:
                self._shorter(taken.long[0], taken.steps)
        except EdgeLstmError as error:
            self.notes.append(f"Drift was not measured: {error.what}")
            self.long = _Phase.of(self.plain.layers)
            return False
        return True

    def _carry(self, steps: int) -> None:
        """Lets states go on from call to call, which a model of fixed length may not do."""
        if not starts_from_zero(self.pair.quantized):
            return
        batches = [round(share * self.taken.long_rows) for share in self.batches]
        self.plain = Watched(carrying(self.pair.plain, batches), self.pair.states)
        self.quantized = Watched(carrying(self.pair.quantized, batches), self.pair.states)
        self.notes.append(
            f"The file takes {steps} steps a call and starts each call from zero. For the long "
            "sequence the states of both models were carried on, which the file itself does not "
            "do."
        )

    def _shorter(self, call: Mapping[str, Array], usual: int) -> None:
        """Outputs without a time axis, after fewer steps than all."""
        names = [n for n in self.usual.outputs if n not in self.pair.output_times]
        if not names:
            return
        for steps in _prefixes(usual, self.taken.long_steps):
            inputs = cut(call, self.pair.axes, steps)
            rows = self._rows(inputs)
            try:
                self.plain.reset()
                self.quantized.reset()
                expected = self.plain.run(inputs, rows)
                actual = self.quantized.run(inputs, rows)
            except EdgeLstmError:
                continue  # a convolution may be wider than so few steps
            kept = [Seen({n: seen.outputs[n] for n in names}, ()) for seen in (expected, actual)]
            self._see_outputs(self.long, kept[0], kept[1], steps)

    def _layer(self, number: int) -> LayerReport:
        layer = self.quantized.layers[number]
        usual, long = self.usual.layers[number], self.long.layers[number]
        return LayerReport(
            name=self.plain.layers[number].name,
            units=layer.units,
            precision=layer.precision,
            parts=usual.parts(long),
            kernel_error=usual.kernel_error,
            cell_exponent=layer.cell_exponent,
            ranges=layer.ranges,
            form=layer.form,
        )

    def _output(self, name: str) -> OutputReport:
        usual, long = self.usual.outputs[name], self.long.outputs.get(name)
        timed = name in self.pair.output_times
        drift = None
        if long is not None:
            drift = Drift.of(long, usual.steps if timed else self.taken.steps or 1)
        scale = self.ranges.get(name, Scale()).range
        return OutputReport(name, usual.figures(), scale, drift)

    def _sums(self) -> list[tuple[LayerSums, LayerSums]]:
        return list(zip(self.usual.layers, self.long.layers, strict=True))

    def _tell(self, done: float) -> None:
        now = time.perf_counter()
        if now - self.last_line > _SECONDS_BETWEEN_LINES:
            share = done / max(1.0, self.total)
            bar = "█" * int(share * _BAR)
            self.progress(f"measuring quantization {bar:░<{_BAR}} {share:4.0%}")
            self.last_line = now


def _batch_axis(layer: WatchedLayer) -> int:
    kernel = layer.kernel
    return 1 if kernel is not None and kernel.layout is Layout.TIME_MAJOR else 0


def _prefixes(usual: int, steps: int) -> Iterator[int]:
    """1, 2, 4, ... up to the usual length, then some multiples of it below `steps`."""
    short = 1
    while short < usual:
        yield short
        short *= 2
    for times in (1, 2, 3, 5):
        if times * usual < steps:
            yield times * usual
