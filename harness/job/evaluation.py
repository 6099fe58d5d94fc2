"""How an open job looks at samples that it does not train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data import Dataset
from harness.errors import ConfigError
from harness.gluon import evaluate
from harness.job.data import probe, read, refuse_other_classes
from harness.job.session import Session
from harness.job.settings import WHERE
from harness.model import Metric, build_metrics, try_metrics
from harness.model.given import classes_of, picks_classes
from harness.model.metrics import Values
from harness.train.samples import first_samples

_KEPT = 4  # data that are evaluated again and again: a validation and a test set, perhaps of two kinds


class Evaluator:
    """Evaluates; data that come again are prepared once."""

    def __init__(self, session: Session) -> None:
        """Nothing is read yet."""
        self._session = session
        self._prepared: list[tuple[object, Dataset]] = []  # the first holds on to its object, so identities stay

    def __call__(self, data: object, metrics: Sequence[str] | Mapping[str, Values] | None) -> dict[str, float]:
        """See `Job.evaluate`."""
        session, given = self._session, self._session.given
        dataset = next((known for value, known in self._prepared if value is data), None)
        if dataset is None:
            dataset = self._prepare(data)
            self._prepared = [*self._prepared[1 - _KEPT :], (data, dataset)]
        chosen = session.world.agreed("metrics", lambda: _metrics(metrics, given.loss))
        samples = first_samples(dataset, given.augmentation, 2)
        prediction, _ = session.learner.predict(*samples)
        session.world.agreed("metrics.fit", lambda: try_metrics(chosen, prediction, samples[1]))
        found = evaluate(session.learner, dataset, session.sizes.batch_size, given.augmentation, chosen)
        assert found is not None  # only where it is asked to stop
        return found

    def _prepare(self, data: object) -> Dataset:
        session = self._session
        splits = read(session.world, "evaluate", data)
        dataset = probe(session.world, "evaluate", splits, session.given.settings.seed).splits.train

        def check() -> None:
            samples = first_samples(dataset, session.given.augmentation, 2)
            prediction, _ = session.learner.predict(*samples)
            refuse_other_classes("evaluate", dataset, classes_of(session.given.loss, prediction.shape))

        session.world.agreed("labels", check)
        return dataset


def _metrics(metrics: Any, loss: Any) -> dict[str, Metric]:
    """The metrics by name.

    Raises:
        ConfigError: for an unknown name, or what is no metric.
    """
    if metrics is None:
        return build_metrics(["accuracy"] if picks_classes(loss) else [])
    if isinstance(metrics, Mapping):
        wrong = [name for name, one in metrics.items() if not callable(one)]
        if wrong:
            raise ConfigError(f"{WHERE}: metrics: {wrong[0]!r} is not a function of (predictions, labels)")
        return {str(name): Metric(one) for name, one in metrics.items()}
    if isinstance(metrics, str) or not all(isinstance(name, str) for name in metrics):
        raise ConfigError(f'{WHERE}: metrics: found {metrics!r}; give a list of names (["accuracy"]), or a mapping')
    return build_metrics(list(metrics))
