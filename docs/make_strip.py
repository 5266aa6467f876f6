"""Make docs/before_after.jpg: a public-domain portrait, worn by a seeded recipe and restored.

Run from the project's root: .venv/bin/python docs/make_strip.py
"""

import numpy as np
from matplotlib import cbook

import mtrestore as mt
from mtrestore import degrade

truth = mt.read(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
worn = degrade.apply(truth, degrade.draw("medium", np.random.default_rng(11)))
restored = mt.restore(worn, device="cpu").image
h, w = worn.shape[:2]
line = np.ones((h, 6, 3), np.float32)
mt.write("docs/before_after.jpg", np.concatenate([worn, line, restored], 1), quality=92)
