# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a button does: the services and actions that the command line calls as well.

There is no publisher here; the pad has its own in `koch_console.nodes.hands`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from action_msgs.srv import CancelGoal
from koch_interfaces.action import RunPolicy
from koch_interfaces.srv import (
    DiscardEpisode,
    ResetWorld,
    StartEpisode,
    StopEpisode,
    UndoDiscard,
)
from rclpy.action import ActionClient
from std_srvs.srv import SetBool, Trigger

from koch_console.commands import COMMANDS, PageAnswer, PageRequest
from koch_rig.rig import Rig, Role

if TYPE_CHECKING:
    from rclpy.node import Node

_ANSWER_S = 15.0
_STOP_S = 3.0  # then a person must cut the power
_START_S = 40.0  # a start waits for streams, ten seconds by default
Values = Mapping[str, Any]


class Requests:
    """Calls services; its answers are sentences for a person.

    Args:
        node: Owns the clients; its executor must spin in another thread.
        rig: Its arms.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        self._node, self._rig = node, rig
        self._clients: dict[str, Any] = {}
        self._add_clients()
        self._runs = ActionClient(node, RunPolicy, "policy/run")
        #: What came of the last run of a policy that was started here.
        self.running = ""
        self._doing: Mapping[str, Callable[[Values], Awaitable[PageAnswer]]] = {
            "stop": self._stop,
            "resume": lambda values: self._of_arm(values, "resume", Trigger.Request()),
            "home": lambda values: self._of_arm(values, "home", Trigger.Request()),
            "torque": lambda v: self._of_arm(v, "torque", SetBool.Request(data=v["on"])),
            "teleop": lambda v: self._of_arm(v, "teleop/clutch", SetBool.Request(data=v["on"])),
            "record.start": self._record,
            "record.stop": self._record_stop,
            "record.redo": self._redo,
            "record.discard": lambda _: self._discard(),
            "record.undo": lambda _: self._call("episodes/undo", UndoDiscard.Request()),
            "policy.run": self._run,
            "policy.pause": lambda _: self._call("policy/pause", Trigger.Request()),
            "policy.resume": lambda _: self._call("policy/resume", Trigger.Request()),
            "policy.stop": lambda _: self._cancel(),
            "world.reset": lambda _: self._call("sim/reset", ResetWorld.Request(seed=-1)),
            "world.demonstrate": lambda _: self._call("sim/demonstrate", Trigger.Request()),
        }
        assert set(self._doing) == set(COMMANDS)

    def close(self) -> None:
        """Destroy what a node does not destroy by itself."""
        self._runs.destroy()

    def _add_clients(self) -> None:
        for arm in self._rig.arms.values():
            if arm.role is Role.FOLLOWER:
                self._add(SetBool, f"{arm.name}/torque")
                for name in ("stop", "resume", "home"):
                    self._add(Trigger, f"{arm.name}/{name}")
                self._add(SetBool, f"{arm.name}/teleop/clutch")  # of a leader's node, or of jog
        self._add(StartEpisode, "episodes/start")
        self._add(StopEpisode, "episodes/stop")
        self._add(DiscardEpisode, "episodes/discard")
        self._add(UndoDiscard, "episodes/undo")
        self._add(Trigger, "policy/pause")
        self._add(Trigger, "policy/resume")
        self._add(CancelGoal, "policy/run/_action/cancel_goal")
        if self._rig.has_simulated_table:
            self._add(ResetWorld, "sim/reset")
            self._add(Trigger, "sim/demonstrate")

    def _add(self, kind: Any, name: str) -> None:
        self._clients[name] = self._node.create_client(kind, name)

    async def do(self, request: PageRequest) -> PageAnswer:
        """Do what is asked for."""
        return await self._doing[request.name](request.values)

    # -- calls ----------------------------------------------------------------------------------

    async def _call(self, name: str, message: Any, timeout_s: float = _ANSWER_S) -> PageAnswer:
        """Call a service whose reply has `success` and `message`."""
        reply = await self._reply(name, message, timeout_s)
        return reply if isinstance(reply, PageAnswer) else PageAnswer(reply.success, reply.message)

    async def _reply(self, name: str, message: Any, timeout_s: float = _ANSWER_S) -> Any:
        """The reply of a service, or a PageAnswer that says why there is none."""
        client = self._clients.get(name)
        if client is None:
            return PageAnswer(False, f"This rig has no service {name}.")
        if not client.service_is_ready():
            return PageAnswer(False, f"No node offers {client.srv_name}: does it run?")
        future = client.call_async(message)
        try:
            return await _result(future, timeout_s)
        except asyncio.TimeoutError:
            client.remove_pending_request(future)
            return PageAnswer(False, f"{client.srv_name} did not answer within {timeout_s:.0f} s.")

    async def _of_arm(self, values: Values, name: str, message: Any) -> PageAnswer:
        return await self._call(f"{values['arm']}/{name}", message)

    # -- arms -----------------------------------------------------------------------------------

    async def _stop(self, _: Values) -> PageAnswer:
        """Stop every follower, at once; none waits for another."""
        arms = [arm.name for arm in self._rig.arms.values() if arm.role is Role.FOLLOWER]
        calls = (self._call(f"{arm}/stop", Trigger.Request(), _STOP_S) for arm in arms)
        answers = await asyncio.gather(*calls)
        failed = [a.text for a in answers if not a.success]
        if failed:
            return PageAnswer(False, f"NOT STOPPED: {' '.join(failed)} Cut the power.")
        return PageAnswer(True, "Stopped. Resume lets the arm obey again.")

    # -- episodes -------------------------------------------------------------------------------

    async def _record(self, values: Values) -> PageAnswer:
        message = StartEpisode.Request(task=values["task"], duration_s=values["duration_s"])
        return await self._call("episodes/start", message, _START_S)

    async def _record_stop(self, values: Values) -> PageAnswer:
        message = StopEpisode.Request(outcome=values["outcome"], keep=True)
        reply = await self._reply("episodes/stop", message)
        if isinstance(reply, PageAnswer):
            return reply
        words = reply.verdict if reply.success and reply.verdict else reply.message
        return PageAnswer(reply.success, words)

    async def _discard(self, why: str = "discarded on the page") -> PageAnswer:
        return await self._call("episodes/discard", DiscardEpisode.Request(reason=why))

    async def _redo(self, values: Values) -> PageAnswer:
        gone = await self._discard("to be recorded again")
        return await self._record(values) if gone.success else gone

    # -- policies -------------------------------------------------------------------------------

    async def _run(self, values: Values) -> PageAnswer:
        if not self._runs.server_is_ready():
            advice = "Start one with koch up --policy DIR."
            return PageAnswer(False, f"No policy node runs. {advice}")
        goal = RunPolicy.Goal(task=values["task"], max_duration_s=values["max_duration_s"])
        try:
            handle = await _result(self._runs.send_goal_async(goal), _ANSWER_S)
        except asyncio.TimeoutError:
            told = f"The policy node did not answer within {_ANSWER_S:.0f} s"
            return PageAnswer(False, f"{told} and may start yet; End run cancels it.")
        if not handle.accepted:
            return PageAnswer(False, "The policy node refused the run.")
        self.running = ""
        handle.get_result_async().add_done_callback(self._on_run_end)
        return PageAnswer(True, "The policy drives; stop or take over at any time.")

    def _on_run_end(self, future: Any) -> None:
        result = future.result().result
        how = "The run ended well" if result.success else "The run ended"
        self.running = f"{how}: {result.reason or 'finished'}; {result.steps} actions."

    async def _cancel(self) -> PageAnswer:
        """Cancel the runs of all clients: an empty goal id and time zero mean all."""
        name = "policy/run/_action/cancel_goal"
        reply = await self._reply(name, CancelGoal.Request())
        if isinstance(reply, PageAnswer):
            return reply
        if not reply.goals_canceling:
            return PageAnswer(False, "No run is under way.")
        return PageAnswer(True, "The run ends; the arm holds its pose.")


async def _result(future: Any, timeout_s: float) -> Any:
    """Wait in the event loop for what rclpy's executor completes in its thread."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    await asyncio.wait_for(done.wait(), timeout_s)
    return future.result()
