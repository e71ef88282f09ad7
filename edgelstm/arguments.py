"""Read the values of command line options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelstm.errors import OptionError

if TYPE_CHECKING:
    from edgelstm.converters.options import (
        ConvertOptions,
        MeasurePolicy,
        Size,
        Streaming,
        TensorChoice,
    )


LARGEST_SIZE = 2**31 - 1  # TFLite shapes are int32


def size(option: str, text: str | None) -> int | Size:
    """A batch or time size: a number from 1, `dynamic`, or None for that of the source.

    Raises:
        OptionError: it is none of these.
    """
    from edgelstm.converters.options import Size

    if text is None:
        return Size.SOURCE
    if text == Size.DYNAMIC.value:
        return Size.DYNAMIC
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= LARGEST_SIZE:
        raise OptionError(
            f"{text[:40]!r} is no size.",
            where=option,
            cure=f"give a number from 1 to {LARGEST_SIZE}, or dynamic",
        )
    return int(text)


def tensors(option: str, text: str | None) -> tuple[TensorChoice, ...]:
    """The tensors of a list such as `x,Mfcc[1,?,10]`; ? and -1 are sizes that vary.

    Raises:
        OptionError: a name is empty, or a shape is none.
    """
    from edgelstm.converters.options import TensorChoice

    found = []
    for part in re.split(r",(?![^\[]*\])", text or ""):
        match = re.fullmatch(r"\s*([^\[\],\s]+)\s*(?:\[([^\[\]]*)\])?\s*", part)
        if match is None:
            if text is None or not text.strip():
                return ()
            raise OptionError(
                f"{part.strip()[:60]!r} names no tensor.",
                where=option,
                cure="write names as NAME or NAME[1,?,10], commas between them",
            )
        name, shape = match.groups()
        sizes = None if shape is None else tuple(_size_of(option, s) for s in names(shape))
        found.append(TensorChoice(name, sizes))
    if len({choice.name for choice in found}) < len(found):
        raise OptionError("A tensor is named twice.", where=option, cure="name each one once")
    return tuple(found)


def _size_of(option: str, text: str) -> int | None:
    if text in ("?", "-1"):
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= LARGEST_SIZE:
        raise OptionError(
            f"{text[:40]!r} is no size.",
            where=option,
            cure=f"give a number from 1 to {LARGEST_SIZE}, or ? where it varies",
        )
    return int(text)


def fixes(
    given: Sequence[str] | None,
    option: str = "--fix",
    form: str = "NAME=VALUE, such as --fix keep_prob=1",
) -> dict[str, str]:
    """The values of `NAME=VALUE` by name.

    Raises:
        OptionError: an entry is none.
    """
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not name.strip() or not equals or not value.strip():
            raise OptionError(
                f"{text[:60]!r} gives no tensor a value.",
                where=option,
                cure=f"write {option} {form}",
            )
        found[name.strip()] = value.strip()
    return found


def halves(text: str | None) -> tuple[str, str] | None:
    """The names of `--split encoder,decoder`; None where it is left out.

    Raises:
        OptionError: they are no two names.
    """
    if text is None:
        return None
    first, _, second = (part.strip() for part in text.partition(","))
    if not first or not second or first == second or "," in second:
        raise OptionError(
            f"{text[:60]!r} names no two signatures.",
            where="--split",
            cure="write --split encoder,decoder",
        )
    return first, second


def convert_options(
    architecture: Path | None,
    custom_objects: Path | None,
    allow_code: bool,
    allow_nan: bool,
    data: Path | None,
    tolerance: float | None,
    inputs: str | None = None,
    outputs: str | None = None,
    fix: Sequence[str] | None = None,
    **choices: Any,
) -> ConvertOptions:
    """The options that convert and verify share, and others of `ConvertOptions` by name.

    Raises:
        DataError: the data file cannot be read.
    """
    from edgelstm import npz
    from edgelstm.converters.options import CodePolicy, ConvertOptions, NanPolicy

    return ConvertOptions(
        architecture=architecture,
        custom_objects=custom_objects,
        code=CodePolicy.ALLOW if allow_code else CodePolicy.REFUSE,
        nan=NanPolicy.KEEP if allow_nan else NanPolicy.REFUSE,
        data=None if data is None else npz.arrays(data),
        tolerance=tolerance,
        inputs=tensors("--inputs", inputs),
        outputs=tuple(choice.name for choice in tensors("--outputs", outputs)),
        fix=fixes(fix),
        **choices,
    )


def quantization(text: str, asymmetric: bool) -> dict[str, Any]:
    """The choices of `ConvertOptions` that a precision or a plan's file, and --asymmetric stand for.

    Raises:
        OptionError: it is neither, the plan is wrong, or nothing is dynamic.
    """
    from edgelstm.converters.quantize.plan_file import SUFFIX, read_plan
    from edgelstm.converters.quantize.rows import RowRounding
    from edgelstm.converters.spec import Precision

    rows = RowRounding.ASYMMETRIC if asymmetric else RowRounding.SYMMETRIC
    known = [precision.value for precision in Precision]
    if asymmetric and text in known and text != Precision.DYNAMIC.value:
        raise OptionError(
            f"nothing is rounded by row in {text}",
            where="--asymmetric",
            cure="use it with --quantize dynamic",
        )
    if text in known:
        return {"precision": Precision(text), "rows": rows}
    if not text.endswith(SUFFIX):
        raise OptionError(
            f"{text[:60]!r} is no precision.",
            where="--quantize",
            cure=f"give {', '.join(known)}, or a plan, PLAN{SUFFIX}",
        )
    return {"plan": read_plan(Path(text)), "rows": rows}


def calibration(
    text: str | None,
    stream: bool,
    observer: str,
    graph_io: str,
    rounding: str = "calibrated",
    lstm_input: str = "auto",
) -> dict[str, Any]:
    """The choices of `ConvertOptions` that calibration data come with.

    Raises:
        DataError: the text names no data.
        OptionError: a stream without data.
    """
    from edgelstm.converters.quantize.calibration_data import RANDOM, CalibrationData, Continuity
    from edgelstm.converters.quantize.graph_io import GraphIo
    from edgelstm.converters.quantize.input_form import InputForm
    from edgelstm.converters.quantize.observer import ObserverKind
    from edgelstm.converters.quantize.rounding import RoundingPolicy

    continuity = Continuity.STREAM if stream else Continuity.SAMPLES
    data = None
    if text == RANDOM:
        data = CalibrationData(RANDOM, lambda: iter(()), Continuity.SAMPLES)
    elif text is not None:
        data = CalibrationData.read(text, continuity)
    elif stream:
        raise OptionError(
            "there is no recording", where="--stream", cure="give one with --calibration"
        )
    return {
        "calibration": data,
        "observer": ObserverKind(observer),
        "graph_io": GraphIo(graph_io),
        "rounding": RoundingPolicy(rounding),
        "input_form": InputForm(lstm_input),
    }


def streaming(wanted: bool, step: Any, step_only: bool) -> Streaming | None:
    """What a file for streaming is to hold; None where it is not to be one."""
    from edgelstm.converters.options import Streaming
    from edgelstm.converters.spec import StepForm, StreamingForms

    if not (wanted or step_only):
        return None
    form = StepForm(step.value)
    if step_only and form is StepForm.FUSED:
        raise OptionError(
            "The fused op needs variable tensors, which a file of steps only is to do without.",
            where="--step fused",
            cure="use --step plain or --step basic",
        )
    return Streaming(StreamingForms.STEP if step_only else StreamingForms.ALL, form)


def normalisation(path: Path | None) -> dict[str, Any]:
    """What --normalisation gives `ConvertOptions`: constants by name; empty where it is left out.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    if path is None:
        return {}
    from edgelstm.converters.normalisation import read_normalisation

    return dict(read_normalisation(path))


def measure(wanted: bool, html: Path | None, report: Path | None) -> MeasurePolicy:
    """Whether to measure what quantization costs: where asked for, else for a report."""
    from edgelstm.converters.options import MeasurePolicy

    if wanted or html is not None:
        return MeasurePolicy.REQUIRE
    return MeasurePolicy.SKIP if report is None else MeasurePolicy.TRY


def check_page(html: Path | None, overwrite: bool, besides: Sequence[Path | None]) -> None:
    """Finds out before the work that a page can be made and written.

    Raises:
        MissingPackageError: the plotting library is not installed.
        EdgeLstmError: the file cannot be written, exists, or is one of `besides`.
    """
    from edgelstm import files, page

    if html is not None:
        files.check_output(html, may_replace=overwrite, besides=besides)
        page.check_installed()


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """Keys and values of `KEY=VALUE` texts.

    Raises:
        OptionError: a text is no such pair, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or key in found:
            raise OptionError(
                f"{text!r} is no new pair.", where=option, cure="write KEY=VALUE, each key once"
            )
        found[key] = value
    return found


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of a comma-separated list.

    Raises:
        OptionError: a part is no whole number.
    """
    parts = names(text)
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise OptionError(f"{text!r} are no numbers.", where=option, cure="write 1 or 1,2,4")
    return tuple(map(int, parts))
