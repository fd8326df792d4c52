"""Energy counters are read as the kernel shows them, from real file trees."""

import time

import pytest

from vitedge.core.bundle import open_bundle
from vitedge.core.errors import UnavailableError
from vitedge.measure.latency.energy import Ina, Rapl, energy_j, find_meter, measure_energy
from vitedge.measure.latency.request import BenchRequest

ZONE = "sys/class/powercap/intel-rapl:0"
RAPL = {
    f"{ZONE}/name": "package-0",
    f"{ZONE}/energy_uj": "262143000000",
    f"{ZONE}/max_energy_range_uj": "262143328850",
    f"{ZONE}:0/name": "core",  # inside the package: not to be added
    f"{ZONE}:0/energy_uj": "1",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": "1",
}
HWMON = "sys/class/hwmon/hwmon3"
ORIN_NANO = {
    f"{HWMON}/name": "ina3221",
    f"{HWMON}/in1_label": "VDD_IN",
    f"{HWMON}/in1_input": "5000",
    f"{HWMON}/curr1_input": "1600",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV",
    f"{HWMON}/in2_input": "5000",
    f"{HWMON}/curr2_input": "400",
    f"{HWMON}/in7_label": "sum of shunt voltages",
}
AGX_ORIN = {
    f"{HWMON}/name": "ina3221",
    f"{HWMON}/in1_label": "VDD_GPU_SOC",
    f"{HWMON}/in1_input": "20000",
    f"{HWMON}/curr1_input": "500",
    f"{HWMON}/in2_label": "VDD_CPU_CV",
    f"{HWMON}/in2_input": "20000",
    f"{HWMON}/curr2_input": "100",
    "sys/class/hwmon/hwmon4/name": "ina3221",
    "sys/class/hwmon/hwmon4/in1_label": "VIN_SYS_5V0",
    "sys/class/hwmon/hwmon4/in1_input": "5000",
    "sys/class/hwmon/hwmon4/curr1_input": "600",
}


@pytest.mark.parametrize(("counter", "joules"), [("262143300000", 0.3), ("671150", 1.0)])
def test_rapl_counts_packages_alone_and_begins_again_at_zero(tree, counter, joules):
    root = tree(RAPL)
    meter = find_meter(root, "cpu")
    assert meter.source == "RAPL package-0"
    meter.start()
    (root / ZONE / "energy_uj").write_text(f"{counter}\n")
    assert meter.stop() == pytest.approx(joules)


def test_two_packages_are_added(tree):
    second = "sys/class/powercap/intel-rapl:2"
    root = tree({**RAPL, f"{second}/name": "package-1", f"{second}/energy_uj": "0"})
    meter = Rapl(root)
    meter.start()
    assert meter.source == "RAPL package-0, package-1"
    (root / second / "energy_uj").write_text("2000000\n")
    assert meter.stop() == pytest.approx(2.0)


def test_a_counter_that_may_not_be_read_says_how_to_allow_it(tree):
    root = tree({**RAPL})
    counter = root / ZONE / "energy_uj"
    counter.unlink()
    counter.mkdir()  # unreadable for root, too
    with pytest.raises(UnavailableError, match=r"energy_uj cannot be read") as caught:
        find_meter(root, "cpu")
    assert "chmod" in caught.value.fix


@pytest.mark.parametrize(
    ("files", "source", "watts"),
    [
        (ORIN_NANO, "INA3221 VDD_IN", 8.0),
        (AGX_ORIN, "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 15.0),
    ],
    ids=["orin-nano", "agx-orin"],
)
def test_a_jetson_adds_up_power_over_time(tree, files, source, watts):
    meter = find_meter(tree(files), "gpu")
    assert isinstance(meter, Ina) and meter.source == source
    began = time.perf_counter()
    meter.start()
    time.sleep(0.05)
    joules = meter.stop()
    assert 0.05 * watts <= joules <= watts * (time.perf_counter() - began)


def test_power_that_changes_is_added_by_trapezoids():
    assert energy_j([(0, 2), (1, 4), (3, 4)]) == 3 + 8


def test_another_sensor_is_no_meter(tree):
    with pytest.raises(UnavailableError, match="no energy counter"):
        find_meter(tree({**ORIN_NANO, f"{HWMON}/name": "coretemp"}), "cpu")


def test_without_a_meter_nothing_is_run_and_the_report_says_why(tmp_path, small_bundle):
    bundle = open_bundle(small_bundle(tmp_path / "no-model"))  # could not be run
    energy = measure_energy(bundle, BenchRequest(1), tmp_path, on_progress=lambda done: None)
    assert energy.joules_per_inference is None and energy.source is None
    assert energy.note.startswith("not available: ")


def test_energy_of_a_run_is_what_the_counter_gained(tree, bundles):
    root = tree({**ORIN_NANO})
    bundle = open_bundle(bundles["onnxruntime", "int8"])
    energy = measure_energy(bundle, BenchRequest(0.3, threads=1), root, on_progress=print)
    assert energy.source == "INA3221 VDD_IN" and energy.note == ""
    assert energy.watts == pytest.approx(8, rel=0.5)  # it may wait for a core meanwhile
    assert energy.idle_watts == pytest.approx(8, rel=0.5)
    assert energy.joules_per_inference is not None and energy.joules_per_inference > 0
