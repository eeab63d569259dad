"""A hook of the site: links that leave docs/ lead into the repository, where its address is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page with its links out of docs/ rewritten; what does not exist stays, and is found."""
    del files
    docs = Path(config.docs_dir)
    here = (docs / page.file.src_uri).parent
    repository = str(config.extra["repository"] or "").rstrip("/")

    def rewritten(link: re.Match[str]) -> str:
        text, target, anchor = link[1], (here / link[2]).resolve(), link[3] or ""
        if target.is_relative_to(docs) or not target.exists():
            return link[0]
        path = target.relative_to(docs.parent).as_posix()
        kind = "tree" if target.is_dir() else "blob"
        return f"[{text}]({repository}/{kind}/HEAD/{path}{anchor})" if repository else f"{text} (`{path}`)"

    return _LINK.sub(rewritten, markdown)
