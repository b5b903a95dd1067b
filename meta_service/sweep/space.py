"""What a sweep may choose from: a range for each field, written as a user writes it."""

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from meta_service.dotted import flatten, override
from meta_service.errors import UserError

T = TypeVar("T")
Setting = dict[str, Any]
"""Values by the dotted names of the fields they are for: {"algorithm.inner_lr": 0.4}."""

DIGITS = 3  # a value that was drawn is rounded to so many: what a table shows is what was run


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`, evenly; with `log` every power of ten as often as the next."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise UserError(f"{self}: LOW < HIGH is expected, and LOW > 0 for loguniform")

    def __str__(self) -> str:
        return f"{'log' if self.log else ''}uniform({self.low}, {self.high})"

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, float | int) and self.low <= value <= self.high

    def rounded(self, value: float) -> float:
        """The value with three digits, still within the range."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def points(self, count: int) -> list[Any]:
        """So many values from end to end, evenly."""
        shares = [i / max(count - 1, 1) for i in range(count)]
        if self.log:
            return [self.rounded(self.low * (self.high / self.low) ** share) for share in shares]
        return [self.rounded(self.low + (self.high - self.low) * share) for share in shares]


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (isinstance(self.low, int) and isinstance(self.high, int) and self.low < self.high):
            raise UserError(f"{self}: whole numbers LOW < HIGH are expected")

    def __str__(self) -> str:
        return f"integers({self.low}, {self.high})"

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def points(self, count: int) -> list[Any]:
        return list(range(self.low, self.high + 1))


@dataclass(frozen=True)
class Choice:
    """One of these values, which have no order."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UserError("choice(): at least one value is expected, none came")

    def __str__(self) -> str:
        return f"choice({', '.join(map(_written, self.values))})"

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def points(self, count: int) -> list[Any]:
        return list(self.values)


Range = Uniform | Integers | Choice
Space = Mapping[str, Range]


def uniform(low: float, high: float) -> Range:
    return Uniform(low, high)


def loguniform(low: float, high: float) -> Range:
    return Uniform(low, high, log=True)


def integers(low: int, high: int) -> Range:
    return Integers(low, high)


def choice(*values: Any) -> Range:
    return Choice(values)


KINDS: dict[str, Callable[..., Range]] = {kind.__name__: kind for kind in (uniform, loguniform, integers, choice)}
FORMS = "uniform(LOW, HIGH), loguniform(LOW, HIGH), integers(LOW, HIGH) or choice(A, B, ...)"
_WORDS = {"true": True, "false": False, "none": None}


def parse(name: str, text: str) -> Range:
    """The range in `loguniform(1e-3, 1)`. Raises UserError; nothing in the text is executed."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            raise ValueError
        return KINDS[call.func.id](*map(_literal, call.args))
    except UserError as error:
        raise UserError(f"space.{name}={error}") from error
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise UserError(f"space.{name}: {FORMS} is expected, '{text}' came") from error


def check(job: Any, space: Space, fixed: Mapping[str, str]) -> None:
    """Refuses a field there is none of, one that is `fixed` (with why), and ranges with values it does not take."""
    known = flatten(job)
    for name, range_ in space.items():
        reason = next((why for prefix, why in fixed.items() if f"{name}.".startswith(f"{prefix}.")), None)
        if reason:
            raise UserError(f"space.{name}: {reason}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            endings = [path for path in known if path.endswith("." + name)]
            raise UserError(f"space.{name}: there is no field '{name}'; the nearest is '{(endings or near)[0]}'")
        ends = [range_.rounded((range_.low + range_.high) / 2)] if isinstance(range_, Uniform) else []
        for value in (*range_.points(2), *ends):
            try:
                applied(job, {name: value})
            except UserError as error:
                raise UserError(f"space.{name}={range_}: {error}") from error


def applied(value: T, setting: Setting) -> T:
    """`value` with the fields of a setting."""
    return override(value, [f"{name}={item!r}" for name, item in setting.items()])


def short(value: Any) -> str:
    """A value in a table."""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _literal(node: ast.expr) -> Any:
    """A constant; a bare word is itself, or true, false or none."""
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id.lower(), node.id)
    value = ast.literal_eval(node)
    return tuple(value) if isinstance(value, list) else value


def _written(value: Any) -> str:
    """The text that `_literal` reads as this value."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value.isidentifier() and value not in _WORDS else repr(value)
