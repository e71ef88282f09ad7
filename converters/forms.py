"""`--streaming`: one file with a whole-sequence, a chunk and a step form of one model.

Each form is converted from the source on its own, so that every size is settled by the stock
converter; equal constants are stored once when the file is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.merge import append
from edgelstm.converters.lowering.own_states import own_states
from edgelstm.converters.lowering.step import write_steps
from edgelstm.converters.marked import refuse_foreign_ops, write_recurrences
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.converters.sources.source import FinishedSource
from edgelstm.converters.spec import StatePolicy, StreamingForms
from edgelstm.converters.states import caller_states, time_axes, with_own
from edgelstm.converters.targets.write import PLAIN, write_plain
from edgelstm.converters.verify.streaming import Run
from edgelstm.errors import OptionError, UnsupportedModelError

CHUNK, STEP = "chunk", "step"
# What `stream_entry` writes, for the C runtime.
STREAM_ENTRY = "edgelstm.stream"


_CURE = "save it with the number of time steps left open (None)"
_GRAPH = (
    "build the graph again with dynamic_rnn in place of static_rnn and the number of steps of its "
    "placeholder left open, restore the weights and freeze it; or leave --streaming out"
)
# Steps that a graph has unrolled, or that its placeholder counts, cannot be opened afterwards.
_CURES = {
    SourceKind.GRAPHDEF: _GRAPH,
    SourceKind.GRAPHDEF_TEXT: _GRAPH,
    SourceKind.META_GRAPH: _GRAPH,
    SourceKind.CHECKPOINT: _GRAPH,
    SourceKind.ONNX: "export it with the number of time steps as a dynamic axis, or leave "
    "--streaming out",
}


def settled(options: ConvertOptions) -> ConvertOptions:
    """The options of a file's own signature, `serving_default`, when it is to be streamed.

    Raises:
        OptionError: they contradict streaming.
    """
    if options.streaming is None:
        return options
    if options.quantization.calibrated:
        raise OptionError(
            f"Forms for streaming are not written in {options.precision.value}.",
            where="--streaming",
            cure="use float32, float16 or dynamic, or leave --streaming out",
        )
    if options.batch is Size.DYNAMIC:
        raise OptionError(
            "A stream's states have a fixed number of rows; --batch dynamic has none.",
            where="--streaming",
            cure="give the number of rows, or leave --batch out for one",
        )
    batch = Size.ONE if options.batch is Size.SOURCE else options.batch
    if options.streaming.forms is StreamingForms.STEP:
        if options.state not in (None, StatePolicy.EXPLICIT) or options.time not in (
            Size.SOURCE,
            1,
        ):
            raise OptionError(
                "A file of a single step takes its states from outside, one frame at a time.",
                where="--step-only",
                cure="leave --state and --time out",
            )
        return dataclasses.replace(options, batch=batch, state=StatePolicy.EXPLICIT, time=1)
    return dataclasses.replace(options, batch=batch, state=options.state or StatePolicy.RESET)


def sequence_run(source: Path, options: ConvertOptions) -> Run | None:
    """Runs whole sequences in the source, for files that hold single steps only; else None."""
    if options.streaming is None or options.streaming.forms is not StreamingForms.STEP:
        return None
    whole = dataclasses.replace(options, state=StatePolicy.RESET, time=Size.SOURCE)
    return open_source(source, whole).reference(StatePolicy.RESET).run


def add_forms(
    model: Model,
    source: Path,
    options: ConvertOptions,
    axes: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """Adds the forms of `options.streaming` to a lowered, quantized model.

    Args:
        model: of the file's own signature, from `settled` options; edited in place.
        axes: time axes of that signature's inputs and outputs. Of a single frame a graph does
            not tell them, since rows and frames are one alike.

    Returns:
        By signature, what the metadata say of it: `state_policy`, `states`, `time_axes`.

    Raises:
        UnsupportedModelError: the source has no recurrence, or fixes its time.
    """
    assert options.streaming is not None
    (own,) = model.signatures
    if options.streaming.forms is StreamingForms.STEP:
        write_steps(model, options.streaming.step)
        (own,) = model.signatures
        model.set_signature(STEP, inputs=own.inputs, outputs=own.outputs)
        return {}
    forms = {}
    explicit = dataclasses.replace(options, state=StatePolicy.EXPLICIT)
    if options.state is StatePolicy.EXPLICIT:
        model.set_signature(CHUNK, inputs=own.inputs, outputs=own.outputs)
    else:
        chunk, forms[CHUNK] = _converted(source, explicit)
        append(model, chunk, CHUNK)
    # Without a time axis every call is one frame.
    one = dataclasses.replace(explicit, time=1) if axes["inputs"] else explicit
    step, forms[STEP] = _converted(source, one)
    told = forms[STEP]["time_axes"]
    told["outputs"] = {**told["outputs"], **axes["outputs"]}
    write_steps(step, options.streaming.step)
    append(model, step, STEP)
    return forms


def stream_entry(
    states: Sequence[Mapping[str, str]], axes: Mapping[str, Mapping[str, int]] | None
) -> bytes | None:
    """States and time axes of `serving_default` as text, for readers without JSON.

    Lines `state NAME INPUT OUTPUT`, `input NAME AXIS` and `output NAME AXIS`, separated by tabs.
    None where there are no states, or a name holds what separates.
    """
    lines: list[tuple[str, ...]] = [
        ("state", each["name"], each["input"], each["output"]) for each in states
    ]
    for side, named in (axes or {}).items():
        lines += [(side.removesuffix("s"), name, str(axis)) for name, axis in named.items()]
    if not states or any(set("\t\n\0") & set(part) for line in lines for part in line):
        return None
    return "\n".join("\t".join(line) for line in lines).encode()


def _fixed_steps(path: Path, options: ConvertOptions) -> tuple[str, int] | None:
    """An input that a source fixes the steps of, and how many; None where it fixes none."""
    plain = dataclasses.replace(options, state=None, time=Size.SOURCE, streaming=None)
    source = open_source(path, plain)
    for spec in source.inputs:
        axis = source.time_axes.get(spec.name)
        size = None if axis is None else spec.shape[axis]
        if size not in (None, 1):
            return spec.name, int(size)
    return None


def _converted(path: Path, options: ConvertOptions) -> tuple[Model, dict[str, Any]]:
    """One form of the source, and what the metadata say of it."""
    try:
        source = open_source(path, options)
    except OptionError as error:
        fixed = _fixed_steps(path, options)
        reason = (
            error.what if fixed is None else f"it takes {fixed[1]} steps of {fixed[0]!r} a call."
        )
        raise UnsupportedModelError(
            f"The model cannot be run one frame at a time: {reason}",
            where=str(path),
            cure=_CURES.get(sniff(path), _CURE),
        ) from None
    if isinstance(source, FinishedSource):
        raise UnsupportedModelError(
            "A finished .tflite file is converted as it stands: it has one form.",
            where=str(path),
            cure="convert the model that it was made from, or leave --streaming out",
        )
    model = write_recurrences(source.marked())
    states = with_own(caller_states(source), own_states(model))
    if not states:
        raise UnsupportedModelError(
            "The model has no recurrence whose state could go on from frame to frame.",
            where=str(path),
            cure="leave --streaming out",
        )
    refuse_foreign_ops(model)
    quantize_fused(model, options.quantization, options.rows)
    if options.target in PLAIN:
        write_plain(options.target, model)
    return model, {
        "state_policy": StatePolicy.EXPLICIT.value,
        "states": states,
        "time_axes": time_axes(source),
    }
