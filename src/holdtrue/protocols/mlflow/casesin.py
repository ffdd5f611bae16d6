"""Records of evaluation datasets as they come in, from clients and from other systems: cleaned before they are kept."""

from dataclasses import replace
from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.datasets import BASE
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, text
from holdtrue.traces.intake import Intake
from holdtrue.tracking import cases
from holdtrue.tracking.cases import importing
from holdtrue.tracking.cases.rules import read_records, record_hash

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
PROJECT = "/api/projects/{project}/imported-evaluation-datasets"


def case_routes(intake: Intake) -> tuple[Routes, Routes]:
    """Return the routes by which records come; credentials in them are taken out by `intake`."""
    routes = Routes("protocols.mlflow", MLFLOW)

    @routes.post(
        f"{BASE}/{{dataset_id}}/records", WRITE, summary="Add records to an evaluation dataset, or change them"
    )
    async def upsert(call: Call, body: Fields) -> Any:
        """Add records; of those whose inputs are there already, outputs, expectations and tags are changed.

        Those that name somebody who was erased are left out, and counted in a field that clients do not know.
        """
        sent = [intake.clean_json(call.project, each) for each in read_records(text(body, "records"))]
        own, home = call.path["dataset_id"], call.stores.home
        new, known, erased = await call.write_async(lambda tx: cases.upsert(tx, own, sent, home))
        return {"inserted_count": new, "updated_count": known} | ({"erased_count": erased} if erased else {})

    return routes, _imported(intake)


def _imported(intake: Intake) -> Routes:
    routes = Routes("protocols.mlflow")

    @routes.post(PROJECT, WRITE, summary="Bring an evaluation dataset over")
    def bring(call: Call, body: importing.ImportedSet) -> Any:
        """Write an evaluation dataset of another system down under its own id."""
        return call.write(lambda tx: importing.bring_set(tx, body))

    @routes.get(f"{PROJECT}/{{dataset}}", READ, summary="Count what an evaluation dataset holds")
    def count(call: Call) -> Any:
        """Return numbers of records, tags and experiments, for an importer to compare."""
        return call.read(lambda c: importing.count_set(c, call.project, call.path["dataset"]))

    @routes.post(f"{PROJECT}/{{dataset}}/records", WRITE, summary="Bring records of an evaluation dataset over")
    def bring_records(call: Call, body: importing.ImportedRecords) -> Any:
        """Write up to 1,000 records down; returns the hash of each as it is here, and which had something taken out.

        Records that name somebody who was erased are left out; their hash is empty.
        """
        if len(body.records) > importing.RECORDS_PER_IMPORT:
            raise InvalidInput(f"A request brings at most {importing.RECORDS_PER_IMPORT} records.")
        records = tuple(_cleaned(intake, call.project, each) for each in body.records)
        taken = [
            before.id for before, after in zip(body.records, records, strict=True) if _said(before) != _said(after)
        ]
        own, home = call.path["dataset"], call.stores.home
        hashes = call.write(lambda tx: importing.bring_records(tx, own, records, home))
        return {"hashes": [hashes.get(each.id, "") for each in body.records], "cleaned": taken}

    return routes


def _cleaned(intake: Intake, project: str, each: importing.ImportedRecord) -> importing.ImportedRecord:
    said = [each.inputs, each.outputs, each.expectations, each.tags, each.source]
    inputs, outputs, expectations, tags, source = intake.clean_json(project, said)
    return replace(each, inputs=inputs, outputs=outputs, expectations=expectations, tags=tags, source=source)


def _said(each: importing.ImportedRecord) -> str:
    return record_hash(each.inputs, each.outputs, each.expectations, each.tags, each.source)
