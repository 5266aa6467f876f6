"""What protects the process itself: import path, forks, time, terminal.

May be touched: nothing without its test.
"""
