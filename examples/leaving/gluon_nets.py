"""The networks here that are of no library: an LSTM that reads a digit row by row, and a GRU in its place.

Run it by `lstm.yaml`, as examples/README.md says.
"""

from __future__ import annotations

from mxnet.gluon import HybridBlock, nn, rnn


class RowReader(HybridBlock):
    """Two recurrent layers over the rows, and a class from the last step."""

    def __init__(self, recurrent: type[rnn.LSTM] | type[rnn.GRU], hidden: int, classes: int) -> None:
        """Rows have eight pixels."""
        super().__init__()
        with self.name_scope():
            self.rows = recurrent(hidden, num_layers=2, layout="NTC", input_size=8)
            self.out = nn.Dense(classes)

    def hybrid_forward(self, f, rows):
        """Scores, `(n, classes)`, of rows `(n, 8, 8)`."""
        return self.out(f.slice_axis(self.rows(rows), axis=1, begin=-1, end=None))


def lstm(hidden: int = 48, classes: int = 10) -> RowReader:
    """The network that `network.name` names."""
    return RowReader(rnn.LSTM, hidden, classes)


def gru(hidden: int = 48, classes: int = 10) -> RowReader:
    """The same with another layer."""
    return RowReader(rnn.GRU, hidden, classes)
