"""An operator of a subgraph, seen through its record in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelstm.converters.flatbuffer import schema
from edgelstm.converters.flatbuffer.tensor import Tensor, text
from edgelstm.errors import UnreadableModelError

if TYPE_CHECKING:
    from edgelstm.converters.flatbuffer.subgraph import Subgraph

ABSENT = -1


class Op:
    """View of one operator. Tensor indices are those of its subgraph; -1 is an absent input."""

    def __init__(self, subgraph: Subgraph, raw: Any) -> None:
        self.subgraph = subgraph
        self._raw = raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and other._raw is self._raw

    def __hash__(self) -> int:
        return id(self._raw)

    def __repr__(self) -> str:
        return f"Op({self.custom_code or self.name}, {self.inputs} -> {self.outputs})"

    @property
    def _code(self) -> Any:
        return self.subgraph.model._raw.operatorCodes[self._raw.opcodeIndex]

    @property
    def name(self) -> str:
        """Builtin operator name, `CUSTOM` for custom ones."""
        code = max(self._code.builtinCode, self._code.deprecatedBuiltinCode)
        return schema.op_names().get(code, f"UNKNOWN_{code}")

    @property
    def custom_code(self) -> str:
        """Name of a custom operator; empty for builtin ones."""
        return text(self._code.customCode) if self.name == "CUSTOM" else ""

    @property
    def version(self) -> int:
        return int(self._code.version)

    @version.setter
    def version(self, value: int) -> None:
        self._raw.opcodeIndex = self.subgraph.model._op_code(self.name, self.custom_code, value)

    @property
    def inputs(self) -> list[int]:
        """Tensor indices; changing the list changes the operator."""
        return self._raw.inputs  # type: ignore[no-any-return]

    @inputs.setter
    def inputs(self, value: Sequence[int]) -> None:
        self._raw.inputs = [int(index) for index in value]

    @property
    def outputs(self) -> list[int]:
        """Tensor indices; changing the list changes the operator."""
        return self._raw.outputs  # type: ignore[no-any-return]

    @outputs.setter
    def outputs(self, value: Sequence[int]) -> None:
        self._raw.outputs = [int(index) for index in value]

    @property
    def intermediates(self) -> list[int]:
        """Tensor indices of intermediates (int8 LSTM)."""
        return self._raw.intermediates  # type: ignore[no-any-return]

    @intermediates.setter
    def intermediates(self, value: Sequence[int]) -> None:
        self._raw.intermediates = [int(index) for index in value]

    def input(self, position: int) -> Tensor | None:
        """The tensor at an input position; None when absent."""
        if position >= len(self.inputs) or self.inputs[position] == ABSENT:
            return None
        return self.subgraph.tensor(self.inputs[position])

    def output(self, position: int) -> Tensor:
        """The tensor at an output position.

        Raises:
            UnreadableModelError: the operator has no such output.
        """
        if not 0 <= position < len(self.outputs) or self.outputs[position] == ABSENT:
            raise UnreadableModelError(
                f"operator {self.name} has no output {position}", where=self.subgraph.name
            )
        return self.subgraph.tensor(self.outputs[position])

    def option(self, field: str) -> Any:
        """One builtin option by its schema name (`cell_clip`).

        Raises:
            UnreadableModelError: the operator's options lack the field.
        """
        options = self._raw.builtinOptions
        if options is None:
            options = _new_options(self.name)
        try:
            return getattr(options, schema.camel(field))
        except AttributeError:
            raise UnreadableModelError(
                f"operator {self.name} has no option {field}", where=self.subgraph.name
            ) from None

    def options(self) -> tuple[tuple[str, str], ...]:
        """All builtin options as text, to compare operators of one name with."""
        options = self._raw.builtinOptions
        fields = {} if options is None else vars(options)
        return tuple(sorted((field, repr(value)) for field, value in fields.items()))

    def set_option(self, field: str, value: Any) -> None:
        """Sets one builtin option by its schema name."""
        if self._raw.builtinOptions is None:
            self.set_options({})
        if not hasattr(self._raw.builtinOptions, schema.camel(field)):
            raise KeyError(f"{self.name} has no option {field}")
        setattr(self._raw.builtinOptions, schema.camel(field), value)

    def set_options(self, options: Mapping[str, Any]) -> None:
        """Replaces all builtin options; fields not named take the schema's defaults."""
        name = schema.options_of(self.name)
        if name is None:
            if options:
                raise KeyError(f"{self.name} has no options")
            return
        self._raw.builtinOptions = _new_options(self.name)
        self._raw.builtinOptionsType = schema.options_code(name)
        for field, value in options.items():
            self.set_option(field, value)

    @property
    def custom_options(self) -> bytes:
        """Raw options of a custom operator."""
        raw = self._raw.customOptions
        return b"" if raw is None else bytes(raw)

    @custom_options.setter
    def custom_options(self, value: bytes) -> None:
        self._raw.customOptions = np.frombuffer(value, np.uint8) if value else None

    def called_subgraphs(self) -> list[int]:
        """Indices of subgraphs that the operator runs (WHILE, IF, CALL_ONCE, ...)."""
        found = []
        for options, field in self._subgraph_fields():
            value = getattr(options, field)
            values = value if isinstance(value, list | np.ndarray) else [value]
            found += [int(index) for index in values if index is not None]
        return found

    def renumber_subgraphs(self, place: Mapping[int, int]) -> None:
        """Replaces the index of every subgraph that the operator runs."""
        for options, field in self._subgraph_fields():
            value = getattr(options, field)
            if isinstance(value, list | np.ndarray):
                setattr(options, field, [place[int(index)] for index in value])
            elif value is not None:
                setattr(options, field, place[int(value)])

    def _subgraph_fields(self) -> Iterator[tuple[Any, str]]:
        for options in (self._raw.builtinOptions, self._raw.builtinOptions2):
            for field in vars(options) if options is not None else ():
                if field.lower().endswith(("subgraphindex", "subgraph", "subgraphindices")):
                    yield options, field


def _new_options(op_name: str) -> Any:
    name = schema.options_of(op_name)
    return None if name is None else getattr(schema.module(), name + "T")()
