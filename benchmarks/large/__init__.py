"""What a model costs that is too large for one ONNX message."""
