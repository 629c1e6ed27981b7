"""ONNX files: `load.load_onnx`. The package `onnx` is imported only when a file is read."""
