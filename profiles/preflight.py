"""What is known before a run: which operators each delegate may take, and known quirks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgelstm.errors import UnreadableModelError
from edgelstm.profiles import op_names
from edgelstm.profiles.quirks import Quirk
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.runtime.model_file import read_model_file

LSTM_OPS = frozenset(
    {
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "RNN",
    }
)

NEVER_TAKEN: dict[str, frozenset[str]] = {
    # delegates/xnnpack names no LSTM. It does take parts of loops' bodies.
    # CompiledModel takes no variable tensors, so none of the sequence ops with their states.
    "gpu": LSTM_OPS | {"WHILE", "IF", "CALL_ONCE", "ASSIGN_VARIABLE", "READ_VARIABLE"},
    "xnnpack": LSTM_OPS | {"WHILE", "IF", "CALL_ONCE"},
    "nnapi": frozenset(
        {
            "WHILE",
            "IF",
            "CALL_ONCE",
            "ASSIGN_VARIABLE",
            "READ_VARIABLE",
            "VAR_HANDLE",
            "BIDIRECTIONAL_SEQUENCE_RNN",
            "CUSTOM",
        }
    ),
}
"""Delegate -> ops that no version of it takes."""

ONLY_TAKEN: dict[str, frozenset[str]] = {
    "edgelstm": frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"}),
}
"""Delegate -> the only ops it can take; it may still leave some of them."""


CONDITIONS: dict[str, dict[str, str]] = {
    # delegates/nnapi's Validate in TensorFlow 2.x. It lets int8 sequences pass, whose operator in
    # NNAPI is float's.
    "nnapi": {
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "in float32, on Android 10 or newer, not dynamic or int8",
        "BIDIRECTIONAL_SEQUENCE_LSTM": "in float32, on Android 10 or newer, not dynamic or int8",
        "LSTM": "FULL in float32, or with int8 weights on Android 11; BASIC in uint8 alone",
        "FILL": "on Android 11 or newer, of constant sizes",
    },
}
"""Delegate -> ops that it takes under a condition that the file alone does not decide."""

WHOLE_GRAPH = frozenset({"gpu"})
"""Delegates that take the whole graph or fail."""


@dataclasses.dataclass(frozen=True)
class Preflight:
    """One delegate beside the model's operators.

    Attributes:
        may_take, never_takes: operators by name. A delegate may still leave some that it may take.
        conditions: of operators that it may take, in words.
        quirks: known ones that this device, interpreter and delegate meet.
    """

    delegate: str
    may_take: tuple[str, ...]
    never_takes: tuple[str, ...]
    quirks: tuple[Quirk, ...] = ()
    conditions: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people; nothing about the plain cpu."""
        found = []
        if self.delegate != "cpu" and (self.may_take or self.never_takes):
            found.append(f"{self.delegate} {self._outlook()}")
        found += [f"{self.delegate} takes {each}" for each in self.conditions]
        return found + [f"{self.delegate}: known quirk: {each.text}" for each in self.quirks]

    def _outlook(self) -> str:
        if not self.may_take:
            return "takes none of this model's operators"
        if not self.never_takes:
            return "may take all of this model's operators"
        if len(self.never_takes) >= len(self.may_take):
            return f"may take {_listed(self.may_take)} and nothing else here"
        but = f"may take all but {_listed(self.never_takes)}"
        if self.delegate not in WHOLE_GRAPH:
            return but
        return f"{but}, and takes the whole graph or fails: convert with --target {self.delegate}"


def may_take(delegate: str, ops: Iterable[str]) -> tuple[str, ...]:
    """The ops, by name and without repetition, that a delegate could take; all of them of one
    that the tables do not know."""
    names = sorted(set(ops))
    if delegate == "cpu":
        return ()
    if delegate in ONLY_TAKEN:
        return tuple(name for name in names if name in ONLY_TAKEN[delegate])
    return tuple(name for name in names if name not in NEVER_TAKEN.get(delegate, frozenset()))


def preflight(
    model: Path, settings: ProfileSettings, quirks: Sequence[Quirk] = ()
) -> tuple[Preflight, ...]:
    """One entry per delegate, in the settings' order.

    Args:
        model: one that is damaged has no operators here; refusing it is the interpreter's.
        quirks: those that the device and its interpreter meet.
    """
    names = _operators(model)
    found = []
    for delegate in settings.delegates:
        may = may_take(delegate, names)
        never = tuple(name for name in names if name not in may)
        own = tuple(each for each in quirks if delegate in each.delegates)
        table = CONDITIONS.get(delegate, {})
        conditions = tuple(f"{name} {table[name]}" for name in may if name in table)
        found.append(Preflight(delegate, may, never, own, conditions))
    return tuple(found)


def _operators(model: Path) -> list[str]:
    try:
        return sorted({op_names.name_of(code) for code in read_model_file(model).builtin_ops})
    except UnreadableModelError:
        return []


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
