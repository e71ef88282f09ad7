"""What an app embeds: run a model by names, with honest state.

from edgelstm.runtime import Session

session = Session("model.tflite")
outputs = session.run({"x": x})
"""

from edgelstm.runtime.interpreters import Backend, Delegate, find_backends, open_interpreter
from edgelstm.runtime.metadata import read_metadata
from edgelstm.runtime.session import Session
from edgelstm.runtime.tensors import NanPolicy, TensorInfo

__all__ = [
    "Backend",
    "Delegate",
    "NanPolicy",
    "Session",
    "TensorInfo",
    "find_backends",
    "open_interpreter",
    "read_metadata",
]
