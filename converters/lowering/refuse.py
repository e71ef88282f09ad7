"""Recurrences of a finished .tflite file replaced by the fused op, in the file itself.

The graph is imported, its loops and unrolled chains are recovered as scans, and every scan that is
proven to be LSTMs is written in the place of what it was. All other operators, constants and names
stay as they are. A scan that is not fused is left with the reason.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.lowering.state import copy
from edgelstm.converters.lowering.stored import (
    StoredWeights,
    keep_stored,
    stored_weights,
    widen_halves,
)
from edgelstm.converters.lowering.write_ir import IrWriter, NotWritten, add_marker, last_step
from edgelstm.converters.quantize.repeat import repeat_dequantize
from edgelstm.converters.recurrence.finals import drop_unread
from edgelstm.converters.recurrence.first_step import put_back_first_steps
from edgelstm.converters.recurrence.import_tflite import ImportedTflite, import_tflite
from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.loops import recover_loops
from edgelstm.converters.recurrence.match import Matched
from edgelstm.converters.recurrence.plan import Plan, PlannedPart, plan
from edgelstm.converters.recurrence.scan import SCAN, Scan, sync
from edgelstm.converters.recurrence.steps import LoneStep, lone_steps
from edgelstm.converters.recurrence.unroll import roll_up
from edgelstm.converters.recurrence.views import is_zero
from edgelstm.converters.spec import Layout, Lowering, LstmSpec, Precision, Recurrence, StatePolicy

Sizes = tuple[int | None, ...]


class Int8Weights(enum.Enum):
    """What becomes of int8 weights that the fused op cannot take as they are."""

    KEEP = "keep"  # the recurrence stays as it is
    WIDEN = "widen"  # float32 weights, the same numbers


@dataclasses.dataclass
class Refused:
    """What was done to a file.

    Attributes:
        recurrences: those that were found, fused or left, in order.
        notes: what a user should know, one sentence each.
    """

    recurrences: list[Recurrence]
    notes: list[str]


class NotFusable(Exception):
    """Why a scan is left as it is."""


def refuse(model: Model, int8: Int8Weights = Int8Weights.KEEP) -> Refused:
    """Replace the recurrences of a model by fused ops, in place; tensor indices change.

    Args:
        int8: what becomes of int8 weights that the fused op cannot take as they are.
    """
    imported = import_tflite(model)
    before = _snapshot(imported)
    try:
        failures = recover_loops(imported.graph)
        put_back_first_steps(imported.graph, imported.sizes.get)
        chains = roll_up(imported.graph)
        drop_unread(imported.graph)
    except Exception as error:  # whatever a graph that makes no sense leads to
        told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Refused([], [f"The file stays as it is: its graph makes no sense ({told})."])
    work = _Refusal(model, imported, before, int8)
    work.run()
    left = [f"The loop {f.node.name} stays as it is: {f.reason}." for f in failures]
    left += [f"{c.steps} steps from {c.name} on stay as they are: {c.reason}." for c in chains]
    steps = [_alone(step, imported) for step in lone_steps(imported.graph.outputs.values())]
    return Refused([*work.recurrences, *steps], [*left, *work.notes])


def _alone(step: LoneStep, imported: ImportedTflite) -> Recurrence:
    sizes = imported.sizes.get(step.hidden) or (0,)
    return Recurrence(
        id=-1,
        name=step.hidden.node.name,
        kind="LSTM",
        lowering=Lowering.STEP,
        reason="left as it is: one step, whose state comes from outside and goes there; the fused "
        "op would only copy that state in and out",
        units=int(sizes[-1] or 0),
        source=f"operators up to {step.hidden.node.name}",
    )


def _snapshot(imported: ImportedTflite) -> list[tuple[Node | None, list[Value]]]:
    outputs = imported.graph.outputs
    nodes = ordered([*outputs.values(), *imported.values.values()])
    return [(None, list(outputs.values())), *((node, list(node.inputs)) for node in nodes)]


class _Refusal:
    def __init__(
        self,
        model: Model,
        imported: ImportedTflite,
        before: Sequence[tuple[Node | None, list[Value]]],
        int8: Int8Weights,
    ) -> None:
        self._int8 = int8
        self._model = model
        self._main = model.main
        self._imported = imported
        self._sizes = dict(imported.sizes)
        self._changed: dict[Value, Value] = {}
        outputs = list(imported.graph.outputs.values())
        for node, inputs in before:
            for old, new in zip(inputs, outputs if node is None else node.inputs, strict=False):
                if old != new:
                    self._changed[old] = new
                    if old in self._sizes:
                        self._sizes.setdefault(new, self._sizes[old])
        self._plans: dict[Node, Plan] = {}
        self._specs: dict[int, LstmSpec] = {}
        self._stored: dict[int, StoredWeights] = {}
        self._written: dict[Node, dict[int, int]] = {}
        self._reasons: dict[Node, str] = {}
        self._numbers: dict[int, int] = {}
        self._fused: set[int] = set()
        self.recurrences: list[Recurrence] = []
        self.notes: list[str] = []

    def run(self) -> None:
        tensors = {
            value: index
            for index, value in reversed(self._imported.values.items())
            if value not in self._changed
        }
        writer = IrWriter(self._main, tensors, self._sizes_of, self._port)
        self._writer = writer
        nodes = ordered(self._imported.graph.outputs.values())
        read = {*self._imported.graph.outputs.values(), *(v for n in nodes for v in n.inputs)}
        scans = [node for node in nodes if node.op == SCAN]
        for node in scans:
            self._plan(node)
        moves: list[tuple[int, int]] = []
        needed = {i for op in self._main.ops for i in op.inputs} | set(self._main.outputs)
        for index, value in list(self._imported.values.items()):
            new = self._changed.get(value)
            if new is None or new not in read or index not in needed:
                continue
            try:
                moves.append((index, writer.write(new)))
            except (NotWritten, NotFusable) as reason:
                for node in ordered([new]):
                    if node.op == SCAN:
                        self._reasons.setdefault(node, str(reason))
        for old, new_index in moves:
            self._replace(old, new_index)
        self._report(scans)
        self._model.prune()
        self._model.drop_unread_subgraphs()
        lower_markers(self._model, self._specs, policy=StatePolicy.RESET)
        self._keep_stored()
        self._model.main.sort()
        self._model.prune()

    def _keep_stored(self) -> None:
        main = self._model.main
        fixed = not any(t.is_variable and -1 in t.signature for t in main.tensors)
        for number, stored in self._stored.items():
            if number in self._fused:
                keep_stored(main, self._specs[number].name, stored, halves=fixed)
        if not fixed and widen_halves(main):
            self.notes.append(
                "Its batch may change between calls: float16 weights are written as float32, the "
                "same numbers; --batch 1 is not needed, a source with a fixed batch keeps them."
            )
        repeat_dequantize(self._model)

    # Planning

    def _plan(self, node: Node) -> None:
        scan = sync(node)
        shapes = {s.leaf: _shape(self._sizes_of(s.source)[1:]) for s in scan.sequences}
        shapes |= {c.leaf: _shape(self._sizes_of(c.source)) for c in scan.captured}
        shapes |= {s.leaf: _shape(self._sizes_of(s.initial)) for s in scan.states}
        if scan.counter is not None:
            shapes[scan.counter] = ()
        try:
            if any(math.prod(shape) > _LARGEST for shape in shapes.values()):
                raise NotFusable("its sizes are beyond what a step can have")
            planned = plan(scan, shapes)
        except Exception as reason:  # whatever a step that makes no sense leads to
            told = str(reason).splitlines()[0][:200] if str(reason) else type(reason).__name__
            self._reasons[node] = f"its step cannot be examined: {told}"
            return
        self._plans[node] = planned
        steps, batch = self._steps_and_batch(scan)
        for port, value in enumerate(planned.scan.stacked):
            found = self._hidden_of(planned, value)
            if found is not None:
                self._sizes[node[port]] = (steps, batch, found.spec.output_size)
        for position, state in enumerate(scan.states):
            port = len(scan.stacked) + position
            self._sizes.setdefault(node[port], self._sizes_of(state.initial))
        try:
            self._check(scan, planned)
            for part in planned.parts:
                if part.matched is not None:
                    self._register(part, part.matched)
        except NotFusable as reason:
            self._reasons[node] = str(reason)

    def _register(self, part: PlannedPart, matched: Matched) -> None:
        stored = stored_weights(matched, self._imported.stored, self._batch_varies())
        if stored.problem and self._int8 is Int8Weights.WIDEN:
            self.notes.append(
                f"{part.name} gets float32 weights, the numbers that its int8 ones stand for: "
                f"{stored.problem}."
            )
            stored = StoredWeights(Precision.FLOAT32)
        if stored.problem:
            raise NotFusable(stored.problem)
        number = len(self._specs)
        taken = {spec.name for spec in self._specs.values()}
        name = unique = _plain(part.name)
        while unique in taken:
            unique = f"{name}_{sum(t.startswith(name) for t in taken)}"
        spec = dataclasses.replace(matched.spec, name=unique, layout=Layout.TIME_MAJOR)
        self._specs[number] = spec
        self._stored[number] = stored
        self._numbers[id(matched)] = number

    def _check(self, scan: Scan, planned: Plan) -> None:
        """Raise where the fused op cannot stand for the whole scan."""
        if planned.mask is not None:
            raise NotFusable("some of its steps are masked")
        for part in planned.parts:
            if part.part.recurrent and part.matched is None:
                raise NotFusable(part.reason)
        if planned.scan.captured:
            named = planned.scan.captured[0].source.node.name
            raise NotFusable(f"every step reads {named}, which is computed outside")
        for value in planned.scan.stacked:
            if self._hidden_of(planned, value) is None:
                raise NotFusable(f"its steps also give {value.node.name}, which is no h")
        for part in planned.parts:
            if part.matched is None:
                continue
            for value in part.matched.inputs:
                if not any(value == s.leaf for s in planned.scan.sequences) and (
                    self._hidden_of(planned, value) is None
                ):
                    raise NotFusable(f"its steps compute {value.node.name} from their input first")
        lengths = {self._sizes_of(s.source)[0] for s in scan.sequences}
        if len(lengths) > 1:
            raise NotFusable("its sequences differ in length")
        steps = None if scan.steps is None else scan.steps.constant
        if steps is not None and lengths != {int(steps.reshape(()))}:
            raise NotFusable("it takes fewer steps than its sequence has")
        if any(len(self._sizes_of(s.source)) != 3 for s in scan.sequences):
            raise NotFusable("its input is no sequence of vectors")
        for state in planned.scan.states:
            if len(self._sizes_of(state.initial)) != 2 and not is_zero(state.initial):
                raise NotFusable("its initial state is no matrix")

    def _hidden_of(self, planned: Plan, value: Value) -> Matched | None:
        for part in planned.parts:
            if part.matched is not None and part.matched.hidden == value:
                return part.matched
        return None

    # Writing

    def _port(self, node: Node, port: int) -> int:
        if node in self._reasons:
            raise NotFusable(self._reasons[node])
        if node not in self._written:
            self._written[node] = self._write_scan(node)
        return self._written[node][port]

    def _write_scan(self, node: Node) -> dict[int, int]:
        planned = self._plans[node]
        scan = sync(node)
        hidden: dict[Value, int] = {s.leaf: self._writer.write(s.source) for s in scan.sequences}
        finals: dict[int, int] = {}
        for part in planned.parts:
            if part.matched is not None:
                self._write_part(planned, part.matched, part, hidden, finals)
        results = {port: hidden[value] for port, value in enumerate(planned.scan.stacked)}
        for position, places in enumerate(planned.finals):
            pieces = [finals[i] for i in places if i in finals]
            if len(pieces) != len(places):
                raise NotFusable("one of its states is kept and never used")
            results[len(scan.stacked) + position] = self._joined(pieces, f"{scan.name}/final", 1)
        return results

    def _write_part(
        self,
        planned: Plan,
        matched: Matched,
        part: PlannedPart,
        hidden: dict[Value, int],
        finals: dict[int, int],
    ) -> None:
        number = self._numbers[id(matched)]
        self._fused.add(number)
        spec = self._specs[number]
        x = self._joined([hidden[v] for v in matched.inputs], f"{spec.name}/x", 2)
        steps, batch, _ = self._main.tensor(x).signature
        initial: list[int] = []
        if not (is_zero(matched.h.initial) and is_zero(matched.c.initial)):
            initial = [self._writer.write(s.initial) for s in (matched.h, matched.c)]
        sequence = self._main.add_tensor(f"{spec.name}/h_all", (steps, batch, spec.output_size))
        cell = self._main.add_tensor(f"{spec.name}/c_last", (batch, spec.units))
        attributes = {"id": number, **Rows(axis=self._batch_axis()).attributes()}
        add_marker(self._main, attributes, [x, *initial], [sequence, cell])
        hidden[matched.hidden] = sequence
        last: int | None = None
        for position in part.part.positions:
            state = planned.scan.states[position]
            if state.leaf == matched.c.leaf:
                finals[position] = cell
            else:
                last = last_step(self._main, sequence, spec.name) if last is None else last
                finals[position] = last
        for position, state in enumerate(planned.scan.states):
            if position not in finals and state.next == matched.hidden:
                last = last_step(self._main, sequence, spec.name) if last is None else last
                finals[position] = last

    def _joined(self, pieces: list[int], name: str, axis: int) -> int:
        if len(pieces) == 1:
            return pieces[0]
        first = self._main.tensor(pieces[0]).signature
        width = sum(self._main.tensor(piece).signature[axis] for piece in pieces)
        joined = self._main.add_tensor(name, (*first[:axis], width, *first[axis + 1 :]))
        self._main.add_op("CONCATENATION", pieces, [joined], options={"axis": axis})
        return joined

    def _replace(self, old: int, new: int) -> None:
        """Let everything read `new`; an output of the model keeps its name."""
        main = self._main
        if old in main.outputs:
            if new in main.outputs or new in main.inputs:
                twin = main.add_tensor(f"{main.tensor(new).name}/copy", main.tensor(new).signature)
                copy(main, new, twin, before=None)
                new = twin
            name = main.tensor(old).name
            main.tensor(old).name = f"{name}/before"
            main.tensor(new).name = name
        main.rewire(old, new)

    def _report(self, scans: list[Node]) -> None:
        for node in scans:
            reason = self._reasons.get(node, "")
            if node not in self._plans:
                self.notes.append(f"{sync(node).name} stays as it is: {reason}.")
                continue
            planned = self._plans[node]
            for part in planned.parts:
                if not part.part.recurrent:
                    continue
                matched = part.matched
                number = self._numbers.get(id(matched), -1)
                spec = self._specs[number] if number in self._fused else None
                form = sync(node).form
                self.recurrences.append(
                    Recurrence(
                        id=number,
                        name=_plain(part.name) if spec is None else spec.name,
                        kind="LSTM" if matched else "recurrence",
                        lowering=Lowering.FUSED
                        if spec
                        else Lowering.LOOP
                        if form == "loop"
                        else Lowering.UNROLLED,
                        reason="" if spec else f"left as it is: {reason or 'nothing reads it'}",
                        units=matched.spec.units if matched else self._units(planned, part),
                        source=f"{form} {part.name}",
                        spec=spec,
                        gate_probes=matched.record.probes if matched else 0,
                        gate_error=matched.record.worst_error if matched else None,
                    )
                )

    def _units(self, planned: Plan, part: PlannedPart) -> int:
        sizes = self._sizes_of(planned.scan.states[part.part.positions[0]].initial)
        return int(sizes[-1] or 0) if sizes else 0

    # Sizes

    def _sizes_of(self, value: Value) -> Sizes:
        if value.constant is not None:
            return tuple(value.constant.shape)
        if value not in self._sizes:
            self._sizes[value] = self._derived(value)
        return self._sizes[value]

    def _derived(self, value: Value) -> Sizes:
        node = value.node
        if not node.inputs:
            return ()
        first = self._sizes_of(node.inputs[0])
        if node.op == "TimeMajor":
            axis = int(node.attrs["axis"])
            return (first[axis], *(s for a, s in enumerate(first) if a != axis))
        if node.op == "Apart":
            steps = int(node.attrs["steps"])
            rows = first[0]
            return (steps, None if rows is None else rows // steps, *first[1:])
        if node.op == "Pack":
            axis = int(node.attrs["axis"]) % (len(first) + 1)
            return (*first[:axis], len(node.inputs), *first[axis:])
        if node.op == "Unpack":
            axis = int(node.attrs["axis"]) % len(first)
            return (*first[:axis], *first[axis + 1 :])
        if node.op == "StridedSlice" and not node.attrs.get("shrink_axis_mask"):
            begin, end, step = (v.constant for v in node.inputs[1:4])
            if begin is not None and end is not None and step is not None and first[0] is not None:
                count = len(
                    range(*slice(int(begin[0]), int(end[0]), int(step[0])).indices(first[0]))
                )
                return (count, *first[1:])
        return first

    def _steps_and_batch(self, scan: Scan) -> tuple[int | None, int | None]:
        sizes = [self._sizes_of(s.source) for s in scan.sequences]
        return next(((s[0], s[1]) for s in sizes if len(s) >= 2), (None, None))

    def _batch_varies(self) -> bool:
        return self._batch_axis() is not None and any(
            len(t.signature) > 1 and t.signature[self._batch_axis() or 0] < 0
            for t in (self._main.tensor(i) for i in self._main.inputs)
        )

    def _batch_axis(self) -> int:
        """The axis of the inputs that is the batch: 1 where an input itself is a sequence [T, B]."""
        inputs = set(self._imported.graph.inputs.values())
        for node in self._plans:
            for sequence in sync(node).sequences:
                if sequence.source in inputs and (self._sizes_of(sequence.source)[0] is None):
                    return 1
        return 0


def _shape(sizes: Sizes) -> tuple[int, ...]:
    return tuple(0 if size is None else size for size in sizes)


def _plain(name: str) -> str:
    """A loop's name without what says that it is a loop."""
    for suffix in ("/while", "/while/0"):
        name = name.removesuffix(suffix)
    return name or "lstm"


_LARGEST = 2**24  # elements of what one step reads; probes hold some copies of it
