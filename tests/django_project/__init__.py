"""A small Django project, for the tests of `domain_events.django`."""

from pathlib import Path

MANAGE = Path(__file__).resolve().parent / "manage.py"
