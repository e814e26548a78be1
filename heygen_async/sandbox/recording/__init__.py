"""Recordings of a real API: a proxy that makes them, what they consist of, and a sandbox that answers from them."""
