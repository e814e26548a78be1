"""Manifests become rows, or a list of all that is wrong with them; and what makes a row the same row again."""

import csv
import io
import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.claims import claims_of
from heygen_async.bulk.identity import (
    FileInfo,
    body_digest,
    inputs_digest,
    is_signed,
    key_of,
    key_problem,
    options_of,
    target_of,
)
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.manifest_lines import COLUMNS
from heygen_async.models import AssetId, DubRow

V, A = "https://example.com/v.mp4", "https://example.com/a.mp3"
INDEX = "has no name in the header; pandas writes its index so: write the file with index=False"
UNNAMED = "has no name in the header; a cell that contains the separator must be in quotes"


def _manifest(folder: Path, text: str | bytes, name: str = "rows.csv") -> Manifest:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest(path)


def _problems(manifest: Manifest) -> list[str]:
    return [str(problem) for placed in manifest.source_rows() for problem in placed.problems]


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

    assert [placed.place for placed in manifest.source_rows()] == ["line 2", "line 5", "line 6"]
    assert _problems(manifest) == ["line 6, audio: is missing"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "", ["line 1: there is no header: the names of the columns, video and audio at least"], id="empty"
        ),
        pytest.param(
            "video,sound\n",
            [
                f"line 1: unknown column 'sound'; the columns are {', '.join(COLUMNS)}",
                "line 1: the column audio is missing",
            ],
            id="unknown",
        ),
        pytest.param(
            "video,audo,mod\n",
            [
                "line 1: unknown column 'audo'; did you mean audio?",
                "line 1: unknown column 'mod'; did you mean mode?",
                "line 1: the column audio is missing",
            ],
            id="misspelt",
        ),
        pytest.param(
            f"video,audio,titel,end_time\n{V},{A},one,soon\n{V},,two,5\n{V},{A},three,5\n",
            [
                "line 1: unknown column 'titel'; did you mean title?",
                "line 2, end_time: must be a number of seconds, not 'soon'",
                "line 3, audio: is missing",
            ],
            id="misspelt, and rows with errors",
        ),
        pytest.param(
            f"video,audio,mode,mode\n{V},{A},fast,speed\nhttp://a.b/c,{A},speed,speed,x\n",
            [
                "line 1: the column mode is there twice",
                "line 3, video: must be an https URL, a file, or asset:ID, not 'http://a.b/c'",
                f"line 3, column 5: {UNNAMED}",
            ],
            id="twice, and rows with errors",
        ),
        pytest.param(
            f"video,audo\n{V},\nhttp://a.b/c,{A}\n",
            ["line 1: unknown column 'audo'; did you mean audio?", "line 1: the column audio is missing"],
            id="without a column for a source rows are not checked",
        ),
        pytest.param("video,key\n", ["line 1: the column audio is missing"], id="missing column"),
        pytest.param("video,audio,video\n", ["line 1: the column video is there twice"], id="twice"),
        pytest.param(f"video,audio\n{V},{A},x\n", [f"line 2, column 3: {UNNAMED}"], id="too many cells"),
        pytest.param(
            f"video,audio\nhttp://a.b/c,{A}\n",
            ["line 2, video: must be an https URL, a file, or asset:ID, not 'http://a.b/c'"],
            id="not https",
        ),
        pytest.param(
            f"video,audio,mode,enable_caption,end_time\n{V},,fast,perhaps,soon\n{V},{A},fast,,\n",
            [
                "line 2, audio: is missing",
                "line 2, mode: must be one of speed, precision, not 'fast'",
                "line 2, enable_caption: must be true or false, not 'perhaps'",
                "line 2, end_time: must be a number of seconds, not 'soon'",
                "line 3, mode: must be one of speed, precision, not 'fast'",
            ],
            id="several at once",
        ),
        pytest.param(
            f"video,audio,key,start_time,end_time\n{V},{A},a b,,\n{V},{A},,5,4\n",
            [
                "line 2, key: must be 1 to 250 of A-Z a-z 0-9 _ - : . and not 'a b'",
                "line 3, end_time: end_time (4.0) must be after start_time (5.0)",
            ],
            id="what DubRow refuses",
        ),
        pytest.param(
            f'video,audio\n{V},{A}\n{V},"{A}\n{V},{A}\n',
            ["line 3: cannot be read: a quotation mark is not closed; the lines after it were not checked"],
            id="open quote",
        ),
        pytest.param(
            f"video,audio\n{V},{A}\n".encode() + f"{V},caf\xe9.mp3\n{V},\n".encode("latin-1"),
            ["line 3, audio: is not UTF-8 text; save the file as CSV in UTF-8", "line 4, audio: is missing"],
            id="not UTF-8",
        ),
    ],
)  # fmt: skip
def test_everything_wrong_in_a_csv_is_reported_with_its_place(
    tmp_path: Path, text: str | bytes, problems: Sequence[str]
) -> None:
    assert _problems(_manifest(tmp_path, text)) == problems


# CSV as spreadsheets write it


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"video,audio,title,,\n{V},{A},one,,\n", id="empty cells after the header"),
        pytest.param(f"video,audio,title\n{V},{A},one,,,\n", id="empty cells after the row"),
        pytest.param(f",video,,audio,title\n,{V},,{A},one\n", id="columns without a name"),
        pytest.param(f"sep=;\nvideo;audio;title\n{V};{A};one\n", id="sep"),
        pytest.param(f'"SEP=|"\r\nvideo|audio|title\r\n{V}|{A}|one\r\n', id="sep in quotes"),
        pytest.param(f"sep=\t\nvideo\taudio\ttitle\n{V}\t{A}\tone\n", id="sep is a tab"),
        pytest.param(f"sep=,,,\nvideo,audio,title\n{V},{A},one\n", id="sep with empty cells"),
        pytest.param(f"\n\nvideo,audio,title\n{V},{A},one\n", id="blank first lines"),
        pytest.param(f",,\n;;\nvideo,audio,title\n{V},{A},one\n", id="blank first rows"),
        pytest.param(f"Video, audio ,TITLE\n{V},{A},one\n", id="names in any case"),
        pytest.param(f'"Video"; " Audio ";"\tTitle "\n{V};{A};one\n', id="names in quotes"),
        pytest.param(f"video,audio,title\r{V},{A},one\r", id="line ends of old Macs"),
        pytest.param(f'video,audio,"title\n"\n{V},{A},one\n', id="a line break in the header"),
        pytest.param(f'"title\n";video;audio\none;{V};{A}\n', id="a line break in the first column"),
        pytest.param(f'"\r\n title\r\n"\tvideo\taudio\r\none\t{V}\t{A}\r\n', id="several of them"),
        pytest.param(f'"title\r";"\rvideo";audio\r\none;{V};{A}\r\n', id="line breaks of old Macs in columns"),
        pytest.param(f"video,audio,title\n{V},{A},one\n,,\n\n,,,,\n", id="blank rows at the end"),
        pytest.param(f"video,audio,title\n{V},{A},one\n\x1a", id="the end of a file of DOS"),
        pytest.param(f"\ufeff\ufeffvideo,audio,title\n{V},{A},one\n", id="several byte order marks"),
        pytest.param(f"\u200bvideo,audio,title\n{V},{A},one\n", id="a blank of no width"),
        pytest.param(f"\ufeffsep=;\n\u200bvideo;audio;title\n{V};{A};one\n", id="marks on several lines"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_is_read_as_spreadsheets_write_it(tmp_path: Path, text: str, encoding: str) -> None:
    assert list(_manifest(tmp_path, text.encode(encoding))) == [DubRow(V, A, title="one")]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (f"\nsep=;\n\nvideo;audio\n{V};\n", ["line 5, audio: is missing"]),
        (f"sep=;\nvideo,audio\n{V},{A}\n", ["line 2: unknown column 'video,audio'; did you mean video?"]),
        (f"video,audio,\n{V},{A},note\n{V},{A},\n", [f"line 2, column 3: {UNNAMED}"]),
        (f"video,audio,title\n{V},{A},One, two, three\n", [f"line 2, column {n}: {UNNAMED}" for n in (4, 5)]),
        (f",video,audio\n0,{V},{A}\n", [f"line 2, column 1: {INDEX}"]),
        (f",video,audio\nnote,{V},{A}\n", [f"line 2, column 1: {UNNAMED}"]),
        (f"Video,video,audio\n{V},{V},{A}\n", ["line 1: the column video is there twice"]),
        (f"video,audio,Titel\n{V},{A},one\n", ["line 1: unknown column 'Titel'; did you mean title?"]),
        (
            f"video,audio, Start time (s)\n{V},{A},1\n",
            ["line 1: unknown column 'Start time (s)'; did you mean start_time?"],
        ),
        (f"Film,Ton\n{V},{A}\n", [f"line 1: unknown column 'Film'; the columns are {', '.join(COLUMNS)}"]),
        ("\n\n", ["line 3: there is no header: the names of the columns, video and audio at least"]),
        ("sep=;\n", ["line 2: there is no header: the names of the columns, video and audio at least"]),
    ],
)
def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path, text: str, problems: list[str]) -> None:
    assert _problems(_manifest(tmp_path, text))[: len(problems)] == problems


def test_every_error_of_a_row_is_reported_at_once(tmp_path: Path) -> None:
    header = "video,audio,mode,title,enable_caption,start_time,end_time,fps_mode,callback_url,key,captions,output"
    manifest = _manifest(
        tmp_path,
        f"{header}\nftp://x/y.mp4,,slow,{'t' * 10_001},maybe,x,-1,60,http://a.b/c?token=5ec5e7,a b,2,/\n{V},{A}\n",
    )

    assert [placed.place for placed in manifest.source_rows()] == ["line 2", "line 3"]
    assert _problems(manifest) == [
        "line 2, video: must be an https URL, a file, or asset:ID, not 'ftp://x/y.mp4'",
        "line 2, audio: is missing",
        "line 2, mode: must be one of speed, precision, not 'slow'",
        "line 2, title: must be at most 10,000 characters, not 10,001",
        "line 2, enable_caption: must be true or false, not 'maybe'",
        "line 2, start_time: must be a number of seconds, not 'x'",
        "line 2, end_time: must be 0 seconds or more, not -1.0",
        "line 2, fps_mode: must be one of vfr, cfr, passthrough, not '60'",
        "line 2, callback_url: must be an https URL, not 'http://a.b/c?...'",
        "line 2, key: must be 1 to 250 of A-Z a-z 0-9 _ - : . and not 'a b'",
        "line 2, output: must be the name of a file, not '/'",
        "line 2, captions: must be true or false, not '2'",
    ]


@pytest.mark.parametrize(
    "title",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f680",
        "\u7b2c1\u8a71\u3000\u6700\u7d42\u56de",
        "a\u00a0b",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_titles_of_any_script_are_kept_as_they_are(tmp_path: Path, title: str, encoding: str) -> None:
    [row] = _manifest(tmp_path, f"video,audio,title\n{V},{A},{title}\n".encode(encoding))

    assert row.title == title
    assert list(_manifest(tmp_path, f'{{"video":"{V}","audio":"{A}","title":"{title}"}}', "m.jsonl")) == [row]


@pytest.mark.parametrize("column", ["title", "mode", "key", "end_time", "captions", "folder_id", "x"])
def test_no_query_and_no_control_character_of_a_cell_is_shown(tmp_path: Path, column: str) -> None:
    cell = "https://x.example/v.mp4?X-Amz-Signature=5ec5e7\x1b[31m\x9b2J"
    text = f"video,audio,{column}\n{V},{A},{cell}\nhttp://u:5ec5e7@x/v.mp4?sig=5ec5e7,{A}\n".encode()
    shown = "".join(_problems(_manifest(tmp_path, text)))

    assert shown
    assert "5ec5e7" not in shown
    assert shown.isprintable()


def test_a_cell_that_is_not_utf_8_is_an_error_of_its_row(tmp_path: Path) -> None:
    lines = [b"video,audio,title", f"{V},{A},one".encode(), b"caf\xe9.mp4,n\xe9.mp3,\xe9", f"{V},{A},three".encode()]
    placed = list(_manifest(tmp_path, b"\n".join(lines)).source_rows())

    assert [one.row is None for one in placed] == [False, True, False]
    assert [problem.place for problem in placed[1].problems] == ["line 3, video", "line 3, audio", "line 3, title"]
    assert all("not UTF-8" in problem.message for problem in placed[1].problems)


def test_a_home_folder_is_expanded_in_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    [row] = _manifest(tmp_path, "video,audio\n~/v.mp4,~a.mp3\n")

    assert (row.video, row.audio) == (Path("/home/me/v.mp4"), tmp_path / "~a.mp3")


def test_an_asset_id_that_cannot_be_one_is_an_error_of_its_row(tmp_path: Path) -> None:
    lines = [
        f"asset:as 1,{A}",
        f"{V},asset:https://x.example/a",
        f"asset:{'x' * 256},asset:as_1",
        "asset:as_1,asset:as_2",
    ]
    placed = list(_manifest(tmp_path, "\n".join(["video,audio", *lines])).source_rows())
    json_lines = [{"video": V, "audio": {"type": "asset_id", "asset_id": "a\u0000"}}, {"video": "asset: ", "audio": A}]
    text = "\n".join(json.dumps(line) for line in json_lines)

    assert [[problem.place for problem in one.problems] for one in placed] == [
        ["line 2, video"],
        ["line 3, audio"],
        ["line 4, video"],
        [],
    ]
    assert [
        line.partition(": asset_id must be an id")[0] for line in _problems(_manifest(tmp_path, text, "m.jsonl"))
    ] == [
        "line 1, audio",
        "line 2, video",
    ]


@pytest.mark.parametrize("cells", [f"asset:,{A}", f"{V},asset:", "asset:as_1, asset: "])
def test_an_asset_without_an_id_is_not_taken_for_a_file(tmp_path: Path, cells: str) -> None:
    [found] = _problems(_manifest(tmp_path, f"video,audio\n{cells}\n"))

    assert found.endswith(": asset: needs an id, such as asset:as_abc123")


@pytest.mark.parametrize("output", ["fr/", "~/x.mp4", "..", "fr/.", "../x.mp4", "/x.mp4"])
def test_an_output_that_names_no_file_in_its_folder_is_an_error_of_its_row(tmp_path: Path, output: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"video,audio,output\n{V},{A},{output}\n")

    assert [place.partition(": ")[0] for place in _problems(Manifest(path, outputs=tmp_path))] == ["line 2, output"]


def test_files_are_relative_to_the_folder_of_the_manifest_or_of_a_pipe_to_the_current_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert Manifest(tmp_path / "rows.csv").folder == tmp_path
    assert [Manifest(path).folder for path in ("rows.csv", "/dev/stdin", tmp_path / "pipe")] == [Path()] * 3


async def test_a_pipe_is_read_like_a_file() -> None:
    read, write = os.pipe()
    os.write(write, f"video,audio\n{V},{A}\n{V},new.mp3\n".encode())
    os.close(write)
    try:
        manifest = Manifest(f"/dev/fd/{read}")
        assert [row.audio for row in manifest] == [A, Path("new.mp3")]
        assert manifest.name is None
    finally:
        os.close(read)


_cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), min_size=1).filter(
    str.strip
)


@given(
    st.lists(_cells, min_size=1, max_size=5),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_is_written_as_csv_is_read(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], delimiter: str, encoding: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["video", "audio", "title"], *([V, A, title] for title in titles)])
    manifest = _manifest(tmp_path_factory.getbasetemp(), text.getvalue().encode(encoding))

    assert [row.title for row in manifest] == [title.strip() for title in titles]


@pytest.mark.parametrize("name", ["end_time", "End time", "END-TIME", " end  time ", "End_Time", "end\u00a0time"])
def test_a_column_may_be_named_as_people_write_it(tmp_path: Path, name: str) -> None:
    assert list(_manifest(tmp_path, f"video,audio,{name}\n{V},{A},9\n")) == [DubRow(V, A, end_time=9.0)]
    assert _problems(_manifest(tmp_path, f"video,audio,{name},end_time\n{V},{A},9,9\n")) == [
        "line 1: the column end_time is there twice"
    ]


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
    assert [placed.place for placed in manifest.source_rows()] == ["line 1", "line 3"]


def test_everything_wrong_in_json_lines_is_reported_with_its_place(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        f'{{"video": "{V}"\n[1]\n{{"video": 7, "audio": "{A}", "audoi": 1}}\n'
        f'{{"video": "{V}", "audio": "{A}", "enable_caption": "yes"}}\n',
        "rows.jsonl",
    )

    assert _problems(manifest) == [
        "line 1: is not JSON: unexpected end of data at character 38",
        'line 2: must be an object, such as {"video": ..., "audio": ...}',
        "line 3, video: must be an https URL, a file, or asset:ID",
        "line 3: unknown column 'audoi'; did you mean audio?",
        "line 4, enable_caption: must be True, False or None, not 'yes'",
    ]


@pytest.mark.parametrize("text", [f'[{{"video": "{V}"}}]', f'[\n  {{"video": "{V}"}},\n  {{}}\n]\n', "\n[]"])
def test_a_json_list_is_one_error_that_says_how_to_write_it(tmp_path: Path, text: str) -> None:
    [problem] = _problems(_manifest(tmp_path, text, "rows.json"))

    assert problem.endswith("begins a list; JSON Lines are one object on each line, without [ ] and commas")


@pytest.mark.parametrize(
    ("name", "text"), [("rows.json", '{\n"video": 1}\n'), ("rows.jsonl", "\n {\n}"), ("a", "{\n}")]
)
def test_an_object_of_several_lines_is_one_error_that_says_how_to_write_it(
    tmp_path: Path, name: str, text: str
) -> None:
    [problem] = _problems(_manifest(tmp_path, text, name))

    assert problem.endswith(
        "begins an object of several lines; JSON Lines are one object on each line, without [ ] and commas"
    )


def test_a_json_list_is_recognised_without_its_suffix(tmp_path: Path) -> None:
    [problem] = _problems(_manifest(tmp_path, f'[\n{{"video": "{V}"}}\n]\n', "rows.csv"))

    assert "begins a list" in problem


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f'{V},"{A}\n', "a quotation mark is not closed"),
        (f'"{V}"x,{A}\n', "text follows a closing quotation mark"),
        (f'{V},"' + "x" * 200_000 + '"\n', "a cell is too long"),
    ],
    ids=["open", "after", "long"],
)
def test_a_quotation_mark_in_the_wrong_place_is_named(tmp_path: Path, rows: str, said: str) -> None:
    [problem] = _problems(_manifest(tmp_path, f"video,audio\n{rows}"))

    assert problem.startswith(f"line 2: cannot be read: {said}")


def test_iterating_a_wrong_manifest_raises_where_it_is_wrong(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, f"video,audio\n{V},{A}\n{V},\n")
    rows = iter(manifest)
    assert next(rows) == DubRow(V, A)

    with pytest.raises(ValueError, match=r"rows\.csv, line 3, audio: is missing"):
        next(rows)


@given(st.binary(max_size=300))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for prefix in (b"", b"video,audio\n", b"{"):
        for placed in _manifest(folder, prefix + content, "any.txt").source_rows():
            assert (placed.row is None) == bool(placed.problems)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x00\x00\x20ftypisom",
        b"\x89PNG\r\n\x1a\n\0\0",
        "video,audio".encode("utf-16-le"),
        "video,audio".encode("utf-32"),
        "\ufeffvideo,audio".encode("utf-32-be"),
    ],
)
def test_a_file_that_is_not_text_is_reported_once(tmp_path: Path, content: bytes) -> None:
    assert _problems(_manifest(tmp_path, content)) == ["line 1: this is not a text file; save it as CSV in UTF-8"]


def test_the_rows_of_a_long_manifest_are_never_all_in_memory(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "video,audio,title\n" + f"{V},{A},{'t' * 50}\n" * 20_000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in manifest.source_rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
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
    facts = {"video": FileInfo("1 2", "content", None)}

    assert inputs_digest(here, facts) == inputs_digest(there, facts)
    assert inputs_digest(here, facts) != inputs_digest(here, {"video": FileInfo("1 2", "other", None)})


@pytest.mark.parametrize("name", ["X-Amz-Signature", "Signature", "sig", "SIG", "X-Goog-Signature"])
def test_a_signed_link_needs_a_key_and_counts_without_its_signature(name: str) -> None:
    monday, tuesday = (f"https://bucket.example.com/v.mp4?se=1&{name}={day}" for day in ("mon", "tue"))
    assert is_signed(monday)
    assert "give the row a key" in str(key_problem(DubRow(monday, A)))

    assert key_of(DubRow(monday, A, key="k"), "inputs") == "k"
    assert inputs_digest(DubRow(monday, A), {}) == inputs_digest(DubRow(tuesday, A), {})
    lasting, exact = ({body_digest(link, A, {}).split(".")[at] for link in (monday, tuesday)} for at in (0, 1))
    assert (len(lasting), len(exact)) == (1, 2)


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
        (DubRow("https://example.com/My%20Show/ep 1.mp4".replace(" ", "%20"), A), "ep-1-0123456789ab.mp4"),
        (DubRow(Path("My Show.mp4"), A), "My-Show-0123456789ab.mp4"),
        (DubRow(b"x", A), "video-0123456789ab.mp4"),
        (DubRow(V, A, key="CON"), "_CON.mp4"),
        (DubRow(V, A, key="nul"), "_nul.mp4"),
        (DubRow(V, A, key="com1.fr"), "_com1.fr.mp4"),
        (DubRow(V, A, key="Lpt9"), "_Lpt9.mp4"),
        (DubRow(V, A, key="console"), "console.mp4"),
        (DubRow(Path("con.mp4"), A), "con-0123456789ab.mp4"),
        (DubRow(Path("\u0645\u06cc\u200c\u062e.mp4"), A), "\u0645\u06cc\u200c\u062e-0123456789ab.mp4"),
        (DubRow(Path("\u7b2c1\u8a71\u3000\u6700\u7d42.mp4"), A), "\u7b2c1\u8a71\u3000\u6700\u7d42-0123456789ab.mp4"),
        (DubRow(Path("a\x1b[2J:b*.mp4"), A), "a-[2J_b_-0123456789ab.mp4"),
        (DubRow("https://example.com/%E7%AC%AC1%E8%A9%B1.mp4", A), "\u7b2c1\u8a71-0123456789ab.mp4"),
        (DubRow(Path("\u3042" * 83 + ".mp4"), A), "\u3042" * 40 + "-0123456789ab.mp4"),
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


@pytest.mark.parametrize("folder", [None, Path("out")])
@pytest.mark.parametrize(
    ("output", "message"),
    [("fr/", "not a folder"), ("fr/.", "not a folder"), ("~/x.mp4", "start with ~, which is not expanded")],
)
def test_an_output_names_a_file(folder: Path | None, output: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        target_of(DubRow(V, A, output=output), "k", folder)


def test_without_a_folder_only_what_a_row_names_is_written() -> None:
    assert target_of(DubRow(V, A, key="k"), "k", None) is None
    assert target_of(DubRow(V, A, output="/any/where.mp4"), "k", None) == Path("/any/where.mp4")


def test_names_that_differ_only_in_case_or_accents_are_one_file() -> None:
    row = DubRow(V, A)

    assert claims_of(row, Path("out/Café.mp4")) == claims_of(row, Path("out/CAFE\N{COMBINING ACUTE ACCENT}.mp4"))
    assert claims_of(DubRow(V, A, callback_id="c"), None) == ("callback_id c",)


def test_outputs_that_lead_to_one_file_are_one_claim(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    row = DubRow(V, A)
    outputs = ("out/x.mp4", "link/x.mp4", "out/../out/X.mp4")

    assert len({claims_of(row, tmp_path / output) for output in outputs}) == 1
    assert claims_of(row, tmp_path / "out/x.mp4", captions=True)[1].endswith("x.srt")


@pytest.mark.parametrize("name", ["end_time", "End time", "END-TIME", " end  time ", "End_Time", "end\u00a0time"])
def test_a_member_may_be_named_as_people_write_it(tmp_path: Path, name: str) -> None:
    row = f'"Video": "{V}", "AUDIO": "{A}", "{name}": 9'
    assert list(_manifest(tmp_path, f"{{{row}}}\n", "rows.jsonl")) == [DubRow(V, A, end_time=9)]
    assert _problems(_manifest(tmp_path, f'{{{row}, "Video ": null, "Film": 1}}\n', "rows.jsonl")) == [
        "line 1, video: is there twice",
        "line 1: unknown column 'Film'",
    ]
    assert _problems(_manifest(tmp_path, f'{{{row}, "Titel": 1}}\n', "rows.jsonl")) == [
        "line 1: unknown column 'Titel'; did you mean title?"
    ]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        (f'"video": "{V}", "video": "{V}2", "audio": "{A}"', "line 1, video: is there twice"),
        (f'"video": "{V}", "audio": "{A}", "key": "a", "k\\u0065y": "b"', "line 1, key: is there twice"),
        (f'"video": "{V}", "audio": "{A}", "title": null, "title": "b"', "line 1, title: is there twice"),
        (f'"audio": "{A}", "video": {{"type": "url", "url": "{V}", "url": "{V}2"}}', "line 1, url: is there twice"),
        (f'"video": "{V}", "audio": "{A}", "key"\t:"a", "key" \t : "b"', "line 1, key: is there twice"),
        (f'"video": "{V}", "audio": "{A}", "title": "\\"b\\": c", "title": ""', "line 1, title: is there twice"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_member_that_is_there_twice_is_reported(tmp_path: Path, members: str, problem: str, name: str) -> None:
    assert _problems(_manifest(tmp_path, f"{{{members}}}\n", name)) == [problem]


@pytest.mark.parametrize("name", ["x" * 5000, "https://a.example/v.mp4?sig=5ec5e7", "line\\nbreak"])
def test_an_unknown_member_that_is_there_twice_is_shown_in_short(tmp_path: Path, name: str) -> None:
    text = f'{{"video": "{V}", "audio": "{A}", "{name}": 1, "{name}": 2}}\n'
    problems = _problems(_manifest(tmp_path, text, "rows.jsonl"))

    assert len(problems) == 2
    assert all(len(problem) < 300 and "5ec5e7" not in problem and "\n" not in problem for problem in problems)
    assert sum("is there twice" in problem for problem in problems) == 1


def test_a_line_of_json_is_read_once_unless_a_member_may_be_there_twice(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("heygen_async.bulk.manifest_lines.repeated_members", pytest.fail)
    text = f'{{"video": "{V}", "audio": {{"type" : "url", "url": "{A}"}}, "title": "a: b", "key": null}}\n'
    assert _problems(_manifest(tmp_path, text, "rows.jsonl")) == []


def test_the_same_value_in_two_members_is_no_repetition(tmp_path: Path) -> None:
    text = f'{{"video": "{V}", "audio": {{"type": "url", "url": "{A}"}}, "title": "video", "callback_id": "title"}}\n'
    assert _problems(_manifest(tmp_path, text, "rows.jsonl")) == []


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://example.com/my video.mp4", " (write blanks in it as %20)"),
        ("https://example.com/my video/a.mp4", " (write blanks in it as %20)"),
        ("https:// example.com/v.mp4", " (write blanks in it as %20)"),
        ("https://example.com/v.mp4\u200b", " (without the unseen character U+200B in it)"),
        ("\ufeffhttps://example.com/v.mp4", " (without the unseen character U+FEFF in it)"),
        ("https://example.com/v\u00ad.mp4", " (without the unseen character U+00AD in it)"),
        ("http://example.com/v\u200b.mp4", ""),
        ("http://example.com/my video.mp4", ""),
        ("ftp://example.com/v.mp4", ""),
    ],
)
def test_a_link_with_a_blank_or_an_unseen_character_is_refused_with_advice(
    tmp_path: Path, url: str, advice: str
) -> None:
    assert _problems(_manifest(tmp_path, f"audio,video\n{A},{url}\n")) == [
        f"line 2, video: must be an https URL, a file, or asset:ID, not {url!r}{advice}"
    ]


@pytest.mark.parametrize("number", ["1_0", "2_000", "\u0661", "\uff11", "nan", "inf", "1e3", "0x1", "1 0", "--1", "."])
def test_a_number_that_is_no_plain_decimal_is_an_error(tmp_path: Path, number: str) -> None:
    manifest = _manifest(tmp_path, f"video,audio,end_time\n{V},{A},{number}\n")

    assert _problems(manifest) == [f"line 2, end_time: must be a number of seconds, not {number!r}"]


@pytest.mark.parametrize(("number", "value"), [("10", 10), ("1.5", 1.5), (".5", 0.5), ("5.", 5), ("+2", 2), ("007", 7)])
def test_plain_decimals_are_read(tmp_path: Path, number: str, value: float) -> None:
    (row,) = _manifest(tmp_path, f"video,audio,end_time\n{V},{A},{number}\n")

    assert row.end_time == value


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize(("number", "value"), [("1,5", 1.5), ("0,250", 0.25), ("12,3456", 12.3456), ("1.5", 1.5)])
def test_a_decimal_comma_is_read_where_it_separates_no_cells(
    tmp_path: Path, separator: str, number: str, value: float
) -> None:
    (row,) = _manifest(tmp_path, f"video,audio,end_time\n{V},{A},".replace(",", separator) + number)

    assert row.end_time == value


@pytest.mark.parametrize(
    ("separator", "number"), [(";", "1,500"), (";", "1,2,3"), (";", "1.000,5"), (";", ",5"), (",", "1,5")]
)
def test_a_comma_that_may_mean_something_else_is_an_error(tmp_path: Path, separator: str, number: str) -> None:
    manifest = _manifest(tmp_path, f"video,audio,end_time\n{V},{A},".replace(",", separator) + f'"{number}"')

    assert _problems(manifest) == [f"line 2, end_time: must be a number of seconds, not {number!r}"]


@pytest.mark.parametrize(("flag", "value"), [("1.0", True), ("0.0", False), ("", None)])
def test_a_column_of_flags_may_be_one_of_numbers(tmp_path: Path, flag: str, value: bool | None) -> None:
    (row,) = _manifest(tmp_path, f"video,audio,enable_caption\n{V},{A},{flag}\n")

    assert row.enable_caption is value


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt"])
def test_json_lines_are_read_with_what_programs_put_around_them(tmp_path: Path, name: str) -> None:
    line = f'{{"video": "{V}", "audio": "{A}"}}\n'

    assert list(_manifest(tmp_path, f"\x1e{line}\x1e{line}\x1a", name)) == [DubRow(V, A)] * 2
    assert list(_manifest(tmp_path, f"\ufeff\ufeff\u200b{line}", name)) == [DubRow(V, A)]


@pytest.mark.parametrize("name", ["", " ", "\u202e", "a, b", "a\n"])
def test_a_member_with_an_odd_name_is_named_as_it_is_written(tmp_path: Path, name: str) -> None:
    text = json.dumps({"video": V, "audio": A, name: 1})

    assert _problems(_manifest(tmp_path, text, "rows.jsonl")) == [f"line 1: unknown column {name!r}"]


@pytest.mark.parametrize(("start", "same"), [(0.0, -0.0), (0.0, 0), (5.0, 5)])
def test_a_number_in_another_form_is_the_same_input(start, same):
    one, other = (DubRow(V, A, start_time=number, end_time=9.0) for number in (start, same))

    assert inputs_digest(one, {}) == inputs_digest(other, {})
