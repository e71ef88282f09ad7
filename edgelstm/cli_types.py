"""Arguments and options that several commands share, and the values of those with a choice."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgelstm.cli_paths import input_file, source_path


class PrecisionName(str, enum.Enum):
    """What --quantize takes."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT16 = "int16"


class ObserverName(str, enum.Enum):
    """What --observer takes."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


class RoundingName(str, enum.Enum):
    """What --rounding takes."""

    NEAREST = "nearest"
    CALIBRATED = "calibrated"
    LEARNED = "learned"


class LstmInputName(str, enum.Enum):
    """What --lstm-input takes."""

    AUTO = "auto"
    SINGLE = "single"
    SPLIT = "split"


class RangesName(str, enum.Enum):
    """What --ranges takes."""

    CALIBRATION = "calibration"
    MODEL = "from-model"


class GraphIoName(str, enum.Enum):
    """What --io takes."""

    FLOAT = "float"
    INT8 = "int8"
    INT16 = "int16"


class StateName(str, enum.Enum):
    """What --state takes."""

    RESET = "reset"
    CARRY = "carry"
    EXPLICIT = "explicit"


class StepName(str, enum.Enum):
    """What --step takes."""

    PLAIN = "plain"
    BASIC = "basic"
    FUSED = "fused"


class TargetName(str, enum.Enum):
    """What --target takes."""

    CPU = "cpu"
    GPU = "gpu"
    COMPILED = "compiled"
    TFLM = "tflm"


class RunnerName(str, enum.Enum):
    """What --runner takes."""

    AGENT = "agent"
    NATIVE = "native"
    BENCHMARK_MODEL = "benchmark_model"


class CachesName(str, enum.Enum):
    """What --caches takes."""

    WARM = "warm"
    EMPTIED = "emptied"


class StatesName(str, enum.Enum):
    """What --states takes."""

    KEEP = "keep"
    RESET = "reset"


SourceArgument = Annotated[
    Path,
    typer.Argument(
        callback=source_path,
        help="The trained model: a Keras file (.keras, .h5), a SavedModel's folder, a TensorFlow "
        "graph (.pb, .pbtxt), a checkpoint (.meta), .onnx, a PyTorch file (.pt, .pt2) or .tflite.",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(callback=input_file, help="A .tflite file.")]
ArchitectureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="A.json",
        callback=input_file,
        help="Architecture of a file that holds weights only.",
    ),
]
CustomObjectsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="M.py",
        callback=input_file,
        help="Python file that defines the model's own layers, or build(weights) of a PyTorch "
        "model; it is run.",
    ),
]
InputsOption = Annotated[
    str | None,
    typer.Option(
        metavar="a,b[1,?,10]",
        help="Tensors of a graph to be the inputs, cutting off what is before them; with shapes "
        "where the graph has none, as in PyTorch's files, ? for a size that varies.",
    ),
]
OutputsOption = Annotated[
    str | None, typer.Option(metavar="y,z", help="Tensors of a graph to be the outputs.")
]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Value of a constant or placeholder of a graph, or of an argument of a PyTorch "
        "model; repeatable.",
    ),
]
StatePairOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INPUT=OUTPUT",
        help="An input of the model and the output that is its next value; repeatable. Only "
        "needed where the graph itself does not prove it.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        metavar="encoder,decoder",
        help="Write the halves of a Keras encoder-decoder as two signatures of these names.",
    ),
]
NormalisationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="N.npz|N.json",
        callback=input_file,
        help="NAME/mean and NAME/std of inputs and outputs, for apps to apply; written into the "
        "file, nothing is computed with them here.",
    ),
]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code", help="Run code in the model file (Lambda layers).")
]
AllowNanOption = Annotated[
    bool, typer.Option("--allow-nan", help="Take weights that are NaN or infinite.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="D.npz",
        callback=input_file,
        help="Compare on these inputs too, arrays by input name.",
    ),
]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        metavar="D.npz|FOLDER|M:F|random",
        help="Inputs that int8 and int16 take their ranges from, arrays by input name.",
    ),
]
StreamOption = Annotated[
    bool,
    typer.Option("--stream", help="Calibration data are one recording: carry the states along."),
]
AsymmetricOption = Annotated[
    bool,
    typer.Option(
        "--asymmetric",
        help="dynamic: rows of activations get a zero point of their own; needs a fixed batch.",
    ),
]
RangesOption = Annotated[
    RangesName,
    typer.Option(help="Where ranges come from: the data, or for LSTM layers their training."),
]
ObserverOption = Annotated[
    ObserverName, typer.Option(help="How ranges are chosen from the calibration data.")
]
RoundingOption = Annotated[
    RoundingName,
    typer.Option(
        help="How weights of int8 and int16 layers are rounded: each to the nearest integer, "
        "together by what the calibration data put into their sums, or besides, of LSTM layers, "
        "in training on the data, which takes seconds to minutes for each layer."
    ),
]
LstmInputOption = Annotated[
    LstmInputName,
    typer.Option(
        help="How int8 LSTM layers take an input that is float32 in the file: as one integer, or "
        "split into two, the second one for what the first leaves. That has two bits more, for "
        "kernels of twice the size. auto splits where that leaves 0.9 of the error on the "
        "calibration data or less, the file grows by a third at most, and, where it is within "
        "0.27 of a float32 file of over 100 kB, stays so."
    ),
]
GraphIoOption = Annotated[
    GraphIoName, typer.Option("--io", help="What a quantized model takes and gives.")
]
DelegateOption = Annotated[
    str | None,
    typer.Option(
        metavar="cpu,xnnpack,edgelstm,gpu,nnapi,PATH",
        help="Delegates to measure; a path is the library of an external delegate, built for the "
        "device. Without: cpu and xnnpack.",
    ),
]
KeepOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Keep the converted models in this folder.")
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Largest error relative to an output's range; default by precision."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
DropClipOption = Annotated[
    bool,
    typer.Option(
        "--drop-default-clip",
        help="Remove cell_clip=10 from the fused ops of a .tflite source.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
StateOption = Annotated[
    StateName | None,
    typer.Option(
        help="What h and c do between calls: start from zero, persist in the interpreter, or "
        "be inputs and outputs; default as in the source."
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT.tflite", help="The file to write.")
]
ReportOption = Annotated[
    Path | None, typer.Option(metavar="R.json", help="Write the conversion report here.")
]
QuantizationOption = Annotated[
    bool,
    typer.Option(
        "--quantization",
        help="Measure what quantization costs: by layer, gate and step, beside float32.",
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        metavar="R.html", help="Write what quantization costs as one page with everything in it."
    ),
]
RequireFusedOption = Annotated[
    bool, typer.Option("--require-fused", help="Fail unless every recurrence is fused.")
]
TimeOption = Annotated[
    str | None, typer.Option(metavar="N|dynamic", help="Time steps; default as in the source.")
]
TargetOption = Annotated[
    TargetName,
    typer.Option(
        help="What the model is to run on: the Interpreter, LiteRT's GPU accelerator or its "
        "CompiledModel (plain operators, unrolled), or TensorFlow Lite Micro."
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="float32|float16|dynamic|int8|int16|PLAN.toml",
        help="Precision of the written model; a plan gives each layer its own.",
    ),
]
SourceQuantizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="float32|float16|dynamic|int8|int16|PLAN.toml",
        help="With --as-source: precision of the converted model.",
    ),
]
KotlinOption = Annotated[
    Path | None, typer.Option("--kotlin", metavar="DIR", help="For Android's Interpreter.")
]
SwiftOption = Annotated[
    Path | None, typer.Option("--swift", metavar="DIR", help="For TensorFlowLiteSwift.")
]
COption = Annotated[
    Path | None, typer.Option("--c", metavar="DIR", help="For the TensorFlow Lite C API.")
]
JsOption = Annotated[
    Path | None, typer.Option("--js", metavar="DIR", help="For LiteRT.js in the browser.")
]
AppNameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the wrapper; default is the file's.")
]
StreamingOption = Annotated[
    bool,
    typer.Option(
        "--streaming",
        help="Write the signatures chunk and step beside the whole sequence; weights stand in the "
        "file once.",
    ),
]
StepOption = Annotated[
    StepName,
    typer.Option(help="Operators of a single step: plain ones, or the basic LSTM op for GPUs."),
]
StepOnlyOption = Annotated[
    bool,
    typer.Option(
        "--step-only",
        help="Write single steps and nothing else, for LiteRT's CompiledModel and LiteRT.js.",
    ),
]
ProveOption = Annotated[
    bool, typer.Option("--streaming", help="Also compare steps, chunks and the whole sequence.")
]
BatchOption = Annotated[
    str | None, typer.Option(metavar="N|dynamic", help="Batch size; default as in the source.")
]
