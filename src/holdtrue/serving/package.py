"""The one file form of models that no library has a file for: code in Python, PyTorch weights, graphs of models.

A package is the mark `HTMODEL1`, its kind in eight bytes, the length of a JSON header in eight little-endian bytes, the
header in its canonical form, and the files that the header names, one after the other. Nothing is extracted and no name
becomes a path: files are read by name from memory. Equal parts give equal bytes, so that a package has the digest of
what is in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import InvalidInput

MAGIC: Final = b"HTMODEL1"
KINDS: Final = ("python", "torch", "graph")
"""What a package can hold: a class in Python, a PyTorch module or exported program, a graph of models."""
_MARK: Final = 16
_LENGTH: Final = 8
_MOST_HEADER: Final = 1 << 20
_MOST_FILES: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}){0,9}")


class BadPackage(InvalidInput):
    """A package of a model is broken, or not what it says."""

    code = "bad_package"


@dataclass(frozen=True, slots=True)
class Package:
    """Hold a package: its kind, what it says of itself, and its files by name."""

    kind: str
    about: Mapping[str, Any]
    files: Mapping[str, bytes]


def pack(package: Package) -> bytes:
    """Return a package as bytes; raise BadPackage for names that are none."""
    if package.kind not in KINDS:
        raise _bad(f"it is of the unknown kind {package.kind[:60]!r}")
    for name in package.files:
        _check_name(name)
    names = sorted(package.files)
    header = canonical_bytes(
        {
            "about": dict(package.about),
            "files": [[name, len(package.files[name])] for name in names],
        }
    )
    if len(header) > _MOST_HEADER or len(names) > _MOST_FILES:
        raise _bad(f"its header has {len(header)} bytes, and {len(names)} files are in it")
    length = len(header).to_bytes(_LENGTH, "little")
    return b"".join(
        [
            MAGIC,
            package.kind.encode().ljust(_MARK - len(MAGIC)),
            length,
            header,
            *(package.files[name] for name in names),
        ]
    )


def kind_of_package(data: bytes) -> str | None:
    """Return the kind of the package that begins so, None if it is none."""
    kind = data[len(MAGIC) : _MARK].rstrip().decode("latin-1")
    return kind if data.startswith(MAGIC) and kind in KINDS else None


def unpack(data: bytes) -> Package:
    """Return the package in `data`; raise BadPackage unless every byte of it is accounted for."""
    start = _MARK + _LENGTH
    kind = kind_of_package(data)
    if kind is None or len(data) < start:
        raise _bad("it does not begin as a package does")
    end = start + int.from_bytes(data[_MARK:start], "little")
    if end > len(data) or end - start > _MOST_HEADER:
        raise _bad("its header is longer than it, or than a header may be")
    try:
        header = orjson.loads(data[start:end])
        about, listed = header["about"], header["files"]
        sizes = {str(name): int(size) for name, size in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise _bad(f"its header cannot be read ({type(error).__name__})") from None
    if type(about) is not dict or len(sizes) != len(listed) or len(sizes) > _MOST_FILES:
        raise _bad("its header is not that of a package")
    files: dict[str, bytes] = {}
    for name, size in sizes.items():
        _check_name(name)
        if size < 0 or end + size > len(data):
            raise _bad(f"the file {name} ends behind it")
        files[name] = data[end : end + size]
        end += size
    if end != len(data):
        raise _bad(f"{len(data) - end} bytes in it belong to no file")
    return Package(kind, about, files)


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise _bad(f"{name[:80]!r} is not the name of a file in it")


def _bad(why: str) -> BadPackage:
    return BadPackage(
        "This package of a model cannot be used.",
        why=f"As far as its bytes tell, {why}.",
        mend="Make it again with this version of Holdtrue.",
    )
