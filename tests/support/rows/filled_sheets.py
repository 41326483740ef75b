"""People who fill in sheets of tasks."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

#: What a person writes into a line, by column; the line is what the person sees.
Person = Callable[[Mapping[str, str]], Mapping[str, str]]


def fill(sheet: Path, filled: Path, person: Person, *, spreadsheet: bool = False) -> Path:
    """Fill a sheet in, and save it as a text editor or as a German spreadsheet program would; return its path."""
    if sheet.suffix == ".jsonl":
        lines = [json.loads(line) for line in sheet.read_text().splitlines()]
        filled.write_text("".join(json.dumps({**line, **person(line)}) + "\n" for line in lines))
        return filled
    lines = read_table(sheet)
    text = io.StringIO()
    # Without quotes Python's writer lets a lone carriage return end the line.
    written = {"delimiter": ";"} if spreadsheet else {"lineterminator": "\n", "quoting": csv.QUOTE_ALL}
    writer = csv.DictWriter(text, list(lines[0]), **written)
    writer.writeheader()
    writer.writerows({**line, **person(line)} for line in lines)
    filled.write_bytes(text.getvalue().encode("utf-8-sig" if spreadsheet else "utf-8"))
    return filled


def read_table(sheet: Path) -> list[dict[str, str]]:
    """The lines of a sheet as push writes it, by column."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
