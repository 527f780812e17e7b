"""What the name of a value says of it: whether it is a secret, may be one, or is none."""

import re
from functools import lru_cache
from typing import Literal

# strict: the value is a secret. loose: it may be one, but also a clip's key or a tokenizer's token.
Kind = Literal["strict", "loose"]

_STRICT, _LOOSE, _NO_SECRET = (
    frozenset(words.split())
    for words in (
        "password passwords passwd pwd passphrase passcode apikey accesskey secretkey accountkey authkey privatekey"
        " authtoken accesstoken sastoken connectionstring",
        "key token secret secrets credential credentials sig signature auth pass authorization",
        # before `key` or `token` of what is none, and of what tells about one
        "bad bos cache clip cls column duplicate eos expired foreign frame group image index invalid key mask max min"
        " missing no num pad partition primary public row sep sort special unk unknown video wrong",
    )
)
_STRICT_PAIRS = {
    "key": "access account admin api auth client encryption hmac master private sas secret shared signing storage"
    " subscription wandb",
    "token": "access api auth bearer bot csrf github gitlab hf hub id personal ray refresh sas secret security"
    " session wandb",
    "secret": "api app auth aws client consumer shared web",
    "signature": "access amz goog",
    "credential": "amz goog",
    "string": "connection",
    "pass": "db proxy smtp user",
}
_STRICT_ENDS = ("password", "passwd", "passphrase", "apikey", "secretkey", "accesskey")  # dbpassword, PGPASSWORD
# Before the name of a secret: a number or a complaint, not the secret.
_TOLD_ABOUT = frozenset(["bad", "expired", "invalid", "max", "min", "missing", "no", "num", "unknown", "wrong"])
_ENDS_OF_VARIABLES = (*_STRICT_ENDS, "pass", "pwd", "token", "secret", "credentials")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(maxsize=4096)
def kind_of_name(name: str) -> Kind | None:
    """Tell what a name says of its value, from its last words: dbPassword, aws_secret_access_key, X-Amz-Signature."""
    words = words_of_name(name.rstrip("0123456789"))
    if words[-1] == "id" and words[-2:-1] == ["key"]:  # access_key_id
        words = words[:-1]
    before, last = words[-2] if len(words) > 1 else "", words[-1]
    is_pair = before in _STRICT_PAIRS.get(last, "").split()
    if last in _STRICT or is_pair or last.endswith(_STRICT_ENDS):
        told = words[-3 if is_pair else -2 : -2 if is_pair else -1]
        return "strict" if _TOLD_ABOUT.isdisjoint(told) else None
    if not _NO_SECRET.isdisjoint(words[:-1]):
        return None
    if last == "pass" and before:  # forward_pass
        return None
    return "loose" if last in _LOOSE else None


def names_a_secret(variable: str) -> bool:
    """Tell whether an environment variable holds a secret by its name.

    Less careful than `kind_of_name`: the names of texts (GROUP_TOKEN, CLIP_KEY) are no variables.
    """
    words = words_of_name(variable.rstrip("0123456789"))
    if words[-2:] == ["key", "base"] or words[-2:] == ["key", "id"]:
        words = words[:-1]
    return (
        kind_of_name(variable) is not None
        or words[-1] in _LOOSE
        or words[-1] == "pat"
        or words[-1].endswith(_ENDS_OF_VARIABLES)
    )


def words_of_name(name: str) -> list[str]:
    """Return the words of a name in small letters, however it joins them."""
    return [word for word in re.split(r"[^a-z0-9]+", _CAMEL.sub("_", name).lower()) if word] or [""]
