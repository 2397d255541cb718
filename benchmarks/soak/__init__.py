"""Random faults for minutes or hours, and a ledger at the end: is any event lost?

    python -m benchmarks.soak --minutes 30 --nodes 3 --version 4.3 --seed 7

See `python -m benchmarks.soak --help`, and `run` for what happens.
"""
