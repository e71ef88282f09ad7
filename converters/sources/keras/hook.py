"""Take over every recurrence of a Keras model while it is traced.

Both Kerases run all their recurrent layers through one function, `backend.rnn`. While the hook is
installed that function hands the call to a handler; stateful layers, cuDNN paths and layers that
loop over time for other reasons (TimeDistributed) are put into the form that a graph can have.
Layers of a mixed policy compute in float32, the type of their weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.keras.engine import KerasEngine

RnnResult = tuple[Any, Any, Any]  # last output, outputs, final states


@dataclasses.dataclass(frozen=True)
class RnnCall:
    """One call of a recurrent layer, as `backend.rnn` receives it.

    Attributes:
        layer: the recurrent layer.
        step: (inputs at t, states + constants) -> (output, new states).
        inputs: [B, T, ...], or [T, B, ...] when time_major; a nest for some custom cells.
        initial_states: nest of tensors [B, ...].
        state_given: whether the caller gave the initial states; else they are the default zeros.
        mask: bool [B, T] (or [T, B]) or None.
        enclosing: the layers inside whose calls this one happens, outermost first.
        folds: the sizes that enclosing TimeDistributed layers folded into the batch; None where
            a size varies.
        original: the framework's own loop on given initial states.
    """

    layer: Any
    step: Callable[[Any, Any], tuple[Any, Any]]
    inputs: Any
    initial_states: Any
    state_given: bool
    go_backwards: bool
    mask: Any | None
    constants: Sequence[Any]
    time_major: bool
    zero_output_for_mask: bool
    enclosing: tuple[Any, ...]
    folds: tuple[int | None, ...]
    original: Callable[[Any], RnnResult]


Handler = Callable[[RnnCall], RnnResult]

_RECURRENT_CALLS = {
    KerasEngine.KERAS3: (("keras.src.layers.rnn.rnn", "RNN"),),
    KerasEngine.TF_KERAS: (
        ("tf_keras.src.layers.rnn.base_rnn", "RNN"),
        ("tf_keras.src.layers.rnn.lstm", "LSTM"),
        ("tf_keras.src.layers.rnn.gru", "GRU"),
        ("tf_keras.src.layers.rnn.base_conv_rnn", "ConvRNN"),
    ),
}
_TIME_DISTRIBUTED = {
    KerasEngine.KERAS3: "keras.src.layers.rnn.time_distributed",
    KerasEngine.TF_KERAS: "tf_keras.src.layers.rnn.time_distributed",
}
_BACKEND = {
    KerasEngine.KERAS3: "keras.src.backend",
    KerasEngine.TF_KERAS: "tf_keras.src.backend",
}
HALF = frozenset({"float16", "bfloat16"})
_ACCELERATED = ("lstm", "gru", "bidirectional_lstm", "bidirectional_gru")


def recurrent_layers(model: Any, engine: KerasEngine) -> list[Any]:
    """Every recurrent layer of the model, nested ones too."""
    classes = tuple(
        getattr(importlib.import_module(module), name) for module, name in _RECURRENT_CALLS[engine]
    )
    return [layer for layer in model._flatten_layers() if isinstance(layer, classes)]


@contextlib.contextmanager
def hooked(model: Any, engine: KerasEngine, handler: Handler) -> Iterator[None]:
    """While active, `handler` computes every recurrence of the model."""
    backend = importlib.import_module(_BACKEND[engine])
    active: list[_Active] = []
    with traceable(model, engine, active), contextlib.ExitStack() as stack:
        for module_name, class_name in _RECURRENT_CALLS[engine]:
            owner = getattr(importlib.import_module(module_name), class_name)
            stack.enter_context(_attribute(owner, "call", _remembering(owner.call, active)))
        stack.enter_context(_attribute(backend, "rnn", _to_handler(backend.rnn, active, handler)))
        yield


@contextlib.contextmanager
def traceable(
    model: Any, engine: KerasEngine, active: list[_Active] | None = None
) -> Iterator[None]:
    """While active, the model computes what it always does, in the form that a graph can have.

    Stateful layers start every call from zero.
    """
    backend = importlib.import_module(_BACKEND[engine])
    wrapper = importlib.import_module(_TIME_DISTRIBUTED[engine]).TimeDistributed
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            if layer.compute_dtype in HALF and layer.variable_dtype == "float32":
                _computing_in_float32(layer, engine, stack)
        for layer in recurrent_layers(model, engine):
            if layer.stateful:
                stack.enter_context(_attribute(layer, "stateful", False))
            if getattr(layer, "_could_use_gpu_kernel", False):
                stack.enter_context(_attribute(layer, "_could_use_gpu_kernel", False))
        for name in _ACCELERATED:
            if engine is KerasEngine.KERAS3 and hasattr(backend, name):
                stack.enter_context(_attribute(backend, name, _not_accelerated))
        folding = _fold_time(wrapper.call, engine, [] if active is None else active)
        stack.enter_context(_attribute(wrapper, "call", folding))
        yield


@dataclasses.dataclass(frozen=True)
class _Active:
    layer: Any
    state_given: bool
    folds: tuple[int | None, ...] = ()


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    property_of_class = isinstance(getattr(type(owner), name, None), property)
    own = property_of_class or name in vars(owner)
    previous = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, previous)
        else:
            delattr(owner, name)


def _computing_in_float32(layer: Any, engine: KerasEngine, stack: contextlib.ExitStack) -> None:
    if engine is KerasEngine.KERAS3:
        policy = engine.module.dtype_policies.get("float32")
    else:
        policy = engine.module.mixed_precision.Policy("float32")
        stack.enter_context(_attribute(layer, "_compute_dtype_object", tensorflow().float32))
    stack.enter_context(_attribute(layer, "_dtype_policy", policy))


def _not_accelerated(*_args: Any, **_kwargs: Any) -> Any:
    raise NotImplementedError


def _remembering(call: Callable[..., Any], active: list[_Active]) -> Callable[..., Any]:
    """`call`, with its layer on the stack of those being computed."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def wrapper(layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        # tf_keras passes given states behind the sequence, in one list.
        listed = isinstance(sequences, list) and len(sequences) > 1
        bound = signature.bind(layer, sequences, *args, **kwargs)
        given = listed or bound.arguments.get("initial_state") is not None
        if active and active[-1].layer is layer:  # a class that calls its base class's `call`
            given = given or active[-1].state_given
        active.append(_Active(layer, given))
        try:
            return call(layer, sequences, *args, **kwargs)
        finally:
            active.pop()

    # tf_keras asks getfullargspec, which does not look through wrappers, what it may pass on.
    result: Any = _as_it_is(wrapper)
    result.__signature__ = signature
    return cast(Callable[..., Any], result)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which AutoGraph is not to translate."""
    marked: Callable[..., Any] = tensorflow().autograph.experimental.do_not_convert(function)
    return marked


def _to_handler(
    rnn: Callable[..., RnnResult], active: list[_Active], handler: Handler
) -> Callable[..., RnnResult]:
    """A `backend.rnn` that asks the handler."""

    @functools.wraps(rnn)
    def wrapper(
        step_function: Any,
        inputs: Any,
        initial_states: Any,
        go_backwards: bool = False,
        mask: Any = None,
        constants: Any = None,
        unroll: bool = False,
        input_length: Any = None,
        time_major: bool = False,
        zero_output_for_mask: bool = False,
        return_all_outputs: bool = True,
    ) -> RnnResult:
        def original(states: Any) -> RnnResult:
            return rnn(
                step_function,
                inputs,
                states,
                go_backwards=go_backwards,
                mask=mask,
                constants=constants,
                unroll=unroll,
                input_length=input_length,
                time_major=time_major,
                zero_output_for_mask=zero_output_for_mask,
                return_all_outputs=return_all_outputs,
            )

        if not active:
            return original(initial_states)
        layer = active[-1].layer
        return handler(
            RnnCall(
                layer=layer,
                step=step_function,
                inputs=inputs,
                initial_states=initial_states,
                state_given=active[-1].state_given,
                go_backwards=go_backwards,
                mask=mask,
                constants=tuple(constants or ()),
                time_major=time_major,
                zero_output_for_mask=zero_output_for_mask,
                enclosing=tuple(a.layer for a in active if a.layer is not layer),
                folds=tuple(size for a in active for size in a.folds),
                original=original,
            )
        )

    return wrapper


def _fold_time(
    call: Callable[..., Any], engine: KerasEngine, active: list[_Active]
) -> Callable[..., Any]:
    """TimeDistributed as one call of the inner layer on [B * T, ...].

    Both Kerases otherwise unroll, vectorise or loop over time, which a converter cannot undo.
    """
    tf = tensorflow()

    @functools.wraps(call)
    def wrapper(wrapped: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if tf.nest.is_nested(inputs):
            return call(wrapped, inputs, training=training, mask=mask)
        shape = tf.shape(inputs)

        def fold(x: Any) -> Any:
            batch, time = x.shape[:2]
            folded = tf.reshape(x, _shape([-1, *x.shape[2:]], tf.shape(x)[1:]))
            folded.set_shape([batch * time if batch and time else None, *x.shape[2:]])
            return folded

        def unfold(y: Any) -> Any:
            batch, time = inputs.shape[:2]
            leading = [batch, -1] if time is None else [-1, time]
            if batch is None and time is None:
                leading = [None, None]
            sizes = tf.concat([shape[:2], tf.shape(y)[1:]], 0)
            unfolded = tf.reshape(y, _shape([*leading, *y.shape[1:]], sizes))
            unfolded.set_shape([batch, time, *y.shape[1:]])
            return unfolded

        kwargs: dict[str, Any] = {}
        inner = wrapped.layer
        if engine is KerasEngine.KERAS3:
            if inner._call_has_training_arg:
                kwargs["training"] = training
            if mask is not None and inner._call_has_mask_arg:
                kwargs["mask"] = fold(mask)
            inner = inner.call
        elif mask is not None and len(mask.shape) > 2:
            kwargs["mask"] = fold(mask)
        active.append(_Active(wrapped, state_given=False, folds=(inputs.shape[1],)))
        try:
            result = inner(fold(inputs), **kwargs)
        finally:
            active.pop()
        return tf.nest.map_structure(unfold, result)

    return _as_it_is(wrapper)


def _shape(sizes: list[int | None], computed: Any) -> Any:
    """A constant shape when all sizes are known, which keeps the reshaped tensor plannable."""
    tf = tensorflow()
    if all(size is not None for size in sizes):
        return tf.constant(sizes, tf.int32)
    known = [computed[i] if size is None else size for i, size in enumerate(sizes)]
    return tf.stack(known)
