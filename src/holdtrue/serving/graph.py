"""Several models that answer as one: means, votes, stacks, and what comes before and after a model.

A graph is a package of the kind `graph`: its files are the models, its header says which node reads what. Nodes are
listed so that each reads only the features and nodes before it; the last one is the answer. The digest of the package
is computed over all of it, so that a release pins every part at once.

A node is one of

- `{"name", "model", "format", "reads"}`: the model in the file `model` scores the columns that `reads` names, in that
  order: `features` (all of them), `feature:NAME`, or the name of a node before it;
- `{"name", "mean", "weights"}`: the weighted mean of the nodes that `mean` names;
- `{"name", "vote", "at"}`: the share of the nodes that `vote` names whose score is at least `at`.

A model that tells classes apart gives a column for each; a mean of such is that of each class, and a vote the share of
models that say it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import bytes_hash
from holdtrue.serving.package import BadPackage, Package, unpack
from holdtrue.serving.runtime import Matrix, Model, Vector, checked, guarded, load_model, numbered

FEATURES: Final = "features"
_FEATURE: Final = "feature:"
_MOST_NODES: Final = 64
_PARTS: Final = frozenset({"onnx", "onnx-file", "lightgbm", "xgboost", "skops", "python", "torch"})

Values = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Node:
    """Hold one node: its name, how many columns it gives, what computes it from the features and nodes so far.

    `classes` are those whose probabilities the columns are, none for other columns.
    """

    name: str
    columns: int
    compute: Callable[[Values], NDArray[np.float32]]
    classes: tuple[str, ...] = ()


def load_graph(data: bytes, digest: str) -> Model:
    """Return the graph in a package as one model; raise BadPackage and what its parts raise.

    If one part fails, the graph fails: an answer is never made of fewer parts than were released.
    """
    package = unpack(data)
    names, listed = read_graph(package)
    nodes: list[_Node] = []
    widths: dict[str, int] = {FEATURES: len(names), **{_FEATURE + name: 1 for name in names}}
    parts: list[Model] = []
    for each in listed:
        node = _model(each, package, widths, parts) if "model" in each else _combined(each, widths, nodes)
        widths[node.name] = max(1, node.columns)
        nodes.append(node)
    classes = nodes[-1].classes
    if nodes[-1].columns and not classes:
        raise _bad(f"its answer {nodes[-1].name} has several numbers for each row")
    aside = any(part.aside for part in parts)
    memory = sum(part.memory for part in parts)
    score = _scorer(names, nodes)
    made = Model(digest, len(names), score, names, "score", FEATURES, aside=aside, memory=memory, classes=classes)
    return guarded(made)


def read_graph(package: Package) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return the names of a graph's features and its nodes, of which each reads only what stands before it."""
    try:
        names, listed = tuple(package.about["features"]), list(package.about["nodes"])
        called = [each["name"] for each in listed]
    except (KeyError, TypeError) as error:
        raise _bad(f"{error} is missing or of another kind") from None
    if package.kind != "graph" or not 0 < len(listed) <= _MOST_NODES or not names:
        raise _bad(f"it has {len(listed)} nodes and {len(names)} features")
    if not all(type(name) is str and name for name in (*names, *called)) or len(set(called)) != len(called):
        raise _bad("names are missing, or there twice")
    if FEATURES in called or any(name.startswith(_FEATURE) for name in called):
        raise _bad("a node has the name of the features")
    known = {FEATURES, *(_FEATURE + name for name in names)}
    for each in listed:
        for source in _sources(each):
            if source not in known:
                raise _bad(f"{each['name']} reads {str(source)[:80]}, which does not stand before it")
        known.add(each["name"])
    return names, listed


def _sources(node: Mapping[str, Any]) -> Sequence[Any]:
    kinds = [kind for kind in ("model", "mean", "vote") if kind in node]
    if len(kinds) != 1:
        raise _bad(f"{node['name']} is not exactly one of a model, a mean and a vote")
    sources = node.get("reads") if kinds == ["model"] else node[kinds[0]]
    if type(sources) is not list or not sources or not all(type(each) is str for each in sources):
        raise _bad(f"{node['name']} reads nothing")
    return sources


def _model(node: Mapping[str, Any], package: Package, widths: Mapping[str, int], parts: list[Model]) -> _Node:
    data, kind = package.files.get(str(node["model"])), str(node.get("format"))
    if data is None or kind not in _PARTS:
        raise _bad(f"{node['name']} names no model in it, or one of another format")
    model = load_model(data, bytes_hash(data), kind, part=True)
    reads: list[str] = list(node["reads"])
    width = sum(widths[each] for each in reads)
    if model.features != width:
        raise _bad(f"{node['name']} takes {model.features} columns and reads {width}")
    parts.append(model)

    def compute(values: Values) -> NDArray[np.float32]:
        return model.score(_matrix(values, reads))

    return _Node(node["name"], model.columns or len(model.classes), compute, model.classes)


def _matrix(values: Values, reads: Sequence[str]) -> Matrix:
    """Return the columns that a node reads, side by side."""
    found = [values[each] for each in reads]
    if len(found) == 1 and found[0].ndim == 2:
        return found[0]
    return np.column_stack(found).astype(np.float32, copy=False)


def _combined(node: Mapping[str, Any], widths: Mapping[str, int], before: Sequence[_Node]) -> _Node:
    voting = "vote" in node
    reads: list[str] = list(node["vote" if voting else "mean"])
    told = [next((each.classes for each in before if each.name == name), ()) for name in reads]
    if any(told):
        return _combined_classes(node, reads, told)
    if any(widths[each] != 1 for each in reads):
        raise _bad(f"{node['name']} combines nodes that give several numbers for each row")
    if voting:
        at = _number(node, node.get("at", 0.5))

        def share(values: Values) -> NDArray[np.float32]:
            given = np.stack([values[each].reshape(-1) for each in reads])
            # What is no number is no vote: the whole answer is missing then.
            votes = np.where(np.isfinite(given), given >= at, np.nan)
            return votes.mean(axis=0).astype(np.float32)

        return _Node(node["name"], 0, share)
    shares = _shares(node, len(reads))

    def mean(values: Values) -> NDArray[np.float32]:
        return (shares @ np.stack([values[each].reshape(-1).astype(np.float64) for each in reads])).astype(np.float32)

    return _Node(node["name"], 0, mean)


def _combined_classes(node: Mapping[str, Any], reads: Sequence[str], told: Sequence[tuple[str, ...]]) -> _Node:
    """Return the node of several models that tell the same classes apart."""
    count = max(map(len, told))
    named = {each for each in told if each != numbered(count)}
    if any(len(each) != count for each in told) or len(named) > 1:
        raise _bad(f"{node['name']} combines nodes that do not tell the same classes apart")
    classes = named.pop() if named else numbered(count)
    if "vote" in node:

        def share(values: Values) -> NDArray[np.float32]:
            given = np.stack([values[each] for each in reads])
            votes = np.equal(given.argmax(axis=2)[:, :, None], np.arange(count)).mean(axis=0)
            # What is no number is no vote: the whole answer is missing then.
            sums: NDArray[np.float32] = given.sum(axis=(0, 2))
            return np.where(np.isfinite(sums)[:, None], votes, np.nan).astype(np.float32)

        return _Node(node["name"], count, share, classes)
    shares = _shares(node, len(reads))

    def mean(values: Values) -> NDArray[np.float32]:
        given = np.stack([values[each].astype(np.float64) for each in reads])
        return np.tensordot(shares, given, axes=1).astype(np.float32)

    return _Node(node["name"], count, mean, classes)


def _shares(node: Mapping[str, Any], count: int) -> NDArray[np.float64]:
    """Return the shares of a mean; they sum to 1."""
    weights = [_number(node, each) for each in node.get("weights", [1.0] * count)]
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise _bad(f"{node['name']} has weights that are no weights of {count} nodes")
    return np.array(weights) / sum(weights)


def _number(node: Mapping[str, Any], value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise _bad(f"{node['name']} has {str(value)[:40]} where a number stands")
    return float(value)


def _scorer(names: Sequence[str], nodes: Sequence[_Node]) -> Callable[[Matrix], Vector]:
    def score(matrix: Matrix) -> Vector:
        values: dict[str, NDArray[np.float32]] = {FEATURES: matrix}
        for place, name in enumerate(names):
            values[_FEATURE + name] = matrix[:, place]
        for node in nodes:
            values[node.name] = node.compute(values)
        return checked(values[nodes[-1].name], len(matrix), len(nodes[-1].classes))

    return score


def _bad(why: str) -> BadPackage:
    return BadPackage(
        "This graph of models cannot be used.",
        why=f"In it, {why}.",
        mend="Make it again with this version of Holdtrue.",
    )
