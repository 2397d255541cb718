"""Django's own kind of receivers."""

from django.db.models.signals import post_save


def on_save(**kwargs: object) -> None:
    """Nothing to do."""


post_save.connect(on_save, dispatch_uid="handbook")
