"""The program as a person meets it: its commands in a process of their own, on pipes and on a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dps_local.engine.native import PATCH_VERSION
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import examples
from dps_local.scoring.calibration import PLAIN, Calibration, Candidate

PROGRAM = [sys.executable, "-P", "-c", "from dps_local.cli.app import main; main()"]
QUICK = ["--examples", "2", "--target-tokens", "6", "--profile-tokens", "60", "-c", "512"]
PROFILE = {
    "name": "Ada",
    "preferences": ["short"],
    "history": [{"input": f"say {i}", "output": f"Aye {i}, so be it, by gum."} for i in range(3)],
}

TinyModel = Callable[..., Path]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    drop = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {"DPS_LOCAL_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "PYTHONWARNINGS": "error"}


@pytest.fixture
def model(tiny_model: TinyModel) -> Path:
    return tiny_model("llama")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "ada.json"
    path.write_text(json.dumps(PROFILE, indent=1))
    return path


class Program:
    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )

    def fails(self, *arguments: object, stdin: str = "") -> str:
        """Run, expect exit code 1, nothing on stdout and a last line on stderr that is the error; return that line."""
        result = self(*arguments, stdin=stdin)
        assert result.returncode == 1, result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert lines == result.stderr.splitlines()[-1:]
        return lines[0]


@pytest.fixture
def program(environment: dict[str, str]) -> Program:
    return Program(environment)


class Terminal:
    """A conversation with the program on a pseudo-terminal."""

    def __init__(self, arguments: list[str | Path], environment: dict[str, str]) -> None:
        self.screen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(PROGRAM[0], [*PROGRAM, *map(str, arguments)], environment)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Read until `text` appears, and return what was read up to there, without escape sequences."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"no {text!r} in {self.screen!r}"
            self._read()
        before, _, self.screen = self.screen.partition(text)
        return before

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is gone
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", data.decode(errors="replace")).replace("\r", "")
        return bool(data)

    def type(self, line: str) -> None:
        os.write(self.fd, f"{line}\n".encode())

    def interrupt(self) -> None:
        os.write(self.fd, b"\x03")

    def exit_code(self, seconds: float = 30) -> int:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running: {self.screen!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str | Path) -> Terminal:
        opened.append(Terminal(list(arguments), environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def head_map(program: Program, model: Path, profile: Path, tmp_path: Path) -> Path:
    """The map that two history items give: too little to choose heads by, or to steer."""
    path = tmp_path / "ada.dps.gguf"
    assert program("score", "-m", model, "-p", profile, *QUICK, "-o", path).returncode == 0
    return path


@pytest.fixture
def steering_map(head_map: Path, tmp_path: Path) -> Path:
    """The same, as if it had chosen heads and a strength."""
    path = tmp_path / "steering.dps.gguf"
    found = HeadMap.load(head_map)
    weights = np.zeros_like(found.weights)
    weights[1, 2] = 1
    replace(found, selected=((1, 2), (0, 3)), weights=weights, gamma=0.5, calibration=None).save(path)
    return path


# --- the main job, on pipes


def test_piped_questions_are_answered_one_a_line(
    program: Program, model: Path, profile: Path, steering_map: Path
) -> None:
    arguments = ["chat", "-m", model, "-p", profile, "--map", steering_map, *QUICK, "-n", "5", "--temp", "0"]
    result = program(*arguments, stdin="hello\n\nagain\n")
    assert result.returncode == 0, result.stderr
    assert "steering with 2 heads (L1H2 L0H3), γ = 0.5" in result.stderr
    assert result.stdout.endswith("\n")
    again = program(*arguments, stdin="hello\n\nagain\n")
    assert again.stdout == result.stdout


def test_a_profile_is_scored_once_and_then_cached(program: Program, model: Path, profile: Path, tmp_path: Path) -> None:
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    (cached,) = (tmp_path / "cache" / "maps").iterdir()
    assert cached.stat().st_mode & 0o777 == 0o600
    assert cached.parent.stat().st_mode & 0o777 == 0o700
    before = cached.stat().st_mtime_ns
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    assert cached.stat().st_mtime_ns == before
    profile.write_text(json.dumps(PROFILE | {"name": "Grace"}))
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    assert len(list(cached.parent.iterdir())) == 2


def test_generate_gives_the_probabilities_of_each_token(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "-n", "6", "--temp", "0", "--json"]
    answer, eager = (json.loads(program(*arguments, *o, "say hello").stdout) for o in ([], ["--engine", "eager"]))
    assert {"text", "gamma", "tokens", "timings"} <= answer.keys()
    assert answer["gamma"] == 0.5
    assert answer["text"] == "".join(token["text"] for token in answer["tokens"])
    for token in eager["tokens"]:
        assert token.keys() == {"id", "text", "p_plain", "p_muted", "p_steered"}
        assert 0 < token["p_plain"] <= 1
        assert 0 < token["p_muted"] <= 1
        assert 0 < token["p_steered"] <= 1
    without = {"p_muted": None}  # the late engine does not need all of the muted stream's logits
    assert [token | without for token in answer["tokens"]] == [token | without for token in eager["tokens"]]


def test_amplified_heads_need_one_stream_alone(program: Program, model: Path, steering_map: Path) -> None:
    arguments = [
        "generate",
        "-m",
        model,
        "--map",
        steering_map,
        "-c",
        "512",
        "-n",
        "6",
        "--temp",
        "0",
        "--json",
        "hello",
    ]
    answer = json.loads(program(*arguments, "--mode", "amplify", "--gamma", "2").stdout)
    assert answer["gamma"] == 2
    assert {(token["p_plain"], token["p_muted"]) for token in answer["tokens"]} == {(None, None)}
    assert "there is no measured γ for amplify" in program(*arguments, "--mode", "amplify").stderr
    plain = json.loads(program(*arguments, "--gamma", "0").stdout)
    assert [t["p_steered"] for t in answer["tokens"]] != [t["p_steered"] for t in plain["tokens"]]


def test_what_the_profile_changes_steers_without_scoring(program: Program, model: Path, profile: Path) -> None:
    common = ["generate", "-m", model, "--mode", "cad", *QUICK, "-n", "6", "--temp", "0", "--json", "say hello"]
    result = program(*common, "-p", profile, "--gamma", "2", "--engine", "eager")
    answer = json.loads(result.stdout)
    assert "steering by what the profile changes, γ = 2" in result.stderr
    assert "scoring" not in result.stderr
    assert any(token["p_muted"] != token["p_plain"] for token in answer["tokens"])
    assert "there is no measured γ for cad" in program(*common, "-p", profile).stderr
    assert program.fails(*common).endswith("give a --profile")


def test_with_gamma_zero_the_muted_stream_is_not_needed(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, *QUICK, "-n", "6", "--temp", "0", "--json", "hello", "--map", steering_map]
    answer = json.loads(program(*arguments, "--gamma", "0").stdout)
    assert answer["gamma"] == 0
    assert {token["p_muted"] for token in answer["tokens"]} == {None}
    assert all(token["p_steered"] == token["p_plain"] for token in answer["tokens"])


def test_a_seed_makes_an_answer_repeatable(program: Program, model: Path) -> None:
    def text(seed: int) -> str:
        arguments = ["generate", "-m", model, "-c", "512", "-n", "24", "--temp", "1.5", "--top-k", "0", "--json", "hi"]
        return str(json.loads(program(*arguments, "--seed", str(seed)).stdout)["text"])

    assert text(7) == text(7)
    assert text(7) != text(8)


def test_compare_shows_both_answers(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "-n", "4", "--temp", "0", "--compare"]
    result = program(*arguments, "say hello")
    assert result.stdout.startswith("plain    ")
    assert "\nsteered  " in result.stdout


def test_an_answer_can_be_explained(program: Program, model: Path, steering_map: Path, tmp_path: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "-n", "6", "--temp", "0", "say hello"]
    html = tmp_path / "answer.html"
    plain, explained = program(*arguments), program(*arguments, "--explain", "--explain-html", html)
    assert explained.stdout.startswith(f"{plain.stdout}\ncontrast with 2 muted heads, γ = 0.5, β = 0.1\n")
    assert "L1H2 " in explained.stdout
    assert "explaining: 100 %" in explained.stderr
    assert explained.stderr.splitlines()[-1] == f"wrote {html}"
    assert "What each head did" in html.read_text()
    html.unlink()
    assert program(*arguments, "--explain-html", html).stdout == plain.stdout
    assert html.exists()
    compared = program(*arguments, "--explain", "--compare").stdout
    assert compared.endswith(explained.stdout.removeprefix(plain.stdout))


@pytest.mark.parametrize("mode", [["--mode", "contrast"], ["--mode", "amplify"]])
def test_an_explanation_as_json_has_the_shift_and_the_heads_of_each_token(
    program: Program, model: Path, steering_map: Path, mode: list[str]
) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "-n", "6", "--temp", "0", "--json", "hi"]
    answer = json.loads(program(*arguments, *mode, "--gamma", "1", "--explain").stdout)
    assert [t["id"] for t in answer["explanation"]] == [t["id"] for t in answer["tokens"]]
    for token in answer["explanation"]:
        assert {"text", "p_plain", "p_steered", "shift", "replaced"} <= token.keys()
        heads = {(share["layer"], share["head"]) for share in token["heads"]}
        assert heads == ({(1, 2), (0, 3)} if mode[1] == "contrast" else {(1, 2)})
        assert token["replaced"] is None or token["replaced"].keys() == {"id", "text", "p_plain", "p_steered"}
    assert "explanation" not in json.loads(program(*arguments, *mode).stdout)


def test_without_steering_there_is_nothing_to_explain(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "-c", "512", "-n", "2", "hi"]
    for more in (["--explain"], ["--explain-html", "x.html"], ["--map", steering_map, "--gamma", "0", "--explain"]):
        assert "--gamma 0.5 the strength" in program.fails(*arguments, *more)


def test_generate_reads_its_prompt_from_stdin(program: Program, model: Path) -> None:
    arguments = ["generate", "-m", model, "-c", "512", "-n", "4", "--temp", "0"]
    expected = program(*arguments, "say hello").stdout
    assert program(*arguments, stdin="say hello\n").stdout == expected
    assert program(*arguments, "-", stdin="say hello\n").stdout == expected
    assert "the prompt is empty" in program(*arguments, "-").stderr
    assert program(*arguments, stdin=" \n").returncode == 2


def test_what_is_piped_stands_before_the_request(program: Program, model: Path) -> None:
    arguments = ["generate", "-m", model, "-c", "512", "-n", "9", "--temp", "0"]
    both = program(*arguments, "say it again", stdin="a long text\nof two lines\n").stdout
    assert both == program(*arguments, "a long text\nof two lines\n\nsay it again").stdout
    assert both != program(*arguments, "say it again").stdout


def test_a_line_that_is_no_command_is_a_question(program: Program, model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    arguments = ["chat", "-m", model, "-c", "512", "-n", "3", "--temp", "0"]
    result = program(*arguments, stdin=f"/etc/passwd says what?\n/nonsense\n/ 2\n/save {saved}\n/exit\nno\n")
    assert result.returncode == 0, result.stderr
    asked = [m["content"] for m in json.loads(saved.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["/etc/passwd says what?", "/nonsense", "/ 2"]


def test_a_line_that_fails_does_not_end_a_piped_chat(program: Program, model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    arguments = ["chat", "-m", model, "-c", "256", "-n", "3", "--temp", "0"]
    lines = ["/regen", "/compare maybe", "first", "word " * 400, f"/save {tmp_path / 'none' / 'x'}", "second"]
    result = program(*arguments, stdin="\n".join([*lines, f"/save {saved}"]))
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        "error: there is no answer yet",
        "error: /compare takes on or off",
        "error: the question needs more than the context of 256 tokens: --ctx-size makes it larger",
        f"error: cannot write {tmp_path / 'none' / 'x'}: No such file or directory",
    ]
    asked = [m["content"] for m in json.loads(saved.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["first", "second"]


@pytest.mark.parametrize("option", ["-m", "-p"])
@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_a_mistake(program: Program, option: str, name: str) -> None:
    for command in (["generate", "hi"], ["chat"], ["score"]):
        result = program(*command, option, name)
        assert result.returncode == 2
        assert "the name is empty" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeat-penalty", "0"], "greater than or equal to 0.01"),
        (["--repeat-penalty", "nan"], "Input should be"),
        (["--gamma", "1e38"], "it goes from -1000 to 1000"),
        (["--gamma", "-1e38"], "it goes from -1000 to 1000"),
        (["--temp", "1e-38"], "neither 0 (greedy) nor"),
        (["--temp", "-1"], "neither 0 (greedy) nor"),
        (["--temp", "inf"], "neither 0 (greedy) nor"),
        (["--top-p", "nan"], "Input should be"),
        (["--routing-temp", "inf"], "takes a finite number"),
    ],
)
def test_numbers_that_give_no_numbers_are_refused(
    program: Program, model: Path, options: list[str], message: str
) -> None:
    result = program("generate", "-m", model, *options, "hi")
    assert result.returncode == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("options", [["--repeat-penalty", "0.01"], ["--repeat-penalty", "100"], ["--temp", "0.001"]])
def test_numbers_at_their_bounds_give_an_answer(program: Program, model: Path, options: list[str]) -> None:
    result = program("generate", "-m", model, "-c", "256", "-n", "9", "--seed", "1", *options, "hi", "--json")
    assert len(json.loads(result.stdout)["tokens"]) > 0


# --- head maps


def test_score_and_inspect_say_what_the_head_map_holds(
    program: Program, model: Path, profile: Path, head_map: Path
) -> None:
    expected = HeadMap.load(head_map)
    for result in (
        program("score", "-m", model, "-p", profile, *QUICK, "--json"),
        program("inspect", "-m", model, "-p", profile, *QUICK, "--json"),
        program("inspect", head_map, "--json"),
    ):
        said = json.loads(result.stdout)
        assert said["fingerprint"] == expected.fingerprint
        assert (said["n_layer"], said["n_head"]) == expected.pcs.shape
        assert said["scope"] == "generated"
        assert said["examples"] == 2
        assert np.array_equal(np.array(said["pcs"], np.float32), expected.pcs)
        assert np.array_equal(np.array(said["pcs_stderr"], np.float32), expected.pcs_stderr)
        assert said["selected"] == [list(head) for head in expected.selected]
        assert np.array_equal(np.array(said["gain"], np.float32), expected.gain)
        assert (said["mode"], said["gamma"]) == ("contrast", 0)
        assert {"gain", "low", "high", "n"} <= said["calibration"].keys()
        assert said["null_control"] == 0.0


def test_inspect_draws_the_map(program: Program, head_map: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = program("inspect", head_map, "--png", tmp_path / "map.png", "--html", tmp_path / "map.html")
    assert result.returncode == 0, result.stderr
    assert "●" in result.stdout
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "map.html").read_text()


@pytest.fixture
def other_map(head_map: Path, tmp_path: Path) -> Path:
    """A map of the same model whose best head is another one."""
    path = tmp_path / "bob.dps.gguf"
    found = HeadMap.load(head_map)
    replace(found, gain=-found.gain).save(path)
    return path


def test_inspect_compares_several_maps(program: Program, head_map: Path, steering_map: Path, other_map: Path) -> None:
    result = program("inspect", head_map, steering_map, other_map)
    assert result.returncode == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "overlap of the best 1 of 18 heads of each map: heads in both divided by heads in",
        "either (Jaccard)",
        "",
        "              1     2     3",
        "1 ada        1.00  1.00  0.00",
        "2 steering   1.00  1.00  0.00",
        "3 bob        0.00  0.00  1.00",
        "",
        "different maps overlap by 0.33 on average, random choices would by 0.06",
    ]


def test_a_comparison_as_json_holds_the_maps_too(program: Program, head_map: Path, other_map: Path) -> None:
    said = json.loads(program("inspect", head_map, other_map, "--json").stdout)
    assert said.keys() == {"maps", "overlap"}
    assert said["maps"] == [json.loads(program("inspect", path, "--json").stdout) for path in (head_map, other_map)]
    assert said["overlap"] == {
        "names": ["ada", "bob"],
        "k": 1,
        "heads": 18,
        "matrix": [[1, 0], [0, 1]],
        "mean": 0,
        "random": pytest.approx(1 / 18),
    }


def test_a_comparison_can_be_drawn_into_files(
    program: Program, head_map: Path, other_map: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    png, html = tmp_path / "overlap.png", tmp_path / "overlap.html"
    result = program("inspect", head_map, other_map, "--png", png, "--html", html)
    assert result.stderr.splitlines() == [f"wrote {png}", f"wrote {html}"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert html.read_text().count("<td class=") > 4


def test_maps_of_one_name_are_told_apart_by_their_folders(program: Program, head_map: Path, tmp_path: Path) -> None:
    other = tmp_path / "later" / head_map.name
    other.parent.mkdir()
    other.write_bytes(head_map.read_bytes())
    said = json.loads(program("inspect", head_map, other, "--json").stdout)
    assert said["overlap"]["names"] == [str(head_map), str(other)]


def test_maps_of_different_models_are_not_compared(
    program: Program, tiny_model: TinyModel, profile: Path, head_map: Path, tmp_path: Path
) -> None:
    other = tmp_path / "qwen.dps.gguf"
    assert program("score", "-m", tiny_model("qwen2"), "-p", profile, *QUICK, "-o", other).returncode == 0
    html = tmp_path / "overlap.html"
    message = program.fails("inspect", head_map, other, "--html", html)
    assert re.fullmatch(
        r"error: ada is a map of 'Tiny' \(fingerprint \w{12}\), qwen one of 'Tiny' \(\w{12}\): "
        r"heads can be compared within one model only",
        message,
    )
    assert not html.exists()
    assert program("inspect", head_map, head_map).returncode == 2


def test_a_baked_model_steers_without_a_profile(
    program: Program, model: Path, steering_map: Path, tmp_path: Path
) -> None:
    baked = tmp_path / "baked.gguf"
    assert program("bake", model, steering_map, "-o", baked).returncode == 0
    arguments = ["generate", "-c", "512", "-n", "8", "--temp", "0", "--json", "say hello"]
    with_map = json.loads(program(*arguments, "-m", model, "--map", steering_map).stdout)
    with_baked = json.loads(program(*arguments, "-m", baked).stdout)
    assert with_baked["tokens"] == with_map["tokens"]
    assert with_baked["gamma"] == 0.5


def test_a_map_for_another_model_is_refused(
    program: Program, tiny_model: TinyModel, head_map: Path, tmp_path: Path
) -> None:
    other = tiny_model("qwen2")
    message = program.fails("generate", "-m", other, "--map", head_map, "-c", "512", "hi")
    assert "belongs to" in message
    assert "belongs to" in program.fails("bake", other, head_map, "-o", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_layers_without_heads_are_named(program: Program, tiny_model: TinyModel, profile: Path) -> None:
    result = program("score", "-m", tiny_model("lfm2"), "-p", profile, *QUICK, "--json")
    missing = [layer for layer, row in enumerate(json.loads(result.stdout)["pcs"]) if set(row) == {None}]
    assert missing
    assert f"no attention heads that can be muted in layers {', '.join(map(str, missing))}\n" in result.stderr


def test_a_model_without_any_attention_is_refused(program: Program, tiny_model: TinyModel, profile: Path) -> None:
    assert "no attention heads to score" in program.fails("score", "-m", tiny_model("mamba"), "-p", profile, *QUICK)


def test_scoring_says_what_it_found(program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK)
    said = " ".join(result.stdout.split())
    assert "no head qualifies: no lower bound of gain is above 0" in said
    assert "null control 0; 36 head evaluations" in said  # 18 heads, 2 examples
    assert re.search(r"steering does not help on your writing.* it stays off", said)
    assert re.search(r"^head map: .*; peak memory \d\.\d GB$", result.stderr, re.MULTILINE)


def test_a_chat_says_at_its_start_what_steering_is_worth(program: Program, model: Path, profile: Path) -> None:
    result = program("chat", "-m", model, "-p", profile, *QUICK, "-n", "1", stdin="hi\n")
    assert "steering does not help on your writing" in result.stderr
    assert "no head qualifies: steering stays off" in result.stderr
    forced = program("chat", "-m", model, "-p", profile, *QUICK, "-n", "1", "--gamma", "1", stdin="/gamma\n")
    assert "it stays off" in forced.stderr  # as no head can be steered by
    assert forced.stderr.splitlines()[-1] == (
        "error: nothing to steer: no head was chosen, or chat was started without --profile and --map"
    )


def test_what_was_measured_and_what_is_done_do_not_contradict_each_other(
    program: Program, model: Path, steering_map: Path
) -> None:
    calibration = Calibration(-0.05, -0.09, -0.01, 12, PLAIN, 1.1, 1.2)
    replace(HeadMap.load(steering_map), calibration=calibration, gamma=0.0).save(steering_map)
    arguments = ["chat", "-m", model, "--map", steering_map, "-c", "512", "-n", "1"]
    off, on = program(*arguments, stdin="hi\n").stderr, program(*arguments, "--gamma", "1", stdin="hi\n").stderr
    assert "it stays off" in off
    assert "steering with" not in off
    assert on.splitlines()[0].endswith("--gamma steers all the same")
    assert "steering with 2 heads (L1H2 L0H3), γ = 1" in on
    assert "off" not in on


def test_a_map_that_helps_says_so_at_the_start(program: Program, model: Path, steering_map: Path) -> None:
    calibration = Calibration(0.05, 0.01, 0.09, 12, Candidate("contrast", 2, 0.5), 1.1, 1.2)
    replace(HeadMap.load(steering_map), calibration=calibration).save(steering_map)
    result = program("chat", "-m", model, "--map", steering_map, "-c", "512", "-n", "1", stdin="hi\n")
    assert result.stderr.splitlines()[:2] == [
        "steering is worth +0.050 [+0.010, +0.090] nats a token on your writing",
        "Tiny: steering with 2 heads (L1H2 L0H3), γ = 0.5",
    ]


def test_amplification_cannot_follow_the_entropy(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "--mode", "amplify", "hi"]
    assert "γ must be a number" in program.fails(*arguments, "--gamma", "entropy")[-60:]


@pytest.mark.parametrize("ranking", ["pcs", "gain", "contrast"])
def test_heads_are_ranked_as_asked(ranking: str, program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK, "--score", ranking, "--json")
    said = json.loads(result.stdout)
    assert said["ranking"] == ranking
    assert (said["contrast"][0][0] is not None) == (ranking == "contrast")


@pytest.mark.parametrize("exhaustive", [False, True])
def test_poor_heads_are_dropped_early_unless_all_are_asked_for(program: Program, model: Path, exhaustive: bool) -> None:
    arguments = ["score", "-m", model, "-p", "mara", "--examples", "8", "--target-tokens", "4", "-c", "512", "--json"]
    said = json.loads(program(*arguments, *["--exhaustive"] * exhaustive).stdout)
    counts = np.array(said["counts"])
    assert counts.max() == said["examples"] == 8
    assert counts.min() == (8 if exhaustive else counts.min())
    assert said["evaluations"] == counts.sum()
    assert (said["evaluations"] == 18 * 8) == exhaustive
    assert -1 <= said["stability"]["spearman"] <= 1
    assert 0 <= said["stability"]["jaccard"] <= 1
    assert said["stability"]["heads"] == (counts == 8).sum()
    assert said["calibration"]["low"] <= said["calibration"]["gain"] <= said["calibration"]["high"]
    assert said["calibration"]["n"] == 8


def test_scoring_options_reach_the_map(program: Program, model: Path, profile: Path) -> None:
    arguments = ["score", "-m", model, "-p", profile, *QUICK, "--json"]
    said = json.loads(program(*arguments, "--probe", "0.9", "--seed", "7", "--profile-contrast").stdout)
    assert (said["probe"], said["seed"]) == (0.9, 7)
    assert said["contrast"][0][0] is not None
    assert program(*arguments, "--probe", "1").returncode == 2
    assert program(*arguments, "--target-tokens", "129").returncode == 2


def test_what_an_earlier_run_measured_is_taken_up(
    program: Program, model: Path, profile: Path, head_map: Path, tmp_path: Path
) -> None:
    arguments = ["score", "-m", model, "-p", profile, *QUICK]
    for file in (tmp_path / "cache" / "maps").iterdir():
        file.unlink()
    assert "taking up an earlier run: 2 of 2 texts are known" in program(*arguments).stderr
    assert "texts are known" not in program(*arguments, "--no-resume").stderr
    profile.write_text(json.dumps(PROFILE | {"name": PROFILE["name"], "about": "Now writes of engines."}))
    assert "the profile has changed since it was last scored: scoring starts afresh" in program(*arguments).stderr
    stored = [p for p in (tmp_path / "cache" / "scores").iterdir() if p.suffix == ".f64"]
    assert len(stored) == 2
    assert {p.stat().st_mode & 0o777 for p in stored} == {0o600}
    assert HeadMap.load(head_map).evaluations == 36


def test_bench_times_scoring(program: Program, model: Path) -> None:
    arguments = ["bench", "scoring", "-m", model, "-t", "1", "--repeats", "2", "--prompt-tokens", "20"]
    said = json.loads(program(*arguments, "--target-tokens", "4", "--json").stdout)
    assert said["ratio"] == pytest.approx(sum(said["ratios"]) / 2)
    for times, ratio, speedup in zip(said["repeats"], said["ratios"], said["brute_force_speedups"], strict=True):
        work = said["heads"] / (said["heads_at_a_time"] + 1)
        assert ratio == pytest.approx(work * times["prompt"] / times["batches"])
        assert speedup == pytest.approx(said["heads"] * times["brute"] / (times["read"] + times["batches"]))
    assert {"scored_tokens_per_s", "prompt_tokens_per_s", "brute_force_speedup", "peak_memory"} <= said.keys()
    assert "times faster than brute force" in program(*arguments).stdout


def test_bench_times_decoding(program: Program, model: Path, profile: Path, steering_map: Path) -> None:
    arguments = [
        "bench",
        "decode",
        "-m",
        model,
        "-p",
        profile,
        "--map",
        steering_map,
        "-t",
        "1",
        "-c",
        "512",
        "-n",
        "9",
    ]
    said = json.loads(program(*arguments, "--prompts", "2", "--temp", "0.8", "--json").stdout)
    keys = {"plain_ms", "eager_ratio", "steered_ratio", "same_tokens", "cold_ttft_ms", "amplify_ratio", "peak_memory"}
    assert keys <= said.keys()
    assert (said["same_tokens"], said["differ"]) == (1.0, [])
    assert said["prompts"] == 2
    assert said["steered_ratio"] == pytest.approx(sum(said["late_ratios"]) / 2)
    assert said["amplify_ratio"] == pytest.approx(sum(said["amplify_ratios"]) / 2) != 0
    assert 0 < said["muted_calls_share"] <= said["muted_tokens_share"]
    table = program(*arguments, "--prompts", "1").stdout
    assert all(way in table for way in ("contrast, late", "amplified heads"))
    assert "--gamma 0.5 steers" in program.fails(*arguments, "--gamma", "0")


def test_bench_says_that_a_map_has_nothing_to_amplify_by(
    program: Program, model: Path, profile: Path, steering_map: Path
) -> None:
    found = HeadMap.load(steering_map)
    replace(found, weights=np.zeros_like(found.weights)).save(steering_map)
    arguments = ["bench", "decode", "-m", model, "-p", profile, "--map", steering_map, "-t", "1", "-c", "512"]
    result = program(*arguments, "-n", "9", "--prompts", "1", "--json")
    assert json.loads(result.stdout)["amplify_ratio"] is None
    assert "has no weights to amplify heads by: amplification is not timed" in result.stderr
    assert "amplified heads" not in program(*arguments, "-n", "9", "--prompts", "1").stdout


def test_progress_is_readable_in_a_log(program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK)
    assert re.search(r"^scoring heads: 100 %, 0 s left$", result.stderr, re.MULTILINE)
    assert result.stderr.count("scoring heads: reading the profile\n") == 1
    again = program("score", "-m", model, "-p", profile, *QUICK)
    assert "scoring heads" not in again.stderr


# --- bad input: one line, exit 1, nothing half-written


def test_bad_profiles_are_one_line(program: Program, model: Path, tmp_path: Path) -> None:
    cases = {
        '{"history": [}': "line 1: not valid JSON",
        '{"history": [\n{"output": 3}]}': "line 2: history[0].output must be a string",
        '{"history": []}': "needs 'history' or 'preferences'",
        '{"style": "x", "history": [{"output": "y"}]}': "style is not a known key",
    }
    for text, expected in cases.items():
        path = tmp_path / "bad.json"
        path.write_text(text)
        assert expected in program.fails("score", "-m", model, "-p", path)
    assert "no profile 'nobody'" in program.fails("chat", "-m", model, "-p", "nobody")
    (tmp_path / "wishes.json").write_text('{"preferences": ["short"]}')
    assert "has no history" in program.fails("score", "-m", model, "-p", tmp_path / "wishes.json")


def test_bad_models_are_one_line(program: Program, model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    (tmp_path / "text.gguf").write_text("no model at all")
    assert "cut off" in program.fails("generate", "-m", cut, "hi")
    assert "is not a GGUF file" in program.fails("generate", "-m", tmp_path / "text.gguf", "hi")
    assert "is a folder" in program.fails("generate", "-m", tmp_path, "hi")
    assert "dps-local models list" in program.fails("generate", "-m", "nonesuch", "hi")


def test_a_model_that_is_not_here_is_not_downloaded_unasked(program: Program) -> None:
    message = program.fails("generate", "-m", "smollm2-135m", "hi")
    assert "run `dps-local models pull smollm2-135m`" in message
    assert "offline" in program.fails("models", "pull", "smollm2-135m", "--offline")


def test_usage_errors_exit_with_2(program: Program, model: Path) -> None:
    for arguments in (
        ["generate", "--gamma", "much", "hi"],
        ["generate", "--beta", "2", "hi"],
        ["generate", "-m", str(model), "--compare", "--json", "hi"],
        ["inspect"],
        ["score"],
        ["nonesuch"],
    ):
        result = program(*arguments)
        assert result.returncode == 2, arguments
        assert "Traceback" not in result.stderr


def test_no_space_left_is_one_line_and_leaves_nothing(
    program: Program, model: Path, profile: Path, tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "sh", *PROGRAM]
    output = tmp_path / "out" / "map.dps.gguf"
    output.parent.mkdir()
    result = subprocess.run(
        [*limited, "score", "-m", model, "-p", profile, *QUICK, "-o", output],
        capture_output=True,
        text=True,
        env=program.environment,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: cannot write")
    assert list(output.parent.iterdir()) == []


def test_a_question_that_does_not_fit_is_one_line(program: Program, model: Path) -> None:
    message = program.fails("generate", "-m", model, "-c", "256", "-n", "4", "word " * 400)
    assert "context of 256 tokens" in message


def test_a_profile_that_leaves_no_room_is_not_called_a_question(program: Program, model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "long.json"
    profile.write_text(json.dumps({"about": "word " * 400, "preferences": ["short"]}))
    message = program.fails("generate", "-m", model, "-p", profile, "--profile-tokens", "9", "-c", "256", "hi")
    assert message.endswith(
        "the profile leaves the question too little of the context of 256 tokens: --ctx-size makes it larger, or make "
        "its about shorter"
    )


# --- other commands


def test_doctor_names_the_patched_library(program: Program) -> None:
    said = json.loads(program("doctor", "--json").stdout)
    assert Path(said["libllama"]).exists()
    assert said["patch"] == PATCH_VERSION
    assert said["llama_cpp_python"] == "0.3.36"
    assert said["backends"][0]["name"] == "CPU"
    assert "libllama" in program("doctor").stdout


def test_the_models_can_be_listed(program: Program) -> None:
    said = json.loads(program("models", "list", "--json").stdout)["models"]
    assert {"smollm2-135m", "gemma3-270m"} <= {entry["name"] for entry in said}
    assert [entry["name"] for entry in said if entry["default"]] == ["smollm2-135m"]
    assert "smollm2-135m" in program("models", "list").stdout


def test_the_shipped_profiles_can_be_named() -> None:
    assert examples() == ["idris", "mara", "odile"]


# --- the whole conversation, on a pseudo-terminal


def test_a_whole_conversation(
    terminal: Callable[..., Terminal], model: Path, profile: Path, steering_map: Path, tmp_path: Path
) -> None:
    arguments = ["--map", str(steering_map), *QUICK, "-n", "8", "--temp", "0"]
    chat = terminal("chat", "-m", model, "-p", profile, *arguments)
    assert "steering with" in chat.wait_for(">>> ")
    chat.type("/help")
    listed = chat.wait_for(">>> ")
    for command in ("/help", "/gamma", "/clear", "/regen", "/save", "/exit"):
        assert command in listed
    chat.type("hello there")
    first = chat.wait_for(">>> ").removeprefix("hello there\n")
    chat.type("/regen")
    assert chat.wait_for(">>> ").removeprefix("/regen\n") == first
    chat.type("/gamma")
    assert "γ = 0.5" in chat.wait_for(">>> ")
    chat.type("/gamma 0")
    assert "γ = 0" in chat.wait_for(">>> ")
    chat.type("/gamma lots")
    assert "error: γ is 'lots'" in chat.wait_for(">>> ")
    chat.type("/nonsense")
    assert "there is no command /nonsense" in chat.wait_for(">>> ")
    chat.type("and again")
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    assert "saved to" in chat.wait_for(">>> ")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["messages"][0]["content"] == "hello there"
    assert (tmp_path / "talk.json").stat().st_mode & 0o777 == 0o600
    chat.type("/undo")
    assert "taken back: and again" in chat.wait_for(">>> ")
    chat.type("/clear")
    chat.wait_for(">>> ")
    chat.type("/regen")
    assert "there is no answer yet" in chat.wait_for(">>> ")
    chat.type("/exit")
    assert chat.exit_code() == 0


def test_ctrl_c_stops_an_answer_and_keeps_the_turn_and_a_second_one_leaves(
    terminal: Callable[..., Terminal], model: Path, tmp_path: Path
) -> None:
    chat = terminal("chat", "-m", model, "-n", "-1", "--temp", "1.5", "--top-k", "0", "--seed", "1", "-c", "8192")
    chat.wait_for(">>> ")
    chat.type("never stop")
    chat.wait_for("never stop\n")
    while not chat.screen:
        chat._read()
    chat.interrupt()
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    chat.wait_for(">>> ")
    question, answer = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert question["content"] == "never stop"
    assert answer["content"]
    time.sleep(1)  # readline shows its prompt a moment before it listens to signals
    chat.interrupt()
    assert "Ctrl-C again leaves" in chat.wait_for(">>> ")
    chat.type("/gamma")
    chat.wait_for(">>> ")
    time.sleep(1)
    chat.interrupt()
    assert "Ctrl-C again leaves" in chat.wait_for(">>> ")  # something else came between
    time.sleep(1)
    chat.interrupt()
    assert chat.exit_code() == 0


def test_a_pasted_block_is_one_question(terminal: Callable[..., Terminal], model: Path, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    chat = terminal("chat", "-m", model, "-c", "512", "-n", "3", "--temp", "0")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"\x1b[200~one line\nand another\n\x1b[201~\n")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"Gr\xfc\xdfe\n")  # not UTF-8: no reason to end
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    chat.wait_for("saved to")
    chat.wait_for(">>> ")
    asked = [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"] if m["role"] == "user"]
    assert asked[0].split("\n") == ["one line", "and another"]
    assert len(asked) == 2


def test_ctrl_c_while_scoring_leaves_no_map(
    terminal: Callable[..., Terminal], tiny_model: TinyModel, tmp_path: Path
) -> None:
    arguments = ["--examples", "26", "--target-tokens", "60", "--profile-tokens", "100", "-c", "512"]
    score = terminal("score", "-m", tiny_model("llama"), "-p", "mara", *arguments)
    score.wait_for("scoring heads")
    score.interrupt()
    assert score.exit_code() == 130
    assert "Ctrl-C: stopping as soon as this step is done" in score.screen
    assert "Traceback" not in score.screen
    assert not list((tmp_path / "cache").glob("maps/*"))


def test_scoring_that_ctrl_c_stopped_is_taken_up(
    terminal: Callable[..., Terminal], program: Program, tiny_model: TinyModel, tmp_path: Path
) -> None:
    arguments = ["--examples", "8", "--target-tokens", "24", "--profile-tokens", "100", "-c", "512"]
    command = ["score", "-m", tiny_model("llama"), "-p", "mara", *arguments]
    score = terminal(*command)
    stored = tmp_path / "cache" / "scores"
    end = time.monotonic() + 60
    while not list(stored.glob("*.f64")):
        score._read()
        assert time.monotonic() < end, score.screen
    score.interrupt()
    assert score.exit_code() == 130
    before = len(list(stored.glob("*.f64")))
    again = program(*command, "--json")
    known, texts = re.findall(r"taking up an earlier run: (\d+) of (\d+) texts are known", again.stderr)[0]
    assert 0 < int(known) == before <= int(texts)
    afresh = program(*command, "--json", "--no-resume")
    assert "taking up" not in afresh.stderr
    assert json.loads(afresh.stdout) == json.loads(again.stdout)


def test_ctrl_d_leaves(terminal: Callable[..., Terminal], model: Path) -> None:
    chat = terminal("chat", "-m", model, "-c", "512")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"\x04")
    assert chat.exit_code() == 0
