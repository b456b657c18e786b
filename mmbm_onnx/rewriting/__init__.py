"""Bounds and the detector written into ONNX graphs. No torch."""
