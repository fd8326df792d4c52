"""Files as real Jetsons have them under /: paths, names and units of each JetPack."""

CPU = "sys/devices/system/cpu/cpufreq"
THERMAL = "sys/class/thermal"
ORIN_NANO_MODES = """\
# < POWER_MODEL ID=id_num NAME=mode_name >
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_clk_cap/emc
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 612000000
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1
< POWER_MODEL ID=3 NAME=7W >
< PM_CONFIG DEFAULT=1 >"""
XAVIER_NX_MODES = """\
< POWER_MODEL ID=0 NAME=MODE_15W_2CORE >
< POWER_MODEL ID=2 NAME=MODE_15W_6CORE >
< POWER_MODEL ID=5 NAME=MODE_10W_DESKTOP >
< POWER_MODEL ID=7 NAME=MODE_20W_4CORE >
< POWER_MODEL ID=8 NAME=MODE_20W_6CORE >
< PM_CONFIG DEFAULT=2 >"""
THOR_MODES = """\
< POWER_MODEL ID=0 NAME=MAXN >
< POWER_MODEL ID=1 NAME=120W >
< POWER_MODEL ID=2 NAME=90W >
< PM_CONFIG DEFAULT=1 >"""


def policies(*numbers, low, high, governor="schedutil"):
    """cpufreq of groups of cores, kHz."""
    files = {}
    for number in numbers:
        files |= {
            f"{CPU}/policy{number}/scaling_min_freq": str(low),
            f"{CPU}/policy{number}/scaling_max_freq": str(high),
            f"{CPU}/policy{number}/scaling_governor": governor,
        }
    return files


def devfreq(name, low, high, governor="nvhost_podgov"):
    """A devfreq device, Hz."""
    folder = f"sys/class/devfreq/{name}"
    return {
        f"{folder}/min_freq": str(low),
        f"{folder}/max_freq": str(high),
        f"{folder}/cur_freq": str(low),
        f"{folder}/governor": governor,
    }


def zone(number, kind, millidegrees, **trips):
    """A thermal zone and its trip points: their type, millidegrees."""
    folder = f"{THERMAL}/thermal_zone{number}"
    files = {f"{folder}/type": kind, f"{folder}/temp": str(millidegrees)}
    for place, (trip, limit) in enumerate(trips.items()):
        files[f"{folder}/trip_point_{place}_type"] = trip
        files[f"{folder}/trip_point_{place}_temp"] = str(limit)
    return files


def cooler(number, kind, state):
    """A cooling device."""
    folder = f"{THERMAL}/cooling_device{number}"
    return {f"{folder}/type": kind, f"{folder}/cur_state": str(state)}


ORIN_NANO = {  # JetPack 6.2, as it boots: 25 W, nothing locked; debugfs is root's
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0",
    "etc/nvpmodel.conf": ORIN_NANO_MODES,
    "var/lib/nvpmodel/status": "pmode:0001",
    **policies(0, 4, low=729600, high=1344000),
    **devfreq("17000000.gpu", 306000000, 918000000),
    **devfreq("15340000.vic", 115200000, 729600000),
    **zone(0, "cpu-thermal", 51718, active=51000, passive=99000, critical=104500),
    **zone(1, "gpu-thermal", 52031, passive=99000, critical=104500),
    **zone(2, "cv0-thermal", -256000, passive=99000),
    **zone(8, "tj-thermal", 53000, passive=99000, critical=104500),
    **cooler(0, "pwm-fan", 2),
    **cooler(1, "cpufreq-cpu0", 0),
    **cooler(2, "devfreq-17000000.gpu", 0),
    **cooler(3, "gpu-throttle-alert", 0),
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
}
XAVIER_NX = {  # JetPack 5.1, read by root
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref",
    "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
    "etc/nvpmodel.conf": XAVIER_NX_MODES,
    "var/lib/nvpmodel/status": "pmode:0008 fmode:quiet",
    **policies(0, 2, 4, low=1190400, high=1420800),
    **devfreq("17000000.gv11b", 114750000, 1109250000),
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "1600000000",
    "sys/kernel/debug/bpmp/debug/clk/emc/min_rate": "204000000",
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "1866000000",
    "sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked": "0",
    **zone(0, "AO-therm", 40500),
    **zone(1, "CPU-therm", 42500, passive=86000),
    **zone(4, "PMIC-Die", 100000, hot=120000),
}
THOR = {  # JetPack 7, after jetson_clocks
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "etc/nvpmodel.conf": THOR_MODES,
    "var/lib/nvpmodel/status": "pmode:0000",
    **policies(0, 2, low=2601000, high=2601000),
    **devfreq("gpu-gpc-0", 1575000000, 1575000000),
    **devfreq("gpu-nvd-0", 315000000, 1692000000),
    **devfreq("bwmgr", 4266000000, 4266000000, "userspace"),
    **zone(0, "cpu-thermal", 48000, passive=105000),
}
ORIN_LOCKED = (  # the governor of JetPack 7's jetson_clocks; before, both ends of the range
    policies(0, 4, low=1728000, high=1728000)
    | devfreq("17000000.gpu", 306000000, 1020000000, "performance")
    | {"var/lib/nvpmodel/status": "pmode:0002"}
)
QUERY = """#!/bin/sh
[ "$1" = -q ] && printf 'NVPM WARN: fan mode is not set!\\nNV Power Mode: MODE_30W_ALL\\n3\\n'"""
