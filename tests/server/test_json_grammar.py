"""The grammar of a JSON schema: what a random model writes under it is JSON of the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from opened import shared
from tiny import TinyModel

from dps_local.chat.session import Session
from dps_local.engine.grammar import Grammar
from dps_local.engine.model import Model, head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import SettingsError
from dps_local.server.json_grammar import json_grammar
from dps_local.steering import speculative
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

LETTER: dict[str, Any] = {
    "$defs": {"place": {"type": "string", "minLength": 2, "maxLength": 4}},
    "type": "object",
    "properties": {
        "to/from": {"$ref": "#/$defs/place", "description": "where"},
        'said "so"\\': {"enum": ['a "b"', "c\\d", "é\n", 3, None, {"x": [1]}]},
        "n": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"const": "t"}, "minItems": 1, "maxItems": 3},
        "x": {"type": "number"},
    },
    "required": ["to/from", "tags"],
}
SCHEMAS: list[dict[str, Any]] = [
    LETTER,
    {"type": "array", "items": LETTER["properties"]["n"], "minItems": 2, "maxItems": 2},
    {"properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}},
    {"type": "object", "additionalProperties": False},
    {"type": "array", "maxItems": 0},
    {"type": "string", "maxLength": 0},
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"anyOf": [{"type": "integer"}, {"allOf": [{"$ref": "#/anyOf/0"}]}]},
    {"type": "boolean", "enum": [True, "true", 1]},
]
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "amplify": {"mode": "amplify"},
    "eager": {"mode": "contrast", "engine": "eager"},
    "speculative": {"mode": "contrast", "engine": "speculative"},
}


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Iterator[Model]:
    with Model(tiny_model()) as opened:
        yield opened


def chat(model: Model, mode: str | None = None, engine: Any = "auto") -> Session:
    steering = Steering(head_mask(model, [(2, 2)]), Gamma(3.0), 0.02, mode=mode) if mode else None  # type: ignore[arg-type]
    return Session(model, n_ctx=512, n_threads=1, engine=engine, steering=steering)


def written(tokens: Any) -> str:
    return "".join(token.text for token in tokens)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_answers_are_json_of_the_schema(model: Model, mode: str, schema: dict[str, Any]) -> None:
    gbnf, valid = json_grammar(schema), jsonschema_rs.validator_for(schema).is_valid
    seen = set()
    for sampling in (Sampling(temp=0), *(Sampling(temp=3, top_k=0, min_p=0, seed=seed) for seed in range(4))):
        sampler = Sampler(sampling, Grammar(model, gbnf))
        with chat(model, **MODES[mode]) as session:
            texts = [written(session.ask("What do you say?", 200, sampler=sampler))]
            assert session.turns[-1].stop == "eog"
            texts.append(written(session.regenerate(200, sampler=sampler)))
            texts.append(written(session.ask("And then?", 200, sampler=sampler)))
        assert all(valid(json.loads(text)) for text in texts), texts
        assert sampling.temp or texts[0] == texts[1]
        seen |= {json.dumps(json.loads(text)) for text in texts}
    few = schema in (SCHEMAS[3], SCHEMAS[4], SCHEMAS[5], SCHEMAS[8])
    assert len(seen) == 1 if few else len(seen) > 2


@pytest.mark.parametrize("temp", [1.0, 3.0])
def test_rejected_drafts_are_nothing_to_the_grammar(model: Model, temp: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative, "MAX_EXPECTED_REJECTIONS", 10.0)
    found, rejected = {}, 0
    for engine in ("eager", "speculative"):
        sampler = Sampler(Sampling(temp=temp, top_k=0, seed=5), Grammar(model, json_grammar({"type": "object"})))
        with chat(model, "contrast", engine) as session:
            found[engine] = [[token.id for token in session.ask("Where?", 60, sampler=sampler)] for _ in range(3)]
            rejected += sum(turn.counts.rejected for turn in session.turns if turn.counts)
    assert found["eager"] == found["speculative"]
    assert rejected


def test_any_json_is_an_object(model: Model) -> None:
    gbnf = json_grammar({"type": "object"})
    for seed in range(10):
        sampler = Sampler(Sampling(temp=4, top_k=0, min_p=0, top_p=1, seed=seed), Grammar(model, gbnf))
        with chat(model) as session:
            text = written(session.ask("What?", 300, sampler=sampler))
            if session.turns[-1].stop == "eog":
                assert isinstance(json.loads(text), dict)
            assert text.lstrip().startswith("{")
            assert "\n" not in text
            assert "\x7f" not in text


def test_a_prompt_is_nothing_to_the_grammar(tiny_model: TinyModel) -> None:
    model = shared(tiny_model())
    sampler = Sampler(Sampling(temp=0), Grammar(model, json_grammar({"const": [1, 2]})))
    sampler.recount(model.tokenize("[3, no JSON", special=False))
    with chat(model) as session:
        assert json.loads(written(session.ask("[7", 50, sampler=sampler))) == [1, 2]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (3, "something else where a schema"),
        ({"type": "text"}, "a type that is none of object"),
        ({"type": []}, "a type that is none of object"),
        ({"type": "string", "pattern": "a"}, "has pattern, which is not supported"),
        ({"type": "integer", "minimum": 3}, "has minimum, which"),
        ({"anyOf": [{"type": "null"}], "type": "string"}, "has type, which"),
        ({"anyOf": []}, "no list of schemas"),
        ({"oneOf": [{"type": "null"}]}, "has oneOf, which"),
        ({"allOf": [{}, {}]}, "more than one schema"),
        ({"not": {}}, "has not, which"),
        ({"x\ny": 1}, "has …, which"),
        ({"$ref": "http://127.0.0.1/schema"}, "does not begin with #"),
        ({"$ref": "#/$defs/a"}, "to what is not in it"),
        ({"required": ["a"]}, "requires a property"),
        ({"properties": []}, "properties that are no object"),
        ({"enum": 3}, "an enum that is no list"),
        ({"enum": []}, "without a value"),
        ({"type": "string", "const": 3}, "without a value of its type"),
        ({"const": "\ud800"}, "JSON cannot say"),
        ({"const": float("inf")}, "JSON cannot say"),
        ({"maxLength": -1}, "no whole number"),
        ({"minItems": 2, "maxItems": 1}, "below its"),
        ({"minLength": 2001}, "more than 2000"),
        ({"properties": {str(i): {"maxLength": 2000} for i in range(11)}}, "bounds too many"),
        ({"description": "x" * 65536}, "more than 65536 characters"),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_refused(schema: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        json_grammar(schema)


def test_deep_schemas_and_those_that_are_only_themselves_are_refused(model: Model) -> None:
    deep: Any = {"type": "null"}
    for _ in range(2000):
        deep = {"anyOf": [deep]}
    with pytest.raises(SettingsError, match="nested too deep"):
        json_grammar(deep)
    with pytest.raises(SettingsError, match="left recursion"):
        Grammar(model, json_grammar({"$ref": "#"}))


def nested(n: int, wrap: Callable[[Any], Any]) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(n):
        schema = wrap(schema)
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"minLength": 2000},
        {"minItems": 2000, "maxItems": 5000},
        {"properties": {f"p{i}": {"type": "null"} for i in range(2000)}},
        {"enum": list(range(5000))},
        nested(150, lambda schema: {"items": schema}),
        nested(150, lambda schema: {"properties": {"a": schema}, "required": ["a"]}),
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_llama_cpp_takes_the_largest_schemas(model: Model, schema: Any, capfd: pytest.CaptureFixture[str]) -> None:
    grammar = Grammar(model, json_grammar(schema))
    assert grammar.clone().handle
    assert capfd.readouterr().err == ""
