"""Find and load the native library that ships inside this package."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from edgelstm.errors import MissingPackageError, OptionError

LIBRARY = "libedgelstm_delegate.so"
ABI = 3
ENVIRONMENT = "EDGELSTM_DELEGATE"

_CURE = "run: pip install --force-reinstall edgelstm (in a checkout: pip install .)"


@dataclasses.dataclass(frozen=True)
class NativeLibrary:
    """The loaded library and what it says about itself.

    Attributes:
        abi: version of its C interface; equals `ABI`.
        version: version of the package that it was built from.
        isa: instruction sets of this CPU that kernels may use, e.g. ("sse4.2", "avx2", "fma").
        kernels: sets of kernels that run here, best first, e.g. ("avx2", "generic", "scalar").
        chosen: the one in use; None when $EDGELSTM_ISA names none of them.
    """

    path: Path
    abi: int
    version: str
    isa: tuple[str, ...]
    kernels: tuple[str, ...]
    chosen: str | None


def library_path() -> Path:
    """The library to load: $EDGELSTM_DELEGATE, this package's own, else the installed one.

    Raises:
        OptionError: $EDGELSTM_DELEGATE names no file.
        MissingPackageError: the library has not been built.
    """
    override = os.environ.get(ENVIRONMENT)
    if override:
        if not Path(override).is_file():
            raise OptionError(
                f"{ENVIRONMENT} names no file.", where=override, cure=f"unset {ENVIRONMENT}"
            )
        return Path(override)
    beside = Path(str(resources.files("edgelstm"))) / "_native" / LIBRARY
    if beside.is_file():
        return beside
    installed = _installed_path()
    if installed is not None:
        return installed
    raise MissingPackageError("The native library has not been built.", where=LIBRARY, cure=_CURE)


def _installed_path() -> Path | None:
    # A checkout shadows the installed package under `python -m edgelstm` in its root.
    try:
        distribution = metadata.distribution("edgelstm")
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(f"edgelstm/_native/{LIBRARY}")))
    return path if path.is_file() else None


def load() -> tuple[ctypes.CDLL, NativeLibrary]:
    """The native library and its description.

    Raises:
        OptionError: $EDGELSTM_DELEGATE names no file.
        MissingPackageError: the library is missing, does not load on this machine, or has another
            ABI than this package.
    """
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        abi = int(library.edgelstm_abi_version())
    except (OSError, AttributeError) as error:
        raise MissingPackageError(
            f"The native library does not load: {error}", where=str(path), cure=_CURE
        ) from None
    if abi != ABI:
        raise MissingPackageError(
            f"The native library has ABI {abi}, this package needs ABI {ABI}.",
            where=str(path),
            cure=_CURE,
        )
    library.edgelstm_kernels_chosen.restype = ctypes.c_char_p
    chosen = library.edgelstm_kernels_chosen(None)
    return library, NativeLibrary(
        path,
        abi,
        _version(library),
        isa=_names(library.edgelstm_cpu_features),
        kernels=_names(library.edgelstm_kernels),
        chosen=None if chosen is None else chosen.decode("ascii"),
    )


def delegate_counts(delegate: Any) -> tuple[int, int, str]:
    """What a delegate made by an interpreter's `load_delegate` from this library has done.

    Returns:
        How many fused operators it has taken, how many it has left to the interpreter, and why it
        left the last one; "" when it left none.
    """
    library, _ = load()
    pointer = ctypes.c_void_p(delegate._get_native_delegate_pointer())
    library.edgelstm_delegate_claimed.restype = ctypes.c_int64
    library.edgelstm_delegate_refused.restype = ctypes.c_int64
    library.edgelstm_delegate_reason.restype = ctypes.c_char_p
    reason: bytes = library.edgelstm_delegate_reason(pointer) or b""
    return (
        int(library.edgelstm_delegate_claimed(pointer)),
        int(library.edgelstm_delegate_refused(pointer)),
        reason.decode("ascii"),
    )


def counts_of(interpreter: Any) -> tuple[int, int, str]:
    """`delegate_counts` of the one delegate that an interpreter was made with."""
    return delegate_counts(interpreter._delegates[0])


def _version(library: ctypes.CDLL) -> str:
    library.edgelstm_version.restype = ctypes.c_char_p
    text: bytes = library.edgelstm_version()
    return text.decode("ascii")


def _names(call: Any) -> tuple[str, ...]:
    """The list that a function writes as `edgelstm_cpu_features` does."""
    call.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    call.restype = ctypes.c_size_t
    buffer = ctypes.create_string_buffer(call(None, 0) + 1)
    call(buffer, len(buffer))
    text = buffer.value.decode("ascii")
    return tuple(text.split(",")) if text else ()


def probe() -> Callable[[int, Any, int, int], int]:
    """`edgelstm_probe` with the kernels in use, as a function of the kind, a contiguous array that
    loses its content, its bytes (4,096 or more) and the rounds; it returns the multiplications or
    bytes done, or -1.

    Raises:
        MissingPackageError: there is no native library.
    """
    library, _ = load()
    library.edgelstm_probe.restype = ctypes.c_int64
    library.edgelstm_probe.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
    ]

    def run(kind: int, memory: Any, size: int, rounds: int) -> int:
        if not memory.flags.c_contiguous or memory.nbytes < size:
            raise ValueError("the memory is not contiguous or too small")
        return int(library.edgelstm_probe(None, kind, memory.ctypes.data, size, rounds))

    return run
