"""Every error a user can meet, named for the user's situation.

EdgeLstmError
├── InputError                  exit code 2: the input or the call is wrong
│   ├── UnreadableModelError      the file is missing, empty, truncated, or no model
│   ├── UnsupportedModelError     the file is a model, but this build cannot take it
│   ├── UnsafeModelError          reading it would run code from the file
│   ├── DataError                 calibration or test data do not fit the model
│   ├── OptionError               an option's value, or a combination of options
│   ├── OutputError               the output exists or cannot be written
│   ├── MissingPackageError       an optional package is not installed
│   ├── MisuseError               a session or stream is closed, or another thread is inside it
│   └── DeviceError               the device cannot be reached, or cannot do what is asked
│       └── ConnectionLost          it could, and then went away
└── CheckFailed                 exit code 1: the work was done and a check failed
    ├── VerificationFailed        the result differs from its source
    ├── NotFusedError             --require-fused and a recurrence did not fuse
    ├── MeasurementFailed         some of the configurations could not be measured
    └── BudgetExceeded            a measured figure is above its budget
"""

from __future__ import annotations


class EdgeLstmError(Exception):
    """One message: what happened, where (file, layer, tensor), and what to do.

    Attributes:
        what: one sentence.
        where: the file, layer, tensor or option concerned; None when `what` names it.
        cure: what the user can do; None when there is nothing.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, cure: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.cure is not None:
            lines.append(f"  do:    {self.cure}")
        return "\n".join(lines)


class InputError(EdgeLstmError):
    """The input or the call is wrong."""


class UnreadableModelError(InputError):
    """The file is missing, empty, truncated, or no model at all."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        cure: str | None = "copy the file again, or have its framework write it again",
    ) -> None:
        super().__init__(what, where=where, cure=cure)


class UnsupportedModelError(InputError):
    """The file is a model, but this build cannot take it."""


class UnsafeModelError(InputError):
    """Reading the file would run code that it contains."""


class DataError(InputError):
    """Calibration or test data do not fit the model."""


class OptionError(InputError):
    """An option's value, or a combination of options, is wrong."""


class OutputError(InputError):
    """The output exists already, or cannot be written."""


class MissingPackageError(InputError):
    """An optional package that this call needs is not installed."""


class MisuseError(InputError):
    """A session or stream is closed, or another thread is inside it."""


class DeviceError(InputError):
    """A device cannot be reached, or cannot do what is asked of it."""


class ConnectionLost(DeviceError):
    """The device was reached and then went away."""


class CheckFailed(EdgeLstmError):
    """The work was done and a check failed."""

    exit_code = 1


class VerificationFailed(CheckFailed):
    """The converted model differs from its source."""


class NotFusedError(CheckFailed):
    """`--require-fused` was given and a recurrence did not become a fused op."""


class MeasurementFailed(CheckFailed):
    """Some configurations of a profile could not be measured; the others were."""


class BudgetExceeded(CheckFailed):
    """A measured figure is above its budget."""
