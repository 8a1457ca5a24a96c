from dataclasses import replace

import pytest

from ctflow_fed.demo import DemoSettings
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation import UtilitySettings


def test_every_setting_belongs_to_the_identity_but_where_the_model_lies():
    settings = DemoSettings()

    assert settings.identity == replace(settings, init="elsewhere").identity
    for other in (
        replace(settings, seed=1),
        replace(settings, rounds=9),
        replace(settings, utility=UtilitySettings(steps=3)),
    ):
        assert other.identity != settings.identity


@pytest.mark.parametrize(
    "wrong", [{"studies": 0}, {"seed": -1}, {"slices": 8}, {"image_size": 8}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SettingsError):
        DemoSettings(**wrong)
