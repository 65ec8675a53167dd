import pytest

from bot import config


def test_defaults_are_usable():
    settings = config.load({})
    assert (settings.port, settings.history_limit, settings.release) == (8000, 50, "dev")


@pytest.mark.parametrize("value", ["many", "", "1.5", "0", "-3"])
def test_a_bad_history_limit_is_refused_by_name(value):
    with pytest.raises(config.ConfigError, match="HISTORY_LIMIT"):
        config.load({"HISTORY_LIMIT": value})
