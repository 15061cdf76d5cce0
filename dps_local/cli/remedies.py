"""What helps against an error, by the options and commands of this program; errors themselves state facts."""

from __future__ import annotations

from dps_local.errors import DpsError, Remedy

REMEDIES = {
    Remedy.LARGER_CONTEXT: "--ctx-size makes it larger",
    Remedy.LESS_MEMORY: "close other programs, or try a smaller --ctx-size",
    Remedy.LESS_GPU_MEMORY: "try fewer layers on the GPU (--n-gpu-layers), or a smaller --ctx-size",
    Remedy.SHORTER_ABOUT: "--ctx-size makes it larger, or make its about shorter",
    Remedy.SMALLER_PROFILE: "make --ctx-size larger, or --profile-tokens or its about smaller",
    Remedy.FILE_OR_NAME: "give the path of a GGUF file or a name from `dps-local models list`",
    Remedy.KNOWN_NAME: "`dps-local models list` shows the models",
    Remedy.NAME_A_MODEL: "name one with --model",
    Remedy.DOWNLOAD: "run `dps-local models pull {model}`",
    Remedy.DOWNLOAD_AGAIN: "run `dps-local models pull {model}` again",
    Remedy.CHAT_MODEL: "choose a chat model, and give one that makes embeddings as --embedding-model",
    Remedy.USE_AS_MAP: "give it as --map, beside the --model that it was made for",
    Remedy.NO_GPU: "--n-gpu-layers 0 leaves the GPU out",
    Remedy.NO_GPU_OR_NO_TEST: "--n-gpu-layers 0 leaves the GPU out; DPS_LOCAL_SELF_TEST=off skips this check",
    Remedy.SCORE: "make one with `dps-local score`",
    Remedy.OTHER_MODEL_OR_SCORE: "use that model, or score this one with `dps-local score`",
    Remedy.OTHER_FILE_OR_SCORE: "use that file, or score this one with `dps-local score`",
    Remedy.PRIOR: "make one with `dps-local prior build`",
    Remedy.OTHER_MODEL_OR_PRIOR: "use that model, or make a prior for this one with `dps-local prior build`",
    Remedy.OTHER_FILE_OR_PRIOR: "use that file, or make a prior for this one with `dps-local prior build`",
    Remedy.WEAKER_GAMMA: "lower --gamma where it is large; else its file may be damaged, verify it",
    Remedy.GIVE_PROFILE: "give a --profile",
    Remedy.GIVE_EMBEDDING_MODEL: "give it by --embedding-model",
    Remedy.STEER: "--profile or --map gives the heads, --gamma 0.5 the strength",
    Remedy.STEER_BY_CONTRAST: "--gamma 0.5 steers by a contrast",
    Remedy.OTHER_FOLDER: "give --out another folder",
    Remedy.KNOWN_CONVERSATION: "`dps-local conversations list` shows them",
    Remedy.MORE_USERS: "give more data, or other --methods",
}


def explained(error: DpsError) -> str:
    """Return an error's line: what is wrong, and what to do about it at the command line."""
    if error.remedy is None:
        return str(error)
    return f"{error}: {REMEDIES[error.remedy].format(model=error.model)}"
