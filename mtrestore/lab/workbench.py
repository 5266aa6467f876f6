"""The workbench: one photo under one's hands, in a notebook or under Voilà.

    workbench()                          # the sample; or workbench("old.jpg", preset="clean")

Choose a photo, wear it by a recipe, draw or delete face boxes, restore, compare, look at every step
and at what was invented, save. The pipeline runs in the kernel and the models are loaded once.
Whatever goes wrong is one line below the buttons; what was there stays.
"""

from __future__ import annotations

import base64
import html
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import ipywidgets as w
import numpy as np

from .. import degrade, image, metrics, view
from ..crop import Crop
from ..face import Face, dense, detect, faces_from
from ..io.claims import Claims
from ..io.text import one_line
from ..options import Options, facts
from ..pipeline import Restored, Restorer
from ..plot import Plot
from ..training import batches
from .boxes import Boxes

PRESETS = {"as it is": "clean", "mild": "mild", "medium": "medium", "severe": "severe"}
PRESETS["old photo"] = "old-photo"
NOISES = ("gaussian_noise", "poisson_noise", "grain", "colour_noise")
NEUTRAL = {"factor": 1, "contrast": 1, "quality": 100}  # values that change nothing
NEUTRAL |= dict.fromkeys(("sigma", "sigma_x", "sigma_y", "radius", "length", "lift", "cast"), 0)
LEVELS = 32  # where the maps of what was invented are brightest
SLIDERS = {"strength": (0, 2, 0.05), "seed": (0, 99, 1)}  # low, high, step
SLIDERS |= {
    name: facts(name)["slider"]
    for name in ("working_size", "photo_strength", "face_strength", "scale")
}
AUTO = "by the face"  # the fidelity that is None: a list of ipywidgets has no such value
FIDELITY = [AUTO, *(n / 10 for n in range(11))]
UNDONE = ("preset", "face_fidelity", *SLIDERS)  # what Undo brings back, with the boxes
HINTS = (
    "after Restore: before and after, to drag",
    "after Restore: every picture on the way",
    "after Restore: each face, and what of it is likely but not in your photo",
    "after Restore: the recipe and all settings, as they are saved",
)


def stronger(recipe: degrade.Recipe, strength: float) -> degrade.Recipe:
    """The recipe with every fault times `strength`: 0 is next to nothing, 1 the recipe itself."""

    def scaled(name: str, key: str, value: Any) -> Any:
        if key not in NEUTRAL:
            return value
        value = NEUTRAL[key] + (value - NEUTRAL[key]) * strength
        value = float(np.clip(value, *degrade.PARAMETERS[name][key]))
        return round(value) if key in degrade.INTEGERS else round(value, 4)

    steps = [{k: scaled(s["op"], k, v) for k, v in s.items()} for s in recipe.steps]
    return replace(recipe, steps=tuple(steps))


def invented(
    out: np.ndarray, worn: np.ndarray, recipe: degrade.Recipe | None = None, radius: float = 2.0
) -> np.ndarray:
    """What of a restoration the worn picture does not show, in levels (1/255).

    H×W×2 float32 at the size of `worn`; local is a Gaussian of `radius` px.
    [..., 0], unseen: the local RMS of out − D(out). D is the recipe without noise and without what
        a restoration keeps (grey, fading): D erases this detail, so the worn picture cannot have
        shown it. 0 where the recipe erases nothing.
    [..., 1], against: the local mean of D'(out) − worn, RMS over the channels. D' has the recorded
        noise too, so the truth itself gives 0 (but for noise that a later fading weakened): what is
        above 0 here says something else than the worn picture.
    Without a recipe nobody knows D, and a Gaussian of 2 px stands in: unseen is how far the local
    RMS of out − D(out) exceeds that of worn − D(worn); against is D(out) − D(worn).
    """

    def soft(x: np.ndarray, sigma: float = radius) -> np.ndarray:
        return cv2.GaussianBlur(np.ascontiguousarray(x, np.float32), (0, 0), sigma)

    def rms(x: np.ndarray) -> np.ndarray:
        return np.sqrt(soft((x**2).mean(-1)))

    out = image.resize(out, worn.shape[:2])
    if recipe is None:
        apart = soft(out, 2) - soft(worn, 2)
        unseen = rms(out - soft(out, 2)) - rms(worn - soft(worn, 2))
    else:
        steps = [s for s in recipe.steps if s["op"] not in batches.TONE]
        optics = degrade.Recipe(tuple(s for s in steps if s["op"] not in NOISES))
        apart = soft(degrade.apply(out, degrade.Recipe(tuple(steps))) - worn)
        unseen = rms(out - degrade.apply(out, optics))
    return 255 * np.dstack([np.maximum(unseen, 0), np.sqrt((apart**2).mean(-1))])


def gain(
    out: np.ndarray, worn: np.ndarray, truth: np.ndarray, crop: Crop | None = None
) -> tuple[float, float]:
    """PSNR against the truth, in dB, before and after: of all, or inside a crop.

    out may have another size; worn and truth have the same.
    """
    out = image.resize(out, truth.shape[:2])
    pictures = [worn, out, truth]
    if crop:
        pictures = [crop.resized(192).cut(picture) for picture in pictures]
    return metrics.psnr(pictures[0], pictures[2]), metrics.psnr(pictures[1], pictures[2])


def judged(face: Face, dB: tuple[float, float] | None) -> str:
    """What became of a face: one that came out worse than it went in is not called restored."""
    if face.status != "restored" or dB is None:
        return face.status
    before, after = dB
    return "restored" if after >= before else "made worse"


def card(
    face: Face,
    crop: Crop,
    worn: np.ndarray,
    out: np.ndarray,
    maps: np.ndarray,
    dB: tuple[float, float] | None = None,
) -> tuple[str, Plot]:
    """A line of words and a figure: input with landmarks, result, both maps of `invented`.

    dB: PSNR of the face before and after, where a truth is known.
    """
    crop, inside = crop.resized(192), crop.mask(worn.shape) > 0.5
    unseen, against = (float(maps[inside, i].mean()) if inside.any() else 0.0 for i in (0, 1))
    levels = 255 * crop.cut(np.dstack([maps, maps[..., 0]]) / 255)
    large = crop.scaled((out.shape[1] / worn.shape[1], out.shape[0] / worn.shape[0]))
    pictures = {"input": crop.cut(worn), "result": large.cut(out)}
    pictures |= {"likely, not in your photo": levels[..., 0]}
    pictures |= {"not as in your photo": levels[..., 1]}
    plot = view.show(pictures, columns=4, size=2.4)
    view.draw_landmarks(plot.axes[0], crop.points(face.landmarks), view.COLOURS[0])
    for axes in plot.axes[2:4]:
        axes.images[0].set(cmap="magma", clim=(0, LEVELS))
    plot.colorbar(plot.axes[3].images[0], ax=plot.axes[:4], label="levels, of 255", shrink=0.8)
    words = (
        f"{judged(face, dB)} · score {face.score:.2f} · {face.side:.0f} px"
        f" · turned {np.degrees(crop.roll):+.0f}° · likely, not in your photo {unseen:.1f} levels"
        f" · not as in your photo {against:.1f} levels"
    )
    if dB:
        words += f" · PSNR {dB[1]:.2f} dB from {dB[0]:.2f}"
    return words, plot


def wide(kind: type[w.Widget], name: str, **options: Any) -> Any:
    """A control with a label, which speaks when it is left, not at each key."""
    style = {"description_width": "92px"}
    if kind is not w.Dropdown:
        options["continuous_update"] = False
    return kind(description=name, layout=w.Layout(width="auto"), style=style, **options)


def slider(name: str, value: float) -> w.Widget:
    low, high, step = SLIDERS[name]
    kind = w.IntSlider if isinstance(step, int) else w.FloatSlider
    return wide(kind, name.replace("_", " "), value=value, min=low, max=high, step=step)


def show(place: w.Output, *parts: Any) -> None:
    """Put words, comparisons and plots into `place`, at once, without a kernel too."""

    def content(part: Any) -> dict[str, str]:
        if isinstance(part, Plot):
            return {"image/png": base64.b64encode(part._repr_png_()).decode()}
        return {"text/plain": part} if isinstance(part, str) else {"text/html": part._repr_html_()}

    outputs = [{"output_type": "display_data", "data": content(p), "metadata": {}} for p in parts]
    place.outputs = tuple(outputs)


class Workbench(w.VBox):
    """What `workbench` gives: `controls` by name, `photo`, `recipe`, `worn`, `faces`, `result`."""

    def __init__(self, photo: Any, preset: str, settings: dict[str, Any], options: dict) -> None:
        self.options, self.restorers = options, {}
        self.boxes: list[list[float]] | None = None  # those that were put into the canvas
        self.saved: set[Path] = set()
        self.past: list[dict[str, Any]] = []  # states before this one, for Undo
        self.now: dict[str, Any] | None = None
        self.controls = c = self._controls(preset, settings)
        self.canvas, self.status = Boxes(), w.HTML()
        self.tabs = [w.Output() for _ in range(4)]
        super().__init__(self._layout())
        c["sample"].on_click(lambda _: self.take(None))
        c["restore"].on_click(lambda _: self.restore())
        c["find"].on_click(lambda _: self.find())
        c["save"].on_click(lambda _: self.save())
        c["undo"].on_click(lambda _: self.undo())
        for name in ("preset", "strength", "seed"):
            c[name].observe(lambda _: self.wear(), "value")
        c["path"].observe(lambda change: change.new and self.take(change.new), "value")
        c["upload"].observe(lambda change: change.new and self.take(change.new[0]), "value")
        c["boxes"].observe(lambda _: self._type(), "value")
        self.canvas.observe(lambda _: self._draw(), "boxes")
        for name in UNDONE:
            c[name].observe(lambda _: self._remember(), "value")
        self.take(photo, as_it_is=False)

    @staticmethod
    def _controls(preset: str, settings: dict[str, Any]) -> dict[str, Any]:
        auto, boxes = w.Layout(width="auto"), "drawn, found, or x0 y0 x1 y1; ..."
        credit, name = "Eileen Collins, NASA, public domain", "outputs/workbench/restored.png"
        fidelity = AUTO if settings["face_fidelity"] is None else settings["face_fidelity"]
        levels = FIDELITY if fidelity in FIDELITY else [*FIDELITY, fidelity]
        controls = {name: slider(name, settings[name]) for name in SLIDERS}
        return controls | {
            "face_fidelity": wide(w.Dropdown, "fidelity", options=levels, value=fidelity),
            "undo": w.Button(description="Undo"),
            "upload": w.FileUpload(accept="image/*", description="Upload a photo", layout=auto),
            "sample": w.Button(description="Take the sample", tooltip=credit),
            "path": wide(w.Text, "photo", placeholder="or its path, then Enter"),
            "preset": wide(w.Dropdown, "wear it", options=PRESETS, value=preset or "clean"),
            "boxes": wide(w.Text, "face boxes", placeholder=boxes),
            "restore": w.Button(description="Restore", button_style="primary"),
            "find": w.Button(description="Find faces"),
            "save_as": wide(w.Text, "save as", value=name),
            "save": w.Button(description="Save picture and recipe", layout=auto),
        }

    def _layout(self) -> list[w.Widget]:
        c = self.controls
        names = ("path", "preset", "strength", "seed", "boxes", *list(SLIDERS)[2:], "face_fidelity")
        rows = [w.HBox([c["upload"], c["sample"]]), *(c[name] for name in names)]
        rows += [w.HBox([c["restore"], c["find"], c["undo"]]), c["save_as"], c["save"]]
        left = w.VBox(rows, layout=w.Layout(width="370px"))
        right = w.VBox([self.canvas], layout=w.Layout(flex="1 1 300px"))
        bench = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", grid_gap="12px"))
        tabs = w.Tab(self.tabs, titles=["Before / after", "Every step", "Faces", "Recipe"])
        return [bench, self.status, tabs]

    # ---- what one can do; each says in the status what came of it

    def take(self, photo: Any, as_it_is: bool = True) -> None:
        """Lay a photo on the bench: None (the sample), path, picture, array, or an upload.

        as_it_is: a photo of one's own is not worn until that is asked for again.
        """
        own = photo is not None
        with self._working("reading the photo"), tempfile.TemporaryDirectory() as folder:
            if photo is None:
                import skimage.data

                photo = skimage.data.astronaut()
            elif isinstance(photo, dict):  # through the one reader, with its limits
                content, photo = photo["content"], Path(folder, Path(photo["name"]).name)
                image.write_bytes(photo, content)
            self.photo = photo if isinstance(photo, image.Picture) else image.load(photo)
            self.result, self.faces = None, []
            self.auto = True  # the detector finds the faces, until a box is edited
            if own and as_it_is:
                self.controls["preset"].value = "clean"
            self._put([])
            self.wear()
            self.past, self.now = [], self._state()

    def wear(self) -> None:
        """Draw the recipe again and apply it; boxes stay."""
        with self._working("wearing the photo"):
            name, strength, seed = (self.controls[n].value for n in ("preset", "strength", "seed"))
            recipe = stronger(degrade.draw(name, np.random.default_rng(seed)), strength)
            self.worn, self.recipe = degrade.apply(self.photo.pixels, recipe), recipe
            height, width = self.worn.shape[:2]
            self.canvas.size = [width, height]
            self.canvas.picture = view.data_uri(image.shrink(self.worn, 800))
            if self.result is None:
                self._preview()
            self._say(f"{width}×{height} px, worn by: {', '.join(recipe.ops) or 'nothing'}")

    def find(self) -> None:
        """Let the detector look, now and at each restoration until a box is edited."""
        with self._working("looking for faces"):
            restorer = self._restorer()
            self.faces = detect(self.worn, restorer.detector, landmarks=self._net(restorer))
            self.auto = True
            self._put(self.faces)
            self._say(f"faces found: {len(self.faces)}")

    def restore(self) -> Restored | None:
        """Restore what lies on the bench; None where that failed."""
        with self._working("restoring"):
            restorer = self._restorer()
            recipe, worn = self.recipe, self.worn  # a widget may change them meanwhile
            faces = None if self.auto else [self._face(b, restorer) for b in self.canvas.boxes]
            result = restorer(self.photo.with_pixels(worn), faces)
            maps = invented(result.image, worn, recipe if recipe.steps else None)
            truth = self._truth(recipe)
            crops = [restorer.rule(f) for f in result.faces]
            dBs = [None if truth is None else gain(result.image, worn, truth, c) for c in crops]
            cards = [
                card(f, c, worn, result.image, maps, dB)
                for f, c, dB in zip(result.faces, crops, dBs)
            ]
            states = [judged(f, dB) for f, dB in zip(result.faces, dBs)]
            about = self._about(result, recipe, states, [words for words, _ in cards])
            before = "worn" if recipe.steps else "before"
            parts = [part for words_and_plot in cards for part in words_and_plot]
            show(self.tabs[0], result.compare(labels=(before, "restored")))
            show(self.tabs[1], view.steps(result))
            none = "no face here: the whole-photo branch did all the work; draw a box where one is"
            show(self.tabs[2], *parts or [none])
            show(self.tabs[3], about)
            self.result, self.about = result, about
            self.faces = [
                f if f.status == "too_small" else replace(f, status="found") for f in result.faces
            ]
            self._put(self.faces)
            count = sum(state in ("restored", "soft") for state in states)
            worse = states.count("made worse")
            words = f"restored in {result.timings['total']:.1f} s, {count} of {len(cards)} faces"
            words += f", {worse} made worse" if worse else ""
            if truth is not None:
                before, after = gain(result.image, worn, truth)
                words += f", PSNR {after:.2f} dB from {before:.2f}"
            self._say(words)
            return result

    def save(self) -> Path | None:
        """Write picture and .json; None where that failed. What others left there stays."""
        with self._working("saving"):
            if self.result is None:
                raise ValueError("there is nothing to save yet; press Restore first")
            path = Path(self.controls["save_as"].value.strip())
            beside, allowed = path.with_suffix(".json"), Claims()
            if self.photo.path:
                allowed.reads(self.photo.path, "the photo")
            for file in (path, beside):
                allowed.claim(file, "the picture's", replace=file.absolute() in self.saved)
            self.result.save(path)
            self.saved.add(path.absolute())
            image.write_bytes(beside, self.about.encode())
            self.saved.add(beside.absolute())
            self._say(f"saved {path} and {beside.name}")
            return path

    def undo(self) -> None:
        """Bring back the settings and boxes before the last change."""
        if not self.past:
            return self._say("there is nothing to undo")
        state, rest = self.past[-1], self.past[:-1]
        for name in UNDONE:
            self.controls[name].value = state[name]
        self.canvas.boxes = state["boxes"]
        self.auto, self.boxes = state["auto"], state["boxes"]
        self.now, self.past = state, rest
        self._say("undone; press Restore to see it" if self.result else "undone")

    # ---- how

    def _state(self) -> dict[str, Any]:
        values = {name: self.controls[name].value for name in UNDONE}
        return values | {"boxes": self.canvas.boxes, "auto": self.auto}

    def _remember(self) -> None:
        """Keep the state before a change, for Undo."""
        state = self._state()
        if self.now not in (None, state):
            self.past.append(self.now)
        self.now = state

    def _preview(self) -> None:
        """Something to see before the first Restore: the photo, and what wearing made of it."""
        first = HINTS[0]
        if self.recipe.steps:
            first = view.compare(self.photo.pixels, self.worn, labels=("your photo", "worn"))
        for place, part in zip(self.tabs, (first, *HINTS[1:])):
            show(place, part)

    def _truth(self, recipe: degrade.Recipe) -> np.ndarray | None:
        """What a restoration should give: known only of a photo that was worn here."""
        return degrade.apply(self.photo.pixels, batches.tone(recipe)) if recipe.steps else None

    def _about(
        self, result: Restored, recipe: degrade.Recipe, states: Sequence[str], cards: Sequence[str]
    ) -> str:
        """What is saved beside a picture: recipe, settings, faces, timings and notes, as JSON."""
        faces = [
            {"box": f.box, "score": f.score, "status": state, "card": words}
            for f, state, words in zip(result.faces, states, cards)
        ]
        about: dict[str, Any] = {"photo": self.photo.path.name if self.photo.path else "array"}
        about["recipe"] = json.loads(recipe.to_json())
        about["settings"] = {name: self.controls[name].value for name in SLIDERS}
        about["settings"]["face_fidelity"] = self._fidelity()
        about |= {"faces": faces, "timings": result.timings, "notes": result.notes}
        return json.dumps(about, indent=1)

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """Meanwhile the buttons rest; errors end here, as one line."""
        buttons = [b for b in self.controls.values() if isinstance(b, w.Button)]
        self._say(f"{what} …")
        try:
            for b in buttons:
                b.disabled = True
            yield
        except Exception as e:  # whatever it is, the bench stays as it was
            self._say(f"error while {what}: {one_line(e)}", "#c62828")
        finally:
            for b in buttons:
                b.disabled = False

    def _say(self, words: str, colour: str = "inherit") -> None:
        style = f"color:{colour};font-weight:600"
        self.status.value = f'<div role="status" style="{style}">{html.escape(words)}</div>'

    def _restorer(self) -> Restorer:
        """The models with the sliders' settings; only doublings have the second sharpener."""
        scale, fidelity = self.controls["scale"].value, self._fidelity()
        nets = scale >= 2, fidelity
        if nets not in self.restorers:
            own = {"scale": scale, "face_fidelity": fidelity}
            self.restorers[nets] = Restorer(**own, **self.options)
        for name in ("scale", "working_size", "photo_strength", "face_strength"):
            setattr(self.restorers[nets], name, self.controls[name].value)
        return self.restorers[nets]

    def _fidelity(self) -> float | None:
        value = self.controls["face_fidelity"].value
        return None if value == AUTO else value

    def _face(self, box: Sequence[float], restorer: Restorer) -> Face:
        """The face that was found in this box, or one made of the box, with dense landmarks."""
        for f in self.faces:
            if np.allclose(f.box, box, rtol=0, atol=0.06):
                return f
        face, net = faces_from([box])[0], self._net(restorer)
        return dense(self.worn, face, net) if net and face.status == "found" else face

    def _net(self, restorer: Restorer) -> Callable | None:
        return restorer._landmark_net if getattr(restorer, "landmarks", None) else None

    def _put(self, faces: Sequence[Face]) -> None:
        """Show these faces' boxes; that is no edit."""
        self.boxes = [[round(v, 1) for v in f.box] for f in faces]
        self.canvas.boxes = self.boxes
        self._draw()
        self.now = self._state()

    def _draw(self) -> None:
        """The picture's boxes were changed, by hand unless they are those just put there."""
        boxes = self.canvas.boxes
        if boxes != self.boxes:
            self.auto, self.boxes = False, boxes
            self._say(f"face boxes: {len(boxes)}, for the next restoration")
            self._remember()
        self.controls["boxes"].value = self._words()

    def _words(self) -> str:
        return "; ".join(" ".join(f"{v:g}" for v in box) for box in self.canvas.boxes)

    def _type(self) -> None:
        """The boxes were written as text, by hand unless the picture has just these."""
        words = self.controls["boxes"].value
        if words == self._words():
            return
        with self._working("reading the boxes"):
            texts = [text.split() for text in words.replace(",", " ").split(";") if text.strip()]
            boxes = [[float(v) for v in text] for text in texts]
            faces_from(boxes)
            self.canvas.boxes = boxes


def workbench(
    photo: Any = None,
    *,
    preset: str | None = None,
    strength: float = 1.0,
    seed: int = 7,
    working_size: int = Options.working_size,
    photo_strength: float = Options.photo_strength,
    face_strength: float = Options.face_strength,
    scale: float = Options.scale,
    face_fidelity: float | None = Options.face_fidelity,
    **options: Any,
) -> Workbench:
    """A widget to restore one photo by hand: show it as the last line of a cell.

    photo: what `read` takes; None is the sample. preset, strength, seed: how it is worn first; by
    default the sample is, by "medium", and a photo of your own is left as it is ("clean").
    working_size to face_fidelity: where the sliders begin. options: further ones of `Restorer`.
    """
    preset = preset or ("medium" if photo is None else "clean")
    values = (strength, seed, working_size, photo_strength, face_strength, scale)
    settings: dict[str, Any] = dict(zip(SLIDERS, values)) | {"face_fidelity": face_fidelity}
    return Workbench(None if photo is None else image.load(photo), preset, settings, options)
