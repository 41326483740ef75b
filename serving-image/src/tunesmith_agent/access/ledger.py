"""Tokens that clients with budgets have used, by period: counted here, and by others as far as the operator said."""

import json
import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_contract.agent import UsageOfOthers

log = logging.getLogger(__name__)

#: Periods of a client that are kept: the current one, and one before for a clock that is set back.
_KEPT_PERIODS = 2


@dataclass(slots=True)
class Account:
    """Tokens of one client in one period.

    Attributes:
        own: counted by this pod.
        others: counted by all other pods, as the operator said last; None: it has said nothing.
        own_before: counted by this pod when the operator said so.
    """

    own: int = 0
    others: int | None = None
    own_before: int = 0

    @property
    def used(self) -> int:
        """All tokens that are known."""
        return self.own + (self.others or 0)

    def left(self, budget: int, pods: int, is_current: bool) -> float:
        """Tokens that this pod may still use.

        While nothing is heard of the others, each pod has an equal share of what was left.

        Args:
            is_current: the operator is connected.
        """
        if is_current and self.others is not None:
            return budget - self.used
        share = (budget - (self.others or 0) - self.own_before) / pods
        return share - (self.own - self.own_before)


class Ledger:
    """Accounts of all clients, kept on the pod's disk so that a restarted agent goes on from them.

    Attributes:
        run: identifies the counts of this pod; new whenever they start from zero.
    """

    def __init__(self, kept: Path) -> None:
        self.run = uuid.uuid4().hex
        self._kept = kept
        self._accounts: dict[str, dict[str, Account]] = {}
        self._written = ""

    def account(self, client: str, period: str) -> Account:
        """Account of a client in a period; opened at first use."""
        accounts = self._accounts.get(client)
        if accounts is None:
            accounts = self._accounts[client] = {}
        account = accounts.get(period)
        if account is None:
            account = accounts[period] = Account()
            for earliest in sorted(accounts)[:-_KEPT_PERIODS]:
                if earliest != period:
                    del accounts[earliest]
        return account

    def accounts(self, client: str) -> dict[str, Account]:
        """Accounts of a client by period."""
        return self._accounts.get(client, {})

    def learn(self, usage: UsageOfOthers) -> None:
        """Take over what others have counted."""
        for counted in usage.counted_by_others:
            account = self.account(counted.client, counted.period)
            account.others, account.own_before = counted.tokens, account.own

    def load(self) -> None:
        """Go on from what was kept on the pod's disk, if there is anything."""
        try:
            document = json.loads(self._kept.read_bytes())
            accounts = {
                client: {period: _read_account(*counts) for period, counts in periods.items()}
                for client, periods in document["accounts"].items()
            }
            self.run, self._accounts = str(document["run"]), accounts
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("the kept usage of clients is not readable", extra={"error": type(error).__name__})

    def keep(self) -> None:
        """Write the accounts to the pod's disk, if they have changed."""
        accounts = {
            client: {period: _counts(account) for period, account in periods.items()}
            for client, periods in self._accounts.items()
        }
        text = json.dumps({"run": self.run, "accounts": accounts})
        if text == self._written:
            return
        new = self._kept.with_suffix(".new")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(text)
            os.replace(new, self._kept)
        except OSError as error:
            # Serving goes on; only a restart of this agent would forget the latest tokens.
            log.warning("the usage of clients can't be kept", extra={"error": error.strerror})
            return
        self._written = text


def _read_account(own: Any, others: Any, own_before: Any) -> Account:
    return Account(int(own), None if others is None else int(others), int(own_before))


def _counts(account: Account) -> list[Any]:
    return [account.own, account.others, account.own_before]
