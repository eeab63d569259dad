"""A folder as Kubernetes mounts a Secret or a ConfigMap: links to links, changed all at once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

_numbers = count(1)


def mount(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put files into a folder, in place of what was there, in the kubelet's own order.

    A new folder is filled, `..data` is led to it by one rename, then the names that users see are made
    (`name` is `..data/name`), those that are no more are removed, and the folder from before goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "..data"
    before = data.resolve() if data.is_symlink() else None
    fresh = folder / f"..2026_11_21_{next(_numbers):06}"
    fresh.mkdir(mode=0o755)
    for name, content in files.items():
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(0o440)
    link = folder / "..data_tmp"
    link.symlink_to(fresh.name)
    link.rename(data)
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    for path in folder.iterdir():
        if not path.name.startswith("..") and path.name not in files:
            path.unlink()
    if before is not None:
        shutil.rmtree(before)
