"""`dps-local inspect`: head maps and their overlap."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import QUICK, Program
from tiny import TinyModel

from dps_local.maps.head_map import HeadMap


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
