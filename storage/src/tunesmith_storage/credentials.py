"""Keys of a Secret that opens a store, mounted as files."""

from collections.abc import Iterable
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR

from .errors import StorageRefused


class Credentials:
    """Keys of the Secret of one role; without a Secret, the pod's own identity opens the store.

    Args:
        role: the use of the Secret, such as ``output``.
        folder: the mounted Secret, a file for each key; it need not exist.
    """

    def __init__(self, role: str, folder: Path) -> None:
        self.role = role
        self._folder = folder
        # kubelet keeps its own links beside the keys, all with two dots in front.
        self.keys = frozenset(
            path.name for path in folder.glob("*") if not path.name.startswith("..") and path.is_file()
        )

    @property
    def source(self) -> str:
        """Name of the Secret in messages."""
        return f"the Secret for {self.role}"

    def get(self, key: str) -> str | None:
        """Value of a key without surrounding white space; None where it is absent or empty."""
        if key not in self.keys:
            return None
        return self.path(key).read_text().strip() or None

    def path(self, key: str) -> Path:
        """File of a key."""
        return self._folder / key

    def require_together(self, *keys: str) -> None:
        """Refuse a Secret that holds some of the keys, but not all.

        Raises:
            StorageRefused: the message names the key to add.
        """
        missing = [key for key in keys if self.get(key) is None]
        if missing and len(missing) < len(keys):
            present = next(key for key in keys if key not in missing)
            message = f"{self.source} has the key {present}, but not {missing[0]}: add {missing[0]}"
            raise StorageRefused("CredentialsIncomplete", message)

    def require_any(self, scheme: str, accepted: Iterable[str]) -> None:
        """Refuse a Secret that has keys, but none that the store uses.

        Raises:
            StorageRefused: the message names the keys that the store uses.
        """
        if self.keys and not self.keys.intersection(accepted):
            expected = ", ".join(accepted)
            message = f"{self.source} has no key that opens {scheme}://: add one of {expected}"
            raise StorageRefused("CredentialsMissing", message)


def load_credentials(roles: Iterable[str], secrets: Path = Path(SECRETS_DIR)) -> Credentials:
    """First Secret that is mounted for one of the roles, else the (empty) one of the first role."""
    by_role = [Credentials(role, secrets / role) for role in roles]
    return next((credentials for credentials in by_role if credentials.keys), by_role[0])
