"""Exports one PyTorch file to ONNX, in a Python that has torch, onnx and onnxscript.

Run as a program with the path of a request, `export.Request` as JSON; this module imports nothing
of EdgeLSTM, which that Python may lack. The answer, `export.Answer` as JSON or {"error": ...},
goes beside the request, and what the model computes on random inputs into .npz files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Sizes that stand for an open axis when the model is traced, and when it is run.
_TRACED, _RUNS = 3, (3, 2, 5)
_MANY = 5  # inputs whose types are tried
_RUNNING = (RuntimeError, IndexError, torch.jit.Error)  # what a call may raise
_OPSET = 17
_NOT_NAMES = re.compile(r"\.\d+$")
_Shapes = dict[str, list["int | None"]]


class Refused(Exception):
    """What is wrong, as words for the caller: `kind` and facts to tell it with."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.facts = {"kind": kind, **facts}


class Called(torch.nn.Module):  # type: ignore[misc]
    """A module with some arguments given, and its outputs flat."""

    def __init__(self, module: Any, names: Sequence[str], fixed: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.names, self.fixed = module, names, fixed

    def forward(self, *values: Any) -> tuple[Any, ...]:
        given = {**self.fixed, **dict(zip(self.names, values, strict=True))}
        return tuple(flat(self.module(**given)))


def flat(value: Any) -> list[Any]:
    """Every tensor of nested tuples, lists and dictionaries, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in flat(each)]
    if isinstance(value, (tuple, list)):
        return [tensor for each in value for tensor in flat(each)]
    return []


def scripted(path: str, request: dict[str, Any]) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """A TorchScript module or the part that its inputs name, its arguments, its outputs' names."""
    module = torch.jit.load(path, map_location="cpu").eval()
    for name in filter(None, request["part"].split(".")):
        if not hasattr(module, name) or not isinstance(getattr(module, name), torch.nn.Module):
            parts = [n for n, _ in module.named_children()]
            raise Refused("no_part", part=request["part"], parts=parts)
        module = getattr(module, name)
    graph = module.inlined_graph  # nodes live as long as their graph
    kept = sorted({node.s("name") for node in graph.findAllNodes("prim::SetAttr")})
    if kept:
        raise Refused("keeps_state", attributes=kept, parts=_free_parts(module, request["part"]))
    arguments = [
        {"name": a.name, "type": str(a.type), "needed": not a.has_default_value()}
        for a in module.forward.schema.arguments[1:]
    ]
    return module, arguments, _output_names(module.graph)


def _free_parts(module: Any, prefix: str) -> list[str]:
    """Parts that keep nothing between calls, as calls are written; the largest only."""
    found: list[str] = []
    for name, part in module.named_modules():
        if not name or any(name.startswith(f"{f.partition('(')[0]}.") for f in found):
            continue
        try:
            graph, schema = part.inlined_graph, part.forward.schema
        except (AttributeError, RuntimeError):
            continue
        if not graph.findAllNodes("prim::SetAttr"):
            path = f"{prefix}.{name}" if prefix else name
            names = ", ".join(a.name for a in schema.arguments[1:])
            found.append(f"{path}({names})")
    return found[:6]


def _output_names(graph: Any) -> list[str]:
    """As the code calls them; an empty one where it does not."""

    def names(value: Any) -> list[str]:
        if value.node().kind() in ("prim::TupleConstruct", "prim::ListConstruct"):
            return [name for each in value.node().inputs() for name in names(each)]
        name = _NOT_NAMES.sub("", value.debugName())
        return ["" if name.isdigit() else name]

    return [name for value in graph.outputs() for name in names(value)]


def made_by_code(path: str, code: str) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """What `build(weights)` in the user's module makes of the tensors in the file."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Refused("not_weights", message=str(error).splitlines()[0]) from None
    if not code:
        names = [str(name) for name in weights] if isinstance(weights, dict) else []
        raise Refused("no_code", names=names[:6])
    sys.path.insert(0, str(Path(code).resolve().parent))
    spec = importlib.util.spec_from_file_location("user_model", code)
    if spec is None or spec.loader is None:
        raise Refused("code_failed", message=f"{code} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        built = module.build(weights)
    except Exception as error:
        raise Refused("code_failed", message=f"{type(error).__name__}: {error}") from None
    if not isinstance(built, torch.nn.Module):
        raise Refused("code_failed", message=f"build() gave a {type(built).__name__}")
    arguments = [
        {"name": p.name, "type": "Tensor", "needed": p.default is p.empty}
        for p in inspect.signature(built.forward).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return built.eval(), arguments, []


def plain_value(text: str, kind: str, name: str) -> Any:
    """What `--fix NAME=VALUE` gives an argument of a type."""
    kind = kind.removeprefix("Optional[").removesuffix("]")
    try:
        value = json.loads(text.lower() if text in ("True", "False", "None") else text)
    except ValueError:
        value = text
    if "Tensor" in kind:
        return torch.tensor(value)
    if kind in ("int", "float", "bool") and not isinstance(value, (int, float)):
        raise Refused("bad_value", name=name, value=text, type=kind)
    return {"int": int, "float": float, "bool": bool}.get(kind, lambda v: v)(value)


def filled(shapes: _Shapes, types: dict[str, str], size: int, seed: int) -> list[Any]:
    """Random inputs, every open axis of the same size; ones and twos for integers."""
    rng = np.random.default_rng(seed)
    values = []
    for name, shape in shapes.items():
        closed = [size if axis is None else axis for axis in shape]
        if types[name] != "float32":
            values.append(torch.from_numpy(rng.integers(1, 3, closed, types[name])))
        else:
            values.append(torch.from_numpy(rng.standard_normal(closed).astype(np.float32)))
    return values


def export_module(request: dict[str, Any]) -> dict[str, Any]:
    """A TorchScript module, or one of the user's code, by the exporter that keeps loops."""
    if request["form"] == "script":
        module, arguments, names = scripted(request["file"], request)
    else:
        module, arguments, names = made_by_code(request["file"], request["code"])
    kinds = {each["name"]: each["type"] for each in arguments}
    shapes: _Shapes = request["shapes"]
    unknown = [n for n in (*shapes, *request["fix"]) if n not in kinds]
    missing = [
        a for a in arguments if a["needed"] and a["name"] not in {**shapes, **request["fix"]}
    ]
    if unknown or missing or not shapes:
        raise Refused("arguments", arguments=arguments, unknown=unknown, missing=missing)
    fixed = {n: plain_value(text, kinds[n], n) for n, text in request["fix"].items()}
    if request["form"] == "script":
        called = _scripted_call(module, list(shapes), fixed, Path(request["runs"]))
    else:
        called = Called(module, list(shapes), fixed)
    types, values = _typed(called, shapes)
    outputs = len(flat(called(*values)))
    if len(names) != outputs or len(set(names) - {""}) < len([n for n in names if n]):
        names = [""] * outputs
    names = [n or ("output" if k == 0 else f"output_{k}") for k, n in enumerate(names)]
    open_axes = {
        n: {k: f"{n}_{k}" for k, a in enumerate(s) if a is None} for n, s in shapes.items()
    }
    torch.onnx.export(
        called, tuple(values), request["onnx"], dynamo=False, opset_version=_OPSET,
        input_names=list(shapes), output_names=names,
        dynamic_axes={name: axes for name, axes in open_axes.items() if axes},
    )  # fmt: skip
    _as_in_the_model(request["onnx"])
    runs = 0
    for seed, size in enumerate(_RUNS):
        if seed and not any(open_axes.values()):
            break
        values = filled(shapes, types, size, seed)
        try:
            found = flat(called(*values))
        except _RUNNING:  # sizes that the model does not take
            continue
        _write_run(request["runs"], runs, shapes, values, names, found)
        runs += 1
    return {"inputs": list(shapes), "outputs": names, "runs": runs}


def _as_in_the_model(path: str) -> None:
    """Names of nodes without the attribute that `Called` holds the module in."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.name.removeprefix("/module")
    onnx.save(model, path)


def _scripted_call(module: Any, names: list[str], fixed: dict[str, Any], folder: Path) -> Any:
    """The module with some arguments given, as a script: the exporter traces none that is loaded."""
    given = ", ".join(
        f"{n}=torch.tensor({v.tolist()!r})" if isinstance(v, torch.Tensor) else f"{n}={v!r}"
        for n, v in fixed.items()
    )
    call = ", ".join([*(f"{n}={n}" for n in names), *([given] if given else [])])
    code = folder / "scripted_call.py"
    code.write_text(
        "import torch\n\n\n"
        "class Call(torch.nn.Module):\n"
        "    def __init__(self, module):\n"
        "        super().__init__()\n"
        "        self.module = module\n\n"
        f"    def forward(self, {', '.join(names)}):\n"
        f"        return self.module({call})\n"
    )
    sys.path.insert(0, str(folder))
    wrapper = importlib.import_module("scripted_call")
    return torch.jit.script(wrapper.Call(module)).eval()


def _typed(called: Any, shapes: _Shapes) -> tuple[dict[str, str], list[Any]]:
    """The first types that the module takes: float32, or integers for those it wants so."""
    told = ""
    for kinds in itertools.product(("float32", "int64"), repeat=min(len(shapes), _MANY)):
        types = dict(itertools.zip_longest(shapes, kinds, fillvalue="float32"))
        values = filled(shapes, types, _TRACED, 0)
        try:
            called(*values)
        except _RUNNING as error:
            told = told or str(error).strip().splitlines()[-1]
            continue
        return types, values
    raise Refused("does_not_run", message=told)


def export_program(request: dict[str, Any]) -> dict[str, Any]:
    """A program of torch.export, which tells its inputs, its sizes and what varies."""
    program = torch.export.load(request["file"])
    torch.onnx.export(program, f=request["onnx"], dynamo=True, external_data=False, verbose=False)
    import onnx

    graph = onnx.load(request["onnx"]).graph
    weights = {one.name for one in graph.initializer}
    inputs = [one.name for one in graph.input if one.name not in weights]
    outputs = [one.name for one in graph.output]
    arguments, keywords = program.example_inputs
    values = flat([arguments, keywords])
    if len(values) == len(inputs):
        found = flat(program.module()(*arguments, **keywords))
        _write_run(request["runs"], 0, inputs, values, outputs, found)
    return {"inputs": inputs, "outputs": outputs, "runs": int(len(values) == len(inputs))}


def _write_run(
    folder: str, number: int, inputs: Any, values: Any, outputs: Any, found: Any
) -> None:
    arrays = {f"in:{n}": v.detach().numpy() for n, v in zip(inputs, values, strict=True)}
    arrays |= {f"out:{n}": v.detach().numpy() for n, v in zip(outputs, found, strict=True)}
    np.savez(Path(folder) / f"{number}.npz", **arrays)


def main(path: str) -> None:
    """Answers one request."""
    request = json.loads(Path(path).read_text())
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            made = export_program if request["form"] == "program" else export_module
            answer = {**made(request), "framework": f"PyTorch {torch.__version__}"}
    except Refused as refused:
        answer = {"error": refused.facts}
    except Exception as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        message = f"{type(error).__name__}: {lines[0] if lines else ''}"
        answer = {"error": {"kind": "failed", "message": message[:400]}}
    Path(request["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
