"""The smallest program of each peer, for what a start takes and how much memory an idle consumer has.

They are run as files, and import nothing of the other benchmarks: nobody pays for a library that is not his own.
The environment has `AMQP_URL`, `BENCH_QUEUE` (for several receivers of one program: names, separated by commas) and
`BENCH_FIRST`, the file for the time of the first event.
"""
