"""Look at the bytes of a model without loading them: formats, the opcodes of pickles, size, a licence file.

A finding is a reason to refuse; no finding permits nothing (scanners are passed by all the time). What a pickle
imports is read from its opcodes with `pickletools.genops`, which runs none of them.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from holdtrue.core.canonical import content_hash
from holdtrue.storage.blobs import BlobStore
from holdtrue.tracking.registry.model import Scan

_READ = 64 << 20
_OPCODES = 3_000_000
_MEMBERS = 2_000
_FINDINGS = 50

_DATA = {
    ".onnx": "onnx", ".safetensors": "safetensors", ".skops": "skops", ".ubj": "xgboost", ".txt": "text",
    ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".md": "text", ".parquet": "parquet", ".arrow": "arrow",
    ".csv": "csv", ".lgb": "lightgbm", ".png": "image", ".html": "html", ".svg": "image", ".toml": "text",
}  # fmt: skip
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".dill", ".cloudpickle", ".npy"})
_ARCHIVES = frozenset({".zip", ".pt", ".pth", ".npz", ".keras", ".whl", ".egg"})
# What a fitted estimator is made of; everything else a pickle imports is a finding.
_HARMLESS = (
    "sklearn.", "numpy", "scipy.", "pandas.", "lightgbm", "xgboost", "catboost", "collections", "copyreg",
    "joblib.numpy_pickle", "torch._utils", "torch.nn", "torch.", "builtins.object", "builtins.set", "builtins.dict",
    "builtins.list", "builtins.tuple", "builtins.slice", "builtins.bytearray", "builtins.frozenset", "datetime.",
    "_codecs.encode", "functools.partial", "decimal.Decimal", "statsmodels.",
)  # fmt: skip
_NEVER = frozenset(
    {"os", "posix", "nt", "subprocess", "sys", "socket", "shutil", "runpy", "importlib", "pty", "ctypes", "webbrowser",
     "commands", "pip", "code", "asyncio", "multiprocessing", "requests", "urllib", "http", "pickle", "marshal"}
)  # fmt: skip
_NEVER_NAMES = frozenset({"eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "globals", "input"})
_LICENCES = frozenset({"license", "licence", "copying", "notice"})


def scan(blobs: BlobStore, files: Sequence[tuple[str, str, int]]) -> Scan:
    """Return what the files (name, digest, size) of a model version are."""
    findings: list[dict[str, str]] = []
    formats: set[str] = set()
    licence = ""
    for name, digest, size in files:
        path = PurePosixPath(name)
        if path.stem.lower() in _LICENCES or path.name.lower() in _LICENCES:
            licence = licence or name
        if path.name == "MLmodel":
            formats.add("mlflow")
        for kind, found in _look(blobs, name, path.suffix.lower(), digest, size):
            formats.add(kind)
            findings += found
    order = ("unsafe", "unknown", "code")
    verdict = next((word for word in order if any(each["kind"] == word for each in findings)), "clean")
    return Scan(
        verdict=verdict if files else "empty",
        format="+".join(sorted(formats)) or "none",
        files=len(files),
        bytes=sum(size for _, _, size in files),
        digest=content_hash([[name, digest] for name, digest, _ in files]),
        licence=licence,
        findings=tuple(findings[:_FINDINGS]),
    )


def _look(
    blobs: BlobStore, name: str, suffix: str, digest: str, size: int
) -> Iterable[tuple[str, list[dict[str, str]]]]:
    if suffix == ".py":
        yield "python", [_finding("code", name, "Python source that a flavor may run")]
    elif suffix in _PICKLES | _ARCHIVES or suffix not in _DATA:
        with blobs.path(digest).open("rb") as file:
            head = file.read(8)
            file.seek(0)
            if head[:4] == b"PK\x03\x04":
                yield "archive", _archive(name, file, size)
            elif suffix in _PICKLES or _is_pickle(head):
                yield ("numpy", []) if head[:6] == b"\x93NUMPY" else ("pickle", _pickle(name, file.read(_READ + 1)))
    else:
        yield _DATA[suffix], []


def _is_pickle(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _archive(name: str, file: io.BufferedReader, size: int) -> list[dict[str, str]]:
    """Look into a zip archive: its pickles are read, nothing is extracted."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS or sum(each.file_size for each in members) > max(100 * size, _READ):
                return [_finding("unknown", name, "an archive of too many or too large members")]
            found: list[dict[str, str]] = []
            for each in members:
                suffix = PurePosixPath(each.filename).suffix.lower()
                if suffix == ".py":
                    found.append(_finding("code", f"{name}!{each.filename}", "Python source inside an archive"))
                elif suffix in _PICKLES and each.file_size <= _READ:
                    with archive.open(each) as member:
                        data = member.read(_READ + 1)
                    if _is_pickle(data[:8]) or suffix != ".npy":
                        found += _pickle(f"{name}!{each.filename}", data)
            return found
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError):
        return [_finding("unknown", name, "an archive that cannot be read")]


def _pickle(name: str, data: bytes) -> list[dict[str, str]]:
    """Return what a pickle imports and calls, as findings; a pickle without imports is plain data."""
    if len(data) > _READ:
        return [_finding("unknown", name, f"a pickle over {_READ} bytes is not read")]
    found: dict[str, dict[str, str]] = {}
    texts = _Texts()
    count = 0
    try:
        stream = io.BytesIO(data)
        while stream.tell() < len(data):
            for opcode, argument, _ in pickletools.genops(stream):
                count += 1
                if count > _OPCODES:
                    return [*found.values(), _finding("unknown", name, "a pickle of too many opcodes")]
                texts.see(opcode.name, argument)
                imported = _imported(opcode.name, argument, texts)
                if opcode.name == "STACK_GLOBAL":
                    texts.see("GLOBAL", None)
                if imported is not None:
                    kind, why = _judge(imported)
                    found.setdefault(imported, _finding(kind, name, why))
    except Exception as error:  # noqa: BLE001  # whatever a hostile file does to the parser is a finding
        found["?"] = _finding("unknown", name, f"the opcodes end in an error ({type(error).__name__})")
    return list(found.values())


class _Texts:
    """Follow the texts that a pickle puts on its stack and into its memo: from two of them an import is made."""

    def __init__(self) -> None:
        self._recent: list[str | None] = [None, None]
        self._memo: dict[object, str | None] = {}

    def see(self, opcode: str, argument: object) -> None:
        """Take note of one opcode."""
        if opcode in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if opcode == "MEMOIZE" else argument] = self._recent[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self._memo.get(argument))
        elif opcode not in ("PROTO", "FRAME", "STACK_GLOBAL"):
            self._push(argument if isinstance(argument, str) else None)

    def last_two(self) -> str:
        """Return the last two texts as “module.name”."""
        return ".".join("?" if each is None else each for each in self._recent)

    def _push(self, value: str | None) -> None:
        self._recent = [self._recent[-1], value]


def _imported(opcode: str, argument: object, texts: _Texts) -> str | None:
    """Return “module.name” that an opcode imports, None if it imports nothing."""
    if opcode in ("GLOBAL", "INST"):
        return str(argument).replace(" ", ".")
    if opcode == "STACK_GLOBAL":
        return texts.last_two()
    if opcode in ("EXT1", "EXT2", "EXT4"):
        return "copyreg.extension"
    return None


def _judge(imported: str) -> tuple[str, str]:
    module, _, last = imported.rpartition(".")
    if module.split(".")[0] in _NEVER or (module in ("builtins", "__builtin__") and last in _NEVER_NAMES):
        return "unsafe", f"a pickle that imports {imported[:200]}"
    if imported.startswith(_HARMLESS):
        return "code", f"a pickle that imports {imported[:200]}"
    return "unknown", f"a pickle that imports {imported[:200]}, which no known model needs"


def _finding(kind: str, file: str, why: str) -> dict[str, str]:
    return {"kind": kind, "file": file[:500], "why": why}
