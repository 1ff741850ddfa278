"""The demo and the real servers it shares with the tests and the benchmarks."""
