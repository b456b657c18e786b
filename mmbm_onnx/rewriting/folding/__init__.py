"""Bounds per channel that cost nothing: their scales are folded into the weights around them.

``min(relu(x_c), z_c) = z_c * clip(relu(x_c / z_c), 0, 1)`` for every channel c. So where the
weights that make x absorb ``1 / z_c``, and those that read the bounded value absorb ``z_c``, a Clip
with one limit for all channels is left, which ONNX Runtime fuses into the convolution; Min stays a
pass over memory of its own. In between, values flow scaled, through everything that scaling by a
positive factor commutes with.
"""
