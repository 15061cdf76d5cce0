"""Which model is this: what is kept of one model is never given to another, and never lost by a new name or order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from maps import hand_made_map
from tiny import CHATML, TinyModel, write_model

from dps_local.assistant import Assistant, Settings
from dps_local.engine.context import Context
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.engine.model import Model
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.stream import Stream
from dps_local.errors import HeadMapError, ModelError, Remedy
from dps_local.maps.baking import bake
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions

SHARD = 8  # tensors
PREFIX = [i % 250 for i in range(100)]
ADA = Profile("Ada", history=tuple(HistoryItem(f"I saw {i} boats, and waved.", f"What, {i}?") for i in range(4)))

Load = Callable[[Path], Model]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))


def identity(path: Path) -> Identity:
    with GGUFFile(path) as file:
        return file.identity()


def written(path: Path, **options: Any) -> Path:
    write_model(path, "llama", **options)
    return path


def split(folder: Path, **options: Any) -> list[Path]:
    """Write a model in parts, the first of which has no tensor, and return these."""
    folder.mkdir()
    written(folder / "tiny.gguf", shard=SHARD, **options)
    return sorted(folder.iterdir())


def edited(path: Path, target: Path, old: bytes, new: bytes) -> Path:
    """Write a copy with some bytes of the metadata, which must be there once, replaced by as many others."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    target.write_bytes(data.replace(old, new))
    return target


def reordered(path: Path, target: Path) -> Path:
    """Write a copy whose metadata stand in the opposite order, by gguf's own reader and writer."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reversed(reader.fields.values()):
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kinds = field.types
            writer.add_key_value(field.name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_a_model_in_parts_is_the_same_one_as_in_one_file(tmp_path: Path, load: Load) -> None:
    whole, parts = written(tmp_path / "whole.gguf"), split(tmp_path / "parts")
    assert len(parts) > 2
    assert gguf.GGUFReader(parts[0]).tensors == []
    assert identity(parts[0]) == identity(whole)
    assert load(parts[0]).identity == identity(whole)


def test_two_models_in_parts_are_two_models(tmp_path: Path) -> None:
    one, other = split(tmp_path / "one"), split(tmp_path / "other", seed=1)
    assert one[0].read_bytes() == other[0].read_bytes()
    assert identity(one[0]).fingerprint != identity(other[0]).fingerprint
    last = one[-1].read_bytes()
    one[-1].write_bytes(last[:-1] + bytes([last[-1] ^ 1]))
    assert identity(one[0]).fingerprint != identity(split(tmp_path / "again")[0]).fingerprint


@pytest.mark.parametrize("edit", ["second", "missing", "renamed", "cut"])
def test_parts_that_are_not_whole_are_refused_with_what_to_do(tmp_path: Path, edit: str) -> None:
    first, second, *_, last = split(tmp_path / "parts")
    path, message = first, ""
    if edit == "second":
        path, message = second, rf"is part 2 of a model of \d: give the first, {first}$"
    elif edit == "missing":
        last.unlink()
        message = rf"is part 1 of a model of \d, and {last.name} is not beside it: download it$"
    elif edit == "renamed":
        path = first.rename(first.with_name("model.gguf"))
        message = r"is part 1 of a model of \d: its name must end in -00001-of-0000\d.gguf$"
    else:
        last.write_bytes(last.read_bytes()[:-1000])
        message = r"is cut off: tensor .* is incomplete; download it again$"
    with pytest.raises(ModelError, match=message):
        Model(path)


PRE = (18).to_bytes(8, "little") + b"tokenizer.ggml.pre" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little")
ADD_BOS = b"tokenizer.ggml.add_bos_token" + (7).to_bytes(4, "little")
TINY_NAME = b"general.name" + (8).to_bytes(4, "little") + (4).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (PRE + b"gpt-2", PRE + b"qwen2", ["metadata"]),
        (ADD_BOS + b"\0", ADD_BOS + b"\1", ["metadata"]),
        (b"y ou", b"yo u", ["metadata"]),  # a merge
        (b"<|im_start|>' + m.role", b"<|im_start|>' +m. role", ["template"]),
        (TINY_NAME + b"Tiny", TINY_NAME + b"Mine", []),
    ],
    ids=["pre-tokenizer", "BOS", "merges", "template", "name"],
)
def test_all_that_changes_a_prompt_is_part_of_it_and_names_are_not(
    tmp_path: Path, old: bytes, new: bytes, changed: list[str]
) -> None:
    one = written(tmp_path / "one.gguf")
    other = edited(one, tmp_path / "other.gguf", old, new)
    before, after = asdict(identity(one)), asdict(identity(other))
    assert [name for name in before if before[name] != after[name]] == changed
    assert (identity(one).digest != identity(other).digest) == bool(changed)


def test_hyperparameters_are_part_of_it_and_their_order_is_not(tmp_path: Path) -> None:
    one = written(tmp_path / "one.gguf")
    other = written(tmp_path / "other.gguf", changes={"rope.freq_base": 5e5})
    assert replace(identity(other), metadata=None) == replace(identity(one), metadata=None)
    assert identity(other).metadata != identity(one).metadata
    again = reordered(one, tmp_path / "again.gguf")
    assert list(gguf.GGUFReader(again).fields) != list(gguf.GGUFReader(one).fields)
    assert identity(again) == identity(one)


@pytest.fixture(params=["rope", "template", "parts"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, load: Load) -> tuple[Model, Model]:
    """Two models that a look at the tensors of one file does not tell apart."""
    if request.param == "parts":
        return load(split(tmp_path / "one")[0]), load(split(tmp_path / "other", seed=1)[0])
    changes = {"changes": {"rope.freq_base": 50.0}} if request.param == "rope" else {"chat_template": f"Go. {CHATML}"}
    return load(written(tmp_path / "one.gguf")), load(written(tmp_path / "other.gguf", **changes))


def test_the_state_of_another_model_is_not_taken(pair: tuple[Model, Model], tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path)
    contexts = [Context(model, 256, n_threads=1) for model in pair]
    stream = Stream(contexts[0])
    assert stream.read(PREFIX, cache)
    stream.clear()
    assert cache.load(contexts[0], PREFIX, None)
    assert not cache.load(contexts[1], PREFIX, None)
    for context in contexts:
        context.close()


def test_maps_and_scores_of_another_model_are_not_taken(
    pair: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    news: list[str] = []

    def scored(model: Model) -> HeadMap:
        scoring = ScoringOptions(examples=2, target_tokens=4, n_threads=1)
        return CachedMap(Prompter.of(model, ADA, n_ctx=512), scoring).load_or_score(notice=news.append)

    one, other = (scored(model) for model in pair)
    assert not any("taking up" in line for line in news)
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "empty"))
    assert np.array_equal(scored(pair[1]).pcs, other.pcs, equal_nan=True)
    assert not np.array_equal(one.pcs, other.pcs, equal_nan=True)


# maps that are given


def test_a_map_is_refused_where_its_models_numbers_are_others(
    tiny_model: TinyModel, tmp_path: Path, load: Load
) -> None:
    model = load(tiny_model())
    other = load(written(tmp_path / "other.gguf", changes={"rope.freq_base": 5e5}))
    head_map = hand_made_map(model, **asdict(model.identity))
    path = tmp_path / "map.dps.gguf"
    head_map.save(path)
    assert HeadMap.load(path).identity == model.identity
    message = r"^this head map was made for 'Tiny' with other hyperparameters or another tokenizer than 'Tiny' has$"
    with pytest.raises(HeadMapError, match=message) as info:
        Assistant(other, None, HeadMap.load(path), Settings())
    assert info.value.remedy is Remedy.OTHER_FILE_OR_SCORE
    with pytest.raises(HeadMapError, match=message):
        bake(other.path, path, tmp_path / "baked.gguf")
    assert not (tmp_path / "baked.gguf").exists()


def test_a_map_of_another_chat_template_is_used_and_told(tiny_model: TinyModel, tmp_path: Path, load: Load) -> None:
    model, other = load(tiny_model()), load(written(tmp_path / "other.gguf", chat_template=f"Go. {CHATML}"))
    head_map, news = hand_made_map(model, **asdict(model.identity)), list[str]()
    assert Assistant(other, None, head_map, Settings(n_ctx=512), notice=news.append).steering
    assert news == [
        "Tiny has another chat template than this head map was made with: `dps-local score` makes one for it"
    ]


def test_a_map_that_is_older_than_identities_is_used_without_a_word(
    tiny_model: TinyModel, tmp_path: Path, load: Load
) -> None:
    model, news = load(tiny_model()), list[str]()
    hand_made_map(model).save(tmp_path / "old.dps.gguf")
    old = HeadMap.load(tmp_path / "old.dps.gguf")
    assert old.identity == Identity(model.fingerprint)
    assert Assistant(model, None, old, Settings(n_ctx=512), notice=news.append).steering
    assert news == []


def test_a_baked_model_is_the_same_model(tiny_model: TinyModel, tmp_path: Path, load: Load) -> None:
    model, path = load(tiny_model()), tmp_path / "map.dps.gguf"
    hand_made_map(model, **asdict(model.identity)).save(path)
    bake(model.path, path, tmp_path / "baked.gguf")
    baked, news = load(tmp_path / "baked.gguf"), list[str]()
    assert baked.identity == model.identity
    assert HeadMap.load(baked.path).identity == model.identity
    assert len({CachedMap(Prompter.of(m, ADA), ScoringOptions()).path for m in (model, baked)}) == 1
    Assistant(baked, ADA, notice=news.append)
    told = len(news)
    assert Assistant(baked, ADA, HeadMap.load(path), notice=news.append).steering
    assert news[:told] == news[told:]


def test_a_model_in_parts_is_not_baked_and_steers_as_the_whole_one(tmp_path: Path, load: Load) -> None:
    whole, parts = load(written(tmp_path / "whole.gguf")), split(tmp_path / "parts")
    path = tmp_path / "map.dps.gguf"
    hand_made_map(whole, **asdict(whole.identity)).save(path)
    with pytest.raises(HeadMapError, match=r"is in \d parts: make one of them with `llama-gguf-split --merge`$"):
        bake(parts[0], path, tmp_path / "baked.gguf")
    assert not (tmp_path / "baked.gguf").exists()
    assert Assistant(load(parts[0]), None, HeadMap.load(path), Settings()).steering
