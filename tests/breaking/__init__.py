"""Tests that break the servers, the network and the processes on purpose, and what they use for that."""
