"""What an event has to be like to be shown, or replayed: `data.user_id=7`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Never

from domain_events.cli.operator.parsing import UsageError, moment
from domain_events.showing import one_line

FIELDS = ("routing_key", "data", "domain_object_id", "uuid_string", "timestamp")
"""What a path begins with."""

SYNTAX = (
    "PATH=VALUE, with != < > <= >= or ~ (contains) in place of =; the path begins with "
    f"{', '.join(FIELDS)}; as data.user_id=7, 'data.items.0.price>9.5', 'routing_key~user'"
)

_STEP = r'"(?:[^"\\]|\\.)*"|[^.=!<>~"]+'
_CONDITION = re.compile(rf"\s*((?:{_STEP})(?:\.(?:{_STEP}))*)(==|!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
_INDEX = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Condition:
    path: tuple[str, ...]
    """Keys of objects, and places in lists: counted from 0, or with -1 from the last."""
    operator: str
    value: Any
    """As JSON reads it; what is no JSON is text."""
    text: str
    """The value as it was written."""

    def holds(self, event_like: Mapping[str, Any]) -> bool:
        """Of a mapping with the keys FIELDS. What is not there counts as null, and is neither less nor greater."""
        return _OPERATORS[self.operator](_at(event_like, self.path), self)


def parse_condition(text: str) -> Condition:
    """Raises UsageError, which says what is wrong: the `type` of an argument may do so.

    Keys that hold a dot or an operator stand in double quotes, as JSON writes them: data."a.b"=1.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        _refuse(text, "is no condition")
    path = tuple(_key(text, step) for step in re.findall(_STEP, found[1].rstrip()))
    if path[0] not in FIELDS:
        _refuse(text, f"begins with none of the fields of an event (data.{path[0]}?)")
    value = _value(found[3])
    if path == ("timestamp",) and isinstance(value, str):
        value = moment(value)
    return Condition(path, found[2], value, found[3])


def all_hold(conditions: Iterable[Condition], event_like: Mapping[str, Any]) -> bool:
    return all(condition.holds(event_like) for condition in conditions)


def _refuse(text: str, problem: str) -> Never:
    raise UsageError(f"the condition {one_line(text, 100)!r} {problem}: write {SYNTAX}")


def _key(text: str, step: str) -> str:
    if not step.startswith('"'):
        return step
    try:
        key: str = json.loads(step)
    except ValueError:
        _refuse(text, f"has a key {one_line(step, 50)} that is no JSON string")
    return key


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _at(value: Any, path: Iterable[str]) -> Any:
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and _INDEX.fullmatch(step) and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _equals(there: Any, condition: Condition) -> bool:
    # domain_object_id=7 is meant for the string "7" as well: ids are strings as often as numbers.
    return _same(there, condition.value) or (isinstance(there, str) and there == condition.text)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _contains(there: Any, condition: Condition) -> bool:
    match there:
        case str():
            word = condition.value if isinstance(condition.value, str) else condition.text
            return word in there
        case list():
            return any(_equals(each, condition) for each in there)
        case Mapping():
            return condition.text in there or (isinstance(condition.value, str) and condition.value in there)
    return False


def _compares(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Condition], bool]:
    def compare(there: Any, condition: Condition) -> bool:
        if isinstance(there, str):
            return holds(there, condition.value if isinstance(condition.value, str) else condition.text)
        if isinstance(there, bool) or isinstance(condition.value, bool):
            return False
        return (
            isinstance(there, (int, float))
            and isinstance(condition.value, (int, float))
            and holds(there, condition.value)
        )

    return compare


_OPERATORS: Mapping[str, Callable[[Any, Condition], bool]] = {
    "=": _equals,
    "==": _equals,
    "!=": lambda there, condition: not _equals(there, condition),
    "<": _compares(lambda there, value: there < value),
    ">": _compares(lambda there, value: there > value),
    "<=": _compares(lambda there, value: there <= value),
    ">=": _compares(lambda there, value: there >= value),
    "~": _contains,
}
