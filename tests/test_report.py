"""What a report promises: intervals that hold what they say, and a page that is the bundle's, needs
nothing from outside and runs nobody's markup.
"""

import base64
import json
import math
import re
import shutil
import time

import numpy as np
import pytest
from conftest import ROOT
from test_view import Page, stripped

import mtrestore as mt
from mtrestore.lab import report
from mtrestore.lab.record import Run
from mtrestore.lab.report import RESULTS
from mtrestore.lab.statistics import Estimate, interval, paired, rows, table

NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'
LEAD = {"concat": 0.0, "add": -0.5, "none": -2.0}  # dB, what each arm of the made-up sweep is worth


def made_up_sweep(
    folder, photo, about=None, arms=LEAD, seeds=(0, 1, 2), failed=True, picture="p{}"
):
    """Small runs of chance numbers around LEAD, through the same `Run` as real ones; and one that
    failed.
    """
    for a, (arm, lead) in enumerate(arms.items()):
        for seed in seeds:
            luck, each, pairs = np.random.default_rng([a, seed]), [], {}
            for i in range(12):
                for severity, level in (("mild", 28.0), ("severe", 22.0)):
                    hard = np.random.default_rng(i).normal(0, 2)
                    psnr = level + hard + lead + luck.normal(0, 0.1)
                    each.append(
                        {
                            "picture": picture.format(i),
                            "severity": severity,
                            "psnr": psnr,
                            "landmarks": 0.05 - 0.01 * lead + luck.normal(0, 0.001),
                        }
                    )
                    if i < 4 and severity == "severe":
                        pairs[f"p{i}-severe"] = (
                            np.clip(photo * 0.5, 0, 1),
                            np.clip(photo + 0.02 * i, 0, 1),
                        )
            place = Run(
                folder / f"{arm}_{seed}".replace("/", ""), join=arm, seed=seed, size=64
            ).save(
                {"psnr": np.mean([r["psnr"] for r in each])},
                rows=each,
                pairs=pairs,
                curves={"loss": [(k, 1 / (k + 1)) for k in range(1, 300)]},
            )
            done = {
                "status": "done",
                "seconds": 12.3,
                "error": None,
                "notebook": "notebooks/11_face_network.ipynb",
                "sha256": "ab" * 32,
            }
            (place / "status.json").write_text(
                json.dumps(
                    done
                    | {
                        "parameters": {
                            "join": arm,
                            "seed": seed,
                            "data": str(ROOT / "data"),
                            "out": str(place),
                        }
                    }
                )
            )
    if failed:
        (folder / "zz_failed").mkdir()
        (folder / "zz_failed" / "status.json").write_text(
            json.dumps({"status": "failed", "seconds": 1.0, "error": f"ValueError: {NASTY}"})
        )
    if about is not None:
        (folder / "sweep.json").write_text(
            json.dumps({"grid": {"join": list(arms)}, "report": about})
        )
    return folder


@pytest.fixture
def sweep(tmp_path, face_photo):
    about = {
        "title": "How to join",
        "question": "What is a skip worth?",
        "arm": "join",
        "baseline": "concat",
        "by": ["severity"],
    }
    return made_up_sweep(
        tmp_path / "skips", face_photo[:86, :86], about | {"metrics": ["psnr", "landmarks"]}
    )


def line(found, **where):
    return next(r for r in found["table"] if all(r[k] == v for k, v in where.items()))


# --- statistics


def test_one_seed_is_students_t_over_the_pictures():
    got = interval({(p, 0): v for p, v in enumerate([1.0, 2.0, 4.0, 5.0])})
    half = 3.182446305 * np.sqrt(10 / 3 / 4)  # t(3), and the variance by hand: (4 + 1 + 1 + 4) / 3
    assert got == pytest.approx((3.0, 3.0 - half, 3.0 + half, 4, 1))


def test_pictures_and_seeds_both_count():
    """Two pictures, two seeds, worked by hand: MS of pictures 16, of seeds 4, of the residual 1; so
    the variance is (16 + 4 - 1) / 4.
    """
    got = interval({("a", 0): 0.0, ("a", 1): 3.0, ("b", 0): 5.0, ("b", 1): 6.0})
    from scipy.stats import t

    half = t.ppf(0.975, 19**2 / (16**2 + 3**2)) * np.sqrt(19 / 4)
    assert got == pytest.approx((3.5, 3.5 - half, 3.5 + half, 2, 2))


def test_a_difference_is_taken_within_picture_seed_and_part():
    a = [
        {"picture": p, "seed": s, "severity": v, "psnr": 10 * p + s + (v == "mild") + 0.5}
        for p in range(3)
        for s in range(2)
        for v in ("mild", "severe")
    ]
    b = [{**r, "psnr": r["psnr"] - 0.5} for r in a][::-1]
    assert paired(a, b, "psnr", ["severity"]) == pytest.approx((0.5, 0.5, 0.5, 3, 2))
    assert paired(a, b[:-4], "psnr", ["severity"])[3:] == (2, 2), (
        "a picture that only one of them has is left out"
    )
    assert paired(a, [{**b[0], "psnr": math.nan}], "psnr") == pytest.approx(
        (math.nan, math.nan, math.nan, 0, 0), nan_ok=True
    )
    assert paired(a[:1], b[-1:], "psnr") == pytest.approx(
        (0.5, math.nan, math.nan, 1, 1), nan_ok=True
    ), "one pair says nothing about others"


def test_pictures_that_some_seeds_lack_are_left_out_and_seeds_without_any_in_common_are_pooled():
    assert interval({("a", 0): 1.0, ("a", 1): 1.0, ("b", 0): 9.0, ("c", 0): 2.0, ("c", 1): 2.0})[
        3:
    ] == (2, 2)
    assert interval({("a", 0): 1.0, ("b", 1): 3.0}) == pytest.approx(
        interval({("a", 0): 1.0, ("b", 0): 3.0})
    )


@pytest.mark.parametrize(
    "of_pictures, of_seeds, rest", [(1, 0, 0.3), (1, 0.3, 0.3), (0.2, 1, 0.2), (0.3, 0.3, 0.3)]
)
def test_95_of_100_intervals_hold_the_truth(of_pictures, of_seeds, rest):
    rng, hits = np.random.default_rng(1), []
    for _ in range(400):
        values = (
            7
            + of_pictures * rng.normal(size=(20, 1))
            + of_seeds * rng.normal(size=(1, 3))
            + rest * rng.normal(size=(20, 3))
        )
        got = interval({(p, s): values[p, s] for p in range(20) for s in range(3)})
        hits.append(got.low <= 7 <= got.high)
    assert (
        0.90 <= np.mean(hits) <= 0.99
    )  # 400 tries: two standard errors are 0.02; with comparable parts t is a little short


def test_where_pictures_decide_a_bootstrap_of_both_agrees():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(80, 1)) + 0.02 * rng.normal(size=(80, 6))
    resampled = [
        values[np.ix_(rng.integers(80, size=80), rng.integers(6, size=6))].mean()
        for _ in range(2000)
    ]
    got = interval({(p, s): values[p, s] for p in range(80) for s in range(6)})
    assert (got.low, got.high) == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.03)


# --- from runs to a bundle


def test_the_table_finds_what_was_put_in(sweep):
    found = report.load(sweep)
    for arm, lead in list(LEAD.items())[1:]:
        for part in ("mild", "severe", "all"):
            mean, low, high, pictures, seeds = line(found, metric="psnr", arm=arm, part=part)[
                "difference"
            ]
            assert low < lead < high and high - low < 0.5 and (pictures, seeds) == (12, 3)
    own = [r["psnr"] for r in rows(found, join="add", severity="mild")]
    assert (
        line(found, metric="psnr", arm="add", part="mild")["mean"][0]
        == pytest.approx(np.mean(own), rel=1e-5)
        and len(own) == 36
    )
    assert line(found, metric="psnr", arm="concat", part="all")["difference"] is None
    assert found["fixed"] == {"size": 64, "data": "data"} and found["varied"] == {
        "join": ["add", "concat", "none"],
        "seed": [0, 1, 2],
    }
    assert found["arms"] == ["concat", "add", "none"], (
        "the baseline first, the others as the sweep lists them"
    )


def test_less_is_better_for_an_error(sweep):
    found = report.load(sweep)
    assert found["lower"] == ["landmarks"]
    assert line(found, metric="landmarks", arm="none", part="all")["difference"][0] > 0
    assert report.verdict(found, line(found, metric="landmarks", arm="none", part="all")) == "worse"
    worse = line(found, metric="psnr", arm="none", part="all")
    assert (
        report.verdict(found, worse) == "worse"
        and report.verdict(found | {"lower": ["psnr"]}, worse) == "better"
    )
    assert report.verdict(found, worse | {"metric": "sharpness"}) == "less", (
        "of what is best at 1 more is not better"
    )


def test_without_a_report_block_all_is_taken_from_the_runs(tmp_path, face_photo):
    found = report.load(
        made_up_sweep(
            tmp_path / "s", face_photo[:32, :32], arms={"concat": 0, "add": 0, "a": 0, "b": 0}
        )
    )
    assert (found["arm"], found["baseline"], found["by"], found["metrics"]) == (
        "join",
        "a",
        ["severity"],
        ["psnr", "landmarks"],
    )
    assert found["title"] == "s" and {
        report.verdict(found, r) for r in found["table"] if r["arm"] != "a"
    } <= {"no clear difference", "better", "worse"}


def test_the_best_and_worst_pictures_are_kept(sweep):
    found = report.load(sweep)
    score = {f"p{i}-severe": np.random.default_rng(i).normal(0, 2) for i in range(4)}
    order = sorted(score, key=score.get, reverse=True)
    assert [p["name"] for p in found["pictures"][::3]] == order and [
        p["place"] for p in found["pictures"][::3]
    ] == ["best", "best", "worst", "worst"]
    assert [p["arm"] for p in found["pictures"][:3]] == ["concat", "add", "none"]
    told = [
        r["psnr"] for r in rows(found, join="add", severity="severe", picture=order[0][:2], seed=0)
    ]
    assert found["pictures"][1]["value"] == pytest.approx(told[0], rel=1e-5)


def test_a_bundle_is_small_and_strict_and_has_no_path_of_this_machine(sweep, tmp_path):
    text = report.bundle(sweep, tmp_path / "b.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert len(text) < 600_000 and str(ROOT) not in text and found["name"] == "b"
    assert max(len(points) for r in found["runs"] for points in r["curves"].values()) == 40
    told = [r["psnr"] for p in sorted(sweep.glob("*/rows.json")) for r in json.loads(p.read_text())]
    np.testing.assert_allclose([r["psnr"] for r in rows(found)], told, rtol=1e-5)


def test_columns_of_rows_may_be_the_arm(tmp_path):
    for seed in range(3):
        each = [
            {"picture": f"p{i}", "rule": rule, "psnr": i + (rule == "eyes") * 0.3 + 0.01 * seed}
            for i in range(6)
            for rule in ("landmarks", "eyes")
        ]
        Run(tmp_path / "s" / str(seed), seed=seed).save({"psnr": 1.0}, rows=each)
    (tmp_path / "s" / "sweep.json").write_text(
        json.dumps({"report": {"arm": "rule", "baseline": "landmarks", "by": []}})
    )
    found = report.load(tmp_path / "s")
    assert line(found, arm="eyes")["difference"][0] == pytest.approx(0.3)


@pytest.mark.parametrize(
    "about, words",
    [
        ({"baseline": "cat"}, "baseline .*concat.*cat"),
        ({"metrics": ["psnr", "beauty"]}, "metrics .*landmarks.*beauty"),
        ({"by": ["weather"]}, "by .*severity.*weather"),
    ],
)
def test_a_wrong_word_in_the_report_block_is_told(tmp_path, face_photo, about, words):
    with pytest.raises(ValueError, match=words):
        report.load(made_up_sweep(tmp_path / "s", face_photo[:16, :16], {"arm": "join", **about}))


def test_what_is_no_source_is_told(tmp_path):
    (tmp_path / "a.json").write_text('{"runs": []}')
    (tmp_path / "empty").mkdir()
    wrong = {
        "gone.json": (FileNotFoundError, "missing.*bundle"),
        "a.json": (ValueError, "not a bundle"),
        "empty": (FileNotFoundError, "no run"),
    }
    for name, (error, words) in wrong.items():
        with pytest.raises(error, match=words) as e:
            report.load(tmp_path / name)
        assert "\n" not in str(e.value)


# --- the page


def test_the_page_is_the_same_from_the_bundle_as_from_the_runs(sweep, tmp_path):
    one = report.write(sweep, tmp_path / "a.html").read_bytes()
    kept = report.bundle(sweep, tmp_path / "skips.json")
    assert report.write(kept, tmp_path / "b.html").read_bytes() == one
    assert (
        report.bundle(kept, tmp_path / "skips2.json").read_text().replace('"skips2"', '"skips"')
        == kept.read_text()
    )
    assert (
        b"Other words" in report.write(kept, tmp_path / "c.html", title="Other words").read_bytes()
    )


def test_the_page_says_what_a_reader_asks(sweep, tmp_path):
    page = Page(report.write(sweep, tmp_path / "a.html").read_text())
    for words in ("How to join", "What is a skip worth?", "less concat", "worse", "12 × 3",
        "1 of 10 runs not finished", "ValueError", "git",
                  "notebooks/11_face_network.ipynb", "ab" * 32, "torch", "cpu", "varied",
                  "fixed"):  # fmt: skip
        assert words in page.text, words
    pictures = page.all("img")
    assert len(pictures) == 2 + 1 + 4 * 3 * 2 and all(
        p["src"].startswith("data:image/") for p in pictures
    )
    svg = base64.b64decode(pictures[0]["src"].split(",")[1]).decode()
    assert "<script" not in svg and "severe · add" in svg


def test_a_page_needs_nothing_from_outside_and_shows_both_pictures_without_scripts(sweep, tmp_path):
    text = report.write(sweep, tmp_path / "a.html").read_text()
    code = re.sub(r'src="data:[^"]*"', "", text)
    assert (
        "//" not in code.replace("</", "")
        and "@import" not in code
        and "url(" not in code
        and "href" not in code
    )
    bare = Page(stripped(text))
    cells = bare.all("td")
    assert [p["alt"] for p in bare.all("img") if p["alt"] in ("before", "after")] == [
        "before",
        "after",
    ] * 12 and len(cells) > 24
    assert all(
        "width" in p and "height" in p for p in bare.all("img") if p["alt"] in ("before", "after")
    )


def test_every_word_from_a_run_is_escaped(tmp_path, face_photo):
    about = {
        "title": NASTY,
        "question": NASTY,
        "arm": "join",
        "baseline": NASTY,
        "by": ["severity"],
    }
    sweep = made_up_sweep(
        tmp_path / "s",
        face_photo[:16, :16],
        about,
        arms={NASTY: 0.0, 'b"onload="x': 1.0},
        picture=NASTY + "{}",
    )
    text = report.write(sweep, tmp_path / "a.html").read_text()
    page = Page(text)
    assert (
        "<script>alert" not in text
        and text.count("<script") == 1
        and not any("onerror" in a or "onload" in a for _, a in page.tags)
    )
    assert page.text.count('<script>alert("x")</script>') > 4, "it is there, as words"


def test_one_run_alone_makes_a_page(tmp_path):
    Run(tmp_path / "s" / "a", seed=1).save({"psnr": 30.0})
    text = report.write(tmp_path / "s", tmp_path / "a.html").read_text()
    assert "30" in Page(text).text and "How to" not in text


def test_numbers_have_the_digits_that_the_intervals_allow():
    words = report._digits([Estimate(24.31778, 24.18, 24.4, 1, 1), None, [5.0, None, None, 1, 1]])
    assert words(Estimate(24.31778, 24.18, 24.4, 1, 1)) == ["24.32", "24.18 to 24.40"]
    assert words([5.0, None, None, 1, 1]) == ["5.00", ""] and words(None) == ["", ""]
    assert report._digits([[0.5, 0.5, 0.5, 3, 2]])([0.5, 0.5, 0.5, 3, 2]) == [
        "0.500",
        "0.500 to 0.500",
    ]
    assert report._digits([[-0.00123, -0.002, -0.0004]], "+")([-0.00123, -0.002, 0.0004]) == [
        "−0.00123",
        "−0.00200 to +0.00040",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1" * 10**6 + "x",
        "1 to " * 200_000,
        "1 × " * 200_000 + "x",
        "−1" * 500_000,
        "." * 10**6 + " ",
    ],
    ids=lambda v: v[:6],
)
def test_a_long_cell_costs_time_in_proportion(text):
    began = time.process_time()
    html = report._grid(["", "a"], [["x", text]])
    assert time.process_time() - began < 3
    assert text in html and 'class="n"' not in html


@pytest.mark.parametrize(
    "word, kind",
    [("24.32", "n"), ("+0.5", "n"), ("−0.5 to +1.25", "n"), ("12 × 3", "n"), (64, "n"), (0.5, "n")]
    + [
        ("better", "better"),
        ("worse", "worse"),
        ("1 to", ""),
        ("to", ""),
        ("a1", ""),
        ("1e-05", ""),
    ],
)
def test_what_stands_to_the_right_is_a_number(word, kind):
    mark = f' class="{kind}"' if kind else ""
    assert f"<td{mark}>{word}</td>" in report._grid(["", "a"], [["x", word]])


def test_columns_and_tables_without_words_go():
    lines = [["a", "", None, 1], ["b", None, "", 0]]
    html = report._grid(["run", "error", "none", "s"], lines)
    assert re.findall(r"<t[hd](?: [^>]*)?>([^<]*)<", html) == ["run", "s", "a", "1", "b", "0"]
    assert report._grid(["a", "b"], []) == report._grid(["a", "b"], [["", None]]) == ""


def test_one_arm_and_what_is_not_finished_say_no_none(tmp_path):
    Run(tmp_path / "s" / "a", seed=1, note=None).save(
        {"psnr": 30.0}, curves={"loss": [(0, 1.0), (1, 0.5)]}
    )
    for name, status in {"b": {"status": "started"}, "c": {"status": "failed"}}.items():
        (tmp_path / "s" / name).mkdir()
        (tmp_path / "s" / name / "status.json").write_text(json.dumps(status))
    text = report.write(tmp_path / "s", tmp_path / "a.html").read_text()
    page = Page(text)
    assert "2 of 3 runs not finished" in page.text and "less" not in page.text
    assert "started" in page.text and "None" not in page.text and "baseline" not in page.text
    svg = base64.b64decode(page.all("img")[0]["src"].split(",")[1]).decode()
    assert "loss" in svg and "None" not in svg


def test_a_folder_without_any_finished_run_is_a_page(tmp_path):
    (tmp_path / "s" / "b").mkdir(parents=True)
    (tmp_path / "s" / "b" / "status.json").write_text('{"status": "started"}')
    page = Page(report.write(tmp_path / "s", tmp_path / "a.html").read_text())
    assert "1 of 1 runs not finished" in page.text and "None" not in page.text
    assert "Finished runs" not in page.text and "Parameters" not in page.text


@pytest.mark.parametrize(
    ("plan", "words", "more"),
    [
        (
            {"grid": {"join": ["add", "none"]}, "seeds": [0, 1, 2]},
            "5 of 6 runs not finished",
            ["3"],
        ),
        ({"grid": {"join": ["add", "none"]}}, "2 of 3 runs not finished", []),
        ({"seeds": [0, 1, 2, 3]}, "3 of 4 runs not finished", ["1"]),
        (
            {"grid": {"a": [0] * 1000, "b": [0] * 1000, "c": [0] * 1000}},
            "999998 of 999999",
            ["999996"],
        ),
    ],
)
def test_what_was_planned_and_not_begun_is_counted(plan, words, more, tmp_path):
    Run(tmp_path / "s" / "a", seed=0, join="add").save({"psnr": 30.0})
    for name in "bc":
        (tmp_path / "s" / name).mkdir()
        (tmp_path / "s" / name / "status.json").write_text('{"status": "started"}')
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"notebook": "n.ipynb", **plan}))
    bundle = report.bundle(tmp_path / "s", tmp_path / "s.json")
    page = Page(report.write(bundle, tmp_path / "a.html").read_text())
    assert words in page.text and "None" not in page.text
    assert re.findall(r"(\d+) more", page.text) == more


def test_numbers_have_the_digits_they_carry_and_a_stopped_sweep_says_how_to_go_on(tmp_path):
    rows = [{"picture": p, "psnr": 24.0, "ssim": 0.8} for p in "abc"]
    for seed in (0, 1):
        run = Run(tmp_path / "s" / f"seed={seed}", seed=seed)
        run.save({"psnr": 24.0, "ssim": 0.8}, rows=rows)
        status = {"status": "done", "seconds": 61.23456, "parameters": {"seed": seed}}
        (run.folder / "status.json").write_text(json.dumps(status))
    bundle = report.bundle(tmp_path / "s", tmp_path / "s.json")
    page = Page(report.write(bundle, tmp_path / "a.html").read_text())
    assert "61.2" in page.text and "61.23" not in page.text
    assert "0.800 to 0.800" in page.text and "0.80000" not in page.text
    assert "given again" not in page.text
    (tmp_path / "s" / "sweep.json").write_text('{"notebook": "n.ipynb", "seeds": [0, 1, 2]}')
    bundle = report.bundle(tmp_path / "s", tmp_path / "t.json")
    page = Page(report.write(bundle, tmp_path / "b.html").read_text())
    assert "The sweep's command, given again, runs these alone." in page.text


def test_a_saved_figure_is_as_large_as_all_that_is_on_it(tmp_path):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from mtrestore.plot import Plot, drawn

    for figure in (Plot(figsize=(2, 1)), Figure(figsize=(2, 1)), plt.figure(figsize=(2, 1))):
        figure.text(0, 0.5, "left")
        figure.text(1.5, 0.5, "far to the right of the figure")
        Run(tmp_path / "a", seed=0).save({"psnr": 1.0}, beyond=figure)
        picture = mt.read(tmp_path / "a" / "beyond.png")
        assert picture.shape[1] > 1.5 * 2 * figure.dpi and (picture[:, -1] == 1).all()
        assert b"far to the right" in drawn(figure, "svg") and drawn(figure) == drawn(figure)
        for file in (tmp_path / "a").iterdir():
            file.unlink()
    plt.close("all")


def test_runs_that_lack_the_parameter_are_an_arm_with_a_name(tmp_path):
    for seed in range(2):
        Run(tmp_path / "s" / f"a{seed}", seed=seed).save({"psnr": 30.0 + seed})
        Run(tmp_path / "s" / f"b{seed}", seed=seed, join="add").save({"psnr": 31.0 + seed})
    page = Page(report.write(tmp_path / "s", tmp_path / "a.html").read_text())
    assert "less no join" in page.text and "against no join: add" in page.text
    assert "None" not in page.text


def test_sums_are_folded_away(sweep, tmp_path):
    text = report.write(sweep, tmp_path / "a.html").read_text()
    before, folded = text.split("<details>")
    assert "ab" * 32 in folded and "ab" * 32 not in before and "commit" not in before
    assert not re.search(r"[0-9a-f]{40}", re.sub(r'src="data:[^"]*"', "", before))
    assert "torch" in before and "notebooks/11_face_network.ipynb" in before


def test_small_means_without_an_interval_keep_their_digits():
    assert report._digits([[0.000123456, None, None, 1, 1]])([0.000123456, None, None, 1, 1]) == [
        "0.000123",
        "",
    ]
    assert report._digits([[30.0, None, None, 1, 1]])([30.0, None, None, 1, 1])[0] == "30.000"


# --- the committed results


def bundles():
    return sorted(RESULTS.glob("*.json"))


def test_results_are_committed():
    if not RESULTS.is_dir():
        pytest.skip("experiments/results is not there: no results have been committed yet")
    assert bundles()


@pytest.mark.parametrize("path", bundles(), ids=lambda p: p.stem)
def test_a_committed_page_is_its_bundles(path, tmp_path):
    found = report.load(path)
    assert (
        path.with_suffix(".html").read_bytes()
        == report.write(path, tmp_path / "a.html").read_bytes()
    ), f"rebuild it: mtrestore report {path}"
    assert path.stat().st_size < 600_000
    for kept, again in zip(found["table"], table(found), strict=True):
        for key in ("mean", "difference"):
            assert kept[key] == again[key] or np.array(kept[key], float) == pytest.approx(
                np.array(again[key], float), rel=1e-3, abs=1e-4, nan_ok=True
            )


# --- what comes from elsewhere and is damaged, or made to harm

REMOTE = "http://example.org/x.png"
FIGURES = (
    "",
    "x.png",
    REMOTE,
    "//example.org/x",
    "data:text/html;base64,AAAA",
    "data:image/png,%20",
    "javascript:alert(1)",
    'data:image/png;base64,AAAA" onerror="alert(1)',
    "data:image/svg+xml;utf8,<svg/>",
    None,
    3,
    ["data:image/png;base64,AAAA"],
    "data:image/png;base64,AAAA\nhttp://example.org",
    " data:image/png;base64,AAAA",
    "file:///etc/passwd",
    "DATA:image/png;base64,A",
)
ODD = (
    None,
    True,
    0,
    -1,
    3,
    1e308,
    -1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x" * 30_000,
    NASTY,
    REMOTE,
    "\ud800",
    [],
    [[]],
    {},
    {"": []},
    [None],
    ["a"],
    {"a": {"b": [1]}},
    [[1, 2]],
    [[1, "2"]],
    0.5,
    1e-320,
    [1, 2, 3, 4, 5],
    "data:image/png;base64,",
)


def places(value, path=()):
    """Every place in a JSON value, of a long list the first two and the last."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = [(i, value[i]) for i in sorted({0, 1, len(value) - 1} & set(range(len(value))))]
    for key, part in items:
        yield from places(part, (*path, key))


def deep(rng):
    """A list in a list in a list ..., some too deep for a page, some too deep for json."""
    value = []
    for _ in range(int(rng.choice([9, 60, 700]))):
        value = [value]
    return value


def mutated(rng, text):
    """One harm done to a JSON file, as bytes: to a value in it, or to the bytes."""
    value, kind = (
        json.loads(text),
        rng.choice(
            ["delete", "swap", "swap", "swap", "wrap", "deep", "cut", "bytes", "twice", "nest"]
        ),
    )
    path = (
        list(places(value))[rng.integers(1, max(2, sum(1 for _ in places(value))))]
        if places(value)
        else ()
    )
    if kind == "cut":
        return text.encode()[: rng.integers(len(text))]
    if kind == "bytes":
        data = bytearray(text.encode())
        data[rng.integers(len(data))] = int(rng.integers(128, 256))
        return bytes(data)
    if kind == "nest":
        return b"[" * 100_000
    at = value
    for key in path[:-1]:
        at = at[key]
    last = path[-1]
    if kind == "delete":
        del at[last]
    elif kind == "swap":
        at[last] = ODD[rng.integers(len(ODD))]
    elif kind == "wrap":
        at[last] = [at[last]]
    elif kind == "deep":
        at[last] = deep(rng)
    elif isinstance(at, list):
        at.append(at[last])
    else:
        at[f"{last}2"] = at[last]
    return json.dumps(value).encode("utf-8", "surrogatepass")


def page_or_line(source, out):
    """Whether there is a page, which asks for nothing from outside; or else there is one line."""
    try:
        text = report.write(source, out).read_text()
    except (ValueError, FileNotFoundError) as e:
        assert (
            type(e) is not UnicodeEncodeError and str(e).isprintable() and 20 < len(str(e)) < 1500
        ), e
        return False
    page = Page(text)
    assert all(p["src"].startswith("data:image/") for p in page.all("img"))
    assert not any(
        name in attributes
        for _, attributes in page.tags
        for name in ("href", "onerror", "onload", "srcset", "background")
    )
    assert text.count("<script") <= 1 and "<script>alert" not in text
    return True


@pytest.fixture(scope="module")
def tiny_sweep(tmp_path_factory, _astronaut):
    """Two arms, two seeds, small pictures."""
    about = {
        "title": "T",
        "question": "Q",
        "arm": "join",
        "baseline": "a",
        "by": ["severity"],
        "metrics": ["psnr"],
    }
    photo = _astronaut[60:92, 181:213].copy()
    return made_up_sweep(
        tmp_path_factory.mktemp("tiny") / "s", photo, about, arms={"a": 0.0, "b": 1.0}, seeds=(0, 1)
    )


def test_four_hundred_damaged_bundles_give_a_page_or_one_line(tiny_sweep, tmp_path):
    text = report.bundle(tiny_sweep, tmp_path / "good.json").read_text()
    assert page_or_line(tmp_path / "good.json", tmp_path / "a.html")
    rng, pages = np.random.default_rng(0), 0
    for _ in range(400):
        (tmp_path / "x.json").write_bytes(mutated(rng, text))
        pages += page_or_line(tmp_path / "x.json", tmp_path / "x.html")
    assert 10 < pages < 200, "some harm is none, and most is noticed"


def test_three_hundred_damaged_folders_give_a_page_or_one_line(tiny_sweep, tmp_path, monkeypatch):
    folder, drawn = tmp_path / "s", report._svg
    shutil.copytree(tiny_sweep, folder)
    rng, pages = np.random.default_rng(1), 0
    files = sorted(p for p in folder.glob("**/*.json") if "zz" not in str(p))
    for turn in range(300):
        monkeypatch.setattr(
            report,
            "_svg",
            drawn if turn % 30 == 0 else lambda plot: "data:image/svg+xml;base64,AAAA",
        )  # it takes long
        file = files[rng.integers(len(files))]
        before = file.read_bytes()
        file.write_bytes(mutated(rng, before.decode()))
        pages += page_or_line(folder, tmp_path / "x.html")
        file.write_bytes(before)
    assert 50 < pages < 300


@pytest.mark.parametrize("place", ["figure", "before", "after"])
@pytest.mark.parametrize("value", FIGURES, ids=lambda v: str(v)[:25])
def test_only_pictures_inside_the_bundle_get_into_a_page(tiny_sweep, tmp_path, place, value):
    found = json.loads(report.bundle(tiny_sweep, tmp_path / "x.json").read_text())
    part, key = (found["figures"], "psnr") if place == "figure" else (found["pictures"][0], place)
    part[key] = value
    (tmp_path / "x.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="a picture inside the file") as e:
        report.write(tmp_path / "x.json", tmp_path / "x.html")
    assert str(e.value).isprintable() and not (tmp_path / "x.html").exists()


def test_a_damaged_run_is_listed_as_failed_and_the_others_are_reported(tiny_sweep, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(tiny_sweep, folder)
    (folder / "b_1" / "rows.json").write_text('[{"picture": ["a"]}]')
    (folder / "a_1" / "status.json").write_text('{"status": "done", "parameters": [1]}')
    text = Page(report.write(folder, tmp_path / "a.html").read_text()).text
    assert "3 of 5 runs not finished" in text
    for words in (
        "expected [0].picture to be text, a finite number, true, false or null",
        "expected parameters to be a mapping",
    ):
        assert words in text


def test_a_table_without_end_is_refused(tmp_path):
    for seed in range(2):
        each = [{"picture": "p", "name": f"n{i}", "psnr": 1.0 + i} for i in range(3000)]
        Run(tmp_path / "s" / str(seed), seed=seed).save({"psnr": 1.0}, rows=each)
    with pytest.raises(ValueError, match="a table of 3000 parts, .* is too long; name fewer"):
        report.load(tmp_path / "s")


def test_lists_are_no_arms(tmp_path):
    """Widths that vary are told apart in the tables of runs, and nothing is compared by them."""
    for seed, width in enumerate([[8, 16], [16, 32]]):
        Run(tmp_path / "s" / str(seed), width=width, seed=0).save({"psnr": 1.0 + seed})
    assert report.write(tmp_path / "s", tmp_path / "a.html").is_file()
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"report": {"arm": "width"}}))
    with pytest.raises(ValueError, match="width is compared, so it must be a number or a text"):
        report.load(tmp_path / "s")
