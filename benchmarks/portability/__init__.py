"""Whether what the product writes runs, and decides alike, in other ONNX runtimes."""
