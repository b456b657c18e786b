"""Attacks against defences: data set x victim x attack x method x seed, in ONNX Runtime."""
