"""The LSTM layer and its own options."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import FUSED, LOOP, Case, Layers

from edgelstm.converters.frameworks import tensorflow
from keras_cases.build import BOOLS, UNITS, chain, layer, masked, options


def lstm_returns() -> Iterator[Case]:
    for sequences, state, back, bias in itertools.product(BOOLS, repeat=4):
        keywords = {
            "return_sequences": sequences,
            "return_state": state,
            "go_backwards": back,
            "use_bias": bias,
        }
        yield Case(options(**keywords), layer("LSTM", UNITS, **keywords), (FUSED,))


def lstm_unrolled() -> Iterator[Case]:
    for sequences, state, back in itertools.product(BOOLS, repeat=3):
        keywords = {
            "return_sequences": sequences,
            "return_state": state,
            "go_backwards": back,
            "unroll": True,
        }
        yield Case(options(**keywords), layer("LSTM", UNITS, **keywords), (FUSED,))
    yield Case("masked+unroll", masked("LSTM", UNITS, unroll=True, return_state=True), (FUSED,))
    yield Case("gru+unroll", layer("GRU", UNITS, unroll=True, return_sequences=True), (LOOP,))
    yield Case(
        "hard_sigmoid+unroll",
        layer("LSTM", UNITS, unroll=True, recurrent_activation="hard_sigmoid"),
        (LOOP,),
    )


def lstm_time_major() -> Iterator[Case]:
    for sequences, state, back in itertools.product(BOOLS, repeat=3):
        keywords = {
            "return_sequences": sequences,
            "return_state": state,
            "go_backwards": back,
            "time_major": True,
        }
        yield Case(options(**keywords), layer("LSTM", UNITS, **keywords), (FUSED,))
    for sequences, back in itertools.product(BOOLS, repeat=2):
        keywords = {"return_sequences": sequences, "go_backwards": back, "time_major": True}
        name = options(hard_sigmoid=True, **keywords)
        yield Case(
            name, layer("LSTM", UNITS, recurrent_activation="hard_sigmoid", **keywords), (LOOP,)
        )
        name = options(gru=True, **keywords)
        yield Case(name, layer("GRU", UNITS, **keywords), (LOOP,))
    yield Case("masked", masked("LSTM", UNITS, time_major=True, return_state=True), (FUSED,))
    yield Case("gru+masked", masked("GRU", UNITS, time_major=True, return_state=True), (LOOP,))


def time_major_inside() -> Iterator[Case]:
    def swap(L: Layers) -> Any:
        return L.Lambda(lambda x: tensorflow().transpose(x, [1, 0, 2]))

    for state, class_name in itertools.product(BOOLS, ["LSTM", "GRU"]):
        lowering = FUSED if class_name == "LSTM" else LOOP

        def build(K: Any, L: Layers, i: Any, state: bool = state, kind: str = class_name) -> Any:
            first = getattr(L, kind)(UNITS, time_major=True, return_sequences=True)(swap(L)(i.x))
            last = getattr(L, kind)(
                UNITS, time_major=True, return_sequences=True, return_state=state
            )(first)
            if state:
                return [swap(L)(last[0]), *last[1:]]
            return swap(L)(last)

        yield Case(options(**{class_name: True, "return_state": state}), build, (lowering,) * 2)


def lstm_activations() -> Iterator[Case]:
    def relu6(x: Any) -> Any:
        return tensorflow().nn.relu6(x)

    activations = ["tanh", "relu", relu6, "sigmoid", "linear", "elu", "softsign", "softmax"]
    for activation, gate in itertools.product(activations, ["sigmoid", "hard_sigmoid", "relu"]):
        name = activation if isinstance(activation, str) else "relu6"
        fused = gate == "sigmoid" and name in ("tanh", "relu", "relu6")
        yield Case(
            f"{name}+{gate}",
            layer("LSTM", UNITS, activation=activation, recurrent_activation=gate),
            (FUSED if fused else LOOP,),
        )


def lstm_other() -> Iterator[Case]:
    yield Case("no_unit_forget_bias", layer("LSTM", UNITS, unit_forget_bias=False), (FUSED,))
    yield Case("dropout", layer("LSTM", UNITS, dropout=0.3), (FUSED,))
    yield Case("recurrent_dropout", layer("LSTM", UNITS, recurrent_dropout=0.3), (FUSED,))
    yield Case(
        "both_dropouts",
        layer("LSTM", UNITS, dropout=0.3, recurrent_dropout=0.2, return_sequences=True),
        (FUSED,),
    )
    yield Case("gru_dropouts", layer("GRU", UNITS, dropout=0.3, recurrent_dropout=0.2), (LOOP,))
    yield Case("one_unit", layer("LSTM", 1, return_state=True), (FUSED,))
    yield Case("regularised", layer("LSTM", UNITS, kernel_regularizer="l2"), (FUSED,))
    yield Case("seventy_units", layer("LSTM", 70, return_sequences=True), (FUSED,))
    yield Case(
        "stack_of_three",
        chain(
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.LSTM(5, return_sequences=True, go_backwards=True),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED, FUSED, FUSED),
    )
    yield Case(
        "residual",
        lambda K, L, i: L.Add()([L.LSTM(4, return_sequences=True)(i.x), i.x]),
        (FUSED,),
    )
