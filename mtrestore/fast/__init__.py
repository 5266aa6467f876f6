"""Other engines for the same nets: numba passes and ONNX Runtime.

May be touched: how fast; never what comes out.
"""
