"""How an open job looks at samples that it does not train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import ConfigError
from harness.gluon import evaluate
from harness.job.data import predict_few, probe, read, refuse_other_classes
from harness.job.session import Session
from harness.job.settings import WHERE, whole_number
from harness.model import Metric, build_metrics, try_metrics
from harness.model.calls import Calls
from harness.model.given import classes_of
from harness.model.metrics import as_metric
from harness.model.soft_labels import picks_classes
from harness.named import brief, name_and_params
from harness.train.samples import RunData, first_samples

MetricsGiven = Sequence[str | Mapping[str, Any]] | Mapping[str, Any]
_KEY = f"{WHERE}: metrics"
_KEPT = 4  # data that are evaluated again and again: a validation and a test set, perhaps of two kinds


class Evaluator:
    """Evaluates; data that come again are prepared once."""

    def __init__(self, session: Session) -> None:
        """Nothing is read yet."""
        self._session = session
        self._prepared: list[tuple[object, RunData]] = []  # the first holds on to its object, so identities stay

    def __call__(self, data: object, metrics: MetricsGiven | None, streams: int | None = None) -> dict[str, float]:
        """See `Job.evaluate`."""
        if streams is not None:
            streams = whole_number("streams", streams, least=1)
            if not self._session.learner.carries_state:
                raise ConfigError(
                    f"{WHERE}: streams: has no effect, because the network carries no state; leave it out"
                )
        session, given = self._session, self._session.given
        prepared = next((known for value, known in self._prepared if value is data), None)
        if prepared is None:
            prepared = self._prepare(data)
            self._prepared = [*self._prepared[1 - _KEPT :], (data, prepared)]
        world, dataset = session.world, prepared.splits.train
        chosen = world.agreed("metrics", lambda: _metrics(metrics, given.calls))
        # The ranks share the batches out and add up one table, so all of them have to look at the same.
        facts = {"data": prepared.fingerprint, "samples": len(dataset), "metrics": _compared(metrics, list(chosen))}
        facts |= {} if streams is None else {"streams": streams}
        world.must_be_equal("evaluate", facts, "evaluate the same data with the same metrics on every rank")
        samples = first_samples(dataset, given.augmentation, 2)
        prediction, _ = predict_few(world, "evaluate", given.calls.net, session.learner, samples)
        world.agreed("metrics.fit", lambda: try_metrics(chosen, prediction, samples[1], _KEY))
        batch = session.sizes.batch_size
        found = evaluate(session.learner, dataset, batch, given.augmentation, chosen, streams=streams)
        assert found is not None  # only where it is asked to stop
        return found

    def _prepare(self, data: object) -> RunData:
        session = self._session
        splits = read(session.world, "evaluate", data, session.given.functions)
        prepared = probe(session.world, "evaluate", splits, session.given.settings.seed)
        dataset = prepared.splits.train
        samples = session.world.agreed("samples", lambda: first_samples(dataset, session.given.augmentation, 2))
        calls = session.given.calls
        prediction, _ = predict_few(session.world, "evaluate", calls.net, session.learner, samples)
        classes = classes_of(calls, prediction)
        session.world.agreed("labels", lambda: refuse_other_classes("evaluate", dataset, classes))
        return prepared


def _metrics(metrics: Any, calls: Calls) -> dict[str, Metric]:
    """The metrics by name.

    Raises:
        ConfigError: for an unknown name, or what is no metric.
    """
    if metrics is None:
        return build_metrics(["accuracy"] if picks_classes(calls.loss) and calls.forward is None else [])
    if isinstance(metrics, Mapping):
        for name in metrics:
            if not isinstance(name, str):
                raise ConfigError(f"{_KEY}: {brief(name)} is not a name, which is text")
        if "loss" in metrics:
            raise ConfigError(f"{_KEY}: 'loss' is the name of the mean loss, which is always given; choose another")
        return {name: as_metric(one, name, _KEY) for name, one in metrics.items()}
    choices = list(metrics) if isinstance(metrics, list | tuple | np.ndarray) else None
    if choices is None or not all(isinstance(one, str) or _has_parameters(one) for one in choices):
        raise ConfigError(
            f'{_KEY}: found {brief(metrics)}; give a list of names (["accuracy"]), or a mapping of names to functions'
        )
    return build_metrics([str(one) if isinstance(one, str) else one for one in choices], key=_KEY)


def _compared(metrics: Any, names: list[str]) -> list[Any]:
    """What ranks compare: names, with those parameters that are plain values."""
    if metrics is None or isinstance(metrics, Mapping):
        return names
    choices = [name_and_params(one) for one in metrics]
    plain = [{key: one for key, one in params.items() if isinstance(one, str | int | float)} for _, params in choices]
    return [{name: params} if params else str(name) for (name, _), params in zip(choices, plain, strict=True)]


def _has_parameters(choice: object) -> bool:
    """Whether it is one name with its parameters."""
    if not isinstance(choice, Mapping) or len(choice) != 1:
        return False
    ((name, params),) = choice.items()
    return isinstance(name, str) and isinstance(params, Mapping | None)
