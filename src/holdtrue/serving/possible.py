"""Which outcomes an answer leaves possible, by the prediction sets of the release that gave it."""

from holdtrue.core.errors import InvalidInput
from holdtrue.serving.engine import Answer
from holdtrue.serving.plan import Plan


class NoSets(InvalidInput):
    """A release has no prediction sets."""

    code = "no_prediction_sets"


def check_sets(plan: Plan) -> None:
    """Raise NoSets if a release that may answer has none."""
    for arm in plan.route.arms:
        loaded = plan.loaded.get(arm.release)
        if loaded is not None and loaded.bundle.sets is None:
            raise NoSets(
                f"The release {arm.release} has no prediction sets.",
                why="They are made of held-out rows when a model is trained, and need enough of each outcome.",
                mend="Make a release with `holdtrue run`; see `confidence` of project.evaluation(…).",
            )


def possible(plan: Plan, answer: Answer) -> list[list[int] | None]:
    """Return the outcomes that each row's score leaves possible, None for a row that no model answered."""
    found: list[list[int] | None] = []
    for row, score in enumerate(answer.scores):
        loaded = plan.loaded.get(answer.releases[row])
        fell = answer.fallback is not None and answer.fallback[row]
        found.append(None if loaded is None or loaded.bundle.sets is None or fell else loaded.bundle.sets.of(score))
    return found
