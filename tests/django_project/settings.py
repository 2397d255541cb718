"""Settings; SHOP_... variables of the environment say what a test wants to be different."""

import os

SECRET_KEY = "not a secret"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["domain_events.django", "tests.django_project.shop", *os.environ.get("SHOP_APPS", "").split()]

_DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ["SHOP_DATABASE_HOST"],
    "USER": "postgres",
    "OPTIONS": {"application_name": os.environ.get("SHOP_APPLICATION", "shop")},
    "CONN_MAX_AGE": None if os.environ.get("SHOP_PERSISTENT_CONNECTIONS") else 0,
    "CONN_HEALTH_CHECKS": True,
}
DATABASES = {
    "default": {**_DATABASE, "NAME": "shop"},
    "other": {**_DATABASE, "NAME": "shop_other"},
}

if "SHOP_BROKER" in os.environ:
    DOMAIN_EVENT_BROKER = os.environ["SHOP_BROKER"]

if os.environ.get("SHOP_LOGGING"):
    LOGGING = {
        "version": 1,
        "formatters": {"own": {"format": "OWN %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "own"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    }
