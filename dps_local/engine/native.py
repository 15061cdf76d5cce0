"""The one door to native code: loads the patched libllama through the stock llama_cpp binding.

The build puts the binding and the libraries into `dps_local/_vendor/llama_cpp`, so that a llama-cpp-python
which is installed for other things stays untouched. `load()` imports that copy under its own name.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from dps_local.errors import NativeError

PATCH_VERSION = 6  # raised with every change of the patches' C interface; the build records it beside the library
CPU, GPU, IGPU = 0, 1, 2  # enum ggml_backend_dev_type
_WHO_SAYS_IT = re.compile(r"^(?:\w+: |error loading model(?: \w+)?: )+")  # before llama.cpp's reasons
HOW_TO_BUILD = "run `pip install --force-reinstall --no-deps .` in the dps-local source folder to build it"


def vendor_dir() -> Path:
    """Return the folder of the private llama_cpp package (in an editable install it is not beside this file)."""
    import dps_local

    for folder in dps_local.__path__:
        vendor = Path(folder) / "_vendor"
        if (vendor / "llama_cpp" / "lib" / "build.json").exists():
            return vendor
    raise NativeError(f"the patched llama.cpp library is missing: {HOW_TO_BUILD}")


def check_build(lib: Path) -> None:
    """Raise NativeError unless the libraries in a folder were built with these patches."""
    try:
        patch = int(json.loads((lib / "build.json").read_text())["patch"])
    except (OSError, ArithmeticError, ValueError, TypeError, LookupError, RecursionError) as exc:
        raise NativeError(f"the record of the llama.cpp library's build is damaged: {HOW_TO_BUILD}") from exc
    if patch != PATCH_VERSION:
        raise NativeError(f"the llama.cpp library has patch {patch}, expected {PATCH_VERSION}: {HOW_TO_BUILD}")


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set a variable, or unset it with None, for the time of the block."""
    previous = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if previous is not None:
            os.environ[name] = previous


def _import_binding(vendor: Path) -> ModuleType:
    """Import llama_cpp from `vendor`, whatever else is installed or set in the environment."""
    sys.path.insert(0, str(vendor))
    try:
        with _environment("LLAMA_CPP_LIB_PATH", str(vendor / "llama_cpp" / "lib")):
            return importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as exc:
        raise NativeError(f"the patched llama.cpp library does not load ({exc}): {HOW_TO_BUILD}") from exc
    finally:
        sys.path.remove(str(vendor))


class Log:
    """The last lines that llama.cpp logged at the level of a warning or above; nothing is printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.error: str | None = None  # the first since `begin`

    def __call__(self, level: int, text: bytes, _: object) -> None:
        if level in (3, 4):  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR
            self.lines = [*self.lines[-19:], text.decode(errors="replace").strip()]
            if level == 4 and self.error is None:
                self.error = self.lines[-1]

    def begin(self) -> None:
        """Forget what earlier calls logged, before a call whose `reason` may be asked for."""
        self.lines, self.error = [], None

    def reason(self) -> str:
        """Return why a call failed: its first error, as those behind it say only what came of that."""
        reason = self.last() if self.error is None else _WHO_SAYS_IT.sub("", self.error, count=1)
        self.begin()
        return " ".join(reason.split())

    def last(self) -> str:
        """Return the newest line, and forget all of them."""
        line = self.lines[-1] if self.lines else "llama.cpp gave no reason"
        self.lines = []
        return line


class Native:
    """The loaded binding (`llama`), its libraries' folder (`lib`) and what the binding does not declare."""

    def __init__(self) -> None:
        # Vulkan: scoring crashes the Mesa 22.3 software driver in every second run where nodes are put in another order
        os.environ.setdefault("GGML_VK_DISABLE_GRAPH_OPTIMIZE", "1")
        vendor = vendor_dir()
        self.lib = vendor / "llama_cpp" / "lib"
        check_build(self.lib)
        loaded = sys.modules.get("llama_cpp")
        if loaded is not None and Path(loaded.__file__ or "").parent != vendor / "llama_cpp":
            raise NativeError(
                f"another llama_cpp ({loaded.__file__}) was imported first: import dps_local before it, and call "
                "dps_local.engine.native.load()"
            )
        self.binding = loaded or _import_binding(vendor)
        self.llama: Any = importlib.import_module("llama_cpp.llama_cpp")
        self.ggml = ctypes.CDLL(str(self.library("ggml-base")))
        self.log = Log()
        self._log_callback = self.llama.llama_log_callback(self.log)  # kept: a collected callback crashes
        self.llama.llama_log_set(self._log_callback, ctypes.c_void_p(0))
        self._declare_all()
        self.load_backends()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.llama.llama_backend_init()

    def library(self, name: str) -> Path:
        """Return the path of one of the built libraries."""
        names = [f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll"]
        return next(self.lib / n for n in names if (self.lib / n).exists())

    def load_backends(self) -> None:
        """Load what fits this processor, from the build's own folder alone; most builds need nothing: they link it.

        A build with GGML_BACKEND_DL has its back ends in modules, and the CPU's in several, for older and newer ones.
        """
        if self.ggml_backend_dev_count():
            return
        with _environment("GGML_BACKEND_PATH", None):  # a module that ggml would load besides
            self.ggml_backend_load_all_from_path(os.fsencode(self.lib))
        if not self.ggml_backend_reg_by_name(b"CPU"):
            raise NativeError(f"no CPU back end in {self.lib} fits this processor: {HOW_TO_BUILD}")

    def declare(self, lib: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
        """Return a library's function with its C types; raises NativeError where the library lacks it."""
        try:
            function: Callable[..., Any] = getattr(lib, name)
        except AttributeError as exc:
            raise NativeError(f"{lib._name} lacks {name}: {HOW_TO_BUILD}") from exc
        function.restype, function.argtypes = restype, argtypes  # type: ignore[attr-defined]
        return function

    def _declare_all(self) -> None:
        void_p, char_p, size_t, i64, i32 = (
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_int64,
            ctypes.c_int32,
        )
        llama = functools.partial(self.declare, self.llama._lib)
        ggml = functools.partial(self.declare, self.ggml)

        # int32_t llama_set_adapter_head_scale(struct llama_context *, llama_seq_id, const float * data, size_t len);
        self.set_adapter_head_scale = llama("llama_set_adapter_head_scale", i32, void_p, i32, void_p, size_t)

        # int32_t llama_set_logits_part(struct llama_context *, const llama_token *, size_t n_tokens,
        #                               enum llama_logits_part_kind);
        self.set_logits_part = llama("llama_set_logits_part", i32, void_p, void_p, size_t, i32)
        # const float * llama_get_logits_part(struct llama_context *);
        self.get_logits_part = llama("llama_get_logits_part", ctypes.POINTER(ctypes.c_float), void_p)
        # const llama_token * llama_get_logits_part_tokens(struct llama_context *);
        self.get_logits_part_tokens = llama("llama_get_logits_part_tokens", ctypes.POINTER(i32), void_p)
        # const float * llama_fetch_logits(struct llama_context *);
        self.fetch_logits = llama("llama_fetch_logits", ctypes.POINTER(ctypes.c_float), void_p)
        # const float * llama_get_head_slopes(struct llama_context *);
        self.get_head_slopes = llama("llama_get_head_slopes", ctypes.POINTER(ctypes.c_float), void_p)
        # int32_t llama_set_layer_outputs(struct llama_context *, int32_t il_start, int32_t il_end);
        self.set_layer_outputs = llama("llama_set_layer_outputs", i32, void_p, i32, i32)
        # int32_t llama_get_layer_output(struct llama_context *, int32_t il, float * data, size_t len);
        self.get_layer_output = llama("llama_get_layer_output", i32, void_p, i32, void_p, size_t)
        # int32_t llama_set_layer_start(struct llama_context *, int32_t il, const float * data, size_t len);
        self.set_layer_start = llama("llama_set_layer_start", i32, void_p, i32, void_p, size_t)
        # int32_t llama_model_layer_start(const struct llama_model *, int32_t il);
        self.model_layer_start = llama("llama_model_layer_start", i32, void_p, i32)
        # int32_t llama_set_batch_invariant(struct llama_context *, bool invariant);
        self.set_batch_invariant = llama("llama_set_batch_invariant", i32, void_p, ctypes.c_bool)

        # typedef bool (*ggml_abort_callback)(void * data);
        self.abort_callback = ctypes.CFUNCTYPE(ctypes.c_bool, void_p)
        # void llama_set_abort_callback(struct llama_context *, ggml_abort_callback, void * abort_callback_data);
        self.set_abort_callback = llama("llama_set_abort_callback", None, void_p, self.abort_callback, void_p)

        # struct gguf_context * gguf_init_from_file(const char * fname, struct gguf_init_params params);
        self.gguf_init_from_file = ggml("gguf_init_from_file", void_p, char_p, GGUFInitParams)
        # void gguf_free(struct gguf_context *);
        self.gguf_free = ggml("gguf_free", None, void_p)
        # size_t gguf_get_data_offset(const struct gguf_context *);
        self.gguf_get_data_offset = ggml("gguf_get_data_offset", size_t, void_p)
        # int64_t gguf_get_n_kv(const struct gguf_context *);
        self.gguf_get_n_kv = ggml("gguf_get_n_kv", i64, void_p)
        # const char * gguf_get_key(const struct gguf_context *, int64_t key_id);
        self.gguf_get_key = ggml("gguf_get_key", char_p, void_p, i64)
        # enum gguf_type gguf_get_kv_type(const struct gguf_context *, int64_t key_id);
        self.gguf_get_kv_type = ggml("gguf_get_kv_type", i32, void_p, i64)
        # enum gguf_type gguf_get_arr_type(const struct gguf_context *, int64_t key_id);
        self.gguf_get_arr_type = ggml("gguf_get_arr_type", i32, void_p, i64)
        # size_t gguf_get_arr_n(const struct gguf_context *, int64_t key_id);
        self.gguf_get_arr_n = ggml("gguf_get_arr_n", size_t, void_p, i64)
        # const void * gguf_get_arr_data(const struct gguf_context *, int64_t key_id);
        self.gguf_get_arr_data = ggml("gguf_get_arr_data", void_p, void_p, i64)
        # const char * gguf_get_arr_str(const struct gguf_context *, int64_t key_id, size_t i);
        self.gguf_get_arr_str = ggml("gguf_get_arr_str", char_p, void_p, i64, size_t)
        # const char * gguf_get_val_str(const struct gguf_context *, int64_t key_id);
        self.gguf_get_val_str = ggml("gguf_get_val_str", char_p, void_p, i64)
        # const void * gguf_get_val_data(const struct gguf_context *, int64_t key_id);
        self.gguf_get_val_data = ggml("gguf_get_val_data", void_p, void_p, i64)
        # int64_t gguf_get_n_tensors(const struct gguf_context *);
        self.gguf_get_n_tensors = ggml("gguf_get_n_tensors", i64, void_p)
        # const char * gguf_get_tensor_name(const struct gguf_context *, int64_t tensor_id);
        self.gguf_get_tensor_name = ggml("gguf_get_tensor_name", char_p, void_p, i64)
        # const int64_t * gguf_get_tensor_ne(const struct gguf_context *, int64_t tensor_id);
        self.gguf_get_tensor_ne = ggml("gguf_get_tensor_ne", void_p, void_p, i64)
        # enum ggml_type gguf_get_tensor_type(const struct gguf_context *, int64_t tensor_id);
        self.gguf_get_tensor_type = ggml("gguf_get_tensor_type", i32, void_p, i64)
        # size_t gguf_get_tensor_offset(const struct gguf_context *, int64_t tensor_id);
        self.gguf_get_tensor_offset = ggml("gguf_get_tensor_offset", size_t, void_p, i64)
        # size_t gguf_get_tensor_size(const struct gguf_context *, int64_t tensor_id);
        self.gguf_get_tensor_size = ggml("gguf_get_tensor_size", size_t, void_p, i64)
        # int64_t gguf_remove_key(struct gguf_context *, const char * key);
        self.gguf_remove_key = ggml("gguf_remove_key", i64, void_p, char_p)
        # void gguf_set_kv(struct gguf_context *, const struct gguf_context * src);
        self.gguf_set_kv = ggml("gguf_set_kv", None, void_p, void_p)
        # size_t gguf_get_meta_size(const struct gguf_context *);
        self.gguf_get_meta_size = ggml("gguf_get_meta_size", size_t, void_p)
        # void gguf_get_meta_data(const struct gguf_context *, void * data);
        self.gguf_get_meta_data = ggml("gguf_get_meta_data", None, void_p, void_p)

        # size_t ggml_backend_dev_count(void);  ggml_backend_dev_t ggml_backend_dev_get(size_t);
        registry = functools.partial(self.declare, ctypes.CDLL(str(self.library("ggml"))))
        self.ggml_backend_dev_count = registry("ggml_backend_dev_count", size_t)
        self.ggml_backend_dev_get = registry("ggml_backend_dev_get", void_p, size_t)
        # void ggml_backend_load_all_from_path(const char * dir_path);
        self.ggml_backend_load_all_from_path = registry("ggml_backend_load_all_from_path", None, char_p)
        # ggml_backend_reg_t ggml_backend_reg_by_name(const char * name);
        self.ggml_backend_reg_by_name = registry("ggml_backend_reg_by_name", void_p, char_p)
        # void * ggml_backend_reg_get_proc_address(ggml_backend_reg_t reg, const char * name);
        self.ggml_backend_reg_get_proc_address = ggml("ggml_backend_reg_get_proc_address", void_p, void_p, char_p)
        # const char * ggml_backend_dev_name(ggml_backend_dev_t);  const char * ggml_backend_dev_description(…);
        self.ggml_backend_dev_name = ggml("ggml_backend_dev_name", char_p, void_p)
        self.ggml_backend_dev_description = ggml("ggml_backend_dev_description", char_p, void_p)
        # enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device);
        self.ggml_backend_dev_type = ggml("ggml_backend_dev_type", ctypes.c_int, void_p)
        # void ggml_backend_dev_memory(ggml_backend_dev_t, size_t * free, size_t * total);
        size_p = ctypes.POINTER(size_t)
        self.ggml_backend_dev_memory = ggml("ggml_backend_dev_memory", None, void_p, size_p, size_p)

    @contextmanager
    def ended_by(self, context: Any, cancel: threading.Event | None) -> Iterator[None]:
        """Let llama_decode of a context return 2 soon after `cancel` is set, on the CPU; within a block."""
        if cancel is None:
            yield
            return
        callback = self.abort_callback(lambda _: cancel.is_set())
        self.set_abort_callback(context, callback, None)
        try:
            yield
        finally:
            self.set_abort_callback(context, self.abort_callback(), None)

    @property
    def version(self) -> str:
        """Version of the llama-cpp-python binding."""
        return str(self.binding.__version__)

    def backends(self) -> list[dict[str, str]]:
        """Return the name and description of each device that ggml can compute on."""
        return [self.described(device) for device in self.devices()]

    def described(self, device: int) -> dict[str, str]:
        """Return the name and description of a device (ggml_backend_dev_t)."""
        return {
            "name": self.ggml_backend_dev_name(device).decode(),
            "description": self.ggml_backend_dev_description(device).decode().strip(),
        }

    def devices(self, *kinds: int) -> list[int]:
        """Return this machine's devices (ggml_backend_dev_t): of these kinds (enum ggml_backend_dev_type), or all."""
        every = map(self.ggml_backend_dev_get, range(self.ggml_backend_dev_count()))
        return [device for device in every if not kinds or self.ggml_backend_dev_type(device) in kinds]

    def gpus(self) -> list[int]:
        """Return the devices that llama.cpp puts layers on by itself: GPUs, or else integrated ones."""
        return self.devices(GPU) or self.devices(IGPU)

    def free_memory(self, device: int) -> int:
        """Return the free bytes of a device (ggml_backend_dev_t)."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.ggml_backend_dev_memory(device, free, total)
        return free.value

    def features(self) -> dict[str, str]:
        """Return what the CPU's back end was compiled for and found, as ggml names it: {"AVX2": "1", "OPENMP": "1"}."""
        cpu = self.ggml_backend_reg_by_name(b"CPU")
        # typedef struct ggml_backend_feature * (*ggml_backend_get_features_t)(ggml_backend_reg_t reg);
        get_features = ctypes.CFUNCTYPE(ctypes.POINTER(BackendFeature), ctypes.c_void_p)(
            self.ggml_backend_reg_get_proc_address(cpu, b"ggml_backend_get_features")
        )
        listed = itertools.takewhile(lambda feature: feature.name, get_features(cpu))
        return {feature.name.decode(): feature.value.decode() for feature in listed}


class GGUFInitParams(ctypes.Structure):
    # struct gguf_init_params { bool no_alloc; struct ggml_context ** ctx; };
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class BackendFeature(ctypes.Structure):
    # struct ggml_backend_feature { const char * name; const char * value; };  the last one's name is NULL
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


@functools.cache
def load() -> Native:
    """Load the patched library once; raise NativeError with the command to run when it cannot be used."""
    return Native()
