"""A trained detector as an ONNX or OpenVINO file, and such files run, checked and measured."""
