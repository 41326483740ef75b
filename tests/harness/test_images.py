"""OCI archives."""

from pathlib import Path

import pytest

from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.images import read_references, write_static_image


def test_the_same_program_gives_the_same_image(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    archives = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for archive in archives:
        write_static_image(archive, "example.test/program:1", program)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    (name,) = read_references(archives[0])
    assert name == "example.test/program:1"


def test_what_is_no_archive_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_text("no archive")
    with pytest.raises(ClusterError, match=r"image\.tar is no OCI archive.*oci-archive:"):
        read_references(path)


def test_a_name_without_a_host_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_static_image(archive, "tunesmith/program:1", Path("/bin/true"))
    with pytest.raises(ClusterError, match="such as localhost/tunesmith/program:1"):
        read_references(archive)
