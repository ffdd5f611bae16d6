"""What a user writes: one `Project`, and decorators that say what belongs to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from holdtrue.core.errors import ConfigurationError
from holdtrue.core.ids import check_name
from holdtrue.data import Contract, DatasetSpec, Tags, check_windows
from holdtrue.delivery import Canary, RetrainSpec, ServiceSpec
from holdtrue.evaluation import METRICS, Check
from holdtrue.features import Computed, Latest, OnDemand, Trailing
from holdtrue.governance import ChangeWindow, Freeze, Policy, Rule
from holdtrue.governance.calendar import check_calendar
from holdtrue.llm.application import read_settings
from holdtrue.llm.gateway import Route
from holdtrue.llm.guardrails import Guard
from holdtrue.monitoring import MonitorSpec
from holdtrue.project import checks
from holdtrue.project.applications import (
    Application,
    GuardrailsFile,
    IndexSources,
    PromptFile,
    TestSetFile,
    assets_of,
)
from holdtrue.project.checks import places
from holdtrue.project.model import ModelSpec, ProjectSpec
from holdtrue.serving import LoadTest

View = Latest | Trailing
Feature = Latest | Trailing | OnDemand | Computed


@dataclass(frozen=True, slots=True)
class Dataset:
    """Hold a dataset's definition: what it must look like, and the function that reads one window."""

    spec: DatasetSpec
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Hold the rows of a dataset from which feature views are made; `takes` is what its function gets."""

    name: str
    dataset: Dataset
    select: Callable[[Any], Any]
    takes: Literal["relation", "table"] = "relation"


@dataclass(frozen=True, slots=True)
class Training:
    """Hold what a training function gets.

    `X` is float32 [n, k] in the order of `feature_names`; `y` is int64 [n] of 0 and 1, or of the numbers of classes, or
    float64 [n] of numbers; `rows` has the same n rows in the same order, with every column of the dataset.
    """

    X: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class Model:
    """Hold a model's definition: its label, features and parameters, and the function that fits it.

    It answers with the chance that its outcome is true, with one of several `classes`, or with a `number`.
    """

    name: str
    dataset: Dataset
    label: str
    outcome: str
    time: str
    features: tuple[Feature, ...]
    params: Mapping[str, Any]
    fit: Callable[[Training, Mapping[str, Any]], Any]
    purpose: str = ""
    quantise: bool = False
    classes: tuple[str, ...] = ()
    number: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return by what such a model may be compared, the usual first."""
        if self.classes:
            return ("brier", "error", "log_loss")
        return ("mae", "mse") if self.number else METRICS

    @property
    def spec(self) -> ModelSpec:
        """Return the definition as data."""
        return ModelSpec(
            name=self.name,
            dataset=self.dataset.spec.name,
            label=self.label,
            outcome=self.outcome,
            features=tuple(
                feature.name if isinstance(feature, Latest | Trailing) else feature.feature for feature in self.features
            ),
            params=dict(self.params),
            purpose=self.purpose,
            classes=self.classes,
            number=self.number,
        )

    @property
    def views(self) -> tuple[View, ...]:
        """Return the features that are looked up, in their order."""
        return tuple(each for each in self.features if isinstance(each, Latest | Trailing))

    @property
    def expressions(self) -> tuple[OnDemand, ...]:
        """Return the features that are taken from a column of the request, in their order."""
        return tuple(each for each in self.features if isinstance(each, OnDemand))

    @property
    def functions(self) -> tuple[Computed, ...]:
        """Return the features that functions compute from the request, in their order."""
        return tuple(each for each in self.features if isinstance(each, Computed))

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the columns of the request that features are computed from."""
        read = [*(each.column for each in self.expressions), *(name for each in self.functions for name in each.inputs)]
        return tuple(dict.fromkeys(read))


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Say how a model is judged: metric, slices, how many days at the end are held out, and under which load.

    `confidence` is how often its prediction sets shall hold the truth (0: none are made).
    """

    model: str
    metric: str = "roc_auc"
    slices: tuple[str, ...] = ()
    holdout_days: int = 14
    baseline: str = "majority"
    load: LoadTest | None = None
    confidence: float = 0.9


@dataclass(frozen=True, slots=True)
class Serving:
    """Hold what a service needs besides its policy: which request inputs it takes."""

    spec: ServiceSpec
    model: Model
    inputs: tuple[tuple[str, str], ...]
    contract: Contract


@dataclass(slots=True)
class Project:
    """Collect the definitions of one project; the file that holds it reads like its specification.

    `root` is the folder of that file, from which paths in it are meant.
    """

    name: str
    owner: str
    risk: str = "minimal"
    datasets: dict[str, Dataset] = field(default_factory=dict[str, Dataset])
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    models: dict[str, Model] = field(default_factory=dict[str, Model])
    evaluations: dict[str, EvaluationPlan] = field(default_factory=dict[str, EvaluationPlan])
    services: dict[str, Serving] = field(default_factory=dict[str, Serving])
    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])
    monitors: list[MonitorSpec] = field(default_factory=list[MonitorSpec])
    retrains: list[RetrainSpec] = field(default_factory=list[RetrainSpec])
    applications: dict[str, Application] = field(default_factory=dict[str, Application])
    root: Path = field(default_factory=Path.cwd)

    def __post_init__(self) -> None:
        check_name(self.name, "project name")
        if self.risk not in ("minimal", "limited", "high"):
            raise ConfigurationError(
                f"A project cannot have the risk “{self.risk}”.",
                why="The classes of risk are minimal, limited and high.",
                mend="Choose one of the three.",
            )

    def dataset(
        self, *, key: str, time: str, contract: Contract, window: str = "month", tags: Tags | None = None
    ) -> Callable[[Callable[[str], Any]], Dataset]:
        """Declare a dataset; the function gets a window's name, such as “2013-04”, and returns its rows.

        `tags` (purposes, licence, source) hold for every column that says nothing else.
        """

        def declare(read: Callable[[str], Any]) -> Dataset:
            name = self._fresh(self.datasets, read.__name__, "dataset")
            check_windows(name, window)
            spec = DatasetSpec(name=name, key=key, time=time, contract=contract, window=window, tags=tags or Tags())
            self.datasets[name] = Dataset(spec, read)
            return self.datasets[name]

        return declare

    def source(
        self, of: Dataset, *, takes: Literal["relation", "table"] = "relation"
    ) -> Callable[[Callable[[Any], Any]], Source]:
        """Declare rows for feature views: the function gets all rows of some windows and returns those of the source.

        It gets a DuckDB relation, or with `takes="table"` an Arrow table. It returns a relation, SQL over `rows`, a
        table (Arrow, pandas, Polars), or arrays by name.
        """
        if takes not in ("relation", "table"):
            raise ConfigurationError(
                f"A source's function cannot take “{takes}”.",
                why="It gets a DuckDB relation or an Arrow table.",
                mend='Write takes="relation" or takes="table".',
            )

        def declare(select: Callable[[Any], Any]) -> Source:
            name = self._fresh(self.sources, select.__name__, "source")
            self.sources[name] = Source(name, of, select, takes)
            return self.sources[name]

        return declare

    def model(
        self,
        *,
        dataset: Dataset,
        label: str,
        outcome: str,
        time: str,
        features: Sequence[Feature],
        params: Mapping[str, Any] | None = None,
        purpose: str = "",
        quantise: bool = False,
        classes: Sequence[str] = (),
        number: bool = False,
    ) -> Callable[[Callable[[Training, Mapping[str, Any]], Any]], Model]:
        """Declare a model of the probability that the SQL expression `outcome` is true.

        With `classes`, three names or more, `outcome` gives the name of a class or its number from 0 on, and the model
        a probability of each; with `number` the outcome is a number, and the model a regressor.
        Rows whose outcome is NULL have no label and are not trained on. `time` is the moment at which
        a prediction is made: no feature may know more than was known then. `purpose` is what its answers are for, which
        each column it is trained on must allow. The function returns a fitted classifier, or one of `PythonModel`,
        `TorchModel`, `Ensemble`, `Stack` and `Processed`. With `quantise`, a compiled model has weights of eight bits
        where it still answers as the original does.
        """

        def declare(fit: Callable[[Training, Mapping[str, Any]], Any]) -> Model:
            name = self._fresh(self.models, fit.__name__, "model")
            made = Model(
                name, dataset, label, outcome, time, tuple(features), dict(params or {}), fit, purpose, quantise,
                tuple(classes), number,
            )  # fmt: skip
            checks.check_sources(made, self.sources)
            checks.check_kind(made)
            checks.check_columns(made)
            self.models[name] = made
            return made

        return declare

    def evaluation(
        self,
        model: Model,
        *,
        metric: str | None = None,
        slices: Sequence[str] = (),
        holdout_days: int = 14,
        baseline: str = "majority",
        load: LoadTest | None = None,
        confidence: float = 0.9,
    ) -> None:
        """Declare how `model` is judged: on the last days of its data, which it is not trained on.

        The `metric` is the area under the ROC curve unless named; of classes the Brier score, of numbers the mean
        absolute error. The baseline “majority” answers every row with the share of each outcome in the training data,
        or the mean of a number. With `load`, each release is put under load beside the one that answers now (also
        without, if a gate reads `performance`). Prediction sets are made that shall hold the truth with `confidence`
        (0: none).
        """
        metric = metric or model.metrics[0]
        plan = EvaluationPlan(model.name, metric, tuple(slices), holdout_days, baseline, load, confidence)
        checks.check_evaluation(plan, model)
        self.evaluations[model.name] = plan

    def gate(self, environment: str, *, require: Mapping[str, str], approvals: int = 1) -> None:
        """Declare what a release must show before it may enter `environment`: named rules in CEL."""
        rules = tuple(Rule(name=name, expression=text) for name, text in require.items())
        self.policies[environment] = Policy(environment=environment, rules=rules, approvals=approvals)

    def freeze(self, environment: str, begin: str, end: str, reason: str) -> None:
        """Close an environment to changes from a day or moment (“2026-12-20”, ISO 8601; UTC) until before another.

        Its gate must be declared above. Rollouts wait meanwhile; going back stays possible.
        """
        policy = _policy_of(self.policies, environment)
        made = Freeze(checks.moment(begin), checks.moment(end), reason)
        self._set_calendar(replace(policy, freezes=(*policy.freezes, made)))

    def window(self, environment: str, days: Sequence[str], begin: float, end: float, zone: str = "UTC") -> None:
        """Let changes into an environment only on these days (“mon” to “sun”) between two hours of a time zone.

        Its gate must be declared above; again for more windows.
        """
        policy = _policy_of(self.policies, environment)
        self._set_calendar(replace(policy, windows=(*policy.windows, ChangeWindow(tuple(days), begin, end, zone))))

    def service(
        self,
        model: Model,
        *,
        key: str,
        entity: str,
        inputs: Mapping[str, str],
        rollout: Canary,
        fallback: checks.Fallback | Sequence[checks.Fallback] | None = None,
        abstain: tuple[float, float] | None = None,
        name: str | None = None,
        drill_days: float = 0.0,
        rate: float = 0.0,
        replay_days: float = 0.0,
        replay_most: float = 0.01,
        at_once: Sequence[str] = (),
    ) -> None:
        """Declare the service that answers with `model`: its request inputs and how a release is rolled out.

        `fallback` is what answers if the model fails: a constant, “previous” (the release before), another service by
        its name, a release by its id; or such a one and then a constant: ("previous", 0.2). Scores between the two of
        `abstain` are marked as no decision. It takes `rate` requests a second (0: any number).
        Every `replay_days` recorded features are computed again; the share `replay_most` may differ. In the
        environments `at_once`, such as “staging”, an allowed release takes the place of another with no rollout.
        """
        backup, constant = checks.fallbacks(fallback)
        checks.check_band(abstain, number=model.number)
        checks.check_constant(constant, model)
        checks.check_inputs(model, inputs, key=key, entity=entity)
        checks.check_alone(model, self.serving(model.name))
        contract = model.dataset.spec.contract.only(tuple(inputs))
        spec = ServiceSpec(
            name=name or model.name,
            model=model.name,
            key=key,
            entity=entity,
            prediction_time=model.time,
            rollout=checks.rollout_of(rollout, model),
            fallback=constant,
            drill_days=drill_days,
            backup=backup,
            rate=rate,
            replay_days=replay_days,
            replay_most=replay_most,
            abstain=None if abstain is None else (float(abstain[0]), float(abstain[1])),
            at_once=checks.places(at_once),
        )
        self.services[spec.name] = Serving(spec, model, tuple(inputs.items()), contract)

    def application(
        self,
        name: str,
        *,
        prompt: str,
        route: Route,
        index: IndexSources | None = None,
        guardrails: Sequence[Guard] = (),
        test_set: str | None = None,
        checks: Sequence[Check] = (),
        rollout: Canary,
        judge: Route | None = None,
        rate: float = 0.0,
        at_once: Sequence[str] = (),
        **answering: Any,
    ) -> Application:
        """Declare an application: prompt and test set are files beside this one; `answering` are its settings.

        A release of it pins prompt, index, guardrails, route and policy, and is rolled out as a whole. It takes `rate`
        requests a second (0: any number). In the environments `at_once` an allowed release needs no rollout.
        """
        made = Application(
            name=self._fresh({**self.applications, **self.services}, name, "application"),
            prompt=PromptFile(prompt),
            route=route,
            index=index,
            guardrails=GuardrailsFile(name, tuple(guardrails)) if guardrails else None,
            test_set=None if test_set is None else TestSetFile(test_set),
            checks=tuple(checks),
            rollout=rollout,
            answering=read_settings({"answering": answering}),
            judge=judge,
            rate=rate,
            at_once=places(at_once),
        )
        self.applications[name] = made
        return made

    def monitor(self, service: str | Model, **settings: Any) -> None:
        """Declare a monitor on a service; `alarms_per_quarter` is how often it may cry wolf."""
        name = service if isinstance(service, str) else self._service_of(service)
        model = self.services[name].model if name in self.services else None
        metric = checks.monitored(settings.pop("metric", None), model)
        self.monitors.append(MonitorSpec(name=f"{name}-{metric}", service=name, metric=metric, **settings))

    def retrain(self, model: Model, **settings: Any) -> None:
        """Declare when a challenger is trained, and how many a year may cost."""
        self.retrains.append(RetrainSpec(model=model.name, service=self._service_of(model), **settings))

    def serving(self, model: str) -> Serving | None:
        """Return the service that answers with a model, None if there is none."""
        return next((each for each in self.services.values() if each.model.name == model), None)

    def spec(self) -> ProjectSpec:
        """Return the definitions as data: what `plan` compares and `apply` sends."""
        return ProjectSpec(
            name=self.name,
            owner=self.owner,
            risk=self.risk,
            datasets=tuple(each.spec for each in self.datasets.values()),
            models=tuple(each.spec for each in self.models.values()),
            policies=tuple(self.policies.values()),
            services=(
                *(each.spec for each in self.services.values()),
                *(each.spec for each in self.applications.values()),
            ),
            assets=assets_of(self.applications.values(), self.root),
            monitors=tuple(self.monitors),
            retrains=tuple(self.retrains),
        )

    def _set_calendar(self, policy: Policy) -> None:
        check_calendar(policy)
        self.policies[policy.environment] = policy

    def _service_of(self, model: Model) -> str:
        serving = self.serving(model.name)
        if serving is None:
            raise ConfigurationError(
                f"No service answers with “{model.name}” yet.",
                why="Monitors and retraining belong to the service of a model.",
                mend=f"Declare it above this line: project.service({model.name}, …)",
            )
        return serving.spec.name

    def _fresh(self, names: Mapping[str, Any], name: str, what: str) -> str:
        if check_name(name, what) in names:
            raise ConfigurationError(
                f"The {what} “{name}” is declared twice.",
                why="A name stands for one definition.",
                mend="Rename one of the two functions.",
            )
        return name


def _policy_of(policies: Mapping[str, Policy], environment: str) -> Policy:
    found = policies.get(environment)
    if found is None:
        raise ConfigurationError(
            f"The environment “{environment}” has no gate yet.",
            why="When changes may be made is a part of its policy.",
            mend=f'Declare it above this line: project.gate("{environment}", …)',
        )
    return found
