"""What the tests share. Those that need stores use the environment's own and are skipped without."""

import os
import uuid

import pytest

needs_database = pytest.mark.skipif("DATABASE_URL" not in os.environ, reason="DATABASE_URL is not set")
needs_redis = pytest.mark.skipif("REDIS_URL" not in os.environ, reason="REDIS_URL is not set")


@pytest.fixture
def user():
    """Somebody nobody else writes as."""
    return f"test-{uuid.uuid4().hex[:12]}"
