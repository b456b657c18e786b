"""A bounded branch of its own for the detector: the folded hardened graph, maybe in fewer bits.

The usual bounded branch copies the original's nodes and shares its weights. A shadow is the
hardened graph with its bounds folded, cut at the logits, in float32, float16 or int8, with weights
of its own: runtimes fuse and lay it out as they do any graph, also inside an If, and it has no Min.
"""
