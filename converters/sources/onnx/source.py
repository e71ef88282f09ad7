"""An ONNX model as a source: its tensors, its reference, and its conversion."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.loop_states import LoopState
from edgelstm.converters.sources.graph.source import GraphSource
from edgelstm.converters.sources.onnx.open import OpenedOnnx, open_onnx
from edgelstm.converters.sources.onnx.reference import KeptState, OnnxReference
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Precision, StatePair, StatePolicy


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
        """The model, run by ONNX Runtime; states outlive calls as in the written file."""
        kept = [KeptState(s.pair, s.shape) for s in self._frozen.loop_states]
        kept += [
            KeptState(StatePair(s.name, s.name, s.output), s.shape) for s in self._opened.states
        ]
        return OnnxReference(self._opened.session, kept, policy, self.states)

    def _runnable(self, states: tuple[LoopState, ...]) -> tuple[LoopState, ...]:
        return tuple(state for state in states if state.given and state.made)

    def rounded(
        self, seed: int, precision: Precision = Precision.FLOAT32
    ) -> AbstractContextManager[None]:
        """While active, every float weight is off by up to one rounding of float32."""
        return self._opened.session.rounded(seed, precision)
