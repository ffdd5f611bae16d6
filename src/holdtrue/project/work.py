"""What a worker does with a job: take a delivery in, train a challenger, replay answers, fill feature views."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, HoldtrueError, InvalidInput, NotFound
from holdtrue.core.jobs import JobKind
from holdtrue.data.contract import Contract
from holdtrue.features import FeatureSet
from holdtrue.pipelines import Pipeline, StepDone
from holdtrue.project.definitions import Project
from holdtrue.project.loading import load_project
from holdtrue.project.training import Champion, Request, train
from holdtrue.storage import ActionCache, BlobStore

if TYPE_CHECKING:
    # What makes applications brings libraries of an extra; models need none of them.
    from holdtrue.llm.model import Complete
    from holdtrue.project.applications import Application
    from holdtrue.project.assembling import Standing
    from holdtrue.serving import LoadTest


_REPLAYED = 10_000


class Api(Protocol):
    """Speak to the control plane."""

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a GET."""
        ...

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Return the JSON of a POST; `key` makes it idempotent."""
        ...


def execute(
    job: Mapping[str, Any], *, client: Api, home: Path, file: Path | None, loading: Lock, online: str = ""
) -> dict[str, Any]:
    """Run a leased job with the definitions in the project file; return its result.

    The file is run under the lock `loading`; `online` is the address of the server of online features.
    """
    if file is None and job["kind"] == JobKind.FILL:
        # Data planes take events all the same; only the functions in the file tell rows of accepted windows.
        return {"taken": [], "left_out": [], "why": "This worker has no project file."}
    if file is None:
        raise ConfigurationError(
            "This worker has no project file, so it cannot run jobs.",
            why="Data and models are read and fitted by the functions in that file.",
            mend="Start it with one: holdtrue up --file project.py",
        )
    with loading:
        project = load_project(file)
    if project.name != job["project"]:
        raise ConfigurationError(
            f"The project file defines “{project.name}”, and the job belongs to “{job['project']}”.",
            mend="Start the worker with that project's file.",
        )
    workshop = Workshop(project, home, client, online=online)
    return workshop.execute(job["kind"], job["payload"], job["requested_by"], job["id"])


class Workshop:
    """Run jobs of one project against a home's blobs and step cache; never opens the ledger."""

    def __init__(
        self,
        project: Project,
        home: Path,
        api: Api,
        on_step: Callable[[StepDone], None] = lambda _: None,
        *,
        online: str = "",
    ) -> None:
        self.project = project
        self._online = online
        self._api = api
        self._blobs = BlobStore(home / "blobs")
        self._actions = ActionCache(home / "actions")
        self._on_step = on_step
        self._home = home
        self._base = f"/api/projects/{project.name}"

    def execute(self, kind: str, payload: Mapping[str, Any], author: str, job: str = "") -> dict[str, Any]:
        """Do one job and return its result, small enough to be kept with it."""
        if kind == JobKind.INGEST:
            return self.ingest(payload["dataset"], payload["window"], job)
        if kind in (JobKind.TRAIN, JobKind.RETRAIN):
            return self.train(payload, author, job)
        if kind == JobKind.REPLAY:
            return self.replay(payload["service"])
        if kind == JobKind.FILL:
            from holdtrue.project.filling import fill

            return fill(self.project, self._home, self._api, payload, online=self._online)
        raise InvalidInput(f"This worker does not know jobs of the kind “{kind}”.", mend="Update the worker.")

    def ingest(self, name: str, window: str, job: str = "") -> dict[str, Any]:
        """Read a window, check it against its contract, and report what was found."""
        dataset = self.project.datasets.get(name)
        if dataset is None:
            raise NotFound.of("dataset", name)
        data.check_window(name, window)
        try:
            table = dataset.read(window)
        except HoldtrueError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"The window {window} of “{name}” cannot be read: {type(error).__name__}: {error}",
                why="The dataset's own function raised this.",
                mend="See that the delivery is there and can be read, then take it in again.",
            ) from error
        around = data.look_around(
            dataset.spec, window, SystemClock().now(), (self._blobs, self._actions), self._fragments
        )
        result = data.ingest(self._blobs, dataset.spec, window, table, around)
        if result.digest is not None:
            data.fragment_profile(self._blobs, self._actions, result.digest)
        answer = self._api.post(
            f"{self._base}/datasets/{name}/deliveries", dump(result), key=f"{job}-{window}" if job else None
        )
        return {
            "dataset": name,
            "window": window,
            "version": answer["version"],
            "rows": answer["accepted"],
            "quarantined": answer["quarantined"],
            "erased": answer["erased"],
            "findings": [dump(each) for each in result.findings],
        }

    def _fragments(self, name: str) -> Mapping[str, Any]:
        return self._api.get(f"{self._base}/datasets/{name}")["fragments"]

    def train(self, payload: Mapping[str, Any], author: str, job: str = "") -> dict[str, Any]:
        """Train a challenger, submit it as a release with its evidence, and return the decision."""
        model = self.project.models.get(payload["model"])
        if model is None:
            raise NotFound.of("model", payload["model"])
        names = {model.dataset.spec.name} | {
            self.project.sources[view.source].dataset.spec.name for view in model.views
        }
        shown = {name: self._api.get(f"{self._base}/datasets/{name}") for name in sorted(names)}
        fragments = {name: each["fragments"] for name, each in shown.items()}
        request = Request(
            model=model,
            windows=_windows(payload.get("windows"), sorted(fragments[model.dataset.spec.name])),
            fragments=fragments,
            dataset_versions={name: each["version"] for name, each in shown.items()},
            champion=self._champion(model.name),
            author=author,
        )
        pipeline = self._pipeline()
        made = train(self.project, pipeline, request)
        tested = self._tested(pipeline, model.name, made, fragments[model.dataset.spec.name])
        evidence = [*made["evidence"], *tested]
        submission = {**made, "evidence": evidence, "run": job or None, "trigger": payload.get("trigger")}
        made = self._api.post(f"{self._base}/submissions", submission, key=f"{job}-release" if job else None)
        return {
            "release": made["release"],
            "decision": made["decision"],
            "steps": _steps(pipeline),
        }

    def _tested(
        self, pipeline: Pipeline, model: str, submission: Mapping[str, Any], fragments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the evidence of the load test that a release of a model has to go through, if there is one."""
        from holdtrue.project.performance import PERFORMANCE, Trial, load_test_of, performance, pinned_of, read_pinned

        plan = load_test_of(self.project, model)
        if plan is None:
            return []
        mine = pinned_of(submission)
        deployed = self._deployed(mine.service)
        live = None if deployed is None else read_pinned(self._api.get, self._base, deployed)
        rows = fragments[max(fragments)]["digest"]
        content = performance(self.project, pipeline, Trial(plan, mine, live, rows, self._home))
        return [{"kind": PERFORMANCE, "content": content}]

    def load_test(self, release: str, plan: "LoadTest", against: str | None = None) -> dict[str, Any]:
        """Put a release under load beside another one (default: that in production), and return what was measured."""
        from holdtrue.project.performance import Trial, measured, read_pinned

        mine = read_pinned(self._api.get, self._base, release)
        serving = self.project.services.get(mine.service)
        if serving is None:
            raise NotFound.of("service", mine.service)
        deployed = self._deployed(mine.service)
        other = against or (deployed if deployed != release else None)
        live = None if other is None else read_pinned(self._api.get, self._base, other)
        rows = self._dataset(serving.model.dataset.spec.name)["fragments"]
        trial = Trial(plan, mine, live, rows[max(rows)]["digest"], self._home)
        return measured(self.project, self._pipeline(), trial)

    def replay(self, service: str) -> dict[str, Any]:
        """Compute the features of recorded answers again; return a report for each release, or why there is none."""
        from holdtrue.project.replaying import replay_service

        try:
            return {"reports": replay_service(self.project, service, self._home, self._api, most=_REPLAYED)}
        except (NotFound, InvalidInput) as error:
            # Nothing answered, or no window accepted yet: the next replay will find more.
            return {"reports": [], "why": f"{error.what} {error.why}".strip()}

    def assemble(self, name: str, author: str, complete: "Complete", *, repeats: int = 1) -> dict[str, Any]:
        """Make a release of an application with its evidence, submit it, and return the decision."""
        from holdtrue.project.assembling import Making, assemble

        pipeline = self._pipeline()
        making = Making(self._application(name), complete, self._standing(name), author, repeats)
        submission, indexed = assemble(self.project, pipeline, making)
        made = self._api.post(f"{self._base}/submissions", submission)
        return {
            "release": made["release"],
            "decision": made["decision"],
            "evidence": {each["kind"]: each["content"] for each in submission["evidence"]},
            "index": indexed,
            "steps": _steps(pipeline),
        }

    def evaluate(self, name: str, complete: "Complete", *, repeats: int = 1) -> dict[str, Any]:
        """Put an application's test set to its files as they are, and return what came of it; nothing is submitted."""
        from holdtrue.project.assembling import Making, evaluate

        making = Making(self._application(name), complete, self._standing(name), "", repeats)
        return evaluate(self.project, self._pipeline(), making)

    def index(self, name: str, queries: Sequence[str] = (), k: int | None = None) -> dict[str, Any]:
        """Build an application's index; return what it holds, how it differs from the live one, and what it finds."""
        from holdtrue.core.ids import version_id
        from holdtrue.llm.retrieval import diff_indexes, open_index, show_index
        from holdtrue.project.assembling import make_index

        application, standing = self._application(name), self._standing(name)
        built = make_index(self.project, self._pipeline(), application, standing)
        before = None if standing is None else standing.contents.get("index")
        opened = open_index(self._blobs, built.content) if queries else None
        return {
            "version": version_id("index", built.content),
            "summary": dict(built.summary),
            "index": show_index(self._blobs, built.content),
            "against": None if before is None else {**diff_indexes(self._blobs, before, built.content)},
            "found": [
                {"query": query, "passages": [dump(hit) for hit in opened.search(query, k)]}
                for query in queries
                if opened is not None
            ],
        }

    def _pipeline(self) -> Pipeline:
        return Pipeline(self._blobs, self._actions, SystemClock(), on_step=self._on_step)

    def _application(self, name: str) -> "Application":
        found = self.project.applications.get(name)
        if found is None:
            raise NotFound(
                f"There is no application “{name}” in the project file.",
                why=f"Its applications: {', '.join(self.project.applications) or 'none'}.",
                mend="Name one of them.",
            )
        return found

    def score(self, name: str, dataset: str, out: Path, release: str | None = None) -> dict[str, Any]:
        """Score a dataset (`name`, or `name@` its number or version id) with a service's or model's release.

        Without `release` it is the one that answers in production now. Returns what was scored.
        """
        from holdtrue.project.scoring import Scoring, score_dataset

        serving = self.project.services.get(name) or self.project.serving(name)
        if serving is None:
            raise NotFound.of("service", name)
        chosen = release or self._deployed(serving.spec.name)
        if chosen is None:
            raise NotFound(
                f"No release of “{serving.spec.name}” answers in production.",
                mend="Name one with --release; `holdtrue releases` lists them.",
            )
        found = self._api.get(f"{self._base}/releases/{chosen}")
        manifest = found["manifest"]
        if "model" not in manifest["versions"] or found["service"] != serving.spec.name:
            raise InvalidInput(
                f"The release {chosen} is none of “{serving.spec.name}”.", mend="Name one of its releases."
            )
        content = {
            role: self._api.get(f"{self._base}/versions/{manifest['versions'][role]}")["content"]
            for role in ("model", "features", "contract")
            if role in manifest["versions"]
        }
        features = FeatureSet.from_json(content["features"])
        rows = self._dataset(dataset)
        needed = {self.project.sources[each.source].dataset.spec.name for each in features.views}
        fragments = {each: self._api.get(f"{self._base}/datasets/{each}")["fragments"] for each in sorted(needed)}
        asked = Scoring(
            release=chosen,
            model=content["model"]["digest"],
            format=content["model"]["format"],
            features=features,
            contract=load(Contract, content["contract"], "The request contract") if "contract" in content else None,
            dataset=rows["name"],
            version=rows["version"],
            key=rows["key"],
            time=manifest["config"].get("prediction_time") or rows["time"],
            fragments={**fragments, rows["name"]: rows["fragments"]},
            classes=tuple(content["model"].get("classes", ())),
        )
        pipeline = self._pipeline()
        scores = score_dataset(self.project, pipeline, asked, out)
        return {**dump(scores), "release": chosen, "dataset": rows["name"], "version": rows["version"], "out": str(out)}

    def _dataset(self, text: str) -> dict[str, Any]:
        """Return a dataset as it is shown, of the version that `text` names after an @, else of its newest."""
        name, mark, wanted = text.partition("@")
        shown = self._api.get(f"{self._base}/datasets/{name}")
        if mark:
            version = _version(self._api, self._base, name, wanted)
            shown = {**shown, "version": version["id"], "fragments": version["content"]["fragments"]}
        if not shown["fragments"]:
            raise NotFound(
                f"The dataset “{name}” has no accepted data.",
                mend=f"Take data in first: holdtrue run --ingest {name} --window YYYY-MM",
            )
        return shown

    def _standing(self, service: str) -> "Standing | None":
        """Return the release of an application that answers in production now, with all that it pins."""
        from holdtrue.project.assembling import Standing

        release = self._deployed(service)
        if release is None:
            return None
        manifest = self._api.get(f"{self._base}/releases/{release}")["manifest"]
        roles = {role: name for role, name in manifest["versions"].items() if role != "policy"}
        contents = {role: self._api.get(f"{self._base}/versions/{name}")["content"] for role, name in roles.items()}
        return Standing(release, contents, roles, manifest["config"])

    def _deployed(self, service: str) -> str | None:
        try:
            deployed = self._api.get(f"{self._base}/services/{service}")["deployments"]
        except NotFound:
            # Not applied yet: an evaluation or an index is asked for before that.
            return None
        return next((each["release"] for each in deployed if each["environment"] == "production"), None)

    def _champion(self, model: str) -> Champion | None:
        serving = self.project.serving(model)
        if serving is None:
            return None
        release = self._deployed(serving.spec.name)
        if release is None:
            return None
        manifest = self._api.get(f"{self._base}/releases/{release}")["manifest"]
        versions = manifest["versions"]
        content = self._api.get(f"{self._base}/versions/{versions['model']}")["content"]
        features = self._api.get(f"{self._base}/versions/{versions['features']}")["content"]
        return Champion(release, content["digest"], FeatureSet.from_json(features), content["format"])


def _version(api: Api, base: str, name: str, wanted: str) -> dict[str, Any]:
    """Return the version of a dataset that has an id, or a number."""
    after: str | None = None
    while True:
        page = api.get(f"{base}/versions", kind="dataset", name=name, after=after)
        for each in page["items"]:
            if wanted in (each["id"], str(each["number"])):
                return each
        after = page["next"]
        if after is None:
            raise NotFound.of("dataset", f"{name}@{wanted}"[:80])


def _steps(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [{"name": each.name, "cached": each.cached, "seconds": round(each.seconds, 3)} for each in pipeline.done]


def _windows(wanted: Any, accepted: list[str]) -> tuple[str, ...]:
    """Return the accepted windows that are wanted: all, the last n (“last:2”), or those named."""
    if wanted in (None, "all"):
        return tuple(accepted)
    if isinstance(wanted, str) and wanted.startswith("last:"):
        return tuple(accepted[-int(wanted.removeprefix("last:")) :])
    missing = [each for each in wanted if each not in accepted]
    if missing:
        raise NotFound(
            f"The window {missing[0]} has not been accepted.",
            why=f"Accepted windows: {', '.join(accepted) or 'none'}.",
            mend="Take it in first, or mend its quarantined delivery.",
        )
    return tuple(wanted)
