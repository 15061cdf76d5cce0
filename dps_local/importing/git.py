"""git: the messages of the person's own commits in a repository, on all its branches.

Read by `git log` (git 2.13 or later), whose %(trailers) are the last lines of the form "Signed-off-by: …", as git
itself finds them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dps_local.errors import DataError, MissingPackageError
from dps_local.importing.conversation import from_iso, is_one_of, writing
from dps_local.importing.format import Format
from dps_local.importing.writing import Writing

_FIELDS = ("%aN", "%aE", "%aI", "%(trailers)", "%B")
_ALL = ("--exclude=refs/stash", "--exclude=refs/notes/*", "--all")  # what git itself words is left out
_COMMAND = ("log", *_ALL, "--no-merges", "-z", "--encoding=UTF-8", "--no-show-signature", "--no-notes")
# a repository's own settings may name programs to run, or hosts to ask
_SETTINGS = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never")
_KEPT = ("PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "TEMP", "TMP")  # of the environment: GIT_DIR leads elsewhere
_TOOLS = (
    "copilot|claude|chatgpt|codex|gpt|gemini|cursor|aider|devin|openhands|windsurf|cascade|junie|jules|qwen|opencode"
)
# a name behind which there is no surname: people are called Claude, too
_TOOL = (
    rf"(?:github )?(?:{_TOOLS})(?:[ -](?:ai|agent|code|coder|cli|opus|sonnet|haiku|pro|flash|v?\d[\w.-]*))* *(?:[<(]|$)"
)
_BY_ASSISTANT = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"^co-(?:authored|developed)-by: *{_TOOL}",
        r"^co-(?:authored|developed)-by:[^\n]*(?:\[bot\]|\+copilot@|\bno-?reply@(?!github\.com))",
        r"^(?:assisted|generated)-by: |^ai-(?:assisted|generated|model|tool)[\w-]*: ",
        rf"^[^\w\n]*(?:generated|created|written|made) (?:with|by|using) [^\n]{{0,40}}\b(?:{_TOOLS})\b",
    )
]
_AUTOMATIC = re.compile(
    r"(?:fixup|squash|amend)! |Merge (?:branch|pull request|remote-tracking|tag) |Bump \S+ from |Initial commit\Z"
    r"|Add files via upload\Z|(?:Update|Create|Delete|Rename) \S+\Z"
)
_REVERT = re.compile(r'Revert "[^\n]*')
_REVERTED = re.compile(r"This reverts commit [0-9a-f]{7,64}[^.\n]*\.?")


class Git(Format):
    name = "git"
    looked_for = "git commits (a repository)"

    def recognises(self, source: Path) -> bool:
        """Return whether a folder is a repository; one that is a vault of Obsidian too holds notes."""
        try:
            bare = (source / "HEAD").is_file() and (source / "objects").is_dir() and (source / "refs").is_dir()
            return bare or ((source / ".git").exists() and not (source / ".obsidian").is_dir())
        except (OSError, ValueError):
            return False

    def authors(self, source: Path) -> Counter[str]:
        """Return addresses, as a name may be of two people."""
        return Counter(commit.address for commit in _commits(source))

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        for commit in _commits(source):
            if is_one_of(me, commit.name, commit.address):
                text, kind = _typed(commit)
                if text:
                    yield writing(text, "git", from_iso(commit.date))
                else:
                    dropped[kind] += 1


@dataclass(frozen=True)
class _Commit:
    """trailers: the end of the message."""

    name: str
    address: str
    date: str
    trailers: str
    message: str


def _typed(commit: _Commit) -> tuple[str, str]:
    """Return what the author wrote of a message, and what it is instead ("" for their words)."""
    if any(by.search(commit.message) for by in _BY_ASSISTANT) or commit.name.endswith("(aider)"):
        return "", "assistant"
    text = commit.message.rstrip().removesuffix(commit.trailers.strip()).strip()
    if _REVERT.match(text):
        text = _REVERTED.sub("", text.partition("\n")[2]).strip()
    return (text, "") if text and not _AUTOMATIC.match(text) else ("", "automatic")


def _commits(source: Path) -> Iterator[_Commit]:
    git = shutil.which("git")
    if git is None:
        raise MissingPackageError("reading a repository needs git: install it from https://git-scm.com")
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # a damaged repository is not to be taken for a part of one around it
    environment |= {"GIT_CEILING_DIRECTORIES": str(source.absolute().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = [git, *_SETTINGS, "-C", str(source), *_COMMAND, f"--format=tformat:{'%x00'.join(_FIELDS)}"]
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        except (OSError, ValueError) as exc:
            raise DataError(f"cannot read {source} by git: {exc}") from exc
        with child:
            assert child.stdout is not None
            yield from parse_log(child.stdout)
        if child.returncode > 0:
            errors.seek(0)
            reason = errors.read(2000).decode(errors="replace").strip().partition("\n")[0].removeprefix("fatal: ")
            raise DataError(f"git cannot read {source}: {reason}")


def parse_log(log: IO[bytes]) -> Iterator[_Commit]:
    """Yield the commits of a log, whose fields all end with a NUL. Raises DataError for one that is cut off."""
    fields = list[str]()
    for field in _until_nul(log):
        fields.append(field.decode(errors="replace"))
        if len(fields) == len(_FIELDS):
            yield _Commit(*fields)
            fields.clear()
    if fields:
        raise DataError("git's log ends within a commit: is the repository damaged? try `git fsck`")


def _until_nul(log: IO[bytes]) -> Iterator[bytes]:
    parts = list[bytes]()
    while chunk := log.read(1 << 16):
        first, *others = chunk.split(b"\0")
        parts.append(first)
        for other in others:
            yield b"".join(parts)
            parts = [other]
    if any(parts):
        yield b"".join(parts)
