from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from damaged import cut_anywhere, with_one_byte_changed
from priors import POPULATION, PRIOR, assert_same
from tiny import TinyModel

from dps_local.engine.identity import Identity
from dps_local.errors import HeadMapError, Remedy
from dps_local.maps.baking import load_map
from dps_local.maps.head_map import HeadMap
from dps_local.maps.map_file import FORMAT, kind_of
from dps_local.maps.prior import Prior

NAN, INF = math.nan, math.inf

BY_HAND: dict[str, Any] = {
    "dps.format": FORMAT,
    "dps.kind": "prior",
    "dps.model": "Tiny",
    "dps.fingerprint": "0123456789abcdef" * 4,
    "dps.scope": "generated",
    "dps.writing": "mail",
    "dps.source": "Letters of nobody, 1926",
    "dps.licence": "CC0-1.0",
    "dps.people": 12,
    "dps.texts": 340,
    "dps.tokens": 9000,
    "dps.nll": 3.5,
    "dps.n_heads": [2, 0, 1],
    "dps.mu": [0.5, -0.25, 0.125],
    "dps.fisher.ridge": 0.0625,
    "dps.error.gammas": [0.25, 0.5],
    "dps.error.means": [-0.125, -0.25],
    "dps.error.deviations": [0.0625, 0.5],
    "dps.fisher.diagonal": [1.0, 0.0, 0.5],
    "dps.fisher.factor": [1.0, 2.0, 0.0, 0.0, 1.0, -1.0],
    "dps.dispersion": 1.5,
    "dps.spread": 0.03125,
    "dps.directions": [1.0, 0.0, 0.0, 0.0, 0.5, 0.25],
    "dps.lambdas": [0.25, 0.125],
}


def write_gguf(path: Path, values: dict[str, Any]) -> Path:
    """Write a GGUF without tensors by gguf's own writer."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def refused(path: Path) -> str:
    with pytest.raises(HeadMapError) as info:
        Prior.load(path)
    assert str(info.value).isprintable()
    return str(info.value)


# --- save and load


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    whole = replace(PRIOR, metadata="1" * 64, template="2" * 64)
    whole.save(tmp_path / "a.prior.gguf")
    assert kind_of(tmp_path / "a.prior.gguf") == "prior"
    loaded = Prior.load(tmp_path / "a.prior.gguf")
    assert_same(loaded, whole)
    assert (loaded.population.step == POPULATION.step).all()
    loaded.save(tmp_path / "b.prior.gguf")
    assert (tmp_path / "a.prior.gguf").read_bytes() == (tmp_path / "b.prior.gguf").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.prior.gguf", "b.prior.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_only_the_owner_can_read_a_prior(tmp_path: Path) -> None:
    PRIOR.save(tmp_path / "a.prior.gguf")
    assert (tmp_path / "a.prior.gguf").stat().st_mode & 0o777 == 0o600


def test_a_prior_written_by_another_program_is_read(tmp_path: Path) -> None:
    loaded = Prior.load(write_gguf(tmp_path / "a.prior.gguf", BY_HAND))
    assert_same(loaded, replace(PRIOR, population=replace(POPULATION, spread=0.03125)))


def test_stock_programs_are_told_that_it_is_an_adapter(tmp_path: Path) -> None:
    PRIOR.save(tmp_path / "a.prior.gguf")
    values = {key: f.contents() for key, f in gguf.GGUFReader(tmp_path / "a.prior.gguf").fields.items()}
    assert (values["general.type"], values["general.architecture"], values["adapter.type"]) == (
        "adapter",
        "llama",
        "dps",
    )
    others = {key for key in values if not key.startswith(("GGUF.", "general.", "adapter."))}
    assert others == {*BY_HAND, "dps.n_layer", "dps.n_head"}


# --- what it says


def test_a_step_lies_at_the_heads_of_its_model() -> None:
    step = PRIOR.step
    assert (PRIOR.n_layer, PRIOR.n_head, step.shape) == (3, 2, (3, 2))
    a, b, c = np.linalg.solve(POPULATION.fisher.ridged, [0.5, -0.25, 0.125])
    np.testing.assert_allclose(step, [[a, b], [NAN, NAN], [c, NAN]], rtol=1e-5)


def test_a_prior_is_json() -> None:
    printed = json.loads(json.dumps(PRIOR.as_json(), allow_nan=False))
    assert printed["step"][1] == [None, None]
    assert printed["length"] == pytest.approx(POPULATION.fisher.length(POPULATION.step))
    named = ("writing", "people", "texts", "tokens", "nll", "source", "licence", "n_layer", "n_head", "lambdas")
    assert [printed[name] for name in named] == [
        "mail",
        12,
        340,
        9000,
        3.5,
        "Letters of nobody, 1926",
        "CC0-1.0",
        3,
        2,
        [0.25, 0.125],
    ]


def test_people_differ_by_the_spread_and_along_the_directions() -> None:
    directions = POPULATION.directions
    expected = 0.03 * np.linalg.inv(POPULATION.fisher.ridged)
    expected += 0.25 * np.outer(directions[0], directions[0]) + 0.125 * np.outer(directions[1], directions[1])
    assert POPULATION.covariance == pytest.approx(expected)


# --- what is refused


def test_another_kind_of_file_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "a.prior.gguf"
    PRIOR.save(path)
    with pytest.raises(HeadMapError, match=r"is a prior, and a head map is needed here$"):
        load_map(path)
    model = tiny_model()
    assert refused(model) == f"{model} holds no prior"
    with pytest.raises(HeadMapError) as info:
        HeadMap.load(model)
    assert info.value.remedy is Remedy.SCORE
    write_gguf(path, BY_HAND | {"dps.kind": "user"})
    assert refused(path) == f"{path} is a head map, and a prior is needed here"
    write_gguf(path, BY_HAND | {"dps.format": 99})
    assert refused(path) == f"{path} has prior format 99, expected {FORMAT}: build it again"


def test_another_model_is_refused_and_both_are_named() -> None:
    assert PRIOR.check("any other name", Identity("0123456789abcdef" * 4)) == ""
    with pytest.raises(
        HeadMapError,
        match=r"^this prior belongs to 'Tiny' \(fingerprint 0123456789ab\), not to 'Other' \(ffffffffffff\)$",
    ) as info:
        PRIOR.check("Other", Identity("f" * 64))
    assert info.value.remedy is Remedy.OTHER_MODEL_OR_PRIOR
    with pytest.raises(HeadMapError, match="this prior was made for") as info:
        replace(PRIOR, metadata="1" * 64).check("Tiny", Identity("0123456789abcdef" * 4, "2" * 64))
    assert info.value.remedy is Remedy.OTHER_FILE_OR_PRIOR


@pytest.mark.parametrize("key", [key for key in BY_HAND if key != "dps.format"])
def test_a_prior_that_lacks_a_key_is_refused(tmp_path: Path, key: str) -> None:
    path = write_gguf(tmp_path / "a.prior.gguf", {k: v for k, v in BY_HAND.items() if k != key})
    assert f"{path} is a damaged prior" in refused(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dps.kind": "others"},
        {"dps.scope": "some"},
        {"dps.people": "many"},
        {"dps.nll": INF},
        {"dps.n_heads": [4, 0, 1]},
        {"dps.n_heads": [4, -1]},
        {"dps.n_heads": [4, -1, 0]},
        {"dps.n_heads": "three"},
        {"dps.mu": [0.5, 0.25]},
        {"dps.mu": [0.5, NAN, 0.25]},
        {"dps.mu": "a"},
        {"dps.fisher.ridge": 0.0},
        {"dps.error.gammas": [0.5, 0.25]},
        {"dps.error.gammas": [0.0, 0.25]},
        {"dps.error.means": [-0.125]},
        {"dps.error.deviations": [0.0625, NAN]},
        {"dps.fisher.diagonal": [1.0, 0.0]},
        {"dps.fisher.diagonal": [1.0, -0.5, 0.5]},
        {"dps.fisher.diagonal": [1.0, NAN, 0.5]},
        {"dps.fisher.factor": [1.0, 2.0]},
        {"dps.fisher.factor": [1.0, INF, 0.0]},
        {"dps.dispersion": 0.0},
        {"dps.dispersion": NAN},
        {"dps.spread": -0.5},
        {"dps.spread": INF},
        {"dps.directions": [1.0, 0.0, 0.0]},
        {"dps.directions": [1.0, 0.0, 0.0, 0.0, NAN, 0.25]},
        {"dps.lambdas": [0.25]},
        {"dps.lambdas": [0.25, -0.125]},
        {"dps.lambdas": [0.25, INF]},
        {"dps.source": 4},
    ],
    ids=str,
)
def test_a_prior_with_a_wrong_value_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write_gguf(tmp_path / "a.prior.gguf", BY_HAND | wrong)
    assert f"{path} is a damaged prior" in refused(path)


def test_a_prior_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    for path in cut_anywhere(write_gguf(tmp_path / "a.prior.gguf", BY_HAND)):
        refused(path)


def test_a_prior_with_any_one_byte_changed_is_a_prior_or_an_error(tmp_path: Path) -> None:
    for path in with_one_byte_changed(write_gguf(tmp_path / "a.prior.gguf", BY_HAND)):
        try:
            loaded = Prior.load(path)
        except HeadMapError:
            continue
        json.dumps(loaded.as_json(), allow_nan=False)
