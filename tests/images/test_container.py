"""A container gets the image's user and variables, and no more rights than a restricted pod."""

from pathlib import Path

from tunesmith_images.container import Mount, Process, build_specification

CONFIG = {"User": "10001:0", "Env": ["PATH=/opt/venv/bin", "HOME=/tmp", "FLAGS=a=b"], "WorkingDir": "/tmp"}


def test_the_image_says_who_runs_it_and_how() -> None:
    process = Process(["python"], environment={"HOME": "/home"}, groups=[10001])
    started = build_specification(Path("/root-of-image"), CONFIG, process)["process"]
    assert started["user"] == {"uid": 10001, "gid": 0, "additionalGids": [10001]}
    assert started["env"] == ["PATH=/opt/venv/bin", "HOME=/home", "FLAGS=a=b"]
    assert (started["args"], started["cwd"]) == (["python"], "/tmp")


def test_another_user_has_no_other_group_than_that_of_root() -> None:
    process = Process(["python"], user=1000680000)
    started = build_specification(Path("/root-of-image"), CONFIG, process)["process"]
    assert started["user"] == {"uid": 1000680000, "gid": 0, "additionalGids": []}


def test_it_may_write_to_writable_mounts_alone() -> None:
    mounts = [Mount(Path("/data"), "/data"), Mount(Path("/out"), "/out", writable=True)]
    specification = build_specification(Path("/root-of-image"), CONFIG, Process(["python"], mounts))
    assert specification["root"] == {"path": "/root-of-image", "readonly": True}
    options = {
        mount["destination"]: mount["options"] for mount in specification["mounts"] if mount["type"] == "bind"
    }
    assert "ro" in options["/data"]
    assert "rw" in options["/out"]
    assert specification["process"]["noNewPrivileges"] is True
    assert not any(specification["process"]["capabilities"].values())
