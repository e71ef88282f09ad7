"""The user's own samples, checked against the model and cut into cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from edgelstm.converters.spec import Array, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.cases import Case
from edgelstm.errors import DataError

CHUNK = 32  # samples per call where the batch size is open


def data_cases(
    data: Mapping[str, Array],
    axes: ModelAxes,
    optional_names: Collection[str] = (),
    policy: StatePolicy = StatePolicy.RESET,
) -> tuple[Case, ...]:
    """One case per chunk of samples; one case of all where they are frames of a recording.

    Args:
        data: arrays by input name, one sample per index of the input's batch axis (the leading
            one, unless the input is time-major).
        optional_names: explicit states; ignored, since each chunk starts from zero states.

    Raises:
        DataError: names, shapes, dtypes or values do not fit the model.
    """
    arrays = checked_data(data, axes, optional_names)
    count = next(
        (arrays[i.spec.name].shape[i.batch] for i in axes.inputs if i.batch is not None), 1
    )
    batch = CHUNK if axes.batch_varies else axes.batch or 1
    if holds_frames(axes, policy) and count > 1:
        calls = tuple(
            {
                i.spec.name: arrays[i.spec.name]
                if i.batch is None
                else np.take(arrays[i.spec.name], [frame], axis=i.batch)
                for i in axes.inputs
            }
            for frame in range(count)
        )
        name = f"your data, frames 0 to {count - 1}"
        return (Case(name, batch, None, calls, ordinary=False, given=True),)
    cases = []
    for start in range(0, count, batch):
        rows = np.arange(start, min(start + batch, count))
        last = int(rows[-1])
        if not axes.batch_varies:
            # A fixed batch is filled up by starting over, so that no sample is left out.
            rows = np.arange(start, start + batch) % count
        call = {
            i.spec.name: (
                arrays[i.spec.name]
                if i.batch is None
                else np.take(arrays[i.spec.name], rows, axis=i.batch)
            )
            for i in axes.inputs
        }
        steps = (call[i.spec.name].shape[i.time] for i in axes.inputs if i.time is not None)
        time = next(steps, None)
        name = f"your data, samples {start} to {last}"
        cases.append(Case(name, len(rows), time, (call,), ordinary=False, given=True))
    return tuple(cases)


def holds_frames(axes: ModelAxes, policy: StatePolicy) -> bool:
    """Whether rows of data are consecutive frames: the model is one step of one row, with states."""
    kept = policy is not StatePolicy.RESET
    return kept and not axes.batch_varies and axes.batch == 1 and not axes.has_time


def checked_data(
    data: Mapping[str, Array], axes: ModelAxes, optional_names: Collection[str] = ()
) -> dict[str, Array]:
    """The arrays in the inputs' dtypes.

    Raises:
        DataError: as `data_cases`.
    """
    names = [i.spec.name for i in axes.inputs]
    for name in data:
        if name in axes.states and name not in optional_names:
            raise DataError(
                f"the data hold an array '{name}', which is a state: calibration starts each "
                "sequence from zero and feeds the states on itself",
                where=f"'{name}'",
                cure=f"leave '{name}' out, so that the data hold {', '.join(names)} alone; for "
                "states that come with use, give one recording with --stream",
            )
        if name not in names and name not in optional_names:
            raise DataError(
                f"the data hold an array '{name}', but the model has no such input",
                where=f"'{name}'",
                cure=f"name the arrays after the inputs: {', '.join(names)}",
            )
    arrays = {}
    counts = {}
    for inputs in axes.inputs:
        name = inputs.spec.name
        if name not in data:
            raise DataError(
                f"the data hold no array for input '{name}'",
                where=f"arrays there: {', '.join(data) or 'none'}",
                cure=f"add an array '{name}' of shape {_shape(inputs)}",
            )
        arrays[name] = _checked(np.asarray(data[name]), inputs)
        if inputs.batch is not None:
            counts[name] = arrays[name].shape[inputs.batch]
    _check_lengths(arrays, axes)
    if len(set(counts.values())) > 1:
        raise DataError(
            "the arrays hold different numbers of samples",
            where=", ".join(f"'{name}': {count}" for name, count in counts.items()),
            cure="give every input the same number of samples",
        )
    return arrays


def _check_lengths(arrays: Mapping[str, Array], axes: ModelAxes) -> None:
    """Rows must not be longer than the sequences are."""
    steps = [arrays[i.spec.name].shape[i.time] for i in axes.inputs if i.time is not None]
    for inputs in axes.inputs:
        name = inputs.spec.name
        if (
            inputs.counts_steps
            and steps
            and not 0 <= arrays[name].min() <= arrays[name].max() <= (min(steps))
        ):
            raise DataError(
                f"lengths reach from {arrays[name].min()} to {arrays[name].max()}, the sequences "
                f"have {min(steps)} steps",
                where=f"data for input '{name}'",
                cure="give each row a length from 0 to the number of steps",
            )


def _checked(array: Array, inputs: InputAxes) -> Array:
    """The array in the input's dtype."""
    spec = inputs.spec
    where = f"data for input '{spec.name}'"
    fits = array.ndim == len(spec.shape) and all(
        axis == inputs.batch or size is None or size == array.shape[axis]
        for axis, size in enumerate(spec.shape)
    )
    if not fits or array.size == 0:
        raise DataError(
            f"the array has shape {list(array.shape)}, the input takes {_shape(inputs)}",
            where=where,
            cure="one sample per index of the batch axis N, at least one, and the sizes as shown",
        )
    dtype = np.dtype(spec.dtype)
    kinds = "fiub" if dtype.kind == "f" else "iub" if dtype.kind in "iu" else dtype.kind
    if array.dtype.kind not in kinds:
        raise DataError(
            f"the array is {array.dtype}, the input takes {spec.dtype}",
            where=where,
            cure=f"save it as {spec.dtype}",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(
            "the array holds NaN or infinity",
            where=f"{where}, first at index {list(first)}",
            cure="fill or drop such samples; a masked step carries the mask value, not NaN",
        )
    if dtype.kind in "iu" or spec.high is not None:
        _check_range(array, spec, where)
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(array, dtype)
    if dtype.kind == "f" and array.dtype.kind == "f" and not np.isfinite(made).all():
        raise DataError(
            f"the array reaches {float(np.abs(array).max()):.3g}, more than {spec.dtype} holds",
            where=where,
            cure="check its unit, or scale it as for training",
        )
    return made


def _check_range(array: Array, spec: TensorSpec, where: str) -> None:
    """Indices must be in the range that the model takes, and integers fit the dtype."""
    dtype = np.dtype(spec.dtype)
    limits = np.iinfo(dtype if dtype.kind in "iu" else np.int64)
    low = int(limits.min) if spec.low is None else spec.low
    high = int(limits.max) + 1 if spec.high is None else spec.high
    if array.min() < low or array.max() >= high:
        raise DataError(
            f"values reach from {array.min()} to {array.max()}, the input takes {low} to "
            f"{high - 1}",
            where=where,
            cure="check the vocabulary that the samples were encoded with",
        )


def _shape(inputs: InputAxes) -> str:
    sizes = [
        "N" if axis == inputs.batch else "any" if size is None else str(size)
        for axis, size in enumerate(inputs.spec.shape)
    ]
    return f"[{', '.join(sizes)}]"
