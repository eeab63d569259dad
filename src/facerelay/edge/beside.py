"""Small files beside an outbox, which one process holds: what others have to say to it."""

from __future__ import annotations

from pathlib import Path


def write(place: Path, text: str) -> None:
    """Put a text in the place of another at once: a reader never sees half of it.

    Whoever runs the outbox may be another user, who can read it as the umask says.

    Raises:
        OSError: it cannot be written.
    """
    new = place.with_name(f"{place.name}.new")
    new.write_text(text, encoding="ascii")
    new.replace(place)
