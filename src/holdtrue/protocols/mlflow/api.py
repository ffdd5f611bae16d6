"""All routes of MLflow's REST protocol."""

from itertools import chain

from holdtrue.protocols.mlflow import (
    artifacts,
    datasets,
    experiments,
    metrics,
    models,
    modelsin,
    registry,
    runs,
    scorers,
    tracemetrics,
)

routes = tuple(
    chain(
        experiments.routes,
        runs.routes,
        metrics.routes,
        artifacts.routes,
        models.routes,
        registry.routes,
        modelsin.routes,
        scorers.routes,
        datasets.routes,
        tracemetrics.routes,
    )
)
