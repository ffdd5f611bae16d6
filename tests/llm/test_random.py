"""Identifiers of spans: of the asked length, never twice, across the blocks in which they are drawn."""

from holdtrue.core.randomness import RandomHex


def test_digits_never_come_twice() -> None:
    random = RandomHex()
    found = [random.take(16 if number % 3 else 32) for number in range(3000)]
    assert len(set(found)) == 3000
    assert {len(each) for each in found} == {16, 32}
    assert all(int(each, 16) >= 0 for each in found)
    joined = "".join(found)
    # Each digit is as probable as another: 64,000 of them leave none outside 3,700 to 4,300 (five deviations).
    assert all(3_700 < joined.count(digit) < 4_300 for digit in "0123456789abcdef")
    assert len(random.take(4096)) == 4096
