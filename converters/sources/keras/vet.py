"""Decides what a Keras config may name, before any Keras sees it.

A config is a program for the deserializer: "module" and "class_name" pick what is called, "config"
gives the arguments. Here every such entry is either one of Keras's own building blocks, or the
user's custom object, or refused.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from edgelstm.converters.options import CodePolicy
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.sources.keras.files import Config
from edgelstm.errors import UnreadableModelError, UnsafeModelError, UnsupportedModelError

_ROOT = re.compile(
    r"^(?:tensorflow\.python\.keras|tensorflow\.keras|tf_keras|keras_core|keras)"
    r"(?:\.src|\.api|\._v2|\._v1|\.keras|\._tf_keras)*(?:\.|$)"
)
_CLASS_MODULES = frozenset(
    "layers models engine initializers regularizers constraints activations losses metrics "
    "optimizers dtype_policies mixed_precision quantizers ops random".split()
)
_FUNCTION_MODULES = frozenset(
    "activations initializers regularizers constraints losses metrics ops nn".split()
)
_PLAIN = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__",
                    "__slice__", "__tuple__", "__typespec__"})  # fmt: skip
# Layers that load or run something beyond the file's config.
_OUTSIDE = {
    "TFSMLayer": "loads a SavedModel from a path in the file",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "JaxLayer": "runs a serialized JAX function",
    "FlaxLayer": "runs a serialized Flax module",
    "ClassMethod": "calls a method by name",
    "InstanceMethod": "calls a method by name",
}
_VOCABULARY = ("StringLookup", "IntegerLookup", "TextVectorization")
# TFOpLambda calls a TensorFlow function by name: those that only compute.
_TF_MODULES = frozenset(
    "math nn linalg signal bitwise image strings sparse ragged random quantization sets "
    "__operators__".split()
)
_TF_FUNCTIONS = frozenset(
    "abs acos add add_n argmax argmin argsort asin atan atan2 batch_to_space boolean_mask "
    "broadcast_to cast ceil clip_by_norm clip_by_value complex concat constant "
    "convert_to_tensor cos cosh cumsum divide edit_distance einsum ensure_shape equal exp "
    "expand_dims eye fill floor floordiv gather gather_nd greater greater_equal identity less "
    "less_equal linspace logical_and logical_not logical_or matmul maximum meshgrid minimum mod "
    "multiply negative norm not_equal one_hot ones ones_like pad pow range rank realdiv "
    "reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod "
    "reduce_sum repeat reshape reverse reverse_sequence roll round rsqrt scalar_mul scatter_nd "
    "searchsorted sequence_mask shape sigmoid sign sin sinh size slice sort split sqrt square "
    "squared_difference squeeze stack stop_gradient strided_slice subtract tan tanh "
    "tensor_scatter_nd_update tensordot tile to_float to_int32 transpose truediv unstack where "
    "zeros zeros_like".split()
)
_NODE_OP = re.compile(r"""\bop["']?\s*:\s*["'](\w+)["']""")
_UNSAFE_NODE = re.compile(
    r"File|Save|Restore|PyFunc|Print|Dataset|Iterator|Library|Summary|Reader|Dump|Queue|Remote|Host"
)
_TF_OP_LAYER = "keras.src.layers.core.tf_op_layer"
# Classes that are not where their module key says in every version of Keras.
_HOMES = {
    KerasEngine.KERAS3: {
        "Sequential": "keras",
        "Model": "keras",
        "Functional": "keras.src.models.functional",
    },
    KerasEngine.TF_KERAS: {
        "Sequential": "keras",
        "Model": "keras",
        "Functional": "keras.src.engine.functional",
        "TFOpLambda": _TF_OP_LAYER,
        "SlicingOpLambda": _TF_OP_LAYER,
        "InstanceProperty": _TF_OP_LAYER,
        "TensorFlowOpLayer": _TF_OP_LAYER,
    },
}
_PUBLIC = ("layers", "initializers", "regularizers", "constraints", "optimizers", "losses",
           "metrics", "dtype_policies", "mixed_precision")  # fmt: skip
_FUNCTIONS = ("activations", "initializers", "regularizers", "constraints", "losses", "metrics")
_ACTIVATIONS = frozenset({"activation", "recurrent_activation"})
_NEVER = sys.stdlib_module_names | {"tensorflow", "numpy", "builtins", "torch", "jax"}
_ALLOW = "--allow-code, if you trust where the file comes from"


@dataclasses.dataclass(frozen=True)
class Vetting:
    """What is allowed for one file under one engine.

    Attributes:
        custom: custom objects by every name they answer to.
        where: the file, for messages.
    """

    engine: KerasEngine
    custom: Mapping[str, Any]
    code: CodePolicy
    where: str

    def check(self, config: Config) -> Config:
        """Returns `config` with custom objects resolved and modules in the engine's own names.

        Raises:
            UnsafeModelError: an entry would run code or reach outside of the file.
            UnsupportedModelError: an entry names a class or function that is not there.
        """
        vetted = self._node(config, "(model)")
        assert isinstance(vetted, dict)
        return vetted

    def _node(self, node: Any, layer: str) -> Any:
        if isinstance(node, list):
            return [self._node(item, layer) for item in node]
        if not isinstance(node, dict):
            return node
        if "class_name" in node:
            return self._entry(node, layer)
        return {key: self._node(value, layer) for key, value in node.items()}

    def _entry(self, entry: Config, layer: str) -> Config:
        kind, inner = entry["class_name"], entry.get("config")
        if not isinstance(kind, str):
            raise UnreadableModelError(
                f"An entry of the model description has the class name {kind!r}.",
                where=f"{self.where}: layer {layer}",
            )
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            layer = inner["name"]
        if kind == "__lambda__":
            self._refuse_code("a lambda as Python bytecode", layer)
            return entry
        if kind in _PLAIN:
            self._plain(entry, layer)
        elif kind == "function":
            return self._function(entry, layer)
        resolved = dict(entry)
        if kind not in _PLAIN:
            resolved = self._class(entry, kind, layer)
            self._special(kind, inner if isinstance(inner, dict) else {}, layer)
        return {
            key: self._node(value, layer) if isinstance(value, (dict, list)) else value
            for key, value in resolved.items()
        }

    def _plain(self, entry: Config, layer: str) -> None:
        module = entry.get("module")
        if entry["class_name"] == "__typespec__" and not str(module).startswith("tensorflow."):
            raise self._unsafe(f"a type from the module {module!r}", layer)

    def _class(self, entry: Config, kind: str, layer: str) -> Config:
        module, registered = entry.get("module"), entry.get("registered_name")
        names = [name for name in (registered, kind) if isinstance(name, str)]
        operation = self._operation_module(entry, kind)
        if operation is not None:
            return {**entry, "module": operation, "registered_name": None}
        foreign = isinstance(registered, str) and ">" in registered
        own = None if foreign else self._own_module(module, kind, layer)
        if own is None or (kind in self.custom and not self._is_builtin(kind)):
            for name in (*names, *(name.rpartition(">")[2] for name in names)):
                if name not in self.custom:
                    continue
                if "module" not in entry:
                    return {**entry, "class_name": name}
                return {**entry, "module": None, "registered_name": name}
            raise self._missing(kind, module, registered, layer)
        if module is None:
            return entry
        return {**entry, "module": own, "registered_name": None}

    def _own_module(self, module: Any, kind: str, layer: str) -> str | None:
        """Where the engine keeps the Keras class `kind`; None when it is no class of Keras."""
        if module is None:
            return "keras.layers" if self._is_builtin(kind) else None
        head, rest = _split(module)
        if head is None:
            if _is_library(module):
                raise self._unsafe(f"{module}.{kind}", layer)
            return None
        if head and head not in _CLASS_MODULES:
            raise self._unsafe(f"{module}.{kind}", layer)
        if kind in _HOMES[self.engine]:
            return _HOMES[self.engine][kind]
        if head in ("layers", "engine") and self._is_builtin(kind):
            return "keras.layers"
        return f"keras.src.{rest}" if ".src." in module else f"keras.{rest}".rstrip(".")

    def _operation_module(self, entry: Config, kind: str) -> str | None:
        """Where Keras 3 has the operation `kind` of an .h5 file, which does not tell the module.

        Operations share names with layers; their options never say whether they train.
        """
        config = entry.get("config")
        if self.engine is not KerasEngine.KERAS3 or "module" in entry or kind in self.custom:
            return None
        if kind == "InputLayer" or not isinstance(config, dict) or "inbound_nodes" not in entry:
            return None
        if not config.keys().isdisjoint({"trainable", "dtype"}):
            return None
        for part in ("numpy", "core", "math", "nn", "linalg", "image"):
            name = f"keras.src.ops.{part}"
            found = getattr(importlib.import_module(name), kind, None)
            if isinstance(found, type) and issubclass(found, self.engine.module.Operation):
                return name
        return None

    def _is_builtin(self, kind: str) -> bool:
        if kind in _HOMES[self.engine]:
            return True
        parts = (getattr(self.engine.module, part, None) for part in _PUBLIC)
        return any(hasattr(part, kind) for part in parts)

    def _function(self, entry: Config, layer: str) -> Config:
        name, module = entry.get("config"), entry.get("module")
        if not isinstance(name, str):
            raise UnreadableModelError(
                "A function of the model description has no name.",
                where=f"{self.where}: layer {layer}",
            )
        for candidate in (entry.get("registered_name"), name, name.rpartition(">")[2]):
            if isinstance(candidate, str) and candidate in self.custom:
                return {**entry, "config": candidate, "module": "builtins"}
        if module in (None, "builtins"):
            if self._has_function(name):
                return entry
            raise self._missing(name, None, None, layer, "function")
        head, _ = _split(module)
        if head in _FUNCTION_MODULES:
            return entry
        if head is not None or _is_library(module):
            raise self._unsafe(f"the function {module}.{name}", layer)
        raise self._missing(name, module, None, layer, "function")

    def _has_function(self, name: str) -> bool:
        parts = (getattr(self.engine.module, part, None) for part in (*_FUNCTIONS, "layers"))
        return any(hasattr(part, name) for part in parts)

    def _special(self, kind: str, config: Config, layer: str) -> None:
        if kind in self.custom:
            return
        if kind in _OUTSIDE and self.code is CodePolicy.REFUSE:
            raise UnsafeModelError(
                f"Layer {layer} ({kind}) {_OUTSIDE[kind]}.", where=self.where, cure=_ALLOW
            )
        for key in _ACTIVATIONS & config.keys():
            name = config[key]
            if isinstance(name, str) and name not in self.custom:
                if not self._has_function(name):
                    raise self._missing(name, None, None, layer, "activation function")
        if kind == "Lambda":
            self._lambda(config, layer)
        if kind == "TFOpLambda":
            self._tf_function(config.get("function"), layer)
        if kind == "TensorFlowOpLayer":
            ops = _NODE_OP.findall(str(config.get("node_def")))
            if len(ops) != 1 or _UNSAFE_NODE.search(ops[0]):
                raise self._unsafe(f"the TensorFlow op {', '.join(ops) or '(unknown)'}", layer)
        if kind in _VOCABULARY and isinstance(config.get("vocabulary"), str):
            raise self._unsafe(f"a vocabulary file ({config['vocabulary']!r})", layer)

    def _lambda(self, config: Config, layer: str) -> None:
        for key in ("function", "output_shape", "mask"):
            value, kind = config.get(key), config.get(f"{key}_type")
            is_entry = isinstance(value, dict) and value.get("class_name") == "function"
            if kind == "lambda" or (key == "function" and isinstance(value, (dict, list))):
                if not is_entry:
                    self._refuse_code("its function as Python bytecode", layer)
            elif isinstance(value, dict) and value.get("class_name") == "__lambda__":
                self._refuse_code(f"its {key} as Python bytecode", layer)
            elif key == "function" and isinstance(value, str) and value not in self.custom:
                raise self._missing(value, None, None, layer, "function")

    def _tf_function(self, name: Any, layer: str) -> None:
        if not isinstance(name, str):
            raise self._unsafe(f"the TensorFlow function {name!r}", layer)
        parts = re.sub(r"^(compat\.v[12]\.)+", "", name).split(".")
        safe = parts[0] in _TF_FUNCTIONS if len(parts) == 1 else parts[0] in _TF_MODULES
        if parts[:2] == ["experimental", "numpy"] or parts[:2] == ["keras", "activations"]:
            safe = True
        if not safe:
            raise self._unsafe(f"the TensorFlow function tf.{name}", layer)

    def _refuse_code(self, what: str, layer: str) -> None:
        if self.code is CodePolicy.REFUSE:
            raise UnsafeModelError(
                f"Layer {layer} carries {what}; loading the file would run code from it.",
                where=self.where,
                cure=f"replace the layer by a registered one, or use {_ALLOW}",
            )

    def _unsafe(self, what: str, layer: str) -> UnsafeModelError:
        return UnsafeModelError(
            f"Layer {layer} names {what}; a model has no need of it, and calling it could do harm.",
            where=self.where,
            cure="if it is your own class or function, give it with --custom-objects",
        )

    def _missing(
        self, name: str, module: Any, registered: Any, layer: str, noun: str = "class"
    ) -> UnsupportedModelError:
        known = f" (registered as {registered!r})" if registered not in (None, name) else ""
        known += f" from the module {module!r}" if module else ""
        return UnsupportedModelError(
            f"Layer {layer} needs the custom {noun} {name}{known}, which is not in the file.",
            where=self.where,
            cure=f"give the Python file that defines {name} with --custom-objects MODULE.py",
        )


def _split(module: Any) -> tuple[str | None, str]:
    """The first part after Keras's own root names and the rest; None for other packages."""
    match = _ROOT.match(module) if isinstance(module, str) else None
    if match is None:
        return None, ""
    rest = module[match.end() :]
    return rest.split(".")[0], rest


def _is_library(module: Any) -> bool:
    return not isinstance(module, str) or module.split(".")[0] in _NEVER
