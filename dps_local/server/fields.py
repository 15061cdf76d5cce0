"""`Fields`: the fields of a request's JSON object, read one by one with their types and bounds."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from dps_local.errors import RequestError


class Fields:
    """Raises RequestError (400) that names the field. A field that is null counts as absent."""

    def __init__(self, data: Any, name: str = "") -> None:
        self.name = name
        if not isinstance(data, dict):
            raise self.error("", "must be an object")
        self._data = {key: value for key, value in data.items() if value is not None}

    def error(self, field: str, problem: str, code: str | None = None) -> RequestError:
        path = ".".join(filter(None, (self.name, field)))
        return RequestError(400, f"{path or 'the request'} {problem}", path or None, code)

    def __contains__(self, field: str) -> bool:
        return field in self._data

    def raw(self, field: str) -> Any:
        return self._data.get(field)

    def part(self, field: str, **default: Any) -> Fields:
        """Return the object of a field; of one that is absent, what it has by default."""
        return Fields(self._data.get(field, default), ".".join(filter(None, (self.name, field))))

    def known(self, fields: Collection[str]) -> None:
        """Refuse all fields but these: what is ignored might have changed the answer."""
        for field in self._data:
            if field not in fields:
                shown = field if field.isprintable() and len(field) <= 64 else "…"
                raise self.error(shown, "is not supported by this server", "unsupported_parameter")

    def number(self, field: str, default: float, low: float, high: float) -> float:
        value = self._data.get(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.error(field, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, field: str, default: int, low: int, high: float = math.inf) -> int:
        value = self._data.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            bounds = f"from {low} to {high:.0f}" if high < math.inf else f"of at least {low}"
            raise self.error(field, f"must be a whole number {bounds}")
        return value

    def flag(self, field: str) -> bool:
        value = self._data.get(field, False)
        if not isinstance(value, bool):
            raise self.error(field, "must be true or false")
        return value

    def text(self, field: str, default: str | None = None) -> str:
        value = self._data.get(field, default)
        if not isinstance(value, str):
            raise self.error(field, "must be a string")
        return value.encode(errors="replace").decode()  # lone surrogates cannot be tokenized

    def list(self, field: str) -> list[Any]:
        value = self._data.get(field)
        if not isinstance(value, list) or not value:
            raise self.error(field, "must be a list with at least one entry")
        return value
