"""An ONNX model as a source: its tensors, its reference, and its conversion."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.loop_states import LoopState
from edgelstm.converters.sources.graph.source import GraphSource
from edgelstm.converters.sources.onnx.open import OpenedOnnx, open_onnx
from edgelstm.converters.sources.onnx.reference import OnnxReference
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Array, StatePolicy


class OnnxSource(GraphSource):
    """A model, opened once, as the TensorFlow graph that it was written as.

    The reference is the model itself, run by ONNX Runtime.
    """

    _opened: OpenedOnnx

    def __init__(self, path: Path, options: ConvertOptions) -> None:
        super().__init__(path, SourceKind.ONNX, options, open_onnx(path, options))

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path),
            format=SourceKind.ONNX.value,
            framework=f"{self._opened.file.framework}, run by {self._opened.session.title}",
            sha256=self._opened.file.sha256,
        )

    def reference(self, policy: StatePolicy) -> OnnxReference:  # type: ignore[override]
        """The model, run by ONNX Runtime; its states are inputs and outputs of its own."""
        del policy
        zeros: dict[str, Array] = {}
        if self._frozen.from_zero:
            zeros = {
                state.pair.input: np.zeros([size or 1 for size in state.shape], np.float32)
                for state in self._frozen.loop_states
            }
        hidden = {state.pair.output for state in self._frozen.loop_states} if zeros else set()
        return OnnxReference(self._opened.session, zeros, hidden)

    def _runnable(self, states: tuple[LoopState, ...]) -> tuple[LoopState, ...]:
        return tuple(state for state in states if state.given and state.made)

    def rounded(self, seed: int) -> AbstractContextManager[None]:
        """While active, every float weight is off by up to one rounding of float32."""
        return self._opened.session.rounded(seed)
