"""Experiments that can be repeated: runs, sweeps, reports, measures, the workbench.

record: what one run leaves behind. schema: which shape its files have. execute: one notebook, in a
process of its own. sweep: many of them. repeat: one again. statistics, report: what they found.
evaluate: the table of restored faces and photos. workbench, boxes: one photo under one's hands;
overview: which face in it has which number.

May be touched: anything; the core never imports it. What a bundle or a run's files hold is read by
other machines and by later versions: a new field is optional in `schema`.
"""
