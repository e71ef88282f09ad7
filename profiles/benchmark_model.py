"""TFLite's own benchmark tool as a runner: for devices without Python. Its output is parsed.

The tool (tensorflow/lite/tools/benchmark) is the user's, built for the device. It prints averages
and extremes and keeps no samples, so there is no interval, no p99 and no comparison of outputs;
variable tensors (LSTM states) are never reset between its runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelstm.errors import DeviceError, OptionError
from edgelstm.profiles import device_library, native_runner
from edgelstm.profiles.devices import Device
from edgelstm.profiles.measurement import Configuration, ModelFacts
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets import DeviceFacts
from edgelstm.profiles.targets.adb import HOME as ADB_HOME
from edgelstm.profiles.targets.debug_bridge import DebugBridge
from edgelstm.profiles.targets.here import HOME as LOCAL_HOME
from edgelstm.profiles.targets.here import LocalShell
from edgelstm.profiles.targets.openssh import OpenSsh
from edgelstm.profiles.targets.remote import ANSWER_S, RemoteTarget
from edgelstm.profiles.targets.ssh import HOME as SSH_HOME

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1

FLAGS = {"gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}
"""Delegates that the tool itself may bring."""


@dataclasses.dataclass(frozen=True)
class Op:
    """One row of the tool's operator table; times in ms per run."""

    kind: str
    name: str
    average_ms: float
    percent: float


@dataclasses.dataclass(frozen=True)
class ToolFigures:
    """What the tool printed; None for what this build of it does not print.

    Attributes:
        runs, minimum_us, maximum_us, deviation_us, median_us, p95_us: of the measured phase.
        load_mb, overall_mb: memory since the tool's start, its own word: approximate.
        ops: in the order of execution; () without --enable_op_profiling.
    """

    initialise_us: float
    first_us: float
    warmup_us: float
    average_us: float
    runs: int | None
    minimum_us: float | None
    maximum_us: float | None
    deviation_us: float | None
    median_us: float | None
    p95_us: float | None
    load_mb: float | None
    overall_mb: float | None
    peak_mb: float | None
    ops: tuple[Op, ...]


@dataclasses.dataclass(frozen=True)
class ToolReport:
    """The figures of every configuration, and those that failed with their reason."""

    model: ModelFacts
    device: str
    rows: tuple[tuple[Configuration, ToolFigures], ...]
    failures: tuple[tuple[Configuration, str], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "runner": "benchmark_model",
            "model": dataclasses.asdict(self.model),
            "device": self.device,
            "configurations": [
                {**dataclasses.asdict(configuration), **dataclasses.asdict(figures)}
                for configuration, figures in self.rows
            ],
            "failures": [
                {"configuration": configuration.name, "message": message}
                for configuration, message in self.failures
            ],
        }


_NUMBER = r"([0-9.eE+-]+)"
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_PHASE = re.compile(r"\bcount=(\d+)\b(.*)")
_MEMORY = re.compile(rf"Memory footprint delta .*\(MB\): init={_NUMBER} overall={_NUMBER}")
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")


def parse(text: str) -> ToolFigures:
    """The figures in what the tool printed.

    Raises:
        DeviceError: the line with the timings is missing: the tool did not come to its end.
    """
    summary = _SUMMARY.search(text)
    if summary is None:
        raise DeviceError(
            "benchmark_model printed no timings", cure="run it by hand on the device to see why"
        )
    initialise, first, warmup, average = (float(part) for part in summary.groups())
    # The last phase is the measured one; the one before is the warm-up.
    phases = _PHASE.findall(text)
    values: dict[str, float] = {}
    if phases:
        values = {key: float(v) for key, v in re.findall(rf"(\w+)={_NUMBER}", phases[-1][1])}
    memory, peak = _MEMORY.search(text), _PEAK.search(text)
    return ToolFigures(
        initialise_us=initialise,
        first_us=first,
        warmup_us=warmup,
        average_us=average,
        runs=int(phases[-1][0]) if phases else None,
        minimum_us=values.get("min"),
        maximum_us=values.get("max"),
        deviation_us=values.get("std"),
        median_us=values.get("median"),
        p95_us=values.get("p95"),
        load_mb=float(memory[1]) if memory else None,
        overall_mb=float(memory[2]) if memory else None,
        peak_mb=float(peak[1]) if peak else None,
        ops=tuple(_ops(text.splitlines())),
    )


def _ops(lines: Sequence[str]) -> Iterator[Op]:
    """Rows of the last table in the order of execution; its heading names the columns."""
    starts = [n for n, line in enumerate(lines) if "Run Order" in line]
    if not starts:
        return
    heading: list[str] | None = None
    for line in lines[starts[-1] + 1 :]:
        cells = [cell.strip() for cell in line.strip().split("\t")]
        if heading is None:
            if cells[0].endswith("[node type]"):
                heading = [cell.strip("[]") for cell in cells]
            continue
        if len(cells) != len(heading):
            return
        row = dict(zip(heading, cells, strict=True))
        yield Op(
            row["node type"],
            row["Name"].strip("[]"),
            float(row["avg ms"]),
            float(row["%"].rstrip("%")),
        )


def command(
    binary: str,
    model: str,
    configuration: Configuration,
    settings: ProfileSettings,
    library: str | None,
) -> list[str]:
    """The tool's command line on the device."""
    bounds = settings.bounds
    words = [
        binary,
        f"--graph={model}",
        f"--num_threads={configuration.threads}",
        f"--min_secs={bounds.min_seconds:g}",
        f"--max_secs={bounds.max_seconds:g}",
        f"--num_runs={bounds.min_runs}",
        f"--use_xnnpack={'true' if configuration.delegate == 'xnnpack' else 'false'}",
        "--report_peak_memory_footprint=true",
        "--enable_op_profiling=true",
    ]
    if settings.shapes:
        words.append(f"--input_layer={','.join(settings.shapes)}")
        shapes = (",".join(map(str, shape)) for shape in settings.shapes.values())
        words.append(f"--input_layer_shape={':'.join(shapes)}")
    if configuration.delegate in FLAGS:
        words.append(FLAGS[configuration.delegate])
    if library is not None:
        words.append(f"--external_delegate_path={library}")
        options = {"claim": "required"} if configuration.delegate == "edgelstm" else {}
        options |= settings.delegate_options
        if options:
            text = ";".join(f"{key}:{value}" for key, value in options.items())
            words.append(f"--external_delegate_options={text}")
    return words


def measure(
    model: Path,
    facts: ModelFacts,
    device: Device,
    binary: Path,
    configurations: Sequence[Configuration],
    settings: ProfileSettings,
    progress: Callable[[str], None],
) -> ToolReport:
    """Runs the tool once per configuration.

    Raises:
        OptionError: the binary or a delegate's library is missing.
        DeviceError: the device cannot be reached, or every configuration failed.
    """
    if not binary.is_file():
        raise OptionError(
            f"there is no such binary: {binary}",
            where="--benchmark-model",
            cure="build tensorflow/lite/tools/benchmark:benchmark_model for the device",
        )
    rows: list[tuple[Configuration, ToolFigures]] = []
    failures: list[tuple[Configuration, str]] = []
    target = _shell(device, settings.time_limit_s)
    limit = settings.time_limit_s + settings.bounds.max_seconds * 4
    with target.shell():
        tool, remote = target.push(binary.resolve()), target.push(model)
        target.call(f"chmod 700 {shlex.quote(tool)}", time_limit_s=settings.time_limit_s)
        # Before anything runs: what is missing is told at once.
        libraries = {each: _library(each, device, target, binary) for each in configurations}
        for each in configurations:
            progress(f"benchmark_model: {each.name}")
            library = libraries[each]
            pushed = None if library is None else target.push(library)
            words = shlex.join(command(tool, remote, each, settings, pushed))
            with _kept(failures, each):
                # The tool logs to stderr on some systems and to stdout on others.
                rows.append((each, parse(target.call(f"{words} 2>&1", time_limit_s=limit))))
    if not rows:
        raise DeviceError(failures[0][1], where=device.name)
    return ToolReport(facts, device.name, tuple(rows), tuple(failures))


@contextlib.contextmanager
def _kept(
    failures: list[tuple[Configuration, str]], configuration: Configuration
) -> Iterator[None]:
    try:
        yield
    except DeviceError as error:
        failures.append((configuration, error.what))


def _library(
    configuration: Configuration, device: Device, target: RemoteTarget, binary: Path
) -> Path | None:
    name = configuration.delegate
    if name in ("cpu", "xnnpack", *FLAGS) and name not in device.delegates:
        return None
    if name == "edgelstm":
        return device_library.library_for(device, _facts(device, target, binary)).resolve()
    path = Path(device.delegates.get(name, name)).expanduser()
    if not path.is_file():
        raise OptionError(
            f"there is no delegate library {str(path)!r}",
            where="--delegate",
            cure="give the path of a library here, or name it in the device's profile",
        )
    return path.resolve()


def _facts(device: Device, target: RemoteTarget, binary: Path) -> DeviceFacts:
    """What is to be known for building a library, without Python there: the tool's own processor,
    which 32 bits under a 64-bit kernel make another than the kernel's."""
    said = target.call(
        "uname -s; uname -m; uname -r; getconf GNU_LIBC_VERSION 2>/dev/null || echo",
        time_limit_s=ANSWER_S,
    ).splitlines()
    system, machine, release, libc = (said + [""] * 4)[:4]
    machine = native_runner.machine_of(binary) or machine
    name, _, version = libc.partition(" ")
    return DeviceFacts(
        name=device.name,
        target=device.target,
        system=system,
        release=release,
        machine=machine,
        processor_name=None,
        processors=0,
        python="",
        numpy=None,
        backends={},
        pointer_bits=32 if machine in ("armv7l", "i686") else 64,
        libc=(name, version),
    )


def _shell(device: Device, time_limit_s: float) -> RemoteTarget:
    if device.target == "ssh":
        config = None if device.ssh_config is None else Path(device.ssh_config).expanduser()
        ssh = OpenSsh(
            device.name, device.host or device.name, config=config, options=device.ssh_options
        )
        return RemoteTarget(device, ssh, home=SSH_HOME, time_limit_s=time_limit_s)
    if device.target == "adb":
        bridge = DebugBridge(device.name, device.serial)
        return RemoteTarget(device, bridge, home=ADB_HOME, time_limit_s=time_limit_s)
    return RemoteTarget(device, LocalShell(), home=LOCAL_HOME, time_limit_s=time_limit_s)


def print_report(report: ToolReport, console: Console) -> None:
    """The figures as a table, with what the tool does not tell left out."""
    from rich.table import Table

    table = Table(title="benchmark_model (ms)", title_justify="left")
    table.add_column("delegate", no_wrap=True)
    for heading in ("threads", "init", "first", "avg", "min", "max", "std", "p95", "runs", "MB"):
        table.add_column(heading, justify="right")
    for configuration, figures in report.rows:
        times = (
            figures.initialise_us, figures.first_us, figures.average_us, figures.minimum_us,
            figures.maximum_us, figures.deviation_us, figures.p95_us,
        )  # fmt: skip
        table.add_row(
            configuration.delegate,
            str(configuration.threads),
            *("-" if value is None else f"{value / 1e3:.4g}" for value in times),
            "-" if figures.runs is None else str(figures.runs),
            "-" if figures.overall_mb is None else f"{figures.overall_mb:.4g}",
        )
    console.print(table)
    for configuration, figures in report.rows:
        for op in sorted(figures.ops, key=lambda each: -each.percent)[:5]:
            line = f"{configuration.name}: {op.percent:5.1f} % {op.average_ms:.4g} ms {op.kind} {op.name}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    for configuration, message in report.failures:
        console.print(f"failed {configuration.name}: {message}", highlight=False, markup=False)
