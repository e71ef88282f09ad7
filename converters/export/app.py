"""One frame of a model with everything a wrapper has to know of it, told once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.merge import extract
from edgelstm.converters.forms import STEP, STREAM_ENTRY, stream_entry
from edgelstm.converters.inspect import METADATA, read_file, read_metadata
from edgelstm.converters.spec import Array
from edgelstm.converters.verify.compare import Scale
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Delegate, Normalisation, Stream, TensorInfo
from edgelstm.runtime.metadata import metadata_entry
from edgelstm.runtime.normalisation import Constants, read_constants

GOLDEN_FRAMES = 32
# Of the golden test, as a fraction of an output's range: another runtime's own kernels.
GOLDEN_TOLERANCE = 1e-5
# With 8-bit weights a rounding in another runtime moves whole quantization steps.
GOLDEN_TOLERANCE_DYNAMIC = 5e-2


@dataclasses.dataclass(frozen=True)
class AppTensor:
    """An input, output or state of one frame.

    Attributes:
        name: as the model has it.
        symbol: the same as a name in a program, unique among its like.
        input, output: of a state, the names under which it goes in and out; else its own name.
        constants: mean and standard deviation, where the file tells them.
    """

    name: str
    symbol: str
    shape: tuple[int, ...]
    dtype: str
    input: str
    output: str
    constants: Constants | None = None

    @property
    def count(self) -> int:
        """Numbers in one frame."""
        return int(np.prod(self.shape, dtype=np.int64))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        told = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        paired = {} if self.input == self.output else {"input": self.input, "output": self.output}
        constants = {} if self.constants is None else self.constants.to_json()
        return told | paired | constants


@dataclasses.dataclass(frozen=True)
class Golden:
    """Frames of noise with what Python says of them.

    Attributes:
        inputs, outputs: by name, one frame after another along a new first axis; in natural units
            where the model tells constants.
        ranges: of each output, what its error is measured against.
        tolerance: largest error, as a fraction of the range.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    ranges: Mapping[str, float]
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object: {"frames": [{"inputs": {name: [...]}, "outputs": {...}}], ...}."""

        def at(arrays: Mapping[str, Array], frame: int) -> dict[str, list[Any]]:
            return {name: array[frame].reshape(-1).tolist() for name, array in arrays.items()}

        frames = len(next(iter(self.outputs.values())))
        return {
            "tolerance": self.tolerance,
            "ranges": dict(self.ranges),
            "frames": [
                {"inputs": at(self.inputs, t), "outputs": at(self.outputs, t)}
                for t in range(frames)
            ],
        }


@dataclasses.dataclass(frozen=True)
class AppModel:
    """A model file that runs one frame with its states as inputs and outputs.

    Attributes:
        content: the file.
        signature: the signature to run.
        variables: whether it holds variable tensors, which some runtimes refuse.
    """

    name: str
    content: bytes
    signature: str
    inputs: tuple[AppTensor, ...]
    outputs: tuple[AppTensor, ...]
    states: tuple[AppTensor, ...]
    variables: bool
    golden: Golden

    @property
    def scaled_inputs(self) -> tuple[AppTensor, ...]:
        """Those with constants."""
        return tuple(tensor for tensor in self.inputs if tensor.constants is not None)

    @property
    def scaled_outputs(self) -> tuple[AppTensor, ...]:
        """Those with constants."""
        return tuple(tensor for tensor in self.outputs if tensor.constants is not None)

    @property
    def snake(self) -> str:
        """The name in lower case with underscores."""
        return symbol(self.name).lower()

    @property
    def pascal(self) -> str:
        """The name as a type's."""
        made = "".join(part.capitalize() for part in self.snake.split("_") if part)
        return made if made[:1].isalpha() else f"Model{made}"


def read_app_model(path: Path, name: str | None = None) -> AppModel:
    """The step form of a written file, on its own.

    Args:
        name: of the wrapper; None takes the file's.

    Raises:
        UnreadableModelError: the file is missing, damaged, or no TFLite file.
        UnsupportedModelError: it has no form of one frame with named states.
    """
    model = Model.read(read_file(path), where=str(path))
    told = read_metadata(model) or {}
    signature = STEP if STEP in [each.key for each in model.signatures] else "serving_default"
    contract = {**told, **told.get("signatures", {}).get(signature, {})}
    if not contract.get("states"):
        raise UnsupportedModelError(
            "The file has no form of one frame whose states are named inputs and outputs.",
            where=str(path),
            cure="edgelstm convert SOURCE -o OUT.tflite --streaming (or --step-only)",
        )
    extract(model, signature)
    contract.pop("signatures", None)
    model.set_metadata(METADATA, metadata_entry(contract))
    entry = stream_entry(contract["states"], contract.get("time_axes"))
    model.set_metadata(STREAM_ENTRY, entry)
    content = model.to_bytes()
    # As other runtimes have it: without our kernels.
    constants = read_constants(contract, str(path))
    normalisation = Normalisation.APPLY if constants else Normalisation.LEAVE
    stream = Stream(content, delegate=Delegate.CPU, normalisation=normalisation)
    if stream.info()["frames_per_call"] != 1:
        raise UnsupportedModelError(
            "The file takes any number of frames per call, a wrapper takes one.",
            where=str(path),
            cure="edgelstm convert SOURCE -o OUT.tflite --streaming (or --step-only)",
        )
    pairs = {state["name"]: state for state in contract["states"]}
    taken: set[str] = set()
    tolerance = GOLDEN_TOLERANCE_DYNAMIC if told.get("precision") == "dynamic" else GOLDEN_TOLERANCE
    return AppModel(
        name=name or path.stem,
        content=content,
        signature=signature,
        inputs=tuple(_tensor(info, taken, constants) for info in stream.inputs),
        outputs=tuple(_tensor(info, taken, constants) for info in stream.outputs),
        states=tuple(_tensor(info, taken, {}, pairs[info.name]) for info in stream.states),
        variables=any(tensor.is_variable for tensor in model.main.tensors),
        golden=_golden(stream, constants, tolerance),
    )


def symbol(name: str) -> str:
    """A name made of letters, digits and underscores that does not begin with a digit."""
    plain = re.sub(r"[^0-9a-zA-Z]+", "_", name).strip("_") or "value"
    return f"_{plain}" if plain[0].isdigit() else plain


def pascal(tensor: AppTensor) -> str:
    """A tensor's name as the end of a function's."""
    return "".join(part.capitalize() for part in tensor.symbol.split("_") if part)


def _tensor(
    info: TensorInfo,
    taken: set[str],
    constants: Mapping[str, Constants],
    pair: Mapping[str, str] | None = None,
) -> AppTensor:
    made, number = symbol(info.name).lower(), 1
    while made in taken or made in _RESERVED:
        made, number = f"{symbol(info.name).lower()}_{number}", number + 1
    taken.add(made)
    given = pair or {"input": info.name, "output": info.name}
    shape = tuple(int(size or 1) for size in info.shape)
    names = given["input"], given["output"]
    return AppTensor(info.name, made, shape, info.dtype, *names, constants.get(info.name))


def _golden(stream: Stream, constants: Mapping[str, Constants], tolerance: float) -> Golden:
    try:
        inputs, found = _frames(stream, constants, _noise)
    except UnsupportedModelError:
        # An embedding reads a float input: noise is no index, 0 and 1 are.
        stream.reset()
        inputs, found = _frames(stream, constants, _bits)
    outputs = {name: np.stack([each[name] for each in found]) for name in found[0]}
    ranges = {name: Scale.of([array]).range for name, array in outputs.items()}
    return Golden(inputs, outputs, ranges, tolerance)


Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 2, shape)


def _frames(
    stream: Stream, constants: Mapping[str, Constants], draw: Draw
) -> tuple[dict[str, Array], list[dict[str, Array]]]:
    """Inputs of all golden frames, and what each frame gives; `draw` makes those of floats."""
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for info in stream.inputs:
        shape = (GOLDEN_FRAMES, *[size or 1 for size in info.shape])
        dtype = np.dtype(info.dtype)
        inputs[info.name] = (draw if dtype.kind == "f" else _bits)(rng, shape).astype(dtype)
        own = constants.get(info.name)
        if own is not None:
            inputs[info.name] = inputs[info.name] * own.std + own.mean
    found = [stream.push({n: a[t] for n, a in inputs.items()}) for t in range(GOLDEN_FRAMES)]
    return inputs, [dict(each) for each in found]


def of_dtypes(model: AppModel, types: Mapping[str, str], language: str) -> None:
    """Raises UnsupportedModelError where a tensor has a type that a wrapper does not carry."""
    tensors: Sequence[AppTensor] = (*model.inputs, *model.outputs, *model.states)
    for tensor in tensors:
        if tensor.dtype not in types:
            raise UnsupportedModelError(
                f"The {language} wrapper carries no {tensor.dtype}.",
                where=f"{tensor.name!r}",
                cure="its types are " + ", ".join(types),
            )


# Words that at least one of the languages keeps for itself, or that wrappers use.
_RESERVED = frozenset(
    "as auto break case catch char class const continue default deinit do double else enum extern "
    "false final float for func fun goto if in init int interface internal is let long new null "
    "object open operator package private public register return self short signed sizeof static "
    "struct super switch this throw true try type typeof union unsigned val var void volatile when "
    "where while stream outputs inputs state states error path options frame".split()
)
