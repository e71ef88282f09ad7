"""A subgraph of a model: its tensors and operators, and edits that keep them consistent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelstm.converters.flatbuffer import schema
from edgelstm.converters.flatbuffer.op import ABSENT, Op
from edgelstm.converters.flatbuffer.tensor import Quantization, Tensor, text
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError

if TYPE_CHECKING:
    from edgelstm.converters.flatbuffer.model import Model

# Operators that do something besides computing their outputs; the calling ones where what they
# call does.
_EFFECTFUL = frozenset(
    "CUSTOM CALL CALL_ONCE ASSIGN_VARIABLE HASHTABLE_IMPORT DELEGATE "
    "STABLEHLO_CUSTOM_CALL STABLEHLO_WHILE STABLEHLO_CASE".split()
)
_CALLING = frozenset(("WHILE", "IF"))
# Custom operators that do nothing but compute their outputs.
_COMPUTING = frozenset(("FlexTensorListReserve", "FlexTensorListStack", "FlexTensorListSetItem"))
# RESHAPE and DEQUANTIZE; a bound, since a damaged file may hold a cycle.
_LONGEST_WIDENING = 2


class Subgraph:
    """View of one subgraph. Tensor indices change only in `prune`."""

    def __init__(self, model: Model, index: int, raw: Any) -> None:
        self.model = model
        self.index = index
        self._raw = raw

    @property
    def name(self) -> str:
        """Name, or `subgraph N` when it has none."""
        return text(self._raw.name) or f"subgraph {self.index}"

    @property
    def inputs(self) -> list[int]:
        """Indices of the input tensors; changing the list changes the subgraph."""
        return self._raw.inputs  # type: ignore[no-any-return]

    @inputs.setter
    def inputs(self, value: Sequence[int]) -> None:
        self._raw.inputs = [int(index) for index in value]

    @property
    def outputs(self) -> list[int]:
        """Indices of the output tensors; changing the list changes the subgraph."""
        return self._raw.outputs  # type: ignore[no-any-return]

    @outputs.setter
    def outputs(self, value: Sequence[int]) -> None:
        self._raw.outputs = [int(index) for index in value]

    @property
    def tensors(self) -> list[Tensor]:
        return [Tensor(self, index, raw) for index, raw in enumerate(self._raw.tensors)]

    def tensor(self, index: int) -> Tensor:
        """The tensor of an index >= 0."""
        if index < 0:
            raise IndexError(f"tensor index {index}")
        return Tensor(self, index, self._raw.tensors[index])

    @property
    def ops(self) -> list[Op]:
        """The operators in execution order."""
        return [Op(self, raw) for raw in self._raw.operators]

    def find(self, name: str) -> list[Op]:
        """Operators of a builtin name (`FILL`) or a custom code, in execution order."""
        return [op for op in self.ops if name == (op.custom_code or op.name)]

    def producer(self, tensor: int) -> Op | None:
        """The last operator that writes a tensor."""
        return next((op for op in reversed(self.ops) if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[Op]:
        """Operators that read a tensor, in execution order."""
        return [op for op in self.ops if tensor in op.inputs]

    def stored(self, tensor: int) -> Tensor:
        """The constant that a tensor is widened from, through RESHAPE and DEQUANTIZE; or itself."""
        found = self.tensor(tensor)
        for _ in range(_LONGEST_WIDENING):
            producer = None if found.constant else self.producer(found.index)
            if producer is None or producer.name not in ("DEQUANTIZE", "RESHAPE"):
                break
            found = producer.input(0) or found
        return found if found.constant else self.tensor(tensor)

    def position(self, op: Op) -> int:
        """Place of an operator in execution order."""
        return next(i for i, raw in enumerate(self._raw.operators) if raw is op._raw)

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        data: Array | None = None,
        is_variable: bool = False,
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a tensor and returns its index.

        Args:
            name: made unique by a suffix when the subgraph has it already.
            shape: -1 where the size is dynamic.
            data: constant content, whose shape and dtype then win over `shape` and `dtype`.
        """
        raw = schema.module().TensorT()
        taken = self._names()
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        raw.name = unique
        taken.add(unique)
        raw.buffer = 0
        tensor = Tensor(self, len(self._raw.tensors), raw)
        tensor.dtype = dtype
        tensor.set_shape(tuple(int(size) for size in shape))
        tensor.is_variable = is_variable
        tensor.quantization = quantization
        if data is not None:
            tensor.set_data(data)
        self._raw.tensors.append(raw)
        return tensor.index

    def _names(self) -> set[str]:
        """Names of the tensors: gathered once, since unrolled recurrences add thousands."""
        cached: tuple[list[Any], set[str]] | None = getattr(self._raw, "_names", None)
        if cached is None or cached[0] is not self._raw.tensors:
            cached = (self._raw.tensors, {tensor.name for tensor in self.tensors})
            self._raw._names = cached
        return cached[1]

    def renamed(self) -> None:
        """Tells that a tensor's name was changed."""
        self._raw._names = None

    def add_constant(self, name: str, data: Array) -> int:
        """Adds a constant tensor of its own (never a shared one) and returns its index."""
        return self.add_tensor(name, data.shape, data=data)

    def add_op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        options: Mapping[str, Any] | None = None,
        version: int = 1,
        before: Op | None = None,
        after: Op | None = None,
        custom_options: bytes = b"",
    ) -> Op:
        """Adds an operator: before or after a given one, else at the end.

        Args:
            name: builtin name (`FILL`), else the name of a custom operator.
            options: builtin options by schema name; others keep the schema's defaults.
        """
        custom = name not in schema.op_codes()
        raw = schema.module().OperatorT()
        raw.inputs = [int(index) for index in inputs]
        raw.outputs = [int(index) for index in outputs]
        raw.intermediates = []
        raw.opcodeIndex = self.model._op_code(
            "CUSTOM" if custom else name, name if custom else "", version
        )
        op = Op(self, raw)
        if custom:
            op.custom_options = custom_options
        else:
            op.set_options(options or {})
        place = len(self._raw.operators)
        if before is not None:
            place = self.position(before)
        elif after is not None:
            place = self.position(after) + 1
        self._raw.operators.insert(place, raw)
        return op

    def remove_op(self, op: Op) -> None:
        """Removes an operator; its tensors stay until `prune`."""
        del self._raw.operators[self.position(op)]

    def rewire(self, old: int, new: int) -> None:
        """Makes every reader of a tensor, subgraph outputs and signatures read another."""
        for op in self.ops:
            op.inputs = [new if index == old else index for index in op.inputs]
        self.outputs = [new if index == old else index for index in self.outputs]
        for signature in self.model.signatures:
            if signature.subgraph == self.index:
                signature.replace_output(old, new)

    def sort(self) -> None:
        """Puts every operator behind one that writes what it reads, else keeps their order.

        Of several writers of a tensor an operator stays behind those that stand before it.

        Raises:
            UnreadableModelError: operators wait for each other.
        """
        ops = self.ops
        writers: dict[int, list[int]] = {}
        for place, op in enumerate(ops):
            for tensor in op.outputs:
                writers.setdefault(tensor, []).append(place)
        needs: list[set[int]] = []
        for place, op in enumerate(ops):
            need: set[int] = set()
            for tensor in op.inputs:
                known = writers.get(tensor, [])
                need.update([w for w in known if w < place] or [w for w in known if w > place])
            needs.append(need)
        order: list[int] = []
        done: set[int] = set()
        waiting = list(range(len(ops)))
        while waiting:
            later = []
            for place in waiting:
                if needs[place] <= done:
                    order.append(place)
                    done.add(place)
                else:
                    later.append(place)
            if len(later) == len(waiting):
                raise UnreadableModelError("its operators wait for each other", where=self.name)
            waiting = later
        self._raw.operators = [ops[place]._raw for place in order]

    def prune(self) -> None:
        """Drops operators without effect on outputs, then tensors that nothing names.

        Tensor indices change. Inputs of the subgraph stay even when nothing reads them.
        """
        self._prune_ops()
        self._prune_tensors()

    def _prune_ops(self) -> None:
        variables = {tensor.index for tensor in self.tensors if tensor.is_variable}
        needed = set(self.outputs)
        kept: set[Op] = set()
        acting = {op for op in self.ops if _acts(op, frozenset())}
        before = -1
        # A variable may be read by an operator that runs before its writer, in the next call.
        while len(kept) != before:
            before = len(kept)
            for op in reversed(self.ops):
                written = {*op.outputs, *variables.intersection(op.inputs)}
                if op in acting or not needed.isdisjoint(written):
                    kept.add(op)
                    needed.update(op.inputs)
        self._raw.operators = [op._raw for op in self.ops if op in kept]

    def _prune_tensors(self) -> None:
        used = {*self.inputs, *self.outputs}
        for op in self.ops:
            used.update(op.inputs, op.outputs, op.intermediates)
        for signature in self.model.signatures:
            if signature.subgraph == self.index:
                used.update(signature.inputs.values(), signature.outputs.values())
        used.discard(ABSENT)
        order = sorted(used)
        renumber = {old: new for new, old in enumerate(order)} | {ABSENT: ABSENT}
        self._raw.tensors = [self._raw.tensors[old] for old in order]
        self.inputs = [renumber[index] for index in self.inputs]
        self.outputs = [renumber[index] for index in self.outputs]
        for op in self.ops:
            op.inputs = [renumber[index] for index in op.inputs]
            op.outputs = [renumber[index] for index in op.outputs]
            op._raw.intermediates = [renumber[index] for index in op.intermediates]
        for signature in self.model.signatures:
            if signature.subgraph == self.index:
                signature.renumber(renumber)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)


def _acts(op: Op, within: frozenset[int]) -> bool:
    """Whether an operator does more than to compute its outputs.

    Args:
        within: subgraphs that call the operator; what calls itself, in a damaged file, acts.
    """
    if op.name not in _CALLING:
        return op.name in _EFFECTFUL and op.custom_code not in _COMPUTING
    called = frozenset(op.called_subgraphs())
    if called & within:
        return True
    model = op.subgraph.model
    return any(_acts(o, within | called) for index in called for o in model.subgraphs[index].ops)


def as_int32(*values: int) -> Array:
    """A rank-1 int32 array, as shape and axis inputs of operators need it."""
    return np.asarray(values, np.int32)
