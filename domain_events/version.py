"""The version of this library, for the wheel, `--version` and the broker's list of connections."""

__version__ = "0.1.0"
