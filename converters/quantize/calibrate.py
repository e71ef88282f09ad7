"""Runs a float32 model on calibration data and keeps what its quantization needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE, layer_name
from edgelstm.converters.lowering.state import COPY_OP
from edgelstm.converters.quantize.calibration_calls import Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.cut_sums import CutSums
from edgelstm.converters.quantize.dense import DenseStatistics, dense_layers
from edgelstm.converters.quantize.excerpts import Excerpts
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.integer_op import RoundedWeights
from edgelstm.converters.quantize.observer import Observer, ObserverKind
from edgelstm.converters.quantize.plan import STATIC, Plan
from edgelstm.converters.quantize.ranges import LayerRanges, Range
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.quantize.sessions import open_fast
from edgelstm.converters.quantize.trace import Trace, spec_of, trace
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.spec import Array, LstmSpec, Precision
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.converters.verify.prefix import cut
from edgelstm.errors import DataError, EdgeLstmError
from edgelstm.runtime import Session

Progress = Callable[[str], None]
Wide = npt.NDArray[np.float64]

_SECONDS_BETWEEN_LINES = 2.0
# Calls of which shorter sequences are run too, up to 64 rows each: ranges need no more.
_SHORTENED_CALLS = 4
_GATES = range(4)


@dataclasses.dataclass
class LayerStatistics:
    """What one fused operator was seen to hold.

    Attributes:
        moments: sum of v v^T over v = (x_t, h_{t-1}, 1), [F + O + 1] squared; of the projection's
            inputs likewise, [U + 1] squared, None without one.
        rounded: its weights in int8, once they were computed.
        learned: ranges from training, which stand above those seen; None without any.
        excerpts: what it computed, to learn weights from; None where none are learned.
        form: how its integer operator is to take a float32 input.
        saturated: per gate i, f, c, o, the share of values within 1/256 of its limits.
    """

    name: str
    spec: LstmSpec
    x: Observer = dataclasses.field(default_factory=Observer)
    h: Observer = dataclasses.field(default_factory=Observer)
    hidden: Observer = dataclasses.field(default_factory=Observer)
    cell: Observer = dataclasses.field(default_factory=Observer)
    sums: tuple[Observer, ...] = dataclasses.field(
        default_factory=lambda: tuple(Observer() for _ in _GATES)
    )
    moments: Wide | None = None
    projection_moments: Wide | None = None
    vectors: int = 0
    rounded: RoundedWeights | None = None
    learned: LayerRanges | None = None
    excerpts: Excerpts | None = None
    form: InputForm = InputForm.SINGLE
    saturated: Wide = dataclasses.field(default_factory=lambda: np.zeros(4))
    cut_sums: CutSums = dataclasses.field(default_factory=CutSums)

    def see(self, seen: Trace) -> None:
        """Takes one sequence in."""
        self.x.see(seen.x)
        self.h.see(seen.h)
        self.cell.see(np.abs(seen.c))
        if self.spec.projection is not None:
            self.hidden.see(seen.hidden)
            self.projection_moments = _added(self.projection_moments, seen.hidden)
        for observer, values in zip(self.sums, seen.sums, strict=False):
            if values is not None:
                observer.see(values)
        for gate, values in enumerate(seen.gates):
            if values is not None:
                low, high = (-1.0, 1.0) if gate == 2 else (0.0, 1.0)
                margin = (high - low) / 256.0
                near = (values < low + margin) | (values > high - margin)
                self.saturated[gate] += float(near.sum()) / self.spec.units
        self.cut_sums.see(self.spec, seen)
        self.moments = _added(self.moments, np.concatenate([seen.x, seen.h[:-1]], axis=2))
        self.vectors += seen.x.shape[0] * seen.x.shape[1]
        if self.excerpts is not None:
            self.excerpts.see(seen)

    def ranges(self, inputs: ObserverKind, states: ObserverKind, bits: int) -> LayerRanges:
        """The ranges to quantize with; the cell's never leaves a value out."""
        if self.learned is not None:
            return self.learned
        h = self.h.range(states, bits)
        projected = self.spec.projection is not None
        return LayerRanges(
            x=self.x.range(inputs, bits),
            h=h,
            hidden=self.hidden.range(states, bits) if projected else h,
            cell=self.cell.extremes.largest,
            gate_sums=tuple(o.extremes.largest for o in self.sums)
            if self.spec.layer_norm is not None
            else (),
        )


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Everything that a pass over the data found.

    Attributes:
        layers: by name of the operator's output tensor, for those that integers can compute.
        tensors: every other float32 activation, by name.
        inputs: names of the model's own inputs.
        samples: rows seen; calls: how often the model ran.
        steps: the longest call; 0 without a time axis.
        reached: the most steps that states went on for from zero.
        shortest: the fewest steps of a call; 0 without a time axis.
        pieces: how many pieces of data there were.
        dense: dense layers by the name of what they compute.
    """

    layers: dict[str, LayerStatistics]
    tensors: dict[str, Observer]
    inputs: tuple[str, ...]
    samples: int
    calls: int
    seconds: float
    steps: int = 0
    reached: int = 0
    pieces: int = 0
    shortest: int = 0
    dense: dict[str, DenseStatistics] = dataclasses.field(default_factory=dict)


def calibrate(
    model: Model,
    data: CalibrationData,
    axes: ModelAxes,
    pairs: Mapping[str, str],
    progress: Progress | None = None,
    precision: Precision | Plan = Precision.INT8,
    rounding: RoundingPolicy = RoundingPolicy.CALIBRATED,
) -> Calibration:
    """Runs the data through a float32 model; memory does not grow with their number.

    Args:
        model: with its markers lowered; not changed.
        axes: its inputs, without explicit states, which start from zero.
        pairs: explicit states, input to output by name.
        precision: layers that a plan leaves out of integers are not looked into.
        rounding: excerpts are kept of layers whose weights are to be learned.

    Raises:
        DataError: the data do not fit, are empty, or drive the model to NaN or infinity.
    """
    started = time.perf_counter()
    plan = Plan.of(precision)
    run = _Run.of(model, pairs, plan)
    if rounding is RoundingPolicy.LEARNED:
        for layer in run.layers.values():
            layer.excerpts = Excerpts()
    last_line = started
    samples = count = steps = went_on = reached = pieces = shortest = 0
    widens = data.continuity is Continuity.SAMPLES and covers_shorter(plan)
    timed = [(i.spec.name, i.time) for i in axes.inputs if i.time is not None]
    for call in calls(data, axes):
        try:
            run.take(call)
        except EdgeLstmError as error:
            raise DataError(
                f"the model fails on the calibration data: {error.what}",
                where=data.where_of(call.piece),
                cure="check what it holds: indices within their tables, shapes that fit each other",
            ) from error
        length = max((call.inputs[name].shape[axis] for name, axis in timed), default=0)
        if widens and count < _SHORTENED_CALLS:
            for short in _prefixes(call, axes, length):
                run.take_range(short)
        shortest = min(shortest or length, length)
        steps = max(steps, length)
        went_on = max(length, 1) + (0 if call.fresh else went_on)
        reached = max(reached, went_on)
        samples += call.rows
        pieces = call.piece + 1
        count += 1
        now = time.perf_counter()
        if progress is not None and now - last_line > _SECONDS_BETWEEN_LINES:
            progress(f"calibrating: {samples} sequences")
            last_line = now
    run.check(data.where)
    if progress is not None:
        progress(f"calibrated on {samples} sequences in {count} calls")
    seconds = time.perf_counter() - started
    inputs = tuple(i.spec.name for i in axes.inputs)
    return Calibration(
        layers=run.layers,
        tensors=run.tensors,
        inputs=inputs,
        samples=samples,
        calls=count,
        seconds=seconds,
        steps=steps,
        reached=reached,
        pieces=pieces,
        shortest=shortest,
        dense=run.dense,
    )


def covers_shorter(plan: Plan) -> bool:
    """Whether ranges are made to hold for every shorter sequence than those of the data.

    A softmax over time gives 1 for a single step and a mean the step itself, where longer
    sequences stay near zero. 16 bits hold both; 8 bits would lose what long sequences need.
    """
    return Precision.INT8 not in plan.of_recurrences | plan.of_operators


def _prefixes(call: Call, axes: ModelAxes, steps: int) -> Iterator[Call]:
    """The first 1, 2, 4, ... steps of a call whose number of steps is open."""
    length = 1
    while axes.time_varies and length < steps:
        yield dataclasses.replace(call, inputs=cut(call.inputs, axes, length))
        length *= 2


def _added(moments: Wide | None, rows: Array) -> Wide:
    """Adds v v^T of rows [T, B, K], each with a 1 behind it."""
    flat = rows.reshape(-1, rows.shape[-1])
    flat = np.concatenate([flat, np.ones((len(flat), 1), np.float32)], axis=1)
    # Inputs beyond 1e19 overflow here: their layer stays float32.
    with np.errstate(over="ignore", invalid="ignore"):
        product = (flat.T @ flat).astype(np.float64)
    return product if moments is None else moments + product


@dataclasses.dataclass(frozen=True)
class _Start:
    """Where a state comes from: names of float tensors, or what the last call left."""

    carried: bool
    h: str | None = None
    c: str | None = None


@dataclasses.dataclass
class _Run:
    """The model with all its float activations as outputs, and what was seen of them."""

    session: Session
    inputs: dict[str, str]  # operator's output tensor -> its input tensor
    starts: dict[str, _Start]
    layers: dict[str, LayerStatistics]
    tensors: dict[str, Observer]
    dense: dict[str, DenseStatistics]
    pairs: Mapping[str, str]  # explicit state input -> output
    states: dict[str, tuple[Array, Array]] = dataclasses.field(default_factory=dict)
    explicit: dict[str, Array] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(model: Model, pairs: Mapping[str, str], plan: Plan) -> _Run:
        exposed = Model.read(model.to_bytes())
        subgraph = exposed.main
        layers, inputs, starts = {}, {}, {}
        for op in subgraph.find(FUSED_OP):
            output = op.output(0).name
            x = op.input(0)
            wanted = plan.layer(layer_name(op)).precision
            if unfit(op) or x is None or wanted not in STATIC:
                continue
            layers[output] = LayerStatistics(layer_name(op), spec_of(op, layer_name(op)))
            inputs[output] = x.name
            starts[output] = _start(subgraph, op)
        (signature,) = exposed.signatures
        held = [
            tensor
            for tensor in subgraph.tensors
            if tensor.dtype == "float32" and not tensor.constant and not tensor.is_variable
        ]
        outputs = {f"out/{name}": index for name, index in signature.outputs.items()}
        outputs |= {f"tensor/{t.name}": t.index for t in held}
        exposed.set_signature(
            signature.key,
            inputs={**signature.inputs},
            outputs=outputs,
        )
        subgraph.outputs = list(dict.fromkeys(outputs.values()))
        session = open_fast(exposed)
        tensors = {t.name: Observer() for t in held}
        dense = dense_layers(subgraph, plan)
        return _Run(session, inputs, starts, layers, tensors, dense, pairs)

    def take(self, call: Call) -> None:
        """Runs one call and looks at everything."""
        if call.fresh:
            self.session.reset()
            self.states.clear()
            self.explicit.clear()
        outputs = self.session.run(self._with_states(call, self.explicit))
        for name, output in self.pairs.items():
            self.explicit[name] = outputs[f"out/{output}"]
        seen = {n.removeprefix("tensor/"): a for n, a in outputs.items() if n.startswith("tensor/")}
        for name, observer in self.tensors.items():
            observer.see(seen[name])
        for dense in self.dense.values():
            dense.see(seen[dense.reads])
        for output, layer in self.layers.items():
            h, c = self._initial(output, seen)
            traced = trace(layer.spec, seen[self.inputs[output]], h, c, outputs=seen[output])
            self.states[output] = (traced.h[-1], traced.c[-1])
            layer.see(traced)

    def take_range(self, call: Call) -> None:
        """Runs one call from zero states and looks at what stands outside of the fused operators
        alone: inside they compute the same steps. A length that the model refuses is passed over.
        """
        self.session.reset()
        try:
            outputs = self.session.run(self._with_states(call, {}))
        except EdgeLstmError:
            return
        for name, observer in self.tensors.items():
            observer.see(outputs[f"tensor/{name}"])
        for output, layer in self.layers.items():
            layer.x.see(outputs[f"tensor/{self.inputs[output]}"])

    def _with_states(self, call: Call, states: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs of a call with explicit states, zero where none is given."""
        arrays: dict[str, Array] = dict(call.inputs)
        batch = next((a.shape[0] for a in call.inputs.values() if a.ndim), 1)
        for info in self.session.inputs:
            if info.name in self.pairs:
                shape = tuple(batch if n is None else n for n in info.shape)
                zero = np.zeros(shape, info.dtype)
                arrays[info.name] = states.get(info.name, zero)
        return arrays

    def _initial(self, output: str, seen: dict[str, Array]) -> tuple[Array | None, Array | None]:
        start = self.starts[output]
        if start.h is not None and start.c is not None:
            return seen[start.h], seen[start.c]
        if start.carried and output in self.states:
            return self.states[output]
        return None, None

    def check(self, where: str) -> None:
        """Raises where the data broke a layer; elsewhere NaN may be meant (means of nothing)."""
        for layer in self.layers.values():
            if not (layer.x.finite and layer.h.finite and layer.cell.finite):
                raise DataError(
                    "the calibration data drive the model to NaN or infinity",
                    where=f"{where}, layer {layer.name}",
                    cure="leave out the samples that do, or check the weights",
                )


def _start(subgraph: Subgraph, op: Op) -> _Start:
    """How an operator's states begin a call."""
    sources = []
    for position in (H_STATE, C_STATE):
        state = op.input(position)
        assert state is not None
        writer = subgraph.producer(state.index)
        if writer is None:
            return _Start(carried=True)
        source = writer.input(0)
        if writer.name != COPY_OP or source is None:
            return _Start(carried=False)
        sources.append(source.name)
    return _Start(False, *sources)


def nothing_seen(observer: Observer) -> bool:
    """Whether a range is empty or of one value that is zero."""
    seen = observer.extremes
    return not observer.seen or seen == Range(0.0, 0.0)
