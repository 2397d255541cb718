"""The tests: unit (no broker), integration (a real one), acceptance (whole processes), typing (for mypy)."""
