"""Which delegates there are, and how each is given to an interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from edgelstm.errors import OptionError
from edgelstm.profiles import device_library
from edgelstm.profiles.devices import Device
from edgelstm.profiles.measurement import Configuration
from edgelstm.profiles.settings import DELEGATES, OpPolicy, ProfileSettings, Runner
from edgelstm.profiles.targets import DeviceFacts, Target


@dataclasses.dataclass(frozen=True)
class Placement:
    """How a configuration is given to the interpreter on the device.

    Attributes:
        kind: what the agent calls the delegate.
        libraries: paths on the device of external delegates. options: theirs.
        processors: the only ones to run on; () for all.
        clock: path on the device of our library, for the time per operator; None where there is
            none for its processor, and then `clock_missing` says why.
    """

    kind: str
    libraries: tuple[str, ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processors: tuple[int, ...] = ()
    clock: str | None = None
    clock_missing: str | None = None


_BEYOND = {
    (Runner.AGENT, "nnapi"): (
        "Python's interpreters have no NNAPI",
        "measure with --runner native --tflite-library PATH, or give the path of an external "
        "delegate",
    ),
    (Runner.NATIVE, "gpu"): (
        "LiteRT's accelerator is reached by Python alone",
        "leave --runner native out, or give the path of a GPU delegate's library",
    ),
}
"""Runner and delegate -> why they do not go together, and what to do."""


def check(settings: ProfileSettings, device: Device) -> None:
    """Refuses delegates that nothing knows, before the device is reached.

    Raises:
        OptionError: a name is neither ours nor the device profile's, nor a path.
    """
    for name in settings.delegates:
        if name in DELEGATES or name in device.delegates or "/" in name:
            continue
        raise OptionError(
            f"there is no delegate '{name}'",
            where="--delegate",
            cure=f"use {', '.join((*DELEGATES, *device.delegates))}, or the path of a library "
            "that was built for the device",
        )


def check_runner(settings: ProfileSettings) -> None:
    """Refuses delegates that the agent, or the native runner, does not reach.

    Raises:
        OptionError: with the way to it.
    """
    for name in settings.delegates:
        if (settings.runner, name) in _BEYOND:
            what, cure = _BEYOND[settings.runner, name]
            raise OptionError(what, where=f"--delegate {name}", cure=cure)


def require(device: Device, settings: ProfileSettings, facts: DeviceFacts) -> None:
    """Builds what must be built for the device, before anything is installed there.

    Raises:
        OptionError, MissingPackageError: as `device_library.library_for`.
    """
    if "edgelstm" in settings.delegates:
        device_library.library_for(device, facts)


def place(
    configuration: Configuration,
    target: Target,
    device: Device,
    facts: DeviceFacts,
    settings: ProfileSettings,
) -> Placement:
    """Brings what the configuration needs to the device.

    Raises:
        OptionError: the cores or the delegate are not known there.
        MissingPackageError: our library has not been built, and cannot be for the device.
    """
    processors = _processors(configuration, device)
    name = configuration.delegate
    clock, reason = _clock(target, device, facts, settings)
    if name in ("cpu", "xnnpack", "gpu"):
        return Placement(name, processors=processors, clock=clock, clock_missing=reason)
    if name == "nnapi":
        given = dict(settings.delegate_options)
        return Placement(
            name, options=given, processors=processors, clock=clock, clock_missing=reason
        )
    if name == "edgelstm":
        library = device_library.library_for(device, facts)
        options = {"claim": "required"}
    else:
        library = Path(device.delegates.get(name, name)).expanduser()
        options = dict(settings.delegate_options)
        if not library.is_file():
            raise OptionError(
                f"there is no delegate library {str(library)!r}",
                where="--delegate",
                cure="give the path of a library here that was built for the device",
            )
    kind = "edgelstm" if name == "edgelstm" else "external"
    return Placement(kind, (target.push(library.resolve()),), options, processors, clock, reason)


def _clock(
    target: Target, device: Device, facts: DeviceFacts, settings: ProfileSettings
) -> tuple[str | None, str | None]:
    """Our library on the device, for its clocks; or None and why there is none."""
    if settings.ops is OpPolicy.SKIP:
        return None, None
    library, reason = device_library.library_or_reason(device, facts)
    return None if library is None else target.push(library.resolve()), reason


def _processors(configuration: Configuration, device: Device) -> tuple[int, ...]:
    cores = configuration.cores
    if cores is None:
        return ()
    if cores in device.cores:
        return tuple(device.cores[cores])
    try:
        return tuple(int(part) for part in cores.split("+"))
    except ValueError:
        known = ", ".join(device.cores) or "none in its profile"
        raise OptionError(
            f"the device has no cores '{cores}'",
            where="--cores",
            cure=f"use a name of its profile ({known}) or processors like 0+1",
        ) from None
