"""Bytes that may be hostile: nobody else opens a file.

May be touched: files, their bytes, their decoders; knows nothing of nets.
"""
