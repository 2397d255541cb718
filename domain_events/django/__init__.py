"""Domain events in a Django project: settings, checks, sending on commit, `manage.py domain_events_supervisor`."""

from domain_events.django.on_commit import send_domain_event_on_commit

__all__ = ["send_domain_event_on_commit"]
