"""Operations of degradation recipes: optics, sensor, phones and programs, storage, age.

Each takes a photo and literal parameters and gives a photo of the same size, clipped to 0..1. They
stand in the table OPS with the range of each parameter; what is random has a seed. `degrade` says
the units; `prints` adds what happens to film and paper.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from scipy import special

Photo = np.ndarray  # float32 RGB, H×W×3, 0..1
OPS: dict[str, Callable[..., Photo]] = {}  # name -> operation(photo, **parameters)
# name -> parameter -> (low, high), or the words allowed
PARAMETERS: dict[str, dict[str, tuple]] = {}
OPTIONAL: dict[str, dict] = {}  # name -> parameter that may be left out -> its value then
INTEGERS = ("seed", "quality", "shift_x", "shift_y", "reach", "count")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as in JPEG
INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
SUBSAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
BAYER = ("RGGB", "BGGR", "GRBG", "GBRG")
SEED = (0, 2**63 - 1)


def operation(**parameters: tuple) -> Callable:
    """Enter an operation in the tables with the range of each parameter; its result is clipped."""

    def enter(fn: Callable[..., Photo]) -> Callable[..., Photo]:
        @functools.wraps(fn)
        def op(photo: Photo, **values) -> Photo:
            return np.clip(fn(photo, **values), 0, 1)

        signature = inspect.signature(fn).parameters.values()
        OPTIONAL[fn.__name__] = {p.name: p.default for p in signature if p.default is not p.empty}
        OPS[fn.__name__], PARAMETERS[fn.__name__] = op, parameters
        return op

    return enter


def run(photo: Photo, steps: Sequence[dict]) -> Photo:
    """The photo after steps {"op": name, parameter: value, ...} that were checked before."""
    for step in steps:
        photo = OPS[step["op"]](photo, **{k: v for k, v in step.items() if k != "op"})
    return photo


# ---- optics


@operation(sigma=(0, 100))
def gaussian_blur(photo: Photo, sigma: float) -> Photo:
    """Blur equally in all directions; sigma in pixels."""
    return cv2.GaussianBlur(photo, (0, 0), sigma) if sigma > 0 else photo


@operation(sigma_x=(0, 100), sigma_y=(0, 100), angle=(-360, 360))
def anisotropic_blur(photo: Photo, sigma_x: float, sigma_y: float, angle: float) -> Photo:
    """Blur by a Gaussian whose axes, sigma_x and sigma_y in pixels, are turned by `angle`."""
    return _filter(photo, anisotropic_kernel(sigma_x, sigma_y, angle))


@operation(radius=(0, 100))
def defocus(photo: Photo, radius: float) -> Photo:
    """Out of focus: every point becomes an even disc of that radius in pixels."""
    return _filter(photo, disc_kernel(radius))


@operation(length=(0, 200), angle=(-360, 360), wobble=(0, 1), seed=SEED)
def motion(photo: Photo, length: float, angle: float, wobble: float, seed: int) -> Photo:
    """Camera shake along a path `length` pixels long that sets out at `angle`.

    wobble 0 is a straight line, 1 a lively random walk.
    """
    return _filter(photo, motion_kernel(length, angle, wobble, seed))


def anisotropic_kernel(sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """Odd square float32 kernel of sum 1, cut at 3 sigma."""
    sx, sy = max(sigma_x, 0.05), max(sigma_y, 0.05)  # thinner than a pixel is a line
    u, v = _grid(math.ceil(3 * max(sx, sy)), angle)
    return _normal(np.exp(-0.5 * ((u / sx) ** 2 + (v / sy) ** 2)))


def disc_kernel(radius: float) -> np.ndarray:
    """Odd square float32 kernel of sum 1; a pixel that the rim crosses counts in part."""
    u, v = _grid(math.ceil(radius), 0)
    return _normal(np.clip(radius + 0.5 - np.hypot(u, v), 0, 1))


def motion_kernel(length: float, angle: float, wobble: float, seed: int) -> np.ndarray:
    """Odd square float32 kernel of sum 1: a path of short steps whose heading wanders.

    It is centred on its mean, so that nothing is shifted.
    """
    steps = max(1, math.ceil(4 * length))
    walk = np.random.Generator(np.random.PCG64(seed)).standard_normal(steps)
    turns = walk * wobble * math.pi / math.sqrt(steps)
    heading = math.radians(angle) + np.cumsum(turns)
    path = np.cumsum(np.stack([np.cos(heading), -np.sin(heading)], 1), 0) * (length / steps)
    path -= path.mean(0)
    r = math.ceil(np.abs(path).max()) + 1
    kernel = np.zeros((2 * r + 1, 2 * r + 1))
    x0, y0 = np.floor(path).astype(int).T
    fx, fy = path.T - (x0, y0)
    for dx, dy, weight in (
        (0, 0, (1 - fx) * (1 - fy)),
        (1, 0, fx * (1 - fy)),
        (0, 1, (1 - fx) * fy),
        (1, 1, fx * fy),
    ):
        np.add.at(kernel, (y0 + r + dy, x0 + r + dx), weight)  # bilinear splat
    return _normal(kernel)


def _grid(r: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-r : r + 1, -r : r + 1].astype(np.float64)
    return turned(y, x, angle)


def turned(y: np.ndarray, x: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction of `angle` degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return c * x - s * y, s * x + c * y  # y points down, hence the signs


def _normal(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)


def _filter(photo: Photo, kernel: np.ndarray) -> Photo:
    return cv2.filter2D(photo, -1, kernel) if kernel.size > 1 else photo


# ---- sensor


def _normals(seed: int, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)


def _grainy(noise: np.ndarray, grain: float) -> np.ndarray:
    """White noise blurred by `grain` pixels, of unit variance: divided by the kernel's L2 norm."""
    if grain < 0.1:
        return noise
    k = cv2.getGaussianKernel(2 * math.ceil(3 * grain) + 1, grain, cv2.CV_32F)
    return cv2.sepFilter2D(noise, -1, k, k).reshape(noise.shape) / np.float32((k * k).sum())


@operation(sigma=(0, 255), seed=SEED)
def gaussian_noise(photo: Photo, sigma: float, seed: int) -> Photo:
    """White noise, independent in R, G and B; sigma in levels (1/255)."""
    noise = _normals(seed, *photo.shape)
    noise *= np.float32(sigma / 255)
    noise += photo
    return noise


@operation(sigma=(0, 255), seed=SEED)
def poisson_noise(photo: Photo, sigma: float, seed: int) -> Photo:
    """Shot noise; sigma, in levels (1/255), is its deviation at middle grey (0.5).

    So white is 0.5 / (sigma/255)² photons. Counts come from normals by the Cornish-Fisher expansion
    of the Poisson law, λ + z√λ + (z² - 1)/6, ten times as fast as a Poisson generator and with its
    mean, variance and skew.
    """
    if sigma < 1e-3:  # nobody sees it, and the photons would be beyond float32
        return photo
    white = np.float32(0.5 / (sigma / 255) ** 2)
    z, mean = _normals(seed, *photo.shape), photo * white
    count = mean + z * np.sqrt(mean) + (z * z - 1) * (np.minimum(mean, 1) / 6)
    return np.maximum(np.rint(count), 0) / white


@operation(sigma=(0, 255), grain=(0, 50), seed=SEED)
def grain(photo: Photo, sigma: float, grain: float, seed: int) -> Photo:
    """Noise equal in R, G and B, blurred by `grain` pixels; sigma in levels (1/255) after that."""
    noise = _grainy(_normals(seed, *photo.shape[:2]), grain)
    return photo + noise[..., None] * np.float32(sigma / 255)


@operation(sigma=(0, 255), grain=(0, 50), seed=SEED)
def colour_noise(photo: Photo, sigma: float, grain: float, seed: int) -> Photo:
    """Blotches of wrong colour at right luma: Cb and Cr noise blurred by `grain` pixels.

    sigma in levels (1/255), root mean square over R, G, B.
    """
    # JPEG's YCbCr, Y untouched.
    to_rgb = np.array([[0, -0.344136, 1.772], [1.402, -0.714136, 0]], np.float32)
    to_rgb *= np.float32(sigma / 255) * math.sqrt(3 / float((to_rgb**2).sum()))
    noise = _grainy(_normals(seed, *photo.shape[:2], 2), grain)
    return photo + cv2.transform(noise, np.ascontiguousarray(to_rgb.T))


@operation(pattern=BAYER)
def mosaic(photo: Photo, pattern: str) -> Photo:
    """One colour kept at each pixel as a Bayer sensor does, the others filled in bilinearly.

    Fine edges get zippers and false colours.
    """
    h, w = photo.shape[:2]
    below, right = max(0, 2 - h), max(0, 2 - w)  # a mosaic needs 2x2
    photo = cv2.copyMakeBorder(photo, 0, below, 0, right, cv2.BORDER_REPLICATE)
    raw = np.zeros_like(photo)
    for i, colour in enumerate(pattern):
        cell = (slice(i // 2, None, 2), slice(i % 2, None, 2), "RGB".index(colour))
        raw[cell] = photo[cell]
    # The default border (reflect 101) keeps the Bayer phase.
    side = np.array([0.5, 1, 0.5], np.float32)
    full = cv2.sepFilter2D(raw, -1, side, side)
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
    full[..., 1] = cv2.filter2D(raw[..., 1], -1, cross)
    return full[:h, :w]


# ---- phones and programs


@operation(amount=(0, 10), radius=(0, 20))
def unsharp(photo: Photo, amount: float, radius: float) -> Photo:
    """Sharpened by an unsharp mask; `radius` is the sigma of its Gaussian in pixels."""
    if radius == 0:
        return photo
    soft = cv2.GaussianBlur(photo, (0, 0), radius)
    return photo + np.float32(amount) * (photo - soft)


@operation(wavelength=(2, 50), reach=(1, 50))
def sinc(photo: Photo, wavelength: float, reach: int) -> Photo:
    """All waves shorter than `wavelength` pixels cut off: edges ring up to `reach` pixels away.

    The round ideal low-pass of Real-ESRGAN (Wang et al., 2021, section 3.4, equation 6) with
    cutoff 2π / wavelength and a kernel of 2·reach + 1 pixels.
    """
    return _filter(photo, sinc_kernel(wavelength, reach))


def sinc_kernel(wavelength: float, reach: int) -> np.ndarray:
    """Odd square float32 kernel of sum 1; a part of it is negative."""
    cutoff, r = 2 * math.pi / wavelength, np.hypot(*_grid(reach, 0))
    r[reach, reach] = 1
    kernel = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    kernel[reach, reach] = cutoff**2 / (4 * math.pi)
    return _normal(kernel)


@operation(sigma=(0, 100))
def chroma_blur(photo: Photo, sigma: float) -> Photo:
    """Colours blurred by sigma pixels, the luma left as it is."""
    if sigma == 0:
        return photo
    luma = (photo @ LUMA)[..., None]
    return luma + cv2.GaussianBlur(photo - luma, (0, 0), sigma)


@operation(sigma_colour=(0, 765), sigma_space=(0, 10))
def bilateral(photo: Photo, sigma_colour: float, sigma_space: float) -> Photo:
    """Smeared within `sigma_space` pixels where colours differ by less than about `sigma_colour`.

    sigma_colour in levels (1/255), of the summed difference over R, G and B (Tomasi and Manduchi,
    1998, as in OpenCV).
    """
    if sigma_colour == 0 or sigma_space == 0:
        return photo
    return cv2.bilateralFilter(photo, 0, sigma_colour / 255, sigma_space)


@operation(reach=(0, 10))
def median(photo: Photo, reach: int) -> Photo:
    """The median of 2·reach + 1 pixels squared in each channel, in 8 bits as phones do."""
    if reach == 0:
        return photo
    levels = cv2.medianBlur(np.rint(photo * 255).astype(np.uint8), 2 * reach + 1)
    return levels.astype(np.float32) / 255


# ---- storage and age


@operation(factor=(1, 64), down=tuple(INTERPOLATION), up=tuple(INTERPOLATION))
def resize(photo: Photo, factor: float, down: str, up: str, steps: Sequence[dict] = ()) -> Photo:
    """Shrunk by `factor` and enlarged back to the size; `steps` happen to the small picture."""
    h, w = photo.shape[:2]
    size = max(1, round(w / factor)), max(1, round(h / factor))
    if size == (w, h):
        return run(photo, steps)
    small = cv2.resize(photo, size, interpolation=INTERPOLATION[down])
    if steps:
        small = run(np.clip(small, 0, 1), steps)
    return cv2.resize(small, (w, h), interpolation=INTERPOLATION[up])


@operation(quality=(5, 95), subsampling=tuple(SUBSAMPLING), shift_x=(0, 7), shift_y=(0, 7))
def jpeg(
    photo: Photo, quality: int, subsampling: str = "4:2:0", shift_x: int = 0, shift_y: int = 0
) -> Photo:
    """Through a JPEG file in memory (libjpeg's quality).

    Its blocks of 8 pixels begin shift_x and shift_y pixels outside the picture, as in a file that
    was cropped afterwards. With these, sides go up to 65,500 pixels, the format's limit.
    """
    if max(photo.shape[0] + shift_y, photo.shape[1] + shift_x) > 65500:
        came = f"{photo.shape[1]}x{photo.shape[0]}; cut the picture into tiles"
        raise ValueError(f"jpeg takes sides up to 65500 pixels, got {came}")
    levels = cv2.cvtColor(np.rint(photo * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    levels = cv2.copyMakeBorder(levels, shift_y, 0, shift_x, 0, cv2.BORDER_REFLECT)
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SUBSAMPLING[subsampling]]
    _, data = cv2.imencode(".jpg", levels, settings)
    levels = cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
    return levels[shift_y:, shift_x:].astype(np.float32) / 255


@operation()
def grey(photo: Photo) -> Photo:
    """Black and white: the luma (Rec. 601) in all three channels."""
    return np.repeat((photo @ LUMA)[..., None], 3, 2)


@operation(contrast=(0, 1), lift=(0, 1), cast=(0, 1))
def fade(photo: Photo, contrast: float, lift: float, cast: float) -> Photo:
    """Age: black becomes `lift`, white `lift + (1 - lift)·contrast`; a cast above 0 yellows it.

    Cast 1 makes a grey picture sepia.
    """
    tint = np.array([1, 1 - 0.16 * cast, 1 - 0.42 * cast], np.float32)
    return (photo * np.float32((1 - lift) * contrast) + np.float32(lift)) * tint
