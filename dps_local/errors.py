"""Every error that dps-local raises on purpose.

DpsError                  one line that says what is wrong and what to do
├── NativeError           the patched library is missing, does not match, or refused a call
│   └── SelfTestError     … crashes on this machine, or computes wrong numbers there
├── ModelError            a GGUF that is missing, damaged or has no attention heads to steer
├── ProfileError          a profile that breaks its contract: names the field and the line
├── HeadMapError          a head map that is damaged or belongs to another model
├── RegistryError         a model name, download or checksum
└── ContextFullError      the conversation no longer fits the context
"""


class DpsError(Exception):
    """Base of the errors that the command line prints as one line, without a traceback."""

    def __init__(self, message: str) -> None:
        # names of files, and what other programs say, may have line breaks
        super().__init__(" ".join(filter(None, map(str.strip, message.splitlines()))))


class NativeError(DpsError):
    """The patched libllama is missing, does not match this package, or refused a call."""


class SelfTestError(NativeError):
    """The patched libllama crashes on this machine, or computes wrong numbers there."""


class ModelError(DpsError):
    """A model file that cannot be used."""


class ProfileError(DpsError):
    """A profile that breaks its contract."""


class HeadMapError(DpsError):
    """A head map that is damaged or belongs to another model."""


class RegistryError(DpsError):
    """A model that is unknown, not downloaded, or whose checksum is wrong."""


class ContextFullError(DpsError):
    """The conversation no longer fits the context."""
