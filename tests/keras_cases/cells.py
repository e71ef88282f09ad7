"""RNN over cells: stacked, peephole, and cells of a user."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from keras_models import FUSED, LOOP, Build, Case, Layers

from edgelstm.converters.frameworks import tensorflow
from keras_cases.build import UNITS


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
