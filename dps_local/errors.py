"""Every error that dps-local raises on purpose.

DpsError                  one line of facts, and a `Remedy`; never raised itself
├── NativeError           the patched library is missing, does not match, or refused a call
│   ├── SelfTestError     … crashes on this machine, or computes wrong numbers there
│   └── NoSlopesError     … the slopes of heads, as the architecture has no backward pass
├── ModelError            a GGUF that is missing, damaged or has no attention heads to steer
├── ProfileError          a profile that breaks its contract: names the field and the line
├── HeadMapError          a head map or a prior that is damaged or belongs to another model
├── RegistryError         a model name, download or checksum
├── MessagesError         a list of messages that is no conversation
├── ContextFullError      the conversation no longer fits the context
├── SettingsError         a setting out of its bounds, or settings that do not go together
├── StateError            an object that is closed, or has not got yet what is asked of it
├── CommandError          a slash command that does not exist, or was mistyped
├── DataError             evaluation data, or results, that break their contract
├── RequestError          a request that the server refuses
├── ConversationError     a conversation that is not there, or a name that several have
├── StorageError          a file or folder that cannot be written
└── MissingPackageError   an optional package that is not installed
"""

from __future__ import annotations

from enum import Enum


class Remedy(Enum):
    """What helps against an error. The command line says it by its options, in `dps_local/cli/remedies.py`."""

    LARGER_CONTEXT = "a larger context"
    LESS_MEMORY = "a smaller context, or more free memory"
    LESS_GPU_MEMORY = "fewer layers on the GPU, or a smaller context"
    SHORTER_ABOUT = "a larger context, or a shorter about in the profile"
    SMALLER_PROFILE = "a larger context, fewer tokens for the profile, or a shorter about in it"
    FILE_OR_NAME = "the path of a GGUF file, or a name of the registry"
    KNOWN_NAME = "a name of the registry"
    NAME_A_MODEL = "a model, as there is no default"
    DOWNLOAD = "downloading the model"
    DOWNLOAD_AGAIN = "downloading the model again"
    CHAT_MODEL = "a model for chats; this one can be the embedding model of a cluster map"
    USE_AS_MAP = "giving the file as the head map, beside its model"
    NO_GPU = "leaving the GPU out"
    NO_GPU_OR_NO_TEST = "leaving the GPU out, or the self-test"
    SCORE = "scoring a profile with this model"
    OTHER_MODEL_OR_SCORE = "the model that the head map was made for, or scoring with this one"
    OTHER_FILE_OR_SCORE = "the file that the head map was made for, or scoring with this one"
    PRIOR = "building a prior for this model"
    OTHER_MODEL_OR_PRIOR = "the model that the prior was made for, or building one for this one"
    OTHER_FILE_OR_PRIOR = "the file that the prior was made for, or building one for this one"
    WEAKER_GAMMA = "a smaller γ, or else a model file that is not damaged"
    GIVE_PROFILE = "a profile"
    GIVE_EMBEDDING_MODEL = "giving that embedding model"
    STEER = "heads to steer by, and a γ other than 0"
    STEER_BY_CONTRAST = "a contrast with a γ other than 0"
    OTHER_FOLDER = "another folder for results"
    KNOWN_CONVERSATION = "a number or a title of the list of conversations"
    MORE_USERS = "more users, or methods that need no other users"


class DpsError(Exception):
    """Base of the errors that the command line prints as one line, without a traceback.

    remedy: what helps, where the message does not tell. model: the registry's name of the model to download.
    """

    def __init__(self, message: str, remedy: Remedy | None = None, model: str = "") -> None:
        # names of files, and what other programs say, may have line breaks
        super().__init__(" ".join(filter(None, map(str.strip, message.splitlines()))))
        self.remedy, self.model = remedy, model


class NativeError(DpsError):
    """The patched libllama is missing, does not match this package, or refused a call."""


class NoSlopesError(NativeError):
    """why: what has no backward pass."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class SelfTestError(NativeError):
    """The patched libllama crashes on this machine, or computes wrong numbers there."""


class ModelError(DpsError):
    """A model file that cannot be used."""


class ProfileError(DpsError):
    """A profile that breaks its contract."""


class HeadMapError(DpsError):
    """A head map or a prior that is damaged or belongs to another model."""


class RegistryError(DpsError):
    """A model that is unknown, not downloaded, or whose checksum is wrong."""


class MessagesError(DpsError):
    """A list of messages that is no conversation."""


class ContextFullError(DpsError):
    """The conversation no longer fits the context."""


class SettingsError(DpsError):
    """A setting out of its bounds, or settings that do not go together."""


class StateError(DpsError):
    """An object that is closed, or has not got yet what is asked of it."""


class CommandError(DpsError):
    """A slash command that does not exist, or was mistyped."""


class DataError(DpsError):
    """Evaluation data, or results, that break their contract."""


class RequestError(DpsError):
    """status: of HTTP. param: the field that is wrong. code: by which programs know the error."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class ConversationError(DpsError):
    """A conversation that is not there, or a name that several have."""


class StorageError(DpsError):
    """A file or folder that cannot be written."""


class MissingPackageError(DpsError):
    """An optional package that is not installed."""
