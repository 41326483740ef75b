"""Opening of containers of Azure Blob Storage: keys of a Secret, connection strings, and what its errors mean."""

import os
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import AzureStore

from tunesmith_contract.uris import Scheme, StorageUri

from .credentials import Credentials
from .errors import StorageRefused

ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
ACCOUNT_KEY = "AZURE_STORAGE_ACCOUNT_KEY"
_SAS = "AZURE_STORAGE_SAS_TOKEN"
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_ENDPOINT = "AZURE_STORAGE_ENDPOINT"
_AUTHORITY = "AZURE_CA_BUNDLE"
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_ANONYMOUS = "AZURE_SKIP_SIGNATURE"

#: Keys of a Secret for ``az://``; those of a service principal only together. AZURE_CA_BUNDLE is a certificate itself.
AZ_KEYS = (ACCOUNT, ACCOUNT_KEY, _SAS, _CONNECTION, *_PRINCIPAL, _ENDPOINT, _AUTHORITY, _ANONYMOUS)

_ENTRA_CODE = re.compile(r"AADSTS\d+")
_PUBLIC_SUFFIX = "core.windows.net"


def build_azure(container: str, credentials: Credentials, retries: Any) -> AzureStore:
    """Client of a container with the keys of the Secret, else of the environment: AZURE_* variables, workload identity.

    Raises:
        StorageRefused: the Secret lacks a key, or nothing says in which storage account the container is.
    """
    credentials.require_any(Scheme.AZ, AZ_KEYS)
    credentials.require_together(*_PRINCIPAL)
    config = _config_of_secret(credentials)
    if not any(key in config for key in ("account_key", "sas_key", "client_secret", "skip_signature")):
        config = _config_of_connection(os.environ.get(_CONNECTION, "")) | config
    if not config.get("account_name") and not os.environ.get(ACCOUNT):
        message = f"nothing says in which storage account az://{container} is: add {ACCOUNT} to {credentials.source}"
        raise StorageRefused("CredentialsMissing", message)
    client: dict[str, Any] = {"timeout": timedelta(minutes=5)}
    if config.get("endpoint", os.environ.get(_ENDPOINT, "")).startswith("http://"):
        client["allow_http"] = True
    if authority := credentials.get(_AUTHORITY):
        client["root_certificate"] = authority
    return AzureStore(container, config=config, client_options=client, retry_config=retries)  # type: ignore[arg-type]


def _config_of_secret(credentials: Credentials) -> dict[str, str]:
    """Settings of the library by the Secret's keys, of which a separate one counts more than the connection string."""
    config = _config_of_connection(credentials.get(_CONNECTION) or "")
    if credentials.get(_CONNECTION) and not config.get("account_name"):
        message = (
            f"{_CONNECTION} of {credentials.source} names no storage account: copy it as the account shows it, "
            "with AccountName or BlobEndpoint"
        )
        raise StorageRefused("CredentialsInvalid", message)
    names = {ACCOUNT: "account_name", ACCOUNT_KEY: "account_key", _ENDPOINT: "endpoint"}
    names |= {_SAS: "sas_key", _ANONYMOUS: "skip_signature"}
    names |= dict(zip(_PRINCIPAL, ("tenant_id", "client_id", "client_secret"), strict=True))
    config |= {setting: value for key, setting in names.items() if (value := credentials.get(key))}
    # Without this word the pod's workload identity would come before a SAS token.
    for setting, kind in (
        ("client_secret", "client_secret"),
        ("sas_key", "sas_token"),
        ("account_key", "access_key"),
    ):
        if setting in config:
            config["credential_type"] = kind
    return config


def _config_of_connection(text: str) -> dict[str, str]:
    """Settings of the library by a connection string: ``AccountName=…;AccountKey=…;EndpointSuffix=…``."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    endpoint = parts.get("BlobEndpoint", "").rstrip("/")
    account = parts.get("AccountName") or (urlsplit(endpoint).hostname or "").partition(".")[0]
    if account and not endpoint:
        protocol = parts.get("DefaultEndpointsProtocol", "https")
        endpoint = f"{protocol}://{account}.blob.{parts.get('EndpointSuffix', _PUBLIC_SUFFIX)}"
    settings = {
        "account_name": account,
        "account_key": parts.get("AccountKey", ""),
        "sas_key": parts.get("SharedAccessSignature", ""),
        "endpoint": endpoint,
    }
    return {name: value for name, value in settings.items() if value}


def identity_problem(text: str) -> str:
    """Sentence on a login that Microsoft Entra refuses, by the library's error; empty for other errors."""
    code = _ENTRA_CODE.search(text)
    if code is None:
        return ""
    return (
        f"Microsoft Entra refuses the identity ({code[0]}): check tenant and client ID, and that the federated "
        "credential names the issuer of this cluster, the namespace and the ServiceAccount"
    )


def azure_problem(code: str, uri: StorageUri, credentials: Credentials) -> str:
    """Sentence on what the storage account refuses, by its error code; empty for codes that speak for themselves."""
    secret = credentials.source
    match code:
        case "AuthenticationFailed" | "InvalidAuthenticationInfo":
            return (
                f"the storage account of {uri} does not accept {secret}: correct {ACCOUNT_KEY}, renew {_SAS}, or "
                "check the pod's identity"
            )
        case "AuthorizationPermissionMismatch" | "AuthorizationServiceMismatch":
            return (
                f"{uri} may not be used with {secret if credentials.keys else 'the identity of the pods'}: grant it "
                "the role Storage Blob Data Contributor, or a SAS token with the rights to read, write, list and delete"
            )
        case "AuthorizationFailure":
            return (
                f"{uri} may not be used with {secret if credentials.keys else 'the identity of the pods'}: check "
                f"{ACCOUNT_KEY} and the rights of the SAS token, and that the account's firewall admits the cluster"
            )
        case "KeyBasedAuthenticationNotPermitted":
            return (
                f"the storage account of {uri} allows no account keys: use a SAS token or workload identity"
            )
        case "PublicAccessNotPermitted" | "NoAuthenticationInformation":
            return f"{uri} is not public: name a Secret with {ACCOUNT_KEY}, or use workload identity"
        case _:
            return ""
