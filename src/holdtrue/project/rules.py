"""Pure decisions about definitions: whether the parts of a project fit together."""

from holdtrue.core.errors import ConfigurationError
from holdtrue.data import KeyInto
from holdtrue.project.model import ProjectSpec


def check_whole(spec: ProjectSpec) -> None:
    """Raise ConfigurationError for a part that names another one which the project does not declare."""
    datasets = {each.name for each in spec.datasets}
    models = {each.name for each in spec.models}
    services = {each.name for each in spec.services}
    for dataset in spec.datasets:
        for rule in dataset.contract.rules:
            if isinstance(rule, KeyInto):
                _check_key(dataset.name, rule, spec)
    for model in spec.models:
        if model.dataset not in datasets:
            raise _missing(f"The model “{model.name}” reads the dataset “{model.dataset}”", "dataset", datasets)
    for service in spec.services:
        # A service without a model's name answers with a model file that nothing here trains.
        if service.kind == "model" and service.model and service.model not in models:
            raise _missing(f"The service “{service.name}” answers with the model “{service.model}”", "model", models)
    for monitor in spec.monitors:
        if monitor.service not in services:
            raise _missing(f"The monitor “{monitor.name}” watches the service “{monitor.service}”", "service", services)
    for retrain in spec.retrains:
        if retrain.service not in services:
            what = f"The retraining of “{retrain.model}” is for the service “{retrain.service}”"
            raise _missing(what, "service", services)


def _check_key(name: str, rule: KeyInto, spec: ProjectSpec) -> None:
    other = next((each for each in spec.datasets if each.name == rule.dataset), None)
    if other is None:
        what = f"The contract of “{name}” looks “{rule.column}” up in the dataset “{rule.dataset}”"
        raise _missing(what, "dataset", {each.name for each in spec.datasets})
    if rule.of not in {column.name for column in other.contract.columns}:
        raise ConfigurationError(
            f"The contract of “{name}” looks “{rule.column}” up in {rule.dataset}, which has no column “{rule.of}”.",
            why=f"Its columns: {', '.join(column.name for column in other.contract.columns)}.",
            mend="Name one of them.",
        )


def _missing(what: str, kind: str, known: set[str]) -> ConfigurationError:
    return ConfigurationError(
        f"{what}, which is not declared.",
        why=f"Declared {kind}s: {', '.join(sorted(known)) or 'none'}.",
        mend=f"Declare the {kind} in the project file, or take out what names it.",
    )
