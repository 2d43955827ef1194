"""`unlabeled extract`: the features of every image, in files that a kill does not change."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.command import started
from tests_support.extracting import DRAWN, SMALL, contents, extract_config, extracted
from tests_support.ranks import run_ranks
from tests_support.scripts import script
from unlabeled.data.normalize import Normalize
from unlabeled.errors import CheckpointError, ConfigError, DataError
from unlabeled.evaluation.extraction import extract_features
from unlabeled.evaluation.feature_store import FeatureStore
from unlabeled.evaluation.features import extract
from unlabeled.evaluation.subject import frozen, load_encoder, named_dataset
from unlabeled.models.key_maps import LAYOUTS

CPU = torch.device("cpu")
ODD = [b'comma, "quote".png', b"line\nbreak.png", b"return\rhere.png", b" blank .png"]
ODD += [b"\xff\xfe.png", b"=1+1.png"]


def pictures(folder: Path, names: list[bytes]) -> Path:
    """Pictures of noise, no two alike."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in names:
        pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return folder


def on_folder(root: Path, out: Path, *overrides: str) -> FeatureStore:
    config = extract_config(out, "dataset=folder", f"dataset.root={root}", *overrides)
    extract_features(config, CPU)
    return FeatureStore(out)


@pytest.mark.slow
def test_the_rows_are_the_features_of_the_images_in_order(tmp_path: Path) -> None:
    config = extract_config(tmp_path / "out", *DRAWN, "layers=[layer3,output]", "split=test")
    extract_features(config, CPU)
    store = FeatureStore(tmp_path / "out")
    encoder = load_encoder(config)
    source = named_dataset(config).build(split="test")
    expected = extract(
        frozen(encoder.backbone, CPU),
        source,
        encoder.transform.build(),
        normalize=Normalize(encoder.normalization, CPU),
        device=CPU,
        batch_size=9,
        loader=config.loader,
    )
    assert store.layers == {"layer3": 32, "output": 64} and len(store) == 9
    rows = np.concatenate(list(store.shards("output")))
    torch.testing.assert_close(torch.from_numpy(rows), expected.features)
    assert rows.dtype == np.float32 and not np.allclose(rows[0], rows[1])
    assert [each.file for each in store.index()] == expected.names(source)
    assert expected.labels is not None and store.labels is not None
    assert store.labels.tolist() == expected.labels.tolist()
    assert store.classes == source.classes and list(store.broken()) == []
    assert store.source().fingerprint() == source.fingerprint()


@pytest.mark.slow
def test_files_of_other_projects_are_weights_like_ours(tmp_path: Path) -> None:
    out = extracted(tmp_path / "out", "seed=3")
    ours = load_encoder(extract_config(tmp_path / "out", *DRAWN, "seed=3")).backbone.state_dict()
    for layout in ("moco", "detectron2"):
        torch.save(LAYOUTS[layout].content(ours), tmp_path / f"{layout}.pth.tar")
        weights = f"weights={tmp_path / layout}.pth.tar"
        other = extracted(tmp_path / layout, weights)
        assert contents(other / "features") == contents(out / "features")
        card = FeatureStore(other).card
        assert card["weights_sha256"] == FeatureStore(out).card["weights_sha256"]
    torch.save({"state_dict": {"module.fc.weight": torch.ones(3)}}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no tensor of the backbone"):
        extracted(tmp_path / "none", f"weights={tmp_path / 'none.pth'}")
    torch.save({"conv1.weight": ours["conv1.weight"]}, tmp_path / "one.pth")
    with pytest.raises(CheckpointError, match=r"do not fit the backbone(.|\n)*missing \("):
        extracted(tmp_path / "none", f"weights={tmp_path / 'one.pth'}")
    assert not (tmp_path / "none").exists()


def test_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    store = FeatureStore(extracted(tmp_path / "out"))
    shards = list(store.shards())
    assert [shard.shape for shard in shards] == [(12, 64), (12, 64), (12, 64), (5, 64)]
    assert all(isinstance(shard, np.memmap) and not shard.flags.writeable for shard in shards)
    whole = np.concatenate(shards)
    chosen = np.array([40, 0, 12, 11, 12])
    assert np.array_equal(store.rows(chosen), whole[chosen])
    assert [each.shard for each in store.index()] == [store.shard_of(row) for row in range(41)]
    assert store.images.tolist() == list(range(41))
    with pytest.raises(IndexError):
        store.rows(np.array([41]))
    with pytest.raises(DataError, match="no layer 'layer9'; it has output"):
        store.rows(chosen, "layer9")


@pytest.mark.slow
def test_half_as_many_bytes_with_float16(tmp_path: Path) -> None:
    wide = np.concatenate(list(FeatureStore(extracted(tmp_path / "wide")).shards()))
    store = FeatureStore(extracted(tmp_path / "half", "dtype=float16"))
    half = np.concatenate(list(store.shards()))
    assert half.dtype == np.float16 and np.array_equal(half, wide.astype(np.float16))


def test_file_names_survive_whatever_is_in_them(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos", ODD)
    (root / "broken,\n.png").write_bytes(b"no picture")
    store = on_folder(root, tmp_path / "out")
    listed = [os.fsencode(each.file) for each in store.index()]
    assert sorted(listed) == sorted(ODD) and len(store) == len(ODD)
    assert [(os.fsencode(file), bool(why)) for _, file, why in store.broken()] == [
        (b"broken,\n.png", True)
    ]
    assert [each.label for each in store.index()] == [None] * len(ODD) and store.labels is None
    source = store.source()
    for each in store.index():
        assert source.name(each.image) == each.file


@pytest.mark.slow
def test_broken_images_have_no_row(tmp_path: Path) -> None:
    names = [f"{kind}/{number:02}.png".encode() for kind in ("cat", "dog") for number in range(8)]
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
    root = tmp_path / "photos"
    pictures(root / "spare", [b"x.png"])
    for name in names:
        (root / os.fsdecode(name)).write_bytes((root / "spare" / "x.png").read_bytes())
    (root / "spare" / "x.png").unlink()
    (root / "spare").rmdir()
    whole = np.concatenate(list(on_folder(root, tmp_path / "all", "shard_images=4").shards()))
    gone = [0, 4, 5, 6, 7, 15]  # a whole shard among them
    for image in gone:
        (root / os.fsdecode(names[image])).write_bytes(b"")
    store = on_folder(root, tmp_path / "out", "shard_images=4")
    left = [image for image in range(16) if image not in gone]
    assert np.array_equal(np.concatenate(list(store.shards())), whole[left])
    assert store.images.tolist() == left and store.card["shard_rows"] == [3, 0, 4, 3]
    assert [image for image, _, _ in store.broken()] == gone
    assert store.labels is not None
    assert store.labels.tolist() == [int(image >= 8) for image in left]
    for image in left:
        (root / os.fsdecode(names[image])).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of the 16 images can be decoded, .*; names start at .*photos"
    ):
        on_folder(root, tmp_path / "none")


def many(processes: int) -> list[str]:
    """Enough images that a kill finds it at work; each rank encodes five at a time."""
    more = ["dataset.num_samples=1000", "shard_images=20", "layers=[output,layer2]"]
    return [*DRAWN, *more, f"batch_size={5 * processes}"]


def on_rank(out: Path) -> None:
    extracted(out, *many(2))


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(tmp_path_factory.mktemp("alone") / "out", *many(1))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_command_goes_on_and_ends_in_the_same_bytes(
    never_stopped: Path, tmp_path: Path, processes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is killed is the command in processes of its own, and what goes on is its job."""
    killed = tmp_path / "killed"
    arguments = [*SMALL, *many(processes), f"launch.processes={processes}", f"out={killed}"]
    with started("extract", *arguments, cwd=tmp_path) as running:
        deadline = time.monotonic() + 120
        while len(list(killed.glob("shards/[0-9]*.json"))) < 3:
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        running.kill()
    time.sleep(0.5 * (processes - 1))  # its children die with it
    with pytest.raises(DataError, match="not complete"):
        FeatureStore(killed)
    kept = {
        path: path.stat().st_mtime_ns
        for record in killed.glob("shards/[0-9]*.json")
        for path in killed.glob(f"features/*/{record.stem}.npy")
    }
    assert 6 <= len(kept) < 100
    if processes == 1:
        extracted(killed, *many(1))
        said = capsys.readouterr().out
        assert f"{50 - len(kept) // 2} of its 50 shards are new" in said and "images/s" in said
    else:
        run_ranks(on_rank, processes, killed)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(killed) == contents(never_stopped)


@pytest.mark.slow
def test_damaged_and_lost_files_are_made_again(tmp_path: Path) -> None:
    out = extracted(tmp_path / "out", "layers=[output,layer1]")
    whole = contents(out)
    (out / "features" / "layer1" / "00001.npy").write_bytes(whole["features/layer1/00001.npy"][:99])
    (out / "features" / "output" / "00002.npy").unlink()
    (out / "shards" / "00003.json").write_text('{"rows": 5')
    (out / "index.csv").unlink()
    with pytest.raises(DataError, match=r"00001\.npy"):
        list(FeatureStore(out).shards("layer1"))
    extracted(out, "layers=[output,layer1]")
    assert contents(out) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=1", "weights_sha256"),
        ("dataset.seed=1", "dataset"),
        ("dataset.num_samples=40", "images"),
        ("eval_transform.size=12", "view"),
        ("layers=[layer1]", "layers"),
        ("dtype=float16", "dtype"),
        ("shard_images=13", "shard_images"),
        ("split=test", "split"),
    ],
)
def test_a_folder_of_other_features_is_left_alone(tmp_path: Path, change: str, said: str) -> None:
    out = extracted(tmp_path / "out")
    before = contents(out)
    with pytest.raises(ConfigError, match=f"other settings(.|\n)*{said}: "):
        extracted(out, change)
    assert contents(out) == before


@pytest.mark.slow
def test_what_cannot_be_extracted_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other files \(letter.txt\)"):
        extracted(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"no module 'layr3'\. Did you mean 'layer3'"):
        extracted(tmp_path / "out", "layers=[layr3]")
    with pytest.raises(ConfigError, match="layers: needs one or more different names"):
        extracted(tmp_path / "out", "layers=[output,output]")
    dim = ["++normalization={mean: [0.5, 0.5, 0.5], std: [1e-9, 1e-9, 1e-9]}", "dtype=float16"]
    with pytest.raises(DataError, match="too large for float16; take dtype=float32"):
        extracted(tmp_path / "out", *dim)
    with pytest.raises(DataError, match="holds no features"):
        FeatureStore(tmp_path / "mine")


def test_another_program_s_arrays_are_not_unpickled(tmp_path: Path) -> None:
    out = extracted(tmp_path / "out")
    np.save(out / "features" / "output" / "00000.npy", np.array([print], dtype=object))
    with pytest.raises(DataError, match=r"00000\.npy"):
        list(FeatureStore(out).shards())


def test_images_that_changed_are_noticed(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos", [b"a.png", b"b.png"])
    store = on_folder(root, tmp_path / "out")
    (root / "b.png").rename(root / "c.png")
    with pytest.raises(DataError, match="not those that it was made of any more"):
        store.source()


@pytest.mark.slow
def test_the_script_is_the_command(tmp_path: Path) -> None:
    arguments = [*SMALL, *DRAWN, f"out={tmp_path / 'script'}"]
    done = script("extract_features", *arguments)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "script") == contents(extracted(tmp_path / "out"))
    card = json.loads((tmp_path / "script" / "features.json").read_text())
    assert card["complete"] and card["rows"] == 41 and card["weights"] == "random"
    wrong = script("extract_features", *arguments, "seed=3")
    assert wrong.returncode == 2 and wrong.stderr.startswith("unlabeled: out: ")
