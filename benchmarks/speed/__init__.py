"""How fast this is, next to others: `bin/bench` runs it, docs/performance.md has the figures.

A scenario has cases; in each case the peers are measured in turns, one process for one measurement (`run`).
"""
