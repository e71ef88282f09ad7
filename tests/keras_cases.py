"""The matrix: every combination of Keras layer options, in groups that share a conversion."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import BOTH, FUSED, LOOP, TF_KERAS, VOCABULARY, Build, Case, Group, Layers

from edgelstm.converters.frameworks import tensorflow

UNITS = 18  # a state row of more than 64 bytes, the alignment of an interpreter's tensors
SEQUENCE = {"x": ((None, 4), "float32")}
FIXED_TIME = {"x": ((6, 4), "float32")}
IDS = {"ids": ((None,), "int32")}
STATES = {
    "x": ((None, 4), "float32"),
    "h": ((UNITS,), "float32"),
    "c": ((UNITS,), "float32"),
    "v": ((6,), "float32"),
    "y": ((None, 3), "float32"),
}
FRAMES_1D = {"x": ((None, 7, 2), "float32")}
FRAMES_2D = {"x": ((None, 6, 5, 2), "float32")}
FRAMES_3D = {"x": ((None, 3, 4, 3, 2), "float32")}
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


def lstm_masked() -> Iterator[Case]:
    for sequences, state, back in itertools.product(BOOLS, repeat=3):
        keywords = {"return_sequences": sequences, "return_state": state, "go_backwards": back}
        yield Case(options(**keywords), masked("LSTM", UNITS, **keywords), (FUSED,))


def loops_masked() -> Iterator[Case]:
    hard = {"recurrent_activation": "hard_sigmoid"}
    for sequences, back in itertools.product(BOOLS, repeat=2):
        keywords = {"return_sequences": sequences, "go_backwards": back}
        name = options(**keywords)
        yield Case(f"hard_{name}", masked("LSTM", UNITS, **hard, **keywords), (LOOP,))
        yield Case(f"gru_{name}", masked("GRU", UNITS, return_state=True, **keywords), (LOOP,))
    yield Case("simple", masked("SimpleRNN", UNITS, return_sequences=True), (LOOP,))
    yield Case(
        "zero_output",
        lambda K, L, i: L.RNN(
            L.LSTMCell(UNITS), return_sequences=True, return_state=True, zero_output_for_mask=True
        )(L.Masking()(i.x)),
        (FUSED,),
    )
    yield Case(
        "zero_output_last",
        lambda K, L, i: L.RNN(L.LSTMCell(UNITS), zero_output_for_mask=True)(L.Masking()(i.x)),
        (FUSED,),
    )
    yield Case(
        "zero_output_gru",
        lambda K, L, i: L.RNN(L.GRUCell(UNITS), return_sequences=True, zero_output_for_mask=True)(
            L.Masking()(i.x)
        ),
        (LOOP,),
    )


def mask_propagation() -> Iterator[Case]:
    def embedding(L: Layers) -> Any:
        return L.Embedding(VOCABULARY, 5, mask_zero=True)

    yield Case("embedding", chain(embedding, lambda L: L.LSTM(UNITS), start="ids"), (FUSED,))
    yield Case(
        "embedding_states",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True, return_state=True),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "stack",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.Dropout(0.5),
            lambda L: L.GRU(6, return_sequences=True),
            lambda L: L.LSTM(UNITS),
            start="ids",
        ),
        (FUSED, FUSED, LOOP),
    )
    yield Case(
        "bidirectional",
        chain(
            embedding,
            lambda L: L.Bidirectional(L.LSTM(UNITS, return_sequences=True)),
            lambda L: L.Bidirectional(L.LSTM(6)),
            start="ids",
        ),
        (FUSED,) * 4,
    )

    def concatenated(K: Any, L: Layers, i: Any) -> Any:
        left = L.Embedding(VOCABULARY, 3, mask_zero=True)(i.ids)
        right = L.Embedding(VOCABULARY, 2, mask_zero=True)(i.ids)
        return L.LSTM(UNITS)(L.Concatenate()([left, right]))

    yield Case("concatenate", concatenated, (FUSED,))

    def added(K: Any, L: Layers, i: Any) -> Any:
        embedded = embedding(L)(i.ids)
        hidden = L.LSTM(5, return_sequences=True)(embedded)
        return L.LSTM(UNITS)(L.Add()([hidden, embedded]))

    yield Case("residual", added, (FUSED, FUSED))
    yield Case(
        "time_distributed_dense",
        chain(
            embedding,
            lambda L: L.TimeDistributed(L.Dense(4)),
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.TimeDistributed(L.Dense(3)),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "pooled",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.GlobalAveragePooling1D(),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "unmasked_embedding",
        chain(lambda L: L.Embedding(VOCABULARY, 5), lambda L: L.LSTM(UNITS), start="ids"),
        (FUSED,),
    )

    def given(K: Any, L: Layers, i: Any) -> Any:
        return L.LSTM(UNITS, return_sequences=True)(
            L.Embedding(VOCABULARY, 5)(i.ids),
            mask=L.Embedding(VOCABULARY, 5, mask_zero=True).compute_mask(i.ids),
        )

    yield Case("mask_argument", given, (FUSED,))


def bidirectional() -> Iterator[Case]:
    for merge, sequences in itertools.product([None, "concat", "sum", "ave", "mul"], BOOLS):
        yield Case(
            f"{merge}+{options(return_sequences=sequences)}",
            lambda K, L, i, m=merge, s=sequences: L.Bidirectional(  # type: ignore[misc]
                L.LSTM(UNITS, return_sequences=s), merge_mode=m
            )(i.x),
            (FUSED, FUSED),
        )


def bidirectional_more() -> Iterator[Case]:
    for merge in ("concat", "sum"):
        yield Case(
            f"{merge}+return_state",
            lambda K, L, i, m=merge: L.Bidirectional(  # type: ignore[misc]
                L.LSTM(UNITS, return_state=True, return_sequences=True), merge_mode=m
            )(i.x),
            (FUSED, FUSED),
        )
    yield Case(
        "backward_layer",
        lambda K, L, i: L.Bidirectional(
            L.LSTM(UNITS), backward_layer=L.LSTM(7, activation="relu", go_backwards=True)
        )(i.x),
        (FUSED, FUSED),
    )
    yield Case(
        "backward_gru",
        lambda K, L, i: L.Bidirectional(
            L.LSTM(UNITS, return_sequences=True),
            backward_layer=L.GRU(7, go_backwards=True, return_sequences=True),
        )(i.x),
        (FUSED, LOOP),
    )
    yield Case(
        "masked",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(L.Masking()(i.x)),
        (FUSED, FUSED),
    )
    yield Case(
        "masked+return_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_state=True), merge_mode="ave")(
            L.Masking()(i.x)
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "masked_gru",
        lambda K, L, i: L.Bidirectional(L.GRU(UNITS, return_sequences=True), merge_mode="mul")(
            L.Masking()(i.x)
        ),
        (LOOP, LOOP),
    )
    yield Case(
        "hard_sigmoid",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, recurrent_activation="hard_sigmoid"))(i.x),
        (LOOP, LOOP),
    )
    yield Case(
        "initial_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(
            i.x, initial_state=[i.h, i.c, i.c, i.h]
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "masked+initial_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True, return_state=True))(
            L.Masking()(i.x), initial_state=[i.h, i.c, i.c, i.h]
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "rnn_of_cell",
        lambda K, L, i: L.Bidirectional(L.RNN(L.LSTMCell(UNITS), return_sequences=True))(i.x),
        (FUSED, FUSED),
    )
    yield Case(
        "of_stacked_cells",
        lambda K, L, i: L.Bidirectional(L.RNN([L.LSTMCell(UNITS), L.LSTMCell(5)]))(i.x),
        (FUSED,) * 4,
    )


def cells() -> Iterator[Case]:
    def rnn(make: Any, **keywords: Any) -> Build:
        return lambda K, L, i: L.RNN(make(K, L), **keywords)(i.x)

    def masked_rnn(make: Any, **keywords: Any) -> Build:
        return lambda K, L, i: L.RNN(make(K, L), **keywords)(L.Masking()(i.x))

    def two(K: Any, L: Layers) -> Any:
        return [L.LSTMCell(UNITS), L.LSTMCell(5)]

    def mixed(K: Any, L: Layers) -> Any:
        return [L.LSTMCell(UNITS), L.GRUCell(7), L.LSTMCell(5)]

    yield Case("lstm_cell", rnn(lambda K, L: L.LSTMCell(UNITS)), (FUSED,))
    yield Case(
        "lstm_cell_states",
        rnn(lambda K, L: L.LSTMCell(UNITS), return_state=True, return_sequences=True),
        (FUSED,),
    )
    yield Case("gru_cell", rnn(lambda K, L: L.GRUCell(UNITS), return_sequences=True), (LOOP,))
    yield Case("simple_cell", rnn(lambda K, L: L.SimpleRNNCell(UNITS)), (LOOP,))
    yield Case("two_cells", rnn(two, return_sequences=True), (FUSED, FUSED))
    yield Case("two_cells_states", rnn(two, return_state=True), (FUSED, FUSED))
    yield Case("two_cells_masked", masked_rnn(two, return_sequences=True), (FUSED, FUSED))
    yield Case("two_cells_masked_states", masked_rnn(two, return_state=True), (FUSED, FUSED))
    yield Case("mixed_cells", rnn(mixed, return_sequences=True), (FUSED, FUSED, LOOP))
    yield Case(
        "mixed_cells_states",
        rnn(mixed, return_sequences=True, return_state=True),
        (FUSED, FUSED, LOOP),
    )
    yield Case(
        "mixed_cells_masked_backwards",
        masked_rnn(mixed, return_sequences=True, return_state=True, go_backwards=True),
        (FUSED, FUSED, LOOP),
    )
    yield Case(
        "stacked_rnn_cells",
        rnn(lambda K, L: L.StackedRNNCells(two(K, L)), return_sequences=True),
        (FUSED, FUSED),
    )


def custom_cells() -> Iterator[Case]:
    def harmless(K: Any, L: Layers, i: Any) -> Any:
        class Renamed(K.layers.LSTMCell):  # type: ignore[misc]
            """An LSTMCell under another name."""

        return L.RNN(L.make(Renamed, UNITS), return_sequences=True)(i.x)

    yield Case("harmless_subclass", harmless, (FUSED,))

    def changed(K: Any, L: Layers, i: Any) -> Any:
        class Doubled(K.layers.LSTMCell):  # type: ignore[misc]
            """An LSTMCell whose input counts twice."""

            def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
                return super().call(2.0 * inputs, states, training=training)

        return L.RNN(L.make(Doubled, UNITS), return_sequences=True)(i.x)

    yield Case("overridden_call", changed, (LOOP,))

    def changed_masked(K: Any, L: Layers, i: Any) -> Any:
        class Halved(K.layers.GRUCell):  # type: ignore[misc]
            """A GRUCell whose output is half its state."""

            def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
                output, new = super().call(inputs, states, training=training)
                return 0.5 * output, new

        return L.RNN(L.make(Halved, UNITS), return_sequences=True, return_state=True)(
            L.Masking()(i.x)
        )

    yield Case("overridden_gru_masked", changed_masked, (LOOP,))

    def projected(K: Any, L: Layers, i: Any) -> Any:
        class Projected(K.layers.Layer):  # type: ignore[misc]
            """A cell whose output is narrower than its state."""

            def __init__(self, **keywords: Any) -> None:
                super().__init__(**keywords)
                self.state_size, self.output_size = UNITS, 3
                self.inner = K.layers.SimpleRNNCell(UNITS)
                self.dense = K.layers.Dense(3)

            def build(self, shape: Any) -> None:
                self.inner.build(shape)
                self.dense.build((None, UNITS))
                self.built = True

            def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
                output, new = self.inner(inputs, states)
                return self.dense(output), new

        return L.RNN(L.make(Projected), return_sequences=True)(i.x)

    yield Case("output_narrower_than_state", projected, (LOOP,))

    def subclassed_layer(K: Any, L: Layers, i: Any) -> Any:
        class Recorded(K.layers.LSTM):  # type: ignore[misc]
            """An LSTM whose call only passes on."""

            def call(
                self,
                sequences: Any,
                initial_state: Any = None,
                mask: Any = None,
                training: Any = None,
            ) -> Any:
                return super().call(
                    sequences, initial_state=initial_state, mask=mask, training=training
                )

        return L.make(Recorded, UNITS)(i.x)

    yield Case("subclassed_lstm", subclassed_layer, (FUSED,))


def cell_constants() -> Iterator[Case]:
    def constants(K: Any, L: Layers, i: Any) -> Any:
        class Biased(K.layers.Layer):  # type: ignore[misc]
            """A cell that adds a constant of the whole sequence at each step."""

            def __init__(self, **keywords: Any) -> None:
                super().__init__(**keywords)
                self.state_size = UNITS
                self.dense = K.layers.Dense(UNITS, activation="tanh")

            def build(self, shape: Any) -> None:
                self.dense.build((None, 4 + UNITS))
                self.built = True

            def call(self, inputs: Any, states: Any, constants: Any) -> Any:
                h = self.dense(tensorflow().concat([inputs, states[0]], -1)) + constants[0]
                return h, [h]

        return L.RNN(L.make(Biased), return_sequences=True)(i.x, constants=[i.h])

    yield Case("constants", constants, (LOOP,))


@functools.cache
def peephole_cell(K: Any) -> Any:
    """The cell that tf.keras.experimental had, which neither Keras brings any more."""

    class PeepholeLSTMCell(K.layers.LSTMCell):  # type: ignore[misc]
        """An LSTMCell whose gates see the cell state."""

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            for gate in ("input", "forget", "output"):
                name = f"{gate}_gate_peephole_weights"
                weight = self.add_weight(shape=(self.units,), name=name)
                setattr(self, name, weight)

        def _compute_carry_and_output(self, x: Any, h_tm1: Any, c_tm1: Any) -> Any:
            recurrent = tensorflow().split(self.recurrent_kernel, 4, axis=1)
            return self._compute_carry_and_output_fused(
                [x + h @ r for x, h, r in zip(x, h_tm1, recurrent, strict=True)], c_tm1
            )

        def _compute_carry_and_output_fused(self, z: Any, c_tm1: Any) -> Any:
            z_i, z_f, z_c, z_o = z
            i = self.recurrent_activation(z_i + self.input_gate_peephole_weights * c_tm1)
            f = self.recurrent_activation(z_f + self.forget_gate_peephole_weights * c_tm1)
            c = f * c_tm1 + i * self.activation(z_c)
            return c, self.recurrent_activation(z_o + self.output_gate_peephole_weights * c)

    return PeepholeLSTMCell


def peepholes() -> Iterator[Case]:
    def peephole(mask: bool, options: dict[str, Any] | None = None, **keywords: Any) -> Build:
        def build(K: Any, L: Layers, i: Any) -> Any:
            x = L.Masking()(i.x) if mask else i.x
            return L.RNN(L.make(peephole_cell(K), UNITS, **(options or {})), **keywords)(x)

        return build

    yield Case("peephole", peephole(False, return_sequences=True), (FUSED,))
    yield Case("states", peephole(False, return_state=True), (FUSED,))
    yield Case("masked", peephole(True, return_sequences=True), (FUSED,))
    yield Case("implementation_1", peephole(False, {"implementation": 1}), (FUSED,))
    yield Case("hard", peephole(True, {"recurrent_activation": "hard_sigmoid"}), (LOOP,))
    yield Case(
        "stack",
        lambda K, L, i: L.RNN([L.make(peephole_cell(K), UNITS), L.LSTMCell(4)])(i.x),
        (FUSED, FUSED),
    )

    def clipped(K: Any, L: Layers, i: Any) -> Any:
        class PeepholeLSTMCell(peephole_cell(K)):  # type: ignore[misc]
            """A peephole cell that also halves its cell state."""

            def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
                h, (_, c) = super().call(inputs, states, training=training)
                return h, [h, 0.5 * c]

        return L.RNN(L.make(PeepholeLSTMCell, UNITS))(i.x)

    yield Case("not_what_it_claims", clipped, (LOOP,))

    def half_overridden(K: Any, L: Layers, i: Any) -> Any:
        class Averaged(K.layers.LSTMCell):  # type: ignore[misc]
            """Overrides only the step of implementation 1."""

            def _compute_carry_and_output(self, x: Any, h_tm1: Any, c_tm1: Any) -> Any:
                c, o = super()._compute_carry_and_output(x, h_tm1, c_tm1)
                return 0.5 * (c + c_tm1), o

        cell = L.make(Averaged, UNITS, implementation=1, recurrent_activation="hard_sigmoid")
        return L.RNN(cell, return_sequences=True)(i.x)

    yield Case("overridden_implementation_1", half_overridden, (LOOP,))


def gru_and_simple() -> Iterator[Case]:
    for reset, sequences, back in itertools.product(BOOLS, repeat=3):
        keywords = {"reset_after": reset, "return_sequences": sequences, "go_backwards": back}
        yield Case(options(**keywords), layer("GRU", UNITS, **keywords), (LOOP,))
    for reset in BOOLS:
        yield Case(
            options(no_bias=True, reset_after=reset),
            layer("GRU", UNITS, reset_after=reset, use_bias=False, return_state=True),
            (LOOP,),
        )
        yield Case(
            options(relu=True, reset_after=reset),
            layer(
                "GRU",
                UNITS,
                reset_after=reset,
                activation="relu",
                recurrent_activation="hard_sigmoid",
            ),
            (LOOP,),
        )
    yield Case("simple", layer("SimpleRNN", UNITS), (LOOP,))
    yield Case("simple_relu", layer("SimpleRNN", UNITS, activation="relu"), (LOOP,))
    yield Case(
        "simple_states",
        layer("SimpleRNN", UNITS, return_state=True, return_sequences=True, use_bias=False),
        (LOOP,),
    )


def initial_states() -> Iterator[Case]:
    def lstm(L: Layers, **keywords: Any) -> Any:
        return L.LSTM(UNITS, return_sequences=True, return_state=True, **keywords)

    yield Case("inputs", lambda K, L, i: lstm(L)(i.x, initial_state=[i.h, i.c]), (FUSED,))
    yield Case(
        "dense_outputs",
        lambda K, L, i: lstm(L)(i.x, initial_state=[L.Dense(UNITS)(i.v), L.Dense(UNITS)(i.v)]),
        (FUSED,),
    )
    yield Case("one_twice", lambda K, L, i: lstm(L)(i.x, initial_state=[i.h, i.h]), (FUSED,))

    def encoder_decoder(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(i.x)
        y, h, c = lstm(L)(i.y, initial_state=[h, c])
        return L.Dense(3, activation="softmax")(y), h, c

    yield Case("encoder_decoder", encoder_decoder, (FUSED, FUSED))

    def bidirectional_encoder(K: Any, L: Layers, i: Any) -> Any:
        _, fh, fc, bh, bc = L.Bidirectional(L.LSTM(UNITS // 2, return_state=True))(i.x)
        return L.LSTM(UNITS, return_sequences=True)(
            i.y, initial_state=[L.Concatenate()([fh, bh]), L.Concatenate()([fc, bc])]
        )

    yield Case("bidirectional_encoder", bidirectional_encoder, (FUSED,) * 3)

    def shared_by_two(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(i.x)
        return [lstm(L)(i.y, initial_state=[h, c])[0], lstm(L)(i.x, initial_state=[h, c])[0], h]

    yield Case("states_used_twice", shared_by_two, (FUSED,) * 3)

    def masked_encoder(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(L.Masking()(i.x))
        return lstm(L)(L.Masking()(i.y), initial_state=[h, c])

    yield Case("masked_encoder_decoder", masked_encoder, (FUSED, FUSED))
    yield Case(
        "masked",
        lambda K, L, i: lstm(L)(L.Masking()(i.x), initial_state=[i.h, i.c]),
        (FUSED,),
    )
    yield Case(
        "masked_backwards",
        lambda K, L, i: lstm(L, go_backwards=True)(L.Masking()(i.x), initial_state=[i.h, i.c]),
        (FUSED,),
    )
    yield Case(
        "hard_sigmoid",
        lambda K, L, i: lstm(L, recurrent_activation="hard_sigmoid")(i.x, initial_state=[i.h, i.c]),
        (LOOP,),
    )
    yield Case(
        "gru",
        lambda K, L, i: L.GRU(UNITS, return_sequences=True)(L.Masking()(i.x), initial_state=i.h),
        (LOOP,),
    )
    yield Case(
        "repeat_vector",
        lambda K, L, i: L.TimeDistributed(L.Dense(2))(
            L.LSTM(UNITS, return_sequences=True)(L.RepeatVector(4)(L.LSTM(UNITS)(i.x)))
        ),
        (FUSED, FUSED),
    )

    def stacked(K: Any, L: Layers, i: Any) -> Any:
        cells = [L.LSTMCell(UNITS), L.LSTMCell(UNITS)]
        return L.RNN(cells, return_sequences=True)(i.x, initial_state=[[i.h, i.c], [i.c, i.h]])

    yield Case("stacked_cells", stacked, (FUSED, FUSED))


def time_distributed() -> Iterator[Case]:
    yield Case("lstm", layer_td(lambda K, L: L.LSTM(UNITS)), (FUSED,))
    yield Case(
        "lstm_sequences", layer_td(lambda K, L: L.LSTM(UNITS, return_sequences=True)), (FUSED,)
    )
    yield Case("gru", layer_td(lambda K, L: L.GRU(UNITS)), (LOOP,))
    yield Case(
        "bidirectional", layer_td(lambda K, L: L.Bidirectional(L.LSTM(UNITS))), (FUSED, FUSED)
    )
    yield Case("dense", layer_td(lambda K, L: L.Dense(3)))
    yield Case("nested", layer_td(lambda K, L: L.TimeDistributed(L.Dense(3))))
    yield Case(
        "convolution_then_lstm",
        chain(
            lambda L: L.TimeDistributed(L.Conv1D(3, 3, padding="same")),
            lambda L: L.TimeDistributed(L.MaxPooling1D(2)),
            lambda L: L.TimeDistributed(L.Flatten()),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )

    def model(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((7, 2)), L.LSTM(UNITS, return_sequences=True), L.LSTM(5)])
        return L.LSTM(UNITS)(L.TimeDistributed(inner)(i.x))

    yield Case("model", model, (FUSED,) * 3)
    yield Case(
        "batch_norm",
        chain(
            lambda L: L.TimeDistributed(L.BatchNormalization()),
            lambda L: L.TimeDistributed(L.GlobalAveragePooling1D()),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "of_time_distributed_lstm",
        lambda K, L, i: L.TimeDistributed(L.LSTM(UNITS))(
            L.TimeDistributed(L.TimeDistributed(L.Dense(3)))(i.x)
        ),
        (FUSED,),
    )


def layer_td(make: Any) -> Build:
    return lambda K, L, i: L.TimeDistributed(make(K, L))(i.x)


def conv_lstm_1d() -> Iterator[Case]:
    same = {"padding": "same"}
    yield Case("plain", layer("ConvLSTM1D", 6, 3), (LOOP,))
    yield Case("sequences", layer("ConvLSTM1D", 6, 3, return_sequences=True, **same), (LOOP,))
    yield Case(
        "states",
        layer("ConvLSTM1D", 6, 3, return_sequences=True, return_state=True, **same),
        (LOOP,),
    )
    yield Case("strides", layer("ConvLSTM1D", 6, 3, strides=2), (LOOP,))
    yield Case("dilation", layer("ConvLSTM1D", 6, 3, dilation_rate=2), (LOOP,))
    yield Case("backwards", layer("ConvLSTM1D", 6, 3, go_backwards=True), (LOOP,))
    yield Case("no_bias", layer("ConvLSTM1D", 6, 3, use_bias=False), (LOOP,))
    yield Case(
        "sigmoid", layer("ConvLSTM1D", 6, 3, recurrent_activation="sigmoid", **same), (LOOP,)
    )


def conv_lstm_2d() -> Iterator[Case]:
    same = {"padding": "same"}
    yield Case("plain", layer("ConvLSTM2D", 3, 3), (LOOP,))
    yield Case(
        "states",
        layer("ConvLSTM2D", 3, (3, 2), return_sequences=True, return_state=True, **same),
        (LOOP,),
    )
    yield Case("strides", layer("ConvLSTM2D", 3, 3, strides=(2, 1), **same), (LOOP,))
    yield Case("dilation", layer("ConvLSTM2D", 3, 2, dilation_rate=2), (LOOP,))
    yield Case("backwards", layer("ConvLSTM2D", 3, 3, go_backwards=True, **same), (LOOP,))
    yield Case(
        "stack",
        chain(
            lambda L: L.ConvLSTM2D(3, 3, return_sequences=True, **same),
            lambda L: L.BatchNormalization(),
            lambda L: L.ConvLSTM2D(2, 3),
            lambda L: L.Flatten(),
            lambda L: L.Dense(2),
        ),
        (LOOP, LOOP),
    )
    yield Case(
        "bidirectional",
        lambda K, L, i: L.Bidirectional(L.ConvLSTM2D(3, 3, padding="same"))(i.x),
        (LOOP, LOOP),
    )

    def masked_frames(K: Any, L: Layers, i: Any) -> Any:
        class FrameMask(K.layers.Layer):  # type: ignore[misc]
            """Masks the frames that are all zero."""

            def call(self, inputs: Any) -> Any:
                return 1.0 * inputs

            def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
                ops = K.ops if hasattr(K, "ops") else tensorflow().keras.backend
                return ops.any(ops.not_equal(inputs, 0.0), axis=(2, 3, 4))

        return L.ConvLSTM2D(3, 3, return_sequences=True, padding="same")(L.make(FrameMask)(i.x))

    yield Case("masked", masked_frames, (LOOP,))


def conv_lstm_3d() -> Iterator[Case]:
    yield Case("plain", layer("ConvLSTM3D", 2, 2), (LOOP,))
    yield Case(
        "sequences", layer("ConvLSTM3D", 2, 2, return_sequences=True, padding="same"), (LOOP,)
    )


def structure() -> Iterator[Case]:
    def shared(K: Any, L: Layers, i: Any) -> Any:
        lstm = L.LSTM(UNITS, return_sequences=True)
        return [lstm(i.x), lstm(L.Reshape((-1, 4))(L.Dense(4)(i.y)))]

    yield Case("layer_called_twice", shared, (FUSED, FUSED))

    def itself(K: Any, L: Layers, i: Any) -> Any:
        lstm = L.LSTM(4, return_sequences=True)
        return lstm(lstm(i.x))

    yield Case("layer_on_itself", itself, (FUSED, FUSED))

    def nested(K: Any, L: Layers, i: Any) -> Any:
        x = K.Input((None, 4))
        y, h, c = L.LSTM(UNITS, return_sequences=True, return_state=True)(x)
        inner = K.Model(x, [y, h, c])
        y, h, c = inner(i.x)
        return L.LSTM(UNITS)(y, initial_state=[h, c])

    yield Case("model_in_model", nested, (FUSED, FUSED))

    def nested_twice(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((None, 4)), L.LSTM(UNITS), L.Dense(4)])
        a, b = inner(i.x), inner(L.Dense(4)(i.y))
        return L.Subtract()([a, b])

    yield Case("siamese", nested_twice, (FUSED, FUSED))

    def deep(K: Any, L: Layers, i: Any) -> Any:
        innermost = K.Sequential([K.Input((None, 4)), L.LSTM(4, return_sequences=True)])
        inner = K.Sequential([K.Input((None, 4)), innermost, L.GRU(UNITS)])
        return inner(i.x)

    yield Case("model_in_model_in_model", deep, (FUSED, LOOP))

    def masked_model(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((None, 4)), L.Masking(), L.LSTM(UNITS)])
        return inner(i.x)

    yield Case("mask_in_model", masked_model, (FUSED,))

    def two_inputs(K: Any, L: Layers, i: Any) -> Any:
        return L.Dense(2)(L.Concatenate()([L.LSTM(UNITS)(i.x), L.LSTM(5)(i.y), i.v]))

    yield Case("three_inputs", two_inputs, (FUSED, FUSED))
    yield Case("input_as_output", lambda K, L, i: [i.v, L.LSTM(UNITS)(i.x)], (FUSED,))

    def same_output(K: Any, L: Layers, i: Any) -> Any:
        y = L.LSTM(UNITS)(i.x)
        return [y, y, L.Dense(2)(y)]

    yield Case("output_twice", same_output, (FUSED,))


def surroundings() -> Iterator[Case]:
    def sequence(L: Layers) -> Any:
        return L.LSTM(UNITS, return_sequences=True)

    def between(*makers: Any) -> Build:
        return chain(*makers, lambda L: L.LSTM(UNITS))

    yield Case(
        "conv1d",
        between(
            lambda L: L.Conv1D(6, 3, padding="causal", activation="relu"), lambda L: L.Dropout(0.2)
        ),
        (FUSED,),
    )
    yield Case(
        "pooled",
        between(lambda L: L.Conv1D(6, 1), lambda L: L.AveragePooling1D(2, padding="same")),
        (FUSED,),
    )
    yield Case("batch_norm", between(lambda L: L.BatchNormalization()), (FUSED,))
    yield Case("layer_norm", between(sequence, lambda L: L.LayerNormalization()), (FUSED, FUSED))
    yield Case(
        "spatial_dropout",
        between(lambda L: L.SpatialDropout1D(0.2), lambda L: L.GaussianNoise(0.1)),
        (FUSED,),
    )
    yield Case("prelu", between(lambda L: L.Dense(6), lambda L: L.LeakyReLU()), (FUSED,))
    yield Case("lambda", between(lambda L: L.Lambda(lambda x: x * 2.0 - 1.0)), (FUSED,))
    yield Case(
        "max_pooled",
        chain(
            sequence, lambda L: L.GlobalMaxPooling1D(), lambda L: L.Dense(3, activation="softmax")
        ),
        (FUSED,),
    )
    yield Case("average_pooled", chain(sequence, lambda L: L.GlobalAveragePooling1D()), (FUSED,))
    yield Case(
        "reshape",
        chain(
            lambda L: L.LSTM(UNITS),
            lambda L: L.Reshape((6, 3)),
            lambda L: L.Permute((2, 1)),
            lambda L: L.LSTM(4),
        ),
        (FUSED, FUSED),
    )

    def attention(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.MultiHeadAttention(2, 5)(h, h)

    def luong(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.Attention()([L.Dense(UNITS)(i.y), h])

    def bahdanau(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.AdditiveAttention()([L.Dense(UNITS)(i.y), h])

    def masked_attention(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(L.Masking()(i.x))
        return L.Attention()([h, h])

    def dot(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        weights = L.Softmax(axis=1)(L.Dense(1)(h))
        return L.Dot(axes=1)([weights, h])

    yield Case("multi_head_attention", attention, (FUSED,))
    yield Case("attention", luong, (FUSED,))
    yield Case("additive_attention", bahdanau, (FUSED,))
    yield Case("masked_attention", masked_attention, (FUSED,))
    yield Case("attention_of_dense", dot, (FUSED,))


def fixed_surroundings() -> Iterator[Case]:
    yield Case(
        "flatten",
        chain(
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.Flatten(),
            lambda L: L.Dense(2),
        ),
        (FUSED,),
    )
    yield Case("permute", chain(lambda L: L.Permute((2, 1)), lambda L: L.LSTM(UNITS)), (FUSED,))
    yield Case(
        "padded",
        chain(
            lambda L: L.ZeroPadding1D(2),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "upsampled",
        chain(
            lambda L: L.UpSampling1D(2),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "cropped",
        chain(
            lambda L: L.Cropping1D(1),
            lambda L: L.GRU(UNITS),
        ),
        (LOOP,),
    )
    yield Case("masked", masked("LSTM", UNITS, return_sequences=True, return_state=True), (FUSED,))
    yield Case(
        "masked_gru", masked("GRU", UNITS, return_sequences=True, return_state=True), (LOOP,)
    )
    yield Case(
        "bidirectional",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(i.x),
        (FUSED, FUSED),
    )


# Where the two Kerases differ most; of the other groups the default run takes one engine each, and
# none of those that only one of them has.
SIDE_BY_SIDE = ("mask_from", "initial_state1")


def all_groups() -> Iterator[Group]:
    """Every group; those not SIDE_BY_SIDE leave the Kerases in turn to the slow run."""
    turn = itertools.cycle(BOTH)
    for group in _groups():
        if group.name in SIDE_BY_SIDE:
            yield group
        elif len(group.engines) == 1:
            yield dataclasses.replace(group, slow=group.engines)
        else:
            yield dataclasses.replace(group, slow=(next(turn),))


def _groups() -> Iterator[Group]:
    def parts(
        name: str, cases: Iterator[Case], inputs: Any, size: int = 8, **keywords: Any
    ) -> Iterator[Group]:
        listed = list(cases)
        count = -(-len(listed) // size)
        for part in range(count):
            yield Group(
                f"{name}{part + 1}" if count > 1 else name,
                tuple(listed[part::count]),
                inputs,
                **keywords,
            )

    yield from parts("lstm", lstm_returns(), SEQUENCE)
    yield from parts("unrolled", lstm_unrolled(), FIXED_TIME, 12)
    yield from parts("time_major", lstm_time_major(), SEQUENCE, 9, engines=(TF_KERAS,))
    yield from parts("transposed", time_major_inside(), SEQUENCE, engines=(TF_KERAS,))
    yield from parts("activation", lstm_activations(), SEQUENCE)
    yield from parts("option", lstm_other(), SEQUENCE, 12)
    yield from parts("masked", lstm_masked(), SEQUENCE)
    yield from parts("masked_loop", loops_masked(), SEQUENCE, 12)
    yield from parts("mask_from", mask_propagation(), IDS, 12)
    yield from parts("bidirectional", bidirectional(), SEQUENCE, 10)
    yield from parts("bidirectional_with", bidirectional_more(), STATES, 12)
    yield from parts("cells", cells(), SEQUENCE, 12)
    yield from parts("custom_cell", custom_cells(), STATES, 12)
    yield from parts("cell_constants", cell_constants(), STATES, engines=(TF_KERAS,))
    yield from parts("peephole", peepholes(), SEQUENCE, 12)
    yield from parts("gru", gru_and_simple(), SEQUENCE)
    yield from parts("initial_state", initial_states(), STATES)
    yield from parts("time_distributed", time_distributed(), FRAMES_1D, 10)
    yield from parts("conv_lstm_1d", conv_lstm_1d(), FRAMES_1D)
    yield from parts("conv_lstm_2d", conv_lstm_2d(), FRAMES_2D)
    yield from parts("conv_lstm_3d", conv_lstm_3d(), FRAMES_3D)
    yield from parts("structure", structure(), STATES, 10)
    yield from parts("around", surroundings(), STATES)
    yield from parts("fixed_time", fixed_surroundings(), FIXED_TIME)
