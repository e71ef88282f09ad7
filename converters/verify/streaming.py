"""Whether a file says the same frame by frame, in chunks, and as one sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.converters.verify.compare import Scale, difference
from edgelstm.converters.verify.tolerance import Tolerance
from edgelstm.errors import DataError, VerificationFailed
from edgelstm.runtime import OpenedModel, Session, Stream
from edgelstm.runtime.frames import told_axes
from edgelstm.runtime.model_file import Signature

FRAMES = 200
_CHUNKS = (7, 64)
_FORMS = ("chunk", "step")
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
_INTEGERS = 2  # of inputs whose vocabulary is not known: [0, 2)


@dataclasses.dataclass(frozen=True)
class WayResult:
    """One output, computed in one way, against the whole sequence.

    Attributes:
        way: e.g. "step, one frame at a time".
        relative_error: largest error as a fraction of the output's range.
        first_diverging_step: the first frame beyond the tolerance; None where there is none, or
            the output has no time axis and only the last frame can be compared.
    """

    way: str
    output: str
    relative_error: float
    passed: bool
    first_diverging_step: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class StreamingProof:
    """A file's forms, compared with each other on one sequence.

    Attributes:
        frames: length of the sequence.
        tolerance: as a fraction of an output's range.
    """

    frames: int
    tolerance: float
    results: tuple[WayResult, ...]

    @property
    def passed(self) -> bool:
        """Whether all ways agree."""
        return all(result.passed for result in self.results)

    @property
    def worst_error(self) -> float:
        """Of all ways, as a fraction of an output's range."""
        return max((result.relative_error for result in self.results), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "frames": self.frames,
            "tolerance": self.tolerance,
            "passed": self.passed,
            "worst_error": self.worst_error,
            "ways": [result.to_json() for result in self.results],
        }

    def sentence(self) -> str:
        """One line for a report."""
        ways = list(dict.fromkeys(result.way for result in self.results))
        return (
            f"Streaming: {'; '.join(ways)} equal the whole sequence of {self.frames} frames "
            f"within {self.worst_error:.1e} of the range."
        )

    def raise_if_failed(self, where: str) -> None:
        """Raises VerificationFailed for the output and way that part from the sequence first."""
        failed = [result for result in self.results if not result.passed]
        if not failed:
            return

        def place(result: WayResult) -> float:
            step = result.first_diverging_step
            return float("inf") if step is None else step

        first = min(failed, key=place)
        step = first.first_diverging_step
        at = "after the last frame" if step is None else f"from frame {step} on"
        raise VerificationFailed(
            f"The file is not the same frame by frame: output {first.output!r} of {first.way} "
            f"differs from the whole sequence {at}, by up to {first.relative_error:.1e} of its "
            "range.",
            where=where,
            cure="a layer looks at frames around its own (Bidirectional, go_backwards, Conv1D, "
            "pooling, attention): such a model cannot be streamed as it is",
        )


def prove(
    model: bytes | Path,
    inputs: Sequence[TensorSpec],
    tolerance: Tolerance,
    *,
    data: Mapping[str, Array] | None = None,
    frames: int = FRAMES,
    seed: int = 0,
    source: Run | None = None,
) -> StreamingProof:
    """Runs one sequence whole, in chunks and frame by frame, through every form in the file.

    Args:
        inputs: of the source; integers are drawn within their range.
        data: the user's samples by input name; the first rows are taken, whole.
        frames: length of the random sequence, where the file leaves it open.
        source: runs whole sequences, where the file holds single steps only.

    Raises:
        UnsupportedModelError: the file carries no state in any form.
        DataError: `data` do not fit.
    """
    opened = OpenedModel.open(model)
    streams = dict(_streams(opened))
    first = next(iter(streams.values()))
    specs = {spec.name: spec for spec in inputs}
    if not first.time_axes:
        return _prove_calls(streams, specs, tolerance, data, frames, seed)
    sequence = _sequence(first, specs, data, frames, seed)
    length = _length(first, sequence)
    steps_only = first.info()["frames_per_call"] == 1
    whole = source(sequence) if source and steps_only else _whole(opened, first, sequence)
    axes = _output_axes(opened, first)
    results = compared(whole, axes, _ways(streams, sequence, length), tolerance)
    return StreamingProof(length, tolerance.largest, results)


def _prove_calls(
    streams: Mapping[str, Stream],
    specs: Mapping[str, TensorSpec],
    tolerance: Tolerance,
    data: Mapping[str, Array] | None,
    frames: int,
    seed: int,
) -> StreamingProof:
    """The same where every call is one frame: the forms, call by call, against the first form."""
    first, *others = streams.items()
    rng = np.random.default_rng(seed)
    calls = {}
    for info in first[1].inputs:
        shape = (frames, *(size or 1 for size in info.shape))
        if data is None:
            calls[info.name] = random_array(rng, shape, info.dtype, specs.get(info.name))
        else:
            calls[info.name] = _given(data, info.name).reshape(-1, *shape[1:])

    def run(stream: Stream) -> dict[str, Array]:
        stream.reset()
        return stream.push_each(calls)

    whole = run(first[1])
    ways = ((f"{name}, call by call", run(stream)) for name, stream in others or [first])
    length = len(next(iter(calls.values())))
    return StreamingProof(
        length, tolerance.largest, compared(whole, dict.fromkeys(whole, 0), ways, tolerance)
    )


def compared(
    whole: Mapping[str, Array],
    axes: Mapping[str, int],
    ways: Iterable[tuple[str, Mapping[str, Array]]],
    tolerance: Tolerance,
) -> tuple[WayResult, ...]:
    """Every output of every way against the whole sequence.

    Args:
        axes: time axis of the outputs that have one.
        ways: name and outputs of each.
    """
    ranges = {name: Scale.of([array]).range for name, array in whole.items()}
    results = []
    for way, outputs in ways:
        for name, array in outputs.items():
            expected, axis = whole[name], axes.get(name)
            if axis is None and expected.shape != array.shape and expected.ndim == array.ndim + 1:
                expected = np.take(expected, -1, 1)  # a form that says the last frame only
            if expected.shape != array.shape:
                results.append(WayResult(way, name, float("inf"), False, 0))
                continue
            found = difference(expected, array, batch_axis=None, time_axis=axis)
            limit = tolerance.largest * ranges[name]
            failed = not found.max_error <= limit
            step = None
            if failed and found.step_errors is not None:
                step = int(np.argmax(~(found.step_errors <= limit)))
            error = found.max_error / ranges[name]
            results.append(WayResult(way, name, error, not failed, step))
    return tuple(results)


def _streams(opened: OpenedModel) -> Iterator[tuple[str, Stream]]:
    forms = {each.name: each for each in opened.file.signatures if each.name in _FORMS}
    own = opened.running(None).signature
    if (opened.carries or not forms) and (
        own is None or own.subgraph not in _graphs(forms.values())
    ):
        yield (own.name if own is not None else "the file"), Stream(opened)
    for name in forms:
        yield name, Stream(opened, signature=name)


def _graphs(signatures: Iterable[Signature]) -> set[int]:
    return {signature.subgraph for signature in signatures}


def _sequence(
    stream: Stream,
    specs: Mapping[str, TensorSpec],
    data: Mapping[str, Array] | None,
    frames: int,
    seed: int,
) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    fixed = stream.info()["frames_per_call"]
    length = frames if fixed is None else -(-frames // fixed) * fixed
    arrays = {}
    for info in stream.inputs:
        axis = stream.time_axes.get(info.name)
        shape = [size or 1 for size in info.shape]
        if data is not None:
            given = _given(data, info.name)
            arrays[info.name] = _rows_of(given, shape, axis, fixed, info.name)
            continue
        if axis is not None:
            shape[axis] = length
        arrays[info.name] = random_array(rng, shape, info.dtype, specs.get(info.name))
    return arrays


def random_array(
    rng: np.random.Generator, shape: Sequence[int], dtype: str, spec: TensorSpec | None
) -> Array:
    """Normal noise, or integers within what `spec` allows; an embedding's may be floats."""
    if np.dtype(dtype).kind == "f" and (spec is None or spec.high is None):
        return rng.standard_normal(shape).astype(dtype)
    low = (spec.low if spec else None) or 0
    high = (spec.high if spec else None) or low + _INTEGERS
    return rng.integers(low, high, shape).astype(dtype)


def _given(data: Mapping[str, Array], name: str) -> Array:
    if name not in data:
        raise DataError(
            f"The data hold no input {name!r}.",
            where="--data",
            cure="name the arrays of the .npz as the inputs of the model, or leave --data out",
        )
    return np.asarray(data[name])


def _rows_of(
    array: Array, shape: Sequence[int], axis: int | None, fixed: int | None, name: str
) -> Array:
    batch = 1 if axis == 0 else 0
    rows = shape[batch] if len(shape) > batch else 1
    if array.ndim != len(shape) or array.shape[batch] < rows:
        raise DataError(
            f"The data of input {name!r} are {list(array.shape)}, a stream takes {list(shape)}.",
            where="--data",
            cure="give the array that shape, or leave --data out",
        )
    array = array.take(range(rows), axis=batch)
    if axis is not None and fixed is not None:
        array = array.take(range(array.shape[axis] // fixed * fixed), axis=axis)
    return np.ascontiguousarray(array)


def _length(stream: Stream, sequence: Mapping[str, Array]) -> int:
    for name, axis in stream.time_axes.items():
        return int(sequence[name].shape[axis])
    return 1


def _whole(
    opened: OpenedModel, stream: Stream, sequence: Mapping[str, Array]
) -> Mapping[str, Array]:
    """The file's own signature on all frames at once; a stream where that carries states."""
    own = opened.running(None)
    if not own.carries:
        session = Session(own)
        fixed = [i.shape[a] for i in session.inputs for n, a in _axes(own).items() if n == i.name]
        if all(size is None or size == _length(stream, sequence) for size in fixed):
            # States that the model has itself start at zero, as those of the stream do.
            zeros = {
                i.name: np.zeros([size or 1 for size in i.shape], i.dtype) for i in session.inputs
            }
            return session.run(zeros | dict(sequence))
    stream.reset()
    return stream.push(sequence)


def _axes(opened: OpenedModel) -> Mapping[str, int]:
    told = told_axes(opened.contract, opened.where)
    return {} if told is None else told[0]


def _output_axes(opened: OpenedModel, stream: Stream) -> Mapping[str, int]:
    told = told_axes(opened.running(None).contract, opened.where)
    return stream.output_time_axes if told is None else told[1]


def _ways(
    streams: Mapping[str, Stream], sequence: Mapping[str, Array], length: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    for name, stream in streams.items():
        per_call = stream.info()["frames_per_call"]
        for size in (1,) if name == "step" else (1, *_CHUNKS):
            chunk = size if per_call is None else -(-size // per_call) * per_call
            if chunk >= length > 1:
                continue
            told = "1 frame" if chunk == 1 else f"{chunk} frames"
            yield f"{name}, {told} at a time", _cut(stream, sequence, length, chunk)


def _cut(
    stream: Stream, sequence: Mapping[str, Array], length: int, chunk: int
) -> dict[str, Array]:
    stream.reset()
    axes, made = stream.time_axes, stream.output_time_axes
    found: list[dict[str, Array]] = []
    for start in range(0, length, chunk):
        found.append(
            stream.push(
                {
                    name: array.take(range(start, min(start + chunk, length)), axis=axes[name])
                    if name in axes
                    else array
                    for name, array in sequence.items()
                }
            )
        )
    return {
        name: np.concatenate([each[name] for each in found], axis=made[name])
        if name in made
        else array
        for name, array in found[-1].items()
    }
