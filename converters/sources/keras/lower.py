"""Decide for every recurrence of a traced Keras model how it is written, and write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.loop import emit_loop, swap_batch_and_time
from edgelstm.converters.lowering.marker import emit_marker
from edgelstm.converters.lowering.masks import Compaction, compact, with_frozen_padding
from edgelstm.converters.lowering.rows import Rows, axis_in_inputs
from edgelstm.converters.recurrence.gate import GateRecord, prove
from edgelstm.converters.sources.keras import cells as keras_cells
from edgelstm.converters.sources.keras.hook import RnnCall, RnnResult
from edgelstm.converters.sources.keras.names import (
    Namer,
    StateHome,
    StateSlot,
    cells_of,
    state_pair,
    states_of,
)
from edgelstm.converters.sources.keras.qat import learned_ranges
from edgelstm.converters.spec import (
    Layout,
    Lowering,
    LstmSpec,
    Precision,
    Recurrence,
    StatePolicy,
)
from edgelstm.errors import EdgeLstmError, UnsupportedModelError

_FLOAT_ONLY = (Precision.FLOAT32, Precision.FLOAT16)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One cell's share of one recurrent call, batch-major unless the spec says otherwise."""

    call: RnnCall
    cell: Any
    name: str
    x: Any
    mask: Any | None
    states: list[Any]
    state_given: bool
    policy: StatePolicy
    rows: Rows


class RecurrenceLowering:
    """The handler of `hooked`: replaces each recurrence by a marker or by a loop.

    Args:
        requested: None follows the source: `carry` for layers in `stateful`, else `reset`.
        stateful: ids of the layers that the source keeps state in.
        state_inputs: tensors for the slots that an earlier trace found, by input name.

    Attributes:
        recurrences: what was found, in call order; a marker's id is its index.
        slots: the states that have to become inputs and outputs. They are known only after a
            trace, so that a model with slots is traced twice, the second time with their tensors.
        state_outputs: output name -> tensor, of this trace.
        refusal: what a call raised, as it was before the layers it passed through reworded it.
    """

    def __init__(
        self,
        requested: StatePolicy | None,
        stateful: frozenset[int],
        precision: Precision,
        state_inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self._requested = requested
        self._stateful = stateful
        self._precision = precision
        self._state_inputs = state_inputs or {}
        self.recurrences: list[Recurrence] = []
        self.slots: list[StateSlot] = []
        self.state_outputs: dict[str, Any] = {}
        self.refusal: EdgeLstmError | None = None
        self._slots_of: dict[str, list[StateSlot]] = {}
        self._results: list[list[Any]] = []
        self._names = Namer()

    def __call__(self, call: RnnCall) -> RnnResult:
        try:
            return self._recur(call, _rows(call))
        except EdgeLstmError as error:
            self.refusal = error
            raise

    def drop_unread(self, graph: Any) -> None:
        """Forget the recurrences that no output of the traced graph depends on.

        tf_keras calls a model inside TimeDistributed a second time, for its mask.
        """
        read = _ancestors(graph.outputs)
        self.recurrences = [
            recurrence
            for recurrence, results in zip(self.recurrences, self._results, strict=True)
            if any(r.graph is not graph or r.op.name in read for r in results)
        ]

    def _recur(self, call: RnnCall, rows: Rows) -> RnnResult:
        tf = tensorflow()
        cells = cells_of(call)
        if call.time_major and (call.mask is not None or not _all_fusable(cells)):
            return self._batch_major(call, rows)
        x, mask = call.inputs, _flat_mask(call.mask)
        if call.go_backwards:
            axis = 0 if call.time_major else 1
            x = tf.nest.map_structure(lambda t: tf.reverse(t, [axis]), x)
            mask = None if mask is None else tf.reverse(mask, [axis])
        policy = self._policy(call)
        final: list[Any] = []
        last: Any = None
        for name, cell, states in zip(self._names.of(call), cells, states_of(call), strict=True):
            job = _Job(call, cell, name, x, mask, states, call.state_given, policy, rows)
            last, x, new_states = self._lower(job)
            final.append(new_states)
            self._results.append(tf.nest.flatten([last, x, new_states]))
        return last, x, _like(call.initial_states, final)

    def _batch_major(self, call: RnnCall, rows: Rows) -> RnnResult:
        nest = tensorflow().nest
        mask = call.mask
        swapped = dataclasses.replace(
            call,
            inputs=nest.map_structure(swap_batch_and_time, call.inputs),
            mask=None if mask is None else swap_batch_and_time(mask),
            time_major=False,
        )
        last, outputs, states = self._recur(swapped, rows)
        return last, swap_batch_and_time(outputs), states

    def _policy(self, call: RnnCall) -> StatePolicy:
        stateful = id(call.layer) in self._stateful
        policy = self._requested
        if policy is None:
            policy = StatePolicy.CARRY if stateful else StatePolicy.RESET
        if policy is StatePolicy.RESET or call.state_given:
            return StatePolicy.RESET
        if any(type(layer).__name__ == "TimeDistributed" for layer in call.enclosing):
            raise UnsupportedModelError(
                f"The state of a recurrence inside TimeDistributed cannot be {_PAST[policy]}.",
                where=f"layer {call.layer.name}",
                cure="use --state reset",
            )
        if policy is StatePolicy.CARRY and call.go_backwards and not stateful:
            raise UnsupportedModelError(
                "A layer that runs backwards in time has no state to carry to the next call.",
                where=f"layer {call.layer.name}",
                cure="use --state reset, or --state explicit to feed its states yourself",
            )
        return policy

    def _lower(self, job: _Job) -> tuple[Any, Any, list[Any]]:
        obstacle = self._obstacle(job)
        if obstacle is None:
            spec = keras_cells.lstm_spec(job.cell, job.name)
            if job.call.time_major:
                spec = dataclasses.replace(spec, layout=Layout.TIME_MAJOR)
            record = prove(spec, keras_cells.source_step(job.cell))
            if record.passed:
                return self._fuse(job, spec, record)
            obstacle = (
                "its step differs from the standard LSTM step "
                f"(error {record.worst_error:.1e} on random probes)"
            )
        return self._loop(job, obstacle)

    def _obstacle(self, job: _Job) -> str | None:
        tf = tensorflow()
        if tf.nest.is_nested(job.x) or job.call.constants:
            return "its cell takes more than one input"
        reason = keras_cells.why_not_fused(job.cell)
        if reason is None and self._freezes_padding(job) and self._precision not in _FLOAT_ONLY:
            reason = (
                "its final state under a mask needs weights of 1e4 in the fused op, "
                f"which {self._precision.value} kernels cannot hold"
            )
        return reason

    def _freezes_padding(self, job: _Job) -> bool:
        return job.mask is not None and self._wants_cell(job)

    def _wants_cell(self, job: _Job) -> bool:
        """Whether anything may read the final cell state out of the fused op."""
        if job.policy is StatePolicy.EXPLICIT or job.call.layer.return_state:
            return True
        return job.policy is StatePolicy.CARRY and job.mask is not None

    def _fuse(self, job: _Job, spec: LstmSpec, record: GateRecord) -> tuple[Any, Any, list[Any]]:
        tf = tensorflow()
        in_op = job.policy is StatePolicy.CARRY and job.mask is None
        states, given = self._initial(job, StateHome.OP if in_op else self._home(job))
        wants_cell = self._wants_cell(job)
        x = tf.cast(job.x, tf.float32)
        plan: Compaction | None = None
        if job.mask is not None:
            plan = compact(job.mask)
            x = plan.gather(x)
            if wants_cell:
                spec = with_frozen_padding(spec)
                x = tf.concat([x, plan.padding], axis=-1)
        marker = self._record(
            job, Lowering.FUSED, "every gate as the fused op has it", spec, record
        )
        initial = [tf.cast(s, tf.float32) for s in states] if given else []
        sequence, *cell = emit_marker(
            marker, spec, x, initial, rows=job.rows, outputs=2 if wants_cell else 1
        )
        if plan is None:
            last = h = sequence[-1] if spec.layout is Layout.TIME_MAJOR else sequence[:, -1]
            outputs = sequence
        else:
            # Before its first valid step Keras outputs zero, whatever the initial state.
            outputs = plan.spread(sequence, tf.zeros_like(sequence[:, 0]))
            h = plan.spread(sequence, tf.cast(states[0], tf.float32))[:, -1] if given else None
            if job.call.zero_output_for_mask:
                h = outputs[:, -1] if h is None else h
                outputs = tf.where(tf.expand_dims(job.mask, -1), outputs, tf.zeros_like(outputs))
            last = outputs[:, -1]
            h = last if h is None else h
        c = cell[0] if cell else tf.zeros_like(h)
        if not in_op:
            self._publish(job, [h, c])
        dtype = job.x.dtype
        return tf.cast(last, dtype), tf.cast(outputs, dtype), [tf.cast(s, dtype) for s in (h, c)]

    def _loop(self, job: _Job, reason: str) -> tuple[Any, Any, list[Any]]:
        tf = tensorflow()
        states, _ = self._initial(job, self._home(job))
        structure = job.states
        hoisted = None
        if not (tf.nest.is_nested(job.x) or job.call.constants):
            hoisted = keras_cells.hoisted_step(job.cell)
        if hoisted is not None:
            inputs = [swap_batch_and_time(hoisted.project(job.x))]
            step = hoisted.step
            reason += "; its input projection is computed before the loop"
        else:
            inputs = [swap_batch_and_time(t) for t in tf.nest.flatten(job.x)]
            step = _framework_step(job, structure)
        mask = None if job.mask is None else swap_batch_and_time(job.mask)
        self._record(job, Lowering.LOOP, reason)
        last, outputs, final = emit_loop(
            inputs,
            tf.nest.flatten(states),
            step,
            mask=mask,
            zero_masked_outputs=job.call.zero_output_for_mask,
        )
        self._publish(job, final)
        return last, swap_batch_and_time(outputs), tf.nest.pack_sequence_as(structure, final)

    def _home(self, job: _Job) -> StateHome:
        return StateHome.FILE if job.policy is StatePolicy.CARRY else StateHome.CALLER

    def _initial(self, job: _Job, home: StateHome) -> tuple[list[Any], bool]:
        """The initial states to compute with, and whether they are more than the default zeros."""
        tf = tensorflow()
        flat = tf.nest.flatten(job.states)
        if job.state_given:
            return job.states, True
        batch = tf.shape(tf.nest.flatten(job.x)[0])[1 if job.call.time_major else 0]
        static_batch = tf.nest.flatten(job.x)[0].shape[1 if job.call.time_major else 0]
        states = []
        for index, state in enumerate(flat):
            shape = (static_batch, *state.shape[1:])
            zeros = tf.zeros([batch, *state.shape[1:]], state.dtype)
            zeros.set_shape(shape)
            if job.policy is not StatePolicy.RESET:
                slot = StateSlot(state_pair(job.name, index, len(flat)), shape, home)
                self.slots.append(slot)
                self._slots_of.setdefault(job.name, []).append(slot)
                zeros = self._state_inputs.get(slot.pair.input, zeros)
            states.append(zeros)
        given = job.policy is not StatePolicy.RESET and home is not StateHome.OP
        return tf.nest.pack_sequence_as(job.states, states), given

    def _publish(self, job: _Job, final: Sequence[Any]) -> None:
        if job.policy is StatePolicy.RESET:
            return
        for slot, state in zip(self._slots_of.get(job.name, []), final, strict=True):
            self.state_outputs[slot.pair.output] = state

    def _record(
        self,
        job: _Job,
        lowering: Lowering,
        reason: str,
        spec: LstmSpec | None = None,
        gate: GateRecord | None = None,
    ) -> int:
        if lowering is Lowering.FUSED and job.mask is not None:
            reason += "; masked steps are moved to the end of each row and skipped"
        identifier = len(self.recurrences)
        self.recurrences.append(
            Recurrence(
                id=identifier,
                name=job.name,
                kind=keras_cells.cell_kind(job.cell),
                lowering=lowering,
                reason=reason,
                units=keras_cells.cell_size(job.cell),
                source=f"keras layer {getattr(job.call.layer, 'path', job.call.layer.name)}",
                state=job.policy,
                spec=spec,
                ranges=None if spec is None else learned_ranges(job.cell),
                gate_probes=gate.probes if gate else 0,
                gate_error=gate.worst_error if gate else None,
            )
        )
        return identifier


_PAST = {StatePolicy.CARRY: "carried", StatePolicy.EXPLICIT: "made explicit"}


def _ancestors(tensors: Sequence[Any]) -> set[str]:
    """Names of the ops that the tensors depend on."""
    seen: set[str] = set()
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        op = waiting.pop()
        if op.name not in seen:
            seen.add(op.name)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return seen


def _all_fusable(cells: Sequence[Any]) -> bool:
    return all(keras_cells.why_not_fused(cell) is None for cell in cells)


def _rows(call: RnnCall) -> Rows:
    """Where the batch size of a call comes from; Keras keeps the batch on axis 0 of every tensor.

    Not so before a time-major layer: a transposition in the model may have moved it there.
    A variable size folded into the batch by TimeDistributed is taken to be that of axis 1 of the
    model's inputs; where it is another, the interpreter refuses the file while it is verified.
    """
    fixed = [size for size in call.folds if size is not None]
    varying = len(call.folds) - len(fixed)
    if varying > 1 or (call.time_major and call.folds):
        return Rows(axis=None)
    return Rows(
        axis=axis_in_inputs(call.inputs, 1) if call.time_major else 0,
        fold=math.prod(fixed),
        fold_axis=1 if varying else None,
    )


def _flat_mask(mask: Any | None) -> Any | None:
    """The mask as bool [B, T]."""
    if mask is None:
        return None
    tf = tensorflow()
    mask = tf.cast(mask, tf.bool)
    return tf.squeeze(mask, -1) if len(mask.shape) == 3 else mask


def _like(structure: Any, final: list[list[Any]]) -> Any:
    nest = tensorflow().nest
    packed = nest.pack_sequence_as(structure, nest.flatten(final))
    return list(packed) if isinstance(packed, tuple) else packed


def _framework_step(job: _Job, structure: list[Any]) -> Callable[..., tuple[Any, list[Any]]]:
    """The cell's own step, computed by its framework; nothing is hoisted."""
    nest = tensorflow().nest

    def step(x: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        packed = nest.pack_sequence_as(structure, list(states))
        inputs = nest.pack_sequence_as(job.x, nest.flatten(x)) if nest.is_nested(job.x) else x
        if job.cell is job.call.layer.cell:
            output, new = job.call.step(inputs, tuple(packed) + tuple(job.call.constants))
        else:
            output, new = job.cell(inputs, packed)
        return output, nest.flatten(new)

    return step
