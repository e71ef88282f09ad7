"""`--normalisation FILE`: the mean and standard deviation that data had before training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import read_file, read_metadata
from edgelstm.converters.sources.source import (
    FinishedSource,
    NormalisesInside,
    OpenedSource,
)
from edgelstm.converters.spec import TensorSpec
from edgelstm.errors import DataError, OptionError
from edgelstm.runtime.normalisation import ENTRY, Constants, read_constants

OPTION = "--normalisation"
_KINDS = ("mean", "std")
_CURE = "write NAME/mean and NAME/std for each input or output that was normalised"


def read_normalisation(path: Path) -> dict[str, Constants]:
    """Constants by input or output name, from an .npz file or a JSON object.

    Both hold NAME/mean and NAME/std: one number, or one for each feature of the last axis.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    where = str(path)
    given = _json(path) if path.suffix == ".json" else _arrays(path)
    parts: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        name, slash, kind = key.rpartition("/")
        if not slash or not name or kind not in _KINDS:
            raise DataError(f"{key!r} is no NAME/mean and no NAME/std.", where=where, cure=_CURE)
        parts.setdefault(name, {})[kind] = value
    if not parts:
        raise DataError("The file holds no constants.", where=where, cure=_CURE)
    found = {}
    for name, pair in parts.items():
        missing = next((kind for kind in _KINDS if kind not in pair), None)
        if missing is not None:
            raise DataError(f"{name}/{missing} is missing.", where=where, cure=_CURE)
        try:
            found[name] = Constants.of(pair["mean"], pair["std"])
        except ValueError as error:
            raise DataError(
                f"Of {name!r}, {error}.",
                where=where,
                cure="give finite means and standard deviations above 0, one number or one per feature",
            ) from None
    return found


def of_source(
    source: OpenedSource, path: Path, given: Mapping[str, Constants]
) -> Mapping[str, Constants]:
    """The constants for a source's file: those given, else those that a .tflite file tells.

    Raises:
        DataError, OptionError: as `check`.
    """
    if not given and isinstance(source, FinishedSource):
        return read_constants(read_metadata(Model.read(read_file(path))), str(path))
    inside = source.normalising_layers if isinstance(source, NormalisesInside) else {}
    check(given, (*source.inputs, *source.outputs), inside)
    return given


def check(
    constants: Mapping[str, Constants], tensors: Sequence[TensorSpec], inside: Mapping[str, str]
) -> None:
    """Checks that each of them is that of an input or output.

    Args:
        tensors: the inputs and outputs.
        inside: of inputs that the model normalises itself, the layer that does.

    Raises:
        DataError: a name is unknown, or a vector does not fit the tensor's last axis.
        OptionError: it holds integers, or is normalised in the model already.
    """
    specs = {spec.name: spec for spec in tensors}
    for name, own in constants.items():
        spec = specs.get(name)
        if spec is None:
            raise DataError(
                f"The model has no input or output called {name!r}.",
                where=OPTION,
                cure=f"use the names that it has: {', '.join(specs)}",
            )
        if spec.dtype != "float32":
            raise OptionError(
                f"{name!r} holds {spec.dtype}, a mean and a standard deviation make real numbers.",
                where=OPTION,
                cure="leave it out of the file",
            )
        misfit = own.misfit(spec.shape)
        if misfit is not None:
            raise DataError(
                f"Of {name!r}, whose last axis has the size {_size(spec)}, {misfit}.",
                where=OPTION,
                cure="give one number, or one for each feature",
            )
        if name in inside:
            raise OptionError(
                f"The model normalises {name!r} itself, in its layer {inside[name]!r}: an app "
                "would do it a second time.",
                where=OPTION,
                cure="leave it out of the file; the layer is converted with the model",
            )


def refuse_states(constants: Mapping[str, Constants], states: Sequence[Mapping[str, str]]) -> None:
    """Raises OptionError where some of them are those of a state."""
    for state in states:
        for name in (state["input"], state["output"]):
            if name in constants:
                raise OptionError(
                    f"{name!r} is a state, which the model itself reads and writes.",
                    where=OPTION,
                    cure="leave it out of the file",
                )


def to_metadata(constants: Mapping[str, Constants]) -> dict[str, Any]:
    """The entry of the metadata: {NAME: {"mean": [...], "std": [...]}}; empty without any."""
    told = {name: own.to_json() for name, own in constants.items()}
    return {ENTRY: told} if told else {}


def _size(spec: TensorSpec) -> str:
    last = spec.shape[-1] if spec.shape else 1
    return "any" if last is None else str(last)


def _arrays(path: Path) -> Mapping[str, Any]:
    from edgelstm.npz import arrays

    return arrays(path)


def _json(path: Path) -> Mapping[str, Any]:
    where = str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("There is no such file.", where=where, cure="check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"The file cannot be read as JSON: {reason}.",
            where=where,
            cure="write it as JSON in UTF-8",
        ) from None
    if not isinstance(content, dict):
        raise DataError("The file holds no JSON object.", where=where, cure=_CURE)
    return content
