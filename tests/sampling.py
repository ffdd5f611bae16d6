"""How many examples a property is tried on: few where the long tests are left out."""

from hypothesis import settings


def examples(count: int) -> int:
    """Return `count` for the long run, a third of it for the short one."""
    return max(10, count // 3) if settings.get_current_profile_name() == "sampled" else count
