"""A job's fields by their dotted names: overrides, flat parameters, and JSON without executing anything."""

import ast
import dataclasses
import difflib
import importlib
import json
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from meta_service.errors import UserError

_PACKAGES = ("meta_service.", "jobs.")  # whose classes a stored job may name
T = TypeVar("T")

_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"algorithm.inner_lr": 0.4, ...}; items of tuples go by their `name`."""
    flat: dict[str, Any] = {}
    for name, item in _children(value).items():
        if _children(item):
            flat |= flatten(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def override(value: T, assignments: Iterable[str]) -> T:
    """`value` with fields replaced: override(job, ["tasks.shots=5"]).

    Raises UserError for a name there is none of (with the nearest right one) and for a value of another type.
    """
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UserError(f"'{assignment}': NAME=VALUE is expected, as in algorithm.inner_lr=0.1")
        known = flatten(value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            endings = [path for path in known if path.endswith("." + name)]
            raise UserError(f"there is no field '{name}'; the nearest is '{(endings or near)[0]}'")
        value = _replaced(value, name.split("."), name, text)
    return value


def to_json(value: Any) -> str:
    """The job as text from which `from_json` makes it again."""
    return json.dumps(_encode(value), indent=2)


def from_json(text: str) -> Any:
    """The inverse of `to_json`. Makes dataclasses of this project's packages alone and checks every value's type."""
    try:
        return _decode(json.loads(text))
    except (ValueError, KeyError, AttributeError, ImportError, TypeError) as error:
        raise UserError(f"a job as written by this version is expected, its text says: {error}") from error


def _children(value: Any) -> dict[str, Any]:
    """The parts that go by a name of their own; none for a leaf."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and value and all(hasattr(item, "name") for item in value):
        return {item.name: item for item in value}
    return {}


def _replaced(value: Any, path: list[str], name: str, text: str) -> Any:
    head, *rest = path
    if rest:
        new = _replaced(_children(value)[head], rest, name, text)
    else:
        new = _parse(text, typing.get_type_hints(type(value))[head], name)
    if isinstance(value, tuple):
        return tuple(new if item.name == head else item for item in value)
    return dataclasses.replace(value, **{head: new})


def _parse(text: str, hint: Any, name: str) -> Any:
    try:
        value = ast.literal_eval(_WORDS.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    if typing.get_origin(hint) is tuple and not isinstance(value, tuple):
        value = tuple(value) if isinstance(value, list) else (value,)
    for candidate in (value, text):  # a name such as 1.5 is a string, too
        try:
            return TypeAdapter(hint).validate_python(candidate, strict=True)
        except ValidationError:
            continue
    raise UserError(f"{name}: {_wording(hint)} is expected, '{text}' came")


def _wording(hint: Any) -> str:
    """A type as a user would say it: `int`, `one of 'mean', 'sum'`."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {"class": f"{kind.__module__}:{kind.__qualname__}"} | {
            k: _encode(v) for k, v in _children(value).items()
        }
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    module, _, name = value["class"].partition(":")
    if not module.startswith(_PACKAGES):
        raise ValueError(f"class {value['class']} is not of this project")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{value['class']} is no dataclass")
    fields = {key: _decode(item) for key, item in value.items() if key != "class"}
    hints = typing.get_type_hints(kind)
    for key, item in fields.items():
        if not _children(item):
            fields[key] = TypeAdapter(hints[key]).validate_python(item)
    return kind(**fields)
