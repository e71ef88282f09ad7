"""A PyTorch file as an ONNX model, written by PyTorch in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources import archive
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Array
from edgelstm.errors import (
    EdgeLstmError,
    OptionError,
    UnsafeModelError,
    UnsupportedModelError,
)

PYTHON_VARIABLE = "EDGELSTM_TORCH_PYTHON"
FORMS = {
    SourceKind.TORCHSCRIPT: "script",
    SourceKind.TORCH_PROGRAM: "program",
    SourceKind.PYTORCH_ZIP: "weights",
    SourceKind.PYTORCH_STREAM: "weights",
}
_JOB = Path(__file__).with_name("job.py")
_LIMIT_S = 900
# What TorchScript can do to files.
_UNSAFE = re.compile(rb"\b(?:torch|ops\.aten)\.(save|from_file)\b")
_INSTALL = "pip install torch onnx onnxscript"


@dataclasses.dataclass(frozen=True)
class Run:
    """What PyTorch computed of random inputs, both by name."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Exported:
    """The model as ONNX.

    Attributes:
        framework: PyTorch's version.
        options: those of the conversion, for the names that the ONNX model has.
    """

    onnx: Path
    framework: str
    runs: tuple[Run, ...]
    options: ConvertOptions


def export(path: Path, kind: SourceKind, options: ConvertOptions, folder: Path) -> Exported:
    """Export a model into `folder`.

    Raises:
        InputError: PyTorch is missing, the file is damaged or unsafe, or an option does not fit.
    """
    where = str(path)
    if kind is not SourceKind.PYTORCH_STREAM:
        _check_archive(path)
    part, shapes = _part_and_shapes(options)
    told = {k.removeprefix(f"{part}."): v for k, v in options.fix.items()} if part else options.fix
    form = FORMS[kind]
    request = {
        "file": str(path.resolve()),
        "form": form,
        "part": part,
        "code": str(options.custom_objects.resolve()) if options.custom_objects else "",
        "shapes": shapes,
        "fix": dict(told),
        "onnx": str(folder / "model.onnx"),
        "runs": str(folder),
        "answer": str(folder / "answer.json"),
    }
    answer = _ask(request, folder, where)
    if "error" in answer:
        raise _error(answer["error"], where)
    if form != "program":
        options = dataclasses.replace(options, inputs=(), fix={})
    runs = [dict(np.load(folder / f"{n}.npz")) for n in range(answer["runs"])]
    return Exported(
        folder / "model.onnx",
        answer["framework"],
        tuple(Run(_named(run, "in:"), _named(run, "out:")) for run in runs),
        options,
    )


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _part_and_shapes(options: ConvertOptions) -> tuple[str, dict[str, list[int | None]]]:
    """The part of the model that dotted names of inputs tell, and shapes by plain name."""
    shapeless = [choice.name for choice in options.inputs if choice.shape is None]
    if shapeless:
        raise OptionError(
            f"The shape of {shapeless[0]} is not told, and a PyTorch file does not say it.",
            where="--inputs",
            cure=f"write it with its shape, ? for sizes that vary: '{shapeless[0]}[?,?,40]'",
        )
    parts = {choice.name.rpartition(".")[0] for choice in options.inputs}
    if len(parts) > 1:
        raise OptionError(
            "The inputs belong to different parts of the model: "
            + ", ".join(sorted(p or "the whole" for p in parts)) + ".",
            where="--inputs",
            cure="name the inputs of one part",
        )  # fmt: skip
    shapes = {c.name.rpartition(".")[2]: list(c.shape or ()) for c in options.inputs}
    return next(iter(parts), ""), shapes


def _check_archive(path: Path) -> None:
    """Before PyTorch opens it: nothing that unpacks without end, nothing that writes files."""
    with archive.opened(path, "archive") as (packed, members):
        for name, info in members.items():
            found = (
                _UNSAFE.search(packed.read(info))
                if "/code/" in name and name.endswith(".py")
                else None
            )
            if found:
                raise UnsafeModelError(
                    f"Its code calls torch.{found[1].decode()}, which opens files.",
                    where=f"{name} in {path}",
                    cure="save the model without it",
                )


def _python() -> str:
    told = os.environ.get(PYTHON_VARIABLE)
    if told:
        return told
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedModelError(
            "Reading PyTorch's files takes PyTorch, which is not installed here.",
            where="torch",
            cure=f"{_INSTALL}; or set {PYTHON_VARIABLE} to a Python that has them",
        )
    return sys.executable


def _ask(request: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    python, asked = _python(), folder / "request.json"
    asked.write_text(json.dumps(request))
    environment = {**os.environ, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    try:
        done = subprocess.run(
            [python, str(_JOB), str(asked)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, env=environment,
        )  # fmt: skip
    except OSError as error:
        raise OptionError(
            f"{python} cannot be run: {error.strerror}.",
            where=PYTHON_VARIABLE,
            cure="give the path of a Python that has torch",
        ) from None
    except subprocess.TimeoutExpired:
        raise UnsupportedModelError(
            f"PyTorch was not done with the export after {_LIMIT_S} s.",
            where=where,
            cure="export the model yourself with torch.onnx.export and convert the ONNX file, or "
            "give a shorter sequence: --inputs x[1,20,64]",
        ) from None
    if not Path(request["answer"]).is_file():
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it told nothing"]
        raise UnsupportedModelError(
            f"PyTorch ended with code {done.returncode}: {lines[-1][:300]}.",
            where=where,
            cure=f"{_INSTALL}, in the Python of {python}",
        )
    answer: dict[str, Any] = json.loads(Path(request["answer"]).read_text())
    return answer


def _error(told: Mapping[str, Any], where: str) -> EdgeLstmError:
    """What the job refused, as a message for the user."""
    kind = told["kind"]
    if kind == "arguments":
        return _arguments(told, where)
    if kind == "keeps_state":
        parts = told["parts"]
        cure = "pass them as inputs and outputs and save it again"
        if parts:
            cure = (
                "convert a part that takes them as inputs, by its inputs' names and shapes "
                f"(--inputs 'part.x[1,64],part.state[2,1,128]'): {'; '.join(parts)}"
            )
        kept = ", ".join(told["attributes"])
        return UnsupportedModelError(
            f"The module keeps {kept} in itself from call to call, which ONNX cannot.",
            where=where,
            cure=cure,
        )
    if kind == "no_part":
        return OptionError(
            f"The model has no part {told['part']}; it has {', '.join(told['parts']) or 'none'}.",
            where="--inputs",
            cure="name one of these in front of the input: --inputs PART.x[1,64]",
        )
    if kind == "bad_value":
        return OptionError(
            f"{told['value']!r} is no {told['type']}.",
            where=f"--fix {told['name']}",
            cure="give the input's type: 3, 0.5, true or false",
        )
    if kind == "not_weights":
        return UnsupportedModelError(
            "The file holds a pickled module: reading it would run code that it contains.",
            where=where,
            cure="save it with torch.jit.script(model).save(path) or torch.export.save; or only "
            "its weights, torch.save(model.state_dict(), path)",
        )
    if kind == "no_code":
        return UnsupportedModelError(
            f"The file holds weights only ({', '.join(told['names']) or 'a tensor'}, ...).",
            where=where,
            cure="give the code that makes the model: --custom-objects model.py, with a function "
            "build(weights) that returns the torch.nn.Module with these weights",
        )
    if kind == "code_failed":
        return OptionError(
            f"The code that makes the model failed: {told['message']}.",
            where="--custom-objects",
            cure="it needs a function build(weights) that returns a torch.nn.Module",
        )
    if kind == "does_not_run":
        return OptionError(
            f"The model does not run on inputs of these shapes: {told['message']}",
            where="--inputs",
            cure="give shapes that it takes, numbers where a size is fixed",
        )
    missing = "is not installed" in told["message"] or "No module named" in told["message"]
    return UnsupportedModelError(
        f"PyTorch's export to ONNX failed: {told['message']}",
        where=where,
        cure=_INSTALL if missing else "export it to ONNX where it was made, and convert that",
    )


def _arguments(told: Mapping[str, Any], where: str) -> EdgeLstmError:
    """Names and types that the model's forward() takes, against those that were given."""
    arguments = told["arguments"]
    takes = ", ".join(f"{a['name']}: {a['type']}" for a in arguments)
    tensors = [a["name"] for a in arguments if "Tensor" in a["type"]]
    example = ",".join(f"{name}[?,?,40]" for name in tensors[:2])
    others = [a["name"] for a in arguments if a["needed"] and "Tensor" not in a["type"]]
    if told["unknown"]:
        what = f"The model has no input {told['unknown'][0]}; its forward takes {takes}."
    else:
        names = ", ".join(a["name"] for a in told["missing"]) or "inputs"
        what = f"{names} of the model's forward({takes}) is not given."
    cure = f"name its inputs with their shapes, ? for sizes that vary: --inputs '{example}'"
    if others:
        cure += f"; and its other arguments: --fix {others[0]}=VALUE"
    return OptionError(what, where=where, cure=cure)
