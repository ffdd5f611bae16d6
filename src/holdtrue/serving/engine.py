"""What is served now, and the way of a request through it: plan, contract, batch, answer."""

import asyncio
from collections.abc import Awaitable, Callable

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.serving.applications import Applications
from holdtrue.serving.assembly import Check, Columns, Lookup
from holdtrue.serving.batching import Answer, Awaited, Batches, Waiting
from holdtrue.serving.explaining import Explaining
from holdtrue.serving.plan import Plan
from holdtrue.serving.rates import unlimited
from holdtrue.serving.records import repeated_ids
from holdtrue.serving.refusing import REFUSAL, refusal_columns, refuses
from holdtrue.serving.residence import Key, Residence
from holdtrue.serving.table import Table
from holdtrue.serving.times import read_times
from holdtrue.storage import Writer
from holdtrue.wire import Turn


class NotServed(Unavailable):
    """A service exists, and no release of it could be loaded here."""

    code = "not_served"


class ContractBroken(InvalidInput):
    """A request does not keep the contract of its service."""

    code = "contract_broken"


class Engine:
    """Hold what is served now, and append what was answered to the journal."""

    def __init__(
        self,
        clock: Clock,
        records: Writer,
        lookup: Callable[[str], Lookup],
        *,
        strict: bool,
        rate: Callable[[str, float, str], None] = unlimited,
    ) -> None:
        """`rate` counts a request of a name against its rate a second; see `Rates.take`."""
        self.table = Table()
        # Why a snapshot that is there is not in force, while none is.
        self.unread = ""
        self.rate = rate
        self.applications = Applications(lambda: self.table.applications, clock, records, strict=strict, rate=rate)
        self.residence: Residence | None = None
        self._clock = clock
        self._records = records
        self._strict = strict
        self._explaining = Explaining()
        # Durations are of the machine, also where the time of day is simulated.
        self.stopwatch = SystemClock().monotonic
        self.turn = Turn()
        self._batches = Batches(records, lookup, self.now_us, self.stopwatch, self.turn, strict=strict)

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer on this event loop alone."""
        self._batches.running = loop

    @property
    def dropped(self) -> int:
        """Return how many records were lost in fast mode."""
        return self._batches.dropped

    @property
    def ready(self) -> bool:
        """Tell whether every service of the snapshot is served, as the protocol asks of a server that is ready."""
        return not self.table.unserved and not self.unread

    def now_us(self) -> int:
        """Return the present microseconds since the epoch."""
        return microseconds(self._clock.now())

    def here(self, project: str, service: str, release: str | None = None) -> Plan | None:
        """Return the plan of a service, or of one of its releases, if it is loaded."""
        table = self.table
        name = table.name(project, service)
        if release is None:
            return table.plans.get((project, name))
        return table.pinned.get((project, name, release))

    def plan(self, project: str, service: str, release: str | None = None) -> Plan:
        """Return the plan of a service, or of one of its releases; raise NotFound or NotServed."""
        plan = self.here(project, service, release)
        if plan is not None:
            return plan
        service = self.table.name(project, service)
        if (project, service) in self.table.unserved:
            raise NotServed(
                f"The service {service} cannot answer now.",
                why="None of its releases could be loaded.",
                mend="Look at the deployment with `holdtrue status`.",
            )
        raise NotFound.of("model", service if release is None else f"{service}, version {release}")

    async def find(self, project: str, service: str, release: str | None = None) -> Plan:
        """Return a plan as `plan` does, of a release that stands by too, which is loaded if need be."""
        table = self.table
        name = table.name(project, service)
        if release is None or (project, name, release) in table.pinned:
            return self.plan(project, service, release)
        key = (project, name.partition("@")[0], release)
        bundle, route = table.standby.get(key), table.routes.get((project, name))
        if bundle is None or route is None or self.residence is None:
            return self.plan(project, service, release)
        return await self.residence.plan(key, bundle, route, table.size)

    def listing(self, project: str) -> list[dict[str, str]]:
        """Return the releases of a project's models, one entry each, with state and reason."""
        table = self.table
        found = [
            {"name": service, "version": release, "state": "READY", "reason": ""}
            for owner, service, release in sorted(table.pinned)
            if owner == project
        ]
        missing = table.unserved.difference(table.applications.unserved)
        here = frozenset[Key]() if self.residence is None else self.residence.releases
        found += [
            {"name": service, "version": release, "state": "READY", "reason": ""}
            if (owner, service, release) in here
            else {"name": service, "version": release, "state": "UNAVAILABLE", "reason": "loaded when asked for"}
            for owner, service, release in sorted(table.standby)
            if owner == project
        ]
        return found + [
            {"name": service, "version": "", "state": "UNAVAILABLE", "reason": "no release could be loaded"}
            for owner, service in sorted(missing)
            if owner == project
        ]

    def classes(self, project: str, service: str) -> tuple[str, ...]:
        """Return the classes that a service tells apart, none if it answers with a number or is not served now."""
        plan = self.table.plans.get((project, service))
        return () if plan is None else plan.bundle.classes

    def predicts_event(self, project: str, service: str) -> bool:
        """Tell whether a service surely answers with the chance of an event, so that its labels are 0 or 1."""
        plan = self.table.plans.get((project, service))
        return plan is not None and plan.bundle.event

    def only(self, project: str) -> str:
        """Return the name of the one model that a project serves; raise InvalidInput if it is not one."""
        table = self.table
        names = sorted(
            service
            for owner, service in table.unserved.union(table.plans).difference(table.applications.unserved)
            if owner == project and "@" not in service
        )
        if len(names) == 1:
            return names[0]
        if not names:
            raise NotFound("This project serves no model.", mend="Look at the deployment with `holdtrue status`.")
        raise InvalidInput(
            "Which service is meant?",
            why=f"The project serves {len(names)} models: {', '.join(names[:10])}.",
            mend="Name it at the end of the path, or in the header “X-Holdtrue-Service: NAME”.",
        )

    def predict(
        self,
        plan: Plan,
        columns: Columns,
        rows: int,
        request_id: str | None,
        started: float,
        *,
        explain: bool = False,
        key: bytes | None = None,
    ) -> Awaitable[Answer]:
        """Answer `rows` rows and record the answers; `started` is the stopwatch at the request's arrival.

        Under the same `key` the same rows are the same predictions, so that a retry leaves no second record.
        With `explain`, the answer says what each feature contributed, or NotExplained is raised. Raises
        ContractBroken, NoAnswer if the model fails without a fallback, and in strict mode the journal's errors.
        """
        if plan.rival is not None or explain or key is not None:
            return self._closely(plan, columns, rows, request_id, started, explain=explain, key=key)
        future: asyncio.Future[Answer] = self._batches.loop().create_future()
        self.join(plan, columns, rows, request_id, started, future)
        return future

    def join(
        self, plan: Plan, columns: Columns, rows: int, request_id: str | None, started: float, awaited: Awaited
    ) -> None:
        """Let `awaited` be told of what `predict` answers; a plan with a rival is none for this."""
        columns = self._taken(plan, columns)
        check_contract(plan, columns)
        self._batches.join(plan, _waiting(plan, columns, rows, request_id, started, awaited))

    def _taken(self, plan: Plan, columns: Columns) -> Columns:
        """Count a request against its service's rate, and return its columns with moments as times."""
        route = plan.route
        if route.rate:
            self.rate(f"service/{route.project}/{route.name}", route.rate, f"The service {route.service}")
        if not plan.moments:
            return columns
        return {**columns, **{name: read_times(name, columns[name]) for name in plan.moments}}

    async def _closely(
        self,
        plan: Plan,
        columns: Columns,
        rows: int,
        request_id: str | None,
        started: float,
        *,
        explain: bool,
        key: bytes | None,
    ) -> Answer:
        columns = self._taken(plan, columns)
        if plan.rival is None:
            check_contract(plan, columns)
        else:
            plan = await self._admitted(plan, plan.rival, columns, rows, request_id)
        future: asyncio.Future[Answer] = self._batches.loop().create_future()
        waiting = _waiting(plan, columns, rows, request_id, started, future)
        if key is not None:
            waiting.ids = repeated_ids(f"{plan.route.project}/{plan.route.name}", key, columns, rows)
        if explain:
            return await self._explained(plan, waiting, future)
        self._batches.join(plan, waiting)
        return await future

    async def _admitted(self, plan: Plan, rival: Check, columns: Columns, rows: int, request_id: str | None) -> Plan:
        """Hold a request to both contracts of a rollout, and record what one of them refuses.

        Returns the plan that answers: without the challenger if its contract refuses the request. Raises
        ContractBroken if the champion's does.
        """
        broken: ContractBroken | None = None
        try:
            check_contract(plan, columns)
        except ContractBroken as error:
            broken = error
        refused = refuses(rival, columns)
        if broken is None and not refused:
            return plan
        route, now_us = plan.route, self.now_us()
        (name,) = self._batches.ids.take(1, now_us)
        record = refusal_columns(route, now_us, name, request_id, rows, champion=broken is not None, challenger=refused)
        if self._strict:
            await self._records.append_async(REFUSAL, route.project, route.name, record, 1)
        else:
            try:
                self._records.append(REFUSAL, route.project, route.name, record, 1)
            except (HoldtrueError, OSError):
                self._batches.dropped += 1
        if broken is not None:
            raise broken
        return plan.alone or plan

    async def _explained(self, plan: Plan, waiting: Waiting, future: "asyncio.Future[Answer]") -> Answer:
        """Answer one request by itself, and say what made its scores what they are."""
        self._explaining.check(plan, waiting.rows)
        waiting.results = []
        self._batches.alone(plan, waiting)
        answer = await future
        answer.contributions = await self._explaining.explain(plan, waiting.results, waiting.rows)
        return answer


def _waiting(
    plan: Plan, columns: Columns, rows: int, request_id: str | None, started: float, awaited: Awaited
) -> Waiting:
    name = plan.bundle.prediction_time
    times = None if name is None else read_times(name, columns[name])
    return Waiting(columns, rows, times, request_id, started, awaited)


def check_contract(plan: Plan, columns: Columns) -> None:
    """Raise ContractBroken if the columns of a request break a rule of its service that does more than warn."""
    if plan.check is None:
        return
    for finding in plan.check(columns):
        # A row that training would have set aside is outside of what the model knows.
        if finding.severity != "warn":
            raise ContractBroken(
                finding.what,
                why=f"Among them: {', '.join(finding.examples)[:200]}." if finding.examples else "",
                mend=finding.mend,
                facts={"column": finding.column, "rule": finding.rule},
            )
