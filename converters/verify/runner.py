"""The ways a written model is run: every delegate that an app meets by default."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.runtime import Delegate, Session, TensorInfo
from edgelstm.runtime.interpreters import choose_backend

PLAIN_LABEL = "without delegate"
_DELEGATES = {Delegate.XNNPACK: "with XNNPACK", Delegate.CPU: PLAIN_LABEL}


class Runnable(Protocol):
    """What a runner needs of a session."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call."""
        ...

    def reset(self) -> None:
        """States to zero."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """One session on the model; `label` names its interpreter and delegate."""

    label: str
    session: Runnable

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs by name."""
        return {info.name: _spec(info) for info in self.session.inputs}

    @property
    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs by name."""
        return {info.name: _spec(info) for info in self.session.outputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one call."""
        return self.session.run(inputs)

    def reset(self) -> None:
        """Puts the states that the interpreter keeps back to zero."""
        self.session.reset()


def open_runners(model: bytes | Path, backends: Sequence[str] | None) -> list[Runner]:
    """One runner per interpreter and delegate.

    Args:
        backends: interpreters by name; None takes the preferred one installed.

    Raises:
        EdgeLstmError: the file is unreadable, or an interpreter is missing or refuses it.
    """
    names = backends if backends is not None else [choose_backend().name]
    return [
        Runner(f"{name} {text}", Session(model, backend=name, delegate=delegate))
        for name in names
        for delegate, text in _DELEGATES.items()
    ]


def _spec(info: TensorInfo) -> TensorSpec:
    return TensorSpec(info.name, info.shape, info.dtype)
