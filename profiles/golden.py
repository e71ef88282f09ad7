"""The truth that a device's outputs are compared with."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm import npz
from edgelstm.errors import DataError, EdgeLstmError, MissingPackageError
from edgelstm.profiles import devices
from edgelstm.profiles.delegates import Placement
from edgelstm.profiles.devices import Device
from edgelstm.profiles.settings import ProfileSettings, Runner
from edgelstm.profiles.targets import Target
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.runtime import native

IN, OUT = "in:", "out:"
"""Prefixes of the arrays' names in the .npz: inputs, and the outputs that belong to them."""

_CURE = "write them with numpy.savez(path, **{'in:x': inputs, 'out:y': outputs})"
_CPU = Placement("cpu")
_REFERENCE = {"isa": "scalar"}


@dataclasses.dataclass(frozen=True)
class Golden:
    """Inputs and true outputs, on the device.

    Attributes:
        remote: path there of an .npz with `in:NAME` and `out:NAME` arrays.
        source: whose outputs these are, in words.
        shapes: input name -> shape. steps: length of axis 1 of the first input that has one.
    """

    remote: str
    source: str
    shapes: Mapping[str, tuple[int, ...]]
    steps: int | None


def prepare(
    stack: contextlib.ExitStack,
    target: Target,
    device: Device,
    model: Path,
    remote_model: str,
    settings: ProfileSettings,
    ours: Placement | None = None,
) -> Golden:
    """Takes the user's golden data, or makes some: the outputs of the interpreter's own kernels
    on the inputs that are measured, on this machine if it can, else on the device. Where those
    kernels cannot run the model (16-bit activations), the outputs of our delegate's reference
    kernels, which share no code with the fast ones.

    Args:
        stack: holds the file for as long as it may be read.
        ours: our delegate on the device; None where it is not measured.

    Raises:
        DataError: the user's file is no such .npz.
        EdgeLstmError: the model does not run.
    """
    if settings.golden is not None:
        arrays = npz.arrays(settings.golden, _CURE)
        return _push(stack, target, arrays, settings.golden.name, str(settings.golden))
    if device.target != "local" or settings.runner is Runner.NATIVE:
        here = LocalTarget(devices.find("local"), time_limit_s=settings.time_limit_s)
        try:
            content, kernels = _outputs(here, str(model.resolve()), settings, ours and _here())
            arrays = npz.arrays_of(content, "the host's outputs", _CURE)
            return _push(stack, target, arrays, f"{kernels} of the host", "the host's outputs")
        except EdgeLstmError:
            # The host may lack an interpreter, or one that reads this model.
            if settings.runner is Runner.NATIVE:
                raise
    content, kernels = _outputs(target, remote_model, settings, ours)
    arrays = npz.arrays_of(content, "the device's outputs", _CURE)
    return _push(stack, target, arrays, f"{kernels} of the device", "the device's outputs")


def _outputs(
    target: Target, model: str, settings: ProfileSettings, ours: Placement | None
) -> tuple[bytes, str]:
    """An .npz, and which kernels made it."""
    try:
        return _outputs_of(target, model, settings, _CPU), "the cpu"
    except EdgeLstmError:
        if ours is None:
            raise
        reference = dataclasses.replace(ours, options={**ours.options, **_REFERENCE})
        return _outputs_of(target, model, settings, reference), "our delegate's reference kernels"


def _here() -> Placement | None:
    """Our delegate on this machine; None where it was not built."""
    try:
        _, library = native.load()
    except MissingPackageError:
        return None
    return Placement("edgelstm", (str(library.path),), {"claim": "required"})


def _outputs_of(target: Target, model: str, settings: ProfileSettings, by: Placement) -> bytes:
    limit = settings.time_limit_s
    with target.run() as session:
        session.ask(
            "load",
            time_limit_s=limit,
            path=model,
            delegate=by.kind,
            threads=1,
            libraries=list(by.libraries),
            options=dict(by.options),
        )
        session.ask("allocate", time_limit_s=limit, **settings.allocation())
        answer = session.ask("save", time_limit_s=limit)
    try:
        return base64.b64decode(answer["npz"], validate=True)
    except (binascii.Error, ValueError, KeyError) as error:
        raise EdgeLstmError("the agent's outputs cannot be read") from error


def _push(
    stack: contextlib.ExitStack,
    target: Target,
    arrays: Mapping[str, Any],
    source: str,
    where: str,
) -> Golden:
    shapes = {k[len(IN) :]: a.shape for k, a in arrays.items() if k.startswith(IN)}
    if not shapes or not any(key.startswith(OUT) for key in arrays):
        raise DataError(
            "the golden data lack inputs or outputs",
            where=where,
            cure=_CURE,
        )
    steps = next((shape[1] for shape in shapes.values() if len(shape) >= 2), None)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgelstm-"))
    local = Path(folder) / "golden.npz"
    # Written anew, without the compression that a user's may have: the native runner has no zlib.
    np.savez(local, **arrays)
    return Golden(target.push(local), source, shapes, steps)
