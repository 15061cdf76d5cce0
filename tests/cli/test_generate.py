"""`dps-local generate`: one prompt, its probabilities, and what explains it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from program import QUICK, Program


def test_generate_gives_the_probabilities_of_each_token(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "-n", "6", "--temp", "0", "--json"]
    answer, eager = (json.loads(program(*arguments, *o, "say hello").stdout) for o in ([], ["--engine", "eager"]))
    assert {"text", "gamma", "tokens", "timings"} <= answer.keys()
    assert answer["gamma"] == 0.5
    assert answer["text"] == "".join(token["text"] for token in answer["tokens"])
    for token in eager["tokens"]:
        assert token.keys() == {"id", "text", "p_plain", "p_muted", "p_steered", "p_plausible"}
        assert 0 < token["p_plain"] <= 1
        assert 0 < token["p_muted"] <= 1
        assert 0 < token["p_steered"] <= 1
    without = {"p_muted": None}  # speculative decoding does not need all of the muted stream's logits
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


def test_amplification_cannot_follow_the_entropy(program: Program, model: Path, steering_map: Path) -> None:
    arguments = ["generate", "-m", model, "--map", steering_map, "-c", "512", "--mode", "amplify", "hi"]
    assert "γ must be a number" in program.fails(*arguments, "--gamma", "entropy")[-60:]


def test_bad_models_are_one_line(program: Program, model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    (tmp_path / "text.gguf").write_text("no model at all")
    assert "cut off" in program.fails("generate", "-m", cut, "hi")
    assert "is not a GGUF file" in program.fails("generate", "-m", tmp_path / "text.gguf", "hi")
    assert "is a folder" in program.fails("generate", "-m", tmp_path, "hi")
    assert "dps-local models list" in program.fails("generate", "-m", "nonesuch", "hi")


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
