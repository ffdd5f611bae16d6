"""Make values of the form that secrets and personal data have, from a seed: test sets hold none of either.

Each value is assembled here and nowhere written down, so no secret scanner finds one in the repository. Check digits
are computed forwards, by the published formulas; the detectors verify them on their own.
"""

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final, TypeAlias

Form: TypeAlias = Callable[[Random], str]

_DIGITS: Final = "0123456789"
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = _LOWER.upper()
_BASE62: Final = _DIGITS + _UPPER + _LOWER
_URLSAFE: Final = _BASE62 + "-_"
_BASE64: Final = _BASE62 + "+/"
_HEX: Final = "0123456789abcdef"
_WORDS: Final = ("Sommer", "Winter", "tiger", "Kaffee", "dragon", "Monday", "purple", "garden", "Berlin", "rocket")


def text_of(alphabet: str, length: int) -> Form:
    """Return a form of `length` signs of `alphabet`."""
    return lambda rng: "".join(rng.choices(alphabet, k=length))


def joined(*parts: "str | Form") -> Form:
    """Return a form that joins fixed texts and forms."""
    return lambda rng: "".join(part if isinstance(part, str) else part(rng) for part in parts)


def _base62(number: int, length: int) -> str:
    signs: list[str] = []
    for _ in range(length):
        number, sign = divmod(number, 62)
        signs.append(_BASE62[sign])
    return "".join(reversed(signs))


def _checked(prefix: str) -> Form:
    """Return GitHub's form: 30 signs and, in six digits of base 62, their CRC-32."""

    def form(rng: Random) -> str:
        body = text_of(_BASE62, 30)(rng)
        return f"{prefix}{body}{_base62(zlib.crc32(body.encode()), 6)}"

    return form


def _holdtrue(rng: Random) -> str:
    head = f"ht_service_{text_of(_DIGITS + _LOWER, 12)(rng)}_{text_of(_BASE62, 43)(rng)}"
    return f"{head}_{_base62(zlib.crc32(head.encode()), 6)}"


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _jwt(algorithm: str, length: int) -> Form:
    def form(rng: Random) -> str:
        header = _segment({"alg": algorithm, "typ": "JWT"})
        payload = _segment({"sub": text_of(_DIGITS, 8)(rng), "exp": rng.randrange(10**9, 2 * 10**9)})
        return f"{header}.{payload}.{text_of(_URLSAFE, length)(rng)}"

    return form


def _pem(name: str, start: bytes, size: int, end: str = "\n", head: str = "") -> Form:
    def form(rng: Random) -> str:
        body = base64.b64encode(start + rng.randbytes(size)).decode()
        lines = end.join(body[at : at + 64] for at in range(0, len(body), 64))
        # The dashes are put together here, so that no line of this file looks like the start of a key.
        rule = "-" * 5
        return f"{rule}BEGIN {name}{rule}{end}{head}{lines}{end}{rule}END {name}{rule}"

    return form


def _human_password(rng: Random) -> str:
    return f"{rng.choice(_WORDS)}{rng.choice(_WORDS)}{rng.randrange(10, 2030)}{rng.choice('!$?#')}"


def _basic_auth(rng: Random) -> str:
    return base64.b64encode(f"svc-{text_of(_LOWER, 4)(rng)}:{text_of(_BASE62, 14)(rng)}".encode()).decode()


def luhn_digit(digits: str) -> str:
    """Return the digit that completes `digits` to a number with Luhn's checksum (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        number = int(sign) * (2 if place % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    return str(-total % 10)


def _card(prefix: str, length: int, groups: tuple[int, ...] = (), between: str = " ") -> Form:
    def form(rng: Random) -> str:
        digits = prefix + text_of(_DIGITS, length - 1 - len(prefix))(rng)
        return _grouped(digits + luhn_digit(digits), groups, between)

    return form


def _grouped(text: str, groups: tuple[int, ...], between: str = " ") -> str:
    if not groups:
        return text
    parts: list[str] = []
    for size in groups:
        parts.append(text[:size])
        text = text[size:]
    return between.join([*parts, text] if text else parts)


def _iban(country: str, shape: str, spaced: bool = False, lower: bool = False) -> Form:
    """Return a form with check digits by ISO 7064 MOD 97-10; in `shape` n is a digit, a a letter, c either."""

    def form(rng: Random) -> str:
        signs = {"n": _DIGITS, "a": _UPPER, "c": _DIGITS + _UPPER}
        account = "".join(rng.choice(signs[sign]) for sign in shape)
        rest = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
        text = f"{country}{98 - int(rest) % 97:02}{account}"
        if spaced:
            text = " ".join(text[at : at + 4] for at in range(0, len(text), 4))
        return text.lower() if lower else text

    return form


def _wrong(form: Form, place: int) -> Form:
    """Return `form` with the digit at `place` raised by one, so that its checksum is wrong."""

    def wrong(rng: Random) -> str:
        text = form(rng)
        raised = str((int(text[place]) + 1) % 10)
        return text[:place] + raised + text[place + 1 :] if place != -1 else text[:-1] + raised

    return wrong


def _us_ssn(pattern: str) -> Form:
    def form(rng: Random) -> str:
        area = rng.choice([number for number in range(1, 900) if number != 666])
        return pattern.format(f"{area:03}", f"{rng.randrange(1, 100):02}", f"{rng.randrange(1, 10000):04}")

    return form


def _nino(between: str) -> Form:
    def form(rng: Random) -> str:
        prefix = rng.choice(("AB", "CE", "HR", "JK", "PM", "WX"))
        digits = text_of(_DIGITS, 6)(rng)
        return between.join((prefix, digits[:2], digits[2:4], digits[4:], rng.choice("ABCD")))

    return form


def _until(rng: Random, make: Callable[[Random], "str | None"]) -> str:
    while True:
        text = make(rng)
        if text is not None:
            return text


def _nhs(groups: tuple[int, ...]) -> Form:
    def attempt(rng: Random) -> "str | None":
        digits = text_of(_DIGITS, 9)(rng)
        check = 11 - sum(int(sign) * (10 - at) for at, sign in enumerate(digits)) % 11
        return None if check == 10 else _grouped(f"{digits}{check % 11}", groups)

    return lambda rng: _until(rng, attempt)


def _de_tax(groups: tuple[int, ...]) -> Form:
    """Return a form by ISO 7064 MOD 11,10, in which one digit of the first ten occurs twice and another never."""

    def form(rng: Random) -> str:
        signs = rng.sample(_DIGITS, 9)
        signs.insert(rng.randrange(2, 10), signs[0])
        while signs[0] == "0":
            rng.shuffle(signs)
        product = 10
        for sign in signs:
            total = (int(sign) + product) % 10 or 10
            product = total * 2 % 11
        return _grouped("".join(signs) + str((11 - product) % 10), groups)

    return form


def _nir(groups: tuple[int, ...]) -> Form:
    def form(rng: Random) -> str:
        head = f"{rng.choice('12')}{rng.randrange(30, 99):02}{rng.randrange(1, 13):02}{rng.randrange(1, 96):02}"
        body = f"{head}{rng.randrange(1, 990):03}{rng.randrange(1, 999):03}"
        return _grouped(f"{body}{97 - int(body) % 97:02}", groups)

    return form


def _dni(between: str) -> Form:
    def form(rng: Random) -> str:
        number = rng.randrange(10**7, 10**8)
        return f"{number}{between}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"

    return form


def _nie(rng: Random) -> str:
    first, digits = rng.randrange(3), text_of(_DIGITS, 7)(rng)
    return f"{'XYZ'[first]}{digits}{'TRWAGMYFPDXBNJZSQVHLCKE'[int(f'{first}{digits}') % 23]}"


# What a sign at an odd place of an Italian tax code counts (decree of 23 December 1976); digits count as A to J.
_ODD: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _fiscal_code(rng: Random) -> str:
    consonants = "BCDFGLMNPRSTVZ"
    name = "".join(rng.choices(consonants, k=6))
    born = f"{rng.randrange(30, 99)}{rng.choice('ABCDEHLMPRST')}{rng.randrange(1, 29):02}"
    code = f"{name}{born}{rng.choice('AFHL')}{rng.randrange(1, 999):03}"
    total = 0
    for place, sign in enumerate(code):
        value = int(sign) if sign.isdigit() else ord(sign) - 65
        total += _ODD[value] if place % 2 == 0 else value
    return code + chr(65 + total % 26)


def _bsn(rng: Random) -> str:
    def attempt(source: Random) -> "str | None":
        digits = source.choice("12345678") + text_of(_DIGITS, 7)(source)
        last = sum(int(sign) * (9 - at) for at, sign in enumerate(digits)) % 11
        return None if last == 10 else f"{digits}{last}"

    return _until(rng, attempt)


def _born(rng: Random) -> tuple[int, int, int]:
    return rng.randrange(40, 99), rng.randrange(1, 13), rng.randrange(1, 29)


def _pesel(rng: Random) -> str:
    digits = "{:02}{:02}{:02}".format(*_born(rng)) + text_of(_DIGITS, 4)(rng)
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    return f"{digits}{-sum(int(s) * w for s, w in zip(digits, weights, strict=True)) % 10}"


def _personnummer(pattern: str) -> Form:
    def form(rng: Random) -> str:
        head, serial = "{:02}{:02}{:02}".format(*_born(rng)), text_of(_DIGITS, 3)(rng)
        return pattern.format(head, serial + luhn_digit(head + serial))

    return form


def _hetu(rng: Random) -> str:
    year, month, day = _born(rng)
    head, serial = f"{day:02}{month:02}{year:02}", f"{rng.randrange(2, 900):03}"
    return f"{head}-{serial}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(head + serial) % 31]}"


def _cpf(pattern: str) -> Form:
    def form(rng: Random) -> str:
        digits = text_of(_DIGITS, 9)(rng)
        for _ in range(2):
            rest = sum(int(sign) * weight for sign, weight in zip(digits, range(len(digits) + 1, 1, -1), strict=True))
            digits += str(0 if rest % 11 < 2 else 11 - rest % 11)
        return pattern.format(digits[:3], digits[3:6], digits[6:9], digits[9:])

    return form


def _be(pattern: str) -> Form:
    def form(rng: Random) -> str:
        head, serial = "{:02}{:02}{:02}".format(*_born(rng)), f"{rng.randrange(1, 998):03}"
        check = 97 - int(head + serial) % 97
        return pattern.format(head[:2], head[2:4], head[4:], serial, f"{check:02}")

    return form


def _uuid(rng: Random) -> str:
    digits = text_of(_HEX, 32)(rng)
    return _grouped(digits, (8, 4, 4, 4), "-")


def _imei(rng: Random) -> str:
    digits = "35" + text_of(_DIGITS, 12)(rng)
    return digits + luhn_digit(digits)


_SECRETS: Final[Mapping[str, Form]] = {
    "aws_access_key": joined("AK" + "IA", text_of(_UPPER + "234567", 16)),
    "aws_sts": joined("AS" + "IA", text_of(_UPPER + "234567", 16)),
    "aws_secret_key": text_of(_BASE64, 40),
    "aws_secret_bare": text_of(_BASE64, 40),
    "github_token": _checked("gh" + "p_"),
    "github_server": _checked("gh" + "s_"),
    "github_oauth": _checked("gh" + "o_"),
    "github_refresh": _checked("gh" + "r_"),
    "github_fine": joined("github" + "_pat_", text_of(_BASE62, 22), "_", text_of(_BASE62, 59)),
    "gitlab_token": joined("gl" + "pat-", text_of(_URLSAFE, 20)),
    "slack_token": joined("xo" + "xb-", text_of(_DIGITS, 12), "-", text_of(_DIGITS, 13), "-", text_of(_BASE62, 24)),
    "slack_user": joined(
        "xo" + "xp-", text_of(_DIGITS, 12), "-", text_of(_DIGITS, 12), "-", text_of(_DIGITS, 13), "-", text_of(_HEX, 32)
    ),
    "slack_webhook": joined(
        "https://hooks.sl" + "ack.com/services/T",
        text_of(_UPPER + _DIGITS, 9),
        "/B",
        text_of(_UPPER + _DIGITS, 10),
        "/",
        text_of(_BASE62, 24),
    ),
    "stripe_key": joined("sk" + "_live_", text_of(_BASE62, 24)),
    "stripe_restricted": joined("rk" + "_live_", text_of(_BASE62, 99)),
    "stripe_webhook": joined("wh" + "sec_", text_of(_BASE62, 32)),
    "google_api_key": joined("AI" + "za", text_of(_URLSAFE, 35)),
    "google_oauth_secret": joined("GOC" + "SPX-", text_of(_URLSAFE, 28)),
    "openai_key": joined("s" + "k-", text_of(_BASE62, 48)),
    "openai_legacy": joined("s" + "k-", text_of(_BASE62, 20), "T3Blbk" + "FJ", text_of(_BASE62, 20)),
    "openai_project": joined("s" + "k-proj-", text_of(_URLSAFE, 74), "T3Blbk" + "FJ", text_of(_URLSAFE, 74)),
    "anthropic_key": joined("s" + "k-ant-api03-", text_of(_URLSAFE, 93), "AA"),
    "holdtrue_token": _holdtrue,
    "npm_token": _checked("np" + "m_"),
    "pypi_token": joined("py" + "pi-", "AgEIcHlwaS5vcmc", text_of(_URLSAFE, 150)),
    "huggingface_token": joined("h" + "f_", text_of(_UPPER + _LOWER, 34)),
    "sendgrid_key": joined("S" + "G.", text_of(_URLSAFE, 22), ".", text_of(_URLSAFE, 43)),
    "telegram_token": joined(text_of("123456789", 10), ":A", "A", text_of(_URLSAFE, 33)),
    "azure_storage_key": lambda rng: base64.b64encode(rng.randbytes(64)).decode(),
    "private_key": _pem("PRIVATE KEY", b"\x30\x82\x04\xbd\x02\x01\x00", 1200),
    "ec_key": _pem("EC PRIVATE KEY", b"\x30\x77\x02\x01\x01\x04\x20", 114),
    "openssh_key": _pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\x00", 300),
    "encrypted_key": _pem(
        "RSA PRIVATE KEY", b"", 900, head="Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B2C3D\n\n"
    ),
    "escaped_key": _pem("PRIVATE KEY", b"\x30\x82\x04\xbd\x02\x01\x00", 1200, "\\n"),
    "jwt": _jwt("HS256", 43),
    "jwt_es256": _jwt("ES256", 86),
    "connection_password": text_of(_BASE62, 16),
    "human_password": _human_password,
    "generic_secret": text_of(_BASE62, 32),
    "opaque40": text_of(_URLSAFE, 40),
    "hex32": text_of(_HEX, 32),
    "hex40": text_of(_HEX, 40),
    "basic_auth": _basic_auth,
    "django_key": text_of(_LOWER + _DIGITS + "!@#$%^&*(-_=+)", 50),
    "base64_32": lambda rng: base64.b64encode(rng.randbytes(32)).decode(),
}

_PERSONAL: Final[Mapping[str, Form]] = {
    "iban": _iban("DE", "n" * 18),
    "iban_spaced": _iban("DE", "n" * 18, spaced=True),
    "iban_de": _iban("DE", "n" * 18),
    "iban_fr": _iban("FR", "n" * 10 + "c" * 11 + "nn"),
    "iban_gb": _iban("GB", "aaaa" + "n" * 14),
    "iban_no": _iban("NO", "n" * 11),
    "iban_nl_spaced": _iban("NL", "aaaa" + "n" * 10, spaced=True),
    "iban_lower": _iban("DE", "n" * 18, lower=True),
    "iban_at_spaced": _iban("AT", "n" * 16, spaced=True),
    "iban_fr_spaced": _iban("FR", "n" * 10 + "c" * 11 + "nn", spaced=True),
    "iban_es": _iban("ES", "n" * 20),
    "credit_card": _card("4", 16),
    "visa13": _card("4", 13),
    "visa_spaced": _card("4", 16, (4, 4, 4, 4)),
    "mastercard": _card("53", 16),
    "mastercard_dashed": _card("52", 16, (4, 4, 4, 4), "-"),
    "mastercard_2series": _card("2512", 16),
    "amex": _card("37", 15),
    "amex_spaced": _card("34", 15, (4, 6, 5)),
    "discover": _card("6011", 16),
    "jcb": _card("3530", 16),
    "diners": _card("36", 14),
    "us_ssn": _us_ssn("{}-{}-{}"),
    "ssn_plain": _us_ssn("{}{}{}"),
    "ssn_spaced": _us_ssn("{} {} {}"),
    "uk_nino": _nino(""),
    "nino_spaced": _nino(" "),
    "uk_nhs": _nhs(()),
    "nhs_spaced": _nhs((3, 3, 4)),
    "de_tax_id": _de_tax(()),
    "de_tax_spaced": _de_tax((2, 3, 3, 3)),
    "fr_nir": _nir(()),
    "nir_spaced": _nir((1, 2, 2, 2, 3, 3, 2)),
    "es_dni": _dni(""),
    "dni_dashed": _dni("-"),
    "nie": _nie,
    "it_fiscal_code": _fiscal_code,
    "cf_lower": lambda rng: _fiscal_code(rng).lower(),
    "nl_bsn": _bsn,
    "pl_pesel": _pesel,
    "se_personnummer": _personnummer("{}-{}"),
    "pnr12": _personnummer("19{}-{}"),
    "fi_hetu": _hetu,
    "br_cpf": _cpf("{}.{}.{}-{}"),
    "cpf_plain": _cpf("{}{}{}{}"),
    "be_national": _be("{}.{}.{}-{}.{}"),
    "be_plain": _be("{}{}{}{}{}"),
}

_HARMLESS: Final[Mapping[str, Form]] = {
    "digits2": text_of(_DIGITS, 2),
    "uuid": _uuid,
    "sha1": text_of(_HEX, 40),
    "sha256": text_of(_HEX, 64),
    "md5": text_of(_HEX, 32),
    "hex16": text_of(_HEX, 16),
    "git_short": text_of(_HEX, 8),
    "ulid": joined("run_01", text_of("0123456789abcdefghjkmnpqrstvwxyz", 24)),
    "public_key": _pem("PUBLIC KEY", b"\x30\x82\x01\x22\x30\x0d", 280),
    "certificate": _pem("CERTIFICATE", b"\x30\x82\x03\x75", 800),
    "ssh_public": lambda rng: f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{text_of(_BASE64, 43)(rng)} anna@laptop",
    "base64_image": lambda rng: base64.b64encode(b"\x89PNG\r\n\x1a\n" + rng.randbytes(300)).decode(),
    "base64_48": lambda rng: base64.b64encode(rng.randbytes(48)).decode(),
    "stripe_publishable": joined("pk" + "_live_", text_of(_BASE62, 24)),
    "github_placeholder": lambda rng: "gh" + "p_" + "x" * 36,
    "aws_example": lambda rng: "AK" + "IA" + "IOSFODNN7EXAMPLE",
    "jwt_like": joined("eyJ", text_of(_BASE62, 20), ".", text_of(_BASE62, 30), ".", text_of(_BASE62, 20)),
    "card_bad": _wrong(_card("4", 16), -1),
    "iban_bad": _wrong(_iban("DE", "n" * 18), -1),
    "imei": _imei,
}

FORMS: Final[Mapping[str, Form]] = MappingProxyType({**_SECRETS, **_PERSONAL, **_HARMLESS})
