# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the bring-up package; each says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from koch_core.errors import KochError


class GraphError(KochError):
    """The rig and the chosen options do not make a node graph."""


class UnknownNodeError(GraphError):
    """`--only` or `--set` names something that the graph does not hold."""

    def __init__(self, option: str, wanted: str, choices: Iterable[str]) -> None:
        super().__init__(
            f"{option} {wanted}: no node, package or group of this graph has that name. "
            f"Choose from: {', '.join(choices)}."
        )


class SettingError(GraphError):
    """`--set` does not say which parameter gets which value."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"--set {text}: expected {expected}.")


class NotSimulatedError(GraphError):
    """A simulation option was given with a rig that describes real hardware."""

    def __init__(self, rig_path: object, option: str) -> None:
        super().__init__(
            f"--{option} needs a simulated rig, but {rig_path} has no `simulation` section. "
            "Use --rig config/rig.sim.yaml, or leave the option out."
        )


class NamesakesError(GraphError):
    """Nodes of the graph run already, started by someone else."""

    def __init__(self, names: Iterable[str], domain: str) -> None:
        super().__init__(
            f"Nodes of these names run already in ROS domain {domain}: {', '.join(names)}. Two "
            "of a name obey the same commands: two arms would move. Is another `koch up` or "
            "launch running, here or on another computer? Stop it, or give this one a namespace "
            "(--namespace NAME) or a ROS_DOMAIN_ID of its own."
        )


class ParameterFileError(GraphError):
    """`--params-file` would set nothing."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(
            f"--params-file {path}: {why}. Expected a ROS parameter file, such as "
            "`/follower/driver: {ros__parameters: {on_exit: rest}}`; `koch up --list` shows the "
            "names of the nodes."
        )


class OutputFileError(KochError):
    """A file that was asked for cannot be written."""

    def __init__(self, option: str, path: object, why: object) -> None:
        super().__init__(f"{option} {path}: cannot be written ({why}). Choose another place.")


class ExecutableNotFoundError(KochError):
    """A node of the graph is neither installed nor importable."""

    def __init__(self, package: str, executable: str, module: str) -> None:
        super().__init__(
            f"Node executable {package}/{executable} was found neither in the ROS package index "
            f"nor as Python module {module}. Build the workspace with `./koch setup` "
            f"(leave {package.removeprefix('koch_')} out of --without), or source the "
            "install/local_setup.bash of the workspace that holds it."
        )


class SubcommandUnavailableError(KochError):
    """A subcommand belongs to a package or library that this installation lacks."""

    def __init__(self, missing: str, remedy: str) -> None:
        super().__init__(f"this subcommand needs {missing}, which is not installed here. {remedy}")


class UnknownSubcommandError(KochError):
    """The command line starts with no subcommand of ours."""

    def __init__(self, verb: str, choices: Iterable[str]) -> None:
        names = list(choices)
        close = difflib.get_close_matches(verb, names, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        super().__init__(
            f"there is no subcommand {verb!r}.{hint} Choose from: {', '.join(names)}."
        )


class NothingHeardError(KochError):
    """Nothing of a rig was heard, so there is nothing to draw."""

    def __init__(self, streams: Iterable[str]) -> None:
        super().__init__(
            "nothing was heard of this rig, so no image was written. Listened to: "
            + ", ".join(f"/{stream}" for stream in streams)
            + ". Is `koch up` running, with the same rig and ROS_DOMAIN_ID?"
        )


class EmptyBagError(KochError):
    """A bag holds nothing that can be shown."""

    def __init__(self, path: object, wanted: Iterable[str], found: Iterable[str]) -> None:
        super().__init__(
            f"{path} holds none of this rig's topics. Wanted: {', '.join(wanted)}. "
            f"Found: {', '.join(found) or 'nothing'}. Give the rig it was recorded with: --rig."
        )


class BagMomentError(KochError):
    """A moment was asked for that a bag does not cover."""

    def __init__(self, path: object, at_s: float, length_s: float) -> None:
        super().__init__(f"{path} is {length_s:.2f} s long; --at {at_s:g} lies outside of it.")


class GraphEndedError(KochError):
    """A node graph that was to run in the background has ended."""

    def __init__(self, code: int, log: object, cause: str) -> None:
        super().__init__(
            f"the node graph ended with exit code {code}. Its whole output is in {log}.\n"
            f"{cause or 'No node failed: something asked it to end.'}"
        )


class GraphNotReadyError(KochError):
    """A node graph that was started in the background says nothing."""

    def __init__(self, waited_s: float, log: object) -> None:
        super().__init__(f"the nodes were not ready within {waited_s:.0f} s. Look into {log}.")


class InputDeviceError(KochError):
    """A gamepad cannot be read."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(
            f"--gamepad {path}: {why}. Expected an event device such as "
            "/dev/input/by-id/usb-...-event-joystick that you may read (group `input`). Plug one "
            "in, name another, or take --keyboard."
        )


class StepError(KochError):
    """A step of long work, such as `koch demo`, did not reach its aim."""


class DemoError(StepError):
    """A step of the demo did not reach its aim."""


class BenchmarksNotFoundError(KochError):
    """The benchmark scripts are not where they are looked for."""

    def __init__(self, folder: object, missing: Iterable[str], names: Iterable[str]) -> None:
        wanted = ", ".join(missing) or "any benchmark"
        super().__init__(
            f"{folder} does not hold {wanted}; it holds: {', '.join(names) or 'none'}. "
            "Run koch bench inside a checkout, or give --folder."
        )
