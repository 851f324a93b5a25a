"""Bundles, streams and the server: numpy and onnxruntime, never torch."""
