"""From what a release pins to what a data plane loads."""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.catalog import Release, Version
from holdtrue.core.codec import load
from holdtrue.core.errors import HoldtrueError
from holdtrue.delivery.model import NotDeployable, Rollout
from holdtrue.serving import FORMATS, Application, Arm, Bundle, Input, ModelFile, Route
from holdtrue.stats.conformal import ClassSets, Ranges, Sets

APPLICATION_ROLES = ("prompt", "index", "guardrails", "route")
"""What a release of an application pins; of these, prompt and route must be there."""


def is_application(release: Release) -> bool:
    """Tell whether a release is one of an application: it pins a prompt, and no model."""
    return "prompt" in release.manifest.versions


def application(connection: sa.Connection, project: str, release: Release) -> Application:
    """Return everything that a release of an application needs to answer; raise NotDeployable for what it lacks."""
    pinned = {role: name for role, name in release.manifest.versions.items() if role in APPLICATION_ROLES}
    parts = {role: _part(connection, project, release, role) for role in (*pinned, "prompt", "route")}
    return Application(
        release=release.id,
        project=project,
        service=release.service,
        versions=pinned,
        parts={role: version.content for role, version in parts.items()},
        config=dict(release.manifest.config),
    )


def bundle(connection: sa.Connection, project: str, release: Release) -> Bundle:
    """Return everything that `release` needs to answer; raise NotDeployable for what it lacks."""
    model = _part(connection, project, release, "model")
    contents = {"model": model.content, "features": _part(connection, project, release, "features").content}
    if "contract" in release.manifest.versions:
        contents["contract"] = _part(connection, project, release, "contract").content
    if model.content.get("format") not in FORMATS or model.content.get("digest") not in model.blobs:
        raise _lacks(
            release,
            f"the model {model.id} is of no form that is served: its content names no such file among its blobs",
        )
    for name in ("inputs", "output"):
        _config(release, name)
    return bundle_of(release.id, project, release.service, release.manifest.config, contents)


def bundle_of(
    release: str, project: str, service: str, config: Mapping[str, Any], contents: Mapping[str, Any]
) -> Bundle:
    """Return the bundle of a release from its configuration and the contents of the versions it pins, by role."""
    model = contents["model"]
    return Bundle(
        release=release,
        project=project,
        service=service,
        inputs=tuple(Input(each["name"], each["datatype"]) for each in config["inputs"]),
        contract=contents.get("contract"),
        features=contents["features"],
        model=ModelFile(model["format"], model["digest"]),
        output=config["output"],
        prediction_time=config.get("prediction_time"),
        matrix=config.get("matrix"),
        background=model.get("background"),
        sets=None if config.get("sets") is None else load(Sets, config["sets"], "The sets of a release"),
        classes=tuple(model.get("classes", ())),
        class_sets=load(ClassSets, config["class_sets"], "The sets of a release") if "class_sets" in config else None,
        ranges=load(Ranges, config["ranges"], "The ranges of a release") if "ranges" in config else None,
        event="training" in model and not model.get("classes") and not model.get("number"),
    )


def route(project: str, champion: Release, rollout: Rollout | None = None, shadows: Iterable[str] = ()) -> Route:
    """Return how a service is answered by its champion, and by a challenger if a rollout is under way.

    Key, entity and fallback are those of the champion's manifest, which was checked when it came in.
    """
    config = champion.manifest.config
    arms = (Arm("champion", champion.id, 100.0),)
    answers = is_application(champion)
    silent = [] if answers else list(shadows)
    if rollout is not None:
        if rollout.percent > 0:
            arms = (
                Arm("champion", champion.id, 100.0 - rollout.percent),
                Arm("challenger", rollout.challenger, rollout.percent),
            )
        if not answers and (rollout.canary.shadow or rollout.percent == 0):
            silent.insert(0, rollout.challenger)
    return Route(
        project=project,
        service=champion.service,
        key=config.get("key"),
        entity="user" if answers else config.get("entity"),
        arms=arms,
        seed="" if rollout is None else rollout.id,
        rollout=None if rollout is None else rollout.id,
        shadows=tuple(dict.fromkeys(each for each in silent if each != champion.id)),
        paired=rollout is not None and not answers and rollout.canary.metric == "brier",
        fallback=config.get("fallback"),
        abstain=None if config.get("abstain") is None else tuple(config["abstain"]),
    )


def check_servable(connection: sa.Connection, project: str, release: Release, champion: Release | None) -> None:
    """Raise NotDeployable unless a data plane can serve `release`, beside `champion` if there is one."""
    if champion is not None and is_application(champion) != is_application(release):
        raise _lacks(release, "it is not of the kind that answers now: one is a model, the other an application")
    if is_application(release):
        application(connection, project, release)
        return
    made = bundle(connection, project, release)
    names = {each.name for each in made.inputs}
    for role in ("key", "entity", "prediction_time"):
        name = release.manifest.config.get(role)
        if name is not None and name not in names:
            raise _lacks(
                release,
                f"its {role} “{name}” is not among its inputs",
                f"Add “{name}” to the inputs of the service in the project file; then `holdtrue run` makes a release "
                "that can be promoted.",
            )
    if champion is None:
        return
    if release.manifest.config.get("entity") is None and release.manifest.config.get("key") is None:
        raise _lacks(release, "it names neither key nor entity, so rows cannot be split between releases")
    before = bundle(connection, project, champion)
    if before.classes != made.classes:
        raise _lacks(
            release,
            f"it tells {_classes(made)} apart, and the release that answers now {_classes(before)}",
            "Both releases answer the same requests during a rollout: declare a new service for other classes.",
        )
    asked = {(each.name, each.datatype) for each in before.inputs}
    extra = {(each.name, each.datatype) for each in made.inputs} - asked
    if extra:
        name, datatype = min(extra)
        raise _lacks(
            release,
            f"it reads the input {name} ({datatype}), which requests of today do not carry",
            "Both releases answer the same requests during a rollout: keep the inputs of the service as they are, "
            "or declare a new service for the new ones.",
        )


def _classes(bundle: Bundle) -> str:
    return f"the classes {', '.join(bundle.classes)[:200]}" if bundle.classes else "no classes"


def _part(connection: sa.Connection, project: str, release: Release, role: str) -> Version:
    version = release.manifest.versions.get(role)
    if version is None:
        raise _lacks(release, f"its manifest pins no {role}")
    try:
        return catalog.get(connection, project, version)
    except HoldtrueError as error:
        raise _lacks(release, f"its {role} cannot be found: {error.what}") from error


def _config(release: Release, name: str) -> Any:
    config: Mapping[str, Any] = release.manifest.config
    if not config.get(name):
        raise _lacks(release, f"its configuration has no “{name}”")
    return config[name]


def _lacks(
    release: Release, why: str, mend: str = "Make a release from a complete run: `holdtrue run`."
) -> NotDeployable:
    return NotDeployable(
        f"The release {release.id} cannot be served.",
        why=f"In it, {why}." if not why.startswith("its") else f"{why[0].upper()}{why[1:]}.",
        mend=mend,
        facts={"release": release.id},
    )
