"""Steps that do not count: the selections of a scan's step told as one mask.

TensorFlow's RNN functions write a masked step as selections between what the cell gives and what
was there before. Taken off, the plain step remains, and the mask says when it is valid.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.ir import Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.row_truths import RowTruth, differs_in_rows, row_truths
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.recurrence.scan import Scan
from edgelstm.converters.recurrence.views import is_zero

_SELECTS = ("Select", "SelectV2")


class Kept(enum.Enum):
    """What a masked step's output is."""

    ZERO = "zero"
    PREVIOUS = "previous"


@dataclasses.dataclass(frozen=True)
class Formula:
    """A truth value from conditions of the graph: `condition ? on : off`, or a constant."""

    condition: Value | None
    on: Formula | bool
    off: Formula | bool

    def conditions(self) -> set[Value]:
        """Every condition in it."""
        found = set() if self.condition is None else {self.condition}
        for side in (self.on, self.off):
            if isinstance(side, Formula):
                found |= side.conditions()
        return found


@dataclasses.dataclass
class Mask:
    """When a step of a scan is valid.

    Attributes:
        valid: over conditions that the step computes from the counter and from captured values.
        lengths: a captured leaf, int [B]: the step is valid while the counter is below it. None
            where the mask is another one.
    """

    valid: Formula
    lengths: Value | None = None


@dataclasses.dataclass
class Unmasked:
    """A scan whose selections were taken off, in place.

    Attributes:
        mask: None where there were none.
        kept: for each stacked value what a masked step gives there; None without mask.
        problem: why the selections could not be taken off; the scan is then untouched.
    """

    mask: Mask | None = None
    kept: list[Kept | None] = dataclasses.field(default_factory=list)
    problem: str | None = None


def unmask(scan: Scan, shapes: Mapping[Value, tuple[int, ...]]) -> Unmasked:
    """Take the selections off a scan's step.

    Args:
        shapes: of each leaf of the step, the batch first; 0 stands for a size that may vary.
    """
    selections = [n for n in ordered(scan.results()) if n.op in _SELECTS]
    batch = next((shapes[s.leaf][0] for s in scan.states if shapes.get(s.leaf)), 0)
    rows = row_truths(dict.fromkeys(n.inputs[0] for n in selections), shapes, batch)
    holders = {state.leaf: state for state in scan.states}
    zeros = {c.leaf for c in scan.captured if is_zero(c.source)}
    # A state that no step reads is an output of the last step, masked as outputs are.
    read = {v for n in ordered(scan.results()) for v in n.inputs} | set(scan.stacked)
    unread = [state for state in scan.states if state.leaf not in read]
    peeled: list[tuple[Value, Formula | bool]] = []
    for state in scan.states:
        if state in unread:
            peeled.append((state.next, True))
            continue
        new, formula = _peel(state.next, rows, functools.partial(operator.eq, state.leaf))
        if new is None:
            return Unmasked(kept=[None] * len(scan.stacked))
        peeled.append((new, formula))
    formulas = {f for _, f in peeled if f is not True}
    kept: list[Kept | None] = []
    stacked: list[Value] = []
    for value in scan.stacked:
        same = next((s for s in scan.states if s.next == value and s not in unread), None)
        if same is not None and value.op in _SELECTS:
            # The output is the new state itself: a masked step repeats it.
            stacked.append(peeled[scan.states.index(same)][0])
            kept.append(Kept.PREVIOUS)
            continue
        new, formula = _peel(value, rows, lambda v: v in zeros or is_zero(v))
        how: Kept | None = Kept.ZERO
        if new is None or formula is True:
            new, formula = _peel(value, rows, lambda v: v in holders)
            how = Kept.PREVIOUS
        if new is None or formula is True or formula not in (formulas or {formula}):
            new, formula, how = value, True, None
        stacked.append(new)
        kept.append(how)
        if formula is not True:
            formulas.add(formula)
    if not formulas:
        return Unmasked(kept=[None] * len(scan.stacked))
    if len(formulas) > 1:
        return Unmasked(
            kept=[None] * len(scan.stacked), problem="its states are masked in different ways"
        )
    (formula,) = formulas
    assert isinstance(formula, Formula)
    moving = {s.leaf.node for s in scan.states}
    if any(n in moving for c in formula.conditions() for n in ordered([c])):
        return Unmasked(kept=[None] * len(scan.stacked), problem="its mask depends on its state")
    if differs_in_rows(formula.conditions(), shapes, batch):
        return Unmasked(
            kept=[None] * len(scan.stacked), problem="its mask differs from unit to unit"
        )
    if any(f is True for s, (_, f) in zip(scan.states, peeled, strict=True) if s not in unread):
        return Unmasked(
            kept=[None] * len(scan.stacked), problem="only some of its states are masked"
        )
    for state, (new, _) in zip(scan.states, peeled, strict=True):
        state.next = new
        state.complete = state in unread
    scan.stacked = stacked
    mask = Mask(formula, _lengths(scan, formula))
    return Unmasked(mask, kept)


def _peel(
    value: Value, rows: Mapping[Value, RowTruth], old: Callable[[Value], bool]
) -> tuple[Value | None, Formula | bool]:
    """(what a valid step gives, when it is valid); `old` tells what a masked step gives."""
    if old(value):
        return None, False
    if value.op not in _SELECTS:
        return value, True
    condition, on, off = value.inputs
    new_on, valid_on = _peel(on, rows, old)
    new_off, valid_off = _peel(off, rows, old)
    if new_on is not None and new_off is not None and new_on != new_off:
        return value, True  # a choice between two results: part of the step
    new = new_off if new_on is None else new_on
    if new is None:
        return None, False
    if valid_on is True and valid_off is True:
        return value, True
    truth = rows.get(condition, RowTruth(condition, turned=False))
    if truth.turned:
        valid_on, valid_off = valid_off, valid_on
    return new, Formula(truth.value, valid_on, valid_off)


def _lengths(scan: Scan, formula: Formula) -> Value | None:
    """The captured leaf that holds the lengths, found by trying.

    Lengths may come in several captures (themselves, their maximum, their minimum), which are
    all computed from the one whose values are tried.
    """
    if scan.counter is None:
        return None
    needed = [c for c in scan.captured if _reads(formula, c.leaf)]
    for candidate in needed:
        others = [c for c in needed if c is not candidate]
        if all(_agrees(scan, formula, candidate, others, np.asarray(n)) for n in _TRIALS):
            return candidate.leaf
    return None


_TRIALS = ([1, 3, 2, 5], [4, 4, 4, 4], [5, 1, 5, 2], [2, 1, 1, 1])


def _agrees(scan: Scan, formula: Formula, candidate: Any, others: list[Any], n: Any) -> bool:
    assert scan.counter is not None
    for dtype in (np.int32, np.int64):
        try:
            lengths = n.astype(dtype)
            feeds: dict[Value, Any] = {candidate.leaf: lengths}
            if others:
                given = evaluate([o.source for o in others], {candidate.source: lengths})
                feeds |= {o.leaf: v for o, v in zip(others, given, strict=True)}
            for step in range(6):
                feeds[scan.counter] = np.asarray(step, np.int32)
                if not np.array_equal(_truth(formula, feeds, len(n)), step < lengths):
                    return False
        except Exception:  # another type, or a leaf that is no lengths: not this one
            continue
        return True
    return False


def _truth(formula: Formula | bool, feeds: dict[Value, Any], rows: int) -> Any:
    if isinstance(formula, bool):
        return np.full(rows, formula)
    assert formula.condition is not None
    condition = evaluate([formula.condition], feeds)[0].reshape(-1)
    on, off = (_truth(side, feeds, rows) for side in (formula.on, formula.off))
    return np.where(condition, on, off)


def _reads(formula: Formula, leaf: Value) -> bool:
    return any(leaf.node in ordered([c]) for c in formula.conditions())
