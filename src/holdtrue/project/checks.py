"""What can be known of a model, its evaluation and its service when they are declared, long before a training ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdtrue.core.errors import ConfigurationError
from holdtrue.evaluation import METRICS
from holdtrue.serving import DATATYPES, check_load_test

if TYPE_CHECKING:
    from holdtrue.project.definitions import EvaluationPlan, Model

Fallback = float | str
BASELINES: Final = ("majority",)
_ENTITIES: Final = frozenset(name for name in DATATYPES if name == "BYTES" or "INT" in name)


def check_columns(model: "Model") -> None:
    """Raise ConfigurationError for a model that reads a column which its dataset does not have."""
    _need(f"The model “{model.name}” has the time", [model.time], model)
    _need(f"The model “{model.name}” has a feature of", model.asked, model)
    _need(f"The model “{model.name}” looks up features by", [each.entity for each in model.views], model)


def check_evaluation(plan: "EvaluationPlan", model: "Model") -> None:
    """Raise ConfigurationError for a metric, baseline, slice, number of days or load that cannot be meant."""
    _one_of("metric", plan.metric, METRICS, model)
    _one_of("baseline", plan.baseline, BASELINES, model)
    _need(f"The evaluation of “{model.name}” has the slice", plan.slices, model)
    if not (plan.confidence == 0 or 0.5 <= plan.confidence < 1):
        raise ConfigurationError(
            f"The evaluation of “{model.name}” asks for a confidence of {plan.confidence:g}.",
            mend="Give one from 0.5 to below 1, such as 0.9, or 0 for no prediction sets.",
        )
    if plan.holdout_days < 1:
        raise ConfigurationError(
            f"The evaluation of “{model.name}” holds out {plan.holdout_days} days.",
            why="What was trained on proves nothing.",
            mend="Hold out at least one day.",
        )
    if plan.load is not None:
        check_load_test(plan.load)


def fallbacks(given: Fallback | Sequence[Fallback] | None) -> tuple[str | None, float | None]:
    """Return the backup and the constant of a service's fallback; raise ConfigurationError for what is neither."""
    parts: Sequence[Fallback] = () if given is None else [given] if isinstance(given, str | int | float) else given
    backups = [each for each in parts if isinstance(each, str)]
    constants = [float(each) for each in parts if not isinstance(each, str)]
    if len(backups) > 1 or len(constants) > 1 or not all(map(math.isfinite, constants)):
        raise ConfigurationError(
            f"The fallback {given!r} cannot be used.",
            why="It is at most one release or service, and then at most one finite number.",
            mend='Write it like 0.2, "previous", or ("previous", 0.2).',
        )
    return (backups[0] if backups else None), (constants[0] if constants else None)


def check_inputs(model: "Model", inputs: Mapping[str, str], *, key: str, entity: str) -> None:
    """Raise ConfigurationError for a service whose requests would lack something, or carry what nothing can read."""
    _need(f"The service of “{model.name}” takes", sorted(inputs), model)
    for name, datatype in inputs.items():
        if datatype not in DATATYPES:
            raise ConfigurationError(
                f"The service of “{model.name}” takes “{name}” as “{datatype}”, which is no datatype.",
                why=f"The Open Inference Protocol has {', '.join(DATATYPES)}.",
                mend="Use one of these: BYTES for texts and moments, INT64 and FP64 for numbers.",
            )
    _carry(model, inputs, "its key is", [key])
    _carry(model, inputs, "its entity is", [entity])
    _carry(model, inputs, "the moment of prediction is", [model.time])
    _carry(model, inputs, "a feature is computed from", model.asked)
    _carry(model, inputs, "features are looked up by", [each.entity for each in model.views])
    for view in model.views:
        if inputs[view.entity] not in _ENTITIES:
            raise _unfit(model, view.entity, inputs[view.entity], "names an entity", "BYTES or an integer")
    for each in model.expressions:
        if each.kind == "numeric" and inputs[each.column] == "BYTES":
            raise _unfit(model, each.column, "BYTES", "is a numeric feature", "FP64 or INT64")


def check_band(band: tuple[float, float] | None) -> None:
    """Raise ConfigurationError for a band of scores that is none."""
    if band is not None and not 0.0 <= band[0] <= band[1] <= 1.0:
        raise ConfigurationError(
            f"A service cannot abstain between {band[0]} and {band[1]}.",
            why="Scores are probabilities, and the band has a lower and an upper end.",
            mend="Write it like abstain=(0.4, 0.6).",
        )


def _need(what: str, names: Iterable[str], model: "Model") -> None:
    known = [column.name for column in model.dataset.spec.contract.columns]
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"{what} “{name}”, which its dataset does not have.",
                why=f"Columns of {model.dataset.spec.name}: {', '.join(known)}.",
                mend="Use one of these names, or describe the column in the contract.",
            )


def _one_of(what: str, value: str, known: Iterable[str], model: "Model") -> None:
    if value not in known:
        raise ConfigurationError(
            f"The evaluation of “{model.name}” cannot have the {what} “{value}”.",
            why=f"What there is: {', '.join(known)}.",
            mend="Use one of these.",
        )


def _carry(model: "Model", inputs: Mapping[str, str], role: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in inputs:
            raise ConfigurationError(
                f"The service of “{model.name}” does not take “{name}”.",
                why=f"In it, {role} “{name}”; the inputs are {', '.join(inputs)}.",
                mend=f"Add “{name}” to its inputs.",
            )


def _unfit(model: "Model", name: str, datatype: str, role: str, fit: str) -> ConfigurationError:
    return ConfigurationError(
        f"The service of “{model.name}” takes “{name}” as {datatype}, which does not fit.",
        why=f"“{name}” {role}.",
        mend=f"Declare it as {fit}.",
    )


def moment(text: str) -> datetime:
    """Return the moment that a day or an ISO 8601 time names, in UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"“{text}” is not a day or a moment.",
            mend="Write it as 2026-12-20 or 2026-12-20T18:00+01:00.",
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
