"""extra_scripts/nearest_neighbours.py and cluster_assignments.py on features of small pictures."""

from __future__ import annotations

import base64
import csv
import io
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.extracting import config_of_run, extract_config, extracted
from tests_support.in_process import tiny_config
from tests_support.scripts import script
from unlabeled.engine.pretrain import pretrain
from unlabeled.evaluation.extraction import extract_features
from unlabeled.evaluation.feature_store import FeatureStore

CPU = torch.device("cpu")
HOSTILE = ["<script>alert(1)</script>.png", "a & 'b\" onerror=x.png", "\udcff\u202e.png"]


pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a browser would make of a sheet: its elements, pictures, and lines of captions."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.pictures: list[Image.Image] = []
        self.groups: list[list[str]] = []
        self._caption = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            data = dict(attrs)["src"] or ""
            assert data.startswith("data:image/jpeg;base64,")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))))
        elif tag == "h2":
            self.groups.append([])
        elif tag == "figcaption":
            self.groups[-1].append("")
            self._caption = True
        elif tag == "br":
            self.groups[-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        self._caption = self._caption and tag != "figcaption"

    def handle_data(self, data: str) -> None:
        if self._caption:
            self.groups[-1][-1] += data


def features_of(root: Path, out: Path) -> FeatureStore:
    extract_features(extract_config(out, "dataset=folder", f"dataset.root={root}"), CPU)
    return FeatureStore(out)


def cosines(store: FeatureStore) -> np.ndarray:
    rows = np.concatenate(list(store.shards())).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    product: np.ndarray = rows @ rows.T
    return product


def test_neighbours_are_those_of_a_naive_search(tmp_path: Path) -> None:
    store = FeatureStore(extracted(tmp_path / "features"))
    similarity = cosines(store)
    np.fill_diagonal(similarity, -2)
    names = [each.file for each in store.index()]
    queries = [names[row] for row in (40, 0, 13)]
    sheet = tmp_path / "sheet.html"
    done = script(
        "nearest_neighbours", store.place.folder, sheet, "--neighbours", "4", "--files", *queries
    )
    assert done.returncode == 0, done.stderr
    page = Page(sheet)
    assert len(page.groups) == 3 and len(page.pictures) == 15
    for row, captions in zip((40, 0, 13), page.groups, strict=True):
        assert captions[0].startswith(f"{names[row]}|query, ")
        for place, (caption, value) in enumerate(
            zip(captions[1:], np.sort(similarity[row])[::-1], strict=False)
        ):
            name, _, said = caption.partition("|")
            assert abs(similarity[row, names.index(name)] - value) < 1e-5, (row, place)
            assert said.startswith(f"{value:.3f}, ")
    again = tmp_path / "again.html"
    for target in (sheet, again):
        done = script("nearest_neighbours", store.place.folder, target, "--queries", "99")
        assert done.returncode == 0 and "41 queries among 41 images" in done.stdout, done.stderr
    assert sheet.read_bytes() == again.read_bytes()


def test_names_are_text_and_the_page_needs_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    draw = np.random.default_rng(0)
    for name in HOSTILE:
        with open(
            os.fsencode(root) + b"/" + os.fsencode(name.replace("/", "\u2215")), "wb"
        ) as file:
            Image.fromarray(draw.integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(file, "PNG")
    features_of(root, tmp_path / "features")
    done = script("nearest_neighbours", tmp_path / "features", tmp_path / "n.html", "--side", "64")
    assert done.returncode == 0, done.stderr
    done = script("cluster_assignments", tmp_path / "features", tmp_path / "c", "--clusters", "2")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "n.html", tmp_path / "c" / "clusters.html"):
        page = Page(path)
        assert not {"script", "link", "iframe"} & set(page.tags)
        assert page.attributes <= {"alt", "charset", "class", "lang", "src", "style"}
        captions = [caption for group in page.groups for caption in group]
        assert any(c.startswith("<script>alert(1)<") for c in captions)
        assert any(c.startswith("a & 'b\" onerror=x.png|") for c in captions)
        assert any(c.startswith("??.png|") for c in captions)
    assert {max(picture.size) for picture in Page(tmp_path / "n.html").pictures} == {64}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_clusters_are_a_fixed_point_of_k_means(tmp_path: Path) -> None:
    store = FeatureStore(extracted(tmp_path / "features"))
    out = tmp_path / "clusters"
    options = ("--clusters", "4", "--iterations", "60", "--images", "3", "--show", "2")
    done = script("cluster_assignments", store.place.folder, out, *options)
    assert done.returncode == 0, done.stderr
    lines = table(out / "assignments.csv")
    assert [line["file"] for line in lines] == [each.file for each in store.index()]
    labels = np.array([int(line["cluster"]) for line in lines])
    rows = np.concatenate(list(store.shards())).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centres = np.stack([rows[labels == cluster].mean(axis=0) for cluster in range(4)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    assert ((rows @ centres.T).argmax(axis=1) == labels).all() and set(labels) == {0, 1, 2, 3}
    said = np.array([float(line["similarity"]) for line in lines])
    np.testing.assert_allclose(said, (rows * centres[labels]).sum(axis=1), atol=1e-5)
    page = Page(out / "clusters.html")
    largest = np.argsort(-np.bincount(labels), kind="stable")[:2]
    for cluster, captions in zip(largest, page.groups, strict=True):
        members = np.flatnonzero(labels == cluster)
        nearest = members[np.argsort(-said[members], kind="stable")][:3]
        shown = [caption.partition("|")[0] for caption in captions]
        assert shown == [lines[row]["file"] for row in nearest]


def test_prototypes_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(tiny_config(run, "max_steps=2"), CPU)
    features, out = tmp_path / "features", tmp_path / "prototypes"
    extract_features(config_of_run(features, run), CPU)
    store = FeatureStore(features)
    done = script("cluster_assignments", features, out, "--run", run)
    assert done.returncode == 0, done.stderr
    newest = run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip()
    state = torch.load(newest / "shared.pt")["method"]
    # The projection by hand: Linear, batch norm with running statistics, ReLU, Linear.
    x = torch.from_numpy(np.concatenate(list(store.shards())))
    layers = sorted({k.rsplit(".", 1)[0] for k in state if k.startswith("head.mlp.")})
    first, norm, last = layers
    x = x @ state[f"{first}.weight"].T + state.get(f"{first}.bias", torch.zeros(()))
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
    x = ((x - state[f"{norm}.running_mean"]) * scale + state[f"{norm}.bias"]).relu()
    x = x @ state[f"{last}.weight"].T + state.get(f"{last}.bias", torch.zeros(()))
    scores = x / x.norm(dim=1, keepdim=True) @ state["head.prototypes.0.weight"].T
    lines = table(out / "assignments.csv")
    assert [int(line["cluster"]) for line in lines] == scores.argmax(dim=1).tolist()
    said = torch.tensor([float(line["similarity"]) for line in lines])
    torch.testing.assert_close(said, scores.max(dim=1).values, atol=1e-5, rtol=1e-5)
    other = tmp_path / "other"
    pretrain(tiny_config(other, "max_steps=2", "seed=5"), CPU)
    for options, said_of in [
        (("--run", other), "were not made by the newest checkpoint"),
        (("--run", tmp_path), "is no run"),
        (("--run", run, "--set", "1"), "has 1 sets of prototypes, asked for 1"),
        (("--clusters", "49"), "49 of only 48 images"),
        (("--clusters", "0"), "--clusters: must be 1 or more"),
    ]:
        done = script("cluster_assignments", features, tmp_path / "no", *options)
        assert done.returncode in (2, 4) and said_of in done.stderr, done.stderr
    assert not (tmp_path / "no").exists()
    lost = script("nearest_neighbours", features, tmp_path / "x.html", "--files", "gone.png")
    assert lost.returncode == 2 and "'gone.png' has no row" in lost.stderr
