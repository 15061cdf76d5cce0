from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

import dps_local
from dps_local.chat import session
from dps_local.chat.session import Session
from dps_local.engine import native, registry
from dps_local.engine.call_times import CallTimes
from dps_local.engine.context import Run
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampling
from dps_local.errors import RegistryError
from dps_local.prompting.chat_template import ChatTemplate

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tiny models on busy cores: threads that spin cost seconds
os.environ["DPS_LOCAL_SELF_TEST"] = "off"  # each program under test starts with an empty cache
os.environ["DPS_LOCAL_CONFIG"] = os.devnull  # not the settings of who runs the tests
os.environ["DPS_LOCAL_DATA"] = tempfile.mkdtemp(prefix="dps-local-tests-")  # what tests say is not the user's
# a shell starts background jobs with Ctrl-C ignored, and the programs under test would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
if vendor := os.environ.get("DPS_LOCAL_VENDOR"):  # the folder of another build of the libraries, to test that one
    dps_local.__path__.insert(0, str(Path(vendor).parent))
TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))  # helper modules: tests/ is no package

import loopback  # noqa: E402
from builds import built  # noqa: E402
from opened import shared  # noqa: E402
from tiny import TinyModel, write_model  # noqa: E402

sys.addaudithook(loopback.refuse)


@pytest.fixture(autouse=True)
def _on_this_machine() -> Iterator[None]:
    """Fail a test that tried to reach another machine, whatever became of it."""
    yield
    tried, loopback.tried[:] = list(loopback.tried), []
    assert tried == []


@pytest.fixture(scope="session", autouse=True)
def _two_tokens_cost_twice_as_much() -> Iterator[None]:
    """Let `--engine auto` choose the same whatever else this machine does meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CallTimes", SimpleNamespace(of=lambda *_: CallTimes(1.0, 2.0)))
        yield


def pytest_sessionfinish() -> None:
    shared.cache_clear()  # before the interpreter takes itself apart
    shutil.rmtree(os.environ["DPS_LOCAL_DATA"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A factory of tiny models: `tiny_model(kind, edit=…, …)` returns the path of a GGUF, see tests/tiny.py."""
    folder = tmp_path_factory.mktemp("tiny-models")
    written: dict[str, Path] = {}

    def path(kind: str = "llama", **options: object) -> Path:
        key = f"{kind} {sorted(options.items())}"
        if key not in written:
            written[key] = folder / f"{kind}-{len(written)}.gguf"
            write_model(written[key], kind, **options)  # type: ignore[arg-type]
        return written[key]

    return path


@pytest.fixture
def load() -> Iterator[Callable[[Path], Model]]:
    """`load(path)` opens a model, and closes it after the test."""
    models: list[Model] = []

    def open_(path: Path) -> Model:
        models.append(Model(path))
        return models[-1]

    yield open_
    for model in models:
        model.close()


@pytest.fixture
def open_session(tiny_model: TinyModel) -> Iterator[Callable[..., Session]]:
    """`open_session(kind, chat_template=…, n_ctx=…, …)`: a greedy chat with a tiny model, on one thread, eager,
    that says probabilities."""
    opened: list[Session] = []

    def open_(kind: str = "llama", *, n_ctx: int = 256, **options: Any) -> Session:
        of_model = {key: options.pop(key) for key in ("chat_template", "edit", "seed") if key in options}
        model = shared(tiny_model(kind, **of_model))
        defaults: dict[str, Any] = {"sampling": Sampling(temp=0), "n_threads": 1, "engine": "eager", "probs": True}
        opened.append(Session(model, ChatTemplate(model), n_ctx=n_ctx, **(defaults | options)))
        return opened[-1]

    yield open_
    for chat in opened:
        chat.close()


class RealModel(Protocol):
    def __call__(self, name: str) -> Path: ...


@pytest.fixture(scope="session")
def real_model() -> RealModel:
    """`real_model("smollm2-135m")` returns the path of a registry model, downloaded when it is not here yet."""

    def path(name: str) -> Path:
        try:
            return registry.resolve(name)
        except RegistryError:
            with loopback.allowed():
                return registry.pull(name)

    return path


# --- stock llama.cpp, for comparison


class StockLogits(Protocol):
    """The fixture `stock_logits`: returns the logits that stock llama.cpp computes for `runs`, one decode for each."""

    def __call__(self, model: Path, runs: Sequence[Run], *, n_ctx: int, n_threads: int) -> NDArray[np.float32]: ...


@pytest.fixture(scope="session")
def stock_logits(stock_lib: Path, tmp_path_factory: pytest.TempPathFactory) -> StockLogits:
    folder = tmp_path_factory.mktemp("stock")
    environment = os.environ | {"LLAMA_CPP_LIB_PATH": str(stock_lib), "PYTHONPATH": str(native.vendor_dir())}

    def logits(model: Path, runs: Sequence[Run], *, n_ctx: int, n_threads: int) -> NDArray[np.float32]:
        request = {
            "model": str(model),
            "n_ctx": n_ctx,
            "n_batch": 512,
            "n_threads": n_threads,
            "chunks": [{"start": r.start, "tokens": list(r.tokens), "n_logits": r.n_logits} for r in runs],
            "output": str(folder / "logits.npy"),
        }
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, str(TESTS / "stock.py"), str(folder / "request.json")]
        subprocess.run(command, env=environment, check=True)
        found: NDArray[np.float32] = np.load(folder / "logits.npy")
        return found

    return logits


@pytest.fixture(scope="session")
def stock_lib() -> Path:
    """The folder of the unpatched libraries: $DPS_LOCAL_STOCK_LIB, or built once (minutes) into the cache folder."""
    if given := os.environ.get("DPS_LOCAL_STOCK_LIB"):
        return Path(given)
    return built("stock", "-DDPS_LOCAL_PATCH=OFF") / "llama_cpp" / "lib"


@pytest.fixture
def _no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
