"""Recurrent layers with torch.nn's constructors, names and numbers."""

from dolmen.nn.recurrent.layers import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
