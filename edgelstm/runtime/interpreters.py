"""Find the TFLite interpreters of this machine and open a model in one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgelstm.errors import (
    MissingPackageError,
    OptionError,
    UnreadableModelError,
    UnsupportedModelError,
)
from edgelstm.runtime import native
from edgelstm.runtime.choices import chosen, thread_count
from edgelstm.runtime.model_file import place, read_model_file


class Delegate(enum.Enum):
    """What executes the ops."""

    CPU = "cpu"  # the interpreter's own kernels only
    XNNPACK = "xnnpack"  # XNNPACK for the ops that it takes, as interpreters do by default
    EDGELSTM = (
        "edgelstm"  # our kernels for the fused LSTM ops, XNNPACK for what it takes of the rest
    )


class Interpreter(Protocol):
    """What this package uses of an interpreter; all three offer it."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def get_tensor(self, tensor_index: int) -> Any: ...
    def get_tensor_details(self) -> list[dict[str, Any]]: ...
    def invoke(self) -> None: ...
    def reset_all_variables(self) -> None: ...
    def resize_tensor_input(
        self, input_index: int, tensor_size: Sequence[int], strict: bool = False
    ) -> None: ...
    def set_tensor(self, tensor_index: int, value: Any) -> None: ...
    def tensor(self, tensor_index: int) -> Callable[[], Any]: ...


@dataclasses.dataclass(frozen=True)
class Backend:
    """A package that brings an interpreter.

    Attributes:
        name: what `backend=` takes.
        package: what is imported first; looking it up loads nothing.
        module: where the interpreter stands.
        distributions: what may have installed it.
    """

    name: str
    package: str
    module: str
    distributions: tuple[str, ...]

    @property
    def present(self) -> bool:
        """Whether the package can be found; nothing is imported."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The installed version, or "unknown"."""
        from importlib import metadata  # a quarter of this module's import time

        for distribution in self.distributions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                return metadata.version(distribution)
        return "unknown"


@dataclasses.dataclass(frozen=True)
class Pick:
    """A backend that was picked.

    Attributes:
        reason: why this one, one clause.
        notes: the installed ones before it that do not import.
    """

    backend: Backend
    reason: str
    notes: tuple[str, ...]


# In order of preference. TensorFlow stands last: importing it takes seconds and much memory.
BACKENDS = (
    Backend("litert", "ai_edge_litert", "ai_edge_litert.interpreter", ("ai-edge-litert",)),
    Backend("tflite-runtime", "tflite_runtime", "tflite_runtime.interpreter", ("tflite-runtime",)),
    Backend(
        "tensorflow",
        "tensorflow",
        "tensorflow.lite.python.interpreter",
        ("tensorflow", "tensorflow-cpu", "tf-nightly"),
    ),
)

_CURE = "pip install ai-edge-litert (tflite-runtime on 32-bit ARM)"


def find_backends() -> tuple[Backend, ...]:
    """The backends installed here, best first; nothing is imported."""
    return tuple(backend for backend in BACKENDS if backend.present)


def choose_backend(name: str | None = None) -> Backend:
    """The backend called `name`, or the best one that imports; raises as `pick_backend`."""
    return pick_backend(name).backend


def pick_backend(name: str | None = None) -> Pick:
    """The backend called `name`, or the best one that imports, and why it was picked.

    Raises:
        OptionError: there is no backend of this name.
        MissingPackageError: it is not installed, or no backend is, or none imports.
    """
    if name is not None and name not in [backend.name for backend in BACKENDS]:
        raise OptionError(
            f"There is no interpreter called {name!r}.",
            cure="use one of " + ", ".join(backend.name for backend in BACKENDS),
        )
    failures = []
    for backend in BACKENDS:
        if name not in (None, backend.name) or not backend.present:
            continue
        try:
            _import(backend)
        except Exception as error:  # a package built for another numpy or CPU raises anything
            failures.append(f"{backend.name} does not import: {error}")
        else:
            first = "the only one installed" if len(find_backends()) == 1 else "the preferred one"
            reason = "it was asked for" if name else first if not failures else "the next best"
            return Pick(backend, reason, tuple(failures))
    raise MissingPackageError(
        "; ".join(failures) or f"No interpreter is installed: {name or 'none was found'}.",
        cure=_CURE,
    )


def open_interpreter(
    model: Path | bytes,
    *,
    backend: str | None = None,
    threads: int = 1,
    delegate: Delegate = Delegate.CPU,
) -> Interpreter:
    """An interpreter of `model`, before its tensors are allocated.

    Args:
        model: a .tflite file, or its content.
        backend: "litert", "tflite-runtime" or "tensorflow"; None takes the first of them that
            imports.
        threads: number of threads, 1 to 1024.

    Raises:
        UnreadableModelError: the file is missing, damaged, or no TFLite file.
        UnsupportedModelError: the interpreter lacks an op of the model.
        MissingPackageError: no interpreter is installed, or the native library is not.
        OptionError: `backend`, `threads` or `delegate` is out of range, or $EDGELSTM_ISA names no kernels.
    """
    read_model_file(model)
    kind = chosen(Delegate, delegate, "delegate")
    return construct(model, choose_backend(backend), threads, kind)


def construct(
    model: Path | bytes, backend: Backend, threads: int, delegate: Delegate
) -> Interpreter:
    """As `open_interpreter`, for a model whose structure has been checked."""
    thread_count(threads)
    module = _import(backend)
    resolvers = module.OpResolverType
    resolver = {
        Delegate.CPU: resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        Delegate.XNNPACK: resolvers.BUILTIN,
        Delegate.EDGELSTM: resolvers.BUILTIN,
    }[delegate]
    # The interpreter keeps the delegate alive.
    loaded = {}
    if delegate is Delegate.EDGELSTM:
        loaded = {"experimental_delegates": [load_delegate(backend)]}
    content = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow announces the move to LiteRT
            interpreter: Interpreter = module.Interpreter(
                **content,
                **loaded,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
            )
    except (ValueError, RuntimeError) as error:
        raise as_user_error(error, model, backend) from None
    return interpreter


def load_delegate(backend: Backend) -> Any:
    """The native library as a delegate of an interpreter.

    Raises:
        MissingPackageError: the native library is not there, or does not fit.
        OptionError: $EDGELSTM_DELEGATE names no file, or $EDGELSTM_ISA no kernels of this machine.
    """
    _, library = native.load()
    if library.chosen is None:
        raise OptionError(
            "EDGELSTM_ISA names no kernels that run on this machine",
            where=os.environ.get("EDGELSTM_ISA"),
            cure="use one of " + ", ".join(library.kernels),
        )
    return _import(backend).load_delegate(str(library.path))


def as_user_error(
    error: Exception, model: Path | bytes, backend: Backend
) -> UnsupportedModelError | UnreadableModelError:
    """What an interpreter's complaint while opening or allocating means for the user."""
    text = " ".join(str(error).split())
    where = place(model)
    if "find op for builtin" in text or "unresolved custom op" in text or "Flex" in text:
        return UnsupportedModelError(
            f"{backend.name} {backend.version} lacks an op of the model: {text}",
            where=where,
            cure="use a newer interpreter, or convert the model again with edgelstm convert",
        )
    return UnreadableModelError(
        f"{backend.name} {backend.version} refuses the model: {text}",
        where=where,
        cure="convert the model again",
    )


def _import(backend: Backend) -> Any:
    return importlib.import_module(backend.module)
