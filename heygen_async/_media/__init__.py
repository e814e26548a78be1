"""Uploads of sources and downloads of results, off the event loop and in constant memory.

* `uploads`: each content once. It uses `sources` (a file that can be uploaded), `sniffing` (its format), `files`
  (reading and hashing in threads), `upload_cache` (what was uploaded) and `ingestion` (what HeyGen still processes).
* `downloads`: video and captions. It uses `targets` (everything that prevents an output, found before paying), `names`
  (what it is called), `parts` (the unfinished file on disk) and `fetch` (links, and bytes with resume).
* Both use `transfers` (what a session shares), `attempts` (when to retry) and `hosts` (answers of file hosts).
"""
