"""Stage headings with elapsed times."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Stages:
    """The stages of a run, in their order; durations in seconds."""

    console: Console
    durations: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Print the title now, and the time that it took at the end; a stage of the same title adds up."""
        self.console.rule(title, align="left")
        started = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - started
            self.durations[title] = self.durations.get(title, 0.0) + taken
            self.console.print(f"[dim]{title}: {taken:.0f} s[/dim]")

    def table(self) -> Table:
        """All stages with their times, and the sum."""
        table = Table("stage", "seconds", title="Where the time went", title_justify="left")
        table.columns[1].justify = "right"
        for title, seconds in self.durations.items():
            table.add_row(title, f"{seconds:.0f}")
        table.add_section()
        table.add_row("all", f"{sum(self.durations.values()):.0f}")
        return table
