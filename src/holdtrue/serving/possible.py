"""What an answer says in words, and which outcomes it leaves possible by the prediction sets of its release."""

from typing import Any

from holdtrue.core.errors import InvalidInput
from holdtrue.serving.engine import Answer
from holdtrue.serving.plan import Plan
from holdtrue.serving.snapshot import Bundle


class NoSets(InvalidInput):
    """A release has no prediction sets."""

    code = "no_prediction_sets"


def check_sets(plan: Plan) -> None:
    """Raise NoSets if a release that may answer has none."""
    for arm in plan.route.arms:
        loaded = plan.loaded.get(arm.release)
        if loaded is not None and not _has_sets(loaded.bundle):
            raise NoSets(
                f"The release {arm.release} has no prediction sets.",
                why="They are made of held-out rows when a model is trained, and need enough of each outcome.",
                mend="Make a release with `holdtrue run`; see `confidence` of project.evaluation(…).",
            )


def _has_sets(bundle: Bundle) -> bool:
    return any(each is not None for each in (bundle.sets, bundle.class_sets, bundle.ranges))


def said(bundle: Bundle, answer: Answer) -> list[Any]:
    """Return what each row is answered: its score, or of several classes the name of one."""
    return [bundle.classes[int(score)] for score in answer.scores] if bundle.classes else answer.scores


def possible(plan: Plan, answer: Answer) -> list[list[Any] | None]:
    """Return the outcomes that each row's score leaves possible, None for a row that no model answered.

    They are 0 and 1, or the names of classes; of a number the least and the largest that is possible.
    """
    found: list[list[Any] | None] = []
    for row in range(len(answer.scores)):
        loaded = plan.loaded.get(answer.releases[row])
        fell = answer.fallback is not None and answer.fallback[row]
        found.append(None if loaded is None or fell else _possible(loaded.bundle, answer, row))
    return found


def _possible(bundle: Bundle, answer: Answer, row: int) -> list[Any] | None:
    if bundle.class_sets is not None and answer.chances is not None:
        chances = answer.chances[row]
        return None if chances is None else [bundle.classes[place] for place in bundle.class_sets.of(chances)]
    sets = bundle.sets or bundle.ranges
    return None if sets is None else sets.of(answer.scores[row])
