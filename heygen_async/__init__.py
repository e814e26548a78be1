"""The asyncio-first client for HeyGen's v3 Lipsync API."""
