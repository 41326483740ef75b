"""Generate stage with a workspace in a bucket: a killed pod loses no paid answer."""

import uuid
from pathlib import Path
from threading import Event
from typing import Any

import psutil
from servers.scripted_server import Received, Reply, serve
from servers.scripted_teacher import Teacher, answer, text_of
from servers.storage_servers import BUCKET, S3Server
from stages.generation_runs import Setting, journalled, prompts
from stages.stage_world import World

from tunesmith_data.pod.storage import Storage
from tunesmith_trainer.worker import run_stage


def test_a_killed_pod_loses_its_disk_and_no_answer(world: World, s3: S3Server, tmp_path: Path) -> None:
    secrets, name = tmp_path / "secrets", uuid.uuid4().hex
    setting = Setting(world, secrets)
    (secrets / "output").mkdir()
    for key, value in s3.secret().items():
        (secrets / "output" / key).write_text(value)
    stored = s3.root / BUCKET / name / "ns/uid"
    enough, release = Event(), Event()
    teacher = Teacher()

    def slow(request: Received) -> Reply:
        if len(server.received) > 20:
            enough.set()
            release.wait(60)
        return teacher(request)

    def run(config: Any) -> Any:
        """A stage in a new pod, with an empty disk."""
        pod = Storage(world.root, secrets, tmp_path / f"disk-{uuid.uuid4().hex}")
        return run_stage(config, pod.for_run(config))

    with serve(slow) as server:
        config = setting.config(server.url, prompts(40)).model_copy(
            update={"output": f"s3://{BUCKET}/{name}"}
        )
        (tmp_path / "first").mkdir()
        pod = world.start(config, TMPDIR=str(tmp_path / "first"), **s3.secret())
        assert enough.wait(60)
        for child in psutil.Process(pod.pid).children(recursive=True):
            child.kill()
        pod.kill()
        pod.communicate(timeout=30)
        known = journalled(stored / "journal")
        assert 20 - config.generation.concurrency <= len(known) <= 20
        release.set()
        server.received.clear()
        made = run(config).generation
        again = {answer(text_of(request)) for request in server.received}
        assert not known & again
        # Not known | again: an upload that was on its way when the pod was killed may have arrived since.
        assert (made.rows, len(journalled(stored / "journal"))) == (40, 40)
        assert 0 < made.calls - 40 <= config.generation.concurrency, (
            "what was on its way may have to be paid for"
        )
        assert run(config).generation == made
        assert len(server.received) == len(again)
    assert made.generated.uri == f"s3://{BUCKET}/{name}/ns/uid/generated/generated.jsonl"
    assert (stored / "generated/generated.jsonl").read_bytes().count(b"\n") == 40
    assert (stored / "data-report/generation.json").is_file()
    prepare = world.prepare_config([], generated=made.generated.uri, output=config.output)
    assert run(prepare.model_copy(update={"output": config.output})).dataset.rows == 40
