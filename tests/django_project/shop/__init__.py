"""An app with receivers."""
