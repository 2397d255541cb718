"""Settings of a project without any receivers."""

INSTALLED_APPS = ["domain_events.django"]
