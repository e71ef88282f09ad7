"""Write a planned scan into the graph being traced: markers for its LSTMs, loops for the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.loop import emit_steps
from edgelstm.converters.lowering.marker import emit_marker
from edgelstm.converters.lowering.masks import Compaction, compact, with_frozen_padding
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.lowering.step_mask import StepMask
from edgelstm.converters.lowering.timewise import NotTimewise, Timewise, hoistable
from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.hoist import hoisted
from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.masking import Kept
from edgelstm.converters.recurrence.match import Matched
from edgelstm.converters.recurrence.plan import Plan, PlannedPart
from edgelstm.converters.recurrence.run import call
from edgelstm.converters.recurrence.scan import Scan
from edgelstm.converters.recurrence.views import is_zero
from edgelstm.converters.spec import Layout, LstmSpec

# (planned part, its spec as written or None for a loop) -> the marker's number.
Register = Callable[[PlannedPart, LstmSpec | None, str], int]


class ScanWriter:
    """Writes one scan.

    Args:
        sources: tensors of the scan's sequences [T, B, ...] and captured values, by leaf.
        initials: tensors of the initial states, as `plan.scan` has them.
        wanted: positions in `plan.scan.states` whose final value is read.
        steps: how many steps there are, where no sequence tells it.
        rows: how the batch of a tensor follows from the model's inputs.
        register: told of each recurrence before it is written.
        in_float: whether weights of 1e4 may be written.
    """

    def __init__(
        self,
        plan: Plan,
        sources: dict[Value, Any],
        initials: Sequence[Any],
        wanted: Sequence[int],
        steps: Any | None,
        rows: Callable[[Any, int], Rows],
        register: Register,
        *,
        in_float: bool,
    ) -> None:
        scan = plan.scan
        self._plan = plan
        self._scan = scan
        self._wanted = frozenset(wanted)
        self._rows = rows
        self._register = register
        self._steps = steps
        self._initials = list(initials)
        self._in_float = in_float
        self._time = Timewise(
            {s.leaf: sources[s.leaf] for s in scan.sequences},
            {c.leaf: sources[c.leaf] for c in scan.captured},
        )
        self._finals: dict[int, Any] = {}
        self._mask: StepMask | None = None
        # Values whose masked steps already repeat the last valid one.
        self._repeating: set[Value] = set()

    def write(self) -> list[Any]:
        """The stacked values [T, B, ...], then the final states, in the scan's order.

        Raises:
            NotTimewise: the parts cannot be written apart from each other.
        """
        if self._plan.mask is not None:
            self._mask = StepMask(self._plan.mask, self._time)
        for planned in self._plan.parts:
            if not planned.part.recurrent:
                self._keep(planned)
            elif planned.matched is not None and self._allowed(planned.matched):
                self._fuse(planned, planned.matched)
            else:
                self._loop(planned)
        stacked = [
            self._masked(value, kept)
            for value, kept in zip(self._scan.stacked, self._plan.kept, strict=True)
        ]
        return stacked + [self._finals[i] for i in range(len(self._scan.states))]

    def _masked(self, value: Value, kept: Kept | None) -> Any:
        tensor = self._over(value)
        if kept is None or self._mask is None:
            return tensor
        if kept is Kept.ZERO:
            return self._mask.zeroed(tensor)
        if value in self._repeating:
            return tensor
        starts = [
            initial
            for state, initial in zip(self._scan.states, self._initials, strict=True)
            if state.next == value
        ]
        if len(starts) == 1:
            return self._mask.held(tensor, starts[0])
        raise NotTimewise(f"what a masked step repeats of {value.node.name}")

    # Values over time

    def _over(self, value: Value) -> Any:
        """A value of the step [T, B, ...]."""
        if value in self._time.over:
            return self._time.over[value]
        try:
            return self._time.compute([value])[0]
        except NotTimewise:
            return self._stepwise([value])[0]

    def _stepwise(self, values: Sequence[Value]) -> list[Any]:
        """Values without state that only a loop can compute."""
        inputs = self._inputs_of(values)

        def step(slices: list[Any], states: Sequence[Any], t: Any) -> tuple[list[Any], list[Any]]:
            del states
            return self._run(values, dict(zip(inputs, slices, strict=True)), t), []

        _, outputs, _ = emit_steps(
            [self._time.over[v] for v in inputs],
            [],
            step,
            mask=None,
            zero_masked=[False] * len(values),
            steps=self._steps,
        )
        self._time.over.update(zip(values, outputs, strict=True))
        return outputs

    def _inputs_of(self, values: Sequence[Value]) -> list[Value]:
        """What is known over time and the values need."""
        over = self._time.over
        read = [v for node in _missing(values, over) for v in node.inputs]
        return list(dict.fromkeys(v for v in (*read, *values) if v in over))

    def _run(self, values: Sequence[Value], given: dict[Value, Any], t: Any) -> list[Any]:
        """Values of one step, inside a loop."""
        return run_step(values, {**self._time.fixed, **given}, self._scan.counter, t)

    # Parts

    def _keep(self, planned: PlannedPart) -> None:
        """A state that recurs on nothing: what the last step gave, or the last valid one."""
        tf = tensorflow()
        (position,) = planned.part.positions
        state = self._scan.states[position]
        over, initial = self._over(state.next), self._initials[position]
        if self._mask is not None and not (state.complete or state.next in self._repeating):
            over = self._mask.held(over, initial)
        self._finals[position] = over[-1]
        if _is_read(self._scan, state.leaf, besides=planned.part.positions):
            self._time.over[state.leaf] = tf.concat([initial[tf.newaxis], over[:-1]], 0)

    def _allowed(self, matched: Matched) -> bool:
        return self._in_float or not self._freezes(matched)

    def _freezes(self, matched: Matched) -> bool:
        return self._mask is not None and self._scan.states.index(matched.c) in self._wanted

    def _fuse(self, planned: PlannedPart, matched: Matched) -> None:
        tf = tensorflow()
        scan, mask = self._scan, self._mask
        h, c = (scan.states.index(s) for s in (matched.h, matched.c))
        parts = [self._flat(self._over(v)) for v in matched.inputs]
        x = parts[0] if len(parts) == 1 else tf.concat(parts, -1)
        given = not (is_zero(matched.h.initial) and is_zero(matched.c.initial))
        initial = [_matrix(self._initials[i]) for i in (h, c)] if given else []
        wants_cell = c in self._wanted
        spec, x = self._laid_out(matched.spec, x)
        reason = planned.reason
        compaction: Compaction | None = None
        if mask is not None and mask.lengths is None:
            x, spec = _batch_major(x, spec)
            compaction = compact(tf.transpose(mask.valid))
            x = compaction.gather(x)
            reason += "; masked steps are moved to the end of each row and skipped"
        axis = 0 if spec.layout is Layout.BATCH_MAJOR else 1
        if mask is not None and wants_cell:
            padding = mask.padding(axis) if compaction is None else compaction.padding
            x, spec = tf.concat([x, padding], -1), with_frozen_padding(spec)
            reason += "; steps past a row's end keep its state"
        marker = self._register(planned, spec, reason)
        sequence, *cell = emit_marker(
            marker, spec, x, initial, rows=self._rows(x, axis), outputs=2 if wants_cell else 1
        )
        if compaction is not None:
            before = initial[0] if initial else tf.zeros_like(sequence[:, 0])
            sequence = compaction.spread(sequence, before)
            self._repeating.add(matched.hidden)
        over = self._shaped(sequence if axis == 1 else _swap(sequence), self._initials[h])
        self._time.over[matched.hidden] = over
        if _is_read(scan, matched.h.leaf, matched.hidden, besides=planned.part.positions):
            before = self._initials[h][tf.newaxis]
            self._time.over[matched.h.leaf] = tf.concat([before, over[:-1]], 0)
        if mask is None or compaction is not None:
            # Read where the source's layout has it: the last row of one or the other axis.
            last = sequence[:, -1] if axis == 0 else sequence[-1]
            self._finals[h] = self._shaped(last, self._initials[h], steps=False)
        else:
            self._finals[h] = mask.last(over, self._initials[h])
        final_c = cell[0] if cell else tf.zeros_like(self._initials[c])
        self._finals[c] = self._shaped(final_c, self._initials[c], steps=False)

    def _shaped(self, tensor: Any, like: Any, *, steps: bool = True) -> Any:
        """A sequence [T, B, U], or a state [B, U], with the axes of the source's state."""
        tail = list(like.shape[1:])
        if len(tail) == 1:
            return tensor
        tf = tensorflow()
        lead = 2 if steps else 1
        shaped = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:lead], tail], 0))
        shaped.set_shape([*tensor.shape[:lead], *tail])
        return shaped

    def _laid_out(self, spec: LstmSpec, x: Any) -> tuple[LstmSpec, Any]:
        """x [T, B, F] as the source had it: batch-major where it was only transposed for the loop."""
        inner = _transposed_from(x)
        if inner is not None:
            return dataclasses.replace(spec, layout=Layout.BATCH_MAJOR), inner
        return dataclasses.replace(spec, layout=Layout.TIME_MAJOR), x

    def _flat(self, over: Any) -> Any:
        """[T, B, ...] as [T, B, F]."""
        tf = tensorflow()
        if len(over.shape) == 3:
            return over
        size = 1
        for axis in over.shape[2:]:
            size *= int(axis)
        shape = tf.shape(over)
        flat = tf.reshape(over, [shape[0], shape[1], size])
        flat.set_shape([*over.shape[:2], size])
        return flat

    def _loop(self, planned: PlannedPart) -> None:
        scan = self._scan
        states = [scan.states[i] for i in planned.part.positions]
        leaves = [s.leaf for s in states]
        others = [s.next for i, s in enumerate(scan.states) if i not in planned.part.positions]
        # Outside readers take these from the loop: whatever of the part they meet first.
        inside = depending([*(s.next for s in states), *scan.stacked, *others], leaves)
        wanted = _frontier([*scan.stacked, *others], inside, leaves, self._reachable(states))
        results = [*(s.next for s in states), *wanted]
        results = hoisted(results, leaves, self._widths(results))
        free = hoistable(results, leaves)
        outside, moved = [], False
        for value in free:
            if value in self._time.fixed or not self._time_dependent(value):
                continue
            try:
                self._time.compute([value])
                outside.append(value)
                moved = moved or value.op != "Argument"
            except NotTimewise:
                outside += [v for v in self._inputs_of([value]) if v not in outside]
        reason = planned.reason
        if planned.matched is not None:
            reason = (
                "its final state under a mask needs weights of 1e4 in the fused op, "
                "which integer weights cannot hold"
            )
        if moved:
            reason += "; what depends on its input alone is computed before the loop"
        self._register(planned, None, reason)
        count = len(states)

        def step(slices: list[Any], now: Sequence[Any], t: Any) -> tuple[list[Any], list[Any]]:
            given = dict(zip(outside, slices, strict=True))
            given.update(zip(leaves, now, strict=True))
            values = self._run(results, given, t)
            return values[count:], values[:count]

        initial = [self._initials[i] for i in planned.part.positions]
        kept = [self._kept_of(value) for value in wanted]
        _, outputs, finals = emit_steps(
            [self._time.over[v] for v in outside],
            initial,
            step,
            mask=None if self._mask is None else self._mask.valid,
            zero_masked=[k is not Kept.PREVIOUS for k in kept],
            steps=self._steps,
        )
        self._time.over.update(zip(wanted, outputs, strict=True))
        self._repeating |= {v for v, k in zip(wanted, kept, strict=True) if k is Kept.PREVIOUS}
        self._finals.update(zip(planned.part.positions, finals, strict=True))

    def _reachable(self, states: Sequence[Any]) -> set[Any]:
        return set(ordered([s.next for s in states]))

    def _kept_of(self, value: Value) -> Kept | None:
        for stacked, kept in zip(self._scan.stacked, self._plan.kept, strict=True):
            if stacked == value:
                return kept
        return None

    def _time_dependent(self, value: Value) -> bool:
        sources = list(self._time.over)
        if self._scan.counter is not None:
            sources.append(self._scan.counter)
        return value.node in depending([value], sources) or value in self._time.over

    def _widths(self, values: Sequence[Value]) -> dict[Value, int]:
        """Last axes of what is concatenated in the step, told by running it on nothing."""
        tf = tensorflow()
        pieces = [v for node in ordered(values) if node.op == "ConcatV2" for v in node.inputs[:-1]]
        if not pieces:
            return {}
        states = {s.leaf: self._initials[i] for i, s in enumerate(self._scan.states)}
        slices = {v: (t.dtype, t.shape[1:]) for v, t in self._time.over.items()}
        whole = {v: (t.dtype, t.shape) for v, t in {**self._time.fixed, **states}.items()}
        with tf.Graph().as_default():
            fed = {v: tf.compat.v1.placeholder(*form) for v, form in {**whole, **slices}.items()}
            made = run_step(pieces, fed, self._scan.counter, tf.constant(0))
        return {
            v: int(t.shape[-1])
            for v, t in zip(pieces, made, strict=True)
            if t.shape.rank and t.shape[-1] is not None
        }


def run_step(
    values: Sequence[Value], given: dict[Value, Any], counter: Value | None, t: Any
) -> list[Any]:
    """Values of one step from tensors of what it reads; `t` is the step's number."""
    known = dict(given)
    if counter is not None:
        known.setdefault(counter, tensorflow().cast(t, counter.node.attrs.get("dtype", "int32")))
    for node in _missing(values, known):
        for port, result in enumerate(call(node, [known[v] for v in node.inputs])):
            known.setdefault(node[port], result)
    return [known[value] for value in values]


def _frontier(
    values: Sequence[Value], inside: set[Any], leaves: Sequence[Value], core: set[Any]
) -> list[Value]:
    """The values of a part that others read first, going up from `values`."""
    found: list[Value] = []
    seen: set[Value] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.node in inside and (value.node in core or value in leaves):
            found.append(value)
        else:
            waiting += value.inputs
    return found


def _missing(values: Sequence[Value], known: Mapping[Value, Any]) -> list[Node]:
    """The nodes that give what is not known, inputs first; of a node some outputs may be known."""
    needed: set[Node] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in known and value.node not in needed:
            needed.add(value.node)
            waiting += value.inputs
    return [node for node in ordered(values) if node in needed]


def _is_read(scan: Any, leaf: Value, *known: Value, besides: Sequence[int] = ()) -> bool:
    """Whether anything but the states in `besides` reads a leaf, other than through `known`."""
    values = [*scan.stacked, *(s.next for i, s in enumerate(scan.states) if i not in besides)]
    values = [v for v in values if v not in known]
    return leaf in values or leaf.node in ordered(values, stop=known)


def _matrix(state: Any) -> Any:
    """A state [B, ...] as [B, U]."""
    if len(state.shape) == 2:
        return state
    tf = tensorflow()
    size = state.shape[1:].num_elements()
    flat = tf.reshape(state, [-1, size])
    flat.set_shape([state.shape[0], size])
    return flat


def _batch_major(x: Any, spec: LstmSpec) -> tuple[Any, LstmSpec]:
    if spec.layout is Layout.BATCH_MAJOR:
        return x, spec
    return _swap(x), dataclasses.replace(spec, layout=Layout.BATCH_MAJOR)


def write_whole(
    scan: Scan, sources: dict[Value, Any], initials: Sequence[Any], steps: Any | None
) -> list[Any]:
    """A scan as one loop of its step as it is: what always works."""
    leaves = [s.leaf for s in scan.states]
    sequences = [s.leaf for s in scan.sequences]
    fixed = {c.leaf: sources[c.leaf] for c in scan.captured}
    results = [*scan.stacked, *(s.next for s in scan.states)]
    count = len(scan.stacked)

    def step(slices: list[Any], now: Sequence[Any], t: Any) -> tuple[list[Any], list[Any]]:
        given = {**fixed, **dict(zip(sequences, slices, strict=True))}
        given.update(zip(leaves, now, strict=True))
        values = run_step(results, given, scan.counter, t)
        return values[:count], values[count:]

    _, outputs, finals = emit_steps(
        [sources[leaf] for leaf in sequences],
        list(initials),
        step,
        mask=None,
        zero_masked=[False] * count,
        steps=steps,
    )
    return outputs + finals


def _swap(x: Any) -> Any:
    """[B, T, ...] to [T, B, ...] and back; undoes itself."""
    inner = _transposed_from(x)
    if inner is not None:
        return inner
    tf = tensorflow()
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def _transposed_from(x: Any) -> Any | None:
    """y where x is y with its first two axes swapped."""
    tf = tensorflow()
    op = getattr(x, "op", None)
    if op is None or op.type != "Transpose":
        return None
    order = tf.get_static_value(op.inputs[1])
    if order is None or list(order) != [1, 0, *range(2, len(order))]:
        return None
    return op.inputs[0]
