import functools
import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading

import pytest
import torch

from zoo.data import CIFAR10, MNIST
from zoo.data.cifar import read_pickle
from zoo.data.download import Remote, fetch, readable_size, unpack
from zoo.errors import UserError


@pytest.fixture
def server(tmp_path):
    """A server of the files in a folder, on this machine only."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def remote(folder, url, name, content):
    (folder / name).write_bytes(content)
    return Remote(f"{url}/{name}", len(content), hashlib.md5(content).hexdigest())


def test_fetched_files_are_whole_and_named_last(server, tmp_path, capsys):
    folder, url = server
    wanted = remote(folder, url, "set.bin", b"x" * 3_000_000)
    target = fetch(wanted, tmp_path / "here", "Toys", "MIT")
    assert target.read_bytes() == b"x" * 3_000_000
    said = capsys.readouterr().err
    for part in ("Toys", "set.bin", "3 MB", url, str(tmp_path / "here"), "MIT"):
        assert part in said


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    folder, url = server
    wanted = remote(folder, url, "set.bin", b"right")
    (folder / "set.bin").write_bytes(b"wrong")
    with pytest.raises(UserError, match=r"MD5 .* published is") as caught:
        fetch(wanted, tmp_path / "here", "Toys", "MIT")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "here").iterdir()) == []


def test_without_a_network_one_line_says_what_where_and_how(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.bin"
    with pytest.raises(UserError) as caught:
        fetch(Remote(url, 12, "0"), tmp_path, "Toys", "MIT")
    for part in ("Toys", "set.bin (12 bytes)", url, f"put it at {tmp_path / 'set.bin'} by hand"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_readable():
    assert [readable_size(n) for n in (12, 28_881, 170_498_071, 147 * 10**9)] == [
        "12 bytes",
        "29 kB",
        "170 MB",
        "147 GB",
    ]


def archive_of(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_archives_can_not_write_elsewhere(tmp_path):
    bad = archive_of(tmp_path / "bad.tar.gz", ("inside/good", b"x"), ("../escaped", b"x"))
    with pytest.raises(UserError, match=r"bad\.tar\.gz can't be unpacked"):
        unpack(bad, tmp_path / "set" / "out", "inside")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "set" / "escaped").exists()
    assert list((tmp_path / "set").iterdir()) == []
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(UserError, match="can't be unpacked"):
        unpack(damaged, tmp_path / "set" / "out")
    with pytest.raises(UserError, match="can't be unpacked"):
        unpack(archive_of(tmp_path / "other.tar.gz", ("a", b"")), tmp_path / "set" / "out", "inside")


def test_cifar_is_fetched_unpacked_and_checked(server, tmp_path, monkeypatch):
    folder, url = server
    example = tmp_path / "example"
    arguments = {**CIFAR10.write_example(example), "root": str(tmp_path / "root"), "download": True, "check": True}
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as tar:
        tar.add(example / CIFAR10.folder_name, CIFAR10.folder_name)
    content = (folder / "cifar.tar.gz").read_bytes()
    monkeypatch.setattr(CIFAR10, "remotes", (remote(folder, url, "cifar.tar.gz", content),))
    data = CIFAR10(**arguments)
    data.prepare_data()
    with pytest.raises(UserError, match=r"data_batch_1 is not the published file .* --data.check false"):
        data.setup()
    sums = {
        part: {n: hashlib.md5((example / CIFAR10.folder_name / n).read_bytes()).hexdigest() for n in files}
        for part, files in CIFAR10.files_md5.items()
    }
    monkeypatch.setattr(CIFAR10, "files_md5", sums)
    data.setup()
    assert len(data.samples("test")) == 20
    (folder / "cifar.tar.gz").unlink()
    CIFAR10(**arguments).prepare_data()  # everything is there: no second request


def test_an_archive_put_there_by_hand_is_unpacked(tmp_path, monkeypatch):
    example = tmp_path / "example"
    arguments = {**CIFAR10.write_example(example), "root": str(tmp_path)}
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(example / CIFAR10.folder_name, CIFAR10.folder_name)
    with pytest.raises(UserError, match="is not the published file"):
        CIFAR10(**arguments | {"check": True}).prepare_data()
    data = CIFAR10(**arguments)
    data.prepare_data()
    data.setup()
    assert len(data.samples("train")) == 30


def test_mnist_is_fetched_packed(server, tmp_path, monkeypatch):
    folder, url = server
    arguments = {
        **MNIST.write_example(tmp_path / "example"),
        "root": str(tmp_path / "root"),
        "download": True,
        "check": True,
    }
    packed = [
        remote(
            folder,
            url,
            r.name,
            gzip.compress((tmp_path / "example/MNIST/raw" / r.name.removesuffix(".gz")).read_bytes()),
        )
        for r in MNIST.remotes
    ]
    monkeypatch.setattr(MNIST, "remotes", tuple(packed))
    data = MNIST(**arguments)
    data.prepare_data()
    data.setup()
    assert len(data.samples("test")) == 20
    gone = tmp_path / "root/MNIST/raw/t10k-labels-idx1-ubyte.gz"
    gone.write_bytes(gzip.compress(b"other"))
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz is not the published file"):
        MNIST(**arguments).setup("test")


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path):
    data = CIFAR10(root=str(tmp_path))
    data.prepare_data()
    with pytest.raises(UserError) as caught:
        data.setup("fit")
    for part in (
        str(tmp_path / "cifar-10-batches-py"),
        "data_batch_1",
        "--data.download true",
        "170 MB",
        "cs.toronto.edu",
    ):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_root_is_the_environment_s(tmp_path, monkeypatch):
    arguments = MNIST.write_example(tmp_path)
    del arguments["root"]
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    data = MNIST(**arguments)
    data.setup("test")
    assert len(data.samples("test")) == 20
    monkeypatch.delenv("ZOO_DATA")
    assert str(MNIST().folder) == "data/MNIST/raw"


def test_a_pickle_runs_nothing(tmp_path):
    import pickle

    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    class Codec:
        def __reduce__(self):
            import codecs

            return codecs.encode, ("x", "rot13")

    for attack in (Attack(), {"data": Codec()}, {"data": Attack()}, torch.nn.Linear(1, 1)):
        path = tmp_path / "batch"
        path.write_bytes(pickle.dumps(attack, protocol=2))
        with pytest.raises(UserError, match="can't be read as a batch"):
            read_pickle(path)
    assert not (tmp_path / "ran").exists()
