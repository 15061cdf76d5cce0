"""Private, on-device personalization for llama.cpp: Differential Preference Steering (arXiv 2604.22345).

import dps_local as dps

with dps.Model("model.gguf") as model:
    me = dps.Profile.load("me.json")
    heads = dps.score(model, me)
    with dps.Assistant(model, me, heads) as assistant:
        for token in assistant.ask("Thank the neighbours."):
            print(token.text, end="")
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dps_local.errors import (
    CommandError,
    ContextFullError,
    ConversationError,
    DataError,
    DpsError,
    HeadMapError,
    MessagesError,
    MissingPackageError,
    ModelError,
    NativeError,
    NoSlopesError,
    ProfileError,
    RegistryError,
    RequestError,
    SelfTestError,
    SettingsError,
    StateError,
    StorageError,
)

if TYPE_CHECKING:
    from dps_local.assistant import Assistant as Assistant
    from dps_local.assistant import Settings as Settings
    from dps_local.chat.session import Session as Session
    from dps_local.engine.model import Model as Model
    from dps_local.engine.sampler import Sampling as Sampling
    from dps_local.logits_processor import SteeringLogitsProcessor as SteeringLogitsProcessor
    from dps_local.maps.cluster_map import ClusterMap as ClusterMap
    from dps_local.maps.head_map import HeadMap as HeadMap
    from dps_local.prompting.profile import Profile as Profile
    from dps_local.scoring.scoring import score as score
    from dps_local.steering.mixing import Gamma as Gamma
    from dps_local.steering.steering import Steering as Steering

try:
    __version__ = version("dps-local")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

# imported when they are first used, so that `import dps_local` stays fast
_HOMES = {
    "Assistant": "assistant",
    "ClusterMap": "maps.cluster_map",
    "Gamma": "steering.mixing",
    "HeadMap": "maps.head_map",
    "Model": "engine.model",
    "Profile": "prompting.profile",
    "Sampling": "engine.sampler",
    "Session": "chat.session",
    "Settings": "assistant",
    "Steering": "steering.steering",
    "SteeringLogitsProcessor": "logits_processor",
    "score": "scoring.scoring",
}

__all__ = [
    "Assistant",
    "ClusterMap",
    "CommandError",
    "ContextFullError",
    "ConversationError",
    "DataError",
    "DpsError",
    "Gamma",
    "HeadMap",
    "HeadMapError",
    "MessagesError",
    "MissingPackageError",
    "Model",
    "ModelError",
    "NativeError",
    "NoSlopesError",
    "Profile",
    "ProfileError",
    "RegistryError",
    "RequestError",
    "Sampling",
    "SelfTestError",
    "Session",
    "Settings",
    "SettingsError",
    "StateError",
    "Steering",
    "SteeringLogitsProcessor",
    "StorageError",
    "__version__",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "SteeringLogitsProcessor":
        import_module("dps_local.engine.native").load()  # so that `from llama_cpp import Llama` finds the patched one
    return getattr(import_module(f"dps_local.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
