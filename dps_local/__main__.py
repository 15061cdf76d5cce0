"""The command `dps-local`, and `python -m dps_local`."""

from __future__ import annotations

import ctypes
import sys
from importlib.metadata import version

SSE42 = 1 << 20  # in ECX of CPUID's leaf 1


def cpuid() -> int | None:
    """Return what an x86 processor says that it can do: ECX of CPUID's leaf 1. None where glibc cannot tell."""
    try:
        leaf = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (AttributeError, TypeError):  # TypeError: Windows
        return None
    # const struct cpuid_feature { unsigned cpuid_array[4], active_array[4]; } * __x86_get_cpuid_feature_leaf(unsigned);
    leaf.restype = ctypes.POINTER(ctypes.c_uint32 * 8)
    return int(leaf(0).contents[2])


def main() -> None:
    """Run the command line; first make sure that numpy can be imported: from 2.4 on it dies without SSE4.2."""
    features, numpy = cpuid(), version("numpy")
    if features is not None and not features & SSE42 and [int(n) for n in numpy.split(".")[:2]] >= [2, 4]:
        sys.exit(
            f"error: numpy {numpy} needs SSE4.2, which this processor lacks: run `pip install 'numpy<2.4'`, or give "
            "the virtual machine a newer processor"
        )
    from dps_local.cli import app as cli

    cli.main()


if __name__ == "__main__":
    main()
