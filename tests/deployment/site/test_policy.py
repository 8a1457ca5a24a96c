"""site.toml: what it must hold, and how it is refused."""

from dataclasses import fields
from datetime import time

import pytest

from ctflow_fed.deployment.site.policy import SITE_TOML, Hours, Policy, read_policy
from ctflow_fed.errors import SettingsError


def read(tmp_path, old="", new=""):
    assert old in SITE_TOML
    (tmp_path / "site.toml").write_text(SITE_TOML.replace(old, new))
    return read_policy(tmp_path / "site.toml")


def test_the_file_of_a_kit_has_every_line_with_its_value(tmp_path):
    policy = read(tmp_path)

    assert {f.name for f in fields(Policy)} == set(vars(policy))
    assert (policy.rounds, policy.steps, policy.hours) == (1000, 2000, None)
    assert policy.payloads == ("weights", "adapter")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("steps = 2000\n", "", "steps"),
        ("steps = 2000", "steps = true", "steps"),
        ("steps = 2000", "steps = 1.5", "steps"),
        ("steps = 2000", "steps = 2000\nsecret = 1", "secret"),
        ("digits = 3", "digits = 0", "digits"),
        ("gpu_share = 1.0", "gpu_share = 2", "gpu_share"),
        ("largest_norm = 10.0", "largest_norm = nan", "largest_norm"),
        ('hours = ""', 'hours = "25:00-07:00"', "hours"),
        ("signers = []", 'signers = ["abc"]', "signers"),
        ('"adapter"]', '"pictures"]', "payloads"),
        ("base_models = []", 'base_models = ["12"]', "base_models"),
        ("secure_aggregation = false", "secure_aggregation = 0", "secure_aggregation"),
    ],
)
def test_a_line_that_is_wrong_is_refused_by_its_name(tmp_path, old, new, named):
    with pytest.raises(SettingsError, match=named):
        read(tmp_path, old, new)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "site.toml").write_text("steps 5")

    with pytest.raises(SettingsError, match=r"site\.toml"):
        read_policy(tmp_path / "site.toml")


@pytest.mark.parametrize(
    ("moment", "night", "day"),
    [("19:00", True, False), ("06:59", True, False), ("07:00", False, True)],
)
def test_hours_may_go_over_midnight(moment, night, day):
    begin, end, now = time(19), time(7), time.fromisoformat(moment)

    assert (now in Hours(begin, end)) == night
    assert (now in Hours(end, begin)) == day
