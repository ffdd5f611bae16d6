"""Check digits against examples that the issuing bodies publish, and against what a checksum must catch."""

import zlib
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.llm.guardrails.detectors import checks
from holdtrue.llm.guardrails.samples import FORMS, luhn_digit

PUBLISHED: list[tuple[Callable[[str], bool], str]] = [
    (checks.iban, "DE89370400440532013000"),
    (checks.iban, "GB82WEST12345698765432"),
    (checks.iban, "FR1420041010050500013M02606"),
    (checks.iban, "NO9386011117947"),
    (checks.iban, "MT84MALT011000012345MTLCAST001S"),
    (checks.card, "4111111111111111"),
    (checks.card, "378282246310005"),
    (checks.card, "5555555555554444"),
    (checks.card, "2223003122003222"),
    (checks.card, "6011111111111117"),
    (checks.card, "30569309025904"),
    (checks.card, "3530111333300000"),
    (checks.us_ssn, "219099999"),
    (checks.uk_nino, "AB123456C"),
    (checks.uk_nhs, "9434765919"),
    (checks.de_tax_id, "86095742719"),
    (checks.de_tax_id, "47036892816"),
    (checks.fr_nir, "255081416802538"),
    (checks.es_dni, "12345678Z"),
    (checks.es_dni, "X1234567L"),
    (checks.it_fiscal_code, "RSSMRA85T10A562S"),
    (checks.nl_bsn, "111222333"),
    (checks.pl_pesel, "44051401359"),
    (checks.se_personnummer, "8112189876"),
    (checks.fi_hetu, "131052-308T"),
    (checks.br_cpf, "11144477735"),
    (checks.be_national, "85073003328"),
]


@pytest.mark.parametrize(("check", "number"), PUBLISHED)
def test_a_published_example_is_right_and_each_changed_digit_of_it_wrong(
    check: Callable[[str], bool], number: str
) -> None:
    assert check(number)
    if check in (checks.us_ssn, checks.uk_nino):
        return  # these have no check digit, only ranges
    for place, sign in enumerate(number):
        if sign.isdigit():
            others = [number[:place] + str(digit) + number[place + 1 :] for digit in range(10) if str(digit) != sign]
            assert not any(check(other) for other in others if _wholly_checked(check, place)), place


def _wholly_checked(check: Callable[[str], bool], place: int) -> bool:
    """Tell whether a changed digit at this place is always caught; a Belgian key may fit the other century."""
    return check is not checks.be_national


@pytest.mark.parametrize(
    ("check", "number"),
    [
        (checks.iban, "DE8937040044053201300"),
        (checks.iban, "XX89370400440532013000"),
        (checks.card, "4444444444444444"),
        (checks.card, "9111111111111111"),
        (checks.us_ssn, "666121234"),
        (checks.us_ssn, "900121234"),
        (checks.us_ssn, "123001234"),
        (checks.us_ssn, "123450000"),
        (checks.uk_nino, "BG123456A"),
        (checks.uk_nino, "QQ123456C"),
        (checks.uk_nhs, "0000000000"),
        (checks.de_tax_id, "06095742719"),
        (checks.de_tax_id, "12345678903"),
        (checks.nl_bsn, "000000000"),
        (checks.pl_pesel, "44991401350"),
        (checks.br_cpf, "11111111111"),
    ],
)
def test_what_only_looks_right_is_refused(check: Callable[[str], bool], number: str) -> None:
    assert not check(number)


@given(st.text("0123456789", min_size=1, max_size=18))
def test_luhn_forwards_and_backwards_agree(digits: str) -> None:
    assert checks.luhn(digits + luhn_digit(digits))
    assert sum(checks.luhn(digits + str(last)) for last in range(10)) == 1


@pytest.mark.parametrize("form", [name for name in FORMS if hasattr(checks, name)])
def test_generated_numbers_pass_the_check_that_was_written_apart(form: str) -> None:
    check = getattr(checks, form)
    for seed in range(200):
        value = FORMS[form](Random(seed))
        number = value if form == "fi_hetu" else "".join(sign for sign in value if sign.isalnum())
        assert check(number), (form, seed)


def test_the_checksum_of_tokens_is_crc_32_in_base_62() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = "some body of a token"
    number = 0
    for sign in checks.crc62(text):
        number = number * 62 + digits.index(sign)
    assert number == zlib.crc32(text.encode())
