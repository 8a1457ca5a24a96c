"""The rows of a table, whatever it was saved as: CSV, TSV, JSON lines or Excel."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ctflow_fed.errors import MissingExtraError, ReportTableError

__all__ = ["EXCESS", "TABLE_ENDINGS", "Row", "read_table"]

Row = dict[str, str]
Table = tuple[list[str], list[tuple[int, Row]]]

EXCESS = ""
"""The column of what stands in a row beyond the last column."""

LARGEST = 2**29
"""Bytes of a table, unpacked: 100,000 long reports."""


def read_table(path: Path) -> Table:
    """Return the columns of a table, and each row that is not blank with its line.

    ``.csv`` has commas, ``.tsv`` tabs, ``.jsonl`` one object a line, all in UTF-8; of
    ``.xlsx`` the first sheet is read. Any other ending is read as ``.csv``. Raises
    ``ReportTableError`` for a file that cannot be read as what its ending says.
    """
    name, read = READERS.get(path.suffix.lower(), READERS[".csv"])
    try:
        columns, rows = read(path)
    except (OSError, ValueError, KeyError, RecursionError, csv.Error):
        raise ReportTableError(
            f"expected a table of reports as {name}, found a file that cannot be read "
            "as one; export it again"
        ) from None
    return columns, [(line, row) for line, row in rows if any(row.values())]


def _csv(path: Path, delimiter: str = ",") -> Table:
    if path.stat().st_size > LARGEST:
        raise ValueError
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True, delimiter=delimiter)
        columns = next(lines, [])
        return columns, [(lines.line_num, _row(columns, line)) for line in lines]


def _tsv(path: Path) -> Table:
    return _csv(path, "\t")


def _jsonl(path: Path) -> Table:
    if path.stat().st_size > LARGEST:
        raise ValueError
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    objects = [(n, json.loads(line)) for n, line in enumerate(lines, 1) if line.strip()]
    if not all(isinstance(value, dict) for _, value in objects):
        raise ValueError
    columns = list(dict.fromkeys(name for _, value in objects for name in value))
    rows = [
        (number, {name: _text(value.get(name)) for name in columns})
        for number, value in objects
    ]
    return columns, rows


def _xlsx(path: Path) -> Table:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise MissingExtraError("openpyxl", "intake") from None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > LARGEST:
                raise ValueError
        book = load_workbook(path, read_only=True, data_only=True)
    except zipfile.BadZipFile:
        raise ValueError from None
    try:
        lines = [list(map(_text, line)) for line in _first_sheet(book)]
    finally:
        book.close()
    # Cells that were once touched stand as empty columns beside the table.
    columns = list(_without_empty_end(lines[0])) if lines else []
    return columns, [(n, _row(columns, line)) for n, line in enumerate(lines[1:], 2)]


def _first_sheet(book: Any) -> Iterator[Iterable[object]]:  # noqa: ANN401 - not typed
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # what is said about its size is often wrong
    yield from sheet.iter_rows(values_only=True)


READERS: dict[str, tuple[str, Callable[[Path], Table]]] = {
    ".csv": ("CSV in UTF-8", _csv),
    ".tsv": ("TSV in UTF-8", _tsv),
    ".jsonl": ("JSON lines in UTF-8", _jsonl),
    ".xlsx": ("an Excel sheet", _xlsx),
}
"""What each kind of table is called, and what reads it."""

TABLE_ENDINGS = frozenset(READERS)


def _row(columns: list[str], cells: list[str]) -> Row:
    """Name the cells; those beyond the last column are joined as `EXCESS`."""
    texts = [cell.strip() for cell in cells]
    row = dict.fromkeys(columns, "") | dict(zip(columns, texts, strict=False))
    if len(_without_empty_end(texts)) > len(columns):
        row[EXCESS] = " ".join(texts[len(columns) :])
    return row


def _without_empty_end(cells: list[str]) -> list[str]:
    end = max((n for n, cell in enumerate(cells, 1) if cell), default=0)
    return cells[:end]


def _text(value: object) -> str:
    """Write a cell as its table shows it."""
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
