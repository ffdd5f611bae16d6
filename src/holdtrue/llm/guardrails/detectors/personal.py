"""Find personal data that has a form: addresses, numbers with check digits, numbers that are named as such.

Names of persons and postal addresses have no form, and are not found.
"""

import ipaddress
import re
from collections.abc import Callable, Collection
from typing import Final

from holdtrue.llm.guardrails.detectors import checks
from holdtrue.llm.guardrails.detectors.matching import Check, Page, Rule, near, page_of, scan, words
from holdtrue.llm.guardrails.model import Hit, Steps, Subject

_SURE: Final = 1.0
_FORM: Final = 0.9
_LIKELY: Final = 0.7

# Country calling codes in use (ITU-T E.164, list of 2023), as the first one, two or three digits.
_CODES: Final = words(
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86"
    " 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237"
    " 238 239 240 241 242 243 244 245 246 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266 267"
    " 268 269 290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380 381"
    " 382 383 385 386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598"
    " 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853 855"
    " 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992"
    " 993 994 995 996 998"
)
_TELEPHONES: Final = (
    "phone",
    "mobile",
    "cell",
    "tel",
    "fax",
    "whatsapp",
    "handy",
    "mobil",
    "móvil",
    "movil",
    "celular",
    "télé",
)
_CALL_WORDS: Final = (
    *_TELEPHONES,
    "call",
    "ring ",
    "number",
    "ruf",
    "nummer",
    "portable",
    "llam",
    "ligue",
    "sms",
    "signal",
    "contact",
)
_NOT_CALLS: Final = (
    "order",
    "invoice",
    "tracking",
    "account",
    "serial",
    "isbn",
    "version",
    "part",
    "case",
    "ticket",
    "model",
    "article",
    "reference",
    "customer",
    "bestell",
    "konto",
    "kunden",
    "rechnung",
    "zip",
    "postal",
)
_FILES: Final = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "js", "css", "ts", "py", "md"})
_PRIVATE: Final = tuple(
    ipaddress.ip_network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)


def _email(match: re.Match[str], page: Page) -> float:
    local, _, domain = match.group().rpartition("@")
    labels = domain.split(".")
    if ".." in local or labels[-1].lower() in _FILES or not all(labels) or labels[-1].isdigit():
        return 0.0
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        return 0.0
    after = page.text[match.end() : match.end() + 2]
    # `git@host:path` and `user@host:/path` name a place on a machine, not a person.
    machine = after[:1] == ":" and (after[1:2] in ("/", "~") or local == "git")
    return 0.0 if machine else _SURE


def _phone_international(match: re.Match[str], page: Page) -> float:
    digits = re.sub(r"[^0-9]", "", match.group())
    digits = digits[2:] if match.group().startswith("00") else digits
    if not 8 <= len(digits) <= 15 or not any(digits[:length] in _CODES for length in (1, 2, 3)):
        return 0.0
    return _FORM


def _phone_north_american(match: re.Match[str], page: Page) -> float:
    if near(page, *match.span(), _NOT_CALLS, 24):
        return 0.0
    return _FORM if match.group()[0] == "(" or near(page, *match.span(), _CALL_WORDS, 32) else _LIKELY


def _phone_national(match: re.Match[str], page: Page) -> float:
    text = match.group()
    digits = sum(sign.isdigit() for sign in text)
    if not 8 <= digits <= 12 or near(page, *match.span(), _NOT_CALLS, 24):
        return 0.0
    # Digits in a row that begin with no 0 are many things: only a word that means a telephone makes them one.
    plain = text[0] not in "0(" and digits == len(text)
    return _LIKELY if near(page, *match.span(), _TELEPHONES if plain else _CALL_WORDS, 32) else 0.0


def _iban(match: re.Match[str], page: Page) -> float:
    text = page.text[match.start() - 2 : match.end()].replace(" ", "")
    return _SURE if checks.iban(text) else 0.0


def _fiscal_code(match: re.Match[str], page: Page) -> float:
    return _SURE if checks.it_fiscal_code(page.text[match.start() - 6 : match.end()]) else 0.0


def _card(match: re.Match[str], page: Page) -> float:
    return _SURE if checks.card(re.sub(r"[^0-9]", "", match.group())) else 0.0


def _ip4(match: re.Match[str], page: Page) -> float:
    text = match.group()
    if any((len(part) > 1 and part[0] == "0") or int(part) > 255 for part in text.split(".")):
        return 0.0
    if near(page, *match.span(), ("version", "section", "release", "upgrade", "==", "rfc", "chapter", " v"), 16):
        return 0.0
    address = ipaddress.IPv4Address(text)
    first = int(text.partition(".")[0])
    if first in (0, 127) or first >= 224 or address.is_link_local or any(address in block for block in _PRIVATE):
        return 0.0
    return _FORM


def _ip6(match: re.Match[str], page: Page) -> float:
    text = match.group()
    if text.count(":") < 2 or (len(text) < 6 and "::" in text):
        return 0.0
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return 0.0
    own = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    digits = any(sign.isdigit() for sign in text)
    return 0.0 if own or not digits else _FORM


def _dni(match: re.Match[str], page: Page) -> float:
    text = match.group().replace("-", "")
    return _SURE if len(text) == 9 and checks.es_dni(text) else 0.0


def _bare(check: Callable[[str], bool], score: float = _SURE) -> Check:
    """Return a check of the digits and letters of a match."""
    return lambda match, page: score if check(re.sub(r"[^0-9A-Za-z]", "", match.group())) else 0.0


def _named(check: Callable[[str], bool], *names: str) -> Check:
    """Return a check that also asks for a word before a number that names it: one in eleven fits by chance."""
    return lambda match, page: (
        _SURE if near(page, *match.span(), names) and check(re.sub(r"[^0-9A-Za-z]", "", match.group())) else 0.0
    )


def _ssn(match: re.Match[str], page: Page) -> float:
    text = match.group()
    if not checks.us_ssn(re.sub(r"[^0-9]", "", text)):
        return 0.0
    named = near(page, *match.span(), ("ssn", "social security", "social-security", "soc sec"))
    return _SURE if named else (_LIKELY if text[3:4] == "-" else 0.0)


def _rule(
    label: str, needles: tuple[str, ...], pattern: str, check: Check, digits: int = 0, lead: int = 0, hint: str = ""
) -> Rule:
    return Rule(label, needles, re.compile(pattern), check, True, re.compile(hint) if hint else None, digits, lead)


# A pattern that begins with a class of signs is found several times faster than one that begins with a look back, so
# each takes its first sign and looks back over it.
_L: Final = r"(?<![A-Za-z0-9].)"
_R: Final = r"(?![A-Za-z0-9])"
_D: Final = r"[0-9](?<![0-9.+-].)(?<![0-9][ /].)"
_E: Final = r"(?![0-9]|[.-][0-9])"

RULES: Final = (
    _rule(
        "email",
        ("@",),
        r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w!#$%&'*+/=?^`{|}~-](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+_-])?"
        r"@[^\W_](?:[\w.-]{0,250}[^\W_])?\.[^\W\d_][\w-]{0,60}[^\W_]",
        _email,
    ),
    _rule(
        "iban",
        (),
        r"[0-9](?<=[A-Za-z]{2}.)(?<![A-Za-z0-9][A-Za-z]{2}.)[0-9](?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?" + _R,
        _iban,
        lead=2,
    ),
    _rule(
        "credit_card",
        (),
        r"[0-9](?<![0-9.-].)(?:[0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}"
        r"|(?<=3)[0-9]{3}([ -]?)[0-9]{6}\2[0-9]{4,5})" + _E,
        _card,
        13,
    ),
    _rule(
        "ip_address",
        (".",),
        r"[0-9](?<![0-9.].)[0-9]{0,2}\.(?:[0-9]{1,3}\.){2}[0-9]{1,3}(?![0-9]|\.[0-9])",
        _ip4,
        hint=r"\.[0-9]{1,3}\.[0-9]",
    ),
    _rule(
        "ip_address",
        (":",),
        r"[0-9A-Fa-f:](?<![0-9A-Za-z:.].)[0-9A-Fa-f:]{2,38}(?![0-9A-Za-z:])",
        _ip6,
        hint=r":[0-9A-Fa-f]{0,4}:",
    ),
    _rule("us_ssn", (), _D + r"[0-9]{2}([ -]?)[0-9]{2}\1[0-9]{4}" + _E, _ssn, 9),
    _rule(
        "uk_nino",
        ("ni", "insurance"),
        r"[A-Za-z]" + _L + r"[A-Za-z]( ?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}\1[A-Da-d]" + _R,
        _named(checks.uk_nino, "nino", "national insurance", "ni number", "ni no", "insurance n"),
    ),
    _rule("uk_nhs", ("nhs",), _D + r"[0-9]{2}([ -]?)[0-9]{3}\1[0-9]{4}" + _E, _named(checks.uk_nhs, "nhs"), 10),
    _rule(
        "de_tax_id",
        ("idnr", "steuer", "tax id", "tin"),
        _D + r"[0-9]( ?)[0-9]{3}\1[0-9]{3}\1[0-9]{3}" + _E,
        _named(checks.de_tax_id, "steuer", "idnr", "tax id", "tin"),
        11,
    ),
    _rule(
        "fr_nir",
        (),
        r"[12](?<![0-9.+-].)(?<![0-9][ /].)"
        r" ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}" + _E,
        _bare(checks.fr_nir),
        13,
    ),
    _rule("es_dni", (), r"[0-9XYZxyz]" + _L + r"(?:[0-9]{7}|-?[0-9]{7})-?[A-Za-z]" + _R, _dni, 7),
    _rule(
        "it_fiscal_code",
        (),
        r"[0-9](?<=[A-Za-z]{6}.)(?<![A-Za-z0-9][A-Za-z]{6}.)[0-9LMNPQRSTUVlmnpqrstuv]"
        r"[ABCDEHLMPRSTabcdehlmprst][0-9LMNPQRSTUVlmnpqrstuv]{2}[A-Za-z][0-9LMNPQRSTUVlmnpqrstuv]{3}[A-Za-z]" + _R,
        _fiscal_code,
        lead=6,
    ),
    _rule(
        "nl_bsn",
        ("bsn", "burgerservice", "sofinummer"),
        _D + r"[0-9]{8}" + _E,
        _named(checks.nl_bsn, "bsn", "burgerservice", "sofinummer"),
        9,
    ),
    _rule("pl_pesel", ("pesel",), _D + r"[0-9]{10}" + _E, _named(checks.pl_pesel, "pesel"), 11),
    _rule(
        "se_personnummer",
        ("personnummer", "personal number"),
        _D + r"[0-9]{5}(?:[0-9]{2})?[-+]?[0-9]{4}" + _E,
        _named(checks.se_personnummer, "personnummer", "personal number"),
        10,
    ),
    _rule(
        "fi_hetu",
        (),
        r"[0-3]" + _L + r"[0-9]{5}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]" + _R,
        lambda match, page: _SURE if checks.fi_hetu(match.group()) else 0.0,
        6,
    ),
    _rule("br_cpf", ("-",), _D + r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}" + _E, _bare(checks.br_cpf), 11),
    _rule("br_cpf", ("cpf",), _D + r"[0-9]{10}" + _E, _named(checks.br_cpf, "cpf"), 11),
    _rule(
        "be_national", ("-",), _D + r"[0-9]\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}" + _E, _bare(checks.be_national), 11
    ),
    _rule(
        "be_national",
        ("rijksregister", "national", "nationaal", "insz", "niss"),
        _D + r"[0-9]{10}" + _E,
        _named(checks.be_national, "rijksregister", "national", "nationaal", "insz", "niss"),
        11,
    ),
    _rule(
        "phone",
        ("+", "00"),
        r"[+0](?<![0-9A-Za-z.+-].)(?:(?<=\+)|0)[1-9](?:[ ./-]?\(?[0-9]{1,4}\)?){2,8}(?![0-9])",
        _phone_international,
        8,
    ),
    _rule(
        "phone",
        (),
        r"[(2-9](?<![0-9A-Za-z.+/-].)(?:(?<=\()[2-9][0-9]{2}\) ?|[0-9]{2}([-.]))[2-9][0-9]{2}[-. ][0-9]{4}"
        r"(?![0-9A-Za-z]|[.-][0-9])",
        _phone_north_american,
        10,
    ),
    _rule(
        "phone",
        (),
        r"[0-9(](?<![0-9A-Za-z.+/-].)(?<![0-9] .)[0-9]{1,4}\)?(?: ?[/-] ?| |\.)?[0-9]{2,8}"
        r"(?:[ .-]?[0-9]{2,5}){0,4}(?![0-9A-Za-z]|[.-][0-9])",
        _phone_national,
        8,
    ),
)
LABELS: Final = tuple(sorted({rule.label for rule in RULES}))


def personal_detector(kinds: Collection[str], allow: Collection[str]) -> Callable[[Subject], Steps]:
    """Return a detector of the personal data in `kinds`; a value in `allow` is never reported.

    An entry of `allow` that begins with @ stands for every address of that domain.
    """
    rules = tuple(rule for rule in RULES if rule.label in kinds)
    exact = frozenset(value.lower() for value in allow)

    def kept(hit: Hit, page: Page) -> bool:
        value = page.lower[hit.start : hit.end]
        return value not in exact and not (hit.label == "email" and value[value.find("@") :] in exact)

    def detect(subject: Subject) -> Steps:
        page = page_of(subject.text)
        most = _most_digits(page.text)
        for rule in rules:
            if rule.digits <= most and (most or rule.label == "email" or rule.hint is not None):
                hits = scan(rule, page)
                yield [hit for hit in hits if kept(hit, page)] if exact else hits
        return 0.0

    return detect


_CLUSTER: Final = re.compile(r"[0-9](?:[ ./()+-]{0,3}[0-9]){0,40}")


def _most_digits(text: str) -> int:
    """Return how many digits stand close together where most of them do."""
    return max((sum(map(str.isdigit, cluster)) for cluster in _CLUSTER.findall(text)), default=0)
