"""Several learners of one network's parts as one state: one digest, one checkpoint, one consistency check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import CheckpointError, ConfigError, listed
from harness.gluon.learner import Learner
from harness.gluon.state import LearnerState


class Learners:
    """Learners that share parameters, such as a generator's and a discriminator's; each is updated by itself.

    A parameter that several have is there once, under the name that it has in the first of them.
    """

    def __init__(self, learners: Mapping[str, Learner]) -> None:
        """Bind learners.

        Args:
            learners: by names of the caller's, in an order that does not change.

        Raises:
            ConfigError: for none, or a name with a colon or slash.
        """
        wrong = [name for name in learners if not name or ":" in name or "/" in name]
        if wrong or not learners:
            found = f"the name {wrong[0]!r}" if wrong else "none"
            raise ConfigError(f"Learners: found {found}; give learners by names without colon or slash")
        self._learners = dict(learners)
        self._joint: dict[str, dict[str, str]] = {}
        names: dict[int, str] = {}
        for name, learner in learners.items():
            own = self._joint[name] = {}
            for key, parameter in learner.parameters.items():
                taken = key in names.values() and id(parameter) not in names
                own[key] = names.setdefault(id(parameter), f"{name}.{key}" if taken else key)

    def gather_state(self) -> None:
        """Let this rank know what shards carry, of every learner; a collective where any carries state."""
        for learner in self._learners.values():
            learner.gather_state()

    def snapshot(self) -> LearnerState:
        """The state of all learners, on the host; its `save` writes one checkpoint."""
        state = LearnerState({}, {}, {"learners": {}})
        for name, learner in self._learners.items():
            own = learner.snapshot()
            state.parameters.update({self._joint[name][key]: array for key, array in own.parameters.items()})
            state.optimizer_state.update({f"{name}:{key}": array for key, array in own.optimizer_state.items()})
            state.carried.update({f"{name}:{key}": array for key, array in own.carried.items()})
            state.averages.update({f"{name}:{key}": array for key, array in own.averages.items()})
            state.numbers["learners"][name] = own.numbers
        return state

    def digest(self) -> str:
        """sha256 of the state of all learners; equal on every rank."""
        return self.snapshot().digest()

    def mismatches(self, state: LearnerState) -> list[str]:
        """Every array by which a state does not fit, a sentence each."""
        saved = state.numbers.get("learners")
        if saved is None or list(saved) != list(self._learners):
            found = "one learner" if saved is None else f"the learners {', '.join(saved)}"
            return [f"it is the state of {found}, expected {', '.join(self._learners)}"]
        expected = {joint for own in self._joint.values() for joint in own.values()}
        problems = [f"{name} is not expected" for name in state.parameters if name not in expected]
        for name, learner in self._learners.items():
            problems += [f"{name}: {problem}" for problem in learner.mismatches(self._part(state, name))]
        return problems

    def restore(self, state: LearnerState) -> None:
        """Put a state back, bit for bit.

        Raises:
            CheckpointError: naming whatever does not fit; nothing has been changed then.
        """
        problems = self.mismatches(state)
        if problems:
            raise CheckpointError(f"the state does not fit these learners:{listed(problems)}")
        for name, learner in self._learners.items():
            learner.restore(self._part(state, name))

    def broadcast_state(self) -> None:
        """Give every rank the whole state of rank 0; a collective."""
        for learner in self._learners.values():
            learner.broadcast_state()

    def check_weights(self, t: int) -> None:
        """Raise `DivergedError` if update `t` made anything of a state not finite, on every rank alike."""
        for learner in self._learners.values():
            learner.check_weights(t)

    def checksums(self) -> dict[str, int]:
        """A CRC-32 of every array by learner and name; equal on every rank."""
        return {
            f"{name}:{key}": value
            for name, learner in self._learners.items()
            for key, value in learner.checksums().items()
        }

    def numbers(self) -> dict[str, Any]:
        """Scalars that belong to the states, by learner."""
        return {name: learner.numbers() for name, learner in self._learners.items()}

    def _part(self, state: LearnerState, name: str) -> LearnerState:
        """What belongs to a learner, by its own names."""

        def of_it(arrays: Mapping[str, Any]) -> dict[str, Any]:
            begin = f"{name}:"
            return {key.removeprefix(begin): array for key, array in arrays.items() if key.startswith(begin)}

        joint = {key: other for key, other in self._joint[name].items() if other in state.parameters}
        return LearnerState(
            {key: state.parameters[other] for key, other in joint.items()},
            of_it(state.optimizer_state),
            state.numbers["learners"][name],
            of_it(state.carried),
            of_it(state.averages),
        )
