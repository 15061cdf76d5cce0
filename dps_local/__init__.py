"""Private, on-device personalization for llama.cpp: Differential Preference Steering (arXiv 2604.22345)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dps-local")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"
