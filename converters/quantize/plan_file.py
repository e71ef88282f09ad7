"""A mixed precision plan as a TOML file.

default = "int8"          # recurrences that are not named below
surroundings = "float32"  # all other operators; left out, it is the default

[layers]
"lstm_1" = "float32"
"bidirectional/*" = { precision = "int8", reason = "both directions alike", input = "single" }

[[operators]]             # exceptions from the surroundings
op = "CONV_2D"
name = "encoder/*"
precision = "int8"
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.plan import LayerChoice, OperatorRule, Plan, check_plan
from edgelstm.converters.spec import Precision
from edgelstm.errors import OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"
_KEYS = {"default", "surroundings", "layers", "operators"}
_NAMED = "the plan names it"
_LARGEST_BYTES = 1 << 20


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        OptionError: it is missing, no TOML, or says something that no plan may.
        UnsupportedModelError: a precision is not written.
    """
    where = str(path)
    if path.exists() and not path.is_file():  # opening a pipe waits for its writer
        raise OptionError("The plan is no file.", where=where, cure="name a file in TOML")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise OptionError(
            f"The plan cannot be read: {error.strerror}.", where=where, cure="check the path"
        ) from None
    if len(content) > _LARGEST_BYTES:
        raise OptionError("The plan is longer than 1 MB.", where=where, cure="give a plan in TOML")
    try:
        found = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(
            f"The plan is no TOML: {error}.",
            where=where,
            cure="edgelstm quantize-search writes plans; converters/README.md shows one",
        ) from None
    plan = _plan(found, where)
    check_plan(plan)
    return plan


def _plan(found: Mapping[str, Any], where: str) -> Plan:
    _only(found, _KEYS, where)
    if "default" not in found:
        raise OptionError(
            "The plan has no default.", where=where, cure='write default = "float32" at its top'
        )
    default = _precision(found["default"], "default", where)
    surroundings = _precision(found.get("surroundings", default.value), "surroundings", where)
    return Plan(default, surroundings, _layers(found, where), _operators(found, where), where)


def _layers(found: Mapping[str, Any], where: str) -> dict[str, LayerChoice]:
    table = found.get("layers", {})
    if not isinstance(table, Mapping):
        raise OptionError(
            "`layers` is no table.", where=where, cure='write [layers] and "NAME" = "int8" under it'
        )
    made = {}
    for name, entry in table.items():
        place = f"{where}, layer {name!r}"
        reason, form = _NAMED, None
        if isinstance(entry, Mapping):
            _only(entry, {"precision", "reason", "input"}, place)
            form = _form(entry, place)
            reason = entry.get("reason", reason)
            if not isinstance(reason, str):
                raise OptionError("`reason` is no text.", where=place, cure="quote it")
            entry = entry.get("precision")
        precision = _precision(entry, "precision", place)
        if form is not None and precision is not Precision.INT8:
            raise OptionError(
                f"`input` says how int8 layers take their input, and this one is {precision.value}.",
                where=place,
                cure="leave it out",
            )
        made[name] = LayerChoice(precision, reason, named=True, form=form)
    return made


def _form(entry: Mapping[str, Any], where: str) -> InputForm | None:
    value = entry.get("input")
    known = [form.value for form in InputForm]
    if value is not None and value not in known:
        raise OptionError(
            f"`input` is {value!r}, which is no form of an input.",
            where=where,
            cure=f"give one of {', '.join(known)}, in quotes",
        )
    return None if value is None else InputForm(value)


def _operators(found: Mapping[str, Any], where: str) -> tuple[OperatorRule, ...]:
    rules = found.get("operators", [])
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise OptionError(
            "`operators` is no list of tables.", where=where, cure="write [[operators]]"
        )
    made = []
    for number, rule in enumerate(rules):
        place = f"{where}, operators {number + 1}"
        _only(rule, {"op", "name", "precision"}, place)
        op, name = rule.get("op", "*"), rule.get("name", "*")
        if not isinstance(op, str) or not isinstance(name, str) or op == name == "*":
            raise OptionError(
                "A rule for operators has no pattern.",
                where=place,
                cure='give it op = "CONV_2D", name = "encoder/*", or both',
            )
        made.append(OperatorRule(op, name, _precision(rule.get("precision"), "precision", place)))
    return tuple(made)


def _precision(value: object, key: str, where: str) -> Precision:
    known = [p.value for p in Precision]
    if not isinstance(value, str) or value not in known:
        raise OptionError(
            f"`{key}` is {value!r}, which is no precision.",
            where=where,
            cure=f"give one of {', '.join(known)}, in quotes",
        )
    return Precision(value)


def _only(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise OptionError(
                f"The key {key!r} means nothing here.",
                where=where,
                cure=f"the keys are {', '.join(sorted(keys))}",
            )


def plan_text(plan: Plan, head: Iterable[str] = ()) -> str:
    """The plan as TOML that `read_plan` reads back.

    Args:
        head: lines of a comment at its top.
    """
    lines = [f"# {_comment(line)}".rstrip() for line in head]
    lines += [f'default = "{plan.default.value}"', f'surroundings = "{plan.surroundings.value}"']
    for name, choice in plan.layers.items():
        lines += ["", f"[layers.{_quoted(name)}]", f'precision = "{choice.precision.value}"']
        if choice.form is not None:
            lines.append(f'input = "{choice.form.value}"')
        if choice.reason:
            lines.append(f"reason = {_quoted(choice.reason)}")
    for rule in plan.operators:
        lines += ["", "[[operators]]", f"op = {_quoted(rule.op)}", f"name = {_quoted(rule.name)}"]
        lines.append(f'precision = "{rule.precision.value}"')
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    special = {"\\": "\\\\", '"': '\\"'}
    return (
        '"'
        + "".join(special.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
        + '"'
    )
