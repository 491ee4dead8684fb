"""docker-compose.yml at work: each service's command, natively, in the environment that the file gives it."""

from __future__ import annotations

import pytest
from stack_night import Night, check_logs, check_table

pytestmark = pytest.mark.stack


def test_a_night_is_published(local: Night) -> None:
    assert set(local.stack.containers) == {
        *("postgres", "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"),
    }
    check_table(local)


def test_no_service_complains_of_its_configuration(local: Night) -> None:
    check_logs(local)
