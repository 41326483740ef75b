"""Readers: files of every kind are read row by row, or rejected with place and advice."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases

from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.reading import DataFile, InvalidRow, RowSource, SourceRow, find_files
from tunesmith_data.rows.reading.compression import ExpansionLimit, open_contents
from tunesmith_data.rows.reading.lines import MAX_ROW_BYTES
from tunesmith_data.rows.reading.parquet_rows import read_parquet
from tunesmith_data.rows.reading.read_errors import UnreadableFile
from tunesmith_data.rows.reading.text_passages import divide_lines
from tunesmith_data.rows.schema.formats import ANY, EVALUATION

USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
GOOD = {"messages": [USER, ASSISTANT]}
LINE = json.dumps(GOOD).encode()
PLAIN = {"prompt": "a", "completion": "b"}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def misplaced(archive: bytes) -> bytes:
    """An archive whose end says that its members begin before it: to look there is an error of the disk."""
    return archive[:-6] + (5_000).to_bytes(4, "little") + archive[-2:]


def parquet(rows: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def source_of(
    tmp_path: Path, files: dict[str, bytes], data_format: DataFormat = DataFormat.AUTO
) -> RowSource:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return RowSource([DataFile(tmp_path / name, name) for name in files], data_format)


def read(tmp_path: Path, name: str, data: bytes) -> tuple[list[SourceRow], list[str]]:
    """The good rows of a file, and its findings as people read them."""
    outcomes = list(source_of(tmp_path, {name: data}))
    refused = [each for each in outcomes if isinstance(each, InvalidRow)]
    rows = [each for each in outcomes if isinstance(each, SourceRow)]
    return rows, [str(finding) for row in refused for finding in row.findings]


ROWS = [
    (b'{"messages": [}', "r:2:15: invalid_json: found"),
    (b"{'messages': 1}", "r:2:2: invalid_json: found"),
    (LINE + LINE, f"r:2:{len(LINE) + 1}: invalid_json: found"),
    (b'{"messages": NaN}', "r:2:14: invalid_json: messages: found NaN, which JSON does not have; write null"),
    (b'{"a": [1, -Infinity]}', "r:2:11: invalid_json: a[1]: found -Infinity"),
    (
        b'{"id": 123456789012345678901}',
        "r:2:8: number_out_of_range: id: found the number 123456789012345678901",
    ),
    (b'{"id": 1e999}', "r:2:8: number_out_of_range: id: found the number 1e999"),
    (b'{"id": ' + b"1" * 5000 + b"}", "r:2:8: number_out_of_range: id: found the number 1111"),
    (b'{"a": {"b": 1, "b": 2}}', 'r:2:16: duplicate_key: a.b: found key "b" twice; write each key once'),
    (b'{"a\\u003a": 1, "b": 2, "b": 3}', 'r:2:24: duplicate_key: b: found key "b" twice'),
    (b'{"a": "\xc3\xa4\xe9"}', "r:2:9: invalid_encoding: found byte 0xE9, as in "),
    (b'{"a": "x\x00"}', "r:2:9: invalid_encoding: found a NUL byte"),
    (b'{"a": "x\\ud83d"}', "r:2:7: invalid_encoding: a: found half of a surrogate pair (\\ud83d)"),
    (b'{"a": "x\x01"}', "r:2:9: invalid_json: found"),
    (b'{"a": ' * 65 + b"1" + b"}" * 65, "r:2:385: nested_too_deeply: found more than 64 levels of objects"),
    (b"[" * 100_000, "r:2:65: nested_too_deeply: found"),
    (
        b'"' + b"x" * MAX_ROW_BYTES + b'"',
        "r:2: row_too_long: found a row of 16,777,218 bytes; write rows of at most",
    ),
    (b"3", "r:2: data_type: found 3; write a JSON object per row"),
]


@pytest.mark.parametrize(("line", "finding"), ROWS, ids=[finding[:45] for _, finding in ROWS])
def test_a_bad_line_costs_one_row(tmp_path: Path, line: bytes, finding: str) -> None:
    rows, findings = read(tmp_path, "r", b"\n".join([LINE, line, LINE]))
    assert [row.line for row in rows] == [1, 3]
    assert len(findings) == 1 and findings[0].startswith(finding)


#: Not those that leave open where the element ends.
ELEMENTS = [case for case in ROWS[3:16] if case[0] != b"[" * 100_000]


@pytest.mark.parametrize(("line", "finding"), ELEMENTS, ids=[finding[:45] for _, finding in ELEMENTS])
def test_a_bad_element_costs_one_row_in_an_array_too(tmp_path: Path, line: bytes, finding: str) -> None:
    rows, findings = read(tmp_path, "r", b"[" + b",\n".join([LINE, line, LINE]) + b"]")
    assert [row.line for row in rows] == [1, 3]
    assert len(findings) == 1 and findings[0].startswith(finding)


@pytest.mark.parametrize(
    "row",
    [
        {"id": 18446744073709551615, "low": -9223372036854775808, "x": 1.25e300},
        {"digits": "1" * 40, "colons": ":\\u003a::", "quotes": '"\\"'},
        {"ä": "\u2028\U0001f600", "nul": "\0"},
    ],
)
def test_what_looks_odd_and_is_well_formed_is_read(tmp_path: Path, row: Any) -> None:
    rows, findings = read(tmp_path, "r", json.dumps(GOOD | row).encode() + b"\n" + LINE)
    assert (len(rows), findings) == (2, [])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n \r\n"])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: bytes, last: bytes) -> None:
    rows, findings = read(tmp_path, "r.jsonl", b"\xef\xbb\xbf" + end.join([LINE, LINE, LINE]) + last)
    assert (len(rows), findings) == (3, [])


FILES = [
    ("r.jsonl", b"", "r.jsonl:1: empty_file: found no rows"),
    ("r.json", b" [ ]\n", "r.json:1: empty_file: found no rows"),
    ("r.csv", b"", "r.csv:1: empty_file: found no header"),
    ("r.csv", b"prompt,completion\n", "r.csv:1: empty_file: found a header and no rows"),
    ("r.txt", b" \n\n", "r.txt:1: empty_file"),
    ("r.parquet", parquet([PLAIN])[:-20], "r.parquet:1: damaged_file: found a damaged Parquet file"),
    ("r.parquet", b"PAR1" + b"x" * 99 + b"PAR1", "r.parquet:1: damaged_file: found a damaged Parquet file"),
    ("r.parquet", LINE, "r.parquet:1: damaged_file: found not a Parquet file"),
    (
        "r.jsonl",
        json.dumps(GOOD).encode("utf-16"),
        "r.jsonl:1: invalid_encoding: found text in UTF-16; save it as",
    ),
    ("r.jsonl", json.dumps(GOOD).encode("utf-16-be"), "r.jsonl:1: invalid_encoding: found text in UTF-16"),
    (
        "r.csv",
        b"prompt,completion\na,b\n".decode().encode("utf-32"),
        "r.csv:1: invalid_encoding: found text in UTF-32",
    ),
    ("r.jsonl", bytes(5000), "r.jsonl:1: unknown_file: found binary data"),
    ("r.txt", "añ\n".encode("utf-16-le") * 9, "r.txt:1: invalid_encoding: found text in UTF-16"),
    ("r.txt", "añ\n".encode("utf-32-be") * 9, "r.txt:1: invalid_encoding: found text in UTF-32"),
    ("r.jsonl", b"%PDF-1.7\n...", "r.jsonl:1: unknown_file: found a PDF document; write JSONL"),
    ("r.jsonl", b"\x89PNG\r\n\x1a\n", "r.jsonl:1: unknown_file: found a PNG image"),
    ("r.json", b"<!DOCTYPE html>", "r.json:1: unknown_file: found an HTML page"),
    (
        "r.csv",
        b"version https://git-lfs.github.com/spec/v1\n",
        "r.csv:1: unknown_file: found a pointer of Git LFS",
    ),
    ("r.jsonl.gz", gzip.compress(LINE)[:-10], "r.jsonl.gz:1: damaged_file: found a cut-off gzip file"),
    ("r.jsonl.gz", gzip.compress(LINE) + b"more", "r.jsonl.gz:1: damaged_file: found a damaged gzip file"),
    ("r.jsonl.bz2", bz2.compress(LINE)[:-10], "r.jsonl.bz2:1: damaged_file: found a cut-off bzip2 file"),
    ("r.jsonl.xz", lzma.compress(LINE)[:-10], "r.jsonl.xz:1: damaged_file: found a cut-off xz file"),
    (
        "r.jsonl.zst",
        zstandard.compress(LINE * 9)[:-3],
        "r.jsonl.zst:1: damaged_file: found a cut-off zstd file",
    ),
    ("r.zip", zipped({"a.jsonl": LINE})[:-10], "r.zip:1: damaged_file: found a damaged zip file"),
    (
        "r.zip",
        zipped({"a.docx": b"x"}),
        "r.zip:1: empty_file: found an archive without data files (it contains a.docx); put",
    ),
    (
        "r.zip",
        zipped({"a.jsonl": gzip.compress(LINE)}),
        "r.zip/a.jsonl:1: nested_archive: found gzip within zip",
    ),
    ("r.gz", gzip.compress(zipped({"a.jsonl": LINE})), "r.gz:1: nested_archive: found zip within gzip"),
    (
        "r.json",
        b'{\n "messages": []\n}',
        "r.json:1:1: invalid_json: found one object over several lines; write one",
    ),
    ("r.json", b'{"data": [%s]}' % LINE, 'write the list in "data" by itself: [{…}, {…}]'),
    (
        "r.json",
        b"[%s,\n%s" % (LINE, LINE),
        f"r.json:2:{len(LINE) + 1}: invalid_json: found the end of the file where",
    ),
    ("r.json", b"[%s,\n%s]\n]" % (LINE, LINE), 'r.json:3:1: invalid_json: found "]" after the array\'s end'),
    ("r.json", b"[%s,\n]" % LINE, 'r.json:2:1: invalid_json: found "]" (Expecting value)'),
    ("r.json", b'[%s,\n{"a" 1}]' % LINE, "r.json:2:6: invalid_json: found "),
    ("r.json", b"[%s, %s" % (LINE, b"[" * 100_000), f"r.json:1:{len(LINE) + 4}: nested_too_deeply"),
    ("r.json", b'[%s, "%s"]' % (LINE, b"x" * 2 * MAX_ROW_BYTES), f"r.json:1:{len(LINE) + 4}: row_too_long"),
    ("r.csv", b"a,a\n1,2\n", 'r.csv:1: duplicate_column_name: a: found 2 columns "a"; name each column once'),
    ("r.csv", b",a\n1,2\n", "r.csv:1: empty_column_name: found column 1 without a name; name it"),
    (
        "r.csv",
        b'prompt,completion\na,b\n"c,d\ne,f\n',
        "r.csv:3: invalid_csv: found a quote that is never closed",
    ),
    ("r.csv", b"prompt,completion\n" + b"x" * 2 * MAX_ROW_BYTES, "r.csv:2: row_too_long"),
]


@pytest.mark.parametrize(("name", "data", "message"), FILES, ids=[message[:45] for _, _, message in FILES])
def test_a_file_that_cannot_be_read_to_its_end_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    source = source_of(tmp_path, {name: data}, DataFormat.AUTO)
    if "row_too_long" in message and name.endswith(".csv"):
        (outcome,) = source
        assert isinstance(outcome, InvalidRow) and str(outcome.findings[0]).startswith(message)
        return
    with pytest.raises(DataError) as caught:
        list(source)
    assert message in caught.value.message


def test_a_table_holds_text_json_and_labels(tmp_path: Path) -> None:
    """Records may go over several lines; what is wrong with one costs one row."""
    cells = [
        ["prompt", "completion", "label", "tools", "id"],
        ["two\nlines", '{"x": 1}', "Yes", "", "1"],
        ["[1]", "b", "0", '[{"name": "f"}]', "2"],
        ["a", "b", "maybe", "", "3"],
        ["a", "b", "1", "[{", "4"],
    ]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(cells)
    text = buffer.getvalue() + 'a,b,1\r\na,"b"c,1,,5\r\na,\xe9,1,,6\r\n'
    data = text.encode().replace(b"\xc3\xa9", b"\xe9")
    source = source_of(tmp_path, {"r.csv": data}, DataFormat.UNPAIRED_PREFERENCE)
    outcomes = list(source)
    assert [(each.line, each.row) for each in outcomes if isinstance(each, SourceRow)] == [
        (2, {"prompt": "two\nlines", "completion": '{"x": 1}', "label": True}),
        (
            4,
            {
                "prompt": "[1]",
                "completion": "b",
                "label": False,
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        ),
    ]
    findings = [
        str(finding) for each in outcomes if isinstance(each, InvalidRow) for finding in each.findings
    ]
    expected = [
        'r.csv:5: missing_label: label: found label "maybe"',
        'r.csv:6: invalid_json: tools: found "[{"',
        "r.csv:7: wrong_number_of_cells: found 3 cells under 5 names of columns",
        "r.csv:8: invalid_csv: found",
        "r.csv:9:3: invalid_encoding: found byte 0xE9, as in",
    ]
    assert len(findings) == len(expected)
    assert all(finding.startswith(start) for finding, start in zip(findings, expected, strict=True))
    (report,) = source.files
    assert (report.name, report.format, report.rows, report.refused) == ("r.csv", "CSV", 2, 5)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_may_be_parted_by_other_marks(tmp_path: Path, delimiter: str) -> None:
    text = f"prompt{delimiter}completion\na{delimiter}b\n"
    assert [row.row for row in read(tmp_path, "r.csv", text.encode())[0]] == [PLAIN]
    if delimiter == "\t":
        assert [row.row for row in read(tmp_path, "r.tsv", text.encode())[0]] == [PLAIN]


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    called = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1.5, "y": None}}}]
    rows = [
        {"messages": [USER, ASSISTANT], "when": 1.0},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": called}], "when": 2.0},
        {"messages": [USER], "when": float("nan")},
    ]
    good, findings = read(tmp_path, "r.parquet", parquet(rows))
    assert good[0].row == GOOD
    assert good[1].row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"x": 1.5}
    assert [row.line for row in good] == [1, 2]
    assert findings[0].startswith("r.parquet:3: example_missing_assistant_message: messages: found")


@pytest.mark.parametrize(
    ("column", "finding"),
    [
        (pa.array([b"a", b"\xff"]), "r.parquet:2: invalid_encoding: text: found bytes"),
        (pa.array(["a", None]), "r.parquet:2: missing_text: text: found keys []"),
        (pa.array([1.5, float("nan")]), "r.parquet:2: number_out_of_range: text: found the number nan"),
        (
            pa.array([b"a", b"\xff"]).view(pa.string()),
            "r.parquet:2: invalid_encoding: found a value that can't",
        ),
    ],
)
def test_a_value_of_parquet_that_is_no_text_costs_one_row(
    tmp_path: Path, column: pa.Array, finding: str
) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "r.parquet")
    source = RowSource([DataFile(tmp_path / "r.parquet", "r.parquet")], DataFormat.TEXT)
    refused = [each for each in source if isinstance(each, InvalidRow)]
    assert str(refused[-1].findings[0]).startswith(finding)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "zip": lambda data: zipped({"inner.jsonl": data}),
}


@pytest.mark.parametrize("name", COMPRESS)
def test_compression_is_told_by_its_magic_number(tmp_path: Path, name: str) -> None:
    data = COMPRESS[name](b"\n".join([LINE] * 3))
    if name != "zip":
        data += COMPRESS[name](b"\n" + LINE)
    source = source_of(tmp_path, {"r.jsonl": data})
    assert len(list(source)) == (3 if name == "zip" else 4)
    assert source.files[0].format == f"JSONL, {name}"


def test_members_of_an_archive_are_files_of_their_own(tmp_path: Path) -> None:
    archive = zipped(
        {"b.jsonl": LINE, "a/a.json": b"[" + LINE + b"]", "README.md": b"# Hi", "__MACOSX/._b.jsonl": b""}
    )
    source = source_of(tmp_path, {"r.zip": archive})
    assert [row.file for row in source] == ["r.zip/a/a.json", "r.zip/b.jsonl"]


@pytest.mark.parametrize("name", COMPRESS)
def test_a_bomb_is_refused_before_it_has_gone_off(tmp_path: Path, name: str) -> None:
    (tmp_path / "r").write_bytes(COMPRESS[name](bytes(40_000_000)))
    chunks = unpack(tmp_path / "r", ExpansionLimit(size_bytes=1_000_000, ratio=500))
    sizes: list[int] = []
    with pytest.raises(UnreadableFile) as caught:
        sizes.extend(map(len, chunks))
    assert caught.value.finding.check == "decompression_bomb"
    assert sum(sizes) < 36_000_000


def unpack(path: Path, limit: ExpansionLimit) -> Iterator[bytes]:
    for content in open_contents(DataFile(path, path.name), limit):
        yield from content.chunks


def test_a_value_that_repeats_in_parquet_is_no_way_around(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"text": pa.array(["x" * 100_000] * 2_000).dictionary_encode()}), path)
    with pytest.raises(UnreadableFile) as caught:
        list(read_parquet(path, (), ExpansionLimit(size_bytes=10_000_000, ratio=100)))
    assert caught.value.finding.check == "decompression_bomb"


def test_files_come_one_after_another_in_one_format(tmp_path: Path) -> None:
    files = {
        "a.jsonl": LINE,
        "b.json": b"[%s]" % LINE,
        "c.csv": b'messages\n"[]"\n',
        "d.parquet": parquet([GOOD]),
    }
    source = source_of(tmp_path, files)
    outcomes = list(source)
    assert [(each.file, each.line) for each in outcomes] == [
        ("a.jsonl", 1),
        ("b.json", 1),
        ("c.csv", 2),
        ("d.parquet", 1),
    ]
    assert source.data_format is DataFormat.CHAT
    assert [(each.format, each.rows, each.refused) for each in source.files] == [
        ("JSONL", 1, 0),
        ("JSON", 1, 0),
        ("CSV", 0, 1),
        ("Parquet", 1, 0),
    ]


@pytest.mark.parametrize("names", [("a.jsonl", "b.md"), ("b.md", "a.jsonl")])
def test_text_and_rows_of_another_format_do_not_mix(tmp_path: Path, names: tuple[str, ...]) -> None:
    contents = {"a.jsonl": LINE, "b.md": b"# Title\n\ntext"}
    source = source_of(tmp_path, {name: contents[name] for name in names})
    if names[0] == "a.jsonl":
        with pytest.raises(DataError, match=r"b.md holds Text rows after Chat rows"):
            list(source)
    else:
        assert [type(each).__name__ for each in source] == ["SourceRow", "InvalidRow"]


def test_members_are_kept_beside_the_canonical_row(tmp_path: Path) -> None:
    rows = [
        PLAIN | {"metadata": {"customer": "x"}, "tier": 3},
        PLAIN | {"metadata.customer": "y", "tier": True},
        PLAIN | {"metadata": {"customer": ["z"]}},
    ]
    (tmp_path / "r").write_text("\n".join(map(json.dumps, rows)))
    outcomes = list(
        RowSource([DataFile(tmp_path / "r", "r")], DataFormat.AUTO, keep=("metadata.customer", "tier"))
    )
    kept = [each.kept for each in outcomes if isinstance(each, SourceRow)]
    assert kept == [{"metadata.customer": "x", "tier": "3"}, {"metadata.customer": "y", "tier": "true"}]
    assert isinstance(outcomes[2], InvalidRow)
    assert [str(finding)[:60] for finding in outcomes[2].findings] == [
        'r:3: missing_field: metadata.customer: found ["z"]; write "m',
        'r:3: missing_field: tier: found keys ["completion", "metadat',
    ]


def test_passages_know_their_document(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"a.txt": b"one\n\ntwo", "b.md": b"three"})
    assert [(each.document, each.row) for each in source if isinstance(each, SourceRow)] == [
        ("a.txt", {"text": "one\n\ntwo"}),
        ("b.md", {"text": "three"}),
    ]


def test_a_folder_gives_its_data_files_in_order(tmp_path: Path) -> None:
    names = [
        "b.jsonl",
        "a.json.gz",
        "c.zip",
        "README.md",
        ".gitattributes",
        "_SUCCESS",
        "dataset_info.json",
        "x.bin",
    ]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    assert [file.name for file in find_files(tmp_path)] == ["a.json.gz", "b.jsonl", "c.zip"]
    assert [file.name for file in find_files(tmp_path / "*.jsonl")] == ["b.jsonl"]
    with pytest.raises(
        DataError, match=r"q\* has no data files \(there are \.gitattributes, README\.md, _SUC"
    ):
        find_files(tmp_path / "q*", "q*")
    with pytest.raises(DataError, match=r"deeper/ has no data files .nothing is there"):
        find_files(tmp_path / "deeper", "deeper/")
    with pytest.raises(DataError, match="does not exist"):
        find_files(tmp_path / "none/*")


def test_a_source_that_no_purpose_takes_says_so_at_its_first_row(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps({"text": "a"}))
    with pytest.raises(DataError, match="an evaluation needs rows with"):
        next(iter(RowSource([DataFile(tmp_path / "r", "r")], DataFormat.AUTO, EVALUATION)))
    assert isinstance(next(iter(RowSource([DataFile(tmp_path / "r", "r")], DataFormat.AUTO, ANY))), SourceRow)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)
spoken = words.filter(str.strip)
chats = st.builds(
    lambda asked, said, tools: {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}],
        "tools": [{"type": "function", "function": {"name": tools}}],
    },
    *(words, spoken, words),
)
pairs = st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion}, words, spoken)


def as_table(rows: list[Any]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys())
    writer.writeheader()
    writer.writerows(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
        for row in rows
    )
    return buffer.getvalue().encode()


WRITE: dict[str, Callable[[list[Any]], bytes]] = {
    "jsonl": lambda rows: b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows),
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "csv": as_table,
    "parquet": parquet,
}


@given(
    st.sampled_from([chats, pairs]).flatmap(lambda rows: st.lists(st.lists(rows, min_size=1), min_size=1)),
    st.data(),
)
@settings(max_examples=cases(200, 4000))
def test_what_was_written_is_read_whatever_the_kinds_and_the_order_of_files(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Any]], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    files: list[DataFile] = []
    for number, rows in enumerate(parts):
        kind = data.draw(st.sampled_from(list(WRITE)))
        packs = [bytes, *(pack for name, pack in COMPRESS.items() if name != "zip" or kind == "jsonl")]
        path = folder / f"{number}.{kind}"
        path.write_bytes(data.draw(st.sampled_from(packs))(WRITE[kind](rows)))
        files.append(DataFile(path, path.name))
    order = data.draw(st.permutations(range(len(parts))))
    outcomes = list(RowSource([files[place] for place in order], DataFormat.AUTO))
    assert [each.row for each in outcomes] == [row for place in order for row in parts[place]]
    assert all(isinstance(each, SourceRow) for each in outcomes)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# A\n\n" + "a" * 50 + "\n\n# B\ntext\n", [1, 5]),
        ("a\n\n# B\ntext\n", [1]),
        ("a" * 30 + "\n\n# B\n\n" + "b" * 90, [1, 3]),
        ("```\n" + "# no heading\n" * 5 + "```\n" + "# B\n", [1, 8]),
    ],
)
def test_a_heading_begins_a_passage_and_never_ends_one(text: str, lines: list[int]) -> None:
    passages = list(divide_lines(enumerate(text.split("\n"), start=1), 80, markdown=True))
    assert [line for line, _ in passages] == lines
    assert "".join("".join(str(passage) for _, passage in passages).split()) == "".join(text.split())


def test_columns_stand_for_the_members_of_a_format(tmp_path: Path) -> None:
    rows = [
        {"input": {"question": "a"}, "target": "1", "prompt": "not this", "more": {"kept": [1]}},
        {"input": {}, "target": "2"},
        {"input": {"question": "c"}, "target": 3},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = RowSource(
        [DataFile(tmp_path / "r.jsonl", "r")],
        DataFormat.AUTO,
        columns={"prompt": "input.question", "completion": "target", "tools": "absent"},
        carry=("more.kept", "input"),
    )
    first, second, third = source
    assert isinstance(first, SourceRow)
    assert first.row == {"prompt": "a", "completion": "1"}
    assert first.carried == {"more.kept": [1], "input": {"question": "a"}}
    assert isinstance(second, InvalidRow)
    assert 'it is the "prompt"' in str(second.findings[0])
    assert isinstance(third, InvalidRow)
    assert third.row == rows[2]


def test_columns_of_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("q,a,language\none,1,de\n")
    files = [DataFile(tmp_path / "r.csv", "r.csv")]
    (row,) = RowSource(
        files, DataFormat.AUTO, columns={"prompt": "q", "completion": "a"}, carry=("language",)
    )
    assert isinstance(row, SourceRow)
    assert (row.row, row.carried) == ({"prompt": "one", "completion": "1"}, {"language": "de"})
    pq.write_table(pa.Table.from_pylist([{"io": {"q": "one"}, "a": "1", "other": 2}]), tmp_path / "r.parquet")
    files = [DataFile(tmp_path / "r.parquet", "r.parquet")]
    (row,) = RowSource(
        files, DataFormat.AUTO, columns={"prompt": "io.q", "completion": "a"}, carry=("other",)
    )
    assert isinstance(row, SourceRow)
    assert (row.row, row.carried) == ({"prompt": "one", "completion": "1"}, {"other": 2})
