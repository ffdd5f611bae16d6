"""Pure decisions about definitions: whether the parts of a project fit together."""

from holdtrue.core.errors import ConfigurationError
from holdtrue.project.model import ProjectSpec


def check_whole(spec: ProjectSpec) -> None:
    """Raise ConfigurationError for a part that names another one which the project does not declare."""
    datasets = {each.name for each in spec.datasets}
    models = {each.name for each in spec.models}
    services = {each.name for each in spec.services}
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


def _missing(what: str, kind: str, known: set[str]) -> ConfigurationError:
    return ConfigurationError(
        f"{what}, which is not declared.",
        why=f"Declared {kind}s: {', '.join(sorted(known)) or 'none'}.",
        mend=f"Declare the {kind} in the project file, or take out what names it.",
    )
