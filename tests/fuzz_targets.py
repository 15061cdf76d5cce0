"""What tests/fuzz.py throws its inputs at: everything that reads what others wrote, or an earlier version did."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from exports import CHATGPT, CLAUDE, DISCORD, NOTES, SIGNAL, SLACK, TELEGRAM_ALL, TELEGRAM_CHAT, WHATSAPP, zipped
from exports import folder as export_folder
from letters import GMAIL, HTML, NOT_TYPED, letter, mbox
from maps import scores_map
from replies import REPLIES
from tiny import CHATML, write_model

from dps_local.assistant import Assistant, Settings
from dps_local.chat.chat_prompts import ChatPrompts
from dps_local.chat.session import Session
from dps_local.drawing import head_map as head_map_drawing
from dps_local.engine import native, registry, self_test
from dps_local.engine.context import Context
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.model import Model
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.engine.stream import Stream
from dps_local.errors import DpsError
from dps_local.evaluation.condition import Condition
from dps_local.evaluation.record import Record
from dps_local.evaluation.record_file import RecordFile
from dps_local.importing.chatgpt import ChatGPT
from dps_local.importing.claude import Claude
from dps_local.importing.cleaning import Rules
from dps_local.importing.discord import Discord
from dps_local.importing.format import Format
from dps_local.importing.formats import format_of
from dps_local.importing.git import parse_log
from dps_local.importing.harvest import read_sources
from dps_local.importing.notes import Notes
from dps_local.importing.signal import Signal
from dps_local.importing.slack import Slack
from dps_local.importing.telegram import Telegram
from dps_local.importing.whatsapp import WhatsApp
from dps_local.maps import map_file
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import ARRAYS, ClusterMap
from dps_local.maps.fisher import Fisher
from dps_local.maps.population import Population
from dps_local.maps.prior import Prior
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.maps.scored_heads import ScoredHeads
from dps_local.prompting.chat_template import FALLBACK_TEMPLATE, ChatTemplate, Exchange
from dps_local.prompting.profile import EXAMPLES, HistoryItem, Profile
from dps_local.prompting.prompt import Prompter, Request
from dps_local.scoring.mixture import mixture
from dps_local.scoring.score_store import Measured, ScoreStore
from dps_local.system.files import cache_folder
from dps_local.system.sealed_file import DIGEST

Try = Callable[[bytes], None]  # raises DpsError to refuse


@dataclass(frozen=True)
class Target:
    """Seeds are changed, in their first `head` bytes or anywhere, also into words; finish: makes an input whole.

    open: returns what tries an input, given a folder of its own. share: of the inputs of a whole run. numbers: where
    a seed, of binary fields, has its numbers, as (start, bytes): most changes are there, so that it is read further.
    """

    name: str
    share: int
    seeds: Sequence[bytes]
    open: Callable[[Path], Try]
    words: Sequence[bytes] = ()
    head: int = 0
    finish: Callable[[bytes], bytes] | None = None
    numbers: Callable[[bytes], Sequence[tuple[int, int]]] | None = None


def tiny(folder: Path, name: str = "tiny", **options: object) -> Path:
    path = folder / f"{name}.gguf"
    if not path.exists():
        write_model(path, "llama", **options)  # type: ignore[arg-type]
    return path


# --- files of models and maps

KINDS = [bytes([kind, 0, 0, 0]) for kind in range(14)]  # enum gguf_type


@functools.cache
def gguf_numbers(data: bytes) -> Sequence[tuple[int, int]]:
    """Return where a GGUF file has its counts, lengths, types, values (the first of an array), dimensions, offsets."""
    found, at = list[tuple[int, int]](), 4

    def number(size: int) -> int:
        nonlocal at
        found.append((at, size))
        at += size
        return int.from_bytes(data[found[-1][0] : at], "little")

    def values(kind: int, n: int) -> None:
        nonlocal at
        for i in range(n):
            if kind == 8:
                at += number(8)
            else:
                number({0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4))
            if i > 1:
                found.pop()

    number(4)
    n_tensors, n_kv = number(8), number(8)
    for _ in range(n_kv):
        values(8, 1)
        kind, n = number(4), 1
        if kind == 9:
            kind, n = number(4), number(8)
        values(kind, n)
    for _ in range(n_tensors):
        values(8, 1)
        values(10, number(4))
        number(4), number(8)
    return found


def _maps(folder: Path) -> list[bytes]:
    pcs = np.array([[0.02, -0.01], [np.nan, 0.03]])
    user = scores_map(pcs, selected=((1, 1), (0, 0)))
    grid = np.full((2, 2, 2), 0.25, np.float32)
    arrays: dict[str, Any] = dict.fromkeys(ARRAYS, grid) | {"center": np.ones(3), "centroids": np.ones((2, 3))}
    same = ("model", "architecture", "fingerprint", "scope", "ranking", "seed", "null_control", "gamma", "calibration")
    clusters = ClusterMap(
        **{name: getattr(user, name) for name in same},
        embedder="0123abcd",
        embedder_tokens=64,
        users=(3, 4),
        examples=(9, 8),
        evaluations=12,
        **arrays,
    )
    user.save(folder / "user")
    clusters.save(folder / "clusters")
    return [(folder / name).read_bytes() for name in ("user", "clusters")]


def head_maps(folder: Path) -> Target:
    model_path = tiny(folder)

    def open_(here: Path) -> Try:
        model, path = Model(model_path), here / "map.dps.gguf"

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            found = load_map(path)
            map_file.kind_of(path)
            json.dumps(found.as_json(), allow_nan=False)
            if isinstance(found, ClusterMap):
                found.scales(found.route(np.ones_like(found.center)))
                scored: list[ScoredHeads] = list(found.clusters().values())
            else:
                found.steering(model)
                scored = [found]
            for head_map in scored:
                head_map_drawing.heat_map_data(head_map)
                head_map_drawing.summary_lines(head_map)

        return attempt

    return Target("head-maps", 30_000, _maps(folder), open_, KINDS, numbers=gguf_numbers)


def priors(folder: Path) -> Target:
    row = np.array([0.5, 0.25, 0.125], np.float32)
    population = Population(
        row, Fisher(row, np.ones((2, 3), np.float32), 0.5), 1.5, 0.03, np.ones((2, 3), np.float32), row[:2]
    )
    error = QuadraticError(np.array([0.25, 0.5], np.float32), row[:2], row[:2])
    user = scores_map(np.array([[0.02, -0.01], [np.nan, 0.03]]))
    same: dict[str, Any] = {name: getattr(user, name) for name in ("model", "architecture", "fingerprint", "scope")}
    numbers: dict[str, Any] = {"people": 3, "texts": 9, "tokens": 300, "nll": 3.5, "n_heads": (2, 1)}
    seed = folder / "prior"
    Prior(**same, **numbers, writing="mail", source="s", licence="l", population=population, error=error).save(seed)

    def open_(here: Path) -> Try:
        path = here / "a.prior.gguf"

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            found = Prior.load(path)
            json.dumps(found.as_json(), allow_nan=False)
            mixture([found.population])

        return attempt

    return Target("priors", 20_000, [seed.read_bytes()], open_, KINDS, numbers=gguf_numbers)


def _weights(path: Path) -> int:
    with GGUFFile(path) as file:
        return file.data_offset


def metadata(folder: Path) -> Target:
    path = tiny(folder)

    def open_(here: Path) -> Try:
        target = here / "model.gguf"

        def attempt(data: bytes) -> None:
            target.write_bytes(data)
            with GGUFFile(target) as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    file.get(key)
                file.identity()

        return attempt

    return Target("gguf-metadata", 20_000, [path.read_bytes()], open_, KINDS, _weights(path), numbers=gguf_numbers)


def models(folder: Path) -> Target:
    path = tiny(folder)

    def open_(here: Path) -> Try:
        target = here / "model.gguf"

        def attempt(data: bytes) -> None:
            target.write_bytes(data)
            model = Model(target, n_gpu_layers=0)
            try:
                with_settings = Settings(n_ctx=64, n_threads=1, sampling=Sampling(temp=0))
                session = Assistant(model, settings=with_settings).session
                try:
                    list(session.ask("Hi", 2))
                finally:
                    session.close()
            finally:
                model.close()

        return attempt

    return Target("models", 6_000, [path.read_bytes()], open_, KINDS, _weights(path), numbers=gguf_numbers)


# --- text files

JSON = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\\u0000", b"null", b"true", b"-1e999"]
JSON += [b"1" * 5000]
JSON += [b"NaN", b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 2000, b'{"a":' * 2000, b"\x00", b"\r", "\u2028".encode(), b"{}"]
KEYS = [b'"name"', b'"about"', b'"preferences"', b'"history"', b'"input"', b'"output"', b'"rejected"']


def profiles(_: Path) -> Target:
    small = {
        "name": "A",
        "about": "é",
        "preferences": ["p"],
        "history": [{"input": "i", "output": "o"}, {"output": "o"}],
    }
    seeds = [json.dumps(small).encode(), json.dumps(small, indent=1).encode(), b'{"preferences": ["x"]}']
    seeds.append((EXAMPLES / "idris.json").read_bytes()[:600] + b'"}]}')

    def open_(here: Path) -> Try:
        path = here / "profile.json"

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            Profile.load(str(path)).digest()

        return attempt

    return Target("profiles", 600_000, seeds, open_, JSON + KEYS)


def mails(_: Path) -> Target:
    """Mail, recognised, read, cleaned and masked."""
    letters = [letter(), letter(GMAIL, HTML), *NOT_TYPED.values(), *(letter(reply.body) for reply in REPLIES.values())]
    seeds = [mbox(*letters[:3]), *letters, mbox(*letters)]

    def open_(here: Path) -> Try:
        source = here / "source"

        def attempt(data: bytes) -> None:
            source.write_bytes(data)
            rules = Rules(min_words=1, mask_names=True)
            read_sources([(source, format_of(source))], ["mara@lind.example"], rules).harvest()

        return attempt

    words = [b"From ", b"\n\n", b"--B", b"Content-Type: ", b"> ", b"wrote:", b"-- \n", b"=?utf-8?q?", b"<div>", b"\xff"]
    return Target("mails", 30_000, seeds, open_, words)


def registries(_: Path) -> Target:
    entry = b'default = true\nfile = "m.gguf"\nlicence = "MIT"\ngood_for = "tests"\n'
    digest = hashlib.sha256(b"GGUF").hexdigest()
    sha = f'sha256 = "{digest}"\nsize = 4\n'.encode()
    pypi = b'pypi.packages = ["p==1"]\npypi.members = ["a/m.gguf"]\n'
    hub = b'hub.repo = "o/m"\nhub.revision = "0123abcd"\n'
    stamp = json.dumps({"sha256": digest, "size": 4, "mtime_ns": 1}).encode()
    first = b"[a]\n" + entry + sha + pypi + b"[b]\n" + entry + hub
    seeds = [first + b"\f" + stamp, b"[a]\n" + entry + hub + b"\f" + stamp]
    words = [b"false", b"0", b"[]", b"{}", b'""', b"[", b"]", b"=", b'"', b"'''", b"\n", b".", b"#", b"{", b"}"]
    words += [b"true", b"1e999", b"nan", b"1979-05-27"]
    words += [b"pypi", b"hub", b"size", b"sha256", b"file", b"download", b"../x", b"", b"\\u0000", b"[" * 2000]
    words += [b"x = 1\n"]

    def open_(here: Path) -> Try:
        file = here / "registry.toml"
        os.environ["DPS_LOCAL_CACHE"] = str(here)
        registry.registry_file = lambda: file
        (folder := cache_folder("models")).joinpath("m.gguf").write_bytes(b"GGUF")

        def attempt(data: bytes) -> None:
            text, _, stamp = data.partition(b"\f")
            file.write_bytes(text)
            (folder / "m.gguf.json").write_bytes(stamp)
            registry.default_name()
            for name in registry.load():
                registry.is_downloaded(name)
            registry.resolve(registry.default_name())

        return attempt

    return Target("registry", 130_000, seeds, open_, words + JSON)


def configuration(_: Path) -> Target:
    """Environment variables and the record of the build, which is all the configuration that there is."""
    seeds = [b"cache\f" + json.dumps({"patch": native.PATCH_VERSION}).encode()]
    words = [*JSON, b"/", b"a" * 300, b"\xc3\xa9", b"~", b"\n", b"1e999", b'"1"']

    def open_(here: Path) -> Try:
        def attempt(data: bytes) -> None:
            chosen, _, record = data.partition(b"\f")
            # below a folder of this run, whatever it says
            name = os.fsdecode(chosen.replace(b"\0", b"").replace(b"..", b""))
            os.environ["DPS_LOCAL_CACHE"] = f"{here}/x{name}"
            cache_folder("models")
            (here / "build.json").write_bytes(record)
            native.check_build(here)

        return attempt

    return Target("configuration", 130_000, seeds, open_, words)


# --- chat templates and text

JINJA = ["{{", "}}", "{%", "%}", "{#", "#}", "-%}", "for m in messages", "endfor", "if", "else", "endif", "m.content"]
JINJA += ["m['role']", "messages", "messages[0]", "loop.index0", "|trim", "|tojson", "|length", "| join", "+", "*", "%"]
JINJA += ["**", "//", "~", "range(99999)", "999999999", "'x' * 999999999", "[0] * 999999999", "|indent(999999999)"]
JINJA += ["'%999999999d' % 1", "'{:999999999}'.format(1)", "|center(999999999)", "1 << 99999999", "set x = "]
JINJA += ["macro f()"]
JINJA += ["endmacro", "f()", "f(", "call", "raise_exception('a\nb')", "strftime_now('%Y')", "strftime_now('\\0')", "''"]
JINJA += ["bos_token", "eos_token", "add_generation_prompt", "namespace(a=1)", "recursive", "loop(messages)", "break"]
JINJA += ["__class__", "|attr('__class__')", "self", "caller()", "include 'x'", "extends 'x'", "import 'x' as y", "\0"]
JINJA += ["chatml", "llama2", "mistral-v7", "<think>", "\u00e9", "\ud800", "|batch(1)", "|sum", "|round(999999999)"]
JINJA += ["|format(1)", "|replace('', 'aaaaaaaaaaaaaaaa')", "|wordwrap(0)", "|slice(0)", "generation", "endgeneration"]
JINJA += ["x.append(1)", "cycler(1)", "joiner()", "lipsum(999999)", "dict(a=1)", "(" * 300, "not " * 300, "9" * 5000]
LLAMA_3 = (
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ '<|h|>' + m['role'] + '\n\n' + m['content'] | trim + '<|e|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|h|>assistant\n\n<think>' }}{% endif %}"
)
POINTS = ["\ud800", "\0", "\ufeff", "\u202e", "\u0301", "\U0001f468\u200d\U0001f469", "ß", "\uffff", "\U0010ffff"]
POINTS += ["\x1b[2J"]
POINTS += ["<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<|im_", "\r\n", "\t", " " * 500, "a" * 900]
POINTS += ["1" * 900]
POINTS += ["!" * 900, "é" * 900, "中文", "{{ 1 }}", "{% for", "\u0001", "…", "\x7f", "'s", "A" * 2000, "\n" * 900]


def _bytes(texts: Sequence[str]) -> list[bytes]:
    return [text.encode(errors="surrogatepass") for text in texts]


def templates(folder: Path) -> Target:
    model_path = tiny(folder)

    def open_(_: Path) -> Try:
        model = Model(model_path)

        def attempt(data: bytes) -> None:
            model.chat_template = _text(data)
            template = ChatTemplate(model)
            prompter = Prompter(model, template, Profile(preferences=("short",)), 64)
            prompter.prompt("You write.", Request("Hello", [Exchange("Who?", "Me.")]))
            prompter.target("Hi", 8)
            template.next("You write.", 2, "And now?")

        return attempt

    return Target(
        "templates", 6_000, _bytes([CHATML, FALLBACK_TEMPLATE, LLAMA_3, "chatml", "llama2"]), open_, _bytes(JINJA)
    )


def texts(folder: Path) -> Target:
    paths = [tiny(folder, f"tiny-{pre}", pre=pre) for pre in ("gpt-2", "llama-bpe", "tekken")]

    def open_(_: Path) -> Try:
        opened = [Model(path) for path in paths]
        sessions = [Session(model, ChatTemplate(model), n_ctx=64, n_threads=1) for model in opened]

        def attempt(data: bytes) -> None:
            text = _text(data)
            session = sessions[len(data) % len(sessions)]
            profile = Profile(text[:40], text[40:80], (text,), (HistoryItem(text, text[::-1], text),))
            prompter = Prompter(session.model, session.template, profile, 512, 2048)
            prompts = ChatPrompts(session.template, prompter.system, prompter.earlier())
            for turns in (0, 2):
                prompts.tokens(text, turns, [Exchange(text, text[::-1])])
            prompter.example(0, 16)
            session.model.detokenize(session.model.tokenize(text, special=True))

        return attempt

    seeds = _bytes(["Hello, what do you think of it?", "Grüße\n\n- a\n- b", "".join(POINTS[:14])])
    return Target("texts", 3_000, seeds, open_, _bytes(POINTS), finish=lambda data: data[:3000])


def _text(data: bytes) -> str:
    """Return bytes as text, with lone surrogates where JSON spelled some, or for what is not UTF-8."""
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="surrogateescape")


# --- exports of chats, assistants, notes and git

FORMATS: list[Format] = [WhatsApp(), Telegram(), Discord(), Slack(), Signal(), ChatGPT(), Claude(), Notes()]
# name of a seed → its format, what lies beside it, and its file
EXPORTS: dict[bytes, tuple[Format, Mapping[str, str], str]] = {
    **{locale.encode(): (WhatsApp(), {}, "chat.txt") for locale in WHATSAPP},
    b"chat": (Telegram(), {}, "result.json"),
    b"all": (Telegram(), {}, "result.json"),
    b"json": (Discord(), {}, "messages/c123456/messages.json"),
    b"csv": (Discord(), {}, "messages/c777777/messages.csv"),
    b"slack": (Slack(), {"users.json": SLACK["users.json"], "channels.json": "[]"}, "yard/2024-02-13.json"),
    b"users": (Slack(), {"yard/2024-02-13.json": SLACK["yard/2024-02-13.json"]}, "users.json"),
    b"signal": (Signal(), {}, "Jan/data.json"),
    b"signal-md": (Signal(), {}, "Ida/chat.md"),
    b"chatgpt": (ChatGPT(), {}, "conversations.json"),
    b"claude": (Claude(), {}, "conversations.json"),
    b"notes": (Notes(), {}, "Boat.md"),
}
SIGNS = _bytes(
    ["\u200e", "\u202f", "] ", " - ", ": ", "13/13/2024, 08:15 - ", "[1/1/24, 1:01:01 AM] ", "<", ">", "(", ")"]
)
SIGNS += _bytes(
    ["[[", "]]", "](", "```", "~~~", "---\n", "> ", "# ", "- ", "    ", "|", "%%", "<!--", "{{date}}", "1. ", "^a"]
)
SIGNS += [
    b'"message"',
    b'"text"',
    b'"from_id"',
    b'"mapping"',
    b'"parent"',
    b'"sender"',
    b'"user11"',
    b"\\x1b",
    b'"ts"',
    b"\0",
]


def _seeds() -> dict[bytes, str]:
    texts = {locale.encode(): text for locale, text in WHATSAPP.items()}
    texts |= {b"chat": json.dumps(TELEGRAM_CHAT), b"all": json.dumps(TELEGRAM_ALL), b"users": SLACK["users.json"]}
    texts |= {b"json": DISCORD["messages/c123456/messages.json"], b"csv": DISCORD["messages/c777777/messages.csv"]}
    texts |= {b"slack": SLACK["yard/2024-02-13.json"], b"signal": SIGNAL["Jan/data.json"]}
    texts |= {b"signal-md": SIGNAL["Ida/chat.md"], b"chatgpt": CHATGPT["conversations-000.json"]}
    return texts | {
        b"claude": CLAUDE["conversations.json"],
        b"notes": NOTES["Boat.md"],
        b"git": "M\0m@x\0today\0\0One\n\0",
    }


def _read(format: Format, source: Path) -> None:
    format.authors(source)
    for item in format.read(source, ["Mara", "U1"], Counter()):
        item.text.encode()
        item.input.encode()


def exports(_: Path) -> Target:
    """The files of exports, each in a folder of its format, and git's log."""

    def open_(here: Path) -> Try:
        for name, (_, beside, _) in EXPORTS.items():
            export_folder(here / name.decode(), beside)

        def attempt(data: bytes) -> None:
            name, _, content = data.partition(b"\f")
            if name not in EXPORTS:
                list(parse_log(io.BytesIO(content)))
                return
            format, _, path = EXPORTS[name]
            source = here / name.decode()
            (source / path).parent.mkdir(exist_ok=True, parents=True)
            (source / path).write_bytes(content)
            assert sum(other.recognises(source) for other in FORMATS) <= 1
            _read(format, source)

        return attempt

    seeds = [name + b"\f" + text.encode() for name, text in _seeds().items()]
    return Target("exports", 100_000, seeds, open_, JSON + SIGNS)


def packed_exports(folder: Path) -> Target:
    """Exports that are zips."""
    zips = [{"_chat.txt": WHATSAPP["ios-english-us"]}, DISCORD, SLACK, CHATGPT, CLAUDE]
    seeds = [zipped(folder / f"zip-{n}", files).read_bytes() for n, files in enumerate(zips)]

    def open_(here: Path) -> Try:
        source = here / "export.zip"

        def attempt(data: bytes) -> None:
            source.write_bytes(data)
            its = [format for format in FORMATS if format.recognises(source)]
            assert len(its) <= 1
            if not its:
                raise DpsError("is of no format")
            _read(its[0], source)

        return attempt

    return Target("packed-exports", 60_000, seeds, open_, [*KINDS, b"PK\x01\x02", b"PK\x03\x04", b"\xff" * 4, b"../"])


# --- what the caches keep


def score_files(folder: Path) -> Target:
    """The file of a text, or the plan of a run."""
    store, known = ScoreStore(folder, 4, "m"), Measured(4)
    known.nll = 1.0
    store.save("t", known)
    array = store.path("t").read_bytes()
    store.plan("n", ["t"])
    plan = store.path(["plan", "n"]).with_suffix(".json").read_bytes()
    zipped = io.BytesIO()
    np.savez(zipped, a=np.zeros(3))
    words = [*JSON, b"'shape': (999999999, 3)", b"'descr': '|O'", b"PK\x03\x04", b"../x", b"fortran_order", b"(", b"-1"]

    def open_(here: Path) -> Try:
        store, beside = ScoreStore(here / "scores", 4, "m"), here / "x"
        store.folder.mkdir()

        def attempt(data: bytes) -> None:
            beside.touch()
            store.path("t").write_bytes(data)
            good = store.load("t").nll
            store.path(["plan", "n"]).with_suffix(".json").write_bytes(data)
            store.plan("n", ["t"])
            assert beside.exists(), "a file outside the store is gone"
            if math.isnan(good):
                raise DpsError("is as good as none")

        return attempt

    return Target("score-files", 60_000, [array, plan, zipped.getvalue()], open_, words)


def result_files(_: Path) -> Target:
    """Lines of results: of the self-test's child, and of eval."""
    lines = [{"engine": {"version": "1"}}, {"step": "decode", "device": "CPU"}, {"passed": True}]
    record = Record("s", "t", "m", "u", "q", Condition("none"), (1.0, 2.0)).as_json()
    seeds = [b"\n".join(json.dumps(line).encode() for line in lines), json.dumps(record).encode() + b"\n"]
    words = [b'"failed"', b'"error"', b'"step"', b'"device"', b'"engine"', b'"arm"', b'"nll"', b"\n"]

    def open_(here: Path) -> Try:
        path = here / "report.jsonl"
        os.environ["DPS_LOCAL_CACHE"] = str(here / "cache")

        def child(folder: Path, *_: object) -> int:
            (folder / "output").touch()
            (folder / "report.jsonl").write_bytes(path.read_bytes())
            return 1

        self_test.run_child = child  # type: ignore[assignment]

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            json.dumps(self_test.run(offload=False).engine | {})
            RecordFile(path)

        return attempt

    return Target("result-files", 12_000, seeds, open_, JSON + words)


def states(folder: Path) -> Target:
    """KV states, as they lie on the disk: behind a checksum."""
    model_path, tokens = tiny(folder), list(range(70))
    with contextlib.closing(Context(Model(model_path), 128, n_threads=1)) as context:
        stream, cache = Stream(context), PrefixCache(folder)
        stream.read(tokens, cache)
        kept = cache.path(context, tokens, None).read_bytes()

    def open_(here: Path) -> Try:
        context, cache = Context(Model(model_path), 128, n_threads=1), PrefixCache(here)
        path = cache.path(context, tokens, None)

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            if not cache.load(context, tokens, None):
                raise DpsError("is as good as none")
            context.truncate(0, 0)

        return attempt

    return Target("states", 3_000, [kept], open_, KINDS, 4096)


def sealed_states(folder: Path) -> Target:
    """KV states whose checksum is right, as none that was damaged has: it takes memory without bounds."""

    def seal(data: bytes) -> bytes:
        return hashlib.sha256(data[DIGEST:]).digest() + data[DIGEST:]

    return replace(states(folder), name="sealed-states", share=0, finish=seal)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "head-maps": head_maps,
    "priors": priors,
    "gguf-metadata": metadata,
    "models": models,
    "profiles": profiles,
    "mails": mails,
    "registry": registries,
    "configuration": configuration,
    "templates": templates,
    "texts": texts,
    "exports": exports,
    "packed-exports": packed_exports,
    "score-files": score_files,
    "result-files": result_files,
    "states": states,
    "sealed-states": sealed_states,
}
