"""`RecordFile`: records as lines of JSON; it takes up where an interrupted run stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from dps_local.errors import DataError, Remedy, SettingsError, StorageError
from dps_local.evaluation.record import Record


class RecordFile:
    """Lines of records, readable by their owner only; a line that an interruption cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = {record.key: record for record in self._read()}

    def _read(self) -> Iterator[Record]:
        if not self.path.exists():
            return
        with self.path.open("r+b") as stream:
            whole = 0
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    stream.truncate(whole)
                    return
                whole += len(line)
                try:
                    yield Record.from_json(json.loads(line))
                except (ValueError, TypeError, KeyError, RecursionError, SettingsError) as exc:
                    raise DataError(f"{self.path}, line {number}, is no result of eval", Remedy.OTHER_FOLDER) from exc

    def add(self, records: list[Record]) -> None:
        """Append records, so that they are on the disk before the next ones are computed."""
        text = "".join(json.dumps(record.as_json(), ensure_ascii=False) + "\n" for record in records)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text.encode(errors="replace"))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as exc:
            raise StorageError(f"cannot write {self.path}: {exc.strerror or exc}") from exc
        self.records |= {record.key: record for record in records}
