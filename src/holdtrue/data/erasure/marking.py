"""Know an erased entity again by a keyed hash: the list holds no value, and tells nothing without the key."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from blake3 import blake3

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.files import write_atomic

# The list is read with every version that is added, and most projects erased nobody.
if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_KEY_FILE = "keys/erasure-key"
_KEY_BYTES = 32
_MOST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Entity:
    """Name an entity: the column that holds it, and its value there as a text."""

    column: str
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.column or not self.value or len(self.column) > _MOST_TEXT or len(self.value) > _MOST_TEXT:
            raise InvalidInput(
                "No entity is named.",
                why=f"An entity is a column and its value there, of 1 to {_MOST_TEXT} characters each.",
                mend="Write it like customer=C-1017.",
            )
        try:
            (self.column + self.value).encode()
        except UnicodeEncodeError:
            raise InvalidInput("The entity's name is no text.", mend="Write it as UTF-8.") from None

    def names(self) -> tuple[str | int, ...]:
        """Return what the entity is called in a store that tells texts from whole numbers."""
        digits = self.value.removeprefix("-")
        whole = digits.isascii() and digits.isdigit() and str(int(self.value)) == self.value
        return (self.value, int(self.value)) if whole else (self.value,)


@dataclass(frozen=True, slots=True)
class Key:
    """Hash entities with a secret of the data folder; whoever lacks it can neither read nor guess a mark."""

    secret: bytes = field(repr=False)

    def mark(self, project: str, column: str, value: str) -> str:
        """Return the mark of an entity: 64 hexadecimal digits."""
        # A list of texts has one form in orjson too, which takes a fiftieth of the time: each new value is hashed.
        return blake3(orjson.dumps(["erased", project, column, value]), key=self.secret).hexdigest()


def open_key(home: Path) -> Key:
    """Return the data folder's key, made at the first use."""
    path = home / _KEY_FILE
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(_KEY_BYTES)
        write_atomic(path, secret)
    return Key(secret)


@dataclass(frozen=True, slots=True)
class Standing:
    """Hold the list of the erased of one project: the erasure of each mark by column, and how many there are."""

    key: Key
    project: str
    marks: Mapping[str, Mapping[str, str]]
    revision: int

    def hits(self, table: "pa.Table") -> "tuple[NDArray[np.bool_], frozenset[str]]":
        """Tell which rows are of an erased entity, bool[n], and by which erasures."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from holdtrue.storage.journal.erasing import texts_of

        found = np.zeros(table.num_rows, np.bool_)
        erasures: set[str] = set()
        for column in self.columns(table.column_names):
            texts = texts_of(table[column])
            marks = self.marks[column]
            named = [each for each in texts.unique().to_pylist() if each is not None]
            gone = {each: mark for each in named if (mark := self.key.mark(self.project, column, each)) in marks}
            if gone:
                options = pc.SetLookupOptions(pa.array(list(gone), pa.string()), skip_nulls=True)
                found |= np.array(pc.call_function("is_in", [texts], options), np.bool_)
                erasures |= {marks[mark] for mark in gone.values()}
        return found, frozenset(erasures)

    def holds(self, column: str, value: str) -> bool:
        """Tell whether the entity of this name was erased."""
        marks = self.marks.get(column)
        return marks is not None and self.key.mark(self.project, column, value) in marks

    def columns(self, names: list[str]) -> list[str]:
        """Return which of these columns hold erased entities."""
        return [name for name in names if name in self.marks]


def mask_of(entity: Entity, table: "pa.Table") -> "NDArray[np.bool_]":
    """Tell which rows are of an entity, bool[n]."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from holdtrue.storage.journal.erasing import texts_of

    if entity.column not in table.column_names:
        return np.zeros(table.num_rows, np.bool_)
    options = pc.SetLookupOptions(pa.array([entity.value]), skip_nulls=True)
    return np.array(pc.call_function("is_in", [texts_of(table[entity.column])], options), np.bool_)
