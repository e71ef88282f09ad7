"""What becomes of a scan: which of its parts are fused, and why the others are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgelstm.converters.recurrence.ir import Value, argument, rewritten, topological
from edgelstm.converters.recurrence.masking import Kept, Mask, unmask
from edgelstm.converters.recurrence.match import Matched, NoLstm, match_lstm
from edgelstm.converters.recurrence.parts import Part, parts, split_concatenated
from edgelstm.converters.recurrence.scan import Scan
from edgelstm.converters.recurrence.shared import shared


@dataclasses.dataclass(frozen=True)
class PlannedPart:
    """A part of a scan.

    Attributes:
        matched: the LSTM that it is; None for a loop, or for a state that recurs on nothing.
        reason: why it is what it is.
        units: width of its first state, as far as it is known.
    """

    part: Part
    name: str
    matched: Matched | None
    reason: str
    units: int = 0


@dataclasses.dataclass
class Plan:
    """A scan in parts.

    Attributes:
        scan: the plain step, masks taken off and concatenated states apart.
        mask: when a step is valid; None when always.
        kept: per stacked value, what a masked step gives.
        parts: each after those that it depends on.
        finals: for every state of the scan as it was, positions in `scan.states` whose final
            values side by side are its own.
        widths: of the states that were cut out of others, by position in `scan.states`.
    """

    scan: Scan
    mask: Mask | None
    kept: list[Kept | None]
    parts: list[PlannedPart]
    finals: list[list[int]]
    widths: dict[int, int]


def plan(scan: Scan, shapes: Mapping[Value, tuple[int, ...]]) -> Plan:
    """Plan a scan; it is not changed.

    Args:
        shapes: of each leaf of the step, the batch first; 0 stands for a size that may vary. The
            counter's is empty.
    """
    scan = dataclasses.replace(
        scan,
        states=[dataclasses.replace(s) for s in scan.states],
        stacked=list(scan.stacked),
    )
    results = shared(scan.results())
    for state, value in zip(scan.states, results, strict=False):
        state.next = value
    scan.stacked = results[len(scan.states) :]
    unmasked = unmask(scan, shapes)
    shapes = dict(shapes)
    finals, apart = _split(scan, shapes)
    groups = parts(scan)
    planned = [
        _plan_part(scan, group, shapes, unmasked.problem, name)
        for group, name in zip(groups, _names(scan.name, groups), strict=True)
    ]
    return Plan(scan, unmasked.mask, unmasked.kept, planned, finals, apart)


def _split(
    scan: Scan, shapes: dict[Value, tuple[int, ...]]
) -> tuple[list[list[int]], dict[int, int]]:
    """Cut concatenated states apart, those within others too; shapes are brought up to date.

    Returns:
        `Plan.finals` and `Plan.widths`.
    """
    finals = [[position] for position in range(len(scan.states))]
    apart: dict[int, int] = {}
    while True:
        before = [state.leaf for state in scan.states]
        widths = {leaf: shapes[leaf][-1] for leaf in before if len(shapes.get(leaf, ())) == 2}
        cuts = {cut.position: cut.widths for cut in split_concatenated(scan, widths)}
        if not cuts:
            return finals, apart
        moved: list[list[int]] = []
        sizes: dict[int, int] = {}
        place = 0
        for position, leaf in enumerate(before):
            pieces = cuts.get(position, ())
            count = max(1, len(pieces))
            moved.append(list(range(place, place + count)))
            for new, size in zip(moved[-1], pieces, strict=False):
                shapes[scan.states[new].leaf] = (shapes[leaf][0], size)
                sizes[new] = size
            if not pieces and position in apart:
                sizes[place] = apart[position]
            place += count
        finals = [[new for old in places for new in moved[old]] for places in finals]
        apart = sizes


def _names(name: str, groups: list[Part]) -> list[str]:
    """A name per part; the recurrences are numbered where there are several."""
    several = sum(group.recurrent for group in groups) > 1
    names, number = [], 0
    for group in groups:
        names.append(f"{name}/{number}" if several and group.recurrent else name)
        number += group.recurrent
    return names


def _plan_part(
    scan: Scan,
    part: Part,
    shapes: Mapping[Value, tuple[int, ...]],
    problem: str | None,
    name: str,
) -> PlannedPart:
    if not part.recurrent:
        return PlannedPart(part, name, None, "")
    states = [scan.states[i] for i in part.positions]
    try:
        if problem is not None:
            raise NoLstm(problem)
        matched = match_lstm(name, states, shapes)
        _check_readers(scan, part, matched)
    except NoLstm as reason:
        units = next(iter(shapes.get(states[0].leaf, ())[-1:]), 0)
        return PlannedPart(part, name, None, str(reason), units)
    return PlannedPart(part, name, matched, "every gate as the fused op has it")


def _check_readers(scan: Scan, part: Part, matched: Matched) -> None:
    """Raise where something reads what the fused op does not give."""
    others = [s.next for i, s in enumerate(scan.states) if i not in part.positions]
    outside = [*scan.stacked, *others]
    hidden = argument("h")
    replaced = rewritten(outside, {matched.hidden: hidden})
    if _read(matched.c.leaf, replaced):
        raise NoLstm("its cell state, or a gate, is read at every step")


def _read(leaf: Value, values: list[Value]) -> bool:
    return leaf.node in topological(values)
