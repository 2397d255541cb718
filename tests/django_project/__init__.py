"""A small Django project, for the tests of `domain_events.django`."""
