from hypothesis import given
from hypothesis import strategies as st

from holdtrue.serving import Arm
from holdtrue.serving.rules import chooser

ENTITIES = [f"flight-{number}" for number in range(4000)]


def arms(share: float) -> tuple[Arm, ...]:
    return (Arm("champion", "a", 100 - share), Arm("canary", "b", share))


@given(st.lists(st.one_of(st.text(), st.integers()), min_size=1), st.floats(0, 100), st.text(max_size=20))
def test_the_same_entity_gets_the_same_arm(entities: list[str | int], share: float, seed: str) -> None:
    choose = chooser(arms(share), seed)
    together = choose(entities)
    assert together == [chooser(arms(share), seed)([entity])[0] for entity in entities]
    assert set(together) <= {0, 1}


@given(st.floats(0, 100), st.floats(0, 100))
def test_nobody_leaves_the_last_arm_when_its_share_grows(one: float, other: float) -> None:
    low, high = sorted((one, other))
    few, many = chooser(arms(low), "s")(ENTITIES[:300]), chooser(arms(high), "s")(ENTITIES[:300])
    assert all(after == 1 for before, after in zip(few, many, strict=True) if before == 1)


def test_arms_get_their_shares() -> None:
    for share in (5.0, 25.0, 50.0):
        chosen = chooser(arms(share), "seed")(ENTITIES)
        # Five standard deviations of a binomial share.
        assert abs(sum(chosen) / len(chosen) - share / 100) < 5 * (0.25 / len(chosen)) ** 0.5
    three = (Arm("a", "a", 20.0), Arm("b", "b", 0.0), Arm("c", "c", 80.0))
    assert set(chooser(three, "seed")(ENTITIES)) == {0, 2}


def test_two_seeds_choose_independently() -> None:
    first, second = chooser(arms(50.0), "rollout-1")(ENTITIES), chooser(arms(50.0), "rollout-2")(ENTITIES)
    both = sum(a and b for a, b in zip(first, second, strict=True)) / len(ENTITIES)
    assert abs(both - 0.25) < 5 * (0.1875 / len(ENTITIES)) ** 0.5


def test_a_number_and_its_text_are_two_entities() -> None:
    choose = chooser(arms(50.0), "seed")
    numbers = list(range(200))
    assert choose(numbers) != choose([str(number) for number in numbers])
