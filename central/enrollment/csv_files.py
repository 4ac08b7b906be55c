"""A CSV file of device records as it streams in: read, judged and kept 500 rows at a time."""

import csv
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import ImportOrder
from central.enrollment.records import IMPORT_ROWS_MAX
from central.scope import Of
from shared.kernel.errors import BadRequestError, TooLargeError

VERDICTS = ("added", "changed", "same", "refused")
_LINE_BYTES_MAX = 32 * 1024
_ROWS_MAX = 1_000_000
_FIRST_ROW = 2  # the header is row 1

#: Gives the next line with its end; nothing at the end of the file.
ReadLine = Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class CsvImport:
    """One file. A row is one line: quoted line breaks are refused."""

    operations: EnrollmentOperations
    read_line: ReadLine
    actor: str
    may: Of
    dry_run: bool
    row: int = _FIRST_ROW  # the next one: after an error, where the file was left

    async def verdicts(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Give the verdicts as they come; one call of ``read_line`` is never far ahead.

        Raises BadRequestError for a header or an encoding that cannot be read, TooLargeError; what
        was given before is kept.
        """
        header = tuple(name.strip() for name in _cells(await self._line()))
        ended = False
        while not ended:
            rows, ended = await self._rows()
            found = await self._import(header, rows)
            self.row += len(rows)
            yield found
            if self.row > _ROWS_MAX:
                raise TooLargeError(f"At most {_ROWS_MAX} rows are taken from one file.")

    async def _import(
        self, header: tuple[str, ...], rows: list[tuple[str, ...]]
    ) -> list[dict[str, Any]]:
        try:
            order = ImportOrder(
                header=header, rows=tuple(rows), first_row=self.row, dry_run=self.dry_run
            )
        except ValidationError as error:
            raise BadRequestError("The first line must name up to 64 columns.") from error
        return await self.operations.import_devices(order, self.actor, self.may)

    async def _rows(self) -> tuple[list[tuple[str, ...]], bool]:
        """Read the next rows; tells whether they are the last ones."""
        rows: list[tuple[str, ...]] = []
        while len(rows) < IMPORT_ROWS_MAX:
            line = await self._line()
            if not line:
                return rows, True
            if line.strip():
                rows.append(_cells(line))
        return rows, False

    async def _line(self) -> str:
        too_long = f"A line of the file is longer than {_LINE_BYTES_MAX} bytes."
        try:
            line = await self.read_line()
            if len(line) > _LINE_BYTES_MAX:
                raise TooLargeError(too_long)
            return line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRequestError("The file is not written in UTF-8.") from error
        except ValueError as error:  # the reader's own bound
            raise TooLargeError(too_long) from error


def _cells(line: str) -> tuple[str, ...]:
    """Split one line; a quote that does not end in it makes the row unreadable, not the file."""
    nothing: list[str] = []
    try:
        return tuple(next(csv.reader([line], strict=True), nothing))
    except csv.Error:
        return ()
