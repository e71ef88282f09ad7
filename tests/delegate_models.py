"""Fused models for the delegate, and interpreters that have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fused_models import marker_model
from native_layers import kernel_names

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Array, LstmSpec, StatePolicy
from edgelstm.runtime import native

KERNELS = kernel_names()


def with_delegate(one: dict[str, Array]) -> dict[str, Array]:
    return {**one, "delegate": np.asarray(str(native.library_path()))}


def fused_model(spec: LstmSpec, **sizes: Any) -> Model:
    """A carrying model, not yet written: tests may damage it."""
    model = marker_model(spec, **sizes)
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    return model


def opened(model: bytes, options: dict[str, str] | None = None) -> tuple[Any, Any]:
    """An interpreter without XNNPACK and the delegate that it uses."""
    module = pytest.importorskip("ai_edge_litert.interpreter")
    delegate = module.load_delegate(str(native.library_path()), options)
    interpreter = module.Interpreter(
        model_content=model,
        experimental_delegates=[delegate],
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return interpreter, delegate


def invoked(interpreter: Any, *inputs: Array) -> Array:
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    answer: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer
