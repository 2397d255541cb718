"""The C client: two programs on librabbitmq, the mark to measure against.

They do what the protocol asks for and nothing else: no JSON, no handler, no reconnecting.
"""
