"""The pure decisions of the media modules: formats, names, ranges, links, boxes."""

import errno
import io
import os
import random
import re
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heygen_async import DownloadError, Lipsync, LipsyncFailed, Secret
from heygen_async._media.first_bytes import Verdict, is_page, verdict_on
from heygen_async._media.hosts import (
    PartState,
    declared_otherwise,
    not_stored,
    range_headers,
    refusal,
    resumed,
    strong_etag,
)
from heygen_async._media.mp4_boxes import cut_short, without_end
from heygen_async._media.output_links import expires_at, link_of
from heygen_async._media.parts import Part, remove_leftovers
from heygen_async._media.sniffing import recognize, sniff
from heygen_async._media.targets import captions_path, file_name
from heygen_async._media.uploads import put_headers
from heygen_async._text import is_text
from heygen_async.errors import ServerError, UnexpectedResponse

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
ID3 = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
MP3 = ID3 + bytes(20)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(20)
WEBM = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + bytes(20)
MKV = b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska" + bytes(20)
PDF = b"%PDF-1.7\n" + bytes(20)
SRT = "1\n00:00:00,000 --> 00:00:01,000\nÇa va\n".encode()


def ftyp(major, *others):
    brands = b"".join(others)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + bytes(20)


def frames(header, length, count=3):
    """Make frames of MPEG audio, of one length in bytes each."""
    return (header + bytes(length - len(header))) * count


MP4 = ftyp(b"isom", b"isom", b"mp42")
MOV = ftyp(b"qt  ", b"qt  ")
MP3_FRAMES = frames(b"\xff\xfb\x90\x64", 417)


# Types


@pytest.mark.parametrize(
    ("head", "name", "found"),
    [
        pytest.param(MP4, "a.mp4", "video/mp4", id="mp4"),
        pytest.param(MP4, "a.M4V", "video/mp4", id="m4v-extension"),
        pytest.param(ftyp(b"iso5", b"iso6", b"avc1"), "a.mp4", "video/mp4", id="fragmented-mp4"),
        pytest.param(ftyp(b"3gp4", b"isom", b"3gp4"), "a.mp4", "video/mp4", id="mp4-of-a-phone"),
        pytest.param(b"\x00\x00\x00\x08free" + MP4, "a.mp4", "video/mp4", id="mp4-after-free-space"),
        pytest.param(WEBM, "a.webm", "video/webm", id="webm"),
        pytest.param(
            b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x40\x05webm\0", "a.webm", "video/webm", id="webm-long-sizes"
        ),
        pytest.param(MP3, "a.mp3", "audio/mpeg", id="mp3"),
        pytest.param(b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + bytes(200), "a.mp3", "audio/mpeg", id="mp3-with-a-cover"),
        pytest.param(b"\xff\xfb\x90\x64" + bytes(20), "a.mp3", "audio/mpeg", id="mp3-without-tags"),
        pytest.param(b"\xff\xfa\x90\x64" + bytes(20), "a.mp3", "audio/mpeg", id="mp3-with-checksums"),
        pytest.param(frames(b"\xff\xf3\x84\x44", 208), "a.mp3", "audio/mpeg", id="mpeg-2"),
        pytest.param(frames(b"\xff\xe3\x48\xc4", 208), "a.mp3", "audio/mpeg", id="mpeg-2.5"),
        pytest.param(bytes(2000) + MP3_FRAMES, "a.mp3", "audio/mpeg", id="mp3-after-padding"),
        pytest.param(b"\xff\x00the end of a frame" + MP3_FRAMES, "a.mp3", "audio/mpeg", id="mp3-after-remains"),
        pytest.param(WAV, "a.wav", "audio/wav", id="wav"),
        pytest.param(b"RF64\xff\xff\xff\xffWAVEds64" + bytes(20), "a.wav", "audio/wav", id="wav-of-64-bits"),
        pytest.param(PNG, "a.png", "image/png", id="png"),
        pytest.param(JPEG, "a.jpeg", "image/jpeg", id="jpeg"),
        pytest.param(PDF, "a.pdf", "application/pdf", id="pdf"),
        pytest.param(SRT, "a.srt", "application/x-subrip", id="srt"),
        pytest.param(b"\xef\xbb\xbf" + SRT, "a.srt", "application/x-subrip", id="srt-with-a-bom"),
    ],
)
def test_each_format_that_heygen_takes_is_recognized_by_its_first_bytes(head, name, found):
    assert sniff(head, name) == (found, name)


@pytest.mark.parametrize(
    "brand",
    [
        "isom",
        "iso2",
        "iso5",
        "iso6",
        "mp41",
        "mp42",
        "mp71",
        "avc1",
        "dash",
        "M4V ",
        "M4VH",
        "XAVC",
        "MSNV",
        "NDSC",
        "mmp4",
    ],
)
def test_an_mp4_is_a_video_whatever_its_major_brand(brand):
    head = ftyp(brand.encode(), brand.encode(), b"mp42")

    assert sniff(head, "a.mp4", role="video") == ("video/mp4", "a.mp4")
    assert sniff(ftyp(brand.encode()), "a.mp4") == ("video/mp4", "a.mp4")


@pytest.mark.parametrize(
    ("role", "taken"), [("video", "MP4 or WebM video"), ("audio", "WAV or MP3 audio"), (None, "MP4, WebM, MP3, WAV")]
)
def test_a_file_of_an_unknown_format_names_the_formats_of_its_role(role, taken):
    with pytest.raises(ValueError, match=rf"unknown format \(.*\); HeyGen takes {taken}"):
        sniff(b"\x00\x01\x02\x03" * 9, "a.bin", role=role)


@pytest.mark.parametrize(
    ("head", "name", "message"),
    [
        pytest.param(b"", "a.mp4", "a.mp4 is empty", id="empty"),
        pytest.param(b"hello world, this is text", "a.mp4", "a.mp4 is text; HeyGen takes MP4, WebM, MP3", id="text"),
        pytest.param(b"\x00\x01\x02\x03" * 9, "a.mp4", "a.mp4 is of an unknown format", id="unknown"),
        pytest.param(MKV, "a.mkv", "a.mkv is a Matroska file; HeyGen takes MP4 or WebM video", id="matroska"),
        pytest.param(MKV, "a.webm", "a.webm is a Matroska file", id="matroska-named-webm"),
        pytest.param(MOV, "a.mov", "a.mov is a QuickTime movie; HeyGen takes MP4 or WebM video", id="quicktime"),
        pytest.param(MOV, "a.mp4", "a.mp4 is a QuickTime movie", id="quicktime-named-mp4"),
        pytest.param(ftyp(b"qt  ", b"mp42"), "a.mp4", "a.mp4 is a QuickTime movie", id="quicktime-of-a-camera"),
        pytest.param(b"\x00\x00\x01\x00moov" + bytes(30), "a.mov", "is a QuickTime movie", id="quicktime-of-1998"),
        pytest.param(ftyp(b"M4A ", b"M4A ", b"mp42"), "a.m4a", "is M4A audio; HeyGen takes WAV or MP3 audio", id="m4a"),
        pytest.param(ftyp(b"M4A ", b"isom"), "a.mp4", "a.mp4 is M4A audio", id="m4a-named-mp4"),
        pytest.param(ftyp(b"mp42", b"isom"), "voice.m4a", "voice.m4a is M4A audio", id="m4a-with-brands-of-video"),
        pytest.param(ftyp(b"3gp5", b"3gp5"), "a.3gp", "is a 3GPP video", id="3gp"),
        pytest.param(ftyp(b"heic", b"mif1"), "a.heic", "is a HEIF or AVIF image", id="heic"),
        pytest.param(b"OggS\x00\x02" + bytes(30), "a.ogg", "is an Ogg file; HeyGen takes WAV or MP3 audio", id="ogg"),
        pytest.param(b"fLaC\x00\x00" + bytes(30), "a.mp3", "a.mp3 is FLAC audio", id="flac"),
        pytest.param(ID3 + b"fLaC\x00\x00" + bytes(30), "a.mp3", "a.mp3 is FLAC audio", id="flac-with-tags"),
        pytest.param(frames(b"\xff\xf1\x50\x80", 300), "a.mp3", "a.mp3 is AAC audio", id="aac"),
        pytest.param(ID3 + frames(b"\xff\xf9\x50\x80", 300), "a.aac", "a.aac is AAC audio", id="aac-with-tags"),
        pytest.param(frames(b"\xff\xfd\x90\x04", 417), "a.mp2", "of another layer than MP3", id="mp2"),
        pytest.param(b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(20), "a.avi", "is an AVI video", id="avi"),
        pytest.param(b"\x47" + bytes(187) + b"\x47" + bytes(187), "a.ts", "is an MPEG stream", id="mpeg-ts"),
        pytest.param(b"<!DOCTYPE html><p>Sign in", "a.mp4", "a.mp4 is an HTML page", id="html"),
        pytest.param(b"\xef\xbb\xbf \n<HTML lang=en>", "a.mp3", "a.mp3 is an HTML page", id="html-with-a-bom"),
        pytest.param(b"<!-- hi --><head>", "a.mp4", "a.mp4 is an HTML page", id="html-after-a-comment"),
        pytest.param(b"<?xml version='1.0'?><Error/>", "a.mp4", "a.mp4 is an XML document", id="xml"),
        pytest.param(b"PK\x03\x04" + bytes(30), "a.mp4", "a.mp4 is a ZIP archive", id="zip"),
        pytest.param(b"WEBVTT\n\n00:00.000 --> 00:01.000\nHi", "a.vtt", "is WebVTT captions", id="vtt"),
        pytest.param(MP4, "a.mp3", r"a.mp3 is MP4 video but has the extension .mp3; rename it", id="mp4-named-mp3"),
        pytest.param(MP4, "a.mov", "is MP4 video but has the extension .mov; rename it", id="mp4-named-mov"),
        pytest.param(
            WEBM, "a.mp4", "is WebM video but has the extension .mp4; rename it to .webm", id="webm-named-mp4"
        ),
        pytest.param(SRT, "a.txt", "is SRT captions but has the extension .txt; rename it to .srt", id="srt-named-txt"),
        pytest.param(MP3, "a.srt", "not UTF-8|no SRT cue", id="no-srt"),
        pytest.param(SRT.decode().encode("utf-16"), "a.srt", "a.srt is not UTF-8 text", id="srt-in-utf-16"),
        pytest.param(b"just words", "a.srt", "a.srt has no SRT cue", id="srt-without-cues"),
    ],
)
def test_other_formats_are_refused_with_the_name_and_what_was_found(head, name, message):
    with pytest.raises(ValueError, match=message):
        sniff(head, name)


@pytest.mark.parametrize(
    ("role", "head", "fits"),
    [
        ("video", MP4, True),
        ("video", WEBM, True),
        ("video", MP3, False),
        ("video", PNG, False),
        ("audio", MP3, True),
        ("audio", WAV, True),
        ("audio", MP4, False),
        ("audio", PDF, False),
    ],
)
def test_a_video_is_mp4_or_webm_and_an_audio_is_wav_or_mp3(role, head, fits):
    if fits:
        sniff(head, "file", role=role)
    else:
        takes = {"video": "MP4 or WebM video", "audio": "WAV or MP3 audio"}[role]
        with pytest.raises(ValueError, match=f"{role}: file is .*; HeyGen takes {takes}"):
            sniff(head, "file", role=role)


@pytest.mark.parametrize("name", ["clip", "Episode 1.final", "v2.0"])
def test_a_name_whose_extension_says_nothing_gets_one(name):
    assert sniff(MP4, name) == ("video/mp4", f"{name}.mp4")


def test_an_srt_whose_last_character_is_cut_in_two_is_still_utf_8():
    text = SRT + "é".encode() * 5000

    assert sniff(text[: len(SRT) + 4097], "a.srt")[0] == "application/x-subrip"


@given(st.binary(max_size=64), st.text(max_size=8))
def test_sniffing_never_fails_but_with_a_value_error(head, name):
    with suppress(ValueError):
        sniff(head, name)


@given(
    st.sampled_from([MP4[:8], WEBM[:12], b"ID3", b"\xff\xfb", b"RIFF", b"\x00\x00\x00\x01free"]), st.binary(max_size=64)
)
def test_recognizing_ends_whatever_follows_a_signature(start, rest):
    recognize(start + rest)


def test_random_bytes_are_not_recognized_as_audio():
    chance = random.Random(1)

    assert {recognize(b"\x00" + chance.randbytes(8191)) for _ in range(50)} == {None}


# Names


@pytest.mark.parametrize(
    ("title", "name"),
    [
        pytest.param("Episode 1, French", "Episode 1, French (ls_1).mp4", id="plain"),
        pytest.param(None, "ls_1.mp4", id="none"),
        pytest.param("../../etc/passwd", "_.._etc_passwd (ls_1).mp4", id="traversal"),
        pytest.param("..", "ls_1.mp4", id="dots"),
        pytest.param("a/b\\c:d", "a_b_c_d (ls_1).mp4", id="separators"),
        pytest.param("CON.x", "_CON.x (ls_1).mp4", id="reserved"),
        pytest.param("Größe 日本 🎬", "Größe 日本 🎬 (ls_1).mp4", id="unicode"),
        pytest.param("line\nbreak\x00\u202e", "line break (ls_1).mp4", id="controls"),
        pytest.param("می\u200cخواهم", "می\u200cخواهم (ls_1).mp4", id="persian-with-zwnj"),  # noqa: RUF001 Persian
        pytest.param("👩\u200d👩\u200d👧 家族", "👩\u200d👩\u200d👧 家族 (ls_1).mp4", id="emoji-with-zwj"),
        pytest.param("第一話\u3000東京", "第一話\u3000東京 (ls_1).mp4", id="ideographic-space"),
        pytest.param("Épisode\u00a01", "Épisode\u00a01 (ls_1).mp4", id="no-break-space"),
        pytest.param("Launch \ud83d!", "Launch ! (ls_1).mp4", id="lone-surrogate"),
        pytest.param("nul", "nul (ls_1).mp4", id="a-device-but-for-the-id"),
        pytest.param("com1.fr", "_com1.fr (ls_1).mp4", id="device-with-an-extension"),
        pytest.param("trailing. .", "trailing (ls_1).mp4", id="trailing-dots"),
        pytest.param("-rf", "rf (ls_1).mp4", id="an-option"),
        pytest.param("~root/.-~ x -", "root_.-~ x - (ls_1).mp4", id="a-home-folder"),
        pytest.param(". -\u00a0-- ~", "ls_1.mp4", id="nothing-else"),
    ],
)
def test_a_file_is_named_after_title_and_id(title, name):
    assert file_name(title, "ls_1", "https://x.test/o.mp4?X=1") == name


@given(st.text(max_size=400), st.text(max_size=300), st.text(max_size=30))
@example("é" * 300, "ls_1", "https://x.test/a.webm")
@example("\ud800", "\ud800", "")
@example("nul", "con", "")
@example("", "NUL .x", "")
@example("", ")", "")
@example("-", "~.-", "")
def test_a_name_is_safe_whatever_title_and_id_are(title, lipsync_id, tail):
    name = file_name(title, lipsync_id, f"https://x.test/{tail}".replace("[", "").replace("]", ""))

    assert len(name.encode()) <= 200
    assert not set(name) & set('/\\<>:"|?*\0')
    assert is_text(name)
    assert not name.startswith((".", " ", "-", "~"))
    assert name.partition(".")[0].strip().lower() not in {"con", "nul", "prn", "aux", "com1", "lpt9"}
    assert name.endswith((".mp4", ".webm", ".mov", ".m4v"))


@given(st.text(min_size=30, max_size=200), st.integers(100, 200))
@example("👩\u200d👩\u200d👧" * 20, 143)
@example("नि" * 60, 131)
def test_a_name_that_must_be_cut_is_cut_between_characters(title, longest):
    name = file_name(title, "ls_1", "", longest=longest)

    assert len(name.encode()) <= longest
    if name.startswith("👩"):
        assert name.removesuffix(" (ls_1).mp4").endswith("👧")
    if name.startswith("न"):
        assert name.removesuffix(" (ls_1).mp4").endswith("नि")


def test_the_path_of_captions_is_beside_the_video(tmp_path):
    assert captions_path(tmp_path / "a.b.mp4") == tmp_path / "a.b.srt"
    assert captions_path(tmp_path / "a.srt") == tmp_path / "a.srt.srt"


# Ranges


def test_a_range_is_requested_only_of_a_known_version():
    assert range_headers(PartState()) == {}
    assert range_headers(PartState(10, None)) == {}
    assert range_headers(PartState(10, '"a"', 20)) == {"Range": "bytes=10-", "If-Range": '"a"'}


def test_of_a_complete_file_the_last_byte_is_requested_again():
    assert range_headers(PartState(20, '"a"', 20))["Range"] == "bytes=19-"


@pytest.mark.parametrize(
    ("status", "headers", "result"),
    [
        pytest.param(206, {"Content-Range": "bytes 10-19/20", "ETag": '"a"'}, PartState(10, '"a"', 20), id="goes-on"),
        pytest.param(206, {"Content-Range": "bytes 10-19/20"}, PartState(10, '"a"', 20), id="goes-on-without-etag"),
        pytest.param(206, {"Content-Range": "bytes 10-19/*"}, PartState(10, '"a"', 20), id="goes-on-without-total"),
        pytest.param(206, {"Content-Range": "bytes 9-19/20"}, None, id="another-start"),
        pytest.param(206, {"Content-Range": "bytes 10-19/99"}, None, id="another-total"),
        pytest.param(206, {"Content-Range": "bytes 10-19/20", "ETag": '"b"'}, None, id="another-version"),
        pytest.param(206, {"Content-Range": "bytes 10-19/20", "ETag": 'W/"b"'}, None, id="another-weak-version"),
        pytest.param(
            206, {"Content-Range": "bytes 10-19/20", "ETag": 'W/"a"'}, PartState(10, '"a"', 20), id="goes-on-weakly"
        ),
        pytest.param(206, {}, None, id="no-content-range"),
        pytest.param(206, {"Content-Range": "items 10-19/20"}, None, id="no-bytes"),
        pytest.param(416, {"Content-Range": "bytes */20"}, None, id="not-satisfiable"),
        pytest.param(200, {"Content-Length": "30", "ETag": '"b"'}, PartState(0, '"b"', 30), id="all-of-it"),
        pytest.param(200, {"ETag": 'W/"b"'}, PartState(0, None, None), id="all-of-it-of-unknown-length"),
    ],
)
def test_an_answer_to_a_resumed_download_continues_it_or_starts_again(status, headers, result):
    assert resumed(PartState(10, '"a"', 20), status, headers) == result


@pytest.mark.parametrize(
    ("headers", "result"),
    [
        pytest.param({"Content-Range": "bytes */10", "ETag": '"a"'}, PartState(10, '"a"', 10), id="all-of-it"),
        pytest.param({"Content-Range": "bytes */10"}, PartState(10, '"a"', 10), id="all-of-it-without-etag"),
        pytest.param({"Content-Range": "bytes */9"}, None, id="less"),
        pytest.param({"Content-Range": "bytes */11"}, None, id="more"),
        pytest.param({"Content-Range": "bytes */*"}, None, id="unknown-total"),
        pytest.param({"Content-Range": "bytes */10", "ETag": '"b"'}, None, id="another-version"),
        pytest.param({}, None, id="no-content-range"),
    ],
)
def test_a_file_of_unknown_length_is_complete_if_its_host_has_no_more_of_it(headers, result):
    assert resumed(PartState(10, '"a"'), 416, headers) == result


@pytest.mark.parametrize(
    ("headers", "result"),
    [
        pytest.param({"Content-Range": "bytes 0-19/20", "ETag": '"a"'}, PartState(0, '"a"', 20), id="whole"),
        pytest.param({"Content-Range": "bytes 0-9/20"}, PartState(0, None, 20), id="its-start"),
        pytest.param({"Content-Range": "bytes 0-9/*"}, None, id="unknown-total"),
        pytest.param({"Content-Range": "bytes 5-19/20"}, None, id="another-start"),
        pytest.param({}, None, id="no-content-range"),
    ],
)
def test_a_range_that_was_not_requested_is_the_start_of_a_file_of_known_length(headers, result):
    assert resumed(PartState(), 206, headers) == result


@pytest.mark.parametrize(
    "kind",
    [
        *("text/html", "text/html; charset=utf-8", "application/json", "application/xhtml+xml", "text/json"),
        *("application/xml", "Text/XML", "application/problem+json", "application/problem+xml; charset=utf-8"),
    ],
)
def test_a_page_is_not_media(kind):
    for media in ("video", "captions"):
        page = declared_otherwise(200, {"Content-Type": kind}, media)
        assert "a page" in str(page)
        assert page.is_transient
    with pytest.raises(UnexpectedResponse, match="a page"):
        resumed(PartState(), 200, {"Content-Type": kind}, "captions")


@pytest.mark.parametrize(
    "start",
    [
        *(b"<!DOCTYPE html><p>", b"  \n<html lang=en>", b"\xef\xbb\xbf<!doctype", b"<!-- x --><p>", b"<HEAD>"),
        *(b" " * 9000 + b"<html>", b"<?xml version='1.0'?><Error>", b'{"error": 1}', b"{}", b"[]", b'[\n{"a": 1}]'),
        *(b'\xef\xbb\xbf\r\n{ "a"', b"<Error><Code>AccessDenied</Code>", b"<title>"),
        *(b"<script>location = 1</script>", b"<meta http-equiv=refresh>", b"<h1>403</h1>", b"<div>", b"<center>"),
        *(b"<table>", b"<Response>", b"<ns:Error xmlns:ns='x'>", b"</p>", b"<h1>free"),
        *("\ufeff<!doctype html>".encode("utf-16-le"), "\ufeff \n<h1>".encode("utf-16-be")),
        '\ufeff{"a"'.encode("utf-16-le"),
        *("<html>".encode("utf-16-le"), "<!doctype".encode("utf-16-be"), " <p>".encode("utf-16-le")[:1] + b"\0<\0p\0"),
        *("\ufeff<html>".encode("utf-32-le"), "\ufeff\n{}".encode("utf-32-be")),
        *(b'["expired"]', b'"expired"', b"[[1]]", b' "expired"'),
    ],
)
def test_a_page_declared_as_media_is_not_media(start):
    assert is_page(start)


@pytest.mark.parametrize(
    "start",
    [
        *(b"", b"\xef\xbb", b"\xef\xbb\xbf", b" \r\n\t", b"<", b"\n<", b"{", b"[ \n", b" {  "),
        *(b"\xff", b"\xfe", b"\xff\xfe", b"\xff\xfe<", b"\xff\xfe<\0", b"\xfe\xff\0 \0<\0"),
    ],
)
def test_what_is_blank_or_cut_may_become_a_page(start):
    assert is_page(start) is None


@pytest.mark.parametrize(
    "start",
    [
        MP4,
        WEBM,
        MP3,
        SRT,
        b"\xef\xbb\xbf" + SRT,
        b"\n1\n",
        b"\0",
        b"any bytes",
        b"<3 any bytes",
        b"<a\0\0mdat",  # one box of a gigabyte
        b'"\0\0\0ftypmp42',
        b"\xff\xfb\x90",
        "\ufeff1\n".encode("utf-16-le"),
        b"[Music]",
        b"{video}",
    ],
)
def test_what_does_not_begin_like_a_page_may_be_media(start):
    assert is_page(start) is False


@pytest.mark.parametrize("kind", ["video/mp4", "application/octet-stream", "binary/xml", "text/plain", ""])
def test_other_types_may_be_media(kind):
    assert declared_otherwise(200, {"Content-Type": kind}, "video") is None


@pytest.mark.parametrize("kind", ["Text/Markdown", "text/css", "text/vtt; charset=utf-8"])
def test_a_text_may_be_captions_but_not_a_video(kind):
    assert resumed(PartState(), 200, {"Content-Type": kind}, "captions") == PartState()
    text = declared_otherwise(200, {"Content-Type": kind}, "video")
    assert re.search(r"sent text/\w+, which is no video", str(text))
    assert not text.is_transient


@pytest.mark.parametrize(
    "kind",
    [
        *("image/png", "IMAGE/JPEG", "audio/mpeg", "application/vnd.apple.mpegurl", "application/x-mpegURL"),
        *("application/pdf", "application/zip", "application/javascript"),
    ],
)
def test_media_of_another_type_is_not_a_video(kind):
    other = declared_otherwise(200, {"Content-Type": kind}, "video")
    assert f"sent {kind.lower()}, which is no video" in str(other)
    assert not other.is_transient


@pytest.mark.parametrize("kind", ["text/html", "application/xml", "image/png", "audio/mp4"])
def test_the_declared_type_of_a_video_counts_only_where_no_first_bytes_say_what_it_is(kind):
    headers = {"Content-Type": kind, "Content-Range": "bytes 10-19/20"}

    assert resumed(PartState(10, '"a"', 20), 200, headers) == PartState()
    assert resumed(PartState(), 206, {**headers, "Content-Range": "bytes 0-19/20"}) == PartState(0, None, 20)
    assert resumed(PartState(10, '"a"', 20), 206, {**headers, "ETag": '"a"'}) == PartState(10, '"a"', 20)
    with pytest.raises(UnexpectedResponse):  # perhaps a gateway's own answer
        resumed(PartState(10, '"a"', 20), 206, headers)


@pytest.mark.parametrize("kind", ["image/png", "video/mp4", "audio/mpeg; x=y"])
def test_media_are_not_captions(kind):
    with pytest.raises(UnexpectedResponse, match="which is no text"):
        resumed(PartState(), 200, {"Content-Type": kind}, "captions")


@pytest.mark.parametrize("box", ["ftyp", "styp", "moov", "moof", "mdat", "sidx", "uuid", "free", "skip", "wide", None])
def test_a_video_that_is_declared_as_plain_text_is_one(box):
    start = b"\0\0\0\x18" + box.encode() + b"isom" if box else WEBM

    assert verdict_on(start, "video", is_doubtful=True) is Verdict.MAY_BE
    assert verdict_on(start[:3], "video", is_doubtful=True) is Verdict.OPEN


@pytest.mark.parametrize("brand", [b"M4A ", b"heic", b"mif1", b"avif"])
def test_a_sound_or_an_image_in_boxes_is_no_video(brand):
    start = ftyp(brand, b"mp41", b"isom")

    assert verdict_on(start, "video", is_doubtful=True) is Verdict.OTHER
    assert verdict_on(start[:8], "video", is_doubtful=True) is Verdict.OPEN


@pytest.mark.parametrize("start", [b"Access denied", b"video", b"\0\0\0\x18junk", b"1\n00:00:01,000 --> 00:00:02,000"])
def test_other_plain_text_is_no_video(start):
    assert verdict_on(start, "video", is_doubtful=True, is_all=True) is Verdict.OTHER
    assert verdict_on(start, "captions", is_doubtful=True) is (Verdict.OTHER if b"\0" in start else Verdict.MAY_BE)
    assert verdict_on(start, "video") is Verdict.MAY_BE


@pytest.mark.parametrize(
    "start", [b"#EXTM3U\n#EXT", b"%PDF-1.4", b"PK\x03\x04....", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08\0"]
)
def test_what_begins_like_another_file_is_no_video(start):
    assert verdict_on(start, "video") is Verdict.OTHER
    assert verdict_on(start[:2], "video") is Verdict.OPEN
    assert verdict_on(start[:2], "video", is_all=True) is Verdict.MAY_BE


BINARY = [
    *(b"\0\0\0\x18ftypisom", b"\x1f\x8b\x08\x08abc", b"\x89PNG\r\n\x1a\n\0", bytes(10), b"PK\x03\x04..."),
    *(WEBM, b"%PDF-1.7", b"ID3\x03\0\0", b"RIFF\x24\0\0\0WAVE", b"\xff\xd8\xff\xe0\0\x10JFIF"),
    *("1\n00:00".encode("utf-16-le"), b"1\n\0"),
]


@pytest.mark.parametrize("start", BINARY)
def test_what_is_no_text_is_no_captions_whatever_its_type(start):
    for is_doubtful in (True, False):
        assert verdict_on(start, "captions", is_doubtful=is_doubtful) is Verdict.OTHER
        verdicts = [verdict_on(start[:length], "captions", is_doubtful=is_doubtful) for length in range(1, len(start))]
        assert all(verdict is not Verdict.PAGE for verdict in verdicts)


@pytest.mark.parametrize(
    "text",
    ["1\n00:00:01,000 --> 00:00:02,000\nHi", "WEBVTT\n", "\ufeff1\n", "PK", "%", "ID3", "RIFF!", "\x1f", "#EXT"],
)
def test_text_may_be_captions_in_utf_8_and_with_a_mark_in_utf_16_and_32(text):
    marked = text.removeprefix("\ufeff")
    encoded = [
        text.encode(),
        marked.encode("utf-16"),
        marked.encode("utf-32"),
        b"\xfe\xff" + marked.encode("utf-16-be"),
    ]
    for start in encoded:
        assert verdict_on(start, "captions", is_all=True) is Verdict.MAY_BE


@pytest.mark.parametrize("start", [b"<", b" {", b"[\n", b"\xff\xfe", b"<\0", b"\0<\0", b"\xff\xfe\0\0<\0\0\0"])
@pytest.mark.parametrize("kind", ["video", "captions"])
def test_a_body_that_ends_where_a_page_may_begin_is_refused(start, kind):
    assert verdict_on(start, kind) is Verdict.OPEN
    assert verdict_on(start, kind, is_all=True) is Verdict.PAGE


@pytest.mark.parametrize("start", [b"<i>Hello", b'"Hello"', b"<font color=red>", b"<v Anna>Hi", b'["Hello"]', b"<3"])
def test_captions_may_begin_with_a_tag_or_a_quotation(start):
    assert verdict_on(start, "captions", is_doubtful=True) is Verdict.MAY_BE


@pytest.mark.parametrize(
    "start", [b"<!DOCTYPE html>", b" <html>", b"<?xml", b"<Error><Code>", b'{"a": 1}', b'[{"a"', b"<\0h\0t\0"]
)
def test_a_page_is_no_captions(start):
    assert is_page(start, "captions")
    assert not any(is_page(start[:size], "captions") is False for size in range(len(start)))


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "br", "deflate", "zstd", "aws-chunked, GZIP"])
def test_a_compressed_file_is_refused(coding):
    with pytest.raises(UnexpectedResponse, match="compressed"):
        resumed(PartState(), 200, {"Content-Encoding": coding})


@pytest.mark.parametrize("coding", ["", "identity", "aws-chunked", "utf-8", "binary", "base64"])
def test_a_coding_that_compresses_nothing_may_be_there(coding):
    assert resumed(PartState(), 200, {"Content-Encoding": coding}) == PartState()


def test_only_a_strong_etag_counts():
    assert strong_etag({"ETag": '"a"'}) == '"a"'
    assert strong_etag({"ETag": 'W/"a"'}) is None
    assert strong_etag({"ETag": "a"}) is None
    assert strong_etag({"ETag": '"a\r\nX: 1"'}) is None
    assert strong_etag({}) is None


# Links


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ("X-Amz-Date=20260102T030405Z&X-Amz-Expires=60", 1767323045.0 + 60),
        ("X-Goog-Date=20260102T030405Z&X-Goog-Expires=60", 1767323045.0 + 60),
        ("Expires=1767323045&Signature=x", 1767323045.0),
        ("Expires=never", None),
        ("Expires=" + "9" * 400, None),
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=" + "9" * 400, None),
        ("X-Goog-Date=20260101T000000Z&X-Goog-Expires=-" + "9" * 400, None),
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=" + "9" * 5000, None),
        ("X-Amz-Date=99999999T000000Z&X-Amz-Expires=60", None),
        ("X-Amz-Date=today&X-Amz-Expires=60", None),
        ("", None),
    ],
)
def test_a_link_may_say_when_it_expires(query, end):
    assert expires_at(Secret(f"https://x.test/a.mp4?{query}")) == end


def lipsync(**fields):
    return Lipsync(**{"id": "ls_1", "status": "completed", "video_url": "https://x.test/a.mp4?s=1", **fields})


def test_a_job_that_is_not_completed_has_no_link():
    with pytest.raises(DownloadError, match=r"it is running.*wait for it first"):
        link_of(lipsync(status="running", video_url=None), "video")
    with pytest.raises(LipsyncFailed):
        link_of(lipsync(status="failed", failure_message="x"), "video")
    with pytest.raises(DownloadError, match="has no link to its video") as late:
        link_of(lipsync(video_url=None), "video")
    assert late.value.is_transient


# File hosts


def test_a_refusal_of_a_file_host_shows_its_code_and_nothing_of_the_link():
    body = b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>X-Amz-Signature=secret</StringToSign></Error>"

    error = refusal(403, {}, body, now=0)

    assert error is not None
    assert "SignatureDoesNotMatch" in str(error)
    assert "secret" not in str(error)


def test_success_redirect_and_overload_of_a_file_host_are_distinguished():
    assert refusal(204, {}, b"", now=0) is None
    assert isinstance(refusal(307, {"Location": "https://x.test"}, b"", now=0), UnexpectedResponse)
    slow = refusal(503, {"Retry-After": "7"}, b"<Code>SlowDown</Code>", now=0)
    assert isinstance(slow, ServerError)
    assert slow.retry_after == 7


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b""),
        ({}, b"<!doctype html><title>Sign in"),
        ({}, b"\n <HTML>"),
        ({}, b"\xef\xbb\xbf" + b" " * 200 + b"<html>caf\xe9"),
        ({}, b'<?xml version="1.0"?>\n<!-- a\n --><!DOCTYPE html>'),
        ({}, b"<!-- a --><HEAD>"),
    ],
)
def test_a_page_is_not_the_answer_to_a_put(headers, body):
    page = not_stored(200, headers, body)

    assert "a page" in str(page)
    assert page.is_transient


@pytest.mark.parametrize(
    ("kind", "body"),
    [("", b""), ("text/plain", b"ok"), ("application/xml", b"<PutObjectResult/>"), ("application/json", b'{"a": 1}')],
)
def test_anything_else_may_be_the_answer_to_a_put(kind, body):
    assert not_stored(200, {"ETag": '"a"', "Content-Type": kind}, body) is None


def test_upload_headers_are_sent_unchanged_except_those_of_the_connection():
    given = {"Content-Type": "video/mp4", "x-amz-meta-a": "b", "Host": "evil.test", "Content-Length": "1"}

    headers = put_headers(given)

    assert headers == {"Content-Type": "video/mp4", "x-amz-meta-a": "b"}
    assert repr(headers) == "<2 headers>"


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc"}, {"a": 1}, {"": "b"}, {"a\n": "b"}])
def test_malformed_upload_headers_are_an_unexpected_response(headers):
    with pytest.raises(UnexpectedResponse, match="not a header"):
        put_headers(headers)


# Boxes


def box(kind, content=b""):
    return (8 + len(content)).to_bytes(4, "big") + kind + content


WHOLE = box(b"ftyp", b"isom" + bytes(4)) + box(b"free") + box(b"mdat", bytes(500)) + box(b"moov", bytes(100))


def test_a_complete_mp4_has_no_flaw():
    assert cut_short(io.BytesIO(WHOLE)) is None


@pytest.mark.parametrize("size", [0, 30, 100, 535, len(WHOLE) - 108, len(WHOLE) - 1])
def test_a_cut_mp4_is_found_wherever_it_is_cut(size):
    if size:
        assert cut_short(io.BytesIO(WHOLE[:size]))
    else:
        assert cut_short(io.BytesIO()) is None


def test_boxes_of_great_length_and_to_the_end_are_understood():
    large = (1).to_bytes(4, "big") + b"mdat" + (16 + 50).to_bytes(8, "big") + bytes(50)
    last = bytes(4) + b"mdat" + bytes(77)

    assert cut_short(io.BytesIO(box(b"ftyp", b"isom") + large + box(b"moov"))) is None
    assert cut_short(io.BytesIO(box(b"ftyp", b"isom") + box(b"moov") + last)) is None
    assert cut_short(io.BytesIO((box(b"ftyp", b"isom") + box(b"moov") + large)[:-1])) is not None


@pytest.mark.parametrize(
    "content", [WHOLE + b"abc", WHOLE + bytes(40), WHOLE + b"Made by us", b"no mp4 at all" * 9, WEBM, SRT]
)
def test_other_files_and_bytes_after_the_last_box_have_no_flaw(content):
    assert cut_short(io.BytesIO(content)) is None


def test_a_file_that_is_cut_in_an_unknown_box_before_its_moov_has_a_flaw():
    assert cut_short(io.BytesIO(box(b"ftyp", b"isom") + box(b"mdat", bytes(9)) + box(b"abcd", bytes(9))[:-1]))


@pytest.mark.parametrize("end", [b"abc", bytes(40), b"Made by us", box(b"moov"), box(b"abcd", bytes(9))[:-1]])
def test_a_source_with_an_end_that_is_not_understood_may_be_complete(end):
    content = box(b"ftyp", b"isom") + box(b"mdat", bytes(9)) + end
    assert without_end(io.BytesIO(content), len(content)) is None


@given(st.binary(max_size=80))
def test_walking_the_boxes_ends_whatever_they_are(content):
    cut_short(io.BytesIO(box(b"ftyp", b"isom") + content))


@pytest.mark.parametrize("left", [("part", "side"), ("side",), ()])
def test_what_a_crash_at_the_end_of_a_download_leaves_is_removed(tmp_path, left):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"video")
    if "part" in left:
        (tmp_path / "a.mp4.part").hardlink_to(target)
    if "side" in left:
        (tmp_path / "a.mp4.part.etag").write_text("x")
    remove_leftovers(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("is_held", [False, True], ids=["left", "held by another process"])
def test_a_copy_that_another_download_could_not_publish_is_removed_unless_it_is_written(tmp_path, is_held):
    target = tmp_path / "a.mp4"
    part = Part.open(target, "ls_1")
    part.begin(0, PartState())
    part.write([b"video"])
    target.write_bytes(b"video")
    if not is_held:
        part.close()
    remove_leftovers(target)
    part.close()
    kept = ["a.mp4.part", "a.mp4.part.etag"] if is_held else []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", *kept]


@pytest.mark.parametrize("overwrite", [False, True])
def test_all_bytes_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch, overwrite):
    target = tmp_path / "a.mp4"
    synced = []

    def fsync(number):
        synced.append((os.fstat(number).st_size, target.exists()))

    with closing(Part.open(target, "ls_1")) as part:
        monkeypatch.setattr(os, "fsync", fsync)
        part.begin(0, PartState())
        part.write([b"video"])
        part.publish(overwrite=overwrite)
    assert synced == [(5, False)]
    assert target.read_bytes() == b"video"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_put_in_the_place_of_a_part_while_it_is_synchronized_does_not_become_the_video(
    tmp_path, monkeypatch, overwrite
):
    target = tmp_path / "a.mp4"

    def fsync(_number):
        (tmp_path / "theirs").write_bytes(b"theirs")
        (tmp_path / "theirs").rename(tmp_path / "a.mp4.part")

    with closing(Part.open(target, "ls_1")) as part:
        monkeypatch.setattr(os, "fsync", fsync)
        part.begin(0, PartState())
        part.write([b"video"])
        with pytest.raises(DownloadError, match="removed or replaced by another program"):
            part.publish(overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.mp4.part": b"theirs"}


def test_a_name_that_cannot_be_given_leaves_no_empty_file(tmp_path, monkeypatch):
    target = tmp_path / "a.mp4"

    def refuse(*_paths):
        raise PermissionError(errno.EACCES, "Permission denied")

    with closing(Part.open(target, "ls_1")) as part:
        part.begin(0, PartState())
        part.write([b"video"])
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(PermissionError):
            part.publish(overwrite=False)
    assert not target.exists()


def test_a_discarded_part_leaves_the_files_of_another_process(tmp_path):
    target = tmp_path / "a.mp4"
    with closing(Part.open(target, "ls_1")) as part:
        for path in tmp_path.iterdir():
            path.unlink()
        with closing(Part.open(target, "ls_1")):
            part.discard()
            assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4.part", "a.mp4.part.etag"]


def test_a_file_whose_bytes_the_disk_does_not_take_gets_no_name(tmp_path, monkeypatch):
    target = tmp_path / "a.mp4"

    def fsync(_number):
        raise OSError(errno.EIO, "Input/output error")

    with closing(Part.open(target, "ls_1")) as part:
        monkeypatch.setattr(os, "fsync", fsync)
        part.begin(0, PartState())
        part.write([b"video"])
        with pytest.raises(OSError, match="Input/output error"):
            part.publish(overwrite=True)
    assert not target.exists()
