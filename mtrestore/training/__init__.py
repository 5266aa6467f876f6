"""How the shipped weights are made: one loop, stages, losses, batches.

May be touched: all of learning. Knows nothing of the pipeline.
"""
