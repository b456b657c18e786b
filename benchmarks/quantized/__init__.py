"""Hardened graphs quantized to int8 with ONNX Runtime's own tool: accuracy, attacks and time."""
