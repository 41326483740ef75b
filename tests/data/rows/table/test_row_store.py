"""Row store: rows come back as they were stored, from any number of files."""

from pathlib import Path

from tunesmith_data.rows.table.row_store import RowStore, StoredRow

MORE_FILES_THAN_16_BITS_COUNT = 2**16 + 2


def test_a_folder_of_more_files_than_16_bits_count(tmp_path: Path) -> None:
    with RowStore(tmp_path) as store:
        store.append(
            StoredRow(f"{number}.txt", 1, {"text": str(number)}, tokens=1, group=f"{number}.txt")
            for number in range(MORE_FILES_THAN_16_BITS_COUNT)
        )
        last = store.take([MORE_FILES_THAN_16_BITS_COUNT - 1])
    assert [(record.file, record.group, record.row) for record in last] == [
        ("65537.txt", "65537.txt", {"text": "65537"})
    ]
