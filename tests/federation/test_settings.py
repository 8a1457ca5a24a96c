import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow_fed.errors import CTFlowError, MismatchError, SettingsError, UpdateError
from ctflow_fed.federation import FederationSettings, RoundOrder, check_site_name
from ctflow_fed.model import PRESETS
from ctflow_fed.training import PrivacySettings, TrainSettings
from ctflow_fed.training.settings import METHODS

SETTINGS = FederationSettings(out="job", sites=("b", "a"), rounds=3)
ORDER = RoundOrder(
    round_number=2,
    steps=5,
    seed=1,
    training=SETTINGS.training(),
    network=PRESETS["nano"],
    manifest="0" * 64,
    start="1" * 64,
    job="2" * 64,
    sites=2,
)


def test_the_run_config_of_the_bundle_is_these_settings_with_these_defaults():
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    )
    config = project["tool"]["flwr"]["app"]["config"]

    assert FederationSettings.from_run_config(
        {**config, "out": "job", "sites": "a"}
    ) == FederationSettings(out="job", sites=("a",))


def test_settings_survive_the_run_config():
    held = replace(SETTINGS, held_out=("b",))
    for settings in (SETTINGS, held):
        config = settings.to_run_config()
        assert FederationSettings.from_run_config(config) == settings


def test_a_whole_number_is_fine_where_a_fraction_may_stand():
    config = {**SETTINGS.to_run_config(), "proximal": 1}

    assert FederationSettings.from_run_config(config).proximal == 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("out", ""),
        ("sites", ""),
        ("sites", "a,a"),
        ("sites", "a,../b"),
        ("sites", 3),
        ("rounds", 0),
        ("rounds", "2"),
        ("rounds", True),
        ("steps", 0),
        ("seed", -1),
        ("preset", "huge"),
        ("method", "magic"),
        ("method", ""),
        ("learning-rate", 2.0),
        ("learning-rate", float("nan")),
        ("proximal", -1.0),
        ("round-seconds", 0.0),
        ("strategy", "magic"),
        ("server-learning-rate", 0.5),
        ("server-learning-rate", -1.0),
        ("server-ema", 1.0),
        ("server-ema", float("nan")),
        ("min-sites", 0),
        ("min-sites", 3),
        ("held-out", "c"),
        ("held-out", "a,b"),
        ("max-share", 0.0),
        ("max-share", 1.1),
        ("patience", -1),
        ("adapter-rank", -1),
        ("adapter-rank", 16),
        ("adapter-rank", 1025),
        ("precision", "float16"),
        ("optimizer", "magic"),
        ("unknown", 1),
    ],
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(SettingsError):
        FederationSettings.from_run_config({**SETTINGS.to_run_config(), key: value})


def test_a_strategy_that_takes_a_step_takes_the_length_that_is_chosen():
    own = replace(SETTINGS, strategy="diloco")
    chosen = replace(own, server_learning_rate=0.5)

    assert (own.server_rate, chosen.server_rate) == (0.7, 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_sites_are_told_the_method_of_training_with_its_own_settings(method):
    settings = replace(SETTINGS, method=method, batch_clips=3)

    training = RoundOrder.from_record(
        replace(ORDER, training=settings.training()).to_record()
    ).training

    expected = TrainSettings.ctflow() if method == "ctflow" else TrainSettings()
    assert training.method == method
    assert training.batch_clips == 3
    assert training.context_noise == expected.context_noise
    assert training.time_shift == expected.time_shift


def test_a_job_of_another_method_is_another_job():
    other = replace(SETTINGS, method="ctflow")

    assert other.identity() != SETTINGS.identity()


def test_the_order_of_the_sites_and_the_place_of_the_job_are_not_its_identity():
    moved = replace(SETTINGS, out="elsewhere", sites=("a", "b"), wait_seconds=5.0)

    assert moved.identity() == SETTINGS.identity()
    assert replace(SETTINGS, seed=1).identity() != SETTINGS.identity()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a" * 65, 3, None])
def test_a_site_name_is_a_plain_word(name):
    with pytest.raises(SettingsError):
        check_site_name(name)


def test_an_order_survives_its_message():
    assert RoundOrder.from_record(ORDER.to_record()) == ORDER


def test_the_order_of_an_adapter_survives_its_message_and_says_what_travels():
    adapter = replace(ORDER, base="3" * 64, adapter_rank=4, precision="int8")
    record = adapter.to_record()

    assert RoundOrder.from_record(record) == adapter
    assert (record["payload"], record["precision"]) == ("adapter", "int8")
    assert (record["sites"], ORDER.to_record()["payload"]) == (2, "weights")


def test_a_moving_average_is_refused_with_a_precision_that_rounds():
    averaged = replace(SETTINGS, server_ema=0.9)

    assert averaged.precision == "float32"
    with pytest.raises(SettingsError, match="server-ema with precision float32 only"):
        replace(averaged, precision="int8")


def test_an_adapter_needs_a_model_to_begin_with():
    with pytest.raises(SettingsError, match="as init where an adapter is trained"):
        replace(SETTINGS, adapter_rank=16)

    assert replace(SETTINGS, adapter_rank=16, init="model").adapter_rank == 16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"adapter_rank": 0}, "an adapter to be trained privately"),
        ({"patience": 2}, "no patience"),
        ({"optimizer": "kept"}, "a fresh optimizer"),
        ({"dp_noise": 0.0}, "noise_multiplier"),
        ({"dp_epsilon": -1.0}, "epsilon"),
        ({"dp_epsilon": 0.0, "dp_noise": 2.0}, "give it as dp-epsilon"),
    ],
)
def test_a_private_job_that_could_not_keep_its_promise_is_refused(change, reason):
    private = {"dp_epsilon": 8.0, "adapter_rank": 4, "init": "model"}

    assert replace(SETTINGS, **private).privacy().epsilon == 8.0
    with pytest.raises(SettingsError, match=reason):
        replace(SETTINGS, **(private | change))


def test_what_a_site_is_to_promise_survives_the_message():
    privacy = PrivacySettings(epsilon=3.0, noise_multiplier=1.5)
    private = replace(ORDER, base="3" * 64, adapter_rank=4, privacy=privacy)

    assert RoundOrder.from_record(private.to_record()).privacy == privacy
    assert RoundOrder.from_record(ORDER.to_record()).privacy is None


def test_an_order_of_another_version_is_refused():
    with pytest.raises(MismatchError, match="same version"):
        RoundOrder.from_record({**ORDER.to_record(), "version": "9.9.9"})


@pytest.mark.parametrize(
    "change",
    [
        {"round": "2"},
        {"steps": -1},
        {"steps": 10**12},
        {"manifest": 0},
        {"start": None},
        {"start": "../" + "1" * 61},
        {"job": "../../../" + "a" * 55},
        {"job": "A" * 64},
        {"job": ""},
        {"sites": -1},
        {"sites": True},
        {"seed": 2**63},
        {"payload": "adapter"},
        {"payload": "other"},
        {"base": "3" * 64},
        {"base": None},
        {"base": 0},
        {"base": False},
        {"base": b""},
        {"base": "3" * 64, "payload": "adapter"},
        {"base": "../x", "payload": "adapter", "adapter-rank": 4},
        {"base": ["3" * 64], "payload": "adapter", "adapter-rank": 4},
        {"adapter-rank": 4},
        {"adapter-rank": 10**6, "payload": "adapter", "base": "3" * 64},
        {"precision": "float64"},
        {"precision": ["int8"]},
        {"optimizer": None},
        {"training": "{"},
        {"training": "[" * 100_000},
        {"training": json.dumps({"unknown": 1})},
        {"training": json.dumps({"batch_clips": 10**9})},
        {"training": json.dumps({"method": "magic"})},
        {"training": json.dumps({"method": ["known"]})},
        {"network": json.dumps({"layers": 1})},
        {"network": json.dumps({"layers": 10**9, "features": 16, "heads": 4})},
        {"network": json.dumps([])},
        {"network": 3},
        {"privacy": 3},
        {"privacy": json.dumps({"epsilon": 1.0, "delta": 2.0})},
    ],
)
def test_an_order_that_is_none_is_refused_in_a_sentence(change):
    with pytest.raises(CTFlowError):
        RoundOrder.from_record({**ORDER.to_record(), **change})


@pytest.mark.parametrize("key", ORDER.to_record())
def test_an_order_that_lacks_a_part_is_refused_in_a_sentence(key):
    record = ORDER.to_record()
    del record[key]

    with pytest.raises(CTFlowError):
        RoundOrder.from_record(record)


def test_a_message_without_an_order_is_refused():
    with pytest.raises(MismatchError):
        RoundOrder.from_record({})
    with pytest.raises(UpdateError, match="order"):
        RoundOrder.from_record({"version": ORDER.version})
