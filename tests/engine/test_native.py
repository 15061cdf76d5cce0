from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import dps_local
from dps_local.engine import native
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import ModelError, NativeError

REMEDY = "run `pip install --force-reinstall --no-deps .` in the dps-local source folder to build it"


def use_package(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Look for the library in other folders, and load it anew in place of the one that the other tests share."""
    monkeypatch.setattr(dps_local, "__path__", [str(folder) for folder in folders])
    monkeypatch.setattr(native, "load", functools.cache(native.Native))


def make_build(folder: Path, build: str) -> Path:
    lib = folder / "_vendor" / "llama_cpp" / "lib"
    lib.mkdir(parents=True)
    (lib / "build.json").write_text(build)
    return folder


def python(code: str, paths: Sequence[Path] = (), **environment: str) -> list[str]:
    """Run code in a process of its own, and return the lines that it printed."""
    here = Path(dps_local.__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=here,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*paths, here]))} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout.splitlines()


# a library that is missing or does not match


def test_without_the_library_the_first_use_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_package(monkeypatch, tmp_path)
    with pytest.raises(NativeError, match=r"^the patched llama.cpp library is missing: ") as info:
        native.load()
    assert str(info.value) == f"the patched llama.cpp library is missing: {REMEDY}"
    with pytest.raises(NativeError, match="library is missing"):
        GGUFFile(tmp_path / "any.gguf")
    with pytest.raises(NativeError, match="library is missing"):
        Sampler(Sampling())


def test_without_the_library_every_module_can_be_imported(tmp_path: Path) -> None:
    package = Path(dps_local.__file__).parent
    files = [p.relative_to(package).with_suffix("") for p in package.rglob("*.py")]
    modules = [".".join(p.parts) for p in sorted(files) if p.name != "__main__" and p.parts[0] != "_vendor"]
    code = f"""
import sys, importlib
for name in {modules}:
    importlib.import_module(f"dps_local.{{name}}")
print("llama_cpp" in sys.modules)
import dps_local
dps_local.__path__ = [{str(tmp_path)!r}]
try:
    dps_local.engine.native.load()
except dps_local.errors.NativeError as exc:
    print(exc)
"""
    assert python(code) == ["False", f"the patched llama.cpp library is missing: {REMEDY}"]


def test_a_library_with_other_patches_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_package(monkeypatch, make_build(tmp_path, json.dumps({"patch": 99, "llama_cpp_python": "0.3.36"})))
    with pytest.raises(NativeError) as info:
        native.load()
    assert str(info.value) == f"the llama.cpp library has patch 99, expected {native.PATCH_VERSION}: {REMEDY}"


@pytest.mark.parametrize("build", ["", "{}", "[]", '{"patch": null}', "{", '{"patch": 1e999}', "[" * 100_000])
def test_a_build_record_that_is_damaged_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: str) -> None:
    use_package(monkeypatch, make_build(tmp_path, build))
    with pytest.raises(NativeError) as info:
        native.load()
    assert str(info.value).endswith(REMEDY)
    assert "\n" not in str(info.value)


def test_the_library_is_found_in_any_folder_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    installed = make_build(tmp_path / "installed", "{}")  # an editable install keeps the two apart
    use_package(monkeypatch, tmp_path / "source", installed)
    assert native.vendor_dir() == installed / "_vendor"


def test_a_library_without_the_new_function_says_so() -> None:
    class Stock:
        _name = "libllama.so"

        def __getattr__(self, name: str) -> object:
            raise AttributeError(name)

    with pytest.raises(NativeError, match=r"^libllama.so lacks llama_set_adapter_head_scale: run `pip install"):
        native.load().declare(Stock(), "llama_set_adapter_head_scale", None)  # type: ignore[arg-type]


def test_a_binding_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    package = make_build(tmp_path / "package", json.dumps({"patch": native.PATCH_VERSION}))
    binding = package / "_vendor" / "llama_cpp" / "__init__.py"
    binding.write_text("raise OSError('libllama.so: cannot open shared object file')")
    code = f"""
import dps_local, dps_local.engine.native, os, sys
dps_local.__path__ = [{str(package)!r}]
before = dict(os.environ), list(sys.path)
try:
    dps_local.engine.native.load()
except dps_local.errors.NativeError as exc:
    print(exc)
print((dict(os.environ), sys.path) == before, "llama_cpp" in sys.modules)
"""
    assert python(code) == [
        f"the patched llama.cpp library does not load (libllama.so: cannot open shared object file): {REMEDY}",
        "True False",
    ]


# other llama_cpp packages and settings


@pytest.fixture
def other_llama_cpp(tmp_path: Path) -> Path:
    """A folder with another llama_cpp, as a user may have installed."""
    (tmp_path / "other" / "llama_cpp").mkdir(parents=True)
    (tmp_path / "other" / "llama_cpp" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    return tmp_path / "other"


def test_another_llama_cpp_that_was_imported_first_is_a_clear_error(other_llama_cpp: Path) -> None:
    code = """
import llama_cpp
from dps_local.engine import native
from dps_local.errors import NativeError
try:
    native.load()
except NativeError as exc:
    print(exc)
"""
    found = other_llama_cpp / "llama_cpp" / "__init__.py"
    assert python(code, [other_llama_cpp]) == [
        f"another llama_cpp ({found}) was imported first: import dps_local before it, and call "
        "dps_local.engine.native.load()"
    ]


def test_another_llama_cpp_that_is_installed_does_not_matter(other_llama_cpp: Path) -> None:
    code = """
from dps_local.engine import native
loaded = native.load()
import llama_cpp
print(loaded.version != "0.0.1", llama_cpp is loaded.binding, native.load() is loaded)
"""
    assert python(code, [other_llama_cpp]) == ["True True True"]


def test_the_library_path_in_the_environment_does_not_matter_and_is_restored(tmp_path: Path) -> None:
    code = """
import os, sys
from dps_local.engine import native
path = list(sys.path)
loaded = native.load()
print(os.environ["LLAMA_CPP_LIB_PATH"], sys.path == path)
print(loaded.backends() != [])
"""
    nonsense = str(tmp_path / "no" / "such" / "folder")
    assert python(code, LLAMA_CPP_LIB_PATH=nonsense) == [f"{nonsense} True", "True"]


def test_a_library_path_that_is_not_set_stays_so() -> None:
    code = """
import os
os.environ.pop("LLAMA_CPP_LIB_PATH", None)
from dps_local.engine import native
native.load()
print("LLAMA_CPP_LIB_PATH" in os.environ)
"""
    assert python(code) == ["False"]


# a build whose back ends are modules


@pytest.mark.parametrize("fits", [True, False])
def test_modules_are_loaded_from_the_builds_own_folder_or_the_processor_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fits: bool
) -> None:
    loaded = copy.copy(native.load())
    calls = []
    loaded.lib = tmp_path
    loaded.ggml_backend_dev_count = lambda: 0
    loaded.ggml_backend_load_all_from_path = lambda path: calls.append((path, os.environ.get("GGML_BACKEND_PATH")))
    loaded.ggml_backend_reg_by_name = lambda name: 1 if fits and name == b"CPU" else None
    monkeypatch.setenv("GGML_BACKEND_PATH", "other.so")
    if fits:
        loaded.load_backends()
    else:
        with pytest.raises(NativeError) as info:
            loaded.load_backends()
        assert str(info.value) == f"no CPU back end in {tmp_path} fits this processor: {REMEDY}"
    assert calls == [(os.fsencode(tmp_path), None)]
    assert os.environ["GGML_BACKEND_PATH"] == "other.so"


def test_a_build_that_links_its_back_ends_loads_no_module() -> None:
    loaded = copy.copy(native.load())
    loaded.ggml_backend_load_all_from_path = lambda path: pytest.fail(f"loaded {path}")
    loaded.load_backends()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="lists the loaded libraries as Linux does")
def test_back_ends_of_other_folders_are_not_loaded(tmp_path: Path) -> None:
    lib = native.load().lib
    others = [str(shutil.copy(path, tmp_path)) for path in lib.glob("libggml-cpu*")]
    code = f"""
import dps_local, os
from dps_local.engine import native
dps_local.__path__ = [{str(lib.parents[2])!r}]
os.chdir({str(tmp_path)!r})
print(native.load().features() != {{}})
print({{os.path.dirname(line.split()[-1]) for line in open("/proc/self/maps") if "ggml" in line}})
"""
    assert python(code, GGML_BACKEND_PATH=others[0]) == ["True", str({str(lib.resolve())})]


# the loaded library


def test_the_loaded_library_is_the_patched_one() -> None:
    loaded = native.load()
    assert loaded.lib == native.vendor_dir() / "llama_cpp" / "lib"
    assert Path(loaded.llama._lib._name).parent == loaded.lib
    assert hasattr(loaded.llama._lib, "llama_set_adapter_head_scale")
    assert loaded.version == json.loads((loaded.lib / "build.json").read_text())["llama_cpp_python"]


def test_the_processor_is_among_the_backends() -> None:
    backends = native.load().backends()
    assert "CPU" in [b["name"] for b in backends]
    assert all(b["description"] for b in backends)


X86_LINUX = platform.machine() == "x86_64" and Path("/proc/cpuinfo").exists()


@pytest.mark.skipif(not X86_LINUX, reason="reads the flags of an x86 processor as Linux lists them")
def test_the_features_are_some_that_the_processor_has() -> None:
    known = {"SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX2": "avx2", "FMA": "fma", "AVX512": "avx512f"}
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    features = native.load().features()
    used = {known[name] for name, value in features.items() if name in known and value == "1"}
    assert {"pni", "ssse3"} <= used <= set(flags)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="lists the loaded libraries as Linux does")
def test_each_library_is_loaded_once() -> None:
    native.load()
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "ggml" in line}
    names = sorted(Path(path).name.split(".so")[0] for path in mapped if ".so" in path)
    assert names == sorted(set(names)), mapped


def test_a_refused_file_names_llama_cpps_reason_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("llama_cpp.llama_chat_format")  # brings a log callback of its own
    path = tmp_path / "a.gguf"
    path.write_bytes(b"not a GGUF file")
    with pytest.raises(ModelError, match=r"is not a GGUF file, or it is damaged: .*invalid magic characters: 'not '"):
        GGUFFile(path)
    assert capfd.readouterr() == ("", "")


def test_the_log_keeps_the_newest_warning_until_it_is_asked_for() -> None:
    log = native.Log()
    for level, text in ((1, b"debug"), (2, b"info"), (3, b"a warning\n"), (4, b"an error \xff\n"), (2, b"more info")):
        log(level, text, None)
    assert log.last() == "an error \ufffd"
    assert log.last() == "llama.cpp gave no reason"


def test_the_log_keeps_twenty_lines_at_most() -> None:
    log = native.Log()
    for n in range(100):
        log(4, b"line %d" % n, None)
    assert log.lines == [f"line {n}" for n in range(80, 100)]
