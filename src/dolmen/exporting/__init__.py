"""A run becomes a bundle: ONNX graphs, the processor, licences, and proof that both give the same."""
