"""Profile a table in one pass: each column is put in order once, and all is read from that."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.data.profiles import FORM, ColumnProfile, Kind, Profile, Spread
from holdtrue.data.reading import read_rows
from holdtrue.stats import Center, Distinct, Frequent, Moments, Quantiles, text_hashes, token_counts
from holdtrue.stats.sketches import MOST_FREQUENT, MOST_IN_BIN, POINTS, most_alike
from holdtrue.storage import ActionCache, BlobStore

_THREADS = 2
_MOST_TEXT = 200
_MARK = 20
_HEAD = 8
_SAMPLE = 4096
_VECTORS = 1 << 15
# From so many rows on, columns of which most values occur once are counted in bins instead of put in order.
_MANY = 1 << 14
_NEAR = 1 << 20


def profile_table(table: pa.Table) -> Profile:
    """Return the profile of a table; columns are worked on side by side."""
    with ThreadPoolExecutor(_THREADS) as pool:
        columns = pool.map(lambda place: _column(table.field(place).name, table.column(place)), _places(table))
    return Profile(table.num_rows, tuple(columns))


def fragment_profile(blobs: BlobStore, actions: ActionCache, digest: str) -> tuple[Profile, bool]:
    """Return the profile of a stored fragment, and whether the fragment had to be read for it.

    A profile is made once and kept as a blob beside its fragment; a damaged or collected one is made again.
    """
    kept = actions.get(_key(digest))
    if kept is not None:
        with suppress(Corrupt, NotFound, orjson.JSONDecodeError, pa.ArrowException, OSError):
            data = blobs.get(kept)
            size = int.from_bytes(data[:_HEAD], "big")
            return Profile.from_json(orjson.loads(pa.decompress(data[_HEAD:], size, "zstd", asbytes=True))), False
    found = profile_table(read_rows(blobs, digest))
    keep_profile(blobs, actions, digest, found)
    return found, True


def keep_profile(blobs: BlobStore, actions: ActionCache, digest: str, found: Profile) -> int:
    """Store the profile of a fragment, compressed, and return its size in bytes."""
    data = orjson.dumps(found.to_json())
    packed: bytes = len(data).to_bytes(_HEAD, "big") + pa.compress(data, "zstd", asbytes=True)
    actions.put(_key(digest), blobs.put(packed))
    return len(packed)


def forget_profile(actions: ActionCache, digest: str) -> None:
    """Forget the profile of a fragment: its frequent values are values of rows."""
    actions.remove(_key(digest))


def _key(digest: str) -> str:
    return content_hash({"profile": FORM, "fragment": digest})


def _places(table: pa.Table) -> range:
    return range(table.num_columns)


def _column(name: str, values: pa.ChunkedArray) -> ColumnProfile:
    kind = kind_of(values.type)
    rows, missing = len(values), values.null_count
    if kind in ("empty", "other"):
        return ColumnProfile(name, kind, rows, missing)
    make = _text if kind == "text" else _vectors if kind == "vector" else _numbers
    return make(name, kind, values, rows, missing)


def kind_of(type_: Any) -> Kind:
    """Return the kind of a column of an Arrow type."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    tests: tuple[tuple[Kind, tuple[Callable[[Any], bool], ...]], ...] = (
        ("empty", (types.is_null,)),
        ("bool", (types.is_boolean,)),
        ("whole", (types.is_integer,)),
        ("number", (types.is_floating, types.is_decimal)),
        ("time", (types.is_timestamp, types.is_date)),
        ("text", (types.is_string, types.is_large_string, types.is_string_view)),
        ("vector", (_is_vector,)),
    )
    for kind, each in tests:
        if any(test(type_) for test in each):
            return kind
    return "other"


def _is_vector(type_: Any) -> bool:
    types = pa.types
    is_list = types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    return is_list and types.is_floating(type_.value_type)


def _vectors(name: str, kind: Kind, values: pa.ChunkedArray, rows: int, missing: int) -> ColumnProfile:
    """Profile embeddings: their norms, and how far they are from their mean."""
    there = values.drop_null()
    if not len(there):
        return ColumnProfile(name, "empty", rows, missing)
    lengths = pc.call_function("min_max", [pc.call_function("list_value_length", [there])]).as_py()
    if lengths["min"] != lengths["max"] or not lengths["max"]:
        return ColumnProfile(name, "other", rows, missing)
    norms: list[npt.NDArray[np.float64]] = []
    center = Center(0, np.zeros(lengths["max"]))
    for start in range(0, len(there), _VECTORS):
        part: Any = there.slice(start, _VECTORS)
        flat = pa.chunked_array([chunk.flatten() for chunk in part.chunks]).cast(pa.float64())
        block = flat.to_numpy().reshape(len(part), lengths["max"])
        found = np.sqrt(np.einsum("ij,ij->i", block, block))
        usable = np.isfinite(found)
        norms.append(found[usable])
        center = center.merged(Center.of(block if usable.all() else block[usable]))
    ordered = np.sort(np.concatenate(norms))
    spread = _spread_of(ordered) if len(ordered) else None
    return ColumnProfile(name, kind, rows, missing, len(there) - len(ordered), spread, center=center)


def _spread_of(ordered: npt.NDArray[np.float64]) -> Spread:
    return Spread(float(ordered[0]), float(ordered[-1]), Moments.of(ordered), Quantiles.of(ordered))


def _counted(values: npt.NDArray[np.int64], counts: npt.NDArray[np.int64] | None) -> Spread:
    """Return the spread of whole numbers from 0 on, each of which occurs so many times."""
    weights = np.bincount(values, weights=counts)
    sizes = np.flatnonzero(weights).astype(np.float64)
    weights = weights[weights > 0].astype(np.float64)
    quantiles = Quantiles(sizes, weights).compressed(1024)
    return Spread(float(sizes[0]), float(sizes[-1]), Moments.weighted(sizes, weights), quantiles)


def _numbers(name: str, kind: Kind, values: pa.ChunkedArray, rows: int, missing: int) -> ColumnProfile:
    given = _as_numpy(kind, values)
    infinite = 0
    if given.dtype.kind == "f":
        # A number that is not one counts as missing, as it does for a contract.
        usable = np.isfinite(given)
        infinite = int(np.isinf(given).sum())
        missing += len(given) - int(usable.sum()) - infinite
        given = given if usable.all() else given[usable]
    if not len(given):
        return ColumnProfile(name, kind, rows, missing, infinite)
    # A column of whole numbers may have fractions in another fragment: both are hashed as numbers.
    floats = given.astype(np.float64)
    hashed = floats if kind in ("whole", "number") else given
    counted = _in_range(given)
    found = _in_bins(floats) if counted is None and len(given) >= _MANY else None
    if found is not None:
        quantiles, most = found
        low, high = given.min().item(), given.max().item()
        spread = Spread(low, high, Moments.of(floats), quantiles)
        return ColumnProfile(
            name, kind, rows, missing, infinite, spread, Distinct.of_numbers(hashed), Frequent({}, most)
        )
    different, counts = _in_order(given) if counted is None else counted
    points, weights = different.astype(np.float64), counts.astype(np.float64)
    quantiles = Quantiles(points, weights).compressed(POINTS)
    return ColumnProfile(
        name,
        kind,
        rows,
        missing,
        infinite,
        Spread(different[0].item(), different[-1].item(), Moments.weighted(points, weights), quantiles),
        Distinct.of_numbers(points if kind in ("whole", "number") else different),
        _frequent(lambda places: different[places].tolist(), counts),
    )


def _in_bins(floats: npt.NDArray[np.float64]) -> tuple[Quantiles, int] | None:
    """Return quantiles of numbers of which most occur once, and how often one may occur; None for others."""
    some = floats[np.linspace(0, len(floats) - 1, _SAMPLE).astype(np.intp)]
    return Quantiles.binned(floats) if len(np.unique(some)) > _SAMPLE // 2 else None


def _in_range(given: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]] | None:
    """Return the different ones of whole numbers that lie near each other, and their counts; None for others."""
    if given.dtype.kind != "i":
        return None
    low, high = int(given.min()), int(given.max())
    if high - low > min(_NEAR, 4 * len(given)):
        return None
    counts = np.bincount(given - low)
    places = np.flatnonzero(counts)
    return places + low, counts[places]


def _in_order(given: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return different values in order, and their counts."""
    ordered = np.sort(given)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _as_numpy(kind: Kind, values: pa.ChunkedArray) -> npt.NDArray[Any]:
    type_: Any = values.type
    if pa.types.is_dictionary(type_):
        values = values.cast(type_.value_type)
    if kind == "time":
        zone = getattr(type_, "tz", None)
        values = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    elif kind == "bool":
        values = values.cast(pa.int8()).cast(pa.int64())
    elif kind == "number" and type_ != pa.float64():
        values = values.cast(pa.float64(), safe=False)
    elif kind == "whole" and type_ != pa.int64():
        values = values.cast(pa.float64() if pa.types.is_uint64(type_) else pa.int64(), safe=False)
    return (values.drop_null() if values.null_count else values).to_numpy()


def _text(name: str, kind: Kind, values: pa.ChunkedArray, rows: int, missing: int) -> ColumnProfile:
    there = plain_texts(values)
    if not len(there):
        return ColumnProfile(name, kind, rows, missing)
    if mostly_different(there):
        # Names of rows: to number them is dear, and says nothing more than their hashes.
        texts, counts, hashes = there, None, hashes_of(there)
    else:
        encoded = there.dictionary_encode()
        texts, hashes = encoded.dictionary, hashes_of(encoded.dictionary)
        counts = np.bincount(encoded.indices.to_numpy(), minlength=len(texts))
    lengths = pc.call_function("utf8_length", [texts]).to_numpy()
    often = _of_texts(texts, hashes) if counts is None else _frequent(lambda places: _taken(texts, places), counts)
    return ColumnProfile(
        name,
        kind,
        rows,
        missing,
        spread=_counted(lengths, counts),
        distinct=Distinct.of(hashes),
        frequent=often,
        tokens=_counted(token_counts(*_laid_out(texts)), counts),
    )


def plain_texts(values: pa.ChunkedArray) -> Any:
    """Return the texts that are there as one array of Arrow's plain or large strings."""
    kind: Any = values.type
    if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        values = values.cast(pa.large_string())
    there = values.drop_null() if values.null_count else values
    joined: Any = there.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def mostly_different(texts: Any) -> bool:
    """Tell by some texts, evenly spread, whether most occur once."""
    some = texts.take(pa.array(np.linspace(0, len(texts) - 1, min(len(texts), _SAMPLE)).astype(np.int64)))
    return len(texts) > _SAMPLE and len(some.unique()) > len(some) // 2


def hashes_of(texts: Any) -> npt.NDArray[np.uint64]:
    """Return hashes uint64[n] of an array of texts without gaps; the same on every machine."""
    return text_hashes(*_laid_out(texts))


def _laid_out(texts: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the bytes of texts without gaps, and where each begins and ends."""
    wide = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    places = np.frombuffer(offsets, wide)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data, np.uint8)[places[0] : places[-1]], places - places[0]


def _of_texts(texts: Any, hashes: npt.NDArray[np.uint64]) -> Frequent:
    """Return the frequent ones among texts that are mostly different."""
    most = most_alike(hashes)
    if len(hashes) >= _MANY and most <= len(hashes) * MOST_IN_BIN:
        return Frequent({}, most)
    ordered = np.sort(hashes)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(ordered)))

    def names(places: npt.NDArray[np.intp]) -> list[str]:
        wanted = ordered[starts[places]]
        found = np.flatnonzero(np.isin(hashes, wanted))
        first = {int(hashes[place]): place for place in found[::-1]}
        return _taken(texts, np.array([first[int(each)] for each in wanted], np.intp))

    return _frequent(names, counts)


def _taken(texts: Any, places: npt.NDArray[np.intp]) -> list[str]:
    return _names(texts.take(pa.array(places)).to_pylist())


def _names(texts: list[str]) -> list[str]:
    """Return texts under which values are counted: long ones by their beginning and a hash of the whole."""
    return [
        text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - _MARK]}…{content_hash(text)[:16]}" for text in texts
    ]


def _frequent(names: Callable[[npt.NDArray[np.intp]], list[Any]], counts: npt.NDArray[np.int64]) -> Frequent:
    """Return the values with the largest counts; one more than is kept, whose count is the error."""
    if len(counts) <= MOST_FREQUENT:
        places = np.arange(len(counts))
        return Frequent.of(dict(zip(names(places), counts.tolist(), strict=True)))
    if counts.max() == 1:
        return Frequent({}, 1)
    places = np.argpartition(counts, len(counts) - MOST_FREQUENT - 1)[-MOST_FREQUENT - 1 :]
    dropped = int(counts[places].min())
    kept = places[counts[places] > dropped]
    return Frequent.of(dict(zip(names(kept), counts[kept].tolist(), strict=True)), dropped)
