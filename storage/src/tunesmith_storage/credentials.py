"""The keys of a Secret that opens a store, mounted as files."""

from collections.abc import Iterable
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR

from .errors import StorageRefused


class Credentials:
    """What the Secret of one role holds; without a Secret, the pod's own identity opens the store.

    Args:
        role: what the Secret opens, such as ``output``.
        folder: where its keys lie, a file each; it need not be there.
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
        """The Secret in words."""
        return f"the Secret for {self.role}"

    def get(self, key: str) -> str | None:
        """The value of a key without white space around it; None where it is absent or empty."""
        if key not in self.keys:
            return None
        return self.path(key).read_text().strip() or None

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self._folder / key

    def require_together(self, *keys: str) -> None:
        """Refuse a Secret that holds some of the keys, but not all.

        Raises:
            StorageRefused: it names the key to add.
        """
        missing = [key for key in keys if self.get(key) is None]
        if missing and len(missing) < len(keys):
            present = next(key for key in keys if key not in missing)
            message = f"{self.source} has the key {present}, but not {missing[0]}: add {missing[0]}"
            raise StorageRefused("CredentialsIncomplete", message)

    def require_any(self, scheme: str, known: Iterable[str]) -> None:
        """Refuse a Secret none of whose keys says anything to the store.

        Raises:
            StorageRefused: it names the keys that do.
        """
        if self.keys and not self.keys.intersection(known):
            expected = ", ".join(known)
            message = f"{self.source} has no key that opens {scheme}://: add one of {expected}"
            raise StorageRefused("CredentialsMissing", message)


def load_credentials(roles: Iterable[str], secrets: Path = Path(SECRETS_DIR)) -> Credentials:
    """The first Secret that is mounted for one of the roles, else none (of the first role)."""
    found = [Credentials(role, secrets / role) for role in roles]
    return next((credentials for credentials in found if credentials.keys), found[0])
