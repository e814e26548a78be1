"""Manifests become rows, or a list of all that is wrong with them; and what makes a row the same row again."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.identity import body_digest, claims_of, inputs_digest, is_signed, key_of, options_of, target_of
from heygen_async.bulk.journal import FileFacts
from heygen_async.bulk.manifest import COLUMNS, Manifest
from heygen_async.models import AssetId, DubRow

V, A = "https://example.com/v.mp4", "https://example.com/a.mp3"
SIGNED = "https://bucket.example.com/v.mp4?X-Amz-Date=1&X-Amz-Signature="


def _manifest(folder: Path, text: str | bytes, name: str = "rows.csv") -> Manifest:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest(path)


def _problems(manifest: Manifest) -> list[str]:
    return [str(problem) for placed in manifest.placed() for problem in placed.problems]


# CSV


def test_a_csv_manifest_becomes_rows(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        "key,video,audio,mode,title,enable_caption,start_time,end_time,output\n"
        f"ep-1,{V},fr/ep1.mp3,precision,Épisode 1,yes,1.5,20,fr/ep1.mp4\n"
        f",asset:as_1,{A},,,,,,\n",
    )

    assert list(manifest) == [
        DubRow(
            V,
            tmp_path / "fr/ep1.mp3",
            key="ep-1",
            mode="precision",
            title="Épisode 1",
            enable_caption=True,
            start_time=1.5,
            end_time=20.0,
            output="fr/ep1.mp4",
        ),
        DubRow(AssetId("as_1"), A),
    ]


def test_a_manifest_may_be_read_again(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, f"video,audio\n{V},{A}\n")

    assert list(manifest) == list(manifest) == [DubRow(V, A)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_whatever_a_spreadsheet_writes_is_read(tmp_path: Path, delimiter: str, mark: str, end: str) -> None:
    comma = delimiter.strip()
    cells = [["video", "audio", "title"], [V, A, f'"one{comma} ""two"""'], [], [V, A, "three"]]
    manifest = _manifest(tmp_path, mark + end.join(delimiter.join(line) for line in cells) + end)

    assert [row.title for row in manifest] == [f'one{comma} "two"', "three"]


def test_lines_are_counted_through_cells_of_several_lines(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, f'video,audio,folder_id\n"{V}\n",{A},\n\n{V},{A},\n{V},,\n')

    assert [placed.place for placed in manifest.placed()] == ["line 2", "line 5", "line 6"]
    assert _problems(manifest) == ["line 6, audio: it is missing"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "", ["line 1: there must be a header: the names of the columns, video and audio at least"], id="empty"
        ),
        pytest.param(
            "video,sound\n", [f"line 1: there is no column 'sound'; there are {', '.join(COLUMNS)}"], id="unknown"
        ),
        pytest.param("video,audo\n", ["line 1: there is no column 'audo'; is it audio?"], id="misspelt"),
        pytest.param("video,key\n", ["line 1: there is no column audio"], id="missing column"),
        pytest.param("video,audio,video\n", ["line 1: the column video is there twice"], id="twice"),
        pytest.param(f"video,audio\n{V},{A},x\n", ["line 2: it has 3 cells, and the header 2"], id="too many cells"),
        pytest.param(
            f"video,audio\nhttp://a.b/c,{A}\n",
            ["line 2, video: video must be an https URL; for a local file give a Path: 'http://a.b/c'"],
            id="not https",
        ),
        pytest.param(
            f"video,audio,mode,enable_caption,end_time\n{V},,fast,perhaps,soon\n{V},{A},fast,,\n",
            [
                "line 2, audio: it is missing",
                "line 2, enable_caption: it must be true or false, not 'perhaps'",
                "line 2, end_time: it must be a number of seconds, not 'soon'",
                "line 3, mode: mode must be one of speed, precision, not 'fast'",
            ],
            id="several at once",
        ),
        pytest.param(
            f"video,audio,key,start_time,end_time\n{V},{A},a b,,\n{V},{A},,5,4\n",
            [
                "line 2, key: key must be 1 to 250 of A-Z a-z 0-9 _ - : . and not 'a b'",
                "line 3, end_time: end_time (4.0) must be after start_time (5.0)",
            ],
            id="what DubRow refuses",
        ),
        pytest.param(
            f'video,audio\n{V},{A}\n{V},"{A}\n{V},{A}\n',
            ["line 3: it cannot be read: unexpected end of data; what follows was not looked at"],
            id="open quote",
        ),
        pytest.param(
            f"video,audio\n{V},{A}\n".encode() + f"{V},caf\xe9.mp3\n{V},\n".encode("latin-1"),
            ["line 3: it is not UTF-8", "line 4, audio: it is missing"],
            id="not UTF-8",
        ),
    ],
)  # fmt: skip
def test_everything_wrong_in_a_csv_is_told_with_its_place(
    tmp_path: Path, text: str | bytes, problems: Sequence[str]
) -> None:
    assert _problems(_manifest(tmp_path, text)) == problems


# JSON Lines


def test_json_lines_become_rows(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        f'\ufeff{{"video": "{V}", "audio": "a.mp3", "enable_caption": false, "end_time": 3, "title": null}}\n\n'
        f'{{"video": {{"type": "asset_id", "asset_id": "as_1"}}, "audio": {{"type": "url", "url": "{A}"}}}}\n',
        "rows.txt",
    )

    assert list(manifest) == [
        DubRow(V, tmp_path / "a.mp3", enable_caption=False, end_time=3),
        DubRow(AssetId("as_1"), A),
    ]
    assert [placed.place for placed in manifest.placed()] == ["line 1", "line 3"]


def test_everything_wrong_in_json_lines_is_told_with_its_place(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        f'{{"video": "{V}"\n[1]\n{{"video": 7, "audio": "{A}", "audoi": 1}}\n'
        f'{{"video": "{V}", "audio": "{A}", "enable_caption": "yes"}}\n',
        "rows.jsonl",
    )

    assert _problems(manifest) == [
        "line 1: it is not JSON: unexpected end of data at character 38",
        'line 2: it must be an object, such as {"video": ..., "audio": ...}',
        "line 3, video: it must be an https URL, a file, or asset:ID",
        "line 3, audoi: there is no such column; is it audio?",
        "line 4, enable_caption: enable_caption must be True, False or None, not 'yes'",
    ]


def test_iterating_a_wrong_manifest_raises_where_it_is_wrong(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, f"video,audio\n{V},{A}\n{V},\n")
    rows = iter(manifest)
    assert next(rows) == DubRow(V, A)

    with pytest.raises(ValueError, match=r"rows\.csv, line 3, audio: it is missing"):
        next(rows)


@given(st.binary(max_size=300))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for prefix in (b"", b"video,audio\n", b"{"):
        for placed in _manifest(folder, prefix + content, "any.txt").placed():
            assert (placed.row is None) == bool(placed.problems)


@pytest.mark.parametrize(
    ("content", "message"),
    [("video,audio".encode("utf-16"), "UTF-16"), (b"\x00\x00\x00\x20ftypisom", "no text file")],
)
def test_what_is_no_utf_8_text_is_told_as_such(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    [placed] = Manifest(str(path)).placed()

    assert [message in problem.message for problem in placed.problems] == [True]


def test_a_hundred_thousand_rows_are_never_all_in_memory(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "video,audio,title\n" + f"{V},{A},{'t' * 50}\n" * 20_000)
    tracemalloc.start()
    count = sum(1 for _ in manifest.placed())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 1 << 20


# What makes a row the same row


def test_a_key_is_made_of_everything_that_is_sent() -> None:
    row = DubRow(V, A)
    keys = {
        key_of(other, inputs_digest(other, {}))
        for other in (
            row,
            DubRow(A, V),
            DubRow(V, AssetId("as_1")),
            DubRow(V, A, mode="precision"),
            DubRow(V, A, title="t"),
            DubRow(V, A, enable_caption=False),
            DubRow(V, A, callback_id="c"),
        )
    }

    assert len(keys) == 7
    assert inputs_digest(row, {}) == inputs_digest(DubRow(V, A, output="elsewhere.mp4"), {})


def test_a_local_file_counts_by_its_content() -> None:
    here, there = DubRow(Path("here/v.mp4"), A), DubRow(Path("there/w.mp4"), A)
    facts = {"video": FileFacts("1 2", "content", None)}

    assert inputs_digest(here, facts) == inputs_digest(there, facts)
    assert inputs_digest(here, facts) != inputs_digest(here, {"video": FileFacts("1 2", "other", None)})


@pytest.mark.parametrize("name", ["X-Amz-Signature", "Signature", "sig", "SIG", "X-Goog-Signature"])
def test_a_signed_link_needs_a_key_and_counts_without_its_query(name: str) -> None:
    monday, tuesday = (f"https://bucket.example.com/v.mp4?se=1&{name}={day}" for day in ("mon", "tue"))
    assert is_signed(monday)
    with pytest.raises(ValueError, match="give the row a key"):
        key_of(DubRow(monday, A), "inputs")

    assert key_of(DubRow(monday, A, key="k"), "inputs") == "k"
    assert inputs_digest(DubRow(monday, A), {}) == inputs_digest(DubRow(tuesday, A), {})
    assert body_digest(monday, A, {}) == body_digest(tuesday, A, {})


def test_a_plain_query_is_part_of_the_address() -> None:
    assert not is_signed(f"{V}?id=1")
    assert inputs_digest(DubRow(f"{V}?id=1", A), {}) != inputs_digest(DubRow(f"{V}?id=2", A), {})


def test_only_what_is_said_is_sent() -> None:
    assert options_of(DubRow(V, A, title="t", enable_watermark=False)) == {
        "mode": "speed",
        "title": "t",
        "enable_watermark": False,
    }


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (DubRow(V, A, key="ep:1"), "ep_1.mp4"),
        (DubRow(V, A, key=".hidden"), "_hidden.mp4"),
        (DubRow(V, A, key="x", output="fr/ep1.mov"), "fr/ep1.mov"),
        (DubRow("https://example.com/My%20Show/ep 1.mp4".replace(" ", "%20"), A), "ep-201-0123456789ab.mp4"),
        (DubRow(Path("My Show.mp4"), A), "My-Show-0123456789ab.mp4"),
        (DubRow(b"x", A), "video-0123456789ab.mp4"),
    ],
)
def test_a_row_has_a_file_name(row: DubRow, name: str) -> None:
    assert target_of(row, row.key or "0123456789abcdef", Path("out")) == Path("out") / name


def test_a_long_key_makes_a_name_that_file_systems_take() -> None:
    first, second = (target_of(DubRow(V, A, key="k" * 249 + end), "k" * 249 + end, Path("out")) for end in "ab")

    assert first != second
    assert first is not None
    assert len(first.name) <= 210


@pytest.mark.parametrize("output", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4"])
def test_an_output_does_not_leave_its_folder(output: str) -> None:
    with pytest.raises(ValueError, match="must stay"):
        target_of(DubRow(V, A, output=output), "k", Path("out"))


def test_without_a_folder_only_what_a_row_names_is_written() -> None:
    assert target_of(DubRow(V, A, key="k"), "k", None) is None
    assert target_of(DubRow(V, A, output="/any/where.mp4"), "k", None) == Path("/any/where.mp4")


def test_names_that_differ_only_in_case_or_accents_are_one_file() -> None:
    row = DubRow(V, A)

    assert claims_of(row, Path("out/Café.mp4")) == claims_of(row, Path("out/CAFE\N{COMBINING ACUTE ACCENT}.mp4"))
    assert claims_of(DubRow(V, A, callback_id="c"), None) == ("callback_id c",)
