"""Clusters of users: grouping, routing, and one map that is shipped with a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tiny import TinyModel
from typer.testing import CliRunner

from dps_local.assistant import Assistant, Settings
from dps_local.cli.app import app
from dps_local.engine.context import Context, Run
from dps_local.engine.embedding import Embedder
from dps_local.engine.model import Model
from dps_local.errors import HeadMapError, ProfileError, Remedy
from dps_local.maps.baking import bake, load_map
from dps_local.maps.calibration import NO_STEERING, Calibration, Candidate
from dps_local.maps.cluster_map import ARRAYS, GRIDS, ClusterMap, cluster_weights, group, mixed_scales, n_clusters
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.calibrate import GAMMAS, calibrate
from dps_local.scoring.clusters import UserHistory, embed, score_clusters
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.map_choice import choose_map
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import score
from dps_local.steering.mixing import Gamma

Array = NDArray[np.float64]
OPTIONS = ScoringOptions(examples=4, target_tokens=8, n_threads=1)
BEES = (
    "The bees swarmed at noon.",
    "Two hives are full of honey.",
    "The queen bee is marked blue.",
    "Smoke calms bees.",
)
TAXES = ("File the tax form by May.", "The audit found no error.", "Deduct the rent as usual.", "Pay the tax on time.")


def person(texts: tuple[str, ...], name: str = "") -> Profile:
    return Profile(name=name, history=tuple(HistoryItem(text) for text in texts))


@pytest.fixture
def model(tiny_model: TinyModel) -> Iterator[Model]:
    loaded = Model(tiny_model("llama"))
    yield loaded
    loaded.close()


@pytest.fixture
def prompter(model: Model) -> Callable[[Profile], Prompter]:
    return lambda profile: Prompter(model, ChatTemplate(model), profile, 128, 512)


@pytest.fixture
def embedder(model: Model) -> Iterator[Embedder]:
    made = Embedder(model, 256, n_threads=1)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cluster_map(model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder) -> ClusterMap:
    people = [person(BEES), person(BEES[::-1]), person(TAXES), person(TAXES[::-1])]
    return score_clusters(model, [prompter(p) for p in people], 2, OPTIONS, embedder)


# --- grouping and routing


def test_auto_makes_about_one_cluster_per_hundred_users_and_at_least_one() -> None:
    assert [n_clusters("auto", users) for users in (1, 30, 149, 151, 1000)] == [1, 1, 1, 2, 10]
    assert n_clusters(3, 10) == 3
    assert n_clusters(30, 10) == 10


def test_k_means_finds_planted_groups() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16, dtype=np.float32)
    vectors = np.concatenate([c + 0.05 * rng.standard_normal((7, 16)) for c in centres]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    center, centroids, labels = group(vectors, 3, seed=0)
    assert np.allclose(center, vectors.mean(axis=0))
    assert centroids.shape == (3, 16)
    assert [len(set(labels[i : i + 7])) for i in (0, 7, 14)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert group(vectors, 3, seed=0)[2] == labels


def test_users_who_do_not_differ_make_fewer_clusters() -> None:
    vectors = np.repeat(np.eye(2, 8, dtype=np.float32), 3, axis=0)
    _, centroids, labels = group(vectors, 4, seed=0)
    assert len(centroids) == len(set(labels)) == 2


def by_hand(**changes: object) -> ClusterMap:
    grids = np.zeros((2, 1, 3), np.float32)
    weights = np.array([[[1.0, 0.5, np.nan]], [[0.0, 1.0, np.nan]]], np.float32)
    made = ClusterMap(
        model="Tiny",
        architecture="llama",
        fingerprint="f" * 64,
        embedder="e" * 64,
        embedder_tokens=256,
        scope="generated",
        ranking="pcs",
        seed=0,
        users=(3, 4),
        examples=(12, 14),
        evaluations=50,
        center=np.zeros(2, np.float32),
        centroids=np.array([[1, 0], [0, 1]], np.float32),
        pcs=grids,
        pcs_stderr=grids,
        gain=grids,
        gain_stderr=grids,
        weights=weights,
        null_control=0.0,
        gamma=0.5,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_hard_routing_takes_the_nearest_cluster_alone() -> None:
    assert by_hand().route(np.array([0.6, 0.8], np.float32), "hard").tolist() == [0.0, 1.0]


def test_soft_routing_is_the_softmax_of_the_negative_distance() -> None:
    # distances of (0.6, 0.8) to (1, 0) and (0, 1): sqrt(0.8) and sqrt(0.4)
    shares = by_hand().route(np.array([0.6, 0.8], np.float32), "soft", temperature=0.5)
    expected = np.exp([-np.sqrt(0.8) / 0.5, -np.sqrt(0.4) / 0.5])
    assert shares == pytest.approx(expected / expected.sum(), abs=1e-6)
    sharp = by_hand().route(np.array([0.6, 0.8], np.float32), "soft", temperature=0.001)
    assert sharp == pytest.approx([0, 1], abs=1e-6)


def test_the_center_is_taken_off_before_routing() -> None:
    moved = by_hand(center=np.array([0.5, 0.5], np.float32))
    assert moved.route(np.array([0.9, 0.5], np.float32), "hard").tolist() == [1.0, 0.0]


def test_scales_are_one_minus_the_mixed_weights() -> None:
    scales = by_hand().scales(np.array([0.25, 0.75]))
    assert scales.tolist() == [[0.75, 0.125, 1.0]]  # 1 - .25·1, 1 - (.25·.5 + .75·1), no head


@given(
    hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(0, 1, width=32)),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda x: sum(x) > 0.1),
)
def test_scales_stay_between_zero_and_one(weights: NDArray[np.float32], shares: list[float]) -> None:
    scales = mixed_scales(weights, np.array(shares) / sum(shares))
    assert scales.shape == (2, 4)
    assert ((scales >= 0) & (scales <= 1)).all()


def test_weights_are_the_chosen_heads_scores_by_the_best() -> None:
    scores = np.array([0.4, -0.1, 0.2, 0.3, 0.1])
    assert cluster_weights(scores, [0, 2]).tolist() == [1.0, 0.0, 0.5, 0.0, 0.0]
    assert cluster_weights(scores, [0, 2], power=2).tolist() == [1.0, 0.0, 0.25, 0.0, 0.0]
    assert cluster_weights(scores, [0, 1]).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert cluster_weights(scores, []).tolist() == [0.0] * 5


# --- embedding


def test_an_embedding_is_the_mean_of_the_last_hidden_states(model: Model, embedder: Embedder) -> None:
    text = "The bees are in the blue hive."
    tokens = model.prompt_tokens(text, special=False)
    llama = model.llama
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 256
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.embeddings, parameters.pooling_type = True, 0  # none: a vector for each token
    handle = llama.llama_init_from_model(model.handle, parameters)
    batch = llama.llama_batch_init(256, 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.logits[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, True, 1, 0
    assert llama.llama_decode(handle, batch) == 0
    rows = [
        np.ctypeslib.as_array(llama.llama_get_embeddings_ith(handle, i), (model.n_embd,)) for i in range(len(tokens))
    ]
    mean = np.mean(rows, axis=0)
    llama.llama_batch_free(batch)
    llama.llama_free(handle)
    assert embedder(text) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert np.linalg.norm(embedder(text)) == pytest.approx(1, abs=1e-6)


def test_a_text_has_the_same_vector_whatever_was_embedded_before(embedder: Embedder) -> None:
    first = embedder("bees")
    embedder("taxes and audits " * 100)
    assert np.array_equal(embedder("bees"), first)


def test_what_is_held_out_is_not_embedded(prompter: Callable[[Profile], Prompter], embedder: Embedder) -> None:
    longer = UserHistory(prompter(person((*BEES, *TAXES[:2]))), OPTIONS)
    assert longer.end == 4
    assert np.array_equal(embed(embedder, longer.prompter, longer.end), embed(embedder, prompter(person(BEES))))
    assert [len(e.text.target) > 0 for e in longer.held_out()] == [True, True]
    short = UserHistory(prompter(person(BEES[:3])), OPTIONS)
    assert short.end == 3
    assert short.held_out() == []


def test_what_a_model_wrote_says_nothing_of_a_user(prompter: Callable[[Profile], Prompter], embedder: Embedder) -> None:
    kept, own = HistoryItem("Certainly!", kind="kept"), person((*BEES, *TAXES[:2])).history
    history = (kept, own[0], *own[1:5], kept, own[5], kept)
    user = UserHistory(prompter(Profile(history=history)), OPTIONS)
    assert (user.end, history[user.end]) == (5, own[4])
    alone = UserHistory(prompter(person((*BEES, *TAXES[:2]))), OPTIONS)
    for mine, theirs in ((user.held_out(), alone.held_out()), (user.scored(4), alone.scored(4))):
        assert [e.text.target for e in mine] == [e.text.target for e in theirs]
    assert np.array_equal(embed(embedder, user.prompter), embed(embedder, alone.prompter))
    short = UserHistory(prompter(Profile(history=(*own[:3], kept, kept))), OPTIONS)
    assert short.held_out() == []


# --- scoring


def test_one_cluster_of_one_user_has_the_scores_of_that_user(
    model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder
) -> None:
    options = replace(OPTIONS, exhaustive=True, examples=4)
    # of a short history, nothing is held out of the user's own scores
    clustered = score_clusters(model, [prompter(person(BEES))], 1, options, embedder)
    own = score(model, prompter(person(BEES)), options)
    assert clustered.pcs[0] == pytest.approx(own.pcs, abs=1e-7, nan_ok=True)
    assert clustered.pcs_stderr[0] == pytest.approx(own.pcs_stderr, abs=1e-7, nan_ok=True)
    assert clustered.null_control == 0
    assert clustered.users == (1,)
    assert clustered.examples == (4,)


def test_users_are_grouped_and_each_cluster_has_its_own_scores(cluster_map: ClusterMap) -> None:
    assert sorted(cluster_map.users) == [2, 2]
    assert cluster_map.centroids.shape == (2, len(cluster_map.center))
    assert not np.array_equal(cluster_map.pcs[0], cluster_map.pcs[1])
    assert ((cluster_map.weights >= 0) & (cluster_map.weights <= 1)).all()
    assert cluster_map.calibration is None  # four users cannot give heads and judge them


TRADES = (
    "baker",
    "tailor",
    "sailor",
    "farmer",
    "miller",
    "potter",
    "weaver",
    "hunter",
    "mason",
    "smith",
    "cook",
    "nurse",
)


def test_users_who_calibrate_have_no_part_in_groups_and_scores(
    model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [person(tuple(f"The {trade} {verb}." for verb in ("is up", "works", "eats", "rests"))) for trade in TRADES]
    scored, tried = list[str](), list[tuple[str, Array]]()
    read, losses = HeadAblation.read, HeldOutLosses.of

    def trade_of(text: ScoredText) -> str:
        (trade,) = (trade for trade in TRADES if trade in model.detokenize(text.target))
        return trade

    def noted_reading(self: HeadAblation, text: ScoredText) -> tuple[float, float]:
        scored.append(trade_of(text))
        return read(self, text)

    def noted_losses(self: HeldOutLosses, text: ScoredText, *rest: Any) -> Array:
        made = losses(self, text, *rest)
        tried.append((trade_of(text), made))
        return made

    monkeypatch.setattr(HeadAblation, "read", noted_reading)
    monkeypatch.setattr(HeldOutLosses, "of", noted_losses)
    options = replace(OPTIONS, target_tokens=32)
    clustered = score_clusters(model, [prompter(p) for p in people], 2, options, embedder)
    users = sorted({trade for trade, _ in tried})
    assert (len(users), len(tried), len(set(scored))) == (6, 12, 6)
    assert not set(users) & set(scored)
    assert sum(clustered.users) == 6
    # each of those held out counts once, by the mean of what was tried
    means = [np.mean([loss for trade, loss in tried if trade == user], axis=0) for user in users]
    expected = calibrate(np.array(means), [NO_STEERING, Candidate("contrast", None, GAMMAS[0])])
    assert clustered.calibration is not None
    assert clustered.calibration.n == 6
    assert clustered.calibration.gain == pytest.approx(expected.gain)
    assert clustered.calibration.more_messages is None
    center = np.mean([embed(embedder, prompter(p)) for p in people if p.history[0].output.split()[1] in scored], axis=0)
    assert clustered.center == pytest.approx(center, abs=1e-6)


def test_eleven_users_are_all_scored_and_say_why_steering_stays_off(
    model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder
) -> None:
    notices = list[str]()
    people = [prompter(person(BEES)) for _ in TRADES[:11]]
    clustered = score_clusters(model, people, 1, OPTIONS, embedder, notice=notices.append)
    assert (sum(clustered.users), clustered.gamma, clustered.calibration) == (11, 0.0, None)
    assert notices[0] == (
        "what steering is worth is measured on users who give no heads, and takes 12 with 4 history items each: "
        "it stays off until --gamma says how strong it is"
    )


def test_a_run_that_is_repeated_gives_the_same_map(
    cluster_map: ClusterMap, model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder
) -> None:
    people = [person(BEES), person(BEES[::-1]), person(TAXES), person(TAXES[::-1])]
    again = score_clusters(model, [prompter(p) for p in people], 2, replace(OPTIONS, resume=False), embedder)
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(cluster_map, name), equal_nan=True)


def test_users_without_history_cannot_be_clustered(
    model: Model, prompter: Callable[[Profile], Prompter], embedder: Embedder
) -> None:
    with pytest.raises(ProfileError, match="none of the profiles has a history"):
        score_clusters(model, [prompter(Profile(preferences=("short",)))], 1, OPTIONS, embedder)


# --- the file


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"calibration": Calibration(0.1, 0.05, 0.15, 8, NO_STEERING, 1.1, 1.2, 40)},
        {"metadata": "1" * 64, "template": "2" * 64, "embedder_metadata": "3" * 64},
    ],
)
def test_a_cluster_map_survives_its_file(changes: dict[str, object], tmp_path: Path) -> None:
    made = by_hand(**changes)
    made.save(tmp_path / "c.dps.gguf")
    assert (tmp_path / "c.dps.gguf").stat().st_mode & 0o777 == 0o600
    loaded = load_map(tmp_path / "c.dps.gguf")
    assert isinstance(loaded, ClusterMap)
    for name in ARRAYS:
        assert np.array_equal(getattr(loaded, name), getattr(made, name), equal_nan=True)
    others = [f.name for f in fields(made) if f.name not in ARRAYS]
    assert [getattr(loaded, name) for name in others] == [getattr(made, name) for name in others]
    json.dumps(loaded.as_json(), allow_nan=False)


def test_a_cluster_map_is_no_head_map(tmp_path: Path) -> None:
    by_hand().save(tmp_path / "c.dps.gguf")
    with pytest.raises(HeadMapError, match=r"is a cluster map, and a head map is needed here$"):
        HeadMap.load(tmp_path / "c.dps.gguf")


def test_a_new_user_of_a_baked_model_is_routed_without_scoring(
    cluster_map: ClusterMap, model: Model, tmp_path: Path
) -> None:
    cluster_map.save(tmp_path / "c.dps.gguf")
    bake(model.path, tmp_path / "c.dps.gguf", tmp_path / "baked.gguf")
    baked = Model(tmp_path / "baked.gguf")
    notices: list[str] = []
    settings = Settings(n_ctx=512, n_threads=1, gamma=Gamma(1.0))
    user = person(BEES[1:])

    def scored(_: CachedMap) -> HeadMap:
        raise AssertionError("nothing is to be scored")

    own = CachedMap(Prompter.of(baked, user, n_ctx=512), OPTIONS)
    chosen = choose_map(baked, own, begin=scored, notice=notices.append)
    assert isinstance(chosen, ClusterMap)
    assistant = Assistant(baked, user, chosen, settings, notice=notices.append)
    steering = assistant.steering
    assert "the cluster map is used: your own is not scored" in notices
    assert any(text.startswith("cluster ") for text in notices)
    embedder = Embedder(baked, cluster_map.embedder_tokens, n_threads=1)
    assert assistant.prompter
    expected = chosen.scales(chosen.route(embed(embedder, assistant.prompter)))
    embedder.close()
    if steering:
        assert np.array_equal(steering.scales, expected)
    else:
        assert (expected == 1).all()
    baked.close()


def test_a_users_own_map_is_used_where_it_has_enough_evidence(
    cluster_map: ClusterMap, model: Model, tmp_path: Path
) -> None:
    cluster_map.save(tmp_path / "c.dps.gguf")
    notices: list[str] = []
    cached = CachedMap(Prompter.of(model, person(BEES), n_ctx=512), OPTIONS)
    own = cached.load_or_score()
    for gain, expected in ((0.02, HeadMap), (-0.02, ClusterMap)):
        calibration = Calibration(gain, gain - 0.01, gain + 0.01, 4, Candidate("contrast", 1, 0.5), 1.0, 1.0)
        replace(own, calibration=calibration).save(cached.path)
        chosen = choose_map(model, cached, tmp_path / "c.dps.gguf", begin=lambda _: own, notice=notices.append)
        assert isinstance(chosen, expected)
    assert notices[-2:] == [
        "your own head map is used: it has more evidence than the clusters'",
        "the cluster map is used: your own does not help yet",
    ]


def test_a_cluster_map_needs_a_profile_and_its_own_embedding_model(cluster_map: ClusterMap, model: Model) -> None:
    settings = Settings(n_ctx=512, n_threads=1)
    with pytest.raises(HeadMapError, match=r"needs to know who writes$") as info:
        Assistant(model, None, cluster_map, settings)
    assert info.value.remedy is Remedy.GIVE_PROFILE
    for other in (replace(cluster_map, embedder="0" * 64), replace(cluster_map, embedder_metadata="0" * 64)):
        with pytest.raises(HeadMapError, match=r"was made with another embedding model$") as info:
            Assistant(model, person(BEES), other, settings)
        assert info.value.remedy is Remedy.GIVE_EMBEDDING_MODEL
    with pytest.raises(HeadMapError, match=r"^this head map was made for .* with other hyperparameters"):
        Assistant(model, person(BEES), replace(cluster_map, metadata="0" * 64), settings)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_routed_scales_are_applied_as_they_are(kind: str, tiny_model: TinyModel) -> None:
    """A scale between 0 and 1 is the same as a model whose W_O columns are multiplied by it."""
    head, scale = (1, 1), 0.5
    plain, edited = Model(tiny_model(kind)), Model(tiny_model(kind, edit={head: scale}))
    weights = np.zeros((1, plain.n_layer, plain.n_head_max), np.float32)
    weights[0][head] = 1 - scale
    scales = mixed_scales(weights, np.ones(1))
    logits = []
    for model, applied in ((plain, scales), (edited, None)):
        context = Context(model, 256, n_outputs=8, n_threads=1, flash_attn=False)
        context.set_head_scales(0, applied)
        logits.append(context.decode([Run(0, 0, list(range(5, 13)), 8)]).copy())
        context.close()
        model.close()
    assert np.array_equal(logits[0], logits[1])


# --- the command line


def test_score_makes_a_cluster_map_of_a_folder(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder, output = tmp_path / "people", tmp_path / "c.dps.gguf"
    folder.mkdir()
    for i, texts in enumerate((BEES, BEES[::-1], TAXES)):
        (folder / f"{i}.json").write_text(json.dumps({"history": [{"output": text} for text in texts]}))
    arguments = ["score", "-m", tiny_model("llama"), "--profiles", folder, "--clusters", "2", "-o", output, "-t", "1"]
    arguments += ["--examples", "2", "--target-tokens", "4", "--json"]
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert sum(cluster["users"] for cluster in printed["clusters"]) == 3
    assert isinstance(load_map(output), ClusterMap)


def test_inspect_shows_how_far_clusters_agree(cluster_map: ClusterMap, tmp_path: Path) -> None:
    path = tmp_path / "c.dps.gguf"
    cluster_map.save(path)
    printed = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"], catch_exceptions=False).stdout)
    assert len(printed["maps"]) == 2
    assert printed["overlap"]["names"] == ["cluster 1 (2 users)", "cluster 2 (2 users)"]
    for i, one in enumerate(printed["maps"]):
        assert np.array_equal(np.array(one["pcs"], np.float32), cluster_map.pcs[i])
    html = tmp_path / "c.html"
    result = CliRunner().invoke(app, ["inspect", str(path), "--html", str(html)], catch_exceptions=False)
    assert "cluster 2 (2 users)" in result.stdout
    assert "cluster 2 (2 users)" in html.read_text()


def test_inspect_draws_a_single_cluster(tmp_path: Path) -> None:
    made, path, html = by_hand(users=(2,)), tmp_path / "c.dps.gguf", tmp_path / "c.html"
    one = replace(made, examples=made.examples[:1], centroids=made.centroids[:1])
    one = replace(one, **{name: getattr(one, name)[:1] for name in GRIDS})
    one.save(path)
    printed = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"], catch_exceptions=False).stdout)
    contract = "model fingerprint n_layer n_head scope examples pcs pcs_stderr gain selected gamma mode calibration"
    assert set(contract.split()) <= printed.keys()
    assert np.array_equal(np.array(printed["pcs"], np.float32), one.pcs[0], equal_nan=True)
    assert printed["examples"] == one.examples[0]
    result = CliRunner().invoke(app, ["inspect", str(path), "--html", str(html)], catch_exceptions=False)
    assert "too little history to calibrate" in result.stdout
    assert "muted" in html.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "mara", "--profiles", "."], "either --profile or --profiles"),
        ([], "either --profile or --profiles"),
        (["--profiles", ".", "--clusters", "some", "-o", "x"], "a number above 0, or auto"),
        (["--profiles", ".", "--clusters", "0", "-o", "x"], "a number above 0, or auto"),
        (["--profiles", "."], "needs --output"),
    ],
)
def test_wrong_usage_of_clusters_is_refused(arguments: list[str], message: str, tiny_model: TinyModel) -> None:
    result = CliRunner().invoke(app, ["score", "-m", str(tiny_model("llama")), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
