"""The rooms of bin/broker."""
