"""ONNX Runtime: sessions, providers, batched runs. No torch."""
