"""Experiments that can be repeated: runs, sweeps, reports, measures, the workbench. May be touched: anything; the core never imports it."""
