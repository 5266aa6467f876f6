"""What the networks promise: stated sizes, a fresh net that changes nothing, joins that differ only
in the join, exact filters.

The guided filter is held against loops over windows in float64, paddings and enlargements against
numpy and torch.
"""

import inspect
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pairwise import pairwise

from mtrestore import nets
from mtrestore.nets import blocks, critic, face, guided

JOINS = face.JOINS
# constructor arguments for tests, kinds of input, and factor from the last input's size to the
# output's
SMALL = {
    "FaceNet": ({"widths": "XS"}, 1, 1),
    "Generator": ({"widths": "XS"}, 6, 1),
    "Critic": ({"widths": "XS"}, 1, None),
    "SpectralCritic": ({"widths": (4, 4, 8, 8, 8, 8)}, 1, None),
    "PartCritic": ({"widths": (4, 4, 8, 8)}, 1, None),
    "FaceEmbedding": ({"widths": (8, 8, 8, 16, 16), "out": 8}, 1, None),
    "RestorerNet": ({"widths": (8, 12, 16), "blocks": 1}, 1, 1),
    "DeepGuidedFilter": ({"width": 4}, 3, 1),
    "GuidedUpsampler": ({"guide_width": 4, "width": 4, "blocks": 1}, 3, 1),
    "Refiner": ({"width": 4, "blocks": 1}, 2, 1),
    "Sharpener": ({"scale": 2, "width": 8, "blocks": 1}, 1, 2),
    "LandmarkNet": ({"widths": (4, 4, 8, 8, 8), "hidden": 8}, 1, None),
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(name: str, fresh: bool = False, **changes: object) -> blocks.Net:
    """The small net of that name; unless fresh, its zero layers too are moved, so that every part
    matters.
    """
    torch.manual_seed(0)
    net = nets.REGISTRY[name](**{**SMALL[name][0], **changes})
    return net if fresh else shaken(net)


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return net


def inputs(name: str, h: int, w: int, batch: int = 2) -> list[torch.Tensor]:
    """Random inputs whose picture is h×w; for the guided nets the small pair has half its size."""
    kinds = SMALL[name][1]
    if kinds == 6:
        return [
            [
                noise(*shape, seed=i)
                for i, shape in enumerate(made(name).decoder.shapes(batch, h))
                if h == w
            ]
        ]
    if kinds == 3:
        return [*noise(2, batch, 3, max(1, h // 2), max(1, w // 2)), noise(batch, 3, h, w)]
    return [noise(batch, 3, h, w, seed=i) for i in range(kinds)]


def numbers(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# ---- the contract of every net -------------------------------------------------------------------


def test_every_net_of_the_registry_is_tested_here():
    assert SMALL.keys() == nets.REGISTRY.keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_net_runs_at_its_minimum_and_keeps_the_stated_shape(name):
    net, scale = made(name), SMALL[name][2]
    assert net.minimum % net.multiple == 0 or net.multiple == 1
    out = net(*inputs(name, net.minimum, net.minimum))
    others = {
        "Critic": (2, 1),
        "SpectralCritic": (2, 1),
        "PartCritic": (2, 1),
        "LandmarkNet": (2, 468, 2),
        "FaceEmbedding": (2, 8),
    }
    expected = others.get(name) or (2, 3, net.minimum * scale, net.minimum * scale)
    assert tuple(out.shape) == expected and out.dtype == torch.float32 and torch.isfinite(out).all()


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in SMALL
        if n
        not in (
            "Critic",
            "SpectralCritic",
            "PartCritic",
            "Generator",
            "LandmarkNet",
            "FaceEmbedding",
        )
    ],
)
@pytest.mark.parametrize("sides", [(1, 2), (3, 1), (2, 5)])
def test_every_pair_of_multiples_gives_a_picture_of_its_size(name, sides):
    net, scale = made(name), SMALL[name][2]
    h, w = (max(net.minimum, 4, net.multiple) * n for n in sides)
    assert tuple(net(*inputs(name, h, w)).shape) == (2, 3, h * scale, w * scale)


@pytest.mark.parametrize("name", SMALL)
def test_config_rebuilds_the_net(name):
    net = made(name)
    twin = type(net)(**net.config)
    twin.load_state_dict(net.state_dict())
    size = 128 if name == "LandmarkNet" else 32
    assert torch.equal(twin(*inputs(name, size, size)), net(*inputs(name, size, size)))


def test_config_names_every_choice_with_its_default():
    for name in SMALL:
        kind = nets.REGISTRY[name]
        defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
        assert defaults and kind().config == defaults, name


def test_config_takes_positional_arguments():
    assert nets.Refiner(4, blocks=1).config == {"width": 4, "blocks": 1, "concat": True}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name):
    net = made(name)
    size = 128 if name == "LandmarkNet" else 64
    given = inputs(name, size, size, batch=4)
    (net(*given) ** 2).sum().backward()
    if name == "SpectralCritic":
        (net.study(*given)[1] ** 2).sum().backward()
    assert [
        k
        for k, p in net.named_parameters()
        if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ] == []


@pytest.mark.parametrize("name", ["FaceNet", "RestorerNet", "Sharpener", "GuidedUpsampler"])
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(name):
    net, both = made(name), inputs(name, 32, 32)
    assert torch.allclose(net(*both)[1:], net(*(x[1:] for x in both)), atol=1e-6)


# ---- fresh nets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("join", JOINS)
def test_a_fresh_face_net_returns_its_input(join):
    x = noise(2, 3, 64, 32)
    assert torch.equal(made("FaceNet", fresh=True, join=join)(x), x)


@pytest.mark.parametrize(("name", "options"), [("RestorerNet", {}), ("Sharpener", {"scale": 1})])
def test_a_fresh_net_returns_its_input(name, options):
    x = noise(2, 3, 24, 40)
    assert torch.equal(made(name, fresh=True, **options)(x), x)


def test_a_fresh_sharpener_x2_is_the_bicubic_enlargement():
    x = noise(1, 3, 10, 14)
    assert torch.equal(
        made("Sharpener", fresh=True)(x),
        F.interpolate(x, size=(20, 28), mode="bicubic", align_corners=False),
    )


def test_a_fresh_refiner_returns_the_filter_output():
    oh0, ih = noise(2, 1, 3, 9, 7)
    assert torch.equal(made("Refiner", fresh=True)(oh0, ih), oh0)


def test_a_fresh_guided_upsampler_is_its_filter():
    net, x = made("GuidedUpsampler", fresh=True), inputs("GuidedUpsampler", 12, 16)
    assert torch.equal(net(*x), net.filter(*x))


def test_a_guided_upsampler_without_refiner_is_its_filter():
    net, x = made("GuidedUpsampler", refine=False), inputs("GuidedUpsampler", 12, 16)
    assert net.reach == 0 and torch.equal(net(*x), net.filter(*x))


def test_an_untrained_landmark_net_answers_with_its_mean():
    net = made("LandmarkNet", fresh=True)
    net.mean.copy_(noise(468, 2))
    assert torch.equal(net(noise(3, 3, 128, 128)), noise(468, 2).expand(3, 468, 2))


def test_the_mean_shape_is_saved_with_the_landmark_net():
    assert "mean" in made("LandmarkNet").state_dict()


# ---- FaceNet -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("widths", "count"), [("S", 4_284_179), ("M", 7_208_723)])
def test_width_plans_have_their_published_size(widths, count):
    assert numbers(nets.FaceNet(widths)) == count


@pytest.mark.parametrize("widths", ["XS", "S", "M"])
def test_add_matched_has_the_parameters_of_concat(widths):
    concat, matched, add = (
        numbers(nets.FaceNet(widths, join)) for join in ("concat", "add-matched", "add")
    )
    assert matched == pytest.approx(concat, rel=1e-3)
    assert add < 0.95 * concat, "the plain add arm is smaller, or the matched one would be needless"


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 64), (160, 128)])
def test_the_face_net_is_fully_convolutional(size):
    assert made("FaceNet")(noise(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("size", "hint"), [((33, 32), "64x32"), ((64, 100), "64x128"), ((1, 500), "32x512")]
)
def test_sizes_that_do_not_fit_are_named(size, hint):
    with pytest.raises(ValueError, match=rf"multiples of 32, got {size[0]}x{size[1]}; try {hint}$"):
        made("FaceNet")(noise(1, 3, *size))


@pytest.mark.parametrize("widths", ["XL", "", (8, 16), (8,) * 7, 6, None])
def test_widths_that_do_not_fit_are_named(widths):
    with pytest.raises(ValueError, match="widths must be one of XS, S, M or six numbers, got"):
        nets.FaceNet(widths)


def test_an_unknown_join_is_named():
    with pytest.raises(
        ValueError, match="join must be one of concat, add, add-matched, none, got 'cat'"
    ):
        nets.FaceNet("XS", join="cat")


def test_six_numbers_make_a_plan():
    assert numbers(nets.FaceNet(list(face.WIDTHS["XS"]))) == numbers(nets.FaceNet("XS"))


def test_without_the_residual_form_the_decoder_makes_the_picture():
    net, x = made("FaceNet", residual=False), noise(1, 3, 32, 32)
    assert torch.equal(net(x), (net.decoder(net.encoder(x)) + 1) / 2)


@pytest.mark.parametrize("size", [32, 96])
def test_decoder_shapes_are_what_the_encoder_gives(size):
    net = made("FaceNet")
    assert [tuple(f.shape) for f in net.encoder(noise(2, 3, size, size))] == net.decoder.shapes(
        2, size
    )


@pytest.mark.parametrize("join", JOINS)
def test_the_decoder_runs_on_random_tensors_of_its_shapes(join):
    decoder = made("FaceNet", join=join).decoder
    assert decoder([noise(*s) for s in decoder.shapes(2, 64)]).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("join", JOINS)
def test_a_changed_feature_changes_the_picture_if_and_only_if_it_is_joined(join):
    decoder = made("FaceNet", join=join).decoder
    feats = [noise(*s) for s in decoder.shapes(1, 32)]
    before = decoder(feats)
    for level in range(6):
        changed = [f + 1 if i == level else f for i, f in enumerate(feats)]
        assert torch.equal(decoder(changed), before) == (join == "none" and level < 5), level


def test_every_join_gives_another_picture():
    pictures = [made("FaceNet", join=join)(noise(1, 3, 32, 32)) for join in JOINS]
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(pictures, 2))


# ---- the decoder that draws ----------------------------------------------------------------------

DRAWS = {"widths": (4, 4, 8, 8, 8, 8), "decoder": "synthesis"}


def drawing(seed: int = 0) -> nets.Generator:
    """A small generator whose join noise is heard and whose batch norms have seen something."""
    torch.manual_seed(seed)
    net = shaken(nets.Generator(**DRAWS))
    for _ in range(3):
        net(net.draw(4, 64))
    return net.eval()


@pytest.mark.parametrize("size", [32, 64, 96])
def test_the_drawing_decoder_takes_every_multiple_of_32(size):
    net = drawing()
    picture = net(net.draw(2, size))
    assert picture.shape == (2, 3, size, size) and 0 <= picture.min() and picture.max() <= 1


def test_join_noise_is_silent_until_a_gain_has_been_learned():
    torch.manual_seed(0)
    net = nets.Generator(**DRAWS).eval()
    drawn = net.draw(1, 64, torch.Generator().manual_seed(0))
    other = [*net.draw(1, 64, torch.Generator().manual_seed(1))[:5], drawn[5]]
    assert torch.equal(net(drawn), net(other)), "only the s/32 tensor is heard"
    drawn[5] = other[5] + 1
    assert not torch.equal(net(drawn), net(other))


@pytest.mark.parametrize("level", range(6))
def test_every_tensor_is_heard_by_a_trained_one(level):
    net = drawing()
    drawn = net.draw(1, 64, torch.Generator().manual_seed(0))
    before = net(drawn)
    drawn[level] = net.draw(1, 64, torch.Generator().manual_seed(1))[level]
    assert (net(drawn) - before).abs().max() > 1e-4


@pytest.mark.parametrize("size", [32, 96])
def test_folded_batch_norm_is_the_same_function(size):
    net = drawing()
    folded, drawn = net.decoder.folded(), net.draw(2, size)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(drawn), net.decoder(drawn), atol=1e-5)


def test_a_face_net_takes_the_drawing_decoder_and_mixes_by_its_mask():
    net, x = nets.FaceNet(**DRAWS), noise(2, 3, 64, 64)
    net.take(drawing())
    feats = net.skips(net.encoder(x))
    m = torch.sigmoid(torch.tensor(-2.0))  # a fresh mask is even, and mostly face
    assert torch.allclose(net(x), m * x + (1 - m) * net.decoder(feats), atol=1e-6)
    net.mask.bias.data.fill_(50.0)
    assert torch.equal(net(x), x), "a mask of 1 leaves the input"


@pytest.mark.parametrize("size", [32, 96])
def test_one_face_is_drawn_with_scaled_weights_to_the_same_numbers(size, monkeypatch):
    """In inference the weights hold what multiplies channels; all else takes the plain way."""
    torch.manual_seed(0)
    net, x = shaken(nets.FaceNet(**DRAWS)).eval(), noise(1, 3, size, size + 32)
    for level in range(5):
        net.get_buffer(f"scale{level}").uniform_(0.5, 3)
    plain, calls = net(x), []
    one = net.decoder.paint_one
    monkeypatch.setattr(net.decoder, "paint_one", lambda *a: calls.append(1) or one(*a))
    with torch.no_grad():
        assert torch.equal(net(x), plain) and not calls
    with torch.inference_mode():
        assert (net(x) - plain).abs().max() < 1e-5 and calls == [1]
        assert (net(x.repeat(2, 1, 1, 1)) - plain).abs().max() < 1e-5 and calls == [1]


def test_fitted_features_are_as_the_noise_of_a_prior():
    """Unit variance in each channel of a join; the deepest without a mean, of unit length."""
    torch.manual_seed(0)
    net, x = nets.FaceNet(**DRAWS), noise(4, 3, 64, 64)
    net.fit_scales(x)
    features = net.encoder(x)
    for feature in net.skips(features)[:5]:
        std = feature.std((0, 2, 3))
        assert torch.allclose(std, torch.ones_like(std), atol=1e-3)
    centred = net.eval().code(features[5])
    assert centred.mean((0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(centred.std((0, 2, 3)), torch.ones(8), atol=1e-2)
    length = net.deepest(features[5]).square().mean(1)
    assert torch.allclose(length, torch.ones_like(length), atol=1e-3)


def test_noise_in_the_skips_reaches_only_the_pictures_that_were_named():
    torch.manual_seed(0)
    net, x = shaken(nets.FaceNet(**DRAWS)), noise(2, 3, 64, 64)
    plain, mixed = net(x), net(x, torch.tensor([3, 0]))
    assert torch.allclose(plain[1], mixed[1], atol=1e-6) and not torch.allclose(
        plain[0], mixed[0], atol=1e-4
    )


def test_with_all_skips_noise_only_the_deepest_feature_is_heard():
    torch.manual_seed(0)
    net, x = shaken(nets.FaceNet(**DRAWS)), noise(1, 3, 64, 64)
    net.mask.bias.data.fill_(-50.0)
    net.encoder.downs[-1].register_forward_hook(lambda *_: torch.ones(1, 8, 2, 2))
    torch.manual_seed(1)
    one = net(x, torch.tensor([5]))
    torch.manual_seed(1)
    assert torch.allclose(net(1 - x, torch.tensor([5])), one)
    torch.manual_seed(1)
    assert not torch.allclose(net(1 - x, torch.tensor([4])), one, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"), [(nets.Generator, {"join": "add"}), (nets.FaceNet, {"join": "none"})]
)
def test_the_drawing_decoder_joins_by_concat_only(kind, options):
    with pytest.raises(ValueError, match="concat"):
        kind("XS", decoder="synthesis", **options)
    with pytest.raises(ValueError, match="decoder must be one of plain, synthesis"):
        kind("XS", decoder="dream")


# ---- Critic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", range(2, 10))
def test_minibatch_std_sees_lack_of_variety(batch):
    varied = torch.randn(batch, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    same = varied[:1].expand_as(varied)
    assert (
        critic.minibatch_std(same)[:, -1].max()
        < 1e-3
        < 0.1
        < critic.minibatch_std(varied)[:, -1].min()
    )


@pytest.mark.parametrize("batch", [1, 4, 5, 6, 8])
def test_minibatch_std_appends_one_channel_to_what_it_was_given(batch):
    x = noise(batch, 5, 2, 3)
    y = critic.minibatch_std(x)
    assert y.shape == (batch, 6, 2, 3) and torch.equal(y[:, :5], x)


def test_minibatch_std_is_the_mean_deviation_in_each_group_of_four():
    x = np.random.default_rng(0).normal(size=(8, 5, 2, 3))
    y = critic.minibatch_std(torch.from_numpy(x))[:, -1]
    for group in (0, 2, 4, 6), (1, 3, 5, 7):
        assert np.allclose(y[list(group)], x[list(group)].std(0).mean(), atol=1e-6)


def test_the_critic_scores_a_picture_by_its_company():
    net, x = made("Critic"), noise(4, 3, 32, 32)
    assert not torch.allclose(net(x)[:1], net(x[:1].repeat(4, 1, 1, 1))[:1])


def test_critic_features_halve_at_each_level():
    verdicts, feats = made("Critic").judge(noise(2, 3, 64, 32))
    assert [tuple(v.shape) for v in verdicts] == [(2, 1, 1, 1), (2, 1, 8, 4)], (
        "one for the face, one for each patch"
    )
    assert [tuple(f.shape[2:]) for f in feats] == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]


def test_a_spectral_critics_layers_have_norm_one():
    net = made("SpectralCritic", fresh=True)
    for _ in range(30):  # each call is a step of the power iteration
        net(noise(2, 3, 32, 32))
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and hasattr(layer, "parametrizations"):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(
                1, abs=0.02
            )


def test_a_spectral_critic_learns_to_redraw_what_it_sees():
    net = made("SpectralCritic", fresh=True)
    face = F.interpolate(noise(4, 3, 4, 4), (32, 32), mode="bilinear")
    adam, told = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(60):
        _, redrawn = net.study(face)
        loss = F.l1_loss(redrawn, F.avg_pool2d(face, 2))
        adam.zero_grad()
        loss.backward()
        adam.step()
        told.append(loss.item())
    assert redrawn.shape == (4, 3, 16, 16) and told[-1] < told[0] / 2


@pytest.mark.parametrize(("cin", "cout", "kernel"), [(3, 16, 1), (16, 64, 3), (64, 32, 3)])
def test_an_equalised_convolution_keeps_the_power_that_an_activation_halves(cin, cout, kernel):
    """Its output's variance is 2 (He et al., ICCV 2015), although every weight is stored at a
    standard deviation of 1/20.
    """
    torch.manual_seed(0)
    layer = critic.EqualConv(cin, cout, kernel)
    y = layer(torch.randn(4, cin, 32, 32))[..., 1:-1, 1:-1]
    assert y.std().item() == pytest.approx(2**0.5, rel=0.15)
    assert layer.weight.std().item() == pytest.approx(1 / 20, rel=0.25)


def test_the_logit_is_the_sum_of_the_faces_verdict_and_the_mean_of_its_patches():
    net, x = made("Critic"), noise(2, 3, 64, 64)
    (face_, patches), _ = net.judge(x)
    assert torch.allclose(net(x), face_[:, :, 0, 0] + patches.mean((2, 3)))


def test_the_patch_verdict_sees_36_px():
    net, x = made("Critic"), noise(1, 3, 96, 96).requires_grad_()
    net.judge(x)[0][1][0, 0, 6, 6].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 36


@pytest.mark.parametrize("widths", ["XXL", (8,) * 5, 8])
def test_critic_widths_that_do_not_fit_are_named(widths):
    with pytest.raises(ValueError, match="widths must be one of XS, S, M or six numbers, got"):
        nets.Critic(widths)


# ---- guided filter -------------------------------------------------------------------------------


def window_means(x: np.ndarray, radius: int) -> np.ndarray:
    """Mean of each (2r+1)² window of an h×w array, cut off at the borders, one window after the
    other.
    """
    out = np.empty_like(x)
    for i, j in np.ndindex(x.shape):
        out[i, j] = x[
            max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1
        ].mean()
    return out


def enlarged(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear at pixel centres, one pixel after the other; the border continues."""
    out = np.empty(size)
    for i, j in np.ndindex(size):
        y, z = ((p + 0.5) * n / m - 0.5 for p, n, m in zip((i, j), x.shape, size, strict=True))
        y, z = np.clip(y, 0, x.shape[0] - 1), np.clip(z, 0, x.shape[1] - 1)
        y0, z0 = int(y), int(z)
        y1, z1 = min(y0 + 1, x.shape[0] - 1), min(z0 + 1, x.shape[1] - 1)
        top = x[y0, z0] * (1 - z + z0) + x[y0, z1] * (z - z0)
        out[i, j] = top * (1 - y + y0) + (x[y1, z0] * (1 - z + z0) + x[y1, z1] * (z - z0)) * (
            y - y0
        )
    return out


def by_hand(
    small: np.ndarray, target: np.ndarray, large: np.ndarray, radius: int, eps: float
) -> np.ndarray:
    """The guided filter of one channel by its definition: a straight line fitted in every window,
    in float64.
    """
    a, b = np.empty_like(small), np.empty_like(small)
    for i, j in np.ndindex(small.shape):
        window = np.s_[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
        g, p = small[window], target[window]
        a[i, j] = ((g - g.mean()) * (p - p.mean())).mean() / (((g - g.mean()) ** 2).mean() + eps)
        b[i, j] = p.mean() - a[i, j] * g.mean()
    return enlarged(window_means(a, radius), large.shape) * large + enlarged(
        window_means(b, radius), large.shape
    )


def guided_case(ratio: int, dtype: type) -> list[np.ndarray]:
    rng = np.random.default_rng(ratio)
    return [rng.random((1, 2, 7 * k, 9 * k)).astype(dtype) for k in (1, 1, ratio)]


@pytest.mark.parametrize(
    "radius, eps, ratio, dtype",
    pairwise([1, 2], [1e-8, 1e-3, 0.1], [1, 2, 3], [np.float64, np.float32]),
)
def test_the_guided_filter_is_its_definition(radius, eps, ratio, dtype):
    within = {np.float64: 1e-9, np.float32: 1e-5}[dtype]
    case = guided_case(ratio, dtype)
    found = guided.GuidedFilter(radius, eps)(*map(torch.from_numpy, case)).numpy()
    expected = np.stack(
        [by_hand(*(np.float64(x[0, c]) for x in case), radius, eps) for c in range(2)]
    )[None]
    assert found.dtype == dtype
    assert np.abs(found - expected).max() < within


def test_the_guided_filter_is_exact_where_the_guide_is_nearly_flat():
    """E[g²] − E[g]² in float32 would lose every digit of these variances."""
    case = guided_case(2, np.float32)
    case[0], case[2] = 0.9 + 1e-3 * case[0], 0.9 + 1e-3 * case[2]
    found = guided.GuidedFilter(1, 1e-8)(*map(torch.from_numpy, case)).numpy()
    expected = np.stack([by_hand(*(np.float64(x[0, c]) for x in case), 1, 1e-8) for c in range(2)])[
        None
    ]
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("radius", [1, 2])
def test_the_guided_filter_reproduces_an_affine_map(radius):
    small, large = noise(1, 3, 8, 8), noise(1, 3, 24, 24)
    found = guided.GuidedFilter(radius, eps=1e-8)(small, 0.7 * small + 0.2, large)
    assert torch.allclose(found, 0.7 * large + 0.2, atol=1e-5)


def test_where_the_guide_is_flat_the_target_is_averaged():
    target = noise(1, 3, 6, 6)
    found = guided.GuidedFilter(1, eps=1e-8)(
        torch.full_like(target, 0.5), target, torch.full_like(target, 0.5)
    )
    mean = np.stack([window_means(window_means(t, 1), 1) for t in target[0].double().numpy()])
    assert np.abs(found[0].numpy() - mean).max() < 1e-5


@pytest.mark.parametrize("eps", [1e-3, 0.05])
def test_a_fresh_deep_guided_filter_is_the_guided_filter(eps):
    x = [noise(1, 3, 8, 6, seed=i) for i in range(2)] + [noise(1, 3, 20, 15, seed=2)]
    assert torch.allclose(
        nets.DeepGuidedFilter(2, eps)(*x), guided.GuidedFilter(2, eps)(*x), atol=1e-6
    )


@pytest.mark.parametrize("rows", [1, 5, 16, 100])
@pytest.mark.parametrize("blocks_", [0, 2])
def test_strips_with_their_reach_are_the_whole(rows, blocks_):
    net = made("GuidedUpsampler", blocks=blocks_)
    small, clean, large = noise(1, 3, 13, 9), noise(1, 3, 13, 9, seed=1), noise(1, 3, 39, 20)
    whole, state, strips = (
        net(small, clean, large),
        net.solve(small, clean, guided.noise_level(large), 20 / 9),
        [],
    )
    for y in range(0, 39, rows):
        top, bottom = max(y - net.reach, 0), min(y + rows + net.reach, 39)
        strips.append(
            net.apply_rows(state, large[:, :, top:bottom], 39, top)[:, :, y - top :][:, :, :rows]
        )
    assert torch.allclose(torch.cat(strips, 2), whole, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05, 0.2])
def test_noise_level(sigma):
    smooth = torch.linspace(0, 1, 200).expand(2, 3, 150, 200)
    noisy = smooth + sigma * torch.randn(2, 3, 150, 200, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(guided.noise_level(noisy), torch.full((2,), sigma), rtol=0.03, atol=1e-6)
    assert torch.allclose(
        guided.noise_level(noisy[..., 1:, 1:]), torch.full((2,), sigma), rtol=0.03, atol=1e-6
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_noise_level_of_a_line_is_none(size):
    assert torch.equal(guided.noise_level(noise(2, 3, *size)), torch.zeros(2))


def test_the_mood_can_keep_the_large_picture_and_follows_the_noise():
    net = made("GuidedUpsampler", fresh=True)
    small, clean, large = inputs("GuidedUpsampler", 12, 16)
    net.mood[-1].bias.data[-2] = 1.0  # the share of the large picture to keep
    assert torch.allclose(net(small, clean, large), large, atol=1e-6)
    net.mood[-1].bias.data[0] = 0.5  # the filter's eps, up by half an e-fold
    a, _, mood = net.solve(small, clean, torch.tensor([0.1] * len(small)), 2.0)
    want, _ = guided.solve(
        net.filter.guidance(small), clean, 1, net.filter.log_eps.exp() * 2.718281828**0.5
    )
    assert torch.allclose(a, want, atol=1e-6) and mood.shape == (
        len(small),
        net.config["width"] + 2,
    )
    net.mood[-1].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    low, high = (net.solve(small, clean, torch.full((len(small),), n), 2.0)[2] for n in (0.0, 0.1))
    assert (low - high).abs().min() > 1e-4


def test_arms_of_the_ablation_have_no_mood():
    assert all(
        nets.GuidedUpsampler(**{arm: False}).mood is None for arm in ("refine", "concat", "adapt")
    )
    oh0, a, b = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1), noise(1, 3, 8, 8, seed=2)
    net = made("Refiner", concat=False)
    assert torch.equal(net(oh0, a), net(oh0, b)) and not torch.equal(
        made("Refiner")(oh0, a), made("Refiner")(oh0, b)
    )


@pytest.mark.parametrize("blocks_", [0, 1, 3])
def test_the_refiner_reaches_as_far_as_it_says(blocks_):
    net, x = made("Refiner", blocks=blocks_), noise(1, 3, 33, 33).requires_grad_()
    net(x, x.detach())[0, :, 16, 16].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (16 - int(rows.min()), int(rows.max()) - 16) == (net.reach, net.reach)


@pytest.mark.parametrize(("scale", "row"), [(1, 20), (1, 21), (2, 40), (2, 43)])
def test_the_sharpener_reaches_no_further_than_it_says(scale, row):
    net, x = made("Sharpener", scale=scale), noise(1, 3, 42, 42).requires_grad_()
    net(x)[0, :, row, 20].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert row // scale - rows.min() <= net.reach and rows.max() - row // scale <= net.reach


@pytest.mark.parametrize("size", [(6, 5), (18, 15), (17, 31), (4, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_is_bilinear_interpolation(size, dtype):
    x = noise(2, 3, 6, 5).to(dtype)
    whole = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    for y0, y1 in {(0, size[0]), (size[0] // 3, size[0] // 3 + 1), (size[0] // 2, size[0])}:
        assert torch.allclose(guided.rows_of(x, size, y0, y1), whole[:, :, y0:y1], atol=1e-6)


# ---- any size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [(0, 0), (1, 2), (31, 5), (40, 40)])
def test_reflect_is_numpys(pad):
    for shape in [(1, 1), (1, 9), (3, 2), (7, 40)]:
        x = noise(2, 3, *shape)
        assert np.array_equal(
            blocks.reflect(x, *pad).numpy(),
            np.pad(x.numpy(), ((0, 0), (0, 0), (0, pad[0]), (0, pad[1])), mode="reflect"),
        )


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (31, 33), (64, 32)])
@pytest.mark.parametrize(
    ("name", "scale"), [("FaceNet", 1), ("RestorerNet", 1), ("Sharpener", 1), ("Sharpener", 2)]
)
def test_padded_is_the_net_on_the_mirrored_picture(name, scale, size):
    net, x = made(name, **{"scale": scale} if name == "Sharpener" else {}), noise(1, 3, *size)
    least = max(net.multiple, net.minimum)
    h, w = (max(-(-n // net.multiple) * net.multiple, least) for n in size)
    direct = net(
        torch.from_numpy(
            np.pad(x.numpy(), ((0, 0), (0, 0), (0, h - size[0]), (0, w - size[1])), mode="reflect")
        )
    )
    found = blocks.padded(net, x)
    assert found.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert torch.equal(found, direct[..., : size[0] * scale, : size[1] * scale])


def test_padded_hands_over_what_fits_already():
    x = noise(1, 3, 64, 32)
    seen = []
    net = made("FaceNet")
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    blocks.padded(net, x)
    assert seen[0] is x


def test_padded_runs_a_plain_function_at_any_size():
    x = noise(1, 3, 5, 3)
    assert torch.equal(blocks.padded(lambda t: 1 - t, x), 1 - x)
