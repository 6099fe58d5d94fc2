"""Calls hooks, one after the other, in the thread that trains; an error of theirs is told once.

What they ask for is kept until the run takes it to all ranks, with the control values of an update.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError, HarnessError
from harness.folder import EVENTS, AmendmentRecord, AttemptStart, Fields, MetricsLine, Outcome
from harness.hooks.events import Amended, Ask, Ended, Evaluated, Event, Hook, Logged, Opened, Saved, WorldChanged
from harness.hooks.keeping import kept_process
from harness.named import brief, cut, load_function, name_and_params, where_raised

Place = tuple[Path, int]  # of an event: the run's folder, and the iteration
Rates = Callable[[], npt.NDArray[np.float64]]
_LONGEST = 300


def load_hooks(choices: Sequence[str | Mapping[str, Any]], key: str = "hooks") -> list[tuple[str, Hook]]:
    """Hooks by the names that a configuration gives, `module:function`, or one name with its parameters.

    Raises:
        ConfigError: for what cannot be imported, or cannot be called with an event and these parameters.
    """
    found = []
    for number, choice in enumerate(choices):
        (name, params), where = name_and_params(choice), f"{key}[{number}]"
        with kept_process():
            function = load_function(name, where)
        found.append((name, _called_with(function, params, f"{where}: {name}")))
    return found


def given_hooks(hooks: object, where: str) -> list[tuple[str, Hook]]:
    """The functions that a program gives, by the name that messages call each: one, a list, or `None`.

    Raises:
        ConfigError: for anything else.
    """
    listed = [] if hooks is None else [hooks] if callable(hooks) else hooks
    if not isinstance(listed, list | tuple):
        raise ConfigError(f"{where}: found {brief(hooks)}; give a list of functions")
    found = [_called_with(hook, {}, f"{where}[{number}]") for number, hook in enumerate(listed)]
    return [(_name_of(hook), hook) for hook in found]


def _called_with(hook: object, params: Mapping[str, Any], where: str) -> Hook:
    if not callable(hook):
        raise ConfigError(f"{where}: found {brief(hook)}; give a function that is called with an event")
    try:
        inspect.signature(hook).bind(None, **params)
    except ValueError:  # some functions written in C have no signature
        pass
    except TypeError as error:
        given = "".join(f", {name}=..." for name in params)
        raise ConfigError(f"{where}: cannot be called with (event{given}): {error}; a hook takes an event") from None
    return partial(hook, **params) if params else hook


class Hooks:
    """The hooks of a run on rank 0; on other ranks there are none. To be used as a context, which tells how it ended.

    Attributes:
        wants_save: whether a hook has asked for a checkpoint since the last one.
        asked_to_stop: which hook has asked the run to stop, and why; empty if none has.
        are_called: whether one of them is being called now.
    """

    def __init__(
        self,
        hooks: Sequence[tuple[str, Hook]] = (),
        fails: str = "warn",
        around: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Nobody is told anything before `open`.

        Args:
            hooks: by name, in the order in which they are called.
            fails: what an error in one of them means: `warn`, or `stop` the run.
            around: a context for each call, which is given what it is: it watches that the call ends.
        """
        self._hooks, self._fails, self._around = hooks, fails, around
        self._warn: Callable[[str], None] = print
        self._opened: Opened | None = None
        self._iteration = 0
        self._amendments: Sequence[Mapping[str, Any]] = ()
        self._told: set[tuple[str, ...]] = set()
        self._meaning = "continuing, and not told again; hooks_fail: stop would end the run"
        self._failure: ConfigError | None = None
        self.wants_save = self.are_called = False
        self.asked_to_stop = ""

    @property
    def wants_stop(self) -> bool:
        """Whether the run is to stop, because a hook has asked for it or has failed."""
        return bool(self.asked_to_stop) or self._failure is not None

    @property
    def are_loaded(self) -> bool:
        """Whether there are any."""
        return bool(self._hooks)

    @property
    def is_open(self) -> bool:
        """Whether they were told how the attempt begins, and not yet how it ends."""
        return self._opened is not None

    def open(
        self,
        folder: Path,
        name: str,
        start: AttemptStart,
        config: Callable[[], dict[str, Any]],
        rates: Rates,
        warn: Callable[[str], None],
        amendments: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Tell `Opened`; from now on hooks are told the rest.

        Args:
            folder: of the run.
            name: of the run.
            start: how the attempt begins.
            config: gives the configuration as plain data, anew each time.
            rates: gives the learning rate of every update.
            warn: shows a line to the user.
            amendments: of the plan that were told by an earlier attempt.
        """
        if not self._hooks:
            return
        self._warn, self._amendments, self._iteration = warn, amendments, start.after
        lr = _read_only(rates())
        self._opened = Opened(folder, start.after, name, start, {}, lr)
        self._tell(lambda at: Opened(*at, name, start, config(), lr))

    def recorded(self, lines: Sequence[MetricsLine]) -> None:
        """Tell of lines that were written to `metrics.jsonl`: of an evaluation, or others."""
        evaluated = [line for line in lines if line.split not in ("train", *EVENTS)]
        if evaluated:
            self._iteration = evaluated[-1].iteration
            self._tell(lambda at: Evaluated(*at, tuple(map(_copied, evaluated))))
            return
        for line in lines:
            self._iteration = line.iteration
            self._tell(partial(_logged, line))

    def saved(self, iteration: int, checkpoint: Path) -> None:
        """Tell of the checkpoint of an iteration that is complete on disk."""
        self._iteration = max(self._iteration, iteration)
        self._tell(lambda at: Saved(at[0], iteration, checkpoint))

    def amended(self, amendments: Sequence[Mapping[str, Any]], rates: Rates) -> None:
        """Tell of what is new among the changes of the plan.

        Args:
            amendments: all, as JSON.
            rates: gives the learning rate of every update by the plan of now.
        """
        if self._opened is None:
            return
        known, self._amendments = self._amendments, list(amendments)
        for content in amendments:
            if content not in known:
                record = AmendmentRecord.read(Fields(dict(content)))
                self._iteration = record.iteration
                self._tell(partial(_amended, record, _read_only(rates())))

    def world_changed(self, iteration: int, before: int, after: int, why: str) -> None:
        """Tell that after an iteration the number of workers has changed.

        Args:
            iteration: the last update before.
            before: workers until then.
            after: workers from now on.
            why: in words.
        """
        now, self._iteration = time.time(), iteration
        self._tell(lambda at: WorldChanged(*at, before, after, why, now))

    def ended(self, exit_code: int, cause: str) -> None:
        """Tell how the attempt ended; once, and nothing afterwards."""
        if self._opened is None:
            return
        attempt, ended_at = self._opened.start.attempt, round(time.time(), 3)
        self._fails, self._meaning = "warn", "which changes nothing: the attempt has ended"
        self._tell(lambda at: Ended(*at, Outcome(attempt, exit_code, cause, ended_at)))
        self._opened = None

    def raise_failure(self) -> None:
        """Raise the error with which a hook has failed, where that ends the run.

        Raises:
            ConfigError: if there was one.
        """
        if self._failure is not None:
            raise self._failure

    def _tell(self, make: Callable[[Place], Event]) -> None:
        if self._opened is None:
            return
        for name, hook in self._hooks:
            self._call(name, hook, make((self._opened.folder, self._iteration)))

    def _call(self, name: str, hook: Hook, event: Event) -> None:
        """Call one hook; whatever it does, the run is afterwards where it was."""
        told = f"{type(event).__name__}, iteration {event.iteration}"
        answer: object = None
        self.are_called = True
        try:
            with self._around(f"the hook {name} ({told})"), kept_process():
                answer = hook(event)
        except (Exception, SystemExit) as error:  # anything that a user's function does
            words = cut(" ".join(str(error).split()), _LONGEST)
            self._failed(name, told, f"{type(error).__name__}: {words}", where_raised(error), type(error).__name__)
        finally:
            self.are_called = False
        if isinstance(answer, Ask):
            self.wants_save |= bool(answer.save)
            if answer.stop and not self.asked_to_stop:
                self.asked_to_stop = f"the hook {name}" + (f": {answer.why}" if answer.why else "")
        elif answer is not None:
            found = brief(answer)
            self._failed(name, told, f"returned {found}; a hook returns None or an Ask", "", type(answer).__name__)

    def _failed(self, name: str, told: str, words: str, place: str, kind: str) -> None:
        what = f"hooks: {name} ({told}): {words}{f' ({place})' if place else ''}"
        if self._fails == "stop":
            self._failure = self._failure or ConfigError(f"{what}; correct it, take it out, or set hooks_fail: warn")
        elif (name, kind, place) not in self._told:
            self._told.add((name, kind, place))
            self._warn(f"{what} ({self._meaning})")

    def __enter__(self) -> Hooks:
        """The hooks, to be opened."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell how the attempt ended, and nothing more."""
        if isinstance(error, HarnessError):
            self.ended(error.exit_code, str(error))
        elif error is not None:
            self.ended(HarnessError.exit_code, f"{type(error).__name__}: {error}")
        else:
            self.ended(0, "done")


def _logged(line: MetricsLine, at: Place) -> Logged:
    return Logged(*at, _copied(line))


def _amended(record: AmendmentRecord, lr: npt.NDArray[np.float64], at: Place) -> Amended:
    return Amended(*at, record, lr)


def _copied(line: MetricsLine) -> MetricsLine:
    """A line whose values are a hook's own."""
    return line._replace(values=dict(line.values))


def _read_only(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array.flags.writeable = False
    return array


def _name_of(hook: Hook) -> str:
    return f"{hook.__module__}:{getattr(hook, '__qualname__', type(hook).__name__)}"
