"""Sessions that run many rows of data through a model while it is quantized."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.errors import EdgeLstmError
from edgelstm.runtime import Delegate, Session


def open_fast(model: Model) -> Session:
    """A session with the native kernels, which give the interpreter's numbers in less time.

    The interpreter's own kernels run a model without fused operators, and any where the native
    library is missing.
    """
    content = model.to_bytes()
    if model.main.find(FUSED_OP):
        try:
            return Session(content, delegate=Delegate.EDGELSTM)
        except EdgeLstmError:  # a library that does not load, or kernels that this CPU has not
            pass
    return Session(content, delegate=Delegate.CPU)
