"""A PyTorch model as a source: what its own export to ONNX becomes."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.digest import sha256_of
from edgelstm.converters.sources.graph.source import GraphSource
from edgelstm.converters.sources.onnx.open import open_onnx
from edgelstm.converters.sources.onnx.reference import OnnxSession
from edgelstm.converters.sources.onnx.source import OnnxSource
from edgelstm.converters.sources.pytorch.export import Run, export
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.errors import UnsupportedModelError

# Largest error of ONNX Runtime beside PyTorch, as a share of an output's largest value: sums of
# float32 in another order, over some steps.
_TOLERANCE = 1e-4


class PyTorchSource(OnnxSource):
    """TorchScript, a program of torch.export, or weights with the code that makes their model.

    PyTorch exports it to ONNX; that model is compared with what PyTorch computes of random
    inputs, and is the reference then.
    """

    def __init__(self, path: Path, kind: SourceKind, options: ConvertOptions) -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = export(path, kind, options, Path(folder))
            opened = open_onnx(made.onnx, made.options, where=str(path))
            error = compare(opened.file.model, made.runs, str(path))
        note = f"{made.framework} exported it to ONNX"
        if error is not None:
            note += f", which is within {error:.1e} of PyTorch on {len(made.runs)} random inputs"
        frozen = dataclasses.replace(opened.frozen, notes=(*opened.frozen.notes, f"{note}."))
        opened = dataclasses.replace(opened, frozen=frozen)
        GraphSource.__init__(self, path, kind, made.options, opened)
        self._framework = made.framework

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path),
            format=self._kind.value,
            framework=f"{self._framework}, by its ONNX, run by {self._opened.session.title}",
            sha256=sha256_of([self.path]),
        )


def compare(model: object, runs: Sequence[Run], where: str) -> float | None:
    """The largest error of an ONNX model beside PyTorch, relative; None without runs.

    Raises:
        UnsupportedModelError: they differ.
    """
    if not runs:
        return None
    session = OnnxSession(model, {}, list(runs[0].outputs), where)
    worst = 0.0
    for run in runs:
        found = _found(session, run.inputs, where)
        for name, wanted in run.outputs.items():
            scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
            if found[name].shape != wanted.shape:
                raise _differs(name, f"{found[name].shape} instead of {wanted.shape}", where)
            worst = max(worst, float(np.abs(found[name] - wanted).max(initial=0.0)) / scale)
            if not worst <= _TOLERANCE:
                raise _differs(name, f"an error of {worst:.1e}", where)
    return worst


def _found(
    session: OnnxSession, inputs: Mapping[str, np.ndarray], where: str
) -> Mapping[str, np.ndarray]:
    try:
        return session.run(inputs)
    except ValueError as error:
        sizes = ", ".join(f"{name}{list(value.shape)}" for name, value in inputs.items())
        raise _differs("outputs", f"an error at {sizes}: {error}", where) from None


def _differs(name: str, what: str, where: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"PyTorch's export to ONNX does not compute what the model computes: {name} has {what}.",
        where=where,
        cure="a traced module holds the sizes it was traced with: use torch.jit.script, or give "
        "numbers for the sizes in --inputs",
    )
