"""What a conversion did: one shape for `convert --report` and `inspect --json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgelstm.converters.spec import Lowering, Precision, Recurrence, StatePolicy, TensorSpec
from edgelstm.converters.verify.result import Verification

FORMAT_VERSION = 1

FUSED_OPS = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM")


@dataclasses.dataclass(frozen=True)
class RecurrenceReport:
    """One recurrence and how it was written.

    Attributes:
        kind: e.g. "LSTM", "GRU", "ConvLSTM2D".
        reason: why this lowering; one sentence, or empty for a fused one.
        source: where it stands in the source.
        precision_reason: why this precision; empty where it is the only one that was asked for.
    """

    name: str
    kind: str
    lowering: Lowering
    reason: str
    units: int
    precision: Precision
    source: str
    precision_reason: str = ""

    @classmethod
    def of(
        cls, recurrence: Recurrence, precision: Precision, precision_reason: str = ""
    ) -> RecurrenceReport:
        """The report of a recurrence that was written in `precision`."""
        return cls(
            name=recurrence.name,
            kind=recurrence.kind,
            lowering=recurrence.lowering,
            reason=recurrence.reason,
            units=recurrence.units,
            precision=precision,
            source=recurrence.source,
            precision_reason=precision_reason,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "kind": self.kind,
            "lowering": self.lowering.value,
            "reason": self.reason,
            "units": self.units,
            "precision": self.precision.value,
            "source": self.source,
            **({"precision_reason": self.precision_reason} if self.precision_reason else {}),
        }


@dataclasses.dataclass(frozen=True)
class SourceReport:
    """The file that was converted.

    Attributes:
        format: e.g. "Keras 3 archive".
        framework: what read it, e.g. "tf_keras 2.21.0".
        sha256: hexadecimal digest of the file.
    """

    path: str
    format: str
    framework: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class SignatureReport:
    """Inputs and outputs of one signature; None in a shape varies from call to call."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object: tensors by name with shape and dtype."""

        def tensors(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
            return {spec.name: {"shape": list(spec.shape), "dtype": spec.dtype} for spec in specs}

        return {"inputs": tensors(self.inputs), "outputs": tensors(self.outputs)}


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """A conversion from its source to the written file.

    Attributes:
        ops: count by builtin operator name, over all subgraphs of the file.
        bytes: size of the written file.
        notes: what a user should know, one sentence each.
        verification: None when it was not asked for.
        seconds: wall time by stage, in order: e.g. {"read": 2.1, "convert": 1.4, "verify": 1.0}.
    """

    tool_version: str
    source: SourceReport
    recurrences: tuple[RecurrenceReport, ...]
    signatures: Mapping[str, SignatureReport]
    ops: Mapping[str, int]
    bytes: int
    precision: Precision
    state_policy: StatePolicy
    notes: tuple[str, ...] = ()
    verification: Verification | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def expected(self) -> int:
        """Recurrences in the source: the number of fused ops if all of them fused."""
        return len(self.recurrences)

    @property
    def fused(self) -> int:
        """Recurrences that became a fused op."""
        return sum(r.lowering is Lowering.FUSED for r in self.recurrences)

    @property
    def not_fused(self) -> tuple[RecurrenceReport, ...]:
        """Recurrences that did not, each with its reason."""
        return tuple(r for r in self.recurrences if r.lowering is not Lowering.FUSED)

    @property
    def fused_ops(self) -> int:
        """Fused ops counted in the file itself."""
        return sum(self.ops.get(name, 0) for name in FUSED_OPS)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `inspect --json` gives the same keys, without those of the source."""
        return {
            "format_version": FORMAT_VERSION,
            "tool_version": self.tool_version,
            "source": self.source.to_json(),
            "recurrences": [recurrence.to_json() for recurrence in self.recurrences],
            "fusion": {
                "expected": self.expected,
                "fused": self.fused,
                "fused_ops_in_file": self.fused_ops,
                "not_fused": {r.name: r.reason for r in self.not_fused},
            },
            "signatures": {name: s.to_json() for name, s in self.signatures.items()},
            "ops": dict(self.ops),
            "bytes": self.bytes,
            "precision": self.precision.value,
            "state_policy": self.state_policy.value,
            "notes": list(self.notes),
            "verification": None if self.verification is None else self.verification.to_json(),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }
