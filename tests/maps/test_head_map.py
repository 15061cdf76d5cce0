from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from damaged import cut_anywhere, with_one_byte_changed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.engine.model import Model
from dps_local.errors import DpsError, HeadMapError, ModelError, Remedy
from dps_local.maps.baking import bake
from dps_local.maps.calibration import Calibration, Candidate, Mode
from dps_local.maps.head_map import SCORES, HeadMap
from dps_local.maps.map_file import FORMAT
from dps_local.maps.reliability import SplitHalfReliability
from dps_local.maps.scored_heads import Scores
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import score

NAN, INF = math.nan, math.inf


def grid(*rows: Sequence[float]) -> Scores:
    return np.array(rows, np.float32)


PCS = grid([0.5, -0.25, 0.125], [NAN, NAN, NAN], [0.0, 0.75, NAN])
NOTHING = np.full((3, 3), NAN, np.float32)
MAP = HeadMap(
    model="Tiny",
    architecture="llama",
    fingerprint="0123456789abcdef" * 4,
    scope="generated",
    ranking="gain",
    ablation_scale=0.0,
    seed=7,
    examples=12,
    tokens=384,
    evaluations=48,
    nll=2.25,
    pcs=PCS,
    pcs_stderr=grid([0.5, 0.25, 0.0], [NAN, NAN, NAN], [1.0, 0.5, NAN]),
    gain=grid([0.25, -0.125, 0.0625], [NAN, NAN, NAN], [0.0, 0.375, NAN]),
    gain_stderr=PCS**2,
    variance=PCS + 1,
    contrast=NOTHING,
    contrast_stderr=NOTHING,
    pairwise=grid([0.125, NAN, NAN], [NAN, NAN, NAN], [0.5, 0.25, NAN]),
    pairwise_stderr=PCS * 0 + 2,
    counts=grid([12, 3, 1], [NAN, NAN, NAN], [12, 12, NAN]),
    weights=grid([1, -0.5, 0], [NAN, NAN, NAN], [0, 0.25, NAN]),
    null_control=0.0,
    selected=((2, 1), (0, 0)),
    mode="contrast",
    gamma=0.5,
    reliability=SplitHalfReliability(0.75, 0.5, 3),
    calibration=Calibration(0.05, 0.01, 0.09, 12, Candidate("contrast", 2, 0.5), 1.1, 1.2),
)
STAYS_OFF = Calibration(0.01, -0.02, 0.04, 12, Candidate("amplify", None, 0.1), 1.0, 1.35, 40)


def assert_same(one: HeadMap, other: HeadMap) -> None:
    for field in fields(HeadMap):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape) == (np.float32, a.shape), field.name
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name


def metadata(path: Path) -> dict[str, Any]:
    """What gguf's own reader finds: every key, with its types and value."""
    reader = gguf.GGUFReader(path)
    return {key: (field.types, field.contents()) for key, field in reader.fields.items()}


def tensors(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}


def write_gguf(path: Path, values: dict[str, Any], architecture: str = "llama") -> Path:
    """Write a GGUF without tensors by gguf's own writer."""
    writer = gguf.GGUFWriter(path, architecture)
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


BY_HAND: dict[str, Any] = {
    "dps.format": 4,
    "dps.kind": "user",
    "dps.model": "Tiny",
    "dps.fingerprint": "0123456789abcdef" * 4,
    "dps.scope": "generated",
    "dps.ranking": "pcs",
    "dps.ablation_scale": 0.0,
    "dps.seed": 3,
    "dps.examples": 12,
    "dps.tokens": 384,
    "dps.evaluations": 24,
    "dps.nll": 2.25,
    "dps.n_layer": 1,
    "dps.n_head": 2,
    "dps.pcs": [0.5, -0.25],
    "dps.pcs_stderr": [0.5, 0.25],
    "dps.gain": [0.25, -0.5],
    "dps.gain_stderr": [0.5, 0.5],
    "dps.variance": [1.0, 2.0],
    "dps.contrast": [NAN, NAN],
    "dps.contrast_stderr": [NAN, NAN],
    "dps.pairwise": [0.125, 0.25],
    "dps.pairwise_stderr": [1.0, NAN],
    "dps.counts": [12.0, 1.0],
    "dps.weights": [1.0, 0.0],
    "dps.null_control": 0.0,
    "dps.selected": [0, 0],
    "dps.mode": "contrast",
    "dps.gamma": 0.5,
    "dps.reliability.spearman": 0.75,
    "dps.reliability.jaccard": 0.5,
    "dps.reliability.heads": 2,
    "dps.calibration.gain": 0.25,
    "dps.calibration.low": 0.125,
    "dps.calibration.high": 0.375,
    "dps.calibration.n": 12,
    "dps.calibration.mode": "contrast",
    "dps.calibration.heads": 1,
    "dps.calibration.gamma": 0.5,
    "dps.calibration.temperature": 1.5,
    "dps.calibration.plain_temperature": 1.0,
    "dps.calibration.more_messages": 9,
}
OPTIONAL = (
    "dps.selected",
    "dps.reliability.heads",
    "dps.calibration.n",
    "dps.calibration.heads",
    "dps.calibration.more_messages",
)


# save and load


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    MAP.save(tmp_path / "a.dps.gguf")
    assert_same(HeadMap.load(tmp_path / "a.dps.gguf"), MAP)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)


counts = st.integers(0, 2**32 - 1)
modes: st.SearchStrategy[Mode] = st.sampled_from(["contrast", "amplify"])
stabilities = st.builds(SplitHalfReliability, numbers, numbers, counts)
candidates = st.builds(Candidate, modes, st.none() | counts, numbers)
calibrations = st.builds(
    Calibration, numbers, numbers, numbers, counts, candidates, numbers, numbers, st.none() | counts
)
digests = st.from_regex("[0-9a-f]{64}", fullmatch=True)


@st.composite
def head_maps(draw: st.DrawFn) -> HeadMap:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    scores = hnp.arrays(np.float32, shape, elements=st.floats(width=32))
    drawn: dict[str, Any] = {name: draw(scores) for name in SCORES}
    head = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1))
    return HeadMap(
        model=draw(names),
        architecture=draw(names),
        fingerprint=draw(digests),
        scope=draw(st.sampled_from(["generated", "all"])),
        ranking=draw(st.sampled_from(["pcs", "gain", "contrast"])),
        ablation_scale=draw(numbers),
        seed=draw(st.integers(0, 2**63 - 1)),
        examples=draw(counts),
        tokens=draw(counts),
        evaluations=draw(counts),
        nll=draw(numbers),
        **drawn,
        null_control=draw(numbers),
        selected=tuple(draw(st.lists(head, unique=True))),
        mode=draw(modes),
        gamma=draw(numbers),
        reliability=draw(st.none() | stabilities),
        calibration=draw(st.none() | calibrations),
        metadata=draw(st.none() | digests),
        template=draw(st.none() | digests),
    )


@settings(deadline=None, max_examples=60)
@given(head_maps())
def test_any_map_survives_saving_and_is_saved_the_same_each_time(
    tmp_path_factory: pytest.TempPathFactory, head_map: HeadMap
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    head_map.save(folder / "one.dps.gguf")
    head_map.save(folder / "two.dps.gguf")
    loaded = HeadMap.load(folder / "one.dps.gguf")
    assert_same(loaded, head_map)
    loaded.save(folder / "three.dps.gguf")
    one, two, three = ((folder / f"{n}.dps.gguf").read_bytes() for n in ("one", "two", "three"))
    assert one == two == three


def test_numbers_keep_their_double_precision(tmp_path: Path) -> None:
    exact = replace(MAP, gamma=0.3, nll=2.1, null_control=1e-17)
    exact.save(tmp_path / "a.dps.gguf")
    loaded = HeadMap.load(tmp_path / "a.dps.gguf")
    assert (loaded.gamma, loaded.nll, loaded.null_control) == (0.3, 2.1, 1e-17)


@pytest.mark.parametrize(
    "changes",
    [
        {"reliability": None},
        {"calibration": None},
        {"reliability": None, "calibration": None, "gamma": 0.0},
        {"calibration": STAYS_OFF},
        {"calibration": replace(STAYS_OFF, best=Candidate("contrast", 0, 0.0), more_messages=None)},
        {"mode": "amplify", "scope": "all", "ranking": "contrast", "contrast": PCS, "ablation_scale": 0.9},
    ],
    ids=str,
)
def test_a_map_may_lack_what_could_not_be_measured(tmp_path: Path, changes: dict[str, Any]) -> None:
    changed = replace(MAP, **changes)
    changed.save(tmp_path / "a.dps.gguf")
    assert_same(HeadMap.load(tmp_path / "a.dps.gguf"), changed)


def test_a_map_without_chosen_heads_is_a_map(tmp_path: Path) -> None:
    replace(MAP, selected=()).save(tmp_path / "a.dps.gguf")
    assert HeadMap.load(tmp_path / "a.dps.gguf").selected == ()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_only_the_owner_can_read_a_map(tmp_path: Path) -> None:
    path = tmp_path / "a.dps.gguf"
    path.write_bytes(b"older")
    path.chmod(0o644)
    MAP.save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_saving_replaces_an_older_map_and_leaves_nothing_else(tmp_path: Path) -> None:
    MAP.save(tmp_path / "a.dps.gguf")
    replace(MAP, gamma=2.0).save(tmp_path / "a.dps.gguf")
    assert HeadMap.load(tmp_path / "a.dps.gguf").gamma == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.dps.gguf"]


def test_a_map_written_by_another_program_is_read(tmp_path: Path) -> None:
    loaded = HeadMap.load(write_gguf(tmp_path / "a.dps.gguf", BY_HAND))
    assert (loaded.model, loaded.architecture, loaded.scope) == ("Tiny", "llama", "generated")
    assert (loaded.examples, loaded.tokens, loaded.nll, loaded.gamma) == (12, 384, 2.25, 0.5)
    assert loaded.pcs.tolist() == [[0.5, -0.25]]
    assert loaded.pcs_stderr.tolist() == [[0.5, 0.25]]
    assert loaded.selected == ((0, 0),)
    assert (loaded.ranking, loaded.ablation_scale, loaded.seed, loaded.evaluations, loaded.mode) == (
        "pcs",
        0,
        3,
        24,
        "contrast",
    )
    assert (loaded.gain.tolist(), loaded.counts.tolist(), loaded.weights.tolist()) == (
        [[0.25, -0.5]],
        [[12, 1]],
        [[1, 0]],
    )
    assert np.isnan(loaded.contrast).all()
    assert loaded.reliability == SplitHalfReliability(0.75, 0.5, 2)
    assert loaded.calibration == Calibration(0.25, 0.125, 0.375, 12, Candidate("contrast", 1, 0.5), 1.5, 1.0, 9)


def test_gguf_reads_the_adapter_keys_of_the_contract(tmp_path: Path) -> None:
    MAP.save(tmp_path / "a.dps.gguf")
    values = {key: value for key, (_, value) in metadata(tmp_path / "a.dps.gguf").items()}
    assert values["general.type"] == "adapter"
    assert values["general.architecture"] == "llama"
    assert values["adapter.type"] == "dps"
    others = [k for k in values if not k.startswith("GGUF.")]
    others = [k for k in others if k not in ("general.type", "general.architecture", "adapter.type")]
    assert "dps.pcs" in others
    assert all(re.fullmatch(r"dps(\.[a-z0-9]+(_[a-z0-9]+)*)+", key) for key in others)
    assert values["dps.fingerprint"] == "0123456789abcdef" * 4
    assert values["dps.selected"] == [2, 1, 0, 0]
    assert np.array(values["dps.pcs"], np.float32).tobytes() == MAP.pcs.tobytes()
    assert gguf.GGUFReader(tmp_path / "a.dps.gguf").tensors == []


def test_no_text_of_the_user_is_in_a_map(tiny_model: TinyModel, tmp_path: Path) -> None:
    texts = ["Quokka", "wombat lover", "Zyzzyva please", "Brachiosaurus", "A xylophone!", "A kazoo, I said"]
    profile = Profile(texts[0], texts[1], (texts[2],), (HistoryItem(texts[4], texts[3], texts[5]),) * 2)
    model = Model(tiny_model())
    prompter = Prompter(model, ChatTemplate(model), profile, 256)
    score(model, prompter, ScoringOptions(target_tokens=8, n_threads=1)).save(tmp_path / "a.dps.gguf")
    data = (tmp_path / "a.dps.gguf").read_bytes().lower()
    for word in re.findall(r"\w{4,}", " ".join(texts).lower()):
        assert word.encode() not in data


# what is refused


def refused(path: Path) -> str:
    with pytest.raises(HeadMapError) as info:
        HeadMap.load(path)
    assert str(info.value).isprintable()
    return str(info.value)


def test_a_folder_is_no_map(tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder" in refused(tmp_path)


def test_a_missing_file_is_no_map(tmp_path: Path) -> None:
    assert "none.dps.gguf does not exist" in refused(tmp_path / "none.dps.gguf")


@pytest.mark.parametrize(
    "data", [b"", b"G", b"GGUF", b"not a map at all " * 99, b"\x00" * 4096, b"GGUF" + b"\xff" * 99]
)
def test_garbage_is_no_map(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.dps.gguf"
    path.write_bytes(data)
    assert "is not a GGUF file, or it is damaged" in refused(path)


def test_a_map_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    for path in cut_anywhere(write_gguf(tmp_path / "a.dps.gguf", BY_HAND)):
        refused(path)


def test_a_map_with_any_one_byte_changed_is_a_map_or_an_error(tmp_path: Path) -> None:
    for path in with_one_byte_changed(write_gguf(tmp_path / "a.dps.gguf", BY_HAND)):
        try:
            HeadMap.load(path)
        except HeadMapError:
            continue


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_is_refused(tmp_path: Path, version: int) -> None:
    path = write_gguf(tmp_path / "a.dps.gguf", BY_HAND | {"dps.format": version})
    assert refused(path) == f"{path} has head map format {version}, expected {FORMAT}: score again"


def test_a_model_without_a_map_is_refused(tiny_model: TinyModel) -> None:
    path = tiny_model()
    assert refused(path) == f"{path} holds no head map"
    with pytest.raises(HeadMapError) as info:
        HeadMap.load(path)
    assert info.value.remedy is Remedy.SCORE


@pytest.mark.parametrize("key", [key for key in BY_HAND if key not in ("dps.format", *OPTIONAL)])
def test_a_map_that_lacks_a_key_is_refused(tmp_path: Path, key: str) -> None:
    path = write_gguf(tmp_path / "a.dps.gguf", {k: v for k, v in BY_HAND.items() if k != key})
    assert f"{path} is a damaged head map" in refused(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dps.scope": "some"},
        {"dps.format": [1, 1]},
        {"dps.n_layer": 2},
        {"dps.n_head": 0},
        {"dps.n_head": "two"},
        {"dps.pcs": [0.5]},
        {"dps.pcs": ["a", "b"]},
        {"dps.pcs": 0.5},
        {"dps.pcs_stderr": [0.5, 0.25, 0.125]},
        {"dps.selected": [0]},
        {"dps.selected": [0, 2]},
        {"dps.selected": [1, 0]},
        {"dps.selected": [0, -1]},
        {"dps.selected": "all"},
        {"dps.gamma": "high"},
        {"dps.gamma": [0.5, 0.5]},
        {"dps.gamma": NAN},
        {"dps.gamma": INF},
        {"dps.examples": "many"},
        {"dps.kind": "clusters"},
        {"dps.kind": "others"},
        {"dps.ranking": "variance"},
        {"dps.mode": "mute"},
        {"dps.ablation_scale": NAN},
        {"dps.gain": [0.25]},
        {"dps.weights": "heavy"},
        {"dps.counts": [1.0, 2.0, 3.0]},
        {"dps.reliability.spearman": NAN},
        {"dps.reliability.heads": "few"},
        {"dps.calibration.low": -INF},
        {"dps.calibration.mode": "both"},
        {"dps.calibration.heads": "all"},
        {"dps.calibration.more_messages": "some"},
    ],
    ids=str,
)
def test_a_map_with_a_wrong_value_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write_gguf(tmp_path / "a.dps.gguf", BY_HAND | wrong)
    refused(path)


def test_check_passes_for_the_model_that_was_scored() -> None:
    assert MAP.check("any other name", Identity("0123456789abcdef" * 4, "1" * 64, "2" * 64)) == ""


def test_check_refuses_another_model_and_names_both() -> None:
    with pytest.raises(
        HeadMapError,
        match=r"^this head map belongs to 'Tiny' \(fingerprint 0123456789ab\), not to 'Other' \(ffffffffffff\)$",
    ) as info:
        MAP.check("Other", Identity("f" * 64))
    assert info.value.remedy is Remedy.OTHER_MODEL_OR_SCORE


# a save that fails


def full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_map_is_written_beside_its_place_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("dps_local.system.files.os.fsync", lambda _: seen.append([p.name for p in tmp_path.iterdir()]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    path = tmp_path / "a.dps.gguf"
    MAP.save(path)
    assert len(seen) == len(seen[0]) == 1
    assert HeadMap.load(path).selected == MAP.selected


def test_saving_into_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.dps.gguf"
    with pytest.raises(DpsError, match=f"^cannot write {re.escape(str(path))}: No such file or directory$"):
        MAP.save(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("older", [None, b"older map"])
def test_saving_to_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bytes | None
) -> None:
    path = tmp_path / "a.dps.gguf"
    if older:
        path.write_bytes(older)
    monkeypatch.setattr("dps_local.system.files.os.fsync", full_disk)
    with pytest.raises(DpsError, match=f"^cannot write {re.escape(str(path))}: No space left on device$"):
        MAP.save(path)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == ({path: older} if older else {})


# JSON


def test_json_has_null_where_a_layer_has_no_such_head() -> None:
    as_json = MAP.as_json()
    assert as_json["pcs"] == [[0.5, -0.25, 0.125], [None, None, None], [0.0, 0.75, None]]
    assert as_json["pcs_stderr"] == [[0.5, 0.25, 0.0], [None, None, None], [1.0, 0.5, None]]
    assert as_json["selected"] == [[2, 1], [0, 0]]
    assert (as_json["n_layer"], as_json["n_head"], as_json["scope"], as_json["gamma"]) == (3, 3, "generated", 0.5)
    assert (as_json["model"], as_json["fingerprint"], as_json["examples"]) == ("Tiny", "0123456789abcdef" * 4, 12)


def test_json_has_the_keys_of_the_contract() -> None:
    as_json = MAP.as_json()
    contract = "model fingerprint n_layer n_head scope examples pcs pcs_stderr gain selected gamma mode calibration"
    assert set(contract.split()) <= as_json.keys()
    assert {"gain", "low", "high", "n"} <= as_json["calibration"].keys()
    assert [as_json["calibration"][key] for key in ("gain", "low", "high", "n")] == [0.05, 0.01, 0.09, 12]
    assert as_json["calibration"]["best"] == {"mode": "contrast", "heads": 2, "gamma": 0.5}
    assert as_json["reliability"] == {"spearman": 0.75, "jaccard": 0.5, "heads": 3}
    assert as_json["gain"] == [[0.25, -0.125, 0.0625], [None, None, None], [0.0, 0.375, None]]
    assert as_json["contrast"] == [[None] * 3] * 3
    assert (as_json["ranking"], as_json["mode"], as_json["seed"], as_json["evaluations"]) == ("gain", "contrast", 7, 48)


def test_json_says_what_was_not_measured() -> None:
    as_json = replace(MAP, reliability=None, calibration=None).as_json()
    assert (as_json["reliability"], as_json["calibration"]) == (None, None)
    assert replace(MAP, calibration=STAYS_OFF).as_json()["calibration"]["best"]["heads"] is None


@settings(deadline=None, max_examples=60)
@given(head_maps())
def test_any_map_is_json_without_nan_and_infinity(head_map: HeadMap) -> None:
    printed = json.loads(json.dumps(head_map.as_json(), allow_nan=False))
    for name in SCORES:
        scores = getattr(head_map, name)
        expected = np.where(np.isfinite(scores), scores, NAN)
        np.testing.assert_array_equal(np.array(printed[name], np.float32), expected)


# bake


def fingerprint(path: Path) -> str:
    with GGUFFile(path) as file:
        return file.fingerprint()


MapFor = Callable[..., Path]


@pytest.fixture
def map_for(tmp_path: Path) -> MapFor:
    """Returns the path of a head map that was made for the model at `path`."""

    def make(path: Path, name: str = "map.dps.gguf", **changes: Any) -> Path:
        replace(MAP, **({"fingerprint": fingerprint(path)} | changes)).save(tmp_path / name)
        return tmp_path / name

    return make


def test_a_baked_model_has_the_same_tensors_and_the_keys_of_both(
    tiny_model: TinyModel, tmp_path: Path, map_for: MapFor
) -> None:
    model, output = tiny_model(), tmp_path / "baked.gguf"
    before = model.read_bytes()
    head_map = map_for(model)
    bake(model, head_map, output)
    assert model.read_bytes() == before
    assert tensors(output) == tensors(model)
    of_map = {key: value for key, value in metadata(head_map).items() if key.startswith("dps.")}
    assert len(of_map) == 41
    counts = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")
    expected = metadata(model) | of_map
    keys = metadata(output)
    assert repr({k: v for k, v in keys.items() if k not in counts}) == repr(
        {k: v for k, v in expected.items() if k not in counts}
    )  # repr: NaN is not equal to itself
    assert sorted(p.name for p in tmp_path.iterdir()) == ["baked.gguf", "map.dps.gguf"]


def test_a_baked_model_gives_the_same_logits_bit_for_bit_and_holds_the_map(
    tiny_model: TinyModel, tmp_path: Path, map_for: MapFor
) -> None:
    path, output = tiny_model("gemma3", quantized="Q8_0"), tmp_path / "baked.gguf"
    bake(path, map_for(path, architecture="gemma3"), output)
    logits = []
    for model in (Model(path), Model(output)):
        context = Context(model, 64, n_threads=1)
        logits.append(context.decode([Run(0, 0, list(b"one and the same"), 1)]).tobytes())
        context.close()
    assert logits[0] == logits[1]
    assert fingerprint(output) == fingerprint(path)
    assert_same(HeadMap.load(output), replace(MAP, architecture="gemma3", fingerprint=fingerprint(path)))


def test_baking_again_replaces_the_older_map(tiny_model: TinyModel, tmp_path: Path, map_for: MapFor) -> None:
    path, once, twice = tiny_model(), tmp_path / "once.gguf", tmp_path / "twice.gguf"
    bake(path, map_for(path), once)
    bake(once, map_for(path, "other.dps.gguf", selected=(), gamma=3.0, scope="all"), twice)
    assert_same(HeadMap.load(twice), replace(MAP, fingerprint=fingerprint(path), selected=(), gamma=3.0, scope="all"))
    assert "dps.selected" not in metadata(twice)
    assert tensors(twice) == tensors(path)


def test_a_map_can_be_taken_from_a_baked_model(tiny_model: TinyModel, tmp_path: Path, map_for: MapFor) -> None:
    path, once, again = tiny_model(), tmp_path / "once.gguf", tmp_path / "again.gguf"
    bake(path, map_for(path), once)
    bake(path, once, again)
    assert again.read_bytes() == once.read_bytes()


def test_the_map_of_another_model_is_not_baked(tiny_model: TinyModel, tmp_path: Path, map_for: MapFor) -> None:
    head_map = map_for(tiny_model())
    with pytest.raises(HeadMapError, match=r"belongs to 'Tiny' .* not to 'Another'"):
        bake(tiny_model(seed=1, name="Another"), head_map, tmp_path / "baked.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["map.dps.gguf"]


def test_a_model_is_not_baked_over_itself(tiny_model: TinyModel, tmp_path: Path, map_for: MapFor) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(tiny_model(), path)
    (tmp_path / "link.gguf").symlink_to(path)
    before, head_map = path.read_bytes(), map_for(path)
    for output in (path, tmp_path / "." / "model.gguf", tmp_path / "link.gguf"):
        with pytest.raises(HeadMapError, match=r"is the model itself: choose another output file$"):
            bake(path, head_map, output)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_no_half_baked_model(
    tiny_model: TinyModel, tmp_path: Path, map_for: MapFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = tiny_model(), tmp_path / "baked.gguf"
    head_map = map_for(path)

    def full(_: Any, target: Any, *__: Any) -> None:
        target.write(b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DpsError, match=f"^cannot write {re.escape(str(output))}: No space left on device$"):
        bake(path, head_map, output)
    assert [p.name for p in tmp_path.iterdir()] == ["map.dps.gguf"]
    output.write_bytes(b"older model")
    with pytest.raises(DpsError, match="No space left"):
        bake(path, head_map, output)
    assert output.read_bytes() == b"older model"


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.999])
def test_a_model_that_is_cut_off_is_not_baked(
    tiny_model: TinyModel, tmp_path: Path, map_for: MapFor, kept: float
) -> None:
    path = tmp_path / "model.gguf"
    data = tiny_model().read_bytes()
    head_map = map_for(tiny_model())
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelError, match=r"is cut off: tensor .* is incomplete; download it again$|damaged"):
        bake(path, head_map, tmp_path / "baked.gguf")
    assert not (tmp_path / "baked.gguf").exists()


def test_a_model_that_lacks_its_last_byte_is_not_baked(tiny_model: TinyModel, tmp_path: Path, map_for: MapFor) -> None:
    path = tmp_path / "model.gguf"
    head_map = map_for(tiny_model())
    path.write_bytes(tiny_model().read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"is cut off: tensor .* is incomplete; download it again$|damaged"):
        bake(path, head_map, tmp_path / "baked.gguf")


def test_a_large_model_is_not_read_into_memory(tmp_path: Path, map_for: MapFor) -> None:
    path, output = tmp_path / "large.gguf", tmp_path / "baked.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("large.weight", np.zeros(50_000_000, np.int8))
    writer.add_tensor("small.weight", np.arange(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    head_map = map_for(path)
    tracemalloc.start()
    bake(path, head_map, output)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000
    assert output.stat().st_size > 50_000_000
    assert tensors(output)["small.weight"] == tensors(path)["small.weight"]
