"""The data plane: routing snapshots, compiled models, and the application that answers.

Names are imported on first use: compiling needs scikit-learn, and the data plane must not load it.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.serving.access import AccessTable, Grant, read_access
    from holdtrue.serving.applications import (
        Answered,
        Answering,
        AnswerStream,
        Applications,
        Question,
        RecordedStream,
    )
    from holdtrue.serving.compiling import CannotCompile, Compiled, compile_model
    from holdtrue.serving.declared import Ensemble, Processed, PythonModel, Stack, TorchModel
    from holdtrue.serving.endpoints import BODY_LIMIT, Direct, Endpoint, Reply, Request, Stream
    from holdtrue.serving.engine import Answer, Engine
    from holdtrue.serving.intake import intake_endpoints
    from holdtrue.serving.isolated import code_refused, holds_code
    from holdtrue.serving.naming import environment_of, in_environment
    from holdtrue.serving.packing import Packed, pack_model, runtime_of
    from holdtrue.serving.performing import Candidate, LoadTest, check_load_test, measure
    from holdtrue.serving.plan import Plan
    from holdtrue.serving.plane import Limits, Plane
    from holdtrue.serving.probe import load_probed
    from holdtrue.serving.runtime import FORMATS, Model, load_model
    from holdtrue.serving.snapshot import (
        DATATYPES,
        Application,
        Arm,
        BadSnapshot,
        Bundle,
        Input,
        ModelFile,
        Route,
        Snapshot,
        read_snapshot,
        write_snapshot,
    )
    from holdtrue.serving.worker import Fitting, Part, Worker

__all__ = [
    "BODY_LIMIT",
    "DATATYPES",
    "FORMATS",
    "AccessTable",
    "Answer",
    "AnswerStream",
    "Answered",
    "Answering",
    "Application",
    "Applications",
    "Arm",
    "BadSnapshot",
    "Bundle",
    "Candidate",
    "CannotCompile",
    "Compiled",
    "Direct",
    "Endpoint",
    "Engine",
    "Ensemble",
    "Fitting",
    "Grant",
    "Input",
    "Limits",
    "LoadTest",
    "Model",
    "ModelFile",
    "Packed",
    "Part",
    "Plan",
    "Plane",
    "Processed",
    "PythonModel",
    "Question",
    "RecordedStream",
    "Reply",
    "Request",
    "Route",
    "Snapshot",
    "Stack",
    "Stream",
    "TorchModel",
    "Worker",
    "check_load_test",
    "code_refused",
    "compile_model",
    "environment_of",
    "holds_code",
    "in_environment",
    "intake_endpoints",
    "load_model",
    "load_probed",
    "measure",
    "pack_model",
    "read_access",
    "read_snapshot",
    "runtime_of",
    "write_snapshot",
]

__getattr__ = attach(
    __name__,
    {
        "BODY_LIMIT": "endpoints",
        "DATATYPES": "snapshot",
        "FORMATS": "runtime",
        "AccessTable": "access",
        "Answer": "engine",
        "AnswerStream": "applications",
        "Answered": "applications",
        "Answering": "applications",
        "Application": "snapshot",
        "Applications": "applications",
        "Arm": "snapshot",
        "BadSnapshot": "snapshot",
        "Bundle": "snapshot",
        "CannotCompile": "compiling",
        "Candidate": "performing",
        "Compiled": "compiling",
        "Direct": "endpoints",
        "Endpoint": "endpoints",
        "Ensemble": "declared",
        "Processed": "declared",
        "PythonModel": "declared",
        "Stack": "declared",
        "TorchModel": "declared",
        "code_refused": "isolated",
        "holds_code": "isolated",
        "Engine": "engine",
        "Grant": "access",
        "Fitting": "worker",
        "Input": "snapshot",
        "Limits": "plane",
        "LoadTest": "performing",
        "Model": "runtime",
        "ModelFile": "snapshot",
        "Packed": "packing",
        "Part": "worker",
        "Plan": "plan",
        "Plane": "plane",
        "Question": "applications",
        "RecordedStream": "applications",
        "Reply": "endpoints",
        "Request": "endpoints",
        "Route": "snapshot",
        "Snapshot": "snapshot",
        "Stream": "endpoints",
        "Worker": "worker",
        "check_load_test": "performing",
        "compile_model": "compiling",
        "environment_of": "naming",
        "in_environment": "naming",
        "intake_endpoints": "intake",
        "load_model": "runtime",
        "load_probed": "probe",
        "measure": "performing",
        "pack_model": "packing",
        "read_access": "access",
        "read_snapshot": "snapshot",
        "runtime_of": "packing",
        "write_snapshot": "snapshot",
    },
)
