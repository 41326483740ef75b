"""Objects as they are kept in memory."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.controller_runtime.kept import Packed, Packer, unpacked, version_of_kept

TEXTS = st.text(max_size=3000)


def build_config_map(number: int, kind: str = "ConfigMap", **data: str) -> dict[str, Any]:
    metadata = {
        "name": f"job-{number}-prepare-1-result",
        "namespace": "team",
        "uid": f"{number:032x}",
        "resourceVersion": str(1000 + number),
        "labels": {"tunesmith.dev/stage": "prepare", "tunesmith.dev/attempt": "1", "app": "tunesmith"},
    }
    data = {"record.json": '{"attempt":1,"outcome":"Succeeded","rows":540,"tokens":24000}', **data}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}


@given(st.lists(st.tuples(st.sampled_from(("ConfigMap", "Job")), TEXTS), max_size=12))
def test_objects_come_back_as_they_were(objects: list[tuple[str, str]]) -> None:
    packer = Packer()
    bodies = [build_config_map(number, kind, text=text) for number, (kind, text) in enumerate(objects)]
    kept = [packer.pack(body) for body in bodies]
    assert [unpacked(each) for each in kept] == bodies
    assert [version_of_kept(each) for each in kept] == [1000 + number for number in range(len(bodies))]


def test_what_is_packed_stays_as_it_is() -> None:
    packer = Packer()
    kept = packer.pack(build_config_map(1))
    assert packer.pack(kept) is kept


def test_an_object_takes_only_what_it_does_not_share_with_the_first_of_its_kind() -> None:
    packer = Packer()
    first, *others = (packer.pack(build_config_map(number)) for number in range(300))
    last: Packed = others[-1]
    assert len(last.data) < len(first.data) / 3
    assert last.dictionary is others[-2].dictionary
    assert last.namespace is first.namespace


def test_kinds_have_dictionaries_of_their_own() -> None:
    packer = Packer()
    for number in range(100):
        packer.pack(build_config_map(number))
    assert packer.pack(build_config_map(1)).dictionary
    assert not packer.pack(build_config_map(1, "Job")).dictionary
