"""Import the onnx package, or say how to get it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgelstm.errors import MissingPackageError


def onnx() -> Any:
    """The onnx module with the submodules in use here.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        module = import_module("onnx")
        for part in ("checker", "external_data_helper", "helper", "inliner", "numpy_helper"):
            import_module(f"onnx.{part}")
    except ImportError as error:
        raise MissingPackageError(
            "Reading ONNX models needs the package onnx, which is not installed.",
            cure="pip install 'edgelstm[convert]'",
        ) from error
    return module
