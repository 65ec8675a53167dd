"""Settings, all from the environment."""

import os
from dataclasses import dataclass


class ConfigError(ValueError):
    """A setting that cannot be used. Its text names the variable."""


@dataclass(frozen=True)
class Config:
    database_url: str
    redis_url: str
    port: int
    history_limit: int
    release: str
    host: str
    commit: str


def _integer(env, name, default):
    text = env.get(name, default)
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f'{name} must be an integer, not "{text}"') from None
    if value < 1:
        raise ConfigError(f"{name} must be positive, not {value}")
    return value


def load(env=os.environ):
    return Config(
        database_url=env.get("DATABASE_URL", "postgresql://bot:bot@localhost:5432/bot"),
        redis_url=env.get("REDIS_URL", "redis://localhost:6379/0"),
        port=_integer(env, "PORT", "8000"),
        history_limit=_integer(env, "HISTORY_LIMIT", "50"),
        release=env.get("MUSTER_RELEASE", "dev"),
        host=env.get("MUSTER_HOST", "local"),
        commit=env.get("BOT_COMMIT", "unknown"),
    )
