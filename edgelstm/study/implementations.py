"""TensorFlow's LSTM implementations, each as a frozen graph with one input and one output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.study import cells

# A graph's function of x [B, T, F]; gives [B, T, U].
Build = Callable[[Any, int], Any]


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way of writing an LSTM in TensorFlow.

    Attributes:
        name: of the cell or layer. form: `static_rnn`, `dynamic_rnn`, or how it runs otherwise.
        needs_gpu: whether TensorFlow has a kernel for GPUs alone.
    """

    name: str
    form: str
    build: Build
    needs_gpu: bool = False

    @property
    def key(self) -> str:
        """As options and results have it."""
        return f"{self.name}/{self.form}"


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen graph.

    Attributes:
        nodes: in the graph and in its functions. bytes: of the file.
    """

    path: Path
    nodes: int
    bytes: int


INPUT, OUTPUT = "x", "y"


def _static(make: Callable[[int, int], Any]) -> Build:
    def build(x: Any, units: int) -> Any:
        tf = tensorflow()
        frames = tf.unstack(x, axis=1)
        cell = make(int(x.shape[2]), units)
        outputs, _ = tf.compat.v1.nn.static_rnn(cell, frames, dtype=tf.float32)
        return tf.stack(outputs, 1)

    return build


def _dynamic(make: Callable[[int, int], Any]) -> Build:
    def build(x: Any, units: int) -> Any:
        tf = tensorflow()
        cell = make(int(x.shape[2]), units)
        return tf.compat.v1.nn.dynamic_rnn(cell, x, dtype=tf.float32)[0]

    return build


def _block_fused(x: Any, units: int) -> Any:
    """LSTMBlockFusedCell: one operator for the whole sequence, time first."""
    tf = tensorflow()
    batch, steps, features = (int(size) for size in x.shape)
    zero, none = tf.zeros([batch, units]), tf.zeros([units])
    made = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.constant(steps, tf.int64), x=tf.transpose(x, [1, 0, 2]), cs_prev=zero,
        h_prev=zero, w=cells.variable("kernel", features + units, 4 * units), wci=none, wcf=none,
        wco=none, b=cells.variable("bias", 4 * units), forget_bias=1.0, cell_clip=-1.0,
        use_peephole=False,
    )  # fmt: skip
    return tf.transpose(made.h, [1, 0, 2])


def _cudnn(x: Any, units: int) -> Any:
    """CudnnLSTM: cuDNN's own kernel, its weights in one buffer, time first."""
    tf = tensorflow()
    batch, _, features = (int(size) for size in x.shape)
    count = 4 * units * (features + units) + 8 * units
    zero = tf.zeros([1, batch, units])
    made = tf.raw_ops.CudnnRNN(
        input=tf.transpose(x, [1, 0, 2]), input_h=zero, input_c=zero,
        params=cells.variable("params", count, scale=units**-0.5), rnn_mode="lstm",
        input_mode="linear_input", direction="unidirectional", dropout=0.0, seed=0, seed2=0,
        is_training=False,
    )  # fmt: skip
    return tf.transpose(made.output, [1, 0, 2])


_CELLS = {
    "BasicLSTMCell": cells.basic,
    "LSTMBlockCell": cells.block,
    "LayerNormBasicLSTMCell": cells.layer_norm,
    "NASCell": cells.nas,
}
IMPLEMENTATIONS: tuple[Implementation, ...] = (
    *(
        Implementation(name, form, wrap(make))
        for name, make in _CELLS.items()
        for form, wrap in (("static_rnn", _static), ("dynamic_rnn", _dynamic))
    ),
    Implementation("LSTMBlockFusedCell", "whole sequence", _block_fused),
    Implementation("CudnnLSTM", "whole sequence", _cudnn, needs_gpu=True),
)


def freeze(
    implementation: Implementation,
    path: Path,
    *,
    features: int,
    units: int,
    batch: int,
    steps: int,
) -> Frozen:
    """Writes a graph with random weights, its variables turned into constants."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(1)
        x = v1.placeholder(tf.float32, [batch, steps, features], name=INPUT)
        tf.identity(implementation.build(x, units), name=OUTPUT)
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            frozen: Any = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), [OUTPUT]
            )
    content = frozen.SerializeToString()
    path.write_bytes(content)
    nodes = len(frozen.node) + sum(len(f.node_def) for f in frozen.library.function)
    return Frozen(path, nodes, len(content))
