"""Secrets: keys, tokens, passwords and account numbers. A text that holds one is left out whole."""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from dps_local.errors import MissingPackageError

MISSING = "importing needs detect-secrets, phonenumbers and python-stdnum: pip install 'dps-local[import]'"
LINE = 2000  # characters that a detector gets at once
_OTHER_KEYS = re.compile(
    r"BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|AGE-SECRET-KEY-1|\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bsk-[\w-]{20,}"
    r"|\bhf_[A-Za-z]{20,}|\bsecret-token:\S+|(?i:\bbearer\s+[\w.~+/-]{20,})|\bgh[a-z]_[A-Za-z0-9]{20,}|\bglpat-[\w-]{15,}|\bxox[a-z]-[\w-]{10,}"
)
_PASSWORD = (
    r"(?:password|passwd|passcode|passphrase|pwd|pw|passwort|kennwort|mot de passe|mdp|contraseña|clave|senha"
    r"|palavra-passe|parola d'ordine|wachtwoord|lösenord|adgangskode|passord|salasana|hasło|heslo|пароль|şifre"
    r"|密码|密碼|パスワード|비밀번호|api[ _-]?key|secret(?:[ _-]key)?|access[ _-]?(?:key|token)|auth[ _-]?token|token"
    r"|pin(?:[ -]?(?:code|number|nummer))?|tan|(?:login|security|verification|one-time|sms|door|alarm)[ -]code"
    r"|otp|cvv|cvc)"
)
# what follows a colon is a secret; what follows "is" may be a word
_PIN = re.compile(r"(?i)\b(?:pin|tan|puk|cvv|cvc|otp)\W{0,3}\d{3,8}\b")
_GIVEN = re.compile(
    rf"(?i)(?<![^\W_]){_PASSWORD}[\"'`*)\]]*\s{{0,3}}(?:[:=：]|:=|=>|->)\s{{0,3}}[\"'`*]*(?P<value>\S{{3,}})"
)
_TOLD = re.compile(
    rf"(?i)(?<!\w){_PASSWORD}\s+(?:(?:for|of|to|für|zu|von|pour|de|para)\s+\S+\s+(?:\S+\s+)?)?"
    r"(?:is|was|lautet|ist|est|es|è|é|is now|bleibt)\s*(?:now|jetzt|again)?\s*[:=]?\s*[\"'`*]*(?P<value>\S{3,})"
)
_PLAIN = re.compile(
    r"(?i)(?:the|a|an|not|no|wrong|incorrect|correct|right|still|same|too|very|expired|required|needed|invalid|that|this|in|on"
    r"|by|for|with|as|to|of|and|or|required|missing|set|reset|changed|case|always|never|only|really|already|safe|secure"
    r"|falsch|nicht|noch|immer|der|die|das|ein|eine|abgelaufen|richtig|zu|pas|le|la|un|une|mauvais|el|una|incorrecta)\W*$"
)
_DIGITS = re.compile(r"(?<![\d.,/-])\d(?:[ -]?\d){12,18}(?![\d/-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b")
_NUMBERS = {  # of persons; each has a form that other numbers rarely have
    "us.ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "it.codicefiscale": r"\b[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]\b",
    "es.dni": r"\b\d{8}-?[A-Z]\b",
    "es.nie": r"\b[XYZ]\d{7}-?[A-Z]\b",
    "fr.nir": r"\b[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}\b",
    "ch.ssn": r"\b756\.?\d{4}\.?\d{4}\.?\d{2}\b",
    "br.cpf": r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b",
    "gb.nino": r"\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b",
    "fi.hetu": r"\b\d{6}[-+A]\d{3}[0-9A-Z]\b",
}
_NAMED = (
    *("artifactory.ArtifactoryDetector", "aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector"),
    *("cloudant.CloudantDetector", "discord.DiscordBotTokenDetector", "github_token.GitHubTokenDetector"),
    *("gitlab_token.GitLabTokenDetector", "ibm_cloud_iam.IbmCloudIamDetector", "ibm_cos_hmac.IbmCosHmacDetector"),
    *("jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector", "openai.OpenAIDetector"),
    *("private_key.PrivateKeyDetector", "pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector"),
    *("slack.SlackDetector", "softlayer.SoftlayerDetector", "square_oauth.SquareOAuthDetector"),
    *("stripe.StripeDetector", "telegram_token.TelegramBotTokenDetector", "twilio.TwilioKeyDetector"),
)
_RANDOM = re.compile(r"(?<![\w/.@%+-])[\w+/=-]{20,200}(?![\w@])")


def check_installed() -> None:
    """Raise MissingPackageError, before the work, where a library of the extra is not installed."""
    _detectors()
    for name in ("stdnum", "phonenumbers"):
        imported(name)


def secret_kind(text: str) -> str:
    """Return which kind of secret a text holds: "key", "password", "card number" …; "" for none."""
    for kind, holds in _CHECKS.items():
        if holds(text):
            return kind
    return ""


def _key(text: str) -> bool:
    if _OTHER_KEYS.search(text) or any(map(is_random, _RANDOM.findall(text))):
        return True
    pieces = [line[at : at + LINE] for line in text.split("\n") for at in range(0, len(line), LINE)]
    return any(True for piece in pieces for detector in _detectors() for _ in detector(piece))


def is_random(word: str) -> bool:
    """Whether a long word is one that no language has: capitals, small letters and digits mixed all over."""
    if not (re.search("[A-Z]", word) and re.search("[a-z]", word) and len(re.findall(r"\d", word)) >= 2):
        return False
    counts = Counter(word).values()
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in counts)
    return len(word) >= 20 and entropy > 3.5 and len(re.findall("[a-z][A-Z0-9]|[0-9][A-Za-z]|[A-Z][0-9]", word)) >= 4


def _password(text: str) -> bool:
    if _GIVEN.search(text) or _PIN.search(text):
        return True
    return any(not _PLAIN.match(told["value"]) for told in _TOLD.finditer(text))


def _card(text: str) -> bool:
    found = (re.sub(r"\D", "", match[0]) for match in _DIGITS.finditer(text))
    return any(digits[0] in "23456" and _stdnum("luhn").is_valid(digits) for digits in found)


def _account(text: str) -> bool:
    return any(
        _stdnum("iban").is_valid(number[:end])
        for number in (re.sub("[ -]", "", match[0]) for match in _IBAN.finditer(text))
        for end in range(15, len(number) + 1)  # other words in capitals may follow
        if int("".join(str(int(c, 36)) for c in number[4:end] + number[:4])) % 97 == 1
    )


def _person(text: str) -> bool:
    return any(_stdnum(name).is_valid(match[0]) for name, form in _NUMBERS.items() for match in re.finditer(form, text))


_CHECKS: dict[str, Callable[[str], bool]] = {
    "key": _key,
    "password": _password,
    "card number": _card,
    "account number": _account,
    "number of a person": _person,
}


@cache
def _stdnum(name: str) -> Any:
    return imported(f"stdnum.{name}")


@cache
def _detectors() -> list[Callable[[str], Any]]:
    named = (name.split(".") for name in _NAMED)
    return [getattr(imported(f"detect_secrets.plugins.{file}"), kind)().analyze_string for file, kind in named]


def imported(name: str) -> Any:
    """Return a module of the extra; raises MissingPackageError."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingPackageError(MISSING) from exc
