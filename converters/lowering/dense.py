"""A dense layer over a sequence as one FULLY_CONNECTED.

TensorFlow writes a product over an open time axis as RESHAPE, product and RESHAPE, with up to six
operators that compute the shapes, and adds the bias behind them. The operator itself keeps the
axes of its input (`keep_num_dims`), and has a bias and an activation. Beside size and time this
avoids a fault: XNNPACK of LiteRT 2.3 was seen to read elsewhere, from the second call on, in a
third of the sessions of a model whose first product reads the model's input through a RESHAPE and
stands before a loop (raw interpreter, 29 of 80 sessions; none of 80 without the RESHAPE).
"""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.flatbuffer.op import ABSENT
from edgelstm.converters.lowering.sizes import Size, Sizes

OP = "FULLY_CONNECTED"
_UNKNOWN = -1
_KEEPS_AXES_FROM = 5
"""First version of the operator with `keep_num_dims`."""
_NONE = 0
"""No fused activation."""
_ACTIVATIONS = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}


def keep_dense_axes(model: Model) -> None:
    """Takes the reshapes around products away, and bias and activation into them."""
    for subgraph in model.subgraphs:
        links = _Links(subgraph)
        for op in subgraph.find(OP):
            _keep_axes(links, op)
            _take_bias(links, op)
            _take_activation(links, op)


class _Links:
    """Who writes and who reads each tensor, kept true while readers are taken in."""

    def __init__(self, subgraph: Subgraph) -> None:
        self.subgraph = subgraph
        self.producers = {index: op for op in subgraph.ops for index in op.outputs}
        self.sizes = Sizes(subgraph, self.producers)
        self._readers: dict[int, list[Op]] = {}
        for op in subgraph.ops:
            for index in op.inputs:
                self._readers.setdefault(index, []).append(op)

    def readers(self, op: Op, name: str) -> list[Op]:
        """The readers of an operator's result, where all have that name and nobody else reads."""
        found = self._readers.get(op.outputs[0], [])
        same = op.outputs[0] not in self.subgraph.outputs and all(r.name == name for r in found)
        return list(found) if same else []

    def single_reader(self, op: Op, name: str) -> Op | None:
        """The only reader of an operator's result, where it has that name and reads it once."""
        found = self.readers(op, name)
        return found[0] if len(found) == 1 else None

    def read(self, op: Op, index: int) -> None:
        """Lets an operator read another tensor first."""
        self._readers[op.inputs[0]].remove(op)
        op.inputs = [index, *op.inputs[1:]]
        self._readers.setdefault(index, []).append(op)

    def take(self, op: Op, reader: Op) -> None:
        """Lets an operator write what its reader wrote, which goes."""
        op.outputs = reader.outputs
        self.producers[op.outputs[0]] = op
        self.subgraph.remove_op(reader)


def _keep_axes(links: _Links, op: Op) -> None:
    """Makes a product keep the axes of what was flattened for it.

    Only where a RESHAPE behind it gives exactly those axes back, which is told from the sizes in
    the graph, and where everything else that reads the product is a RESHAPE too.
    """
    flat, weights = links.producers.get(op.inputs[0]), op.input(1)
    if flat is None or flat.name != "RESHAPE" or weights is None:
        return
    whole = links.subgraph.tensor(flat.inputs[0])
    if len(whole.signature) < 2 or len(weights.signature) != 2:
        return
    units, depth = weights.signature
    if whole.signature[-1] != depth or depth == _UNKNOWN:
        return
    reshapes = links.readers(op, "RESHAPE")
    wanted = (*links.sizes.of(whole.index)[:-1], units)
    result = next((r for r in reshapes if _gives(links, r, wanted)), None)
    if result is None:
        return
    for other in reshapes:
        if other != result:
            links.read(other, result.outputs[0])
    links.read(op, whole.index)
    op.set_option("keep_num_dims", True)
    op.version = max(op.version, _KEEPS_AXES_FROM)
    links.take(op, result)


def _gives(links: _Links, reshape: Op, wanted: tuple[Size, ...]) -> bool:
    """Whether a RESHAPE of as many numbers gives axes of these sizes."""
    given: tuple[Size, ...] | None = None
    if len(reshape.inputs) > 1:
        given = links.sizes.values(reshape.inputs[1])
    if given is None:
        given = reshape.output(0).signature
    followed = [place for place, size in enumerate(given) if size == _UNKNOWN]
    if len(given) != len(wanted) or len(followed) > 1:
        return False
    pairs = enumerate(zip(given, wanted, strict=True))
    return all(a == b for place, (a, b) in pairs if place not in followed)


def _take_bias(links: _Links, op: Op) -> None:
    """Takes an ADD of one constant per unit into the product before it."""
    if len(op.inputs) > 2 and op.inputs[2] != ABSENT:
        return
    result = links.single_reader(op, "ADD")
    if result is None or op.option("fused_activation_function") != _NONE:
        return
    units = op.output(0).signature[-1]
    for position in (0, 1):
        bias, product = result.input(position), result.input(1 - position)
        if bias is None or product is None or product.index != op.outputs[0]:
            continue
        if not bias.constant or bias.dtype != "float32" or bias.nbytes != 4 * units:
            continue
        if bias.shape[-1:] != (units,) or result.output(0).signature != product.signature:
            continue
        taken = links.subgraph.add_constant(bias.name, bias.data().reshape(units))
        op.inputs = [*op.inputs[:2], taken]
        op.set_option("fused_activation_function", result.option("fused_activation_function"))
        links.take(op, result)
        return


def _take_activation(links: _Links, op: Op) -> None:
    """Takes a clipping activation into the product before it."""
    if op.option("fused_activation_function") != _NONE:
        return
    for name, code in _ACTIVATIONS.items():
        result = links.single_reader(op, name)
        if result is not None:
            op.set_option("fused_activation_function", code)
            links.take(op, result)
            return
