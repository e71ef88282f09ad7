"""Conditions of selections as one truth per row, whatever repeats it along the width.

Sources write `tf.tile(mask[:, None], [1, units])`, `tf.broadcast_to`, `tf.repeat` and others. The
structure says which value may be repeated; trying says whether it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.spec import Array

# What repeats the truths of its first operand, moves them or turns them round.
_REPEATS = {
    "BroadcastTo", "Cast", "ExpandDims", "LogicalNot", "Reshape", "Squeeze", "StridedSlice", "Tile",
    "Transpose",
}  # fmt: skip
_COMPARISONS = {"Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"}
_NUMBERS = {"Cast"} | _COMPARISONS  # may read numbers and give truths
_OPEN_ROWS = (3, 5, 6, 7)  # several numbers of rows, none of them a usual width
_TRIES = 4


@dataclasses.dataclass(frozen=True)
class RowTruth:
    """What a condition is in every column: `value`, bool [B], or its opposite."""

    value: Value
    turned: bool


def row_truths(
    conditions: Iterable[Value], shapes: Mapping[Value, tuple[int, ...]], rows: int
) -> dict[Value, RowTruth]:
    """The conditions that are one truth per row repeated; others are left out.

    Args:
        shapes: of each leaf of the step, the batch first; 0 stands for a size that may vary.
        rows: the batch; 0 where it may vary.
    """
    random = np.random.default_rng(0)
    trials = [
        truths
        for count in ([rows] if rows else _OPEN_ROWS)
        for truths in (*(random.random((_TRIES, count)) < 0.5), np.ones(count, bool))
    ]
    found = {}
    for condition in conditions:
        for value in _repeated(condition):
            turned = _tried(condition, value, trials, shapes)
            if turned is not None:
                found[condition] = RowTruth(value, turned)
                break
    return found


def differs_in_rows(
    conditions: Iterable[Value], shapes: Mapping[Value, tuple[int, ...]], rows: int
) -> bool:
    """Whether some condition was seen to be true in one column of a row and not in another.

    Args:
        shapes: as of `row_truths`.
        rows: as of `row_truths`.
    """
    random, count = np.random.default_rng(0), rows or _OPEN_ROWS[0]
    for condition in conditions:
        leaves = _leaves(condition, shapes)
        for _ in range(_TRIES):
            feeds = {
                leaf: random.integers(0, 3, [size or count for size in shapes[leaf]]).astype(kind)
                for leaf, kind in leaves.items()
            }
            with contextlib.suppress(Exception):  # random numbers may be no valid input
                (found,) = evaluate([condition], feeds)
                if found.ndim > 1 and np.any(found != found[:, :1]):
                    return True
    return False


def _leaves(
    value: Value, shapes: Mapping[Value, Any], stop: Sequence[Value] = ()
) -> dict[Value, Any]:
    """The leaves that a value reads, and their types."""
    nodes = set(ordered([value], stop=stop))
    return {v: v.node.attrs.get("dtype", "float32") for v in shapes if v.node in nodes}


def _repeated(condition: Value) -> list[Value]:
    """What a condition may repeat, the farthest first."""
    found: list[Value] = []
    value, number = _below(condition.node), condition.op in _NUMBERS
    while value is not None:
        if not number or _is_truth(value):
            found.insert(0, value)
        number = number or value.op in _NUMBERS
        value = _below(value.node)
    return found


def _is_truth(value: Value) -> bool:
    """Whether a value that numbers are made of is surely bool."""
    if value.op in _COMPARISONS or value.op.startswith("Logical"):
        return True
    return "bool" in (value.node.attrs.get("DstT"), value.node.attrs.get("dtype"))


def _below(node: Node) -> Value | None:
    if node.op in _REPEATS:
        return node.inputs[0]
    if node.op == "Pack" and len(set(node.inputs)) == 1:
        return node.inputs[0]
    if node.op in _COMPARISONS:
        rest = [value for value in node.inputs if value.constant is None]
        return rest[0] if len(rest) == 1 else None
    if node.op == "LogicalAnd":
        rest = [value for value in node.inputs if not _is_true(value)]
        return rest[0] if len(rest) == 1 else None
    return None


def _is_true(value: Value) -> bool:
    """Whether a value is true everywhere, whatever its size."""
    if value.constant is not None:
        return bool(np.all(value.constant))
    if value.op == "Fill":
        return _is_true(value.inputs[1])
    return value.op == "OnesLike"


def _tried(
    condition: Value,
    value: Value,
    trials: Sequence[Array],
    shapes: Mapping[Value, tuple[int, ...]],
) -> bool | None:
    """Whether a condition is the opposite of a value [B] in every row; None if neither."""
    agree: set[bool] = set()
    for truths in trials:
        rows = _rows(condition, value, truths, shapes)
        if rows is None:
            return None
        agree |= set((rows == truths).tolist())
    return None if len(agree) != 1 else not agree.pop()


def _rows(
    condition: Value, value: Value, truths: Array, shapes: Mapping[Value, tuple[int, ...]]
) -> Array | None:
    """The condition of every row; None where its columns differ, or it does not run."""
    count = len(truths)
    feeds: dict[Value, Any] = {
        leaf: np.zeros([size or count for size in shapes[leaf]], kind)
        for leaf, kind in _leaves(condition, shapes, [value]).items()
    }
    try:
        (found,) = evaluate([condition], {**feeds, value: truths})
    except Exception:  # the value is no vector, or has another size
        return None
    if found.ndim == 0 or len(found) != count:
        return None
    flat = found.reshape(count, -1)
    return flat[:, 0] if flat.shape[1] and np.all(flat == flat[:, :1]) else None
