"""What files contain, so that each tells whose it is: outputs name their job, local files themselves. Pure."""


def video_of(job_id: str, size: int) -> bytes:
    """Return the output of a job: a small MP4 that names it."""
    name = job_id.encode()
    filler = (name * (size // len(name) + 1))[:size]
    boxes = ((b"ftyp", b"isom\0\0\0\0"), (b"moov", b""), (b"mdat", name + b"|" + filler))
    return b"".join((len(body) + 8).to_bytes(4, "big") + kind + body for kind, body in boxes)


def job_of(content: bytes, size: int) -> str | None:
    """Return the job that *content* is the whole output of."""
    name = content[32:].partition(b"|")[0].decode(errors="replace")
    return name if content == video_of(name, size) else None


def local_video(name: str, size: int = 200) -> bytes:
    """Return the content of a local video that is called *name*."""
    body = f"<{name}>".encode()
    return b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0\0\0\x08moov" + body + b"." * (size - len(body))


def local_audio(name: str, size: int = 200) -> bytes:
    """Return the content of a local audio file that is called *name*."""
    body = f"<{name}>".encode()
    return b"ID3\x03\0\0\0\0\0\0" + body + b"." * (size - len(body))


def content_name(content: bytes) -> str:
    """Return what a local file is called by its content."""
    start, end = content.find(b"<"), content.find(b">")
    return content[start + 1 : end].decode(errors="replace") if 0 <= start < end else "?"


def without_signature(url: str) -> str:
    """Return a URL without the parameter that the simulation signs with."""
    start, _, query = url.partition("?")
    kept = "&".join(part for part in query.split("&") if part and not part.startswith("X-Amz-"))
    return f"{start}?{kept}" if kept else start
