"""What verification runs a file in, by its precision and target."""

from __future__ import annotations

from pathlib import Path

from edgelstm.converters.options import Target
from edgelstm.converters.quantize.emulate import wide_sessions
from edgelstm.converters.spec import Precision
from edgelstm.converters.targets import compiled, micro
from edgelstm.converters.verify.runner import PLAIN_LABEL, Runner, open_runners
from edgelstm.errors import MissingPackageError


def runners_for(
    model: bytes | Path, precision: Precision, target: Target
) -> tuple[list[Runner] | None, list[str]]:
    """The runners, None for the interpreter alone, and notes on those that are not installed.

    A 16x8 file runs in no interpreter without delegate, a file for a target runs there besides.
    One for TensorFlow Lite Micro is not run with delegates, which may reorder it.

    Raises:
        UnsupportedModelError: the target's runtime refuses the file.
    """
    content = model if isinstance(model, bytes) else model.read_bytes()
    runners: list[Runner] | None = None
    if precision is Precision.INT16 and isinstance(model, bytes):
        runners = [Runner(label, session) for label, session in wide_sessions(content).items()]
    if target is Target.CPU:
        return runners, []
    if runners is None:
        runners = open_runners(content, None)
        if target is Target.TFLM:
            runners = [runner for runner in runners if runner.label.endswith(PLAIN_LABEL)]
    label = micro.LABEL if target is Target.TFLM else compiled.LABEL
    try:
        session = (
            micro.MicroSession(content)
            if target is Target.TFLM
            else compiled.CompiledSession(content)
        )
    except MissingPackageError as missing:
        cure = f": {missing.cure}" if missing.cure else ""
        return runners, [f"The file was not run in {label}. {missing.what.rstrip('.')}{cure}."]
    return [*runners, Runner(label, session)], []


def arena_note(content: bytes, target: Target) -> list[str]:
    """A sentence about the memory that a file for TensorFlow Lite Micro needs; none for others."""
    if target is not Target.TFLM:
        return []
    try:
        arena = micro.arena(content)
    except MissingPackageError:
        return []
    return [
        f"TensorFlow Lite Micro's arena: {arena['total']} bytes ({arena['head']} for tensors of a "
        f"call, {arena['tail']} kept), measured in its interpreter on this machine; where pointers "
        "have four bytes it is smaller."
    ]
