"""Check digits of numbers that have them, by their published formulas; each takes the bare digits and letters."""

import zlib
from typing import Final

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DNI: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU: Final = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_ODD: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)

# Length of an IBAN by country: the SWIFT registry of ISO 13616.
IBAN_LENGTHS: Final = {
    "AD": 24,
    "AE": 23,
    "AL": 28,
    "AT": 20,
    "AZ": 28,
    "BA": 20,
    "BE": 16,
    "BG": 22,
    "BH": 22,
    "BR": 29,
    "BY": 28,
    "CH": 21,
    "CR": 22,
    "CY": 28,
    "CZ": 24,
    "DE": 22,
    "DK": 18,
    "DO": 28,
    "EE": 20,
    "EG": 29,
    "ES": 24,
    "FI": 18,
    "FO": 18,
    "FR": 27,
    "GB": 22,
    "GE": 22,
    "GI": 23,
    "GL": 18,
    "GR": 27,
    "GT": 28,
    "HR": 21,
    "HU": 28,
    "IE": 22,
    "IL": 23,
    "IQ": 23,
    "IS": 26,
    "IT": 27,
    "JO": 30,
    "KW": 30,
    "KZ": 20,
    "LB": 28,
    "LC": 32,
    "LI": 21,
    "LT": 20,
    "LU": 20,
    "LV": 21,
    "MC": 27,
    "MD": 24,
    "ME": 22,
    "MK": 19,
    "MR": 27,
    "MT": 31,
    "MU": 30,
    "NL": 18,
    "NO": 15,
    "PK": 24,
    "PL": 28,
    "PS": 29,
    "PT": 25,
    "QA": 29,
    "RO": 24,
    "RS": 22,
    "SA": 24,
    "SC": 31,
    "SE": 24,
    "SI": 19,
    "SK": 24,
    "SM": 27,
    "ST": 25,
    "SV": 28,
    "TL": 23,
    "TN": 24,
    "TR": 26,
    "UA": 29,
    "VA": 22,
    "VG": 24,
    "XK": 20,
}


def luhn(digits: str) -> bool:
    """Tell whether the last digit is Luhn's (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        number = int(sign) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def iban(text: str) -> bool:
    """Tell whether an IBAN has its country's length and remainder 1 modulo 97 (ISO 13616, ISO 7064)."""
    text = text.upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def card(digits: str) -> bool:
    """Tell whether digits are a payment card's: a known network's prefix and length, and Luhn's digit."""
    first, length = digits[:4], len(digits)
    four = int(first)
    if digits[0] == "4":
        network = length in (13, 16, 19)
    elif 5100 <= four <= 5599 or 2221 <= four <= 2720 or 3528 <= four <= 3589:
        network = length == 16
    elif four // 100 in (34, 37):
        network = length == 15
    elif four // 100 in (36, 38, 39) or 3000 <= four <= 3059:
        network = length == 14
    elif four == 6011 or four // 100 == 65 or 6440 <= four <= 6499 or four // 100 == 62:
        network = length in (16, 19)
    else:
        network = False
    return network and len(set(digits)) > 1 and luhn(digits)


def us_ssn(digits: str) -> bool:
    """Tell whether the area, group and serial of a social security number are ever assigned."""
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def uk_nino(text: str) -> bool:
    """Tell whether a National Insurance number begins with a pair of letters that is assigned."""
    text = text.upper()
    return (
        text[0] not in "DFIQUV"
        and text[1] not in "DFIOQUV"
        and text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    )


def uk_nhs(digits: str) -> bool:
    """Tell whether an NHS number has its check digit modulo 11."""
    total = sum(int(sign) * weight for sign, weight in zip(digits, range(10, 1, -1), strict=False))
    return (11 - total % 11) % 11 == int(digits[9]) and len(set(digits)) > 1


def de_tax_id(digits: str) -> bool:
    """Tell whether a German tax id has its check digit (ISO 7064 MOD 11,10) and a doubled or tripled digit."""
    if digits[0] == "0" or max(digits[:10].count(sign) for sign in set(digits[:10])) not in (2, 3):
        return False
    product = 10
    for sign in digits[:10]:
        product = ((int(sign) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(text: str) -> bool:
    """Tell whether a French social security number has its key modulo 97 (Corsica: 2A is 19, 2B is 18)."""
    number = text.upper().replace("2A", "19").replace("2B", "18")
    if not number.isdigit() or not 1 <= int(number[3:5]) <= 42:
        return False
    return 97 - int(number[:13]) % 97 == int(number[13:])


def es_dni(text: str) -> bool:
    """Tell whether a Spanish DNI or NIE ends with the letter of its remainder modulo 23."""
    text = text.upper()
    digits = str("XYZ".find(text[0])) + text[1:-1] if text[0] in "XYZ" else text[:-1]
    return _DNI[int(digits) % 23] == text[-1]


def it_fiscal_code(text: str) -> bool:
    """Tell whether an Italian tax code ends with its check letter (decree of 23 December 1976)."""
    total = 0
    for place, sign in enumerate(text.upper()[:15]):
        value = int(sign) if sign.isdigit() else ord(sign) - 65
        total += value if place % 2 else _ODD[value]
    return chr(65 + total % 26) == text[15].upper()


def nl_bsn(digits: str) -> bool:
    """Tell whether a Dutch citizen service number passes the eleven test."""
    total = sum(int(sign) * weight for sign, weight in zip(digits[:8], range(9, 1, -1), strict=True))
    return (total - int(digits[8])) % 11 == 0 and digits != "0" * 9


def pl_pesel(digits: str) -> bool:
    """Tell whether a Polish PESEL has a possible month and day and its check digit."""
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    total = sum(int(sign) * weight for sign, weight in zip(digits[:10], weights, strict=True))
    return 1 <= int(digits[2:4]) % 20 <= 12 and 1 <= int(digits[4:6]) <= 31 and -total % 10 == int(digits[10])


def se_personnummer(digits: str) -> bool:
    """Tell whether a Swedish personal number (10 or 12 digits) has a possible date and Luhn's digit."""
    ten = digits[-10:]
    return 1 <= int(ten[2:4]) <= 12 and 1 <= int(ten[4:6]) % 60 <= 31 and luhn(ten)


def fi_hetu(text: str) -> bool:
    """Tell whether a Finnish personal identity code has a possible date and its sign modulo 31."""
    text = text.upper()
    possible = 1 <= int(text[:2]) <= 31 and 1 <= int(text[2:4]) <= 12
    return possible and _HETU[int(text[:6] + text[7:10]) % 31] == text[10]


def br_cpf(digits: str) -> bool:
    """Tell whether a Brazilian CPF has both its check digits modulo 11."""
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(sign) * (length + 1 - at) for at, sign in enumerate(digits[:length]))
        if total * 10 % 11 % 10 != int(digits[length]):
            return False
    return True


def be_national(digits: str) -> bool:
    """Tell whether a Belgian national number has its key modulo 97, with a 2 before it for births since 2000."""
    body, key = int(digits[:9]), int(digits[9:])
    possible = int(digits[2:4]) <= 12 and int(digits[4:6]) <= 31
    return possible and key in (97 - body % 97, 97 - (2 * 10**9 + body) % 97)


def crc62(text: str) -> str:
    """Return the CRC-32 of `text` in six digits of base 62, as GitHub, npm and Holdtrue end their tokens."""
    number, signs = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, sign = divmod(number, 62)
        signs = _BASE62[sign] + signs
    return signs
