"""Import TensorFlow the one way that makes its results a reference.

oneDNN rewriting is off because it replaces the epsilon of layer normalisation in frozen graphs
(errors of 6e-3 were measured). GPUs are hidden because Keras 3 otherwise traces CudnnRNNV3, which
nothing on a device can run.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextvars import ContextVar
from typing import Any

from edgelstm.errors import MissingPackageError

_ENVIRONMENT = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
}


# Whether sources run as their users run them, instead of as references.
_OPTIMISED: ContextVar[bool] = ContextVar("_OPTIMISED", default=False)


def run_as_users_do() -> None:
    """Makes sources that are opened from now on run with their frameworks' optimisers, for timing.

    As references they run without: optimisers change roundings, and the epsilon of layer norm.
    """
    _OPTIMISED.set(True)


def optimised() -> bool:
    """Whether sources run with optimisers."""
    return _OPTIMISED.get()


def tensorflow() -> Any:
    """The tensorflow module, quiet, on the CPU, with oneDNN rewriting off.

    Raises:
        MissingPackageError: tensorflow is not installed.
    """
    if "tensorflow" not in sys.modules:
        os.environ.update(_ENVIRONMENT)
    try:
        module = importlib.import_module("tensorflow")
    except ImportError as error:
        raise MissingPackageError(
            "Converting needs TensorFlow, which is not installed.",
            cure="pip install 'edgelstm[convert]'",
        ) from error
    module.get_logger().setLevel("ERROR")
    return module
