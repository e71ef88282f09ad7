"""Runs .tflite jobs in one interpreter; also a script, for interpreters of another Python.

A job is an .npz file: `model` (bytes), `threads`, `xnnpack` (0 or 1), and for call i and input
position j an array `call{i}_{j}`; `reset{i}` present means: reset variables before call i;
`delegate`, if present, is the path of an external delegate. The answer holds `out{i}_{k}` for call
i and output position k, and with a delegate `delegates`, the number of nodes that are its kernels.

    python tflite_runner.py litert|tflite_runtime|tensorflow JOB.npz ANSWER.npz ...
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def _interpreter_module(name: str) -> Any:
    if name == "litert":
        from ai_edge_litert import interpreter
    elif name == "tflite_runtime":
        from tflite_runtime import interpreter
    else:
        from tensorflow.lite.python import interpreter
    return interpreter


def run(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Answers of one job in the named interpreter."""
    module = _interpreter_module(name)
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if int(job["xnnpack"]):
        resolver = module.OpResolverType.AUTO
    delegates = [module.load_delegate(str(job["delegate"]))] if "delegate" in job else []
    interpreter = module.Interpreter(
        model_content=bytes(job["model"]),
        num_threads=int(job["threads"]),
        experimental_op_resolver_type=resolver,
        experimental_delegates=delegates,
    )
    inputs = interpreter.get_input_details()
    answers: dict[str, Any] = {}
    if delegates:
        names = [op["op_name"] for op in interpreter._get_ops_details()]
        answers["delegates"] = np.asarray(names.count("DELEGATE"))
    call, shapes = 0, list[Any]()
    while any(key.startswith(f"call{call}_") or key == f"reset{call}" for key in job):
        arrays = [job[f"call{call}_{j}"] for j in range(len(inputs))]
        if [array.shape for array in arrays] != shapes:
            for detail, array in zip(inputs, arrays, strict=True):
                if tuple(detail["shape"]) != array.shape or shapes:
                    interpreter.resize_tensor_input(detail["index"], array.shape)
            interpreter.allocate_tensors()
            shapes = [array.shape for array in arrays]
        if f"reset{call}" in job:
            interpreter.reset_all_variables()
        for detail, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        for k, detail in enumerate(interpreter.get_output_details()):
            answers[f"out{call}_{k}"] = interpreter.get_tensor(detail["index"])
        call += 1
    return answers


if __name__ == "__main__":
    pairs = iter(sys.argv[2:])
    for job_path, answer_path in zip(pairs, pairs, strict=True):
        with np.load(job_path) as archive:
            np.savez(answer_path, **run(sys.argv[1], {key: archive[key] for key in archive}))
