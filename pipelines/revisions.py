"""What earlier commits and experiments have made, out of git and DVC's cache."""

from __future__ import annotations

from pathlib import Path


def fetch(revision: str, files: list[Path], target: Path) -> None:
    """Copy `files`, or all that lies in folders, as they were at a git revision or in an experiment of the project in
    the current folder, below `target`; what there was not, or isn't in the cache, is left out. Raises `ValueError` for
    a revision that there is not."""
    from dvc.api import DVCFileSystem  # a second to load, which a comparison of folders needs not
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        there = DVCFileSystem(str(Path.cwd()), rev=revision)
        for file in files:
            found = there.find(str(file)) if there.isdir(str(file)) else [str(file)] * there.exists(str(file))
            for one in found:
                copy = target / str(one).lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                try:
                    there.get_file(str(one), str(copy))
                except FileNotFoundError:
                    copy.unlink(missing_ok=True)
    except (SCMError, DvcException) as error:
        raise ValueError(f"{revision}: neither a folder nor a git revision or experiment: {error}") from error
