"""The report page, read back with the standard library's HTML parser."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy.report.page.page import write_report
from layerkit.galaxy.report.page.plates import Mark, Plate

METRICS = {
    "images_read": 14000,
    "images_kept": 9876,
    "excluded": {"cannot be read": 4, "other objects <overlap>": 4120},
    "train": 8765,
    "held_out": 1111,
    "pixels": "69 x 69",
    "latent": 8,
    "iterations": 20550,
    "seconds": 3723.4,
    "iterations_per_second": 123.45,
    "images_per_second": 7901.2,
    "train_elbo": 12110.44,
    "held_out_elbo": 12079.26,
    "held_out_kl": 26.13,
    "encoded_held_out_elbo": 11990.5,
    "mse_wins": 1010,
    "encoded_mse_wins": 1001,
    "closest_mse_wins": 1111,
    "likelihood_wins": 1101,
    "encoded_likelihood_wins": 1100,
    "pca_mse_wins": 456,
    "coverage_1sd": 0.7012,
    "backend": "numpy",
    "seed": 17,
    "data": "images.zip",
    "net": "nets/galaxy_gdae.py",
    "command": "python run.py --out '<a&b>'",
    "epochs": 150,
    "rate": 0.001,
    "augment": True,
    "validation": None,
    "shapes": {"Gini": {"median": 0.5, "distance": 0.1}, "asymmetry": {"median": 0.25}},
    "versions": {"numpy": "2.4", "<script>": "1"},
}


class Page(HTMLParser):
    """Collects text, table rows and attributes, and fails on tags that do not match."""

    VOID = frozenset({"meta", "img", "link", "br", "hr", "input", "source"})

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows, self.text = [], [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend((tag, *pair) for pair in attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def row(self, start):
        (row,) = [row for row in self.rows if row[0].startswith(start)]
        return row[1:]


@pytest.fixture
def picture(tmp_path, rng):
    path = tmp_path / "picture.png"
    Image.fromarray(rng.integers(0, 256, (8, 9), dtype=np.uint8)).save(path)
    return path


def test_the_numbers_stand_beside_the_papers(tmp_path):
    page = Page(write_report(tmp_path / "report.html", METRICS))
    assert page.row("Images read") == ["61,578", "14,000"]
    assert page.row("Images kept") == ["43,444 (70.6%)", "9,876 (70.5%)"]
    assert page.row("Images trained on") == ["43,444", "8,765"]
    assert page.row("Latent") == ["8", "8"]
    assert page.row("Time") == ["\N{EM DASH}", "1 h 2 min"]
    assert page.row("Iterations per second") == ["about 200", "123.5"]
    assert page.row("other objects") == ["4,120", "29.4%"]


def test_every_number_is_in_the_column_of_its_posterior(tmp_path):
    """The paper's stand beside the encoder's, as the paper measured."""
    page = Page(write_report(tmp_path / "report.html", METRICS))
    dash = "\N{EM DASH}"
    (head,) = [row for row in page.rows if "refined" in row]
    assert head == ["encoder alone", "refined", "closest"]
    assert page.row("Bound, nats") == [dash, "11,990.5", "12,079.3", dash]
    assert page.row("Bound on training") == [dash, dash, "12,110.4", dash]
    assert page.row("Closer than the Gaussian") == [
        "971 (97.1%)",
        "1,001 (90.1%)",
        "1,010 (90.9%)",
        "1,111 (100.0%)",
    ]
    assert page.row("Likelier than the Gaussian") == [
        "972 (97.2%)",
        "1,100 (99.0%)",
        "1,101 (99.1%)",
        dash,
    ]
    assert page.row("Closer than PCA") == [dash, dash, "456 (41.0%)", dash]
    assert page.row("Pixels within 1 sd") == [dash, dash, "70.1%", dash]
    assert "90.1%closer than the Gaussian, encoder alone" in page.text


def test_every_metric_is_on_the_page(tmp_path):
    page = Page(write_report(tmp_path / "report.html", METRICS))
    assert page.row("epochs") == ["150"]
    assert page.row("rate") == ["0.001"]
    assert page.row("augment") == ["yes"]
    assert page.row("validation") == ["\N{EM DASH}"]
    assert page.row("versions") == ["numpy: 2.4, <script>: 1"]
    assert page.row("shapes, Gini") == ["median: 0.5, distance: 0.1"]
    assert page.row("shapes, asymmetry") == ["median: 0.25"]
    for key in ("data", "net", "command", "seed", "backend"):
        assert str(METRICS[key]) in page.text


@pytest.mark.parametrize("missing", [*METRICS, "all"])
def test_what_is_missing_is_a_dash(tmp_path, missing):
    metrics = {} if missing == "all" else {k: v for k, v in METRICS.items() if k != missing}
    page = Page(write_report(tmp_path / "report.html", metrics))
    assert "None" not in page.text
    if missing in ("all", "mse_wins"):
        assert page.row("Closer than the Gaussian")[2] == "\N{EM DASH}"


def test_numpy_numbers_and_numbers_that_are_not(tmp_path):
    metrics = {"images_read": np.int64(12345), "held_out_elbo": np.float32(1.25), "mse_wins": 1}
    page = Page(write_report(tmp_path / "a.html", {**metrics, "train_elbo": float("nan")}))
    assert page.row("Images read")[1] == "12,345"
    assert page.row("Bound, nats")[2] == "1.2"
    assert page.row("Bound on training")[2] == "not finite"


def test_text_is_escaped(tmp_path, picture):
    nasty = "<script>alert('&')</script>"
    metrics = dict.fromkeys(("data", "net", "command", "backend", "held_out", nasty), nasty)
    metrics["excluded"] = {nasty: 3}
    path = write_report(tmp_path / "report.html", metrics, [(nasty, f'"{nasty}"', picture)])
    page = Page(path)
    assert "script" not in page.tags
    assert page.text.count(nasty) >= 8
    assert ("img", "alt", nasty) in page.attributes


def test_pictures_are_inside_in_order_and_nothing_is_outside(tmp_path, picture, rng):
    other = tmp_path / "other.png"
    Image.fromarray(rng.integers(0, 256, (5, 5), dtype=np.uint8)).save(other)
    figures = [("First", "look here", picture), ("Second", "and there", str(other))]
    path = write_report(tmp_path / "report.html", METRICS, figures)
    page = Page(path)
    sources = [value for _, name, value in page.attributes if name == "src"]
    prefix = "data:image/png;base64,"
    assert [base64.b64decode(source.removeprefix(prefix)) for source in sources] == [
        picture.read_bytes(),
        other.read_bytes(),
    ]
    assert page.text.index("look here") < page.text.index("and there")
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert [a for a in page.attributes if a[1] == "loading"] == 2 * [("img", "loading", "lazy")]
    sizes = [(n, v) for tag, n, v in page.attributes if tag == "img" and n in ("width", "height")]
    assert sizes == [("width", "9"), ("height", "8"), ("width", "5"), ("height", "5")]
    source = path.read_text(encoding="utf-8")
    assert "http" not in source
    assert "url(" not in source
    assert "@import" not in source


def test_a_bad_figure_is_named_and_the_old_page_stays(tmp_path, picture):
    path = write_report(tmp_path / "report.html", METRICS)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"gone\.png"):
        write_report(path, {}, [("t", "c", tmp_path / "gone.png")])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png.*PNG"):
        write_report(path, {}, [("t", "c", tmp_path / "text.png")])
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_dark_pages_get_their_own_pictures(tmp_path, picture):
    plates = [Plate("t", "c", picture, b"the dark one"), Plate("t", "c", picture)]
    page = Page(write_report(tmp_path / "report.html", {}, plates))
    sources = [(name, value) for tag, name, value in page.attributes if tag == "source"]
    data = base64.b64encode(b"the dark one").decode()
    assert sources == [
        ("media", "(prefers-color-scheme: dark)"),
        ("srcset", f"data:image/png;base64,{data}"),
    ]


def test_every_galaxy_shown_is_linked_to_its_id_and_back(tmp_path, picture):
    marks = [
        Mark("a<1>", 0.1, 0.2, 0.25, 0.5),
        Mark("b", 0.5, 0.2, 0.25, 0.5),
        Mark("a<1>", 0.75, 0.2, 0.25, 0.5),
    ]
    plates = [Plate("t", "c", picture, b"", marks), Plate("u", "c", picture, b"", marks[:1])]
    page = Page(write_report(tmp_path / "report.html", {}, plates))
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("a", "title")]
    styles = [value for tag, name, value in page.attributes if (tag, name) == ("a", "style")]
    assert titles == ["a<1>", "b", "a<1>", "a<1>"]
    assert styles[0] == "left:10.000%;top:20.000%;width:25.000%;height:50.000%"
    assert len(ids) == len(set(ids)) == 6  # a place and a line for each galaxy of each figure
    assert len(links) == 4 + 3
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert set(ids) == {link[1:] for link in links}
    assert "The 2 galaxies shown" in page.text
