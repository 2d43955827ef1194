from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.sources.base import Split
from unlabeled.data.sources.revisited import Revisited
from unlabeled.errors import DataError

DATABASE = ["a_0", "a_1", "b_0", "b_1", "c_0"]


def truth() -> dict[str, Any]:
    return {
        "imlist": DATABASE,
        "qimlist": ["q_a", "q_b"],
        "gnd": [
            {"bbx": [2.0, 1.0, 6.6, 4.2], "easy": [0], "hard": [1], "junk": [4]},
            {"bbx": [0.0, 0.0, 3.0, 2.0], "easy": np.array([2, 3]), "hard": [], "junk": []},
        ],
    }


def lay_out(root: Path, landmarks: str = "roxford5k", **changes: Any) -> Path:
    """Seven images whose red channel is their column and whose green one is their row."""
    (root / landmarks / "jpg").mkdir(parents=True)
    pixels = np.zeros((5, 8, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(8) * 30, np.arange(5)[:, None] * 50
    for name in [*DATABASE, "q_a", "q_b"]:
        Image.fromarray(pixels).save(root / landmarks / "jpg" / f"{name}.jpg", quality=100)
    gnd = root / landmarks / f"gnd_{landmarks}.pkl"
    gnd.write_bytes(pickle.dumps(truth() | changes, 2))
    return root


def revisited(root: Path, split: Split = "test", **fields: Any) -> Revisited:
    return Revisited(Revisited.Config(root=str(root), **fields), split=split)


@pytest.mark.parametrize("landmarks", ["roxford5k", "rparis6k"])
def test_database_and_queries(tmp_path: Path, landmarks: str) -> None:
    lay_out(tmp_path, landmarks)
    database = revisited(tmp_path, "train", landmarks=landmarks)
    queries = revisited(tmp_path, landmarks=landmarks)
    assert [database.name(index) for index in range(len(database))] == DATABASE
    assert [queries.name(index) for index in range(len(queries))] == ["q_a", "q_b"]
    assert database.relevance == () and len(queries.relevance) == 2
    first, second = queries.relevance
    assert [first.easy.tolist(), first.hard.tolist(), first.junk.tolist()] == [[0], [1], [4]]
    assert [second.easy.tolist(), second.hard.tolist(), second.junk.tolist()] == [[2, 3], [], []]
    assert first.easy.dtype == second.hard.dtype == np.int64
    assert queries.image(0).shape == (5, 8, 3) and queries.labels is None


def test_the_folder_itself_is_a_root_and_json_is_preferred(tmp_path: Path) -> None:
    lay_out(tmp_path)
    plain = truth()
    plain["gnd"][1]["easy"] = [2]
    (tmp_path / "roxford5k" / "gnd_roxford5k.json").write_text(json.dumps(plain))
    for root in (tmp_path, tmp_path / "roxford5k"):
        assert revisited(root).relevance[1].easy.tolist() == [2]


def test_cropped_queries_show_the_box_and_count_as_other_data(tmp_path: Path) -> None:
    lay_out(tmp_path)
    whole, cropped = revisited(tmp_path), revisited(tmp_path, crop_queries=True)
    assert np.array_equal(cropped.image(0), whole.image(0)[1:4, 2:7])
    assert cropped.name(0) == "q_a [2, 1, 6.6, 4.2]"
    assert cropped.fingerprint() != whole.fingerprint()
    database = revisited(tmp_path, "train", crop_queries=True)
    assert database.image(0).shape == (5, 8, 3)


def test_missing_files_are_named(tmp_path: Path) -> None:
    message = r"nowhere does not exist \(.* does\); expected below root: roxford5k/gnd"
    with pytest.raises(DataError, match=message):
        revisited(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no roxford5k/gnd_roxford5k.pkl; expected below root"):
        revisited(tmp_path)
    lay_out(tmp_path)
    with pytest.raises(DataError, match=r"has no rparis6k/gnd_rparis6k\.pkl"):
        revisited(tmp_path, landmarks="rparis6k")
    (tmp_path / "roxford5k" / "jpg" / "b_1.jpg").unlink()
    with pytest.raises(DataError, match=r"jpg lacks 1 of the 5 images of roxford5k: b_1.jpg;"):
        revisited(tmp_path, "train")
    assert len(revisited(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gnd": None}, "needs lists under imlist, qimlist, gnd"),
        ({"qimlist": ["q_a"]}, "has 1 queries and what 2 should find"),
        ({"gnd": [{"easy": [0], "hard": []}] * 2}, "a query lacks numbers .*'junk'"),
        ({"gnd": [{"easy": [0], "hard": [0], "junk": []}] * 2}, "twice or beyond the 5"),
        ({"gnd": [{"easy": [5], "hard": [], "junk": []}] * 2}, "twice or beyond the 5"),
    ],
)
def test_a_ground_truth_of_another_form_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lay_out(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        revisited(tmp_path)


def test_a_query_without_a_box_cannot_be_cropped(tmp_path: Path) -> None:
    lay_out(tmp_path, gnd=[{"easy": [0], "hard": [], "junk": []}] * 2)
    assert len(revisited(tmp_path)) == 2
    with pytest.raises(DataError, match="no box bbx of four numbers; set crop_queries=false"):
        revisited(tmp_path, crop_queries=True)
