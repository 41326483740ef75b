"""Names of children, and what all pods have in common."""

from types import SimpleNamespace

from tunesmith.manifests.names import child_labels, child_metadata, child_name, queue_labels
from tunesmith.manifests.pods import storage_volumes
from tunesmith_contract.uris import parse_uri

UID = "0f3c9d52-1111-2222-3333-444455556666"
OWNER = SimpleNamespace(
    kind="FineTuneJob",
    metadata=SimpleNamespace(
        name="n" * 40, namespace="team", uid=UID, labels={"kueue.x-k8s.io/queue-name": "gpus", "other": "x"}
    ),
)


def test_child_names_leave_room_for_pod_host_names() -> None:
    name = child_name(OWNER, "prepare", 99)
    assert name == "n" * 40 + "-0f3c9d-prepare-99"
    assert len(name) <= 63


def test_children_are_found_by_label_and_owner() -> None:
    metadata = child_metadata(OWNER, "train", 2)
    assert metadata["labels"] == child_labels(OWNER, "train", 2)
    assert metadata["ownerReferences"][0]["uid"] == UID
    assert queue_labels(OWNER) == {"kueue.x-k8s.io/queue-name": "gpus"}


def test_each_claim_is_mounted_once_and_writable_only_where_asked() -> None:
    volumes, mounts = storage_volumes(
        [
            parse_uri("pvc://data/a"),
            parse_uri("pvc://out/b"),
            parse_uri("configmap://rows/k"),
            parse_uri("hf://a/b"),
        ],
        writable=[parse_uri("pvc://out")],
    )
    assert len(volumes) == 3
    assert {mount["mountPath"]: mount["readOnly"] for mount in mounts} == {
        "/mnt/tunesmith/configmap/rows": True,
        "/mnt/tunesmith/pvc/data": True,
        "/mnt/tunesmith/pvc/out": False,
    }
