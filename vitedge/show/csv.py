"""Tables as CSV, for other tools to plot: of `bench`, a row for each artifact and setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vitedge.core import files
from vitedge.core.report import Report
from vitedge.show import report_tables
from vitedge.show.table import Row, Table


def write(reports: Sequence[Report], file: Path) -> None:
    """Write the rows of `reports` to `file`, all or nothing. Raises InputError."""
    write_table(report_tables.csv(reports), file)


def write_table(table: Table[Row], file: Path) -> None:
    """Write a table's exact values to `file`, all or nothing. Raises InputError."""
    text = io.StringIO()
    keys = [key for column in table.columns for key in column.keys]
    rows = csv.DictWriter(text, keys, lineterminator="\n")
    rows.writeheader()
    for row in table.rows:
        rows.writerow({k: v for column in table.columns for k, v in column.values(row).items()})
    files.write(file, text.getvalue())
