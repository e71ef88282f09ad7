"""The graph inside an interpreter, as a delegate sees it: its operators, and how they are called.

Python interpreters have no profiler, but they apply delegates, and a delegate is given the whole
graph. This one takes nothing; it remembers where the graph is. The structures are those of
TFLite's C interface for delegates, the same in tflite-runtime 2.14, TensorFlow 2.21 and LiteRT 2.3.
"""

from __future__ import annotations

import ctypes
from typing import Any

from .messages import AgentError, Message

DELEGATE_CODE = 51
"""BuiltinOperator_DELEGATE: a part of the graph that a delegate took."""

_ALLOW_DYNAMIC_TENSORS = 1

# TfLiteAllocationType.
_FILE, _ARENA, _PERSISTENT, _DYNAMIC = 1, 2, 3, 4


class IntArray(ctypes.Structure):
    """TfLiteIntArray."""

    _fields_ = [("size", ctypes.c_int), ("data", ctypes.c_int * 1)]


class Tensor(ctypes.Structure):
    """TfLiteTensor."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("dims", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
        ("allocation_type", ctypes.c_int),
        ("bytes", ctypes.c_size_t),
        ("allocation", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("delegate", ctypes.c_void_p),
        ("buffer_handle", ctypes.c_int),
        ("data_is_stale", ctypes.c_bool),
        ("is_variable", ctypes.c_bool),
        ("quantization_type", ctypes.c_int),
        ("quantization", ctypes.c_void_p),
        ("sparsity", ctypes.c_void_p),
        ("dims_signature", ctypes.c_void_p),
    ]


class Node(ctypes.Structure):
    """TfLiteNode up to the delegate that took it."""

    _fields_ = [
        ("inputs", ctypes.POINTER(IntArray)),
        ("outputs", ctypes.POINTER(IntArray)),
        ("intermediates", ctypes.c_void_p),
        ("temporaries", ctypes.c_void_p),
        ("user_data", ctypes.c_void_p),
        ("builtin_data", ctypes.c_void_p),
        ("custom_initial_data", ctypes.c_void_p),
        ("custom_initial_data_size", ctypes.c_int),
        ("delegate", ctypes.c_void_p),
    ]


class Registration(ctypes.Structure):
    """The head of TfLiteRegistration."""

    _fields_ = [
        ("init", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("invoke", ctypes.c_void_p),
        ("profiling_string", ctypes.c_void_p),
        ("builtin_code", ctypes.c_int32),
        ("custom_name", ctypes.c_char_p),
    ]


class Context(ctypes.Structure):
    """The head of TfLiteContext."""

    _fields_ = [
        ("tensors_size", ctypes.c_size_t),
        ("GetExecutionPlan", ctypes.c_void_p),
        ("tensors", ctypes.POINTER(Tensor)),
        ("impl", ctypes.c_void_p),
        ("ResizeTensor", ctypes.c_void_p),
        ("ReportError", ctypes.c_void_p),
        ("AddTensors", ctypes.c_void_p),
        ("GetNodeAndRegistration", ctypes.c_void_p),
    ]


Prepare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
Invoke = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
GetPlan = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.POINTER(IntArray)))
GetNode = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Node)),
    ctypes.POINTER(ctypes.POINTER(Registration)),
)


class Delegate(ctypes.Structure):
    """TfLiteDelegate."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("Prepare", Prepare),
        ("CopyFromBufferHandle", ctypes.c_void_p),
        ("CopyToBufferHandle", ctypes.c_void_p),
        ("FreeBufferHandle", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("opaque_delegate_builder", ctypes.c_void_p),
    ]


class Operator:
    """One operator of one graph; `registration` is the interpreter's own and can be changed."""

    def __init__(self, graph: int, index: int, context: Context, node: Any, entry: Any) -> None:
        self.graph = graph
        self.index = index
        self.node = node
        self.registration = entry.contents
        self.code = int(self.registration.builtin_code)
        custom = self.registration.custom_name
        self.custom = None if custom is None else custom.decode("utf-8", "replace")
        # -1 stands for an optional tensor that is not there.
        self.inputs = [i for i in _integers(node.contents.inputs) if i >= 0]
        self.outputs = [i for i in _integers(node.contents.outputs) if i >= 0]
        self.names = [_name(context, i) for i in self.outputs]

    def described(self) -> Message:
        """For the host. `name` is filled in where the interpreter tells it."""
        return {"code": self.code, "custom": self.custom, "name": None, "outputs": self.names}


class Graph:
    """What an interpreter takes for a delegate; give it as the first, so that it sees the graph
    before another has taken parts."""

    def __init__(self) -> None:
        self._contexts: list[tuple[int, Any, Any]] = []
        self.before: list[Operator] = []
        self._prepare = Prepare(self._on_prepare)
        self._delegate = Delegate()
        self._delegate.Prepare = self._prepare
        self._delegate.flags = _ALLOW_DYNAMIC_TENSORS

    def _get_native_delegate_pointer(self) -> int:
        return ctypes.addressof(self._delegate)

    def _on_prepare(self, address: int, delegate: int) -> int:
        context = Context.from_address(address)
        # Kept, because the context forbids these two outside of a delegate's preparation.
        known = (
            address,
            GetPlan(context.GetExecutionPlan),
            GetNode(context.GetNodeAndRegistration),
        )
        if address in [each[0] for each in self._contexts]:
            return 0  # prepared again for other sizes
        self._contexts.append(known)
        self.before += _operators(len(self._contexts) - 1, *known)
        return 0

    def operators(self) -> list[Operator]:
        """All operators that run, as the graph is now, the bodies of loops included."""
        found = []
        for number, known in enumerate(self._contexts):
            found += _operators(number, *known)
        return found

    def parts_of(self, delegate: int) -> int:
        """How many parts of the graphs the delegate at an address has taken."""
        return sum(
            op.code == DELEGATE_CODE and op.node.contents.delegate == delegate
            for op in self.operators()
        )

    def covered(self, part: Operator) -> list[Operator]:
        """The operators that a delegate took as this part: what leads to its outputs."""
        producers = {i: op for op in self.before if op.graph == part.graph for i in op.outputs}
        wanted, found = list(part.outputs), []
        inputs = set(part.inputs)
        while wanted:
            op = producers.get(wanted.pop())
            if op is not None and op not in found:
                found.append(op)
                wanted += [i for i in op.inputs if i not in inputs]
        return sorted(found, key=lambda op: op.index)

    def tensor_bytes(self) -> Message:
        """Where the tensors are, in bytes over all graphs: `arena`, from the first to the last byte
        in use, as it is planned with reuse; `states` (variables), `constants` of the file, and
        `dynamic` ones. What a delegate keeps for itself is not in it."""
        arena = 0
        sums = {_FILE: 0, _PERSISTENT: 0, _DYNAMIC: 0}
        for address, _, _ in self._contexts:
            context = Context.from_address(address)
            tensors = [context.tensors[i] for i in range(context.tensors_size)]
            # Tensors without data belong to a delegate, or to nobody.
            tensors = [each for each in tensors if each.data and each.bytes]
            spans = [(t.data, t.data + t.bytes) for t in tensors if t.allocation_type == _ARENA]
            if spans:
                arena += max(end for _, end in spans) - min(start for start, _ in spans)
            for each in tensors:
                if each.allocation_type in sums:
                    sums[each.allocation_type] += int(each.bytes)
        return {
            "arena": arena,
            "states": sums[_PERSISTENT],
            "constants": sums[_FILE],
            "dynamic": sums[_DYNAMIC],
        }

    def check(self, operators: list[Operator], details: list[Message]) -> None:
        """That the structures are as this file has them: the interpreter tells the same outputs.

        Raises:
            AgentError: it does not.
        """
        for op in operators:
            if op.graph == 0:
                told = [int(i) for i in details[op.index]["outputs"] if i >= 0]
                if told != op.outputs:
                    raise AgentError("operators", "this interpreter's structures are not known")


def _operators(number: int, address: int, get_plan: Any, get_node: Any) -> list[Operator]:
    context = Context.from_address(address)
    plan = ctypes.POINTER(IntArray)()
    if get_plan(address, ctypes.byref(plan)) != 0:
        raise AgentError("operators", "the interpreter does not tell its operators")
    found = []
    for index in _integers(plan):
        node, entry = ctypes.POINTER(Node)(), ctypes.POINTER(Registration)()
        if get_node(address, index, ctypes.byref(node), ctypes.byref(entry)) != 0:
            raise AgentError("operators", "the interpreter does not tell its operators")
        found.append(Operator(number, index, context, node, entry))
    return found


def _integers(array: Any) -> list[int]:
    if not array:
        return []
    start = ctypes.addressof(array.contents) + IntArray.data.offset
    return list((ctypes.c_int * array.contents.size).from_address(start))


def _name(context: Context, tensor: int) -> str:
    if tensor >= context.tensors_size:
        return ""
    return (context.tensors[tensor].name or b"").decode("utf-8", "replace")
