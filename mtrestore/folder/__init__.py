"""Many photos, each accounted for, however the run ends.

May be touched: names, journal, workers; never how one photo is restored.
"""
