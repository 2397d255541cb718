"""What the handlers write."""

from django.db import models


class Order(models.Model):
    """An order that an event told of."""

    number = models.IntegerField()
    backend = models.IntegerField(default=0)
    """The PostgreSQL process that wrote the row: the same number, the same connection."""
