"""Recurrent steps compiled for this machine by Numba: no compiler is needed where they run.

``products``   matrix products that fit between two steps of a recurrent layer
``forward``    the plain unit, the LSTM and the GRU over a whole sequence
``backward``   their gradients
``stream``     one step of all layers, for streams
``team``       runs them on the threads that torch itself computes with
"""
