"""The other ways to let a release in, beside the canary: each is a plan with the settings that make it one."""

from typing import Literal

from holdtrue.delivery.model import Canary


def Shadow(  # written like Canary in a project file
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
    min_rows: int = 200,
    patience_days: float = 28.0,
    groups: tuple[str, ...] = (),
    group_measure: Literal["error", "positive"] = "error",
    group_margin: float = 0.05,
    groups_needed: bool = False,
    decision_at: float = 0.5,
    scale: float = 0.0,
) -> Canary:
    """Plan to let a release score every row and answer none; it ends with what was shown, and changes nothing.

    It ends when the release is shown to be at most `margin` worse (mean Brier score) or surely worse, or with patience;
    also for a group, as a canary does (`groups` and what belongs to it; `scale` is for models of a number).
    """
    return Canary(
        steps=(0.0,),
        margin=margin,
        alpha=alpha,
        min_rows_per_step=min_rows,
        patience_days=patience_days,
        strategy="shadow",
        groups=groups,
        group_measure=group_measure,
        group_margin=group_margin,
        groups_needed=groups_needed,
        decision_at=decision_at,
        scale=scale,
    )


def BlueGreen(  # written like Canary in a project file
    *,
    margin: float = 0.01,
    alpha: float = 0.05,
    min_rows: int = 200,
    patience_days: float = 28.0,
    groups: tuple[str, ...] = (),
    group_measure: Literal["error", "positive"] = "error",
    group_margin: float = 0.05,
    groups_needed: bool = False,
    decision_at: float = 0.5,
    scale: float = 0.0,
) -> Canary:
    """Plan to switch all answers at once, after the release has scored rows unanswered and was shown to be good enough.

    Nobody gets two releases in turn; `holdtrue rollback` switches back. Groups are judged as a canary's are.
    """
    return Canary(
        steps=(0.0,),
        margin=margin,
        alpha=alpha,
        min_rows_per_step=min_rows,
        patience_days=patience_days,
        strategy="blue_green",
        groups=groups,
        group_measure=group_measure,
        group_margin=group_margin,
        groups_needed=groups_needed,
        decision_at=decision_at,
        scale=scale,
    )


def ABTest(  # written like Canary in a project file
    metric: str,
    *,
    share: float = 50.0,
    margin: float = 0.0,
    worth: float = 0.01,
    alpha: float = 0.05,
    min_answers: int = 100,
    patience_days: float = 56.0,
    fallback_margin: float = 0.02,
    latency_limit_seconds: float = 0.0,
    latency_margin: float = 0.1,
    groups: tuple[str, ...] = (),
    group_margin: float = 0.05,
) -> Canary:
    """Plan a test of two releases on a business metric that comes with POST /feedback under a name; more is better.

    It may be looked at at any time. The release is promoted when it is shown to be better (or at most `margin` worse),
    rolled back when it is worse, and stopped when no difference as large as `worth` is left. Values are taken as a
    share of the range that the feedback states. It is rolled back, too, where the feedback of a group, the rows with
    one value of an input in `groups`, is surely worse by more than `group_margin`.
    """
    return Canary(
        steps=(share,),
        margin=margin,
        metric="feedback",
        alpha=alpha,
        min_rows_per_step=min_answers,
        patience_days=patience_days,
        fallback_margin=fallback_margin,
        latency_limit_seconds=latency_limit_seconds,
        latency_margin=latency_margin,
        shadow=False,
        strategy="ab",
        feedback_name=metric,
        groups=groups,
        group_margin=group_margin,
        worth=worth,
    )


def Bandit(  # written like Canary in a project file
    metric: str,
    *,
    floor: float = 10.0,
    move_hours: float = 24.0,
    worth: float = 0.01,
    alpha: float = 0.05,
    min_answers: int = 100,
    patience_days: float = 56.0,
    fallback_margin: float = 0.02,
    latency_limit_seconds: float = 0.0,
    latency_margin: float = 0.1,
    groups: tuple[str, ...] = (),
    group_margin: float = 0.05,
) -> Canary:
    """Plan to give the release that seems better more of the answers, on a business metric as in ABTest.

    The challenger's share is the probability that it is the better one (Thompson 1933), moved every `move_hours`;
    neither gets less than `floor` percent, so that both go on to be measured. It ends by the rules of ABTest.
    """
    return Canary(
        steps=(50.0,),
        margin=0.0,
        metric="feedback",
        alpha=alpha,
        min_rows_per_step=min_answers,
        patience_days=patience_days,
        fallback_margin=fallback_margin,
        latency_limit_seconds=latency_limit_seconds,
        latency_margin=latency_margin,
        shadow=False,
        strategy="bandit",
        feedback_name=metric,
        groups=groups,
        group_margin=group_margin,
        worth=worth,
        floor=floor,
        move_hours=move_hours,
    )
