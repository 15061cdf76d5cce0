"""Private, on-device personalization for llama.cpp: Differential Preference Steering (arXiv 2604.22345)."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dps_local.logits_processor import SteeringLogitsProcessor

try:
    __version__ = version("dps-local")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

__all__ = ["SteeringLogitsProcessor", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "SteeringLogitsProcessor":
        from dps_local.engine import native
        from dps_local.logits_processor import SteeringLogitsProcessor

        native.load()  # so that `from llama_cpp import Llama`, later in the program, finds the patched library
        return SteeringLogitsProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
