"""Uploads of sources and downloads of results, off the event loop and in constant memory.

* `uploads`: each content once. It uses `sources` (a file that can be uploaded), `sniffing` (its format), `reading`
  (hashing and reading in threads), `upload_cache` (what was uploaded) and `ingestion` (what HeyGen still processes).
* `downloads`: video and captions. It uses `targets` (the name of an output and everything that prevents it, found
  before paying), `parts` (the unfinished file on disk) and `fetch` (links, and bytes with resume).
* Both use `transfers` (what a session shares) and `hosts` (answers of file hosts).
"""
