"""What can be known of a model, its evaluation and its service when they are declared, long before a training ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdtrue.core.errors import ConfigurationError
from holdtrue.serving import DATATYPES, check_load_test

if TYPE_CHECKING:
    from holdtrue.delivery import Canary
    from holdtrue.project.definitions import EvaluationPlan, Model, Serving

Fallback = float | str
BASELINES: Final = ("majority",)
_MOST: Final = 1000
_LONGEST: Final = 100
_ENTITIES: Final = frozenset(name for name in DATATYPES if name == "BYTES" or "INT" in name)


def check_columns(model: "Model") -> None:
    """Raise ConfigurationError for a model that reads a column which its dataset does not have."""
    _need(f"The model “{model.name}” has the time", [model.time], model)
    _need(f"The model “{model.name}” has a feature of", model.asked, model)
    _need(f"The model “{model.name}” looks up features by", [each.entity for each in model.views], model)


def check_evaluation(plan: "EvaluationPlan", model: "Model") -> None:
    """Raise ConfigurationError for a metric, baseline, slice, number of days or load that cannot be meant."""
    _one_of("metric", plan.metric, model.metrics, model)
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


def check_alone(model: "Model", present: "Serving | None") -> None:
    """Raise ConfigurationError for a second service of a model."""
    if present is not None:
        raise ConfigurationError(
            f"“{model.name}” has a service already: “{present.spec.name}”.",
            why="A release is made for one service.",
            mend="Declare a model of its own for the second service.",
        )


def check_sources(model: "Model", sources: Iterable[str]) -> None:
    """Raise ConfigurationError for a model with a feature view of a source that is not declared."""
    for view in model.views:
        if view.source not in sources:
            raise ConfigurationError(
                f"The feature view “{view.name}” reads the source “{view.source}”, which is not declared.",
                why=f"Declared sources: {', '.join(sorted(sources)) or 'none'}.",
                mend="Declare it with @project.source above the model.",
            )


def check_kind(model: "Model") -> None:
    """Raise ConfigurationError for a model whose classes are none, or that answers with two kinds of things."""
    classes = model.classes
    if classes and model.number:
        raise ConfigurationError(
            f"The model “{model.name}” has classes and answers with a number.",
            why="It is one or the other.",
            mend="Leave classes or number out.",
        )
    named = all(type(name) is str and 0 < len(name) <= _LONGEST for name in classes)
    if classes and (len(classes) < 3 or len(classes) > _MOST or len(set(classes)) != len(classes) or not named):
        raise ConfigurationError(
            f"The model “{model.name}” has the classes {list(classes)[:10]}.",
            why=f"It has 3 to {_MOST}, each with a name of its own of up to {_LONGEST} letters.",
            mend="Name them in the order of their numbers; of two outcomes, the answer is the chance of one.",
        )


def check_constant(constant: float | None, model: "Model") -> None:
    """Raise ConfigurationError for a constant that is no answer of the model: the number of none of its classes."""
    if constant is not None and model.classes and constant not in range(len(model.classes)):
        numbered = ", ".join(f"{number} ({name})" for number, name in enumerate(model.classes))
        raise ConfigurationError(
            f"The service of “{model.name}” cannot fall back to {constant:g}.",
            why="That is the number of none of its classes.",
            mend=f"Give one of: {numbered[:300]}.",
        )


def rollout_of(rollout: "Canary", model: "Model") -> "Canary":
    """Return how releases of a model are rolled out, with the loss that its answers have.

    Raises ConfigurationError for what cannot be judged of them.
    """
    if rollout.metric != "brier" or not (model.classes or model.number):
        if rollout.scale:
            raise _no_rollout(model, "scale is given", "It is for models that answer with a number.")
        return rollout
    for name, what in (("drift_margin", "scores"), ("estimate_margin", "probabilities")):
        if getattr(rollout, name):
            raise _no_rollout(model, f"{name} is given", f"It compares {what} of yes and no, which it has none of.")
    if rollout.groups and rollout.group_measure == "positive":
        raise _no_rollout(model, "groups are compared by decisions that are yes", 'Use group_measure="error".')
    if model.classes:
        return replace(rollout, loss="wrong")
    if rollout.groups:
        raise _no_rollout(model, "groups are named", "A number is off, and not right or wrong: leave them out.")
    if not rollout.scale > 0:
        raise _no_rollout(
            model,
            "no scale is given",
            "Say from how far off on an answer is as bad as it can be: ht.Canary(scale=…), in units of the outcome.",
        )
    return replace(rollout, loss="distance")


def _no_rollout(model: "Model", why: str, mend: str) -> ConfigurationError:
    kind = f"tells {len(model.classes)} classes apart" if model.classes else "answers with a number"
    if not (model.classes or model.number):
        kind = "answers with a probability"
    return ConfigurationError(
        f"Releases of “{model.name}” cannot be rolled out as declared.",
        why=f"The model {kind}, and {why}.",
        mend=mend,
    )


def monitored(metric: str | None, model: "Model | None") -> str:
    """Return what a monitor watches: what is named, or what is usual; raise ConfigurationError for what cannot be."""
    usual, known = "roc_auc", ("roc_auc", "brier", "volume")
    if model is not None and model.classes:
        usual, known = "error", ("error", "volume")
    elif model is not None and model.number:
        usual, known = "mae", ("mae", "volume")
    if model is not None and metric is not None and metric not in known:
        raise ConfigurationError(
            f"The service of “{model.name}” cannot be watched by “{metric}”.",
            why=f"What there is for such a model: {', '.join(known)}.",
            mend="Use one of these.",
        )
    return metric or usual


def check_band(band: tuple[float, float] | None, *, number: bool = False) -> None:
    """Raise ConfigurationError for a band of scores that is none."""
    if band is not None and number:
        raise ConfigurationError(
            f"A service cannot abstain between {band[0]} and {band[1]} whose model answers with a number.",
            why="It answers with a number, and no probability says how sure that is.",
            mend="Ask for its ranges instead: the header X-Holdtrue-Sets.",
        )
    if band is not None and not 0.0 <= band[0] <= band[1] <= 1.0:
        raise ConfigurationError(
            f"A service cannot abstain between {band[0]} and {band[1]}.",
            why="Scores are probabilities, and the band has a lower and an upper end.",
            mend="Write it like abstain=(0.4, 0.6).",
        )


def places(at_once: Sequence[str]) -> tuple[str, ...]:
    """Return the environments in which no rollout is needed; raise ConfigurationError for one name alone."""
    if isinstance(at_once, str):
        raise ConfigurationError(
            f"at_once is “{at_once}”, which is one name and no list of them.", mend=f'Write at_once=["{at_once}"].'
        )
    return tuple(at_once)


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
