"""What the cases are built of: sizes, and short ways to a model of one layer."""

from __future__ import annotations

from typing import Any

from keras_models import Build, Layers

UNITS = 18  # a state row of more than 64 bytes, the alignment of an interpreter's tensors
BOOLS = (False, True)


def options(**values: bool) -> str:
    """The names of the options that are on."""
    return "+".join(name for name, on in values.items() if on) or "plain"


def layer(class_name: str, *args: Any, **kwargs: Any) -> Build:
    """One layer called on input x."""
    return lambda K, L, i: getattr(L, class_name)(*args, **kwargs)(i.x)


def masked(class_name: str, *args: Any, **kwargs: Any) -> Build:
    """One layer behind Masking."""
    return lambda K, L, i: getattr(L, class_name)(*args, **kwargs)(L.Masking()(i.x))


def chain(*makers: Any, start: str = "x") -> Build:
    """Layers in a row, each a function of the layers namespace."""

    def build(K: Any, L: Layers, i: Any) -> Any:
        tensor = getattr(i, start)
        for make in makers:
            tensor = make(L)(tensor)
        return tensor

    return build
