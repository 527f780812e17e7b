"""One mask for every text that leaves a process: errors, log lines, tracebacks, configs, pages, records.

It knows a secret by its place (userinfo of a URI, a parameter, a name such as api_key), by its form (keys of the cloud
vendors, private keys, bearer headers), or because the environment holds it under a secret's name. Masking twice is
masking once, since a text may pass several doors.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from mama_ray.masking.names import Kind, kind_of_name, names_a_secret, words_of_name

MASK = "***"
_NAMES_OF_PATHS = ("PWD", "OLDPWD", "GOOGLE_APPLICATION_CREDENTIALS")
_SHORTEST_LITERAL = 8  # shorter values of the environment are words that any text may hold

# A name and what divides it from its value; `got` is of our own errors, `>` of XML. Possessive: linear in any text.
_NAMED = re.compile(
    r"(?<![\w./-])(-{0,2})([A-Za-z][\w.-]{0,99}+)([\\\"'\]]{0,4}[ \t]*(?:=>|[:=])[ \t]*(?:got )?|>|[ \t]+)", re.ASCII
)
_QUOTED = re.compile(r"(?P<quote>\\?[\"'])(?:(?!(?P=quote))(?:\\.|[^\\]))*(?P=quote)", re.DOTALL)
# Up to the next parameter; an apostrophe ends a value where it ends a quotation.
_BARE = re.compile(r"(?:(?![&;][\w.%-]+=)(?!'(?:[\s,;:)\]}]|$))[^\s\"<>\\])+")
_WHOLE = re.compile(r"(?:(?!'(?:[\s,:)\]}]|$))[^\s\"<>\\])+")  # of connection strings, which have parameters inside
_WITH_PARTS = (["connection", "string"], ["connectionstring"], ["access", "signature"])
_WORDS = (
    "a an and any bool float got in int invalid is it must no none not null of one optional or required self str text"
    " the true false unknown wanted with was"
)
_PROSE = frozenset(_WORDS.split())  # what may stand behind a secret's name and a colon in a sentence

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*+://"
_URI = re.compile(rf"(?<![A-Za-z0-9+.-])({_SCHEME})((?:(?![,;|(]{_SCHEME})(?!'(?:[\s,;:)\]}}]|$))[^\s\"<>`])+)")
_BUCKETS = frozenset(["s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "hf"])  # their URIs know no port
_PORT = re.compile(r"\d{1,5}$")

_FORMS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # An access key's id, and a secret of 40 letters beside it.
    re.compile(
        r"(?<![A-Za-z0-9])A(?:KIA|SIA|ROA)[A-Z0-9]{16}(?![A-Za-z0-9])"
        r"(?:[^A-Za-z0-9/+\n]{1,8}(?:\w{1,30}[^A-Za-z0-9/+\n]{1,8}){0,3}?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=]))?"
    ),
    re.compile(r"(?<![A-Za-z0-9])(?:hf_|api_org_)[A-Za-z0-9]{20,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:wandb_v\d_\w{20,}|local-[0-9a-f]{40})"),
    re.compile(r"(?<![A-Za-z0-9])(?:gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,})"),
    re.compile(
        r"(?<![A-Za-z0-9])(?:AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-(?:ant-|proj-)?[A-Za-z0-9]{32,}|xox[a-z]-[\w-]{10,})"
    ),
    re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),  # JWT
)
_AFTER = (
    re.compile(
        r"(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token|digest|apikey|negotiate|sharedkey(?:lite)?|"
        r"aws4-hmac-sha256|aws)[ \t]+)[^\n\"']+",
        re.IGNORECASE,
    ),
    re.compile(r"(\bbearer[ \t]+)(?=\S*\d)[\w.~+/=-]{16,}", re.IGNORECASE),
    re.compile(r"(\bmachine\s+\S+\s+login\s+\S+\s+password\s+)\S+"),  # .netrc
    # pydantic's report has the name on the line above
    re.compile(
        r"(^[\w.]*(?:key|token|secret|password|passwd|pwd)\n[^\n]*?input_value=).*?(?=, input_type=)", re.M | re.I
    ),
)


def mask_text(text: str) -> str:
    """Return a text in which all secrets are asterisks."""
    for secret in _secrets_of_environment():
        text = text.replace(secret, MASK)
    return _mask_forms(text)


def mask_secrets(value: Any, name: str = "") -> Any:
    """Return plain values in which text under names such as api_key or token is masked, and any text's secrets."""
    kind = kind_of_name(name)
    if isinstance(value, Mapping):
        below = name if kind == "strict" or name in ("credentials", "secrets") else ""
        return {
            mask_text(key) if isinstance(key, str) else key: mask_secrets(
                member, str(key) if kind_of_name(str(key)) else below
            )
            for key, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [mask_secrets(member, name) for member in value]
    if kind == "strict" and isinstance(value, int) and not isinstance(value, bool):
        return MASK
    if not isinstance(value, str) or not value:
        return value
    return MASK if kind is not None else mask_text(value)


def mask_command(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, masked; what follows an option such as --api_key is masked up to the next."""
    masked: list[str] = []
    is_secret = False
    for word in words:
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            is_secret = kind_of_name(name) is not None
            masked.append(f"{name}={MASK}" if is_secret and equals else mask_text(word))
        else:
            masked.append(MASK if is_secret else mask_text(word))
    return masked


def holds_credentials(value: str) -> bool:
    """Tell whether a URI, or another word, holds a secret in a known form, whatever the environment holds."""
    joined = "".join(value.split())
    for text in {joined, unquote(joined)}:
        scheme, _, rest = text.partition("://")
        authority = re.split(r"[/?#]", rest.lstrip("/") if scheme in _BUCKETS else rest, maxsplit=1)[0]
        is_told = _mask_forms(text) != text if "://" in text else any(form.search(text) for form in _FORMS)
        if is_told or "@" in authority:
            return True
    return False


def repeats_the_environment(word: str) -> bool:
    """Tell whether a word holds a secret of the environment; one without a digit may be the name of a folder, too."""
    return any(secret in word and any(map(str.isdigit, secret)) for secret in _secrets_of_environment())


def _mask_forms(text: str) -> str:
    text = _URI.sub(_mask_user, text)
    for form in _FORMS:
        text = form.sub(MASK, text)
    for form in _AFTER:
        text = form.sub(rf"\1{MASK}", text)
    return "".join(_mask_named(text))


def _mask_user(found: re.Match) -> str:
    """Mask user@ and user:password@ of a URI; a password may hold anything but blanks and quotation marks.

    A port (host:8000/a@b) is told from a password (user:8000/a@host) by the host's dot where it must be guessed.
    """
    scheme, rest = found.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, word = authority.partition(":")
    if "@" not in rest:
        return found.group()
    if colon:
        is_host = "." in user or user in ("localhost", "127.0.0.1") or user.startswith("[")
        is_port = _PORT.match(word) and rest[len(authority) :].startswith("/")
        if "@" not in authority and is_host and (is_port or user.startswith("[")) and scheme[:-3] not in _BUCKETS:
            return found.group()
        return f"{scheme}{MASK}@{rest.rpartition('@')[2]}"
    if "@" not in authority:
        return found.group()
    return f"{scheme}{MASK}@{authority.rpartition('@')[2]}{rest[len(authority) :]}"


def _mask_named(text: str) -> Iterator[str]:
    """Yield the text in pieces, with the values of secret names masked."""
    done = start = 0
    while found := _NAMED.search(text, start):
        start = found.end(2)  # the value may begin with a name, too
        dashes, name, divider = found.groups()
        kind = kind_of_name(name)
        if kind is None or (not divider.strip() and not dashes):
            continue
        in_parameter = divider == "=" and found.start() > 0 and text[found.start() - 1] in "?&;#"
        has_parts = words_of_name(name)[-2:] in _WITH_PARTS
        value = _QUOTED.match(text, found.end()) or (_WHOLE if has_parts else _BARE).match(text, found.end())
        if value is None or not _is_secret(kind, divider, in_parameter, value):
            continue
        yield text[done : found.end()]
        mark = value.groupdict().get("quote") or ""
        yield f"{mark}{MASK}{mark}"
        # what closes the sentence or the list around a value is no part of it
        done = start = value.end() - (0 if mark or in_parameter else len(value[0]) - len(value[0].rstrip(",;)]}")))
    yield text[done:]


def _is_secret(kind: Kind, divider: str, in_parameter: bool, value: re.Match) -> bool:
    """Decide by a name's kind and its value: a loose name's must look like a secret where it is no parameter."""
    bare = value[0].strip("\\\"'")
    if not bare or (kind == "loose" and bare.isdigit() and len(bare) < 6):
        return False
    if in_parameter:
        return True
    if value.groupdict().get("quote") is None and bare.lower().rstrip(".,;:)") in _PROSE:
        return False
    if kind == "strict" and divider.strip():
        return True
    return _looks_random(bare, shortest=8 if kind == "strict" else 16)


def _looks_random(value: str, *, shortest: int) -> bool:
    """Tell letters of a key from a word, a file's name and a path: long, with digits, upper and lower case."""
    if re.fullmatch(r"[0-9a-f]{32,}", value):
        return True
    has_both = value.lower() != value != value.upper() or shortest < 16
    return len(value) >= shortest and "." not in value and any(letter.isdigit() for letter in value) and has_both


def _secrets_of_environment() -> list[str]:
    """Return what the environment holds under a secret's name, as it stands in texts, the longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if len(value) < _SHORTEST_LITERAL:
            continue
        if name not in _NAMES_OF_PATHS and names_a_secret(name) and not _is_path(value):
            found.add(value.strip())
        if "@" in value and (uri := _URI.fullmatch(value)) and _mask_user(uri) != value:
            password = uri[2].rpartition("@")[0].partition(":")[2]
            found.update([password, unquote(password)])
    secrets = {secret for secret in found if len(secret) >= _SHORTEST_LITERAL}
    spelt = {way(secret) for secret in secrets for way in (quote, _quote_all, quote_plus, _as_json)}
    return sorted(secrets | spelt, key=len, reverse=True)


def _quote_all(text: str) -> str:
    return quote(text, safe="")


def _as_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~")) and os.path.exists(os.path.expanduser(value))
