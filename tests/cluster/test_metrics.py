"""An embedded Ray reports metrics, listens on this machine alone, and asks for its token."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tierscale.cluster.metrics import Meter

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, os, sys, time, urllib.request
import numpy as np, psutil, ray
from PIL import Image
from tierscale.cluster import scheduler
from tierscale.cluster.session import session
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image

def listening():
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        for connection in process.net_connections("inet"):
            if connection.status == "LISTEN":
                yield connection.laddr.ip

def metrics(address):
    until = time.monotonic() + 60
    while True:
        text = urllib.request.urlopen(address).read().decode()
        if "tierscale_busy_share" in text and "tierscale_tiles" in text:
            return text
        assert time.monotonic() < until, text
        time.sleep(0.5)

scheduler.REPORT_SECONDS = 0.1
folder = sys.argv[1]
Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(folder + "/a.png")
options = Options(tiers=("bicubic",), tile=24)
with session("local", "auto", "cpu", 1) as pool:
    job = ImageJob(folder + "/a.png", folder + "/out.zarr", options)
    summary = upscale_image(job, pool).to_json()
    node = ray.nodes()[0]
    text = metrics(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    mode = ray.remote(lambda: os.environ.get("RAY_AUTH_MODE")).options(num_cpus=0)
    found = {"listening": list(listening()), "token": ray.get(mode.remote())}
print(json.dumps({"summary": summary, "metrics": text, **found}))
"""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def value(text, name, **tags):
    """Sum of a metric's samples that have these tags."""
    lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
    return sum(
        float(line.split()[-1])
        for line in lines
        if all(f'{tag}="{kind}"' in line for tag, kind in tags.items())
    )


def test_prometheus_sees_tiles_shards_seconds_queue_and_bytes(embedded):
    text, summary = embedded["metrics"], embedded["summary"]
    assert (
        value(text, "ray_tierscale_tiles_total", tier="bicubic")
        == summary["tiles"]["bicubic"]
        == 81
    )
    assert value(text, "ray_tierscale_shards_total", level="0") == summary["shards"]["total"]
    shards = Path(summary["output"]).glob("*/c/0/*/*")
    stored = sum(file.stat().st_size for file in shards)
    assert value(text, "ray_tierscale_bytes_total") == stored > 0
    for stage in ("read", "enlarge", "stitch", "write"):
        assert (
            value(text, "ray_tierscale_shard_seconds_count", stage=stage)
            == summary["shards"]["total"]
        )
        assert (
            value(text, "ray_tierscale_shard_seconds_bucket", stage=stage, le="+Inf")
            == summary["shards"]["total"]
        )
    assert (
        value(text, "ray_tierscale_workers", kind="light") == 1
        and "ray_tierscale_queue_depth" in text
    )
    assert 0 <= value(text, "ray_tierscale_busy_share", device="cpu") <= 1


def test_it_listens_on_this_machine_alone_and_asks_for_its_token(embedded):
    assert embedded["token"] == "token"
    assert embedded["listening"] and all(
        place.endswith("127.0.0.1") for place in embedded["listening"]
    ), set(embedded["listening"])


def test_the_dashboard_asks_for_metrics_that_there_are(embedded):
    dashboard = json.loads((ROOT / "cluster/deploy/grafana.json").read_text())
    queried = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_\w+", target["expr"])
    }
    ours = {name for name in queried if "tierscale" in name}
    assert ours and queried - ours == {"ray_node_gpus_utilization"}, (
        "Ray's own, where there are GPUs"
    )
    assert all(f"\n{name}{{" in embedded["metrics"] for name in ours)
    exported = set(re.findall(r"# HELP (ray_tierscale_\w+)", embedded["metrics"]))
    assert {name.removesuffix("_bucket") for name in ours} == exported, (
        "each of our metrics has a panel"
    )


def test_busy_is_the_share_of_all_workers_time(monkeypatch):
    now = [0.0]
    shares = {}
    meter = Meter("cuda", lambda: now[0])
    monkeypatch.setattr(
        meter.busy, "set", lambda share, tags: shares.update({tags["device"]: share})
    )
    meter._enlarging = 6.0
    now[0] = 10.0
    meter.report({"light": 0, "full": 3}, {"light": 1, "full": 1})
    assert shares == {"cuda": 0.3}
    meter.report({"light": 0, "full": 0}, {"light": 0, "full": 0})
    assert shares == {"cuda": 0.3}, "no time, no share"
