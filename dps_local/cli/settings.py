"""`SettingsFile`: options of commands that a person has set for good, in a TOML file. What can be set is what the
commands take: options that many share stand by themselves, those of one command in a table of its name."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dps_local.cli.command_tree import Command, commands_of
from dps_local.errors import SettingsError
from dps_local.system.files import atomic_write
from dps_local.system.folders import config_file, private_folder

LINE = re.compile(r"""\s*(?:\[\s*(?P<table>[^\[\]]+?)\s*\]|(?P<key>[\w"'.-]+(?:\s*\.\s*[\w"'.-]+)*)\s*=)""")
NOT_FOR_GOOD = ("as_json", "yes", "help")
Option = Any


@dataclass(frozen=True)
class Setting:
    """What can be set by a key: an option of each of these commands, which are called by their names in a row.

    command: the first of them. special: whether the option has a setting for all commands, too.
    """

    key: str
    options: Mapping[tuple[str, ...], Option]
    command: Command
    special: bool = False

    @property
    def option(self) -> Option:
        return next(iter(self.options.values()))

    @property
    def variable(self) -> str | None:
        """The environment variable that has been set for it."""
        names: list[str] = self.option.envvar or []
        return next(filter(os.environ.get, names), None)

    def check(self, value: Any) -> None:
        """Raise SettingsError when the option does not take a value."""
        context = self.command.make_context(self.command.name, [], resilient_parsing=True)
        context.resilient_parsing = False
        try:
            self.option.process_value(context, value)
        except Exception as exc:
            if not hasattr(exc, "message"):
                raise
            raise SettingsError(f"{self.key}: {exc.message}") from exc


def known_settings(program: Command) -> dict[str, Setting]:
    """Return all settings of a program, those that commands share first."""
    found: dict[str, Setting] = {}
    for path, command in commands_of(program):
        shared = getattr(command.callback, "shared", ())
        for option in command.params:
            key = option.name.replace("_", "-")
            if option.name in shared:
                setting = found.setdefault(key, Setting(key, {}, command))
                found[key] = replace(setting, options={**setting.options, path: option})
            if len(path) == 1 and _can_be_set(option):
                own = f"{path[0]}.{key}"
                found[own] = Setting(own, {path: option}, command, special=option.name in shared)
    return {key: found[key] for key in sorted(found, key=lambda key: "." in key)}


def _can_be_set(option: Option) -> bool:
    return option.param_type_name == "option" and not option.required and option.name not in NOT_FOR_GOOD


class SettingsFile:
    """The file as it is; an empty one where there is none. text: of another version of it, that may be written."""

    def __init__(self, known: Mapping[str, Setting], text: str | None = None) -> None:
        self.path, self.known = config_file(), known
        self.text = self._read() if text is None else text

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as exc:
            reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"cannot read the settings in {self.path}: {reason}") from exc

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values by their keys, as the command line would have them. Raises SettingsError with the line."""
        try:
            tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(f"{self.path} is not TOML: {exc}") from exc
        values = {key: _as_given(value) for key, value in self._leaves(tables)}
        for key, value in values.items():
            try:
                self.setting(key).check(value)
            except SettingsError as exc:
                line = f", line {number}" if (number := self.line(key)) else ""
                raise SettingsError(f"{self.path}{line}: {exc}") from exc
        return values

    def _leaves(self, table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in table.items():
            if isinstance(value, dict):
                yield from self._leaves(value, f"{before}{name}.")
            else:
                yield f"{before}{name}", value

    def setting(self, key: str) -> Setting:
        """Return what a key sets; raises SettingsError that names the nearest known key."""
        if key in self.known:
            return self.known[key]
        near = difflib.get_close_matches(key, self.known, n=1)
        hint = f": did you mean {near[0]}?" if near else ": `dps-local config show` lists them"
        raise SettingsError(f"{key}: there is no such setting{hint}")

    def line(self, key: str) -> int | None:
        """Return the number of the line that sets a key."""
        return next((number for number, found in self._keys() if found == key), None)

    @property
    def _lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n") if self.text else []

    def _keys(self) -> Iterator[tuple[int, str]]:
        table = ""
        for number, line in enumerate(self._lines, 1):
            if match := LINE.match(line):
                if match["table"]:
                    table = f"{_bare(match['table'])}."
                else:
                    yield number, f"{table}{_bare(match['key'])}"

    def default_map(self) -> dict[str, Any]:
        """Return the values by commands and names of options; a command's own table goes before what is for all."""
        defaults: dict[str, Any] = {}
        for key in sorted(self.values, key=lambda key: "." in key):
            for path, option in self.known[key].options.items():
                table = defaults
                for name in path:
                    table = table.setdefault(name, {})
                table[option.name] = self.values[key]
        return defaults

    def with_value(self, key: str, text: str) -> SettingsFile:
        """Return the file with a key set; raises SettingsError when that is no value of it."""
        value = _as_toml(text)
        self.setting(key).check(_as_given(tomllib.loads(f"x = {value}")["x"]))
        lines, (table, _, name) = self._lines, key.rpartition(".")
        if number := self.line(key):
            lines[number - 1] = lines[number - 1].partition("=")[0].rstrip() + f" = {value}"
        else:
            lines.insert(self._place(lines, table), f"{name} = {value}")
        return SettingsFile(self.known, "\n".join([*lines, ""]))

    def _place(self, lines: list[str], table: str) -> int:
        """Return where a new line of a table belongs, whose head is added where it lacks."""
        heads = {
            _bare(match["table"]): i for i, line in enumerate(lines) if (match := LINE.match(line)) and match["table"]
        }
        if not table:
            first = min(heads.values(), default=len(lines))
            return next((i for i in range(first, 0, -1) if lines[i - 1].strip()), 0)
        if table not in heads:
            lines += [*([""] if lines else []), f"[{table}]"]
        return heads.get(table, len(lines) - 1) + 1

    def without(self, key: str) -> SettingsFile:
        """Return the file without a key; raises SettingsError where it is not set."""
        if not (number := self.line(key)):
            raise SettingsError(f"{key} is not set in {self.path}")
        lines = self._lines
        del lines[number - 1]
        return SettingsFile(self.known, "\n".join([*lines, ""]))

    def save(self) -> None:
        try:
            tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(f"{self.path} has what takes several lines there: edit it yourself") from exc
        private_folder(self.path.parent)
        with atomic_write(self.path.resolve()) as file:  # a link stays one
            file.write(self.text.encode())


def _bare(key: str) -> str:
    """A key of TOML without quotes and spaces."""
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _as_given(value: Any) -> Any:
    """A value of TOML as text of the command line."""
    if isinstance(value, list):
        return [_as_given(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_toml(text: str) -> str:
    """A text of the command line as a value of TOML: a number, a truth value or a list, if it is one."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    return text if isinstance(value, bool | int | float | list) else json.dumps(text, ensure_ascii=False)
