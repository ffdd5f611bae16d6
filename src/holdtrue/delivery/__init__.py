"""Delivery: services, deployments, rollouts, rollback, the retrain loop.

Names are imported on first use: declaring a service needs no database.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.delivery.bundles import (
        bundle_of,
    )
    from holdtrue.delivery.drifting import (
        Drift,
        drift,
    )
    from holdtrue.delivery.drilling import (
        run_drills,
    )
    from holdtrue.delivery.explaining import (
        why,
    )
    from holdtrue.delivery.filling import (
        fill_features,
    )
    from holdtrue.delivery.loop import (
        run_due,
    )
    from holdtrue.delivery.measuring import (
        Measures,
        dora,
    )
    from holdtrue.delivery.model import (
        PRODUCTION,
        Canary,
        Change,
        Deployment,
        DeploymentState,
        Drilled,
        NotDeployable,
        NothingEarlier,
        RetrainSpec,
        Rollout,
        RolloutRunning,
        RolloutState,
        RolloutStep,
        Service,
        ServiceSpec,
        Stop,
        Trigger,
        TriggerState,
    )
    from holdtrue.delivery.plans import (
        ABTest,
        Bandit,
        BlueGreen,
        Shadow,
    )
    from holdtrue.delivery.progress import (
        judge,
    )
    from holdtrue.delivery.reading import (
        changes,
        deployment,
        deployments,
        find_service,
        retrains,
        rollout,
        rollout_steps,
        rollouts,
        services,
        stops,
        stream,
        triggers,
    )
    from holdtrue.delivery.reconciler import (
        reconcile,
    )
    from holdtrue.delivery.rules import (
        check_service,
    )
    from holdtrue.delivery.service import (
        Measurement,
        NewManifest,
        NewVersion,
        Promotion,
        Submission,
        Submitted,
        check_removable,
        declare,
        promote,
        remove_retrain,
        remove_service,
        request_retrain,
        rollback,
        submit,
    )
    from holdtrue.delivery.simulating import (
        Scenario,
        Simulation,
        check_scenario,
        simulate,
    )
    from holdtrue.delivery.standing import (
        last_drill,
        status,
        summary,
    )
    from holdtrue.delivery.stopping import (
        resume,
        stop,
    )
    from holdtrue.delivery.watching_features import (
        watch_features,
    )

__all__ = [
    "PRODUCTION",
    "ABTest",
    "Bandit",
    "BlueGreen",
    "Canary",
    "Change",
    "Deployment",
    "DeploymentState",
    "Drift",
    "Drilled",
    "Measurement",
    "Measures",
    "NewManifest",
    "NewVersion",
    "NotDeployable",
    "NothingEarlier",
    "Promotion",
    "RetrainSpec",
    "Rollout",
    "RolloutRunning",
    "RolloutState",
    "RolloutStep",
    "Scenario",
    "Service",
    "ServiceSpec",
    "Shadow",
    "Simulation",
    "Stop",
    "Submission",
    "Submitted",
    "Trigger",
    "TriggerState",
    "bundle_of",
    "changes",
    "check_removable",
    "check_scenario",
    "check_service",
    "declare",
    "deployment",
    "deployments",
    "dora",
    "drift",
    "fill_features",
    "find_service",
    "judge",
    "last_drill",
    "promote",
    "reconcile",
    "remove_retrain",
    "remove_service",
    "request_retrain",
    "resume",
    "retrains",
    "rollback",
    "rollout",
    "rollout_steps",
    "rollouts",
    "run_drills",
    "run_due",
    "services",
    "simulate",
    "status",
    "stop",
    "stops",
    "stream",
    "submit",
    "summary",
    "triggers",
    "watch_features",
    "why",
]

__getattr__ = attach(
    __name__,
    {
        "bundle_of": "bundles",
        "Shadow": "plans",
        "BlueGreen": "plans",
        "Bandit": "plans",
        "ABTest": "plans",
        "Canary": "model",
        "Change": "model",
        "Deployment": "model",
        "Drilled": "model",
        "DeploymentState": "model",
        "Drift": "drifting",
        "fill_features": "filling",
        "watch_features": "watching_features",
        "Measurement": "service",
        "Measures": "measuring",
        "NewManifest": "service",
        "NewVersion": "service",
        "NotDeployable": "model",
        "NothingEarlier": "model",
        "PRODUCTION": "model",
        "Promotion": "service",
        "RetrainSpec": "model",
        "Rollout": "model",
        "RolloutRunning": "model",
        "RolloutState": "model",
        "RolloutStep": "model",
        "Scenario": "simulating",
        "Service": "model",
        "ServiceSpec": "model",
        "Simulation": "simulating",
        "Submission": "service",
        "Submitted": "service",
        "Trigger": "model",
        "TriggerState": "model",
        "changes": "reading",
        "check_scenario": "simulating",
        "check_removable": "service",
        "check_service": "rules",
        "declare": "service",
        "deployment": "reading",
        "deployments": "reading",
        "dora": "measuring",
        "drift": "drifting",
        "find_service": "reading",
        "judge": "progress",
        "promote": "service",
        "reconcile": "reconciler",
        "remove_retrain": "service",
        "remove_service": "service",
        "request_retrain": "service",
        "retrains": "reading",
        "rollback": "service",
        "rollout": "reading",
        "rollout_steps": "reading",
        "rollouts": "reading",
        "run_drills": "drilling",
        "run_due": "loop",
        "services": "reading",
        "simulate": "simulating",
        "last_drill": "standing",
        "status": "standing",
        "Stop": "model",
        "resume": "stopping",
        "stop": "stopping",
        "stops": "reading",
        "stream": "reading",
        "submit": "service",
        "summary": "standing",
        "triggers": "reading",
        "why": "explaining",
    },
)
