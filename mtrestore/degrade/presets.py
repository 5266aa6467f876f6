"""Presets: what recipes are drawn from.

One row for each stage in its order: its probability, then the operations to choose one from, each
with a weight and what its parameters are drawn from: evenly from (low, high), or one of a list.
`steps` of a resize are rows again; what they do is in pixels of the small picture. Lengths suit a
face of about 256 pixels. The chains follow what portraits on the web went through.
"""

from .operations import BAYER
from .prints import GRAIN

# fmt: off
ANGLE = (-90.0, 90.0)
DOWN, UP = ["area", "area", "linear", "cubic"], ["linear", "cubic", "cubic"]
ANY_BAYER, ANY_GRAIN = list(BAYER), list(GRAIN)
SHRINK = ["area", "area", "area", "cubic", "lanczos"]
ENLARGE = ["cubic"] * 10 + ["lanczos"] * 5 + ["linear"] * 4 + ["nearest"]
COLOURS = ["4:2:0", "4:2:0", "4:4:4"]

PRESETS = {
    "mild": [
        (0.85, {"gaussian_blur": (2, dict(sigma=(0.3, 1.0))),
                "defocus": (1, dict(radius=(0.5, 1.2)))}),
        (0.85, {"gaussian_noise": (2, dict(sigma=(1, 6))),
                "poisson_noise": (1, dict(sigma=(1, 6)))}),
        (0.10, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.40, {"resize": (1, dict(factor=(1.0, 1.5), down=DOWN, up=UP))}),
        (0.75, {"jpeg": (1, dict(quality=(60, 95)))}),
    ],
    "medium": [
        (1.00, {"gaussian_blur": (4, dict(sigma=(0.8, 2.2))),
                "anisotropic_blur": (2, dict(sigma_x=(0.8, 2.2), sigma_y=(0.8, 2.2), angle=ANGLE)),
                "defocus": (2, dict(radius=(1.0, 2.5))),
                "motion": (2, dict(length=(3, 7), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.95, {"gaussian_noise": (2, dict(sigma=(5, 18))),
                "poisson_noise": (1, dict(sigma=(5, 18)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.30, {"colour_noise": (1, dict(sigma=(3, 12), grain=(0.5, 3.0)))}),
        (0.50, {"resize": (1, dict(factor=(1.5, 2.5), down=DOWN, up=UP))}),
        (0.85, {"jpeg": (1, dict(quality=(25, 70)))}),
    ],
    "severe": [
        (1.00, {"gaussian_blur": (4, dict(sigma=(1.5, 4.0))),
                "anisotropic_blur": (2, dict(sigma_x=(1.5, 4.0), sigma_y=(1.5, 4.0), angle=ANGLE)),
                "defocus": (2, dict(radius=(2.0, 4.5))),
                "motion": (2, dict(length=(5, 14), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.95, {"gaussian_noise": (2, dict(sigma=(12, 40))),
                "poisson_noise": (1, dict(sigma=(12, 40)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.40, {"colour_noise": (1, dict(sigma=(8, 25), grain=(0.5, 4.0)))}),
        (0.70, {"resize": (1, dict(factor=(2.0, 5.0), down=DOWN, up=UP))}),
        (0.90, {"jpeg": (1, dict(quality=(8, 40)))}),
    ],
    "old-photo": [  # grey, sepia, or a colour print gone pale or yellow
        (0.95, {"gaussian_blur": (1, dict(sigma=(0.8, 2.0)))}),
        (0.95, {"grain": (1, dict(sigma=(5, 20), grain=(0.4, 1.2)))}),
        (0.20, {"resize": (1, dict(factor=(1.2, 2.5), down=DOWN, up=UP))}),
        (0.80, {"grey": (1, {})}),
        # a cast below 0 is 0: half without one
        (0.90, {"fade": (1, dict(contrast=(0.55, 0.95), lift=(0.0, 0.2), cast=(-1.0, 1.0)))}),
        (0.85, {"jpeg": (1, dict(quality=(30, 80)))}),
    ],
    "photo": [  # a whole photo, colours kept, for the restorer at working size
        (0.50, {"gaussian_blur": (3, dict(sigma=(0.0, 3.0))),
                "defocus": (1, dict(radius=(0.5, 3.0))),
                "anisotropic_blur": (1, dict(sigma_x=(0.3, 3.0), sigma_y=(0.3, 3.0),
                                             angle=ANGLE))}),
        (0.15, {"motion": (1, dict(length=(2, 7), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.75, {"gaussian_noise": (5, dict(sigma=(0, 50))),
                "poisson_noise": (3, dict(sigma=(0, 50))),
                "grain": (1, dict(sigma=(0, 30), grain=(0.3, 1.2)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.25, {"colour_noise": (1, dict(sigma=(2, 25), grain=(0.5, 4.0)))}),
        (0.20, {"resize": (1, dict(factor=(1.0, 3.0), down=DOWN, up=UP))}),
        (0.65, {"jpeg": (1, dict(quality=(5, 95)))}),
    ],
}

# Chains as real portraits went through them. Their order is their point: draw never shuffles them.
CHAINS = {
    "messenger": [  # sent small, sharpened and compressed, enlarged, cropped and compressed again
        (0.50, {"gaussian_blur": (1, dict(sigma=(0.3, 1.5)))}),
        (0.40, {"gaussian_noise": (1, dict(sigma=(1, 8)))}),
        (1.00, {"resize": (1, dict(factor=(2.0, 5.3), down=SHRINK, up=ENLARGE, steps=[
            (0.9, {"unsharp": (1, dict(amount=(0.5, 2.0), radius=(0.6, 1.5)))}),
            (1.0, {"jpeg": (1, dict(quality=(30, 85), subsampling=COLOURS))})]))}),
        (1.00, {"jpeg": (1, dict(quality=(60, 95), subsampling=COLOURS,
                                 shift_x=(0, 7), shift_y=(0, 7)))}),
    ],
    "double-jpeg": [
        (0.60, {"gaussian_blur": (1, dict(sigma=(0.4, 1.6)))}),
        (0.60, {"gaussian_noise": (1, dict(sigma=(1, 10)))}),
        (1.00, {"jpeg": (1, dict(quality=(10, 70), subsampling=COLOURS))}),
        (0.30, {"resize": (1, dict(factor=(1.1, 2.0), down=SHRINK, up=ENLARGE))}),
        (1.00, {"jpeg": (1, dict(quality=(30, 95), subsampling=COLOURS,
                                 shift_x=(1, 7), shift_y=(1, 7)))}),
    ],
    "phone": [  # a dark room: noise smeared away, colours more than the luma, then sharpened
        (0.80, {"gaussian_blur": (2, dict(sigma=(0.5, 1.6))),
                "defocus": (1, dict(radius=(0.6, 2.0)))}),
        (1.00, {"poisson_noise": (2, dict(sigma=(6, 28))),
                "gaussian_noise": (1, dict(sigma=(6, 24)))}),
        (0.60, {"colour_noise": (1, dict(sigma=(5, 20), grain=(0.5, 2.0)))}),
        (1.00, {"chroma_blur": (1, dict(sigma=(2.0, 6.0)))}),
        (1.00, {"bilateral": (3, dict(sigma_colour=(80, 260), sigma_space=(1.5, 3.5))),
                "median": (1, dict(reach=(1, 2)))}),
        (0.80, {"unsharp": (1, dict(amount=(0.5, 2.0), radius=(0.6, 1.5)))}),
        (0.40, {"resize": (1, dict(factor=(1.1, 2.0), down=SHRINK, up=ENLARGE))}),
        (1.00, {"jpeg": (1, dict(quality=(40, 92), subsampling=COLOURS))}),
    ],
    "film": [
        (0.85, {"grey": (1, {})}),
        (0.90, {"gaussian_blur": (2, dict(sigma=(0.5, 2.5))),
                "defocus": (1, dict(radius=(0.7, 2.5)))}),
        (1.00, {"film_grain": (1, dict(sigma=(3, 22), kind=ANY_GRAIN, size=(0.7, 1.6)))}),
        (0.70, {"gaussian_blur": (1, dict(sigma=(0.6, 1.2)))}),  # the scanner's
        (0.20, {"damage": (1, dict(kind=["dust"], count=(1, 3), width=(0.7, 3.0),
                                   level=[0.0, 0.1, 0.9, 1.0], alpha=(0.3, 1.0)))}),
        (0.70, {"fade": (1, dict(contrast=(0.55, 0.95), lift=(0.0, 0.2), cast=(-0.6, 0.6)))}),
        (1.00, {"jpeg": (1, dict(quality=(60, 90)))}),
    ],
    "halftone": [
        (0.85, {"grey": (1, {})}),
        (0.80, {"gaussian_blur": (1, dict(sigma=(0.5, 1.5)))}),
        (1.00, {"halftone": (1, dict(pitch=(2.0, 6.5), angle=ANGLE, apart=[0, 0, 0, 30],
                                     soft=(0.5, 1.6)))}),
        (0.50, {"fade": (1, dict(contrast=(0.55, 0.95), lift=(0.0, 0.2), cast=(-0.6, 0.6)))}),
        (0.40, {"film_grain": (1, dict(sigma=(2, 8), kind=ANY_GRAIN, size=(0.7, 1.6)))}),
        (0.90, {"jpeg": (1, dict(quality=(50, 90)))}),
    ],
    "damage": [
        (0.70, {"grey": (1, {})}),
        (0.70, {"gaussian_blur": (1, dict(sigma=(0.5, 1.8)))}),
        (0.70, {"film_grain": (1, dict(sigma=(3, 15), kind=ANY_GRAIN, size=(0.7, 1.6)))}),
        (1.00, {"damage": (1, dict(kind=["scratches", "hair", "dust"], count=(1, 10),
                                   width=(0.4, 2.0), level=[0.0, 0.1, 0.9, 1.0],
                                   alpha=(0.3, 1.0)))}),
        (0.30, {"damage": (1, dict(kind=["crease"], count=(1, 3), width=(0.4, 1.5),
                                   level=[0.8, 0.9, 1.0], alpha=(0.4, 1.0)))}),
        (0.40, {"damage": (1, dict(kind=["scratches", "dust"], count=(3, 15), width=(0.4, 1.5),
                                   level=[0.9, 1.0], alpha=(0.3, 1.0)))}),
        (0.60, {"fade": (1, dict(contrast=(0.55, 0.95), lift=(0.0, 0.2), cast=(-0.6, 0.6)))}),
        (0.60, {"gaussian_blur": (1, dict(sigma=(0.4, 1.0)))}),
        (0.90, {"jpeg": (1, dict(quality=(50, 92)))}),
    ],
    "heavy": [  # a face of 20 to 40 px, or far out of focus
        (1.00, {"gaussian_blur": (2, dict(sigma=(4.0, 10.0))),
                "defocus": (1, dict(radius=(6.0, 14.0))),
                "resize": (3, dict(factor=(6.0, 12.0), down=SHRINK, up=ENLARGE, steps=[
                    (0.5, {"gaussian_noise": (1, dict(sigma=(1, 10)))}),
                    (0.6, {"jpeg": (1, dict(quality=(30, 90), subsampling=COLOURS))})]))}),
        (0.90, {"gaussian_noise": (2, dict(sigma=(2, 25))),
                "poisson_noise": (1, dict(sigma=(2, 25)))}),
        (0.90, {"jpeg": (1, dict(quality=(20, 85)))}),
    ],
}
PRESETS |= CHAINS

ALONE = {
    "gaussian_noise": (6, dict(sigma=(5, 50))),
    "poisson_noise": (2, dict(sigma=(5, 50))),
    "jpeg": (6, dict(quality=(5, 95))),
    "gaussian_blur": (2, dict(sigma=(0.5, 3.0))),
    "anisotropic_blur": (1, dict(sigma_x=(0.5, 3.0), sigma_y=(0.5, 3.0), angle=ANGLE)),
    "defocus": (1, dict(radius=(0.7, 3.0))),
    "motion": (1, dict(length=(2, 8), angle=ANGLE, wobble=(0.0, 0.8))),
    "mosaic": (1, dict(pattern=ANY_BAYER)),
    "colour_noise": (2, dict(sigma=(4, 25), grain=(0.5, 4.0))),
    "resize": (1, dict(factor=(1.2, 3.0), down=DOWN, up=UP)),
}  # what "photo" draws from for a single fault
MIXED = {"clean": 0.10, "mild": 0.25, "medium": 0.35, "severe": 0.20, "old-photo": 0.10}
PORTRAIT = {
    "messenger": 0.25,
    "double-jpeg": 0.15,
    "phone": 0.15,
    "film": 0.10,
    "heavy": 0.10,
    "halftone": 0.05,
    "damage": 0.05,
    "mild": 0.04,
    "medium": 0.05,
    "severe": 0.03,
    "old-photo": 0.02,
    "clean": 0.01,
}
EXTRAS = [  # what any recipe of "portrait" may get besides, before its last JPEG
    (0.30, {"unsharp": (2, dict(amount=(1.0, 3.0), radius=(1.0, 2.5))),
            "sinc": (1, dict(wavelength=(2.0, 6.0), reach=(3, 10)))}),
    (0.10, {"levels": (1, dict(contrast=(0.05, 0.5), place=(0.0, 1.0),
                               red=(0.8, 1.0), green=(0.8, 1.0), blue=(0.8, 1.0)))}),
    (0.08, {"border": (1, dict(kind=["corners", "edges", "turned"], share=(0.01, 0.12),
                               level=[0.0, 0.0, 0.05, 1.0, 0.9]))}),
]
# fmt: on
