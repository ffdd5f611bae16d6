"""Commands on contracts: infer one from rows, and write one as Python or as a document of the open standard."""

from pathlib import Path
from typing import Annotated, Any

from holdtrue.cli.context import AsJson, Home, ProjectName, base, lines, open_client, project_name, show
from holdtrue.cli.declaring import argument, echo, option
from holdtrue.core.errors import ConfigurationError, NotFound

_DOCUMENTS = (".yaml", ".yml", ".json")
AsDocument = Annotated[bool, option("--odcs", help="Write YAML of the Open Data Contract Standard.")]


def data_infer(
    file: Annotated[Path, argument(help="File with rows: Parquet, CSV or JSON.")],
    odcs: AsDocument = False,
    delimiter: Annotated[str | None, option("--delimiter", help="What separates values in a CSV file.")] = None,
    encoding: Annotated[str, option("--encoding", help="How a text file is written.")] = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Write the contract that a file's rows keep, as Python to put into the project file."""
    from holdtrue.core.codec import dump
    from holdtrue.data import DatasetSpec, infer, to_odcs
    from holdtrue.data.inferring import as_python
    from holdtrue.data.reading import Reading, read_file

    if not file.is_file():
        raise NotFound(f"There is no file {file}.", mend="Name a file with rows.")
    found = infer(read_file(file, Reading(delimiter, encoding)))
    spec = DatasetSpec(file.stem, found.key or "", found.time or "", found.contract)
    told = {"key": found.key, "time": found.time, "contract": dump(found.contract), "left_out": found.left_out}
    show(told, as_json, lambda _: echo(to_odcs(spec) if odcs else as_python(found), nl=False))


def data_contract(
    name: Annotated[str, argument(help="Declared dataset, or a document of the Open Data Contract Standard.")],
    odcs: AsDocument = False,
    table: Annotated[str | None, option("--table", help="Which table of a document with several.")] = None,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset's contract as YAML of the open standard, or such a document's contract as Python."""
    from holdtrue.core.codec import dump, load
    from holdtrue.data import DatasetSpec, from_odcs, to_odcs
    from holdtrue.data.inferring import Inferred, as_python

    if name.endswith(_DOCUMENTS):
        spec = from_odcs(_read(Path(name)), table)
    elif table is not None:
        raise ConfigurationError(
            "--table chooses a table of a document, and none was named.",
            mend=f"Name the document: one of {', '.join(_DOCUMENTS)}",
        )
    else:
        with open_client(home) as client:
            given: Any = client.get(f"{base(project_name(client, project))}/datasets/{name}/contract")
        spec = load(DatasetSpec, given, f"The dataset {name}")

    def write(_: Any) -> None:
        if odcs:
            echo(to_odcs(spec), nl=False)
        else:
            head = [f"key={spec.key!r}, time={spec.time!r},"]
            lines([*head, *as_python(Inferred(spec.contract, {}, {})).splitlines()[2:]])

    show(dump(spec), as_json, write)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.", mend="Name a document that is there.") from None
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be read.", why=f"{error}.", mend="Write it as UTF-8.") from error
