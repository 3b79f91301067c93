# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch hub push|pull`: datasets and checkpoints to and from the Hugging Face Hub.

The package `huggingface_hub` is an extra; it reads HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE.
A push is one commit, so that no one sees half of it. A pull fills a folder beside its aim, takes
only kinds of files that run no code, is read by the loader, and then appears whole.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from koch_core.command_line import parsed_subcommand, subcommands
from koch_core.errors import KochError
from koch_core.options import OptionModel, option
from koch_core.terminal import say
from koch_vla.hub_cards import dataset_card, model_card

_CARD = "README.md"
_KINDS = ("dataset", "model")
# What belongs to a repository of each kind; a pickle does not.
_DATASET_FILES = ("meta/**", "data/**", "videos/**", "images/**", _CARD)
_MODEL_FILES = ("*.json", "*.safetensors", _CARD)


class HubUnavailableError(KochError):
    """The package that talks to the Hub is missing."""

    def __init__(self) -> None:
        super().__init__(
            "huggingface_hub is not installed. Add it with `./koch setup --with hub`."
        )


class HubError(KochError):
    """The Hub refuses, or is not there."""

    def __init__(self, repo: str, error: BaseException) -> None:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        super().__init__(
            f"{repo}: {first} Is the name right, is HF_TOKEN set for it, and does the network "
            "reach the Hub (HF_ENDPOINT)?"
        )


class HubFolderError(KochError):
    """A folder cannot be pushed, or not be pulled into."""

    def __init__(self, folder: Path, got: str, expected: str) -> None:
        super().__init__(f"{folder}: {got}, expected {expected}.")


@dataclass(frozen=True, kw_only=True)
class HubPush(OptionModel):
    """Upload a dataset, a checkpoint or a training output, with a card of what is known."""

    folder: Path = option(..., "dataset, checkpoint or training output", flags=("folder",))
    repo: str = option(..., "name on the Hub, such as me/block_cup", flags=("repo",))
    private: bool = option(False, "only you see it (where the repository is new)")
    card_only: bool = option(False, "print the card and upload nothing")


@dataclass(frozen=True, kw_only=True)
class HubPull(OptionModel):
    """Download a dataset or a checkpoint into a new folder."""

    repo: str = option(..., "name on the Hub, such as lerobot/pusht", flags=("repo",))
    out: Path = option(..., "new folder", metavar="DIR")
    type: str | None = option(None, "what it is (default: what the Hub has)", choices=_KINDS)
    revision: str | None = option(None, "branch, tag or commit (default: main)", metavar="NAME")


def main(argv: list[str]) -> int:
    """Run the subcommand."""
    kinds = {"push": HubPush, "pull": HubPull}
    parser = subcommands("koch hub", "Datasets and checkpoints on the Hugging Face Hub.", kinds)
    _, options = parsed_subcommand(parser, argv, kinds)
    if isinstance(options, HubPush):
        push(options)
    else:
        pull(options)
    return 0


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")  # an extra that the user adds
    except ImportError as error:
        raise HubUnavailableError from error


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one message."""
    failures: tuple[type[BaseException], ...] = (OSError, ValueError)
    for name in ("httpx", "httpx2"):  # what newer clients speak through
        with contextlib.suppress(ImportError):
            failures = (*failures, importlib.import_module(name).HTTPError)
    try:
        yield
    except failures as error:
        raise HubError(repo, error) from error


# -- push -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """What is pushed.

    Attributes:
        kind: dataset or model.
        folder: Where the files are.
        files: Their paths in the folder.
        patterns: What else of a repository belongs to it: files of an earlier push.
        card: Text of README.md; that of the folder where it has one.
        tag: Git tag by which LeRobot finds the revision of a dataset; empty for a model.
    """

    kind: str
    folder: Path
    files: tuple[str, ...]
    patterns: tuple[str, ...]
    card: str
    tag: str = ""


def parcel(folder: Path, repo: str) -> Parcel:
    """Look at a folder and choose what of it is pushed.

    Raises:
        KochError: It holds neither a dataset nor a checkpoint that can be read.
    """
    folder = folder.expanduser()
    if (folder / "meta/info.json").is_file():
        from koch_episodes.dataset import load_info

        info = load_info(folder)
        files = _matching(folder, _DATASET_FILES)
        card, tag = dataset_card(folder, info), info.format.name
        return Parcel("dataset", folder, files, _DATASET_FILES, _own_card(folder) or card, tag)
    from koch_policy.files import resolve_checkpoint

    checkpoint = resolve_checkpoint(folder)
    files = _matching(checkpoint, _MODEL_FILES)
    if not any(name.endswith(".safetensors") for name in files):
        raise HubFolderError(checkpoint, "no *.safetensors", "a checkpoint with its weights")
    card = _own_card(checkpoint) or model_card(checkpoint, repo)
    return Parcel("model", checkpoint, files, _MODEL_FILES, card)


def _own_card(folder: Path) -> str:
    path = folder / _CARD
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _matching(folder: Path, patterns: tuple[str, ...]) -> tuple[str, ...]:
    found = {
        path.relative_to(folder).as_posix()
        for pattern in patterns
        for path in folder.glob(pattern if not pattern.endswith("**") else f"{pattern}/*")
        if path.is_file() and not path.name.startswith(".")
    }
    return tuple(sorted(found - {_CARD}))


def push(options: HubPush) -> None:
    """Upload a folder in one commit.

    Raises:
        KochError: The folder, the name or the Hub does not allow it.
    """
    what = parcel(options.folder, options.repo)
    if options.card_only:
        say(what.card.rstrip("\n"))
        return
    hub = _hub()
    size_mb = sum((what.folder / name).stat().st_size for name in what.files) / 1e6
    say(f"{options.repo}: pushing a {what.kind}, {len(what.files)} files, {size_mb:.0f} MB")
    with _told(options.repo):
        api = hub.HfApi()
        api.create_repo(
            options.repo, repo_type=what.kind, private=options.private or None, exist_ok=True
        )
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(what.folder / name))
            for name in what.files
        ]
        gone = _left_over(api.list_repo_files(options.repo, repo_type=what.kind), what)
        operations += [hub.CommitOperationDelete(path_in_repo=name) for name in gone]
        if gone:
            say(f"{options.repo}: removing {len(gone)} file(s) of what was there before")
        card = what.card.encode()
        operations.append(hub.CommitOperationAdd(path_in_repo=_CARD, path_or_fileobj=card))
        commit = api.create_commit(
            options.repo, operations, commit_message=f"Push a {what.kind}", repo_type=what.kind
        )
        if what.tag:
            # LeRobot looks for the revision that has the name of the format.
            with contextlib.suppress(hub.errors.RevisionNotFoundError):
                api.delete_tag(options.repo, tag=what.tag, repo_type=what.kind)
            api.create_tag(options.repo, tag=what.tag, repo_type=what.kind)
    say(f"pushed: {commit.commit_url}")


def _left_over(there: Iterable[str], what: Parcel) -> list[str]:
    """Files of a repository that belong to an earlier push.

    LeRobot reads every table of a dataset's folder, and a policy whatever weights it finds.
    """
    named = {pattern for pattern in what.patterns if not pattern.endswith("/**")}
    folders = tuple(
        pattern.removesuffix("**") for pattern in what.patterns if pattern not in named
    )
    return [
        name
        for name in there
        if name not in what.files
        and name != _CARD
        and (
            name.startswith(folders)
            or ("/" not in name and any(fnmatch(name, pattern) for pattern in named))
        )
    ]


# -- pull -------------------------------------------------------------------------------------


def pull(options: HubPull) -> None:
    """Download a repository into a new folder; called again it goes on where it was interrupted.

    Raises:
        KochError: The folder is there, or the Hub or the content does not allow it.
    """
    out = options.out.expanduser()
    if out.exists():
        raise HubFolderError(out, "is there already", "a new folder")
    hub, partial = _hub(), out.with_name(f"{out.name}.partial")
    with _told(options.repo):
        kind = options.type or _kind_of(hub.HfApi(), options.repo)
        say(f"{options.repo}: pulling a {kind}")
        patterns = _DATASET_FILES if kind == "dataset" else _MODEL_FILES
        hub.snapshot_download(
            options.repo,
            repo_type=kind,
            revision=options.revision,
            local_dir=str(partial),
            allow_patterns=list(patterns),
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's notes on the download
    _check(partial, kind)
    partial.rename(out)
    say(f"{out}: a {kind} of {sum(path.is_file() for path in out.rglob('*'))} files")


def _kind_of(api: Any, repo: str) -> str:
    found = [kind for kind in _KINDS if api.repo_exists(repo, repo_type=kind)]
    if len(found) == 1:
        return found[0]
    what = "neither a dataset nor a model" if not found else "a dataset and a model: give --type"
    raise HubError(repo, KochError(f"the Hub has {what} of this name."))


def _check(folder: Path, kind: str) -> None:
    """Read what was pulled, as its user will."""
    if kind == "dataset":
        from koch_episodes.dataset import load_info

        info = load_info(folder)
        info.format.tasks(folder)
        episodes = info.format.episodes(folder, info)
        wanted = [place.path for each in episodes for place in each.videos.values()]
        wanted += info.format.frame_files(folder, info, episodes) or [folder / "data"]
        for path in dict.fromkeys(wanted):
            if not path.exists():
                got = f"no {path.relative_to(folder)}"
                raise HubFolderError(folder, got, "all files that its tables name")
        return
    from koch_policy.files import CONFIG

    if not (folder / CONFIG).is_file() or not list(folder.glob("*.safetensors")):
        raise HubFolderError(folder, "no config.json with *.safetensors", "a checkpoint")
