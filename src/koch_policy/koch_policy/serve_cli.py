# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch serve`: a policy on this computer for arms on others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from koch_core.command_line import from_command_line
from koch_core.options import OptionError, OptionModel, option, same_as
from koch_core.terminal import say
from koch_core.working import Working
from koch_policy.files import resolve_checkpoint
from koch_policy.server.remote import PORT, TOKEN
from koch_ros.shared_options import CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class ServeOptions(OptionModel):
    """What `koch serve` is asked for."""

    policy: str = same_as(CHECKPOINT, MISSING, text="checkpoint folder, or a training output")
    bind: str = option(
        "127.0.0.1", f"address; one that others reach needs a token in {TOKEN}", metavar="ADDRESS"
    )
    port: int = option(PORT, "port; 0 takes any that is free", low=0, high=65535)
    certificate: Path | None = option(None, "PEM file: encrypts (tls://)", metavar="FILE")
    key: Path | None = option(None, "PEM file of its key, if not in the same", metavar="FILE")
    runtime: str = option("auto", "what computes", choices=("auto", "torch", "openvino"))
    precision: str = option("f32", "of the network", choices=("f32", "bf16"))
    device: str = option("auto", "for torch", choices=("auto", "cpu", "cuda"))
    threads: int = option(0, "CPU threads of torch; 0: its own choice", low=0)

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            OptionError: A key without a certificate.
        """
        super().__post_init__()
        if self.key is not None and self.certificate is None:
            raise OptionError("--key", self.key, "--certificate FILE beside it")


def main(argv: Sequence[str]) -> int:
    """Run the subcommand until Ctrl-C.

    Raises:
        KochError: The policy cannot be loaded, or the server would be open to strangers.
    """
    options = from_command_line(
        ServeOptions, "koch serve", "Run a policy for arms on other computers.", argv
    )
    folder = resolve_checkpoint(Path(options.policy).expanduser())
    from koch_policy.runtime import load_policy
    from koch_policy.server.listen import Door, Listener, checkpoint_policy, token_of_environment

    door = Door(
        options.bind, options.port, token_of_environment(), options.certificate, options.key
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with Working("koch serve: loading the policy"):
        policy = load_policy(
            folder,
            options.runtime,
            precision=options.precision,
            device=options.device,
            full_horizon=True,
            threads=options.threads or None,
        )
        listener = Listener(checkpoint_policy(policy, folder), door)
    scheme = "tls" if options.certificate else "tcp"
    say(f"{folder}: {policy.runtime}, at {scheme}://{options.bind}:{listener.port}")
    if not door.is_local and options.certificate is None:
        say("In clear: who listens on the way sees images and token. --certificate encrypts.")
    try:
        listener.run()
    except KeyboardInterrupt:
        listener.close()
    return 0
