"""The project with its two databases on a real PostgreSQL, in this process and for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.databases import Postgres

DATABASES = ("shop", "shop_other")


@pytest.fixture(scope="session")
def shop_environment(postgres: Postgres) -> dict[str, str]:
    """What a process of the project needs."""
    return {"SHOP_DATABASE_HOST": postgres.folder, "DJANGO_SETTINGS_MODULE": "tests.django_project.settings"}


@pytest.fixture(scope="session")
def _django(postgres: Postgres, shop_environment: dict[str, str]) -> None:
    """Django, set up once for this process, with empty tables in both databases."""
    import django
    from django.core.management import call_command
    from django.db import connections

    with psycopg.connect(postgres.url, autocommit=True) as server:
        for name in DATABASES:
            server.execute(f"create database {name}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shop_environment.items():
            patch.setenv(name, value)
        django.setup()
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
    connections.close_all()


@pytest.fixture
def shop(_django: None) -> Iterator[Any]:
    """The model Order, without rows in either database."""
    from django.db import connections

    from tests.django_project.shop.models import Order

    for alias in connections:
        Order.objects.using(alias).all().delete()
    yield Order
    connections.close_all()
