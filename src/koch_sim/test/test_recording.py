# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes of the lockstep simulation are ordinary bags that the converter takes."""

import json

import numpy as np
import pytest

from koch_episodes.bag import open_bag
from koch_episodes.convert import cli as convert_cli
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_episodes.decode import NamedValues
from koch_rig.fingerprint import fingerprint
from koch_rig.load import load_rig
from koch_sim import record_cli
from koch_sim.lockstep import Lockstep
from koch_sim.recording import LockstepRecorder


def test_a_bag_holds_what_was_heard_in_order(rig, tmp_path):
    writer = LockstepRecorder(rig)
    lockstep = Lockstep(rig)
    lockstep.listen(writer.hear)
    lockstep.run(0.2)
    lockstep.hush()
    writer.hear("no/such_stream", 1, NamedValues(("x",), (1.0,)))
    folder = writer.write(tmp_path / "episode_000003", "a task", 3, "success")
    lockstep.close()
    bag = open_bag(folder)
    assert bag.custom["koch.task"] == "a task"
    assert bag.custom["koch.outcome"] == "success"
    assert bag.custom["koch.fingerprint"] == fingerprint(rig)
    topics = set(bag.topics)
    assert topics == {stream.topic for stream in rig.streams.values()}
    times = [message.log_ns for message in bag.messages(topics)]
    assert times == sorted(times)
    assert len(times) > 60


@pytest.mark.slow
def test_recorded_demonstrations_convert_to_a_dataset(tmp_path, rig):
    root = tmp_path / "episodes"
    assert record_cli.main(["-n", "1", "--even", "--seed", "21", "--root", str(root)]) == 0
    out = tmp_path / "dataset"
    words = [str(root), "--out", str(out), "--vcodec", "copy", "--jobs", "1"]
    assert convert_cli.main(words) == 0
    reader = LeRobotDatasetReader(out)
    assert len(reader.episodes) == 1
    assert 4.0 < len(reader) / reader.fps < 9.0
    action = reader.column("action")
    assert np.isfinite(action).all()
    assert np.abs(np.diff(action, axis=0)).max() > 0.5
    assert reader.image("observation.images.above", 5).shape == (480, 640, 3)
    made = json.loads((out / "meta/koch.json").read_text())
    assert made["fingerprint"] == fingerprint(load_rig(rig.path))
