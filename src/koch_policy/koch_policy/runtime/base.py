# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What all runtimes share: observation handling, feature reuse, restoring and checking actions.

An engine computes the network; this module decides what to compute. Iterative policies encode
each camera image once: features are remembered by the image's content, so that the second
observation step of a Diffusion policy is yesterday's first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.checkpoint import Checkpoint
from koch_policy.configs import ACTION, ENVIRONMENT, STATE, TASK, FeatureType, PolicyConfig
from koch_policy.errors import NotFiniteError, ObservationError, PolicyError
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.registry import IterativeModel, iterative_model
from koch_policy.normalize import Normalizer
from koch_policy.policy import Observation
from koch_policy.runtime.observation import ObservationReader


class Engine(Protocol):
    """Computes one network. Vectors in and actions out are normalised; images are raw."""

    name: str

    def chunk(self, vectors: dict[str, Tensor], images: list[Tensor]) -> Tensor:
        """Run a single-shot policy: normalised horizon (1, T, A)."""
        ...

    def cameras(self, images: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """Encode some (camera, image) pairs."""
        ...

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return an iterative policy's condition."""
        ...

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Evaluate an iterative policy's network."""
        ...


@runtime_checkable
class BatchEngine(Protocol):
    """An engine that computes the chunks of several observations at once."""

    def chunks(self, vectors: dict[str, Tensor], images: Sequence[Sequence[Tensor]]) -> Tensor:
        """Run a single-shot policy: vectors (B, D), B times the cameras' images; (B, T, A)."""
        ...


class EnginePolicy:
    """A policy on an engine; see `koch_policy.policy.Policy` for the interface."""

    def __init__(
        self, checkpoint: Checkpoint, engine: Engine, *, full_horizon: bool = False
    ) -> None:
        self._checkpoint = checkpoint
        self.engine = engine
        self.reader = ObservationReader(checkpoint)
        self._normalizer: Normalizer = checkpoint.normalizer
        self._model = iterative_model(checkpoint.model)
        self._full_horizon = full_horizon
        self._steps: int | None = None
        self.condition: Tensor | None = None  # of an iterative policy's newest observation
        self.draws = int(checkpoint.extras.execution.get("draws", 1))
        room = 2 * checkpoint.config.n_obs_steps * max(len(checkpoint.config.cameras), 1)
        self._features: OrderedDict[tuple[int, bytes], Tensor] = OrderedDict()
        self._room = room
        self.encoded = 0  # images encoded so far; tests and benchmarks read it

    @property
    def config(self) -> PolicyConfig:
        """The policy's configuration."""
        return self._checkpoint.config

    @property
    def extras(self) -> CheckpointMetadata:
        """Names, units and fingerprint that came with the checkpoint."""
        return self._checkpoint.extras

    @property
    def normalizer(self) -> Normalizer:
        """The scaling of observations and actions."""
        return self._normalizer

    @property
    def runtime(self) -> str:
        """Name of the engine."""
        return self.engine.name

    @property
    def rename(self) -> Mapping[str, str]:
        """{name of the rig's feature: name of the policy's input}, where they differ."""
        return self.reader.rename

    @property
    def is_iterative(self) -> bool:
        """True when the policy refines noise and can be guided while it does."""
        return self._model is not None

    @property
    def network(self) -> IterativeModel:
        """What an iterative policy computes around the engine's evaluations; without weights."""
        assert self._model is not None  # asked of iterative policies only
        return self._model

    def example(self) -> dict[str, Any]:
        """Return a made-up observation of the right shapes; see `example_observation`."""
        return example_observation(self._checkpoint)

    def require_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Raise LayoutError if the caller's element names differ from the checkpoint's."""
        self.reader.require_names(names)

    def set_steps(self, steps: int | None) -> None:
        """Change the number of denoising steps; None takes the configuration's."""
        self._steps = steps

    def reset(self) -> None:
        """Forget history and features."""
        self.reader.reset()
        self._features.clear()

    def observe(self, observation: Observation) -> None:
        """Take in a tick's observation; an iterative policy encodes its images already."""
        read = self.reader.read(observation)
        if self._model is not None:
            self._encoded([(i, read[key][-1]) for i, key in enumerate(self.config.cameras)])

    @property
    def computes_batches(self) -> bool:
        """Whether `predict_batch` can be called: single-shot policies on torch."""
        return self._model is None and isinstance(self.engine, BatchEngine)

    def predict_batch(
        self, observations: Sequence[Observation]
    ) -> list[NDArray[np.float32] | Exception]:
        """Return what `predict` would for each: its chunk, or the error that it raises."""
        assert isinstance(self.engine, BatchEngine)  # see `computes_batches`
        results: list[NDArray[np.float32] | Exception] = []
        read: dict[int, dict[str, Tensor]] = {}
        for number, observation in enumerate(observations):
            results.append(PolicyError("not computed"))
            try:
                read[number] = self.reader.read(observation)
            except PolicyError as exc:
                results[number] = exc
        if not read:
            return results
        with torch.inference_mode():
            vectors = [self._vectors(each) for each in read.values()]
            horizons = self.engine.chunks(
                {key: torch.cat([each[key][-1:] for each in vectors]) for key in vectors[0]},
                [[each[key][-1] for key in self.config.cameras] for each in read.values()],
            )
            for row, number in enumerate(read):
                try:
                    results[number] = self.restore(horizons[row : row + 1])
                except NotFiniteError as exc:
                    results[number] = exc
        return results

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk (T, A) in dataset units whose first step belongs to this observation."""
        read = self.reader.read(observation)
        with torch.inference_mode():
            if self._model is None:
                vectors = {k: v[-1:] for k, v in self._vectors(read).items()}
                images = [read[key][-1] for key in self.config.cameras]
                horizon = self.engine.chunk(vectors, images)
            else:
                condition = self._condition(read)
                horizon = self._mean_of_draws(self._model, condition, noise)
            return self.restore(horizon)

    def _mean_of_draws(
        self, model: IterativeModel, condition: Tensor, noise: NDArray[np.float32] | None
    ) -> Tensor:
        """Return the mean of the draws, (1, T, A), which commits to no error of a single one.

        Draws come in pairs from a noise and its negative, whose errors cancel for the most part.
        """
        total, start = torch.zeros(()), self._noise(noise)
        for draw in range(self.draws):
            if draw:
                start = -start if draw % 2 else torch.randn_like(start)
            total = total + model.integrate(
                lambda x, time: self.engine.evaluate(x, time, condition), start, self._steps
            )
        return total / self.draws

    def encode(self, observation: Observation) -> Tensor:
        """Return the condition of an iterative policy, for callers that guide the sampling."""
        read = self.reader.read(observation)
        with torch.no_grad():
            return self._condition(read)

    def noise_error(
        self, condition: Tensor, actions: NDArray[np.floating[Any]], noise: Tensor
    ) -> float:
        """Return how far an iterative policy is from the noise that is in noisy actions.

        Args:
            condition: Under which observation.
            actions: Of a whole horizon (T, A), in dataset units.
            noise: (levels, T, A); from little noise to much.
        """
        whole = torch.from_numpy(np.asarray(actions, dtype=np.float32))
        normal = self._normalizer.normalize(ACTION, whole).unsqueeze(0)
        with torch.inference_mode():
            return self.network.noise_error(
                lambda x, time: self.engine.evaluate(x, time, condition), normal, noise
            )

    def restore(self, horizon: Tensor) -> NDArray[np.float32]:
        """Cut a normalised horizon (1, T, A) to the chunk and bring it into dataset units.

        Raises:
            NotFiniteError: It holds NaN or infinity.
        """
        start = -self.config.first_action_offset
        stop = None if self._full_horizon else start + self.config.kept_steps
        chunk = self._normalizer.restore(ACTION, horizon[0, start:stop]).float().cpu()
        bad = int((~chunk.isfinite()).sum())
        if bad:
            raise NotFiniteError(
                f"policy {self.config.type!r} on {self.runtime}",
                bad,
                "The observation may be far outside the training data; do not execute this.",
            )
        result: NDArray[np.float32] = chunk.numpy()
        return result

    def _vectors(self, read: dict[str, Tensor]) -> dict[str, Tensor]:
        cameras = self.config.cameras
        return {
            key: self._normalizer.normalize(key, value)
            for key, value in read.items()
            if key not in cameras
        }

    def _condition(self, read: dict[str, Tensor]) -> Tensor:
        vectors = self._vectors(read)
        cameras = list(enumerate(self.config.cameras))
        if not self.config.has_step_axis:
            vectors = {key: value[-1:] for key, value in vectors.items()}  # (1, D)
            encoded = self._encoded([(index, read[key][-1]) for index, key in cameras])
            self.condition = self.engine.condition(vectors, encoded)
            return self.condition
        vectors = {key: value.unsqueeze(0) for key, value in vectors.items()}  # (1, O, D)
        encoded = self._encoded([(i, image) for i, key in cameras for image in read[key]])
        count = self.config.n_obs_steps
        steps = [encoded[i : i + count] for i in range(0, len(encoded), count)]
        self.condition = self.engine.condition(vectors, [torch.stack(each, 1) for each in steps])
        return self.condition

    def _encoded(self, images: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """Return the features of (camera, image) pairs, computed once per content."""
        keys = [
            (index, hashlib.blake2b(image.numpy().data, digest_size=16).digest())
            for index, image in images
        ]
        new = {
            key: each for key, each in zip(keys, images, strict=True) if key not in self._features
        }
        if new:
            found = self.engine.cameras(list(new.values()))
            self._features.update(zip(new, found, strict=True))
            self.encoded += len(new)
        for key in keys:
            self._features.move_to_end(key)
        result = [self._features[key] for key in keys]
        while len(self._features) > self._room:
            self._features.popitem(last=False)
        return result

    def _noise(self, noise: NDArray[np.float32] | None) -> Tensor:
        shape = (1, self.config.horizon_steps, self.config.action_dim)
        if noise is None:
            return torch.randn(shape)
        if noise.shape[-2:] != shape[1:] or noise.size != shape[1] * shape[2]:
            raise ObservationError("noise", noise.shape, f"shape {shape[1:]}")
        return torch.from_numpy(np.array(noise, dtype=np.float32)).view(shape)


def example_observation(checkpoint: Checkpoint, seed: int = 0) -> dict[str, Any]:
    """Return a made-up observation of the right shapes, for warm-up, export and timing.

    Vectors are drawn around the dataset's mean; never shown to an arm.
    """
    draw = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for key, feature in checkpoint.config.input_features.items():
        if feature.type is FeatureType.VISUAL:
            channels, height, width = feature.shape
            size = (height, width, channels)
            result[key] = draw.integers(0, 256, size, dtype=np.uint8)
        elif key in (STATE, ENVIRONMENT):
            noise = torch.from_numpy(draw.standard_normal(feature.shape).astype(np.float32))
            values = checkpoint.normalizer.restore(key, 0.1 * noise).numpy()
            # An angle comes as one element; any will do here.
            result[key] = values[: len(values) - len(checkpoint.extras.angles.get(key, {}))]
    tasks = checkpoint.extras.tasks
    result[TASK] = tasks[0] if tasks else "pick up the block"
    return result
