"""The command line: options in, text and exit statuses out. No logic of its own.

Modules import one another relatively, since the folder is ``cli`` in the repository and the
package ``mmbm_onnx_cli`` once installed. Whatever is slow to import (NumPy, ONNX, ONNX Runtime,
torch) is imported inside commands, so that ``--help`` answers at once.
"""
