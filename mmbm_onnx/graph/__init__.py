"""ONNX files: safe reading, atomic writing, sites, logits, provenance. No torch."""
