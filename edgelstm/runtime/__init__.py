"""What an app embeds: run a model by names, with honest state.

from edgelstm.runtime import Session, Stream

session = Session("model.tflite")
outputs = session.run({"x": x})

stream = Stream("stream.tflite")
outputs = stream.push(frames)
"""

from edgelstm.runtime.interpreters import Backend, Delegate, find_backends, open_interpreter
from edgelstm.runtime.metadata import read_metadata
from edgelstm.runtime.normalisation import Normalisation
from edgelstm.runtime.opened import OpenedModel
from edgelstm.runtime.session import Session
from edgelstm.runtime.state import State
from edgelstm.runtime.stream import Stream
from edgelstm.runtime.tensors import NanPolicy, TensorInfo

__all__ = [
    "Backend",
    "Delegate",
    "NanPolicy",
    "Normalisation",
    "OpenedModel",
    "Session",
    "State",
    "Stream",
    "TensorInfo",
    "find_backends",
    "open_interpreter",
    "read_metadata",
]
