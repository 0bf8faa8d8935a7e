"""The errors that a user can act on; everything else is a bug and may show a traceback."""

from __future__ import annotations


class AgentError(Exception):
    """Something is wrong that the administrator can put right.

    ``what`` says what is wrong, ``where`` names the file, address or program concerned, ``hint``
    says what to do. Printed in one place for the command line (``cli``) and one for the daemon
    (``notices.problems``), never as a traceback.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Keep the three parts; ``str()`` joins them to one line."""
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Return ``where: what; hint`` on one line, leaving out what is empty."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.hint}" if self.hint else line

    def as_dict(self) -> dict[str, str]:
        """Return the parts under the names that ``status.json`` uses."""
        return {"what": self.what, "where": self.where, "hint": self.hint}


def printable(text: str, longest: int = 60) -> str:
    """Return the text as a part of one line: cut short, without what a terminal would obey."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[: longest + 1]
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
