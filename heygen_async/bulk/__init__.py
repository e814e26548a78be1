"""Bulk dubbing: a thousand rows, one command, nothing twice and nothing lost."""
