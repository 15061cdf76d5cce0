"""JSON files read item by item, so that an export of a gigabyte needs no more memory than a small one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import IO, Any

from dps_local.errors import MissingPackageError

DEEP = 100  # lists and objects within each other
# ijson 3.6 crashes (SIGSEGV) on an integer of more than 4300 digits, unless one beyond 64 bits is an error
_NUMBERS = {"use_float": True}
_ESCAPE = re.compile(rb"\\(?:\\|x([0-9A-Fa-f]{2}))")


class _Valid:
    r"""A stream as JSON: without a byte order mark, and without the escapes \x1B that Telegram Desktop writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.rest, self.first = stream, b"", True

    def read(self, size: int) -> bytes:
        """Return some bytes, about `size`; b"" at the end of the stream alone."""
        while size:
            new = self.stream.read(size)
            data, self.rest = self.rest + new, b""
            if self.first:
                data, self.first = data.removeprefix(b"\xef\xbb\xbf"), False
            if new and (escape := _unfinished(data)) is not None:
                data, self.rest = data[:escape], data[escape:]
            if data or not new:
                return _ESCAPE.sub(lambda m: b"\\u00" + m[1] if m[1] else m[0], data)
        return b""


def _unfinished(data: bytes) -> int | None:
    """Return where an escape begins that may go on behind the data."""
    last = data.rfind(b"\\", max(len(data) - 3, 0))
    run = last + 1 - len(data[: last + 1].rstrip(b"\\"))
    return last if run % 2 else None


def objects(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, and none of its other values. Raises ValueError where the file is damaged."""
    return (value for value in items(stream) if isinstance(value, dict))


def items(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the values of a list. Raises ValueError where the file is damaged."""
    return (value for _, value in values(stream, {"item"}))


def values(stream: IO[bytes], places: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) for all values that lie at one of the places, in the order of the file.

    A place is keys with dots between them, and "item" for the members of a list, as in "chats.list.item.type". Raises
    ValueError where the file is damaged.
    """
    ijson = _ijson()
    builder, at, depth = None, "", 0
    path = list[str]()  # one name for each object and list around
    try:
        for event, value in ijson.basic_parse(_Valid(stream), **_NUMBERS):
            starts, ends = event.startswith("start_"), event.startswith("end_")
            if event == "map_key":
                path[-1] = value
            elif ends:
                path.pop()
            elif builder is None and (at := ".".join(path)) in places:
                builder, depth = ijson.ObjectBuilder(), len(path)
            if builder is not None:
                builder.event(event, value)
                if len(path) == depth and not starts:
                    yield at, builder.value
                    builder = None
            if starts:
                path.append("item")
                if len(path) > DEEP:
                    raise ValueError("nested too deeply")
    except ijson.JSONError as exc:
        raise ValueError(str(exc)) from exc


def _ijson() -> Any:
    try:
        import ijson
    except ImportError as exc:
        raise MissingPackageError("importing this needs ijson: pip install 'dps-local[import]'") from exc
    return ijson
