"""What the demo prints: an account for people in 80 columns, plain lines where nobody watches."""

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 80
_INDENT = "   "


class Printer:
    """Prints the account step by step."""

    def __init__(self) -> None:
        plain = Console(highlight=False)
        self._console = Console(highlight=False, width=min(WIDTH, plain.width) if plain.is_terminal else WIDTH)
        self._number = 0

    def say(self, text: str) -> None:
        """Prints one paragraph."""
        for line in text.splitlines():
            self._console.print("\n".join(textwrap.wrap(line, self._console.width)), markup=False)

    def failure(self, text: str) -> None:
        """Prints what went wrong, with its line breaks, lines of logs as long as they are."""
        self._console.print(text, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Prints one paragraph under a step."""
        for line in textwrap.wrap(text, self._console.width - len(_INDENT)):
            self._console.print(f"{_INDENT}{line}", markup=False)

    def command(self, text: str) -> None:
        """Prints a command for the reader to copy: on one line, however long."""
        self._console.print(f"    {text}", markup=False, soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """Prints a table whose first `left` columns are text and the others numbers."""
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
        table.add_column(" ")
        for position, heading in enumerate(headings):
            table.add_column(escape(heading), justify="left" if position < left else "right")
        for row in rows:
            table.add_row("", *(escape(cell) for cell in row))
        self._console.print(table)

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
        """Announces a step, shows a bar while it lasts if somebody watches, and gives a function that moves it.

        Args:
            total: how often the function will be called; None for a step whose length nobody knows.
        """
        self._number += 1
        started = time.monotonic()
        self._console.print(f"\n[bold]{self._number}  {escape(title)}[/bold]")
        if not self._console.is_terminal:
            yield lambda _: None
        else:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn())
            with Progress(*columns, console=self._console, transient=True) as progress:
                task = progress.add_task("starting", total=total)
                parts = iter(range(1_000_000))

                def move(part: str) -> None:
                    progress.update(task, description=f"{part:<28.28}", completed=next(parts) if total else None)

                yield move
        self._console.print(f"{_INDENT}[dim]{time.monotonic() - started:.1f} s[/dim]")
