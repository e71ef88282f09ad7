"""A lowered model in the form that a target takes."""

from __future__ import annotations

import dataclasses

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.slices import flatten_lookups, keep_axes, widen_tables
from edgelstm.converters.lowering.unrolled import write_unrolled
from edgelstm.converters.options import Target
from edgelstm.converters.sources.source import Finished
from edgelstm.converters.spec import Lowering, Recurrence
from edgelstm.converters.targets.micro import check_micro, write_micro
from edgelstm.converters.targets.tables import GPU_FLOAT_OPS, GPU_OPS
from edgelstm.errors import UnsupportedModelError

PLAIN = (Target.COMPILED, Target.GPU)
"""Targets whose recurrences are written in plain operators."""


def write_for(target: Target, finished: Finished) -> Finished:
    """The model for a target, edited in place, and its recurrences as they stand in it then.

    Raises:
        UnsupportedModelError: the target does not take it.
    """
    if target is Target.TFLM:
        write_micro(finished.model)
        check_micro(finished.model)
    if target not in PLAIN:
        return finished
    write_plain(target, finished.model)
    recurrences = tuple(_unrolled(r, target) for r in finished.recurrences)
    return dataclasses.replace(finished, recurrences=recurrences)


def write_plain(target: Target, model: Model) -> None:
    """Puts a lowered model into plain operators without variables, and checks it.

    Raises:
        UnsupportedModelError: something of it has no such form.
    """
    write_unrolled(model)
    keep_axes(model)
    flatten_lookups(model)
    if target is Target.GPU:
        widen_tables(model)
    model.prune()
    check_plain(target, model)


def check_plain(target: Target, model: Model) -> None:
    """Raises where CompiledModel, or its GPU accelerator, does not take the model.

    Raises:
        UnsupportedModelError: so it is; the operator is named.
    """
    where = f"--target {target.value}"
    variable = next((t for s in model.subgraphs for t in s.tensors if t.is_variable), None)
    if variable is not None:
        raise UnsupportedModelError(
            f"CompiledModel takes no variable tensors, and the model keeps '{variable.name}'.",
            where=where,
            cure="use --state explicit, or convert the model that the file was made from",
        )
    if target is not Target.GPU:
        return
    for op in model.main.ops:
        name, newest = op.custom_code or op.name, GPU_OPS.get(op.name, 0)
        version = ""
        if name in GPU_FLOAT_OPS and op.output(0).dtype != "float32":
            version = " of integers"
        elif name == "GATHER" and len(_shape(op, 1)) > 1:
            version = " with rows of indices"
        elif newest is None or op.version <= newest:
            continue
        elif newest:
            version = f" in version {op.version}"
        raise UnsupportedModelError(
            f"The GPU accelerator does not take {name}{version}, which computes "
            f"'{op.output(0).name}'.",
            where=where,
            cure="use --target compiled, which runs on the CPU what the GPU does not take",
        )


def _shape(op: Op, position: int) -> tuple[int, ...]:
    tensor = op.input(position)
    return () if tensor is None else tensor.shape


def _unrolled(recurrence: Recurrence, target: Target) -> Recurrence:
    steps = "its steps one after another in plain operators"
    if recurrence.lowering is Lowering.STEP:
        return recurrence
    return dataclasses.replace(
        recurrence,
        lowering=Lowering.UNROLLED,
        spec=None,
        reason=f"{steps}, for --target {target.value}",
    )
