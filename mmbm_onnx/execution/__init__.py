"""ONNX graphs run differentiably in torch."""
