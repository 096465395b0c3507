"""Export of a trained detector to ONNX or OpenVINO, and use of such files in place of the checkpoint."""
