"""Fits the options of each layer to the Keras that will build it.

An option that the engine does not know is dropped with a note when it has no effect at inference,
and is an error when it has one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.sources.keras.files import Config
from edgelstm.errors import UnsupportedModelError

_MODELS = frozenset({"Sequential", "Functional", "Model"})
# What Layer.__init__ takes through **kwargs.
_LAYER = {
    KerasEngine.KERAS3: frozenset({"input_dim", "input_shape"}),
    KerasEngine.TF_KERAS: frozenset(
        "input_dim input_shape batch_input_shape batch_size activity_regularizer autocast "
        "implementation dynamic trainable name dtype".split()
    ),
}
_NO_EFFECT = frozenset(
    "implementation consume_less use_cudnn input_length input_dtype seed trainable optional "
    "unit_forget_bias dropout recurrent_dropout noise_shape autocast dynamic "
    "experimental_autocast gamma_regularizer beta_regularizer synchronized momentum "
    "renorm_momentum renorm_clipping virtual_batch_size fused".split()
)
_OFF: tuple[Any, ...] = (None, False, 0, 0.0, "", [], {})
_INITIALIZERS = "_initializer"
_TRAINING_ONLY = ("_regularizer", "_constraint")


def fitted(
    config: Config,
    engine: KerasEngine,
    custom: Mapping[str, Any],
    note: Callable[[str], None],
    where: str,
) -> Config:
    """Returns `config` with only options that the engine's layers take.

    Raises:
        UnsupportedModelError: a layer has an unknown option with an effect.
    """
    fitting = _Fitting(engine, custom, where)
    walked = fitting.walk(config)
    for option, layers in fitting.dropped.items():
        note(f"the option {option} has no effect here and was left out ({', '.join(layers)})")
    return _outermost(walked, engine)


@dataclasses.dataclass(frozen=True)
class _Fitting:
    engine: KerasEngine
    custom: Mapping[str, Any]
    where: str
    dropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def walk(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        walked = {key: self.walk(value) for key, value in node.items()}
        kind, inner = walked.get("class_name"), walked.get("config")
        if isinstance(kind, str) and isinstance(inner, dict) and kind not in self.custom:
            layer_class = getattr(self.engine.module.layers, kind, None)
            if inspect.isclass(layer_class) and kind not in _MODELS:
                walked["config"] = self._layer(kind, layer_class, inner)
        return walked

    def _layer(self, kind: str, layer_class: type, config: Config) -> Config:
        name = config.get("name", kind)
        config = self._defaults(kind, config)
        accepted = _accepted(layer_class, self.engine)
        kept: Config = {}
        for key, value in config.items():
            if key.endswith(_INITIALIZERS):
                # Weights come from the file; an orthogonal start would cost seconds.
                kept[key] = "zeros"
            elif key.endswith(_TRAINING_ONLY):
                kept[key] = None
            elif key in accepted:
                kept[key] = value
            elif key in _NO_EFFECT or value in _OFF:
                self.dropped.setdefault(f"{key}={value!r}", []).append(name)
            else:
                raise UnsupportedModelError(
                    f"Layer {name} ({kind}) has the option {key}={value!r}, which "
                    f"{self.engine.title} does not know.",
                    where=self.where,
                    cure="save the model with a released version of Keras",
                )
        return {key: value for key, value in kept.items() if key in accepted}

    def _defaults(self, kind: str, config: Config) -> Config:
        config = dict(config)
        if kind == "GRU" and "reset_after" not in config:
            # The option came with Keras 2.2; before, there was only the other form.
            config["reset_after"] = False
        if self.engine is KerasEngine.KERAS3 and "batch_input_shape" in config:
            shape = config.pop("batch_input_shape")
            if kind == "InputLayer":
                config["batch_shape"] = shape
        if self.engine is KerasEngine.TF_KERAS and "batch_shape" in config:
            config["batch_input_shape"] = config.pop("batch_shape")
        if self.engine is KerasEngine.TF_KERAS and isinstance(config.get("dtype"), dict):
            policy = config["dtype"].get("config")
            if isinstance(policy, dict) and isinstance(policy.get("name"), str):
                config["dtype"] = policy["name"]
        return config


def _accepted(layer_class: type, engine: KerasEngine) -> frozenset[str]:
    """Option names that the constructors of a class and its bases take.

    Names that a constructor or from_config takes out of **kwargs stand in its constants.
    """
    names: set[str] = set(_LAYER[engine])
    for base in layer_class.__mro__:
        if "from_config" in vars(base):
            names |= _constants(vars(base)["from_config"])
        if "__init__" in vars(base):
            constructor = inspect.unwrap(vars(base)["__init__"])
            if not inspect.isfunction(constructor):
                break
            names |= _constants(constructor)
            parameters = inspect.signature(constructor).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return frozenset(names - {"self", "args", "kwargs"})


def _constants(function: Any) -> set[str]:
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    return {item for item in code.co_consts if isinstance(item, str)} if code else set()


def _outermost(config: Config, engine: KerasEngine) -> Config:
    """The outermost entry as the engine's deserializer wants it."""
    if engine is KerasEngine.KERAS3 and "module" not in config:
        config = {**config, "module": "keras", "registered_name": None}
        if config["class_name"] in ("Functional", "Model"):
            config.update(module="keras.src.models.functional", class_name="Functional")
    return config
