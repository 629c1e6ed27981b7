"""ONNX files: `load.load_onnx` and `load.onnx_function`. The package `onnx` is imported only when a file is read."""
