"""`JsonGrammar`: the grammar of the JSON that a schema allows.

Every text of the grammar is JSON of the schema; what that cannot be said of is refused. The converters that come with
llama.cpp leave such keywords out, and the one of its Python binding lets line breaks into strings.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from dps_local.errors import SettingsError

MAX_SCHEMA = 65536  # characters
MAX_REPEATS = 2000  # llama.cpp's MAX_REPETITION_THRESHOLD
MAX_RULES = 20_000  # that all repetitions may come to; llama.cpp makes one of each
ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
TYPES: dict[str, tuple[set[str], tuple[type, ...]]] = {  # their keywords, and what json.loads makes of them
    "object": ({"properties", "required", "additionalProperties"}, (dict,)),
    "array": ({"items", "minItems", "maxItems"}, (list,)),
    "string": ({"minLength", "maxLength"}, (str,)),
    "number": (set(), (int, float)),
    "integer": (set(), (int,)),
    "boolean": (set(), (bool,)),
    "null": (set(), (type(None),)),
}
# one space at most, or some models would write nothing else; surrogates, and what is above the last character, as
# llama.cpp reads bytes that are no UTF-8, would not be the one character that they count for
BASE = r"""
space ::= " "?
hex ::= [0-9a-fA-F]
char ::= [\x20-\x21\x23-\x5B\x5D-\x7E\x80-\uD7FF\uE000-\U0010FFFF] | "\\" (["\\/bfnrt] | code)
code ::= "u" ([0-9a-cA-CefEF] hex | [dD] [0-7]) hex hex
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
array ::= "[" space (value ("," space value)*)? space "]"
object ::= "{" space (member ("," space member)*)? space "}"
member ::= string ":" space value
value ::= object | array | string | number | boolean | null
"""


def json_grammar(schema: Any) -> str:
    """Return the GBNF of a JSON schema; raises SettingsError where it is none, or asks for what cannot be done."""
    try:
        if len(json.dumps(schema, allow_nan=False)) > MAX_SCHEMA:
            raise SettingsError(f"has more than {MAX_SCHEMA} characters")
        return JsonGrammar(schema).gbnf()
    except RecursionError:
        raise SettingsError("is nested too deep") from None
    except ValueError:  # a number that JSON has not got, half of a surrogate pair
        raise SettingsError("has a value that JSON cannot say") from None


class JsonGrammar:
    def __init__(self, schema: Any) -> None:
        self._schema, self._rules, self._refs, self._n_repeats = schema, dict[str, str](), dict[str, str](), 0
        self._add(self._ref("#"), "root")

    def gbnf(self) -> str:
        return "".join(f"{name} ::= {rule}\n" for name, rule in self._rules.items()) + BASE

    def _add(self, rule: str, name: str = "") -> str:
        name = name or f"rule{len(self._rules)}"
        self._rules[name] = rule
        return name

    def _ref(self, ref: Any) -> str:
        """Return the name of the rule of what a $ref points at; a schema may hold itself."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise SettingsError("has a $ref that does not begin with #")
        if ref not in self._refs:
            self._refs[ref] = name = f"ref{len(self._refs)}"
            self._add(self._visit(self._target(ref)), name)
        return self._refs[ref]

    def _target(self, ref: str) -> Any:
        found = self._schema
        for part in ref[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                found = {str(i): one for i, one in enumerate(found)}
            if not isinstance(found, dict) or part not in found:
                raise SettingsError("has a $ref to what is not in it")
            found = found[part]
        return found

    def _visit(self, schema: Any) -> str:
        """Return the right side of a rule."""
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise SettingsError("has something else where a schema is expected")
        given = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        for one, rule in (("$ref", self._ref), ("anyOf", self._any_of), ("allOf", self._all_of)):
            if one in given:
                _only(given, (one,))
                return rule(given[one])
        types = self._types(given)
        for one in ("enum", "const"):
            if one in given:
                _only(given, ("type", one))
                return _constants(given[one] if one == "enum" else [given[one]], types)
        _only(given, {"type"}.union(*(TYPES[name][0] for name in types)))
        rules = {"object": self._object, "array": self._array, "string": self._string}  # of the others, BASE has them
        return self._any([rules[name](given) if name in rules else name for name in types]) or "value"

    def _types(self, given: dict[str, Any]) -> list[str]:
        """Return the types that are asked for, or that keywords are of; none stands for any."""
        if "type" not in given:
            return [name for name, (keywords, _) in TYPES.items() if keywords & given.keys()][:1]
        types = given["type"] if isinstance(given["type"], list) else [given["type"]]
        if not types or not all(isinstance(name, str) and name in TYPES for name in types):
            raise SettingsError(f"has a type that is none of {', '.join(TYPES)}")
        return types

    def _any(self, rules: list[str]) -> str:
        return " | ".join(rules if len(rules) == 1 else map(self._add, rules))

    def _any_of(self, choices: Any) -> str:
        if not isinstance(choices, list) or not choices:
            raise SettingsError("has an anyOf that is no list of schemas")
        return self._any([self._visit(choice) for choice in choices])

    def _all_of(self, parts: Any) -> str:
        if not isinstance(parts, list) or len(parts) != 1:  # of one, as some write a $ref with a description
            raise SettingsError("has an allOf of more than one schema, which is not supported")
        return self._visit(parts[0])

    def _object(self, given: dict[str, Any]) -> str:
        properties, required, more = (
            given.get("properties", {}),
            given.get("required", []),
            given.get("additionalProperties", True),
        )
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SettingsError("has properties that are no object, or required that is no list")
        if any(not isinstance(name, str) or name not in properties for name in required):
            raise SettingsError("requires a property that is not among its properties")
        if properties:
            return f'"{{" space {self._members(properties, required)} space "}}"'
        if more is False:
            return '"{" space "}"'
        member = self._add(f'string ":" space {self._add(self._visit(more))}')
        return f'"{{" space ({member} ("," space {member})*)? space "}}"'

    def _members(self, properties: dict[str, Any], required: list[str]) -> str:
        """Return the rule of properties in their order, of which some may be left out."""
        first, later = '""', '""'  # the properties from one on: with none before it, with some
        for name, schema in reversed(properties.items()):
            member = f'{_literal(name)} ":" space {self._add(self._visit(schema))}'
            alone, behind = self._add(f"{member} {later}"), self._add(f'"," space {member} {later}')
            if name in required:
                first, later = alone, behind
            else:
                first, later = self._add(f"{alone} | {first}"), self._add(f"{behind} | {later}")
        return first

    def _array(self, given: dict[str, Any]) -> str:
        low, high = _bounds(given, "minItems", "maxItems")
        if high == 0:
            return '"[" space "]"'
        item = self._add(self._visit(given.get("items", True)))
        more = self._repeat(self._add(f'"," space {item}'), max(low - 1, 0), high - 1 if high else None)
        return f'"[" space ({item} {more}){"" if low else "?"} space "]"'

    def _string(self, given: dict[str, Any]) -> str:
        low, high = _bounds(given, "minLength", "maxLength")
        return f'"\\"" {self._repeat("char", low, high)} "\\""'

    def _repeat(self, rule: str, low: int, high: int | None) -> str:
        if low > MAX_REPEATS:
            raise SettingsError(f"asks for more than {MAX_REPEATS} items or characters")
        high = None if high is None else min(high, MAX_REPEATS)
        self._n_repeats += low if high is None else high
        if self._n_repeats > MAX_RULES:
            raise SettingsError("bounds too many lengths")
        return f"{rule}{{{low},{'' if high is None else high}}}" if high != 0 else '""'


def _only(given: Collection[str], keywords: Collection[str]) -> None:
    for key in given:
        if key not in keywords:
            shown = key if key.isprintable() and len(key) <= 64 else "…"
            raise SettingsError(f"has {shown}, which is not supported there")


def _bounds(given: dict[str, Any], least: str, most: str) -> tuple[int, int | None]:
    low, high = given.get(least, 0), given.get(most)
    for value in (low, 0 if high is None else high):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SettingsError(f"has {least} or {most} that is no whole number")
    if high is not None and high < low:
        raise SettingsError(f"has a {most} below its {least}")
    return low, high


def _constants(values: Any, types: list[str]) -> str:
    """Return the rule of those values that are of a type."""
    if not isinstance(values, list):
        raise SettingsError("has an enum that is no list")
    kinds = [kind for name in types or TYPES for kind in TYPES[name][1]]
    fitting = [value for value in values if type(value) in kinds]
    if not fitting:
        raise SettingsError("has an enum or const without a value of its type")
    return " | ".join(map(_literal, fitting))


def _literal(value: Any) -> str:
    """Return what matches the JSON of a value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()  # raises UnicodeEncodeError, a ValueError
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
