"""Read rows from files, folders and globs as one table."""

from pathlib import Path

import pyarrow as pa

from holdtrue.core.errors import InvalidInput
from holdtrue.data.folders import find_files
from holdtrue.data.reading import Reading, read_file


def read_files(
    *patterns: str | Path,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    texts: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
) -> pa.Table:
    """Return the rows of the files that paths, folders and globs name, in the order of their names.

    `texts` names columns of CSV files that are texts though they look like numbers, `missing` further values that
    mean that there is none. What cannot be read is named, as in `holdtrue data add`.
    """
    how = Reading(delimiter, encoding, texts, missing)
    folder = find_files([str(pattern) for pattern in patterns])
    tables = {name: read_file(Path(path), how) for name, path in zip(folder.names, folder.paths, strict=True)}
    try:
        return pa.concat_tables(tables.values(), promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidInput(
            f"The {len(tables)} files cannot be read as one table.",
            why=f"{str(error).splitlines()[0]}.",
            mend="Write a column with one type in all of them.",
        ) from error
