"""What must not leave this machine: files by name, keys by how they look."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import PurePosixPath

_FOLDERS = (".aws", ".azure", ".docker", ".gnupg", ".kube", ".ssh")
_NAMES = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.ppk",
    "*.kdbx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "credentials",
    "credentials.[cijty]*",  # csv, ini, json, toml, txt, yaml
    "*credentials.json",
    "service[-_]account*.json",
    "auth_token",
    "kubeconfig",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".pypirc",
    ".git-credentials",
)
_HARMLESS = ("*.pub", ".env.example", ".env.sample", ".env.template")
# Written so that none of them is found in this file.
_LOOKS = {
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an access key of AWS": re.compile(rb"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])"),
    "a secret key of AWS": re.compile(rb"(?i)secret_access_key['\"]?\s*[=:]\s*['\"]?[\w/+]{40}"),
    "a token of GitHub": re.compile(rb"(?<!\w)gh[pousr]_[A-Za-z0-9]{36}"),
    "a token of Hugging Face": re.compile(rb"(?<!\w)hf_[A-Za-z0-9]{34}"),
    "a password in an address": re.compile(rb"(?:s3|https?)://[^\s/:@'\"]+:[^\s/:@'\"]{8,}@"),
}


def secret_by_name(path: str) -> str | None:
    """Why a file of this path is taken for a secret: the part of the path that says so.

    Args:
        path: relative, ``/``-separated.
    """
    *folders, name = PurePosixPath(path).parts
    for folder in folders:
        if folder in _FOLDERS:
            return f"{folder}/"
    if any(fnmatch(name, pattern) for pattern in _HARMLESS):
        return None
    return name if any(fnmatch(name.lower(), pattern) for pattern in _NAMES) else None


def secret_by_look(data: bytes) -> str | None:
    """What kind of secret stands in ``data``, if one does."""
    return next((kind for kind, looks in _LOOKS.items() if looks.search(data)), None)
