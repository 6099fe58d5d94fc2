"""Distributed Gluon training with a scheduled learning rate; the rooms and what they may import stand in docs."""
