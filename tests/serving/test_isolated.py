"""Models that are code: whatever they do, it costs their own process and nobody else's."""

import gc
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import ConfigurationError, Corrupt
from holdtrue.features import FeatureSet, numeric
from holdtrue.serving import Bundle, Input, Model, ModelFile, PythonModel, holds_code, load_model, pack_model
from holdtrue.serving.package import BadPackage, Package, pack, unpack
from holdtrue.serving.runtime import ModelFailed, ModelFell, ModelRefused, WrongShape
from tests.serving import scorers, scorers_helper
from tests.serving.plane_home import PROJECT, Home, flight

NAMES = ("way", "amount")
WEIGHT = {"weight.f32": np.float32(0.25).tobytes()}


def python(**changes: Any) -> PythonModel:
    settings: dict[str, Any] = {"files": WEIGHT, "modules": [scorers_helper], "seconds": 5.0, "memory_mb": 256}
    return PythonModel(scorers.Scorer, **{**settings, **changes})


def loaded(model: PythonModel) -> Model:
    data = model.packed(NAMES)
    return load_model(data, bytes_hash(data), "python")


def row(way: float, amount: float = 4.0) -> Any:
    return np.array([[way, amount]], np.float32)


def answers_again(model: Model) -> None:
    """Ask until the next process answers."""
    for _ in range(100):
        try:
            assert model.score(row(0.0)).tolist() == [2.0]
        except ModelFell:
            continue
        return
    pytest.fail("no process took the place of the one that fell")


def children() -> set[str]:
    tasks = Path("/proc/self/task")
    return {pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def test_a_class_answers_with_its_files_arguments_and_modules_in_pieces_of_its_rows() -> None:
    model = loaded(python(arguments={"at": 1.0}, rows=4))
    matrix = np.column_stack([np.zeros(11), np.arange(11)]).astype(np.float32)
    assert model.score(matrix).tolist() == (np.arange(11) * 0.5 + 1.0).tolist()
    assert (model.features, model.names, model.aside, model.memory) == (2, NAMES, True, 256 << 20)


def test_what_the_code_raises_or_gives_wrongly_leaves_its_process_alive() -> None:
    model = loaded(python())
    before = children()
    for way, error in ((1.0, ModelFailed), (6.0, ModelFailed), (8.0, WrongShape), (9.0, ModelFailed)):
        with pytest.raises(error) as failed:
            model.score(row(way))
        assert not isinstance(failed.value, ModelFell)
    assert model.score(row(7.0)).tolist() == [2.0]
    assert children() <= before


@pytest.mark.parametrize(
    ("way", "seconds", "why"),
    [
        (2.0, 0.3, "It did not answer within 0.3 seconds."),
        (3.0, 5.0, "It took more than 256 MiB of memory."),
        (4.0, 5.0, "Its process was ended by SIGSEGV."),
        (5.0, 5.0, "Its process ended with status 7."),
    ],
)
def test_a_process_that_hangs_eats_memory_or_dies_is_replaced(way: float, seconds: float, why: str) -> None:
    model = loaded(python(seconds=seconds))
    with pytest.raises(ModelFell) as fell:
        model.score(row(way))
    assert fell.value.why == why
    answers_again(model)
    with pytest.raises(ModelFell):
        model.score(row(way))
    answers_again(model)


def test_the_process_may_touch_nothing_of_the_machine() -> None:
    data = PythonModel(scorers.Forbidden, modules=[scorers_helper], seconds=5.0).packed(["a"])
    model = load_model(data, bytes_hash(data), "python")
    assert model.score(np.ones((1, 1), np.float32)).tolist() == [1.0]


def test_the_process_ends_when_nobody_holds_the_model() -> None:
    before = children()
    model = loaded(python())
    assert len(children() - before) == 1
    del model
    gc.collect()
    assert children() <= before


def test_code_that_answers_with_a_number_is_compared_by_its_spread() -> None:
    large = PythonModel(scorers.Large, modules=[scorers_helper], seconds=5.0)
    sample = np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32)
    plain, spread = (pack_model(large, NAMES, sample, number=number).parity for number in (False, True))
    # The same rounding, which is too much for a probability, and nothing of a number of this size.
    assert plain["max_difference"] > 0.01
    assert spread["max_difference"] < 1e-6
    assert spread["max_difference"] == pytest.approx(plain["max_difference"] / large.predict(sample).std(), rel=1e-6)
    assert spread["changed_decisions"] == 0.0


COLOURS = ("red", "green", "blue")


def test_code_gives_the_probability_of_each_class_that_its_package_names() -> None:
    declared = PythonModel(scorers.Colours, modules=[scorers_helper], seconds=5.0, rows=16, classes=COLOURS)
    sample = np.random.default_rng(3).normal(size=(40, 2)).astype(np.float32)
    packed = pack_model(declared, NAMES, sample)
    assert (packed.parity["n"], packed.parity["changed_decisions"]) == (40, 0.0)
    assert packed.parity["max_difference"] < 1e-6
    model = load_model(packed.data, bytes_hash(packed.data), "python")
    assert (model.classes, model.columns) == (COLOURS, 0)
    assert model.score(sample) == pytest.approx(declared.predict_proba(sample), abs=1e-6)
    for amount, why in ((70.0, "their sum 3"), (80.0, "the least is -0.5"), (90.0, "the shape [1, 2] for 1 rows")):
        with pytest.raises(ModelFailed) as failed:
            model.score(row(0.0, amount))
        assert why in failed.value.why
        assert not isinstance(failed.value, ModelFell)
    with pytest.raises(ModelFailed):
        pack_model(declared, NAMES, np.concatenate([sample, row(0.0, 70.0)]))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": ("red", "green")}, "the second's chance"),
        ({"classes": ("red", "green", "red")}, "different names"),
        ({"classes": ("red", "green", "")}, "no name"),
        ({"classes": COLOURS, "columns": 3}, "columns to another model"),
    ],
)
def test_classes_that_are_none_are_refused_before_anything_runs(changes: Mapping[str, Any], why: str) -> None:
    with pytest.raises(BadPackage, match="cannot be used") as bad:
        python(**changes).packed(NAMES)
    assert why in bad.value.why


ORPHAN = """
import sys, threading, time
from pathlib import Path
import numpy as np
from tests.serving.test_isolated import children, loaded, python, row
model = loaded(python(seconds=1.0))
print(*children(), flush=True)
model.score(row(float(sys.argv[1])))
time.sleep(600)
"""


@pytest.mark.parametrize("way", [0.0, 2.0])
def test_no_process_outlives_the_one_that_started_it(way: float) -> None:
    command = [sys.executable, "-c", ORPHAN, str(way)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = parent.stdout.readline().split()
    assert pids
    parent.kill()
    parent.wait()
    parent.stdout.close()
    # One that waits for its parent learns of its end; one that hangs is ended by its own alarm.
    for pid in pids:
        for _ in range(1000):
            if not running(pid):
                break
            time.sleep(0.02)
        assert not running(pid)


def running(pid: str) -> bool:
    """Tell whether a process runs; one that ended and was not asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_code_that_cannot_be_loaded_is_refused_with_what_it_says() -> None:
    broken = PythonModel(scorers.Broken, modules=[scorers_helper])
    with pytest.raises(ModelRefused, match="not served") as refused:
        loaded(broken)
    assert "no weights" in refused.value.why
    with pytest.raises(ModelRefused) as refused:
        loaded(python(modules=[]))
    assert "scorers_helper" in refused.value.why
    with pytest.raises(ModelRefused) as refused:
        loaded(PythonModel(scorers.Wider, modules=[scorers_helper], columns=3))
    assert "several numbers" in refused.value.why


def test_a_class_that_no_other_process_can_import_is_no_model() -> None:
    class Local:
        pass

    with pytest.raises(ConfigurationError, match="Local"):
        PythonModel(Local).packed(NAMES)
    for changes in ({"seconds": 0.0}, {"seconds": 26.0}, {"memory_mb": 1}, {"rows": 0}, {"columns": -1}):
        with pytest.raises(BadPackage):
            python(**changes).packed(NAMES)


def test_a_class_that_does_not_take_its_files_and_arguments_is_refused_where_it_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="cannot be made") as refused:
        python(arguments={"colour": "red"}).packed(NAMES)
    assert "colour" in refused.value.why
    assert refused.value.mend == "Let it take them: def __init__(self, files, colour)."
    with pytest.raises(ConfigurationError, match="cannot be made"):
        PythonModel(scorers.Bare).packed(NAMES)
    with pytest.raises(ConfigurationError, match="no method predict"):
        PythonModel(scorers.Mute).packed(NAMES)


def test_a_class_is_packed_with_its_parity_measured() -> None:
    sample = np.column_stack([np.zeros(50), np.linspace(0, 1, 50)]).astype(np.float32)
    packed = pack_model(python(), NAMES, sample)
    assert (packed.format, packed.parity["n"], packed.parity["changed_decisions"]) == ("python", 50, 0.0)
    assert packed.parity["max_difference"] < 1e-6
    assert packed.data == pack_model(python(), NAMES, sample).data
    assert holds_code(packed.data, "python")


def test_every_byte_of_a_package_is_accounted_for() -> None:
    whole = python().packed(NAMES)
    assert pack(unpack(whole)) == whole
    for cut in (0, 7, 8, 20, 24, 60, len(whole) - 1):
        with pytest.raises(BadPackage):
            unpack(whole[:cut])
    with pytest.raises(BadPackage):
        unpack(whole + b"x")
    with pytest.raises(BadPackage):
        unpack(b"HTMODEL1other   " + whole[16:])
    for name in ("../x", "/x", "a//b", "a/../b", "", "a\\b", "x" * 300):
        with pytest.raises(BadPackage):
            pack(Package("python", {}, {name: b""}))


def test_a_package_that_says_nonsense_of_itself_is_refused_before_any_process() -> None:
    good = unpack(python().packed(NAMES))
    before = children()
    for changes in (
        {"features": ["a", "a"]},
        {"features": [1, 2]},
        {"entry": "os:system; x"},
        {"entry": "../scorers:Scorer"},
        {"arguments": [1]},
        {"seconds": "soon"},
        {"seconds": 1e9},
        {"memory": -1},
        {"rows": 1 << 40},
    ):
        data = pack(Package("python", {**good.about, **changes}, good.files))
        with pytest.raises(BadPackage):
            load_model(data, bytes_hash(data), "python")
    assert children() <= before  # one of an earlier test may end meanwhile
    whole = python().packed(NAMES)
    with pytest.raises(Corrupt):
        load_model(whole[:-1] + b"?", bytes_hash(whole), "python")


def bundle(home: Home, release: str, data: bytes, service: str = "judge") -> Bundle:
    names = unpack(data).about["features"]
    return Bundle(
        release=release,
        project=PROJECT,
        service=service,
        inputs=tuple(Input(name, "FP32") for name in names),
        contract=None,
        features=FeatureSet((), tuple(numeric(name) for name in names), {}).to_json(),
        model=ModelFile("python", home.blobs.put(data)),
        output="score",
    )


def asked(way: float, amount: float = 4.0) -> Mapping[str, float]:
    return {"way": way, "amount": amount}


@pytest.fixture
def slow_model() -> bytes:
    return python(seconds=1.5).packed(NAMES)


def test_a_data_plane_outlives_whatever_its_model_does(home: Home, slow_model: bytes) -> None:
    quick = home.bundle("rel_quick", "champion")
    home.publish_more([bundle(home, "rel_code", slow_model), quick], fallback=0.75)
    plane = home.start(HOLDTRUE_MODEL_CODE="isolated")
    plane.until_acked()

    def predict(way: float, amount: float = 4.0) -> Any:
        return plane.client.post("/predict/judge", json=asked(way, amount))

    assert predict(0.0).json()["outputs"] == {"score": 2.0}
    for way in (1.0, 3.0, 4.0, 5.0, 8.0):
        answer = predict(way)
        assert (answer.status_code, answer.json()["outputs"], answer.json()["fallback"]) == (200, {"score": 0.75}, True)
        plane.until(lambda: predict(0.0).json()["outputs"] == {"score": 2.0})
    with ThreadPoolExecutor(2) as pool:
        hangs = pool.submit(predict, 2.0)
        # Nobody else waits for a model that hangs: neither another service nor the health of the process.
        assert plane.infer([flight(1)]).status_code == 200
        assert plane.client.get("/health/ready").status_code == 200
        assert not hangs.done()
        assert hangs.result().json()["outputs"] == {"score": 0.75}
    plane.until(lambda: predict(0.0).json()["outputs"] == {"score": 2.0})
    kept = [each for each in home.records("prediction", "judge") if each["fallback"]]
    assert {each["fallback_release"] for each in kept} == {""}


def test_without_a_fallback_the_answer_is_an_error_of_the_protocol(home: Home, slow_model: bytes) -> None:
    home.publish_more([bundle(home, "rel_code", slow_model)], fallback=None)
    plane = home.start(HOLDTRUE_MODEL_CODE="isolated")
    plane.until_acked()
    tensors = [{"name": name, "datatype": "FP32", "shape": [1], "data": [5.0]} for name in NAMES]
    refused = plane.client.post("/v2/models/judge/infer", json={"inputs": tensors})
    assert (refused.status_code, [*refused.json()]) == (503, ["error"])
    named = plane.client.post("/predict/judge", json=asked(1.0)).json()["error"]
    assert named["code"] == "no_answer"
    assert "way" not in str(named)


def test_a_number_that_is_no_probability_is_no_answer_of_a_model_of_an_event(home: Home, slow_model: bytes) -> None:
    event = replace(bundle(home, "rel_code", slow_model), event=True)
    # A file that is served as it is may predict anything.
    number = replace(event, release="rel_number", service="number", event=False)
    alone = replace(event, release="rel_alone", service="alone")
    home.publish_more([event, number], fallback=0.25)
    plane = home.start(HOLDTRUE_MODEL_CODE="isolated")
    plane.until_acked()

    def score(amounts: list[float], service: str = "judge") -> Any:
        rows = len(amounts)
        tensors = [
            {"name": "way", "datatype": "FP32", "shape": [rows], "data": [0.0] * rows},
            {"name": "amount", "datatype": "FP32", "shape": [rows], "data": amounts},
        ]
        return plane.client.post(f"/v2/models/{service}/infer", json={"inputs": tensors})

    # One row spoils no other; what is off by less than a thousandth is rounding.
    mixed = score([1.0, 4.0, -3.0, 2.0, 2.0002, 0.0]).json()
    assert mixed["outputs"][0]["data"] == pytest.approx([0.5, 0.25, 0.25, 1.0, 1.0, 0.0], abs=1e-9)
    assert mixed["parameters"]["fallback"] == [False, True, True, False, False, False]
    assert score([4.0], "number").json()["outputs"][0]["data"] == [2.0]
    assert [each["fallback"] for each in home.records("prediction", "judge")] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]

    home.publish_more([alone], fallback=None)
    plane.until_acked()
    refused = score([4.0], "alone")
    assert (refused.status_code, [*refused.json()]) == (503, ["error"])


def test_code_is_not_run_unless_the_operator_allows_it(home: Home, slow_model: bytes) -> None:
    home.publish_more([bundle(home, "rel_code", slow_model)], fallback=None)
    plane = home.start()
    ack = plane.until_acked()
    assert "not allowed" in ack["failed"]["rel_code"]
    assert plane.client.post("/predict/judge", json=asked(0.0)).status_code == 503


def test_a_request_that_kills_the_process_takes_no_other_request_with_it_where_nothing_else_answers(
    home: Home, slow_model: bytes
) -> None:
    home.publish_more([bundle(home, "rel_code", slow_model)], fallback=None)
    plane = home.start(HOLDTRUE_MODEL_CODE="isolated")
    plane.until_acked()
    ways = [0.0, 5.0, 0.0, 0.0]
    with ThreadPoolExecutor(len(ways)) as pool:
        found = list(pool.map(lambda way: plane.client.post("/predict/judge", json=asked(way)).status_code, ways))
    assert found == [200, 503, 200, 200]
