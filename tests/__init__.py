"""Tests of the provider; ``format_reader`` and ``official_backups`` never import it."""
