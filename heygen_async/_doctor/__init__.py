"""What `heygen.doctor()` does: read-only calls, and what they say about network, key, account and API."""
