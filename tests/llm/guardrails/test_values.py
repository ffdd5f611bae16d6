"""Secrets and personal data: every form is found exactly, and what only looks like one is not."""

from random import Random

import pytest

from holdtrue.llm.guardrails import Guardrails, Verdict
from holdtrue.llm.guardrails.detectors import personal, secret
from holdtrue.llm.guardrails.rules import PERSONAL, SECRETS
from holdtrue.llm.guardrails.samples import FORMS
from holdtrue.llm.guardrails.test_sets import expand
from holdtrue.server.rules import make_token
from tests.llm.guardrails.support import guardrail

SECRET = guardrail({"kind": "secrets", "action": "mask"})
PERSON = guardrail({"kind": "personal_data", "action": "mask"})

# What has to stand before a number that nothing but its name makes one.
NAMES = {
    "aws_secret_key": "aws_secret_access_key=", "azure_storage_key": "AccountKey=", "connection_password": "://u:",
    "generic_secret": "password: ", "uk_nhs": "NHS ", "uk_nino": "NINO ", "de_tax_id": "Steuer-ID ", "nl_bsn": "BSN ",
    "pl_pesel": "PESEL ", "se_personnummer": "personnummer ",
}  # fmt: skip


def labels(verdict: Verdict) -> list[str]:
    return [finding.label for finding in verdict.findings]


def test_the_rules_name_exactly_what_the_detectors_know() -> None:
    assert secret.LABELS == SECRETS
    assert personal.LABELS == PERSONAL


@pytest.mark.parametrize("label", [*SECRETS, *(each for each in PERSONAL if each in FORMS)])
def test_each_form_is_found_exactly_where_it_stands(label: str) -> None:
    guardrails = SECRET if label in SECRETS else PERSON
    for seed in range(25):
        value = FORMS[label](Random(f"{label}{seed}"))
        before, after = f"see {NAMES.get(label, '')}", "@db/x" if label == "connection_password" else " and so on"
        verdict = guardrails.check_input(f"{before}{value}{after}")
        found = [(each.label, each.start, each.end) for each in verdict.findings]
        assert found == [(label, len(before), len(before) + len(value))], value


def test_a_real_token_of_this_system_is_found_and_a_mistyped_one_is_not() -> None:
    token = make_token("service", "0123456789ab", bytes(range(32)))
    assert labels(SECRET.check_input(f"use {token}")) == ["holdtrue_token"]
    assert labels(SECRET.check_input(f"use {token[:-1]}x")) == []


@pytest.mark.parametrize(
    "text",
    [
        "GITHUB_TOKEN=⟦!github_placeholder⟧",
        "commit ⟦!sha1⟧",
        "order ⟦!uuid⟧",
        "use ⟦!stripe_publishable⟧ in the browser",
        "⟦!certificate⟧",
        "⟦!public_key⟧",
        "password = getpass.getpass()",
        "password: ${DB_PASSWORD}",
        "token: {{ secrets.TOKEN }}",
        "the password is required",
        "postgres://user:password@localhost/db",
        "sk-loading-indicator-wrapper-primary",
        "eyJhbGciOiJub25lIn0.not-json.abcdefghijklmnopq",
        "Basic training starts on Monday, bearer bonds do not",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    ],
)
def test_what_only_looks_like_a_secret_is_left(text: str) -> None:
    assert SECRET.check_input(expand(text, "x")[0]).findings == ()


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:acme/shop.git",
        "scp file root@host.example:/tmp",
        "logo@2x.png",
        "version 1.2.3.4",
        "127.0.0.1 10.1.2.3 192.168.0.1 172.20.0.1 100.64.1.1 169.254.1.1 255.255.255.0",
        "::1 fe80::1 ff02::1 std::vector a::b",
        "12:34:56 00:1A:2B:3C:4D:5E",
        "⟦!card_bad⟧ ⟦!iban_bad⟧ ⟦!imei⟧",
        "BSN 123456789",
        "112223330 without its name",
        "000-12-3456 666-45-1234",
        "DNI 12345678A",
        "2024-05-17 14:30 to 2024-05-18 16:45",
    ],
)
def test_what_only_looks_personal_is_left(text: str) -> None:
    assert PERSON.check_input(expand(text, "x")[0]).findings == ()


def test_a_list_of_values_is_allowed_by_declaration() -> None:
    token = FORMS["gitlab_token"](Random(1))
    allowing = guardrail(
        {"kind": "secrets", "options": {"allow": [token]}},
        {"kind": "personal_data", "options": {"allow": ["@shop.example", "anna@firma.example", "+49 30 901820"]}},
    )
    text = f"{token} help@shop.example Anna@Firma.example bob@firma.example +49 30 901820"
    assert [text[each.start : each.end] for each in allowing.check_input(text).findings] == ["bob@firma.example"]


def test_only_the_kinds_asked_for_are_found() -> None:
    narrow = guardrail({"kind": "personal_data", "options": {"kinds": ["iban"]}})
    text = expand("⟦iban⟧ a@b.example ⟦credit_card⟧", "x")[0]
    assert labels(narrow.check_input(text)) == ["iban"]
    sure = guardrail({"kind": "secrets", "options": {"threshold": 0.95}})
    assert labels(sure.check_input("password: Sommer2019! ghp_" + "a1B2" * 9)) == []


def test_a_private_key_that_is_cut_off_is_masked_to_its_end() -> None:
    key = FORMS["private_key"](Random(3))
    verdict = SECRET.check_input(f"key:\n{key[:900]}")
    assert verdict.text == "key:\n[secret:private_key]"


def test_signs_that_grow_in_lower_case_do_not_shift_places() -> None:
    text = "İİİİ password: Sommer2019! İ"
    assert SECRET.check_input(text).text == "İİİİ password: [secret:generic_secret] İ"


def test_findings_never_hold_what_they_found(capsys: pytest.CaptureFixture[str]) -> None:
    def spoken(guardrails: Guardrails, text: str) -> str:
        return repr(guardrails.check_input(text).to_json())

    value = FORMS["github_token"](Random(9))
    assert value not in spoken(SECRET, f"x {value}")
    assert "geheim@firma.example" not in spoken(PERSON, "x geheim@firma.example")
    assert capsys.readouterr().out == ""
