"""Contracts as YAML of the Open Data Contract Standard, version 3.1.0 (Bitol, Linux Foundation), in and out.

Types, required, unique, ranges, patterns, sets, keys, row counts and freshness have a place of their own in the
standard, as have kinds of personal data (classification) and sources (transformSourceObjects); conditions,
distributions and severities of single rules are kept as custom quality of the engine holdtrue, purposes and licences
as custom properties.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, MissingExtra
from holdtrue.data.columns import Column, Dtype
from holdtrue.data.contract import Contract
from holdtrue.data.model import DatasetSpec
from holdtrue.data.rules import Distribution, Expect, Fresh, KeyInto, RowCount, TableRule, Unique
from holdtrue.data.tags import Tags, made

VERSION = "v3.1.0"
_ENGINE = "holdtrue"
_PERSONAL = "personal/"
_LOGICAL: Mapping[Dtype, str] = {
    "int64": "integer",
    "float64": "number",
    "string": "string",
    "bool": "boolean",
    "timestamp": "timestamp",
}
_UNITS = {"s": "s", "m": "m", "h": "h", "d": "d"}
_CUSTOM: Mapping[str, type[Any]] = {"expect": Expect, "distribution": Distribution}


def to_odcs(spec: DatasetSpec, version: str = "1") -> str:
    """Return a dataset's contract as a YAML document."""
    contract = spec.contract
    document: dict[str, Any] = {
        "apiVersion": VERSION,
        "kind": "DataContract",
        "id": spec.name,
        "name": spec.name,
        "version": version,
        "status": "active",
        "schema": [
            {
                "name": spec.name,
                "logicalType": "object",
                "physicalType": "table",
                "properties": [_property(column, spec) for column in spec.tagged().columns],
                "quality": [each for rule in contract.rules for each in _quality(rule)],
            }
        ],
    }
    fresh = [rule for rule in contract.rules if isinstance(rule, Fresh)]
    if fresh:
        document["slaProperties"] = [
            {
                "property": "freshness",
                "value": int(rule.within[:-1]),
                "unit": _UNITS[rule.within[-1]],
                "element": f"{spec.name}.{rule.column}",
                "driver": rule.severity,
            }
            for rule in fresh
        ]
    return "\n".join(_yaml(document)) + "\n"


def from_odcs(text: str, name: str | None = None) -> DatasetSpec:
    """Return the dataset that a YAML or JSON document describes; raise ConfigurationError for what cannot be kept.

    A rule that Holdtrue has no word for is refused by name: a rule that is silently dropped would look as if kept.
    """
    document = _parsed(text)
    if not isinstance(document, dict) or document.get("kind") != "DataContract":
        raise _unfit("It is no data contract.", "A document of the standard has kind: DataContract.")
    schemas = document.get("schema") or []
    chosen = [each for each in schemas if name is None or each.get("name") == name]
    if len(chosen) != 1:
        names = ", ".join(str(each.get("name")) for each in schemas)
        raise _unfit(f"It describes {len(schemas)} tables: {names}.", "Name the one that is meant.")
    table = chosen[0]
    properties = table.get("properties") or []
    columns = tuple(_column(each) for each in properties)
    rules = [rule for each in properties for rule in _keys(each)]
    rules += [_rule(each) for each in table.get("quality") or [] if each.get("type") != "text"]
    rules += _fresh(document.get("slaProperties") or [], str(table["name"]))
    keys = [each["name"] for each in properties if each.get("primaryKey")]
    moments = [column.name for column in columns if column.dtype == "timestamp" and not column.nullable]
    marked = [each["name"] for each in properties if each.get("partitioned")]
    unique = [column.name for column in columns if column.unique]
    return DatasetSpec(
        name=str(table["name"]),
        key=(keys or unique or [columns[0].name])[0],
        time=(marked or moments or [""])[0],
        contract=Contract(columns, tuple(rules)),
    )


def _property(column: Column, spec: DatasetSpec) -> dict[str, Any]:
    options = {
        name: value
        for name, value in (("minimum", column.ge), ("maximum", column.le), ("pattern", column.pattern))
        if value is not None
    }
    found: dict[str, Any] = {
        "name": column.name,
        "logicalType": _LOGICAL[column.dtype],
        "physicalType": column.dtype,
        "required": not column.nullable,
        "unique": column.unique,
    }
    if column.name == spec.key:
        found |= {"primaryKey": True, "primaryKeyPosition": 1}
    if column.name == spec.time:
        found |= {"partitioned": True, "partitionKeyPosition": 1}
    if options:
        found["logicalTypeOptions"] = options
    if column.isin is not None:
        found["quality"] = [
            {
                "metric": "invalidValues",
                "arguments": {"validValues": list(column.isin)},
                "mustBe": 0,
                "severity": column.severity_of("isin"),
            }
        ]
    keys = [rule for rule in spec.contract.rules if isinstance(rule, KeyInto) and rule.column == column.name]
    if keys:
        found["relationships"] = [
            {"to": f"{rule.dataset}.{rule.of}", "customProperties": _severity(rule.severity)} for rule in keys
        ]
    said: dict[str, Any] = {} if column.tags is None else column.tags.to_json()
    if "personal" in said:
        found["classification"] = f"{_PERSONAL}{said['personal']}"
    if "source" in said:
        found["transformSourceObjects"] = [said["source"]]
    custom = _severity(column.severity) if column.severity != "block" or column.severities else []
    if column.severities:
        custom.append({"property": "severities", "value": dict(column.severities)})
    custom += [{"property": each, "value": said[each]} for each in ("purposes", "licence") if each in said]
    if custom:
        found["customProperties"] = custom
    return found


def _severity(severity: str) -> list[dict[str, Any]]:
    return [{"property": "severity", "value": severity}]


def _quality(rule: TableRule) -> Iterator[dict[str, Any]]:
    if isinstance(rule, RowCount):
        least = {} if rule.ge is None else {"mustBeGreaterOrEqualTo": rule.ge}
        most = {} if rule.le is None else {"mustBeLessOrEqualTo": rule.le}
        yield {"metric": "rowCount", **least, **most, "severity": rule.severity}
    elif isinstance(rule, Unique):
        yield {
            "metric": "duplicateValues",
            "arguments": {"properties": list(rule.columns)},
            "mustBe": 0,
            "severity": rule.severity,
        }
    elif isinstance(rule, Expect | Distribution):
        yield {"type": "custom", "engine": _ENGINE, "implementation": dump(rule)}


def _column(given: Mapping[str, Any]) -> Column:
    name = str(given.get("name", ""))
    dtype = _dtype(name, given)
    options = dict(given.get("logicalTypeOptions") or {})
    known = {"minimum": "ge", "maximum": "le", "pattern": "pattern"}
    strange = [each for each in options if each not in (*known, "format", "timezone")]
    if strange:
        raise _unfit(f"“{name}” has the option “{strange[0]}”.", "minimum, maximum and pattern are known here.")
    own = {each.get("property"): each.get("value") for each in given.get("customProperties") or []}
    column = Column(
        name=name,
        dtype=dtype,
        nullable=not given.get("required", False),
        unique=bool(given.get("unique") or given.get("primaryKey")),
        severity=own.get("severity", "block"),
        severities=dict(own.get("severities") or {}),
        tags=_tags(given, own),
        **{known[each]: _option(name, each, value) for each, value in options.items() if each in known},
    )
    for quality in given.get("quality") or []:
        column = _with_quality(column, quality)
    return column


def _tags(given: Mapping[str, Any], own: Mapping[Any, Any]) -> Tags | None:
    """Return the tags of a property; a classification that only says “personal” or “PII” is of the kind other."""
    said = str(given.get("classification") or "").strip()
    personal = said.removeprefix(_PERSONAL) if said.startswith(_PERSONAL) else None
    if personal is None and said.lower() in ("pii", "personal", "personal data"):
        personal = "other"
    sources = given.get("transformSourceObjects") or []
    purposes = own.get("purposes")
    return made(
        personal,
        None if purposes is None else [str(each) for each in purposes],
        None if own.get("licence") is None else str(own["licence"]),
        " + ".join(str(each) for each in sources) or None,
    )


def _option(name: str, option: str, value: Any) -> Any:
    if option == "pattern":
        return str(value)
    try:
        return float(value) if isinstance(value, str) else value + 0
    except (TypeError, ValueError):
        raise _unfit(f"“{name}” has the {option} {value!r}.", "The ends of a range are numbers.") from None


def _with_quality(column: Column, quality: Mapping[str, Any]) -> Column:
    """Return a column with a metric of the standard's library, if it asks for none of something."""
    if quality.get("type") == "text":
        return column
    metric, none = quality.get("metric"), quality.get("mustBe") == 0
    arguments = quality.get("arguments") or {}
    if metric == "invalidValues" and none and set(arguments) <= {"validValues", "pattern"} and arguments:
        values = arguments.get("validValues")
        isin = None if values is None else tuple(str(each) for each in values)
        return replace(column, isin=isin or column.isin, pattern=arguments.get("pattern", column.pattern))
    if metric in ("nullValues", "missingValues") and none and not arguments:
        return replace(column, nullable=False)
    if metric == "duplicateValues" and none:
        return replace(column, unique=True)
    raise _unfit(
        f"“{column.name}” has the quality “{metric or quality.get('type')}”.",
        "invalidValues, nullValues, missingValues and duplicateValues that must be 0 are known here.",
    )


def _dtype(name: str, given: Mapping[str, Any]) -> Dtype:
    for dtype in _LOGICAL:
        if dtype == given.get("physicalType"):
            return dtype
    for dtype, logical in _LOGICAL.items():
        if logical == given.get("logicalType"):
            return dtype
    raise _unfit(
        f"“{name}” is of the type “{given.get('logicalType')}”.", f"Known here: {', '.join(_LOGICAL.values())}."
    )


def _keys(given: Mapping[str, Any]) -> Iterator[TableRule]:
    for each in given.get("relationships") or []:
        dataset, mark, column = str(each.get("to", "")).partition(".")
        if not mark or "." in column:
            raise _unfit(f"“{given['name']}” relates to “{each.get('to')}”.", "Known here: to: dataset.column.")
        own = {one.get("property"): one.get("value") for one in each.get("customProperties") or []}
        yield KeyInto(str(given["name"]), dataset, column, own.get("severity", "block"))


def _rule(quality: Mapping[str, Any]) -> TableRule:
    severity = quality.get("severity", "block")
    severity = severity if severity in ("block", "quarantine", "warn") else "block"
    arguments = quality.get("arguments") or {}
    bounds = {name: value for name, value in quality.items() if name.startswith("mustBe")}
    if quality.get("metric") == "rowCount" and bounds:
        return _row_count(bounds, severity)
    if quality.get("metric") == "duplicateValues" and bounds == {"mustBe": 0}:
        return Unique(tuple(arguments.get("properties") or ()), severity)
    if quality.get("type") == "custom" and quality.get("engine") == _ENGINE:
        implementation = quality.get("implementation") or {}
        kind = _CUSTOM.get(str(implementation.get("rule")))
        if kind is not None:
            return load(kind, implementation, "A custom quality of holdtrue")
    raise _unfit(
        f"It has the quality “{quality.get('metric') or quality.get('type')}”.",
        "rowCount, duplicateValues and custom quality of the engine holdtrue are known here.",
    )


def _row_count(bounds: Mapping[str, Any], severity: Any) -> RowCount:
    ge = le = None
    for name, value in bounds.items():
        if name == "mustBe":
            ge = le = int(value)
        elif name in ("mustBeGreaterThan", "mustBeGreaterOrEqualTo"):
            ge = int(value) + (name == "mustBeGreaterThan")
        elif name in ("mustBeLessThan", "mustBeLessOrEqualTo"):
            le = int(value) - (name == "mustBeLessThan")
        elif name == "mustBeBetween":
            ge, le = (int(each) for each in value)
        else:
            raise _unfit(f"Its row count has the bound “{name}”.", "A least and a largest number are known here.")
    return RowCount(ge, le, severity)


def _fresh(properties: list[Any], table: str) -> list[TableRule]:
    found: list[TableRule] = []
    for each in properties:
        if each.get("property") not in ("freshness", "latency"):
            continue
        place, _, column = str(each.get("element", "")).partition(".")
        unit = str(each.get("unit", "d"))[:1].lower()
        if place != table or not column or unit not in _UNITS:
            raise _unfit(
                f"Its freshness is of “{each.get('element')}”.", "Known here: element: table.column, unit d, h or m."
            )
        severity = each.get("driver") if each.get("driver") in ("block", "warn") else "block"
        found.append(Fresh(column, f"{int(each['value'])}{unit}", severity))
    return found


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise _unfit("It is no JSON document.", f"{error}.") from None
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingExtra.of("yaml", "pyyaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unfit("It is no YAML document.", " ".join(str(error).split())) from None


def _unfit(what: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The data contract cannot be used. {what}",
        why=why,
        mend="Change the document, or write the contract in Python.",
    )


def _yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """Yield the lines of a document in block style; texts are quoted as in JSON, which YAML 1.2 contains."""
    pad = "  " * indent
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield f"{pad}{name}:"
            yield from _yaml(each, indent + 1)
        elif isinstance(each, list) and each and isinstance(each[0], dict):
            yield f"{pad}{name}:"
            for item in each:
                first, *rest = _yaml(item, indent + 2)
                yield f"{pad}  - {first.lstrip()}"
                yield from rest
        elif not isinstance(each, list | dict) or each:
            yield f"{pad}{name}: {_scalar(each)}"


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # YAML 1.1 takes 1e+30 for a text.
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "e" in text and "." not in text else text
